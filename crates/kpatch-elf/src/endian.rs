//! Byte order, and words read by it.

/// Byte order of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first (s390x).
    Big,
}

impl Endian {
    /// Reads an unsigned 16-bit word at `offset`, `None` past the end.
    pub fn u16(self, bytes: &[u8], offset: usize) -> Option<u16> {
        let word = bytes.get(offset..)?.first_chunk::<2>()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(*word),
            Self::Big => u16::from_be_bytes(*word),
        })
    }

    /// Reads an unsigned 32-bit word at `offset`, `None` past the end.
    pub fn u32(self, bytes: &[u8], offset: usize) -> Option<u32> {
        let word = bytes.get(offset..)?.first_chunk::<4>()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(*word),
            Self::Big => u32::from_be_bytes(*word),
        })
    }

    /// Reads an unsigned 64-bit word at `offset`, `None` past the end.
    pub fn u64(self, bytes: &[u8], offset: usize) -> Option<u64> {
        let word = bytes.get(offset..)?.first_chunk::<8>()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(*word),
            Self::Big => u64::from_be_bytes(*word),
        })
    }
}
