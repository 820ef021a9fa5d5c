//! The cache on disk: directories that either exist completely or not at all, as [`kbuild::store`] keeps them.

use std::path::{Path, PathBuf};

use fs_err as fs;
use kbuild::store::{Item, Lock};

use crate::error::{Error, Result};
use crate::event::{Event, Events};

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens, and where needed creates, the cache.
    pub fn open(root: &Path) -> Result<Self> {
        let unusable =
            |error: std::io::Error| Error::NoCache { path: root.to_owned(), reason: error.to_string() };
        fs::create_dir_all(root).map_err(unusable)?;
        let root = fs::canonicalize(root).map_err(unusable)?;
        // kbuild refuses such paths, with messages that do not lead back to here.
        if root
            .to_str()
            .is_none_or(|path| path.contains(|c: char| c.is_whitespace() || ":\"'$`\\#%".contains(c)))
        {
            return Err(Error::BadInput {
                path: root,
                reason: "a cache directory may have no spaces, colons or quotes in its path, as make cannot handle them"
                    .to_owned(),
            });
        }
        Ok(Store { root })
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Takes the lock of an entry, waiting for other runs.
    pub fn lock(&self, entry: &Path, events: Events) -> Result<Lock> {
        let waiting = || {
            let what = entry.strip_prefix(&self.root).unwrap_or(entry).display().to_string();
            events(Event::Waiting { what });
        };
        Ok(Lock::exclusive_telling(&Item::new(entry, "").lock_path(), waiting)?)
    }

    /// The directory `entry`, made by `make` (into the directory it is given) unless it is there with that stamp.
    pub fn directory(
        &self,
        entry: &Path,
        stamp: &str,
        events: Events,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let item = Item::new(entry, stamp);
        if !item.is_complete() {
            let lock = self.lock(entry, events)?;
            item.ensure_locked(&lock, |new| {
                create_dir_all(new)?;
                make(new)
            })?;
        }
        Ok(entry.to_owned())
    }

    /// Forgets an entry, so that it is made again.
    pub fn forget(&self, entry: &Path, events: Events) -> Result<()> {
        let lock = self.lock(entry, events)?;
        Ok(Item::new(entry, "").discard_locked(&lock)?)
    }
}

/// Whether the entry is complete and made from what the stamp names.
pub fn is_ready(entry: &Path, stamp: &str) -> bool {
    Item::new(entry, stamp).is_complete()
}

pub(crate) fn create_dir_all(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| Error::DamagedCache { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(_: Event) {}

    #[test]
    fn an_entry_is_made_once_per_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let entry = store.path("a/b");
        for (stamp, made) in [("1", true), ("1", false), ("2", true)] {
            let mut ran = false;
            let path = store
                .directory(&entry, stamp, &quiet, |new| {
                    ran = true;
                    Ok(fs::write(new.join("f"), stamp)?)
                })
                .unwrap();
            assert_eq!(ran, made);
            assert_eq!(fs::read_to_string(path.join("f")).unwrap(), stamp);
        }
    }

    #[test]
    fn a_failed_making_leaves_the_old_entry_untrusted_and_no_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let entry = store.path("e");
        let failed = store.directory(&entry, "s", &quiet, |_| Err(Error::Offline { what: "x".into() }));
        assert!(failed.is_err() && !entry.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock remains");
    }

    #[test]
    fn paths_that_make_cannot_handle_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a b", "a:b", "a$b"] {
            assert!(matches!(Store::open(&dir.path().join(name)), Err(Error::BadInput { .. })), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir_all(store.path("e.lock")).unwrap();
        let error = store.directory(&store.path("e"), "s", &quiet, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("e.lock") && error.remedy().is_some(), "{error}");
    }

    #[test]
    fn a_second_run_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lock = store.lock(&store.path("e"), &quiet).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = store.clone();
        let thread = std::thread::spawn(move || {
            let waiting = sender.clone();
            let _lock =
                other.lock(&other.path("e"), &move |event| waiting.send(format!("{event:?}")).unwrap());
            sender.send("got it".into()).unwrap();
        });
        assert!(receiver.recv().unwrap().contains("Waiting"));
        assert!(receiver.try_recv().is_err());
        drop(lock);
        assert_eq!(receiver.recv().unwrap(), "got it");
        thread.join().unwrap();
    }
}
