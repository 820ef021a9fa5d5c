//! What the preprocessor said about original units in earlier runs: a hash of what decides their code, and the
//! files it read.
//!
//! One file holds it for a kernel. A file that was read stands there once for each content it had, a unit as the
//! numbers of those it read; the whole of a distribution's kernel takes some ten megabytes. What was read is
//! compared with what is there now, so a record of another state of the tree is no record.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use kbuild::store::{self, Lock, StoreError};

use crate::cache::{Cache, Key};

/// The file's name, and its first line. It changes with the layout and with what a slice is: versions of this tool
/// that share a cache do not take each other's records for damaged ones.
pub const FORMAT: &str = "originals-3";

/// Records of one run that a killed one may lose.
const SAVE_EVERY: usize = 400;

/// What is known about an original unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Hash of the part of the preprocessed text that decides the unit's code, see [`crate::slice`].
    pub slice: blake3::Hash,
    /// The files that the preprocessor read.
    pub files: Vec<PathBuf>,
}

/// All records of a kernel. Shared by the threads of a run, and by runs.
#[derive(Debug)]
pub struct Originals {
    path: PathBuf,
    /// What earlier runs left.
    known: Records,
    /// Whether each file of `known` still has the content it was read with, once somebody asked.
    current: Vec<OnceLock<bool>>,
    new: Mutex<New>,
}

/// What this run adds.
#[derive(Debug, Default)]
struct New {
    records: Records,
    /// How many of them are not in the file yet.
    unsaved: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Records {
    /// Path and hash of the content.
    files: Vec<(PathBuf, String)>,
    ids: HashMap<(PathBuf, String), u32>,
    /// By the hexadecimal key of the command.
    units: BTreeMap<String, Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    slice: blake3::Hash,
    files: Vec<u32>,
}

impl Originals {
    /// The records in a file; none where it is missing or damaged.
    pub fn open(path: impl Into<PathBuf>) -> Originals {
        let path = path.into();
        let known = Records::read(&path);
        let current = std::iter::repeat_with(OnceLock::new).take(known.files.len()).collect();
        Originals { path, known, current, new: Mutex::default() }
    }

    /// What earlier runs knew about the unit that this command preprocesses, if all that it read is unchanged.
    pub fn get(&self, command: Key, cache: &Cache) -> Option<Original> {
        let record = self.known.units.get(&command.hex())?;
        let mut files = Vec::with_capacity(record.files.len());
        for &id in &record.files {
            let (path, hash) = self.known.files.get(id as usize)?;
            let unchanged = || cache.content_hash(path).is_some_and(|now| now == *hash);
            if !self.current.get(id as usize)?.get_or_init(unchanged) {
                return None;
            }
            files.push(path.clone());
        }
        Some(Original { slice: record.slice, files })
    }

    /// Keeps what a preprocessor said that ran since `since`. Nothing is kept if a file was written meanwhile:
    /// nobody knows which content was read.
    pub fn put(
        &self,
        command: Key,
        original: &Original,
        since: SystemTime,
        cache: &Cache,
    ) -> Result<(), StoreError> {
        let mut files = Vec::with_capacity(original.files.len());
        for path in &original.files {
            let Some(hash) = cache.settled_hash(path, since) else { return Ok(()) };
            if path.to_str().is_none_or(|path| path.contains(['\n', '\t'])) {
                return Ok(());
            }
            files.push((path.clone(), hash));
        }
        let mut new = self.lock();
        let ids = files.into_iter().map(|file| new.records.intern(file)).collect();
        new.records.units.insert(command.hex(), Record { slice: original.slice, files: ids });
        new.unsaved += 1;
        if new.unsaved < SAVE_EVERY { Ok(()) } else { self.write(&mut new) }
    }

    /// Writes what is new, for later runs.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut new = self.lock();
        if new.unsaved == 0 { Ok(()) } else { self.write(&mut new) }
    }

    /// Writes what is new, beside all that other runs have written.
    fn write(&self, new: &mut New) -> Result<(), StoreError> {
        new.unsaved = 0;
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        let _lock = Lock::exclusive(Path::new(&lock))?;
        let mut all = Records::read(&self.path);
        all.merge(&new.records);
        store::write(&self.path, all.to_text().as_bytes())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, New> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn read(path: &Path) -> Records {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Records::from_text(&text).unwrap_or_default()
    }

    fn intern(&mut self, file: (PathBuf, String)) -> u32 {
        let next = self.files.len() as u32;
        let id = *self.ids.entry(file.clone()).or_insert(next);
        if id == next {
            self.files.push(file);
        }
        id
    }

    fn merge(&mut self, other: &Records) {
        let ids: Vec<u32> = other.files.iter().map(|file| self.intern(file.clone())).collect();
        for (unit, record) in &other.units {
            let files = record.files.iter().filter_map(|&id| ids.get(id as usize).copied()).collect();
            self.units.insert(unit.clone(), Record { slice: record.slice, files });
        }
    }

    /// A line for each file, hash and path; then one for each unit: its command, its slice and its files. Files that
    /// no unit names are left out. The last line is a hash of all before it.
    fn to_text(&self) -> String {
        let mut numbers = vec![None; self.files.len()];
        let mut text = format!("{FORMAT}\n");
        let mut count = 0u32;
        for &id in self.units.values().flat_map(|record| &record.files) {
            let number = &mut numbers[id as usize];
            if number.is_none() {
                let (path, hash) = &self.files[id as usize];
                let _ = writeln!(text, "{hash}\t{}", path.display());
                *number = Some(count);
                count += 1;
            }
        }
        text.push('\n');
        for (unit, record) in &self.units {
            let _ = write!(text, "{unit}\t{}", record.slice.to_hex());
            for &id in &record.files {
                let _ = write!(text, "\t{}", numbers[id as usize].unwrap_or_default());
            }
            text.push('\n');
        }
        let hash = blake3::hash(text.as_bytes());
        let _ = writeln!(text, "{}", hash.to_hex());
        text
    }

    /// `None` for a damaged text.
    fn from_text(text: &str) -> Option<Records> {
        let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
        let (body, hash) = text.split_at(end);
        if blake3::hash(body.as_bytes()).to_hex().as_str() != hash.trim_end() {
            return None;
        }
        let (files, units) =
            body.strip_prefix(FORMAT)?.strip_prefix('\n')?.split_once("\n\n").or_else(|| {
                // No file at all.
                body.strip_prefix(FORMAT)?.strip_prefix("\n\n").map(|units| ("", units))
            })?;
        let mut records = Records::default();
        for line in files.lines() {
            let (hash, path) = line.split_once('\t')?;
            records.intern((PathBuf::from(path), hash.to_owned()));
        }
        for line in units.lines() {
            let mut fields = line.split('\t');
            let (unit, slice) = (fields.next()?, blake3::Hash::from_hex(fields.next()?).ok()?);
            let ids = fields
                .map(|field| field.parse().ok().filter(|&id: &u32| (id as usize) < records.files.len()));
            let files = ids.collect::<Option<Vec<u32>>>()?;
            records.units.insert(unit.to_owned(), Record { slice, files });
        }
        Some(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KeyBuilder;

    fn settled(path: &Path, text: &str) {
        fs_err::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - std::time::Duration::from_mins(1)).unwrap();
    }

    fn key(text: &str) -> Key {
        KeyBuilder::new("test").field("text", text).finish()
    }

    #[test]
    fn a_record_holds_as_long_as_nothing_it_read_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("originals");
        let cache = || Cache::open(dir.path().join("objects")).unwrap();
        let (a, b) = (dir.path().join("a.c"), dir.path().join("a.h"));
        settled(&a, "a");
        settled(&b, "b");
        let one = Original { slice: blake3::hash(b"1"), files: vec![a.clone(), b.clone()] };
        let two = Original { slice: blake3::hash(b"2"), files: vec![b.clone()] };
        // Two runs at once, neither of which knows of the other's.
        let (first, second) = (Originals::open(&path), Originals::open(&path));
        let now = SystemTime::now();
        first.put(key("one"), &one, now, &cache()).unwrap();
        second.put(key("two"), &two, now, &cache()).unwrap();
        first.save().unwrap();
        second.save().unwrap();
        let known = Originals::open(&path);
        assert_eq!(known.get(key("one"), &cache()), Some(one.clone()));
        assert_eq!(known.get(key("two"), &cache()), Some(two.clone()));
        assert_eq!(known.get(key("three"), &cache()), None);

        settled(&a, "other");
        let known = Originals::open(&path);
        assert_eq!(known.get(key("one"), &cache()), None);
        assert_eq!(known.get(key("two"), &cache()), Some(two));
        // Written while the preprocessor ran.
        fs_err::write(&a, "a").unwrap();
        known.put(key("one"), &one, now, &cache()).unwrap();
        known.save().unwrap();
        settled(&a, "other");
        assert_eq!(Originals::open(&path).get(key("one"), &cache()), None);
    }

    #[test]
    fn a_damaged_file_is_no_record() {
        let mut records = Records::default();
        assert_eq!(Records::from_text(&records.to_text()), Some(Records::default()));
        let file = records.intern(("/s/a.c".into(), "00".into()));
        records.units.insert("k".into(), Record { slice: blake3::hash(b"1"), files: vec![file] });
        let text = records.to_text();
        assert_eq!(Records::from_text(&text), Some(records));
        for length in 0..text.len() {
            assert_eq!(Records::from_text(&text[..length]), None, "{length}");
        }
        assert_eq!(Records::from_text(&text.replace("a.c", "b.c")), None);
    }
}
