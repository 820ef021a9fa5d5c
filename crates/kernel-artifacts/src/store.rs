//! The cache on disk: locks, and directories that either exist completely or not at all.
//!
//! An entry is made under another name and renamed; its stamp, a file beside it, is written last. An entry without
//! its stamp, or with a stamp of other inputs, is not trusted and made again. All of it happens under a lock of the entry.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use crate::event::{Event, Events};

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Held until dropped; the kernel releases it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// Opens, and where needed creates, the cache.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(|error| Error::DamagedCache {
            path: root.to_owned(),
            reason: format!("it cannot be created: {error}"),
        })?;
        let root = fs::canonicalize(root)?;
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
        let path = with_suffix(entry, ".lock");
        if let Some(parent) = path.parent() {
            create_dir_all(parent)?;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::DamagedCache { path: path.clone(), reason: error.to_string() })?
            .into_parts()
            .0;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = entry.strip_prefix(&self.root).unwrap_or(entry).display().to_string();
                events(Event::Waiting { what });
                // Asked again and again rather than waited for, so that an interrupt is noticed.
                loop {
                    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                        Ok(()) => break,
                        Err(rustix::io::Errno::INTR | rustix::io::Errno::WOULDBLOCK) => {}
                        Err(error) => return Err(std::io::Error::from(error).into()),
                    }
                    if kbuild::root::interrupted() {
                        return Err(Error::Interrupted);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        Ok(Lock { _file: file })
    }

    /// The directory `entry`, made by `make` (into the directory it is given) unless it is there with that stamp.
    pub fn directory(
        &self,
        entry: &Path,
        stamp: &str,
        events: Events,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if is_ready(entry, stamp)? {
            return Ok(entry.to_owned());
        }
        let _lock = self.lock(entry, events)?;
        if is_ready(entry, stamp)? {
            return Ok(entry.to_owned());
        }
        let stamp_file = with_suffix(entry, ".stamp");
        remove(&stamp_file)?;
        let new = fresh_directory(entry)?;
        if let Err(error) = make(new.path()) {
            // The cause is what the user must see; a leftover is removed by the next run.
            let _ = new.close();
            return Err(error);
        }
        remove(entry)?;
        fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::rename(new.path(), entry)?;
        let _ = new.keep();
        write_atomically(&stamp_file, stamp.as_bytes())?;
        Ok(entry.to_owned())
    }

    /// Forgets an entry, so that it is made again.
    pub fn forget(&self, entry: &Path, events: Events) -> Result<()> {
        let _lock = self.lock(entry, events)?;
        remove(&with_suffix(entry, ".stamp"))?;
        remove(entry)
    }
}

/// An empty directory beside the entry, under a name nobody else has: programs that outlive a killed run may still be
/// writing into that run's directory. What such runs left is removed. To be called under the entry's lock.
pub(crate) fn fresh_directory(entry: &Path) -> Result<tempfile::TempDir> {
    let parent = entry.parent().unwrap_or(Path::new("."));
    create_dir_all(parent)?;
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".new-{name}-");
    for left in fs::read_dir(parent)? {
        let left = left?;
        if left.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = remove(&left.path());
        }
    }
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?)
}

/// Whether the entry is complete and made from what the stamp names.
pub fn is_ready(entry: &Path, stamp: &str) -> Result<bool> {
    let stamp_file = with_suffix(entry, ".stamp");
    match fs::read(&stamp_file) {
        Ok(found) => Ok(found == stamp.as_bytes() && entry.exists()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Error::DamagedCache { path: stamp_file, reason: error.to_string() }),
    }
}

/// Writes a file so that it is there completely or not at all.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    let parent = path.parent().unwrap_or(Path::new("."));
    create_dir_all(parent)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes a file or a tree, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn create_dir_all(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| Error::DamagedCache { path: path.to_owned(), reason: error.to_string() })
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
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
    fn what_a_killed_run_left_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let entry = store.path("e");
        // Killed while making, and killed between the rename and the stamp.
        for left in [".new-e-x/half", "e/half"] {
            fs::create_dir_all(store.path(left)).unwrap();
            store.directory(&entry, "s", &quiet, |new| Ok(fs::write(new.join("whole"), "")?)).unwrap();
            assert!(entry.join("whole").exists() && !entry.join("half").exists());
            assert!(!store.path(".new-e-x").exists());
            store.forget(&entry, &quiet).unwrap();
            assert!(!is_ready(&entry, "s").unwrap());
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
    fn an_unreadable_stamp_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir_all(store.path("e.stamp")).unwrap();
        let error = is_ready(&store.path("e"), "s").unwrap_err();
        assert!(error.to_string().contains("e.stamp") && error.remedy().is_some());
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
