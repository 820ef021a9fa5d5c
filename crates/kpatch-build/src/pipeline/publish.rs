//! The checked module to its place: all of it or nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::phase::Phase;

/// Writes the module as `NAME.ko` into the directory. A module of that name is replaced in one step.
pub fn run(directory: &Path, name: &str, module: &[u8]) -> Result<PathBuf, Error> {
    write(directory, &format!("{name}.ko"), module)
}

/// Writes a file into the directory, all of it or nothing.
pub fn write(directory: &Path, file: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
    let path = directory.join(file);
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".kpatch-").suffix(".tmp").tempfile_in(directory)?;
        file.write_all(bytes)?;
        // A temporary file is private; a module is for everybody, as kbuild leaves it.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(permissions)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    written().map_err(|error| {
        Error::io(Phase::Publish, "write", &path)(error)
            .remedy("name another directory with -o, or make room")
    })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&dir.path().join("absent"), "x", b"module").unwrap_err();
        assert_eq!(error.phase, Phase::Publish);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let path = run(dir.path(), "x", b"one").unwrap();
        run(dir.path(), "x", b"two").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
