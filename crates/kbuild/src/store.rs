//! Directories and files of a cache that are complete or absent.
//!
//! An item is filled beside its final place and renamed; a stamp with the key of what it was made from is
//! written last. Whatever lacks its stamp is made anew, so a run killed at any moment leaves nothing that a later
//! one trusts. A lock file beside each item keeps two runs from filling it at once.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// The cache cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The run was interrupted while it waited for another one.
    #[error("interrupted")]
    Interrupted,
}

impl StoreError {
    /// An operation that failed on a path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

/// A lock on a file, held until dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds the lock.
    pub fn exclusive(path: &Path) -> Result<Lock, StoreError> {
        Self::exclusive_telling(path, || {})
    }

    /// Waits until nobody else holds the lock, and says so first if somebody does.
    pub fn exclusive_telling(path: &Path, waiting: impl FnOnce()) -> Result<Lock, StoreError> {
        if let Some(lock) = Self::try_exclusive(path)? {
            return Ok(lock);
        }
        waiting();
        loop {
            // Asked for again and again, so that an interrupt is noticed.
            if crate::root::interrupted() {
                return Err(StoreError::Interrupted);
            }
            std::thread::sleep(Duration::from_millis(50));
            if let Some(lock) = Self::try_exclusive(path)? {
                return Ok(lock);
            }
        }
    }

    /// The lock, unless somebody else holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>, StoreError> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::io("lock", path)(source)),
        }
    }

    /// Waits until nobody holds the lock exclusively.
    pub fn shared(path: &Path) -> Result<Lock, StoreError> {
        let file = Self::open(path)?;
        file.lock_shared().map_err(StoreError::io("lock", path))?;
        Ok(Lock { _file: file })
    }

    fn open(path: &Path) -> Result<File, StoreError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
        }
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(StoreError::io("open", path))
    }
}

/// One item of the cache: a directory or a file, with its stamp and its lock beside it.
#[derive(Clone, Debug)]
pub struct Item {
    path: PathBuf,
    key: String,
}

impl Item {
    /// The item at `path`, made from what `key` identifies.
    pub fn new(path: impl Into<PathBuf>, key: impl Into<String>) -> Item {
        Item { path: path.into(), key: key.into() }
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if it is there and was made from this key.
    pub fn is_complete(&self) -> bool {
        std::fs::read_to_string(self.beside(".stamp")).is_ok_and(|stamp| stamp == self.key)
            && self.path.symlink_metadata().is_ok()
    }

    /// The item's path; where it is not complete, `fill` makes it at the temporary path it is given.
    pub fn ensure<E: From<StoreError>>(&self, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<&Path, E> {
        if self.is_complete() {
            return Ok(&self.path);
        }
        let lock = self.lock()?;
        self.ensure_locked(&lock, fill)
    }

    /// Like [`Item::ensure`] for a caller that holds the item's lock.
    pub fn ensure_locked<E: From<StoreError>>(
        &self,
        _lock: &Lock,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<&Path, E> {
        if self.is_complete() {
            return Ok(&self.path);
        }
        remove(&self.beside(".stamp"))?;
        let temporary = self.temporary()?;
        let filled = fill(&temporary);
        if filled.is_err() {
            // The cause is what the user must see; what cannot be removed now is removed by the next run.
            let _ = remove(&temporary);
        }
        filled?;
        remove(&self.path)?;
        std::fs::rename(&temporary, &self.path).map_err(StoreError::io("create", &self.path))?;
        self.stamp()?;
        Ok(&self.path)
    }

    /// A path beside the item that nobody else uses: programs that outlive a killed run may still be writing where
    /// that run told them to. What killed runs left is removed. The item's lock must be held.
    fn temporary(&self) -> Result<PathBuf, StoreError> {
        let prefix = self.beside(".tmp");
        let parent = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
        let mut number = std::process::id();
        for entry in std::fs::read_dir(parent).map_err(StoreError::io("list", parent))? {
            let left = entry.map_err(StoreError::io("list", parent))?.path();
            let Some(suffix) =
                left.as_os_str().as_encoded_bytes().strip_prefix(prefix.as_os_str().as_encoded_bytes())
            else {
                continue;
            };
            if suffix.iter().all(u8::is_ascii_digit) && remove(&left).is_err() {
                // Somebody still writes there; the same process number must not be used again.
                let used = std::str::from_utf8(suffix).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                number = number.max(used).saturating_add(1);
            }
        }
        Ok(self.beside(&format!(".tmp{number}")))
    }

    /// Like [`Item::ensure`] for what cannot be moved once made: `fill` works at the final path, and the stamp
    /// alone says that it finished.
    pub fn ensure_in_place<E: From<StoreError>>(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<&Path, E> {
        if self.is_complete() {
            return Ok(&self.path);
        }
        let _lock = self.lock()?;
        if self.is_complete() {
            return Ok(&self.path);
        }
        remove(&self.beside(".stamp"))?;
        remove(&self.path)?;
        fill(&self.path)?;
        self.stamp()?;
        Ok(&self.path)
    }

    /// Removes it, so that it is made anew.
    pub fn discard(&self) -> Result<(), StoreError> {
        let lock = self.lock()?;
        self.discard_locked(&lock)
    }

    /// Like [`Item::discard`] for a caller that holds the item's lock.
    pub fn discard_locked(&self, _lock: &Lock) -> Result<(), StoreError> {
        remove(&self.beside(".stamp"))?;
        remove(&self.path)
    }

    /// Where its lock is.
    pub fn lock_path(&self) -> PathBuf {
        self.beside(".lock")
    }

    /// The item's lock, for work on it that must not run twice at once.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        Lock::exclusive(&self.lock_path())
    }

    fn stamp(&self) -> Result<(), StoreError> {
        // Else a power cut may leave the stamp without the files that it vouches for.
        let item = File::open(&self.path).map_err(StoreError::io("open", &self.path))?;
        rustix::fs::syncfs(&item).map_err(|error| StoreError::io("sync", &self.path)(error.into()))?;
        write(&self.beside(".stamp"), self.key.as_bytes())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
}

/// Writes a file so that readers see the old content or the new, never a part.
pub fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        // Else a power cut may leave the name without the content.
        file.sync_data()
    };
    written().map_err(StoreError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(StoreError::io("write", path))
}

/// Removes a file or a directory with all it holds; nothing there is as good.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match path.symlink_metadata() {
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_made_once_per_key() {
        let dir = tempfile::tempdir().unwrap();
        let item = Item::new(dir.path().join("a"), "1");
        let mut made = 0;
        for _ in 0..2 {
            item.ensure::<StoreError>(|path| {
                made += 1;
                std::fs::create_dir(path).map_err(StoreError::io("create", path))
            })
            .unwrap();
        }
        assert_eq!(made, 1);
        let other = Item::new(dir.path().join("a"), "2");
        assert!(!other.is_complete());
        other.ensure::<StoreError>(|path| write(path, b"x")).unwrap();
        assert!(other.is_complete() && !item.is_complete());
    }

    #[test]
    fn a_failed_or_killed_fill_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let item = Item::new(dir.path().join("a"), "1");
        let failed = item.ensure::<StoreError>(|path| {
            write(path, b"half")?;
            Err(StoreError::io("unpack", path)(io::Error::other("killed")))
        });
        assert!(failed.is_err() && !item.path().exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock remains");
        // As a killed run leaves it: data without a stamp, and a temporary directory.
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::create_dir(dir.path().join("a.tmp7")).unwrap();
        // Of another item, whose name only starts alike.
        std::fs::create_dir(dir.path().join("a.tmp7.tmp8")).unwrap();
        assert!(!item.is_complete());
        item.ensure::<StoreError>(|path| write(path, b"whole")).unwrap();
        assert_eq!(std::fs::read(item.path()).unwrap(), b"whole");
        assert!(!dir.path().join("a.tmp7").exists() && dir.path().join("a.tmp7.tmp8").exists());
    }
}
