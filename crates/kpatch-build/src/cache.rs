//! What compilers and the prover made in earlier runs, kept by what it was made from.
//!
//! An entry's name is the BLAKE3 hash of everything that decides its content, see [`KeyBuilder`]. An entry carries the
//! hash of its own content and is compared with it whenever it is read; it is written beside its place and renamed. So
//! any number of runs can share a cache without waiting for each other, and a killed one leaves nothing that is trusted.
//!
//! What a compiler reads is known only after it ran: [`Cache::lookup`] finds objects by that.

mod key;
mod lookup;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use kbuild::store::{Lock, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use key::{Key, KeyBuilder};
pub use lookup::{Found, Lookup, Missing};

use lookup::Hashed;

/// Begins every entry, and changes with the layout of entries.
const MAGIC: &[u8; 8] = b"kpcache1";

/// Bytes before an entry's content: the magic and the content's hash.
const HEADER: usize = MAGIC.len() + blake3::OUT_LEN;

/// How old an entry's time of last use must be to be set anew, so that not every reader writes.
const USE_RESOLUTION: Duration = Duration::from_hours(1);

/// Age of a temporary file that no living run can still be writing.
const ABANDONED: Duration = Duration::from_hours(24);

/// The cache cannot be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// A file of the cache cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that decides an entry cannot be read.
    #[error("cannot read {}, which the compiler has read: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock of the cache.
    #[error(transparent)]
    Lock(#[from] StoreError),
}

impl CacheError {
    /// What the user can do.
    pub fn remedy(&self) -> Option<String> {
        match self {
            CacheError::Io { path, .. } => Some(format!(
                "make {} readable and writable for yourself, or name another cache directory with CACHEDIR",
                path.display()
            )),
            CacheError::Input { .. } => None,
            CacheError::Lock(_) => Some("name another cache directory with CACHEDIR".to_owned()),
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source }
}

/// What [`Cache::trim`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Entries removed.
    pub entries: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// A directory of entries. Shared by the threads of a run, and by runs.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    /// Hashes of files that this run has read. Hundreds of units share most of their headers.
    hashes: Mutex<HashMap<PathBuf, Option<Hashed>>>,
    damaged: Mutex<Vec<PathBuf>>,
}

impl Cache {
    /// Opens, and where needed creates, the cache in a directory.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Cache, CacheError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
        // A cache that cannot be read must be told now, not as a thousand misses.
        fs::read_dir(&directory).map_err(io_error("read", &directory))?;
        Ok(Cache { directory, hashes: Mutex::default(), damaged: Mutex::default() })
    }

    /// The entry, if it is there.
    ///
    /// An entry that is not what was written is removed, remembered for [`Cache::damaged`], and counts as absent.
    pub fn get(&self, key: Key) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.path(key);
        let mut entry = match fs::read(&path) {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        if !is_intact(&entry) {
            self.remove_damaged(&path)?;
            return Ok(None);
        }
        touch(&path);
        entry.drain(..HEADER);
        Ok(Some(entry))
    }

    /// Stores an entry.
    pub fn put(&self, key: Key, content: &[u8]) -> Result<(), CacheError> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(content).as_bytes())?;
            file.write_all(content)?;
            // A rename may reach the disk before the content does: a power cut would leave a name with nothing in it.
            file.as_file().sync_data()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(io_error("write", &path))
    }

    /// A value that was stored with [`Cache::put_value`]. One that no longer has the form counts as absent.
    pub fn get_value<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, CacheError> {
        Ok(self.get(key)?.and_then(|content| serde_json::from_slice(&content).ok()))
    }

    /// Stores a value.
    pub fn put_value<T: Serialize>(&self, key: Key, value: &T) -> Result<(), CacheError> {
        let content =
            serde_json::to_vec(value).map_err(|error| io_error("write", &self.path(key))(error.into()))?;
        self.put(key, &content)
    }

    /// The files of all entries, in the order of their names.
    pub fn entries(&self) -> Result<Vec<PathBuf>, CacheError> {
        let mut entries = Vec::new();
        for directory in list(&self.directory)?.into_iter().filter(|path| path.is_dir()) {
            let is_entry = |path: &PathBuf| {
                path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
            };
            entries.extend(list(&directory)?.into_iter().filter(is_entry));
        }
        entries.sort();
        Ok(entries)
    }

    /// Reads every entry. Those that are damaged are removed, see [`Cache::damaged`]; the number of the others.
    pub fn verify(&self) -> Result<usize, CacheError> {
        let mut intact = 0;
        for path in self.entries()? {
            match fs::read(&path) {
                Ok(entry) if is_intact(&entry) => intact += 1,
                Ok(_) => self.remove_damaged(&path)?,
                // Another run may remove what it finds damaged, or old.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", &path)(error)),
            }
        }
        Ok(intact)
    }

    fn remove_damaged(&self, path: &Path) -> Result<(), CacheError> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        remove(path)
    }

    /// Entries that were found damaged, and removed.
    pub fn damaged(&self) -> Vec<PathBuf> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes the entries that were not used for longest, until at most `limit` bytes are left, and what killed
    /// runs left. Returns at once where another run is at it.
    pub fn trim(&self, limit: u64) -> Result<Trimmed, CacheError> {
        let Some(_lock) = Lock::try_exclusive(&self.directory.join(".lock"))? else {
            return Ok(Trimmed::default());
        };
        let mut trimmed = Trimmed::default();
        let mut entries = Vec::new();
        let now = SystemTime::now();
        for directory in list(&self.directory)? {
            if !directory.is_dir() {
                continue;
            }
            for path in list(&directory)? {
                // Another run may remove what it finds damaged.
                let Ok(meta) = fs::metadata(&path) else { continue };
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let temporary =
                    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if !temporary {
                    entries.push((used, path, meta.len()));
                } else if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
                    remove(&path)?;
                }
            }
        }
        let mut total: u64 = entries.iter().map(|(_, _, size)| size).sum();
        entries.sort();
        for (_, path, size) in entries {
            if total <= limit {
                break;
            }
            remove(&path)?;
            total -= size;
            trimmed.entries += 1;
            trimmed.bytes += size;
        }
        Ok(trimmed)
    }

    fn path(&self, key: Key) -> PathBuf {
        let name = key.hex();
        let (directory, rest) = name.split_at(2);
        self.directory.join(directory).join(rest)
    }
}

fn is_intact(entry: &[u8]) -> bool {
    let Some(rest) = entry.strip_prefix(MAGIC) else { return false };
    let Some((hash, content)) = rest.split_first_chunk::<{ blake3::OUT_LEN }>() else { return false };
    blake3::hash(content) == *hash
}

/// Notes that an entry is of use. Where that fails, as on a read-only cache, it is merely forgotten earlier.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let recent = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age < USE_RESOLUTION));
    if !recent && let Ok(file) = fs::File::open(path) {
        let _ = file.into_parts().0.set_modified(now);
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let entries = fs::read_dir(directory).map_err(io_error("read", directory))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(io_error("read", directory))
}

fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("objects")).unwrap();
        (dir, cache)
    }

    pub(super) fn key(text: &str) -> Key {
        KeyBuilder::new("test").field("text", text).finish()
    }

    #[test]
    fn what_was_put_comes_back() {
        let (_dir, cache) = cache();
        assert_eq!(cache.get(key("a")).unwrap(), None);
        cache.put(key("a"), b"content").unwrap();
        assert_eq!(cache.get(key("a")).unwrap().as_deref(), Some(&b"content"[..]));
        cache.put_value(key("v"), &vec![1, 2]).unwrap();
        assert_eq!(cache.get_value::<Vec<u8>>(key("v")).unwrap(), Some(vec![1, 2]));
        assert_eq!(cache.get_value::<String>(key("v")).unwrap(), None);
    }

    #[test]
    fn damaged_entries_are_removed_and_named() {
        for damage in
            [&b""[..], b"kpcache1", b"kpcache0 and something that is long enough to hold a hash, but no hash"]
        {
            let (_dir, cache) = cache();
            cache.put(key("a"), b"content").unwrap();
            let path = cache.path(key("a"));
            fs::write(&path, damage).unwrap();
            assert_eq!(cache.get(key("a")).unwrap(), None);
            assert_eq!(cache.damaged(), std::slice::from_ref(&path));
            assert!(!path.exists());
        }
        let (_dir, cache) = cache();
        cache.put(key("a"), b"content").unwrap();
        let mut entry = fs::read(cache.path(key("a"))).unwrap();
        *entry.last_mut().unwrap() ^= 1;
        fs::write(cache.path(key("a")), entry).unwrap();
        assert_eq!(cache.get(key("a")).unwrap(), None);
    }

    #[test]
    fn an_unreadable_cache_is_an_error_with_a_remedy() {
        let (dir, cache) = cache();
        cache.put(key("a"), b"content").unwrap();
        let path = cache.path(key("a"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = cache.get(key("a")).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(error.remedy().unwrap().contains("CACHEDIR"));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(Cache::open(dir.path().join("file")), Err(CacheError::Io { .. })));
    }

    #[test]
    fn what_was_used_least_goes_first() {
        let (_dir, cache) = cache();
        let old = |name: &str, hours: u64| {
            cache.put(key(name), &[0; 1000]).unwrap();
            let file = std::fs::File::options().write(true).open(cache.path(key(name))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
        };
        old("a", 30);
        old("b", 20);
        old("c", 10);
        // Used now.
        cache.get(key("a")).unwrap().unwrap();
        let left = cache.path(key("a")).with_file_name(".new-left");
        fs::write(&left, "").unwrap();
        std::fs::File::open(&left).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let trimmed = cache.trim(2500).unwrap();
        assert_eq!(trimmed, Trimmed { entries: 1, bytes: 1000 + HEADER as u64 });
        assert!(!left.exists());
        let kept: Vec<bool> = ["a", "b", "c"].map(|name| cache.get(key(name)).unwrap().is_some()).into();
        assert_eq!(kept, [true, false, true]);
        assert_eq!(cache.trim(u64::MAX).unwrap(), Trimmed::default());
    }
}
