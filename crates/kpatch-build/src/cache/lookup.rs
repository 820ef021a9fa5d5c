//! What commands made, by what they read.
//!
//! What a compiler reads is known only after it ran. [`Cache::lookup`] therefore goes by two steps: the command
//! line leads to the lists of files that it read in earlier runs, and a list whose files are unchanged leads to
//! what it made then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Cache, CacheError, Key, KeyBuilder};

/// Lists of files kept for one command line. Each is a state of the source tree; older ones go.
const LISTS: usize = 16;

/// File systems stamp with a clock that lags behind by up to a tick; a file this much older than a command's
/// start may still have been written after it.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// A file and the hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dependency {
    path: PathBuf,
    hash: String,
}

/// What a command read, in one state of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reads {
    files: Vec<Dependency>,
}

/// What [`Cache::lookup`] found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The command need not be run.
    Found(Found),
    /// The command must be run, and what it makes can be stored with this.
    Missing(Missing),
}

/// Leave to store what a command makes that runs from now on, see [`Cache::store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    command: Key,
    since: SystemTime,
}

/// What a command made in an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was stored.
    pub content: Vec<u8>,
    /// The files that decided it.
    pub dependencies: Vec<PathBuf>,
}

/// A file's content, and when it was written.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    hash: String,
    modified: SystemTime,
}

impl Cache {
    /// What a command made that has this key and read files that have not changed since. A command is to be
    /// started after this call.
    pub fn lookup(&self, command: Key) -> Result<Lookup, CacheError> {
        let since = SystemTime::now();
        let lists: Vec<Reads> = self.get_value(lists_key(command))?.unwrap_or_default();
        for reads in lists {
            let unchanged =
                |file: &Dependency| self.hash(&file.path).is_some_and(|now| now.hash == file.hash);
            if !reads.files.iter().all(unchanged) {
                continue;
            }
            if let Some(content) = self.get(result_key(command, &reads))? {
                let dependencies = reads.files.into_iter().map(|file| file.path).collect();
                return Ok(Lookup::Found(Found { content, dependencies }));
            }
        }
        Ok(Lookup::Missing(Missing { command, since }))
    }

    /// Stores what a command made, and which files it read. Temporary files do not belong into the list.
    ///
    /// Says false, and stores nothing, if one of the files was written while the command may have been running:
    /// nobody knows which content it has seen.
    pub fn store<P: AsRef<Path>>(
        &self,
        missing: Missing,
        dependencies: impl IntoIterator<Item = P>,
        content: &[u8],
    ) -> Result<bool, CacheError> {
        let Missing { command, since } = missing;
        let mut files = Vec::new();
        for path in dependencies {
            let path = path.as_ref();
            let input = |source| CacheError::Input { path: path.to_owned(), source };
            std::fs::metadata(path).map_err(input)?;
            let Some(hash) = self.settled_hash(path, since) else { return Ok(false) };
            files.push(Dependency { path: path.to_owned(), hash });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup();
        let reads = Reads { files };
        self.put(result_key(command, &reads), content)?;
        // Two runs may each lose the other's list here; that costs a compilation, never a wrong answer.
        let mut lists: Vec<Reads> = self.get_value(lists_key(command))?.unwrap_or_default();
        lists.retain(|known| *known != reads);
        lists.insert(0, reads);
        lists.truncate(LISTS);
        self.put_value(lists_key(command), &lists)?;
        Ok(true)
    }

    /// The hash of a file's content as this run first saw it; `None` if it cannot be read.
    pub fn content_hash(&self, path: &Path) -> Option<String> {
        self.hash(path).map(|hashed| hashed.hash)
    }

    /// The same, unless the file may have been written after `since`.
    pub fn settled_hash(&self, path: &Path, since: SystemTime) -> Option<String> {
        let hashed = self.hash(path)?;
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
        (hashed.modified == modified && modified + CLOCK_LAG < since).then_some(hashed.hash)
    }

    /// A file's hash, read once a run; `None` if it cannot be read.
    fn hash(&self, path: &Path) -> Option<Hashed> {
        let hashes = || self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hashes().get(path) {
            return known.clone();
        }
        let read = || -> io::Result<Hashed> {
            // The time is taken first: written in between, the file is newer than what is remembered.
            let modified = std::fs::metadata(path)?.modified()?;
            let hash = blake3::hash(&std::fs::read(path)?).to_hex().to_string();
            Ok(Hashed { hash, modified })
        };
        let hashed = read().ok();
        hashes().insert(path.to_owned(), hashed.clone());
        hashed
    }
}

fn lists_key(command: Key) -> Key {
    KeyBuilder::new("reads").key("command", command).finish()
}

fn result_key(command: Key, reads: &Reads) -> Key {
    KeyBuilder::new("result")
        .key("command", command)
        .list("paths", reads.files.iter().map(|file| file.path.as_os_str().as_encoded_bytes()))
        .list("hashes", reads.files.iter().map(|file| file.hash.as_bytes()))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::{cache, key};
    use fs_err as fs;

    /// A file that was written some time ago.
    fn settled(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    fn missing(cache: &Cache, command: &str) -> Missing {
        match cache.lookup(key(command)).unwrap() {
            Lookup::Missing(missing) => missing,
            Lookup::Found(found) => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_lookup_goes_by_the_content_of_what_was_read() {
        let (dir, first) = cache();
        let (source, header) = (dir.path().join("a.c"), dir.path().join("a.h"));
        let reopened = || Cache::open(dir.path().join("objects")).unwrap();
        let found = || match reopened().lookup(key("cc")).unwrap() {
            Lookup::Found(found) => Some(found),
            Lookup::Missing(_) => None,
        };
        let content = || found().map(|found| String::from_utf8(found.content).unwrap());
        settled(&source, "1");
        settled(&header, "1");
        let ticket = missing(&first, "cc");
        assert!(first.store(ticket, [&source, &header], b"one").unwrap());
        assert_eq!(content().as_deref(), Some("one"));
        assert_eq!(found().unwrap().dependencies, [source.clone(), header.clone()]);

        settled(&header, "2");
        assert_eq!(content(), None);
        let second = reopened();
        assert!(second.store(missing(&second, "cc"), [&source, &header], b"two").unwrap());
        assert_eq!(content().as_deref(), Some("two"));
        settled(&header, "1");
        assert_eq!(content().as_deref(), Some("one"));
        settled(&source, "3");
        assert_eq!(content(), None);
        settled(&source, "1");
        assert_eq!(content().as_deref(), Some("one"));
        missing(&reopened(), "another command");
        fs::remove_file(&source).unwrap();
        assert_eq!(content(), None);
    }

    #[test]
    fn what_changed_under_the_command_is_not_stored() {
        let (dir, cache) = cache();
        let source = dir.path().join("a.c");
        settled(&source, "1");
        let ticket = missing(&cache, "cc");
        fs::write(&source, "2").unwrap();
        assert!(!cache.store(ticket, [&source], b"x").unwrap());
        // Known to the run before it changed, though not to this command.
        settled(&source, "3");
        assert!(!cache.store(missing(&cache, "cc"), [&source], b"x").is_ok_and(|stored| stored));
        missing(&cache, "cc");
        let error = cache.store(ticket, [dir.path().join("gone.h")], b"x").unwrap_err();
        assert!(matches!(&error, CacheError::Input { path, .. } if path.ends_with("gone.h")), "{error}");
    }
}
