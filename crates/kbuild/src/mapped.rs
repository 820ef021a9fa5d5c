//! Large read-only inputs, mapped instead of read.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A mapped file.
///
/// For vmlinux with its debug information (hundreds of MiB, of which a run touches the symbol table and a
/// few pages of code), and for objects: what is mapped the kernel can take back at any time. What cannot be mapped, such
/// as a pipe, is read.
#[derive(Debug)]
pub struct Mapped(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Mapped {
    /// Maps a file that nobody changes while the run lasts: a file of the cache, the user's vmlinux, objects to be
    /// compared.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        Self::contents(path)
            .map(Mapped)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }

    fn contents(path: &Path) -> io::Result<Bytes> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Bytes::Read(bytes));
        }
        // SAFETY: the map is private and read-only. The contract of `Mmap::map` is that the file is not
        // truncated or written meanwhile: files of the cache are replaced by rename only, never in place,
        // and an own vmlinux or object that is rebuilt during the run ends it by SIGBUS, not by a wrong module,
        // because a module appears only after every check has passed.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Bytes::Mapped(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Read(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_kinds_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for contents in [&b""[..], b"contents"] {
            std::fs::write(&path, contents).unwrap();
            assert_eq!(*Mapped::open(&path).unwrap(), *contents);
        }
        assert_eq!(*Mapped::open(Path::new("/dev/null")).unwrap(), *b"");
        assert!(Mapped::open(&path.join("none")).unwrap_err().to_string().contains("file/none"));
    }
}
