//! The lock file: what a release was resolved to, so that later runs need neither apt nor the network.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::select::Selection;
use crate::error::{Error, Result};

/// Raised when the content changes its meaning; an older file is resolved again.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct LockFile {
    format: u32,
    #[serde(flatten)]
    selection: Selection,
}

/// Where the lock file of a release is.
pub(super) fn path(kernel_dir: &Path) -> PathBuf {
    kernel_dir.join("lock.json")
}

/// Reads the lock file; `None` where there is none (or one of another format).
pub(super) fn read(kernel_dir: &Path, release: &str) -> Result<Option<Selection>> {
    let path = path(kernel_dir);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::DamagedCache { path, reason: error.to_string() }),
    };
    let file: LockFile = serde_json::from_slice(&text)
        .map_err(|error| Error::DamagedCache { path: path.clone(), reason: error.to_string() })?;
    if file.format != FORMAT {
        return Ok(None);
    }
    if file.selection.release != release {
        let reason = format!("it is about release {}", file.selection.release);
        return Err(Error::DamagedCache { path, reason });
    }
    for (_, package) in file.selection.packages() {
        // File names of the lock file become paths in the cache.
        if !super::index::is_safe(&package.name) || !super::index::is_safe(&package.version) {
            return Err(Error::DamagedCache { path, reason: format!("`{}` is no package", package.name) });
        }
    }
    Ok(Some(file.selection))
}

/// Writes the lock file.
pub(super) fn write(kernel_dir: &Path, selection: &Selection) -> Result<()> {
    let file = LockFile { format: FORMAT, selection: selection.clone() };
    let mut text = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from)?;
    text.push(b'\n');
    Ok(kbuild::store::write(&path(kernel_dir), &text)?)
}
