//! Large read-only inputs, mapped instead of read.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A mapped file.
///
/// For vmlinux with its debug information (hundreds of MiB, of which a run touches the symbol table and a
/// few pages of code). Small files are read with `fs_err::read`.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps a file that nobody changes while the run lasts: a file of the cache, or the user's vmlinux.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        let file =
            File::open(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        // SAFETY: the map is private and read-only. The contract of `Mmap::map` is that the file is not
        // truncated or written meanwhile: files of the cache are replaced by rename only, never in place,
        // and an own vmlinux that is rebuilt during the run ends it by SIGBUS, not by a wrong module,
        // because a module appears only after every check has passed.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapped(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
