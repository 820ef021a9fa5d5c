//! A module's file: what is loaded is what was checked.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::module::PatchModule;

/// A larger file is no module; nothing is read of it.
const MAX_MODULE: u64 = 256 << 20;

/// `O_NONBLOCK`, without which a FIFO would be waited for.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// What changes with a file's content: device, inode, size, and the times of the last change of content and inode. The
/// last cannot be set by anybody; it is as fine as the kernel's tick.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// A module's file that is kept open. A file that takes its name meanwhile changes nothing.
#[derive(Debug)]
pub struct ModuleFile {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub module: PatchModule,
}

impl ModuleFile {
    /// Opens and reads a module.
    pub fn open(path: &Path) -> Result<ModuleFile> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path).map_err(named)?;
        let data = file.metadata().map_err(named)?;
        if !data.is_file() || data.len() > MAX_MODULE {
            return Err(Error::NotAFile(path.to_owned()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(named)?;
        let module =
            PatchModule::read(&bytes).map_err(|reason| Error::Module { path: path.to_owned(), reason })?;
        Ok(ModuleFile { path: path.to_owned(), file, stamp: stamp(&data), bytes, module })
    }

    /// The file, for the kernel; an error if its content may have changed since it was read.
    ///
    /// The kernel itself keeps writers out while it reads. What remains is a change within the same tick as the last
    /// one before the file was opened, or between this call and the kernel's reading: by root, where the file is root's.
    pub fn unchanged(&self) -> Result<&File> {
        if stamp(&self.file.metadata()?) == self.stamp {
            Ok(&self.file)
        } else {
            Err(Error::FileChanged(self.path.clone()))
        }
    }
}

fn stamp(data: &Metadata) -> Stamp {
    (data.dev(), data.ino(), data.len(), (data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_told_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo.ko");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        for path in [&fifo, directory.path(), Path::new("/dev/zero")] {
            assert_eq!(ModuleFile::open(path).unwrap_err().code(), "not-a-file", "{}", path.display());
        }
    }
}
