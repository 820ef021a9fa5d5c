//! The directory below which everything is looked for.

use std::io;
use std::path::{Path, PathBuf};

/// A root directory: `/`, or what `--root` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The directory as given.
    pub fn new(directory: impl Into<PathBuf>) -> Root {
        Root(directory.into())
    }

    /// The running system's.
    pub fn is_running_system(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// A path of that system, absolute there.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text without blanks around it; bytes that are no UTF-8 are replaced.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = fs_err::read(self.path(path))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The same, none where the file is not there or cannot be read.
    pub fn maybe(&self, path: impl AsRef<Path>) -> Option<String> {
        self.text(path).ok()
    }

    /// The names in a directory, sorted; none where there is no such directory.
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.path(path.as_ref())) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is no text is none that the kernel or kpatch gave.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}
