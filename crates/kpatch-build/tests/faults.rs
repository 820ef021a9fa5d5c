//! The cache on a disk that is full, and on one that cannot be written. Mounting needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kpatch_build::cache::{Cache, CacheError, Key, KeyBuilder};
use kpatch_build::originals::{Original, Originals};

/// One test at a time: between fork and exec, a program that another one starts holds the files that are open here, and
/// the room of those that were removed.
static ONE: Mutex<()> = Mutex::new(());

/// Something mounted on a directory, until dropped.
struct Mount<'p> {
    place: &'p Path,
    _one: MutexGuard<'static, ()>,
}

impl Mount<'_> {
    fn new<'p>(place: &'p Path, arguments: &[&str]) -> Mount<'p> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let status = Command::new("mount").args(arguments).arg(place).status().unwrap();
        assert!(status.success(), "mount {arguments:?}: these tests must run as root");
        Mount { place, _one: one }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.place).status();
    }
}

fn key(name: &str) -> Key {
    KeyBuilder::new("test").field("name", name).finish()
}

fn is_helpful(error: &CacheError, place: &Path) {
    let text = error.to_string();
    assert!(text.contains(&place.display().to_string()), "{text}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("CACHEDIR")), "{text}");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let _mount = Mount::new(dir.path(), &["-t", "tmpfs", "-o", "size=256k", "tmpfs"]);
    let cache = Cache::open(dir.path().join("objects")).unwrap();
    cache.put(key("small"), &[1; 1000]).unwrap();
    is_helpful(&cache.put(key("large"), &vec![2; 1 << 20]).unwrap_err(), dir.path());
    assert_eq!(cache.get(key("large")).unwrap(), None);
    assert_eq!(cache.get(key("small")).unwrap().as_deref(), Some(&[1; 1000][..]));
    assert_eq!(cache.entries().unwrap().len(), 1, "no part of an entry is left");
    // Room again.
    cache.put(key("large"), &vec![2; 1 << 17]).unwrap();
    assert!(cache.damaged().is_empty());
}

#[test]
fn a_full_disk_keeps_earlier_records_of_originals() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("a.c");
    std::fs::write(&source, "int a;").unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let _mount = Mount::new(&disk, &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    let cache = Cache::open(dir.path().join("objects")).unwrap();
    let later = SystemTime::now() + std::time::Duration::from_mins(1);
    let known = Original { slice: blake3::hash(b"1"), files: vec![source] };
    let originals = Originals::open(disk.join("originals"));
    originals.put(key("first"), &known, later, &cache).unwrap();
    originals.save().unwrap();
    std::fs::write(disk.join("filler"), vec![0; 48 << 10]).unwrap();
    let originals = Originals::open(disk.join("originals"));
    for number in 0..200 {
        originals.put(key(&number.to_string()), &known, later, &cache).unwrap();
    }
    let error = originals.save().unwrap_err().to_string();
    assert!(error.contains(&disk.display().to_string()), "{error}");
    assert_eq!(Originals::open(disk.join("originals")).get(key("first"), &cache), Some(known));
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_can_still_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("objects");
    Cache::open(&place).unwrap().put(key("old"), b"content").unwrap();
    let path = dir.path().to_str().unwrap();
    let _mount = Mount::new(dir.path(), &["--bind", "-o", "ro", path]);
    let cache = Cache::open(&place).unwrap();
    assert_eq!(cache.get(key("old")).unwrap().as_deref(), Some(&b"content"[..]));
    is_helpful(&cache.put(key("new"), b"content").unwrap_err(), dir.path());
    is_helpful(&Cache::open(dir.path().join("other")).unwrap_err(), dir.path());
}
