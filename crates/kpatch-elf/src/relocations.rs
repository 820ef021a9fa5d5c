//! The relocations of a section: entries of the file that are decoded when asked for, or a table of our own.

use crate::endian::Endian;
use crate::ids::SymbolId;

/// Size of an `Elf64_Rela`, bytes.
const ENTRY: usize = 24;

/// One relocation with its addend (`Elf64_Rela`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the relocated field in its section, bytes.
    pub offset: u64,
    /// `R_*` of the machine.
    pub kind: u32,
    /// The symbol, `None` for the null symbol.
    pub symbol: Option<SymbolId>,
    /// The addend.
    pub addend: i64,
}

/// The relocations of a section in ascending order of offset.
///
/// Those of a file stay where they are until somebody changes them: most are looked at once or never.
#[derive(Clone, Debug)]
pub struct Relocations<'d>(Entries<'d>);

#[derive(Clone, Debug)]
enum Entries<'d> {
    Little(&'d [[u8; ENTRY]]),
    Big(&'d [[u8; ENTRY]]),
    Table(Vec<Relocation>),
}

impl<'d> Relocations<'d> {
    /// No relocations.
    pub const fn new() -> Self {
        Relocations(Entries::Table(Vec::new()))
    }

    /// `Elf64_Rela` entries of a file, which must be in order.
    pub(crate) fn of_file(entries: &'d [[u8; ENTRY]], endian: Endian) -> Self {
        Relocations(match endian {
            Endian::Little => Entries::Little(entries),
            Endian::Big => Entries::Big(entries),
        })
    }

    /// All of them.
    #[inline]
    pub fn all(&self) -> RelocationSlice<'_> {
        match &self.0 {
            Entries::Little(entries) => RelocationSlice::Little(entries),
            Entries::Big(entries) => RelocationSlice::Big(entries),
            Entries::Table(table) => RelocationSlice::Table(table),
        }
    }

    /// Their number.
    #[inline]
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// True if there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them in order.
    #[inline]
    pub fn iter(&self) -> RelocationSlice<'_> {
        self.all()
    }

    /// A table of them that can be changed. Whoever changes it keeps the order.
    pub fn to_mut(&mut self) -> &mut Vec<Relocation> {
        if !matches!(self.0, Entries::Table(_)) {
            self.0 = Entries::Table(self.all().collect());
        }
        match &mut self.0 {
            Entries::Table(table) => table,
            // Made a table right above.
            Entries::Little(_) | Entries::Big(_) => unreachable!(),
        }
    }
}

impl Default for Relocations<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Vec<Relocation>> for Relocations<'_> {
    fn from(table: Vec<Relocation>) -> Self {
        Relocations(Entries::Table(table))
    }
}

impl PartialEq for Relocations<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> IntoIterator for &'a Relocations<'_> {
    type Item = Relocation;
    type IntoIter = RelocationSlice<'a>;

    fn into_iter(self) -> RelocationSlice<'a> {
        self.iter()
    }
}

/// Some relocations in a row: what can be borrowed of [`Relocations`], and an iterator over it.
#[derive(Clone, Copy, Debug)]
pub enum RelocationSlice<'a> {
    /// Entries of a little-endian file.
    Little(&'a [[u8; ENTRY]]),
    /// Entries of a big-endian file.
    Big(&'a [[u8; ENTRY]]),
    /// Entries of a table.
    Table(&'a [Relocation]),
}

impl<'a> RelocationSlice<'a> {
    /// The relocation at a position.
    #[inline]
    pub fn get(self, index: usize) -> Option<Relocation> {
        match self {
            Self::Little(entries) => entries.get(index).map(little),
            Self::Big(entries) => entries.get(index).map(big),
            Self::Table(table) => table.get(index).copied(),
        }
    }

    /// The first one.
    #[inline]
    pub fn first(self) -> Option<Relocation> {
        self.get(0)
    }

    /// True if there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many have offsets below a limit.
    #[inline]
    fn before(self, limit: u64) -> usize {
        match self {
            Self::Little(entries) => entries.partition_point(|entry| little(entry).offset < limit),
            Self::Big(entries) => entries.partition_point(|entry| big(entry).offset < limit),
            Self::Table(table) => table.partition_point(|entry| entry.offset < limit),
        }
    }

    /// Those with `start <= offset < end`, found by binary search.
    #[must_use]
    pub fn between(self, start: u64, end: u64) -> RelocationSlice<'a> {
        let from = self.before(start);
        let to = self.before(end).max(from);
        match self {
            Self::Little(entries) => Self::Little(&entries[from..to]),
            Self::Big(entries) => Self::Big(&entries[from..to]),
            Self::Table(table) => Self::Table(&table[from..to]),
        }
    }
}

#[expect(clippy::copy_iterator, reason = "it is handed on like the slice that it is")]
impl Iterator for RelocationSlice<'_> {
    type Item = Relocation;

    #[inline]
    fn next(&mut self) -> Option<Relocation> {
        match self {
            Self::Little(entries) => entries.split_off_first().map(little),
            Self::Big(entries) => entries.split_off_first().map(big),
            Self::Table(table) => table.split_off_first().copied(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = match self {
            Self::Little(entries) | Self::Big(entries) => entries.len(),
            Self::Table(table) => table.len(),
        };
        (length, Some(length))
    }
}

impl DoubleEndedIterator for RelocationSlice<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Relocation> {
        match self {
            Self::Little(entries) => entries.split_off_last().map(little),
            Self::Big(entries) => entries.split_off_last().map(big),
            Self::Table(table) => table.split_off_last().copied(),
        }
    }
}

impl ExactSizeIterator for RelocationSlice<'_> {}

#[inline]
fn little(entry: &[u8; ENTRY]) -> Relocation {
    decode(entry, u64::from_le_bytes)
}

#[inline]
fn big(entry: &[u8; ENTRY]) -> Relocation {
    decode(entry, u64::from_be_bytes)
}

/// `r_offset`, `r_info` (symbol and type), `r_addend`.
#[inline]
fn decode(entry: &[u8; ENTRY], word: impl Fn([u8; 8]) -> u64) -> Relocation {
    let (words, _) = entry.as_chunks::<8>();
    let info = word(words[1]);
    Relocation {
        offset: word(words[0]),
        kind: info as u32,
        symbol: ((info >> 32) as u32).checked_sub(1).map(SymbolId),
        addend: word(words[2]) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_both_byte_orders_read_like_a_table() {
        let table: Vec<Relocation> =
            [(0, 2, Some(4), -4), (8, 1, None, i64::MAX), (8, 11, Some(0), 0), (20, 4, Some(9), 7)]
                .map(|(offset, kind, symbol, addend)| Relocation {
                    offset,
                    kind,
                    symbol: symbol.map(SymbolId),
                    addend,
                })
                .to_vec();
        let entries = |word: fn(u64) -> [u8; 8]| -> Vec<[u8; ENTRY]> {
            let info = |r: &Relocation| u64::from(r.symbol.map_or(0, |s| s.0 + 1)) << 32 | u64::from(r.kind);
            let all = table.iter().map(|r| [word(r.offset), word(info(r)), word(r.addend as u64)].concat());
            all.map(|bytes| bytes.try_into().unwrap()).collect()
        };
        let own = Relocations::from(table.clone());
        for (bytes, endian) in
            [(entries(u64::to_le_bytes), Endian::Little), (entries(u64::to_be_bytes), Endian::Big)]
        {
            let mut file = Relocations::of_file(&bytes, endian);
            assert_eq!(file, own);
            assert_eq!(file.iter().rev().collect::<Vec<_>>(), own.iter().rev().collect::<Vec<_>>());
            assert_eq!(file.all().get(3), table.last().copied());
            assert_eq!(file.all().between(1, 20).collect::<Vec<_>>(), table[1..3]);
            assert!(file.all().between(9, 20).is_empty() && file.all().between(9, 3).is_empty());
            file.to_mut()[0].kind = 3;
            assert_ne!(file, own);
        }
    }
}
