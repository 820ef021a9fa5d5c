//! The running kernel's memory, `/proc/kcore`: an ELF core file whose segments are the kernel's mappings.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use kpatch_elf::Endian;

use super::root::Root;

/// Offsets in the header of a 64-bit ELF file, and in a program header.
const PHOFF: usize = 32;
const PHENTSIZE: usize = 54;
const PHNUM: usize = 56;
const HEADER: usize = 64;
const P_OFFSET: usize = 8;
const P_VADDR: usize = 16;
const P_FILESZ: usize = 32;
const PT_LOAD: u32 = 1;

/// The memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    /// Address, size and offset in the file.
    segments: Vec<(u64, u64, u64)>,
}

impl Memory {
    /// Opens it; fails without the right to do so and under lockdown.
    pub fn open(root: &Root, endian: Endian) -> io::Result<Memory> {
        let file = File::open(root.path("/proc/kcore"))?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not an ELF core file");
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let start = endian.u64(&header, PHOFF).ok_or_else(damaged)?;
        let size = usize::from(endian.u16(&header, PHENTSIZE).ok_or_else(damaged)?);
        let count = usize::from(endian.u16(&header, PHNUM).ok_or_else(damaged)?);
        let mut table = vec![0; size * count];
        file.read_exact_at(&mut table, start)?;
        let mut segments = Vec::new();
        for entry in table.chunks_exact(size.max(1)) {
            let word = |at| endian.u64(entry, at).ok_or_else(damaged);
            if endian.u32(entry, 0) == Some(PT_LOAD) {
                segments.push((word(P_VADDR)?, word(P_FILESZ)?, word(P_OFFSET)?));
            }
        }
        Ok(Memory { file, segments })
    }

    /// The bytes at an address, all of them or an error.
    pub fn read(&self, address: u64, size: usize) -> io::Result<Vec<u8>> {
        let inside = |(start, length, _): &&(u64, u64, u64)| {
            address.checked_sub(*start).is_some_and(|into| into.saturating_add(size as u64) <= *length)
        };
        let Some((start, _, offset)) = self.segments.iter().find(inside) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{address:#x} is not mapped")));
        };
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, offset.saturating_add(address - start))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_by_segment() {
        let mut core = vec![0; 64 + 56 + 8];
        core[32] = 64;
        core[54] = 56;
        core[56] = 1;
        core[64] = 1;
        core[64 + 8] = 120;
        core[64 + 16..64 + 24].copy_from_slice(&0xffff_ffff_8100_0000u64.to_le_bytes());
        core[64 + 32] = 8;
        core[120..].copy_from_slice(b"ABCDEFGH");
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(directory.path().join("proc")).unwrap();
        fs_err::write(directory.path().join("proc/kcore"), &core).unwrap();
        let memory = Memory::open(&Root::new(directory.path()), Endian::Little).unwrap();
        assert_eq!(memory.read(0xffff_ffff_8100_0002, 3).unwrap(), b"CDE");
        assert!(memory.read(0xffff_ffff_8100_0006, 3).is_err());
        assert!(memory.read(0, 1).is_err());
        for size in [0, 63, 100] {
            fs_err::write(directory.path().join("proc/kcore"), &core[..size]).unwrap();
            assert!(Memory::open(&Root::new(directory.path()), Endian::Little).is_err());
        }
    }
}
