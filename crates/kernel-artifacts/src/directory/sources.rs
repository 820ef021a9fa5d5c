//! The sources of a user's tree, without what building or git left in it.
//!
//! kbuild refuses an object tree of its own for a source tree that somebody built in, and asks git for a version where
//! there is a `.git`. So it sees a directory of links to the sources instead. The kernel's `.gitignore` files, which
//! are part of every release, tell them from what was built.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::Store;

/// Raised when views made before must not be used any more.
const FORMAT: u32 = 1;

/// What tells one version of a file from another.
type State = (PathBuf, bool, u64, i64, i64);

/// The files of a tree as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    tree: PathBuf,
    /// Paths below the tree in their order; directories before what is in them.
    entries: Vec<State>,
}

impl Sources {
    /// Looks at every file of the tree; none is read but `.gitignore`.
    pub fn scan(tree: &Path) -> Result<Sources> {
        let mut entries = Vec::new();
        scan_below(tree, Path::new(""), &mut Vec::new(), &mut entries)?;
        entries.sort();
        Ok(Sources { tree: tree.to_owned(), entries })
    }

    /// Changes whenever a file comes, goes, or is written.
    pub fn identity(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (path, is_directory, size, seconds, nanoseconds) in &self.entries {
            hash.update(path.as_os_str().as_encoded_bytes()).update(&[0, u8::from(*is_directory)]);
            for number in [*size as i64, *seconds, *nanoseconds] {
                hash.update(&number.to_le_bytes());
            }
        }
        hash.finalize().to_hex().to_string()
    }

    /// The directory of links at `entry`, made anew where a file of the tree has come, gone or changed.
    pub fn view(&self, store: &Store, entry: &Path, events: Events) -> Result<PathBuf> {
        let stamp = format!("sources {FORMAT}\n{}\n{}\n", self.tree.display(), self.identity());
        store.directory(entry, &stamp, events, |new| {
            for (path, is_directory, ..) in &self.entries {
                if *is_directory {
                    fs::create_dir(new.join(path))?;
                } else {
                    fs_err::os::unix::fs::symlink(self.tree.join(path), new.join(path))?;
                }
            }
            Ok(())
        })
    }
}

/// Adds what a directory of the tree holds. `rules` are those of the directories above, outermost first.
fn scan_below(
    tree: &Path,
    directory: &Path,
    rules: &mut Vec<Gitignore>,
    entries: &mut Vec<State>,
) -> Result<()> {
    let before = rules.len();
    rules.extend(rules_of(&tree.join(directory))?);
    for entry in fs::read_dir(tree.join(directory))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let path = directory.join(entry.file_name());
        // The innermost rule about it decides.
        let matched = rules.iter().rev().map(|rules| rules.matched(tree.join(&path), meta.is_dir()));
        let verdict = matched.into_iter().find(|verdict| !verdict.is_none());
        if entry.file_name() == ".git" || verdict.is_some_and(|verdict| verdict.is_ignore()) {
            continue;
        }
        if meta.is_dir() {
            // The time of a directory says only that something in it came or went.
            entries.push((path.clone(), true, 0, 0, 0));
            scan_below(tree, &path, rules, entries)?;
        } else {
            entries.push((path, false, meta.size(), meta.mtime(), meta.mtime_nsec()));
        }
    }
    rules.truncate(before);
    Ok(())
}

/// The rules of a directory's `.gitignore`.
fn rules_of(directory: &Path) -> Result<Option<Gitignore>> {
    let path = directory.join(".gitignore");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let bad = |error: ignore::Error| Error::BadInput { path: path.clone(), reason: error.to_string() };
    let mut rules = GitignoreBuilder::new(directory);
    // Debian's linux-source ends with a rule against everything, as its repository has the packaging only.
    for line in text.lines().filter(|line| !matches!(line.trim(), "*" | "/*")) {
        rules.add_line(None, line).map_err(bad)?;
    }
    Ok(Some(rules.build().map_err(bad)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            (".gitignore", ".*\n*.o\n/vmlinux\n/include/generated/\n!.gitignore\n/*\n"),
            ("Makefile", "all:\n"),
            ("fs/exec.c", "int x;\n"),
            ("fs/.gitignore", "made.h\n!kept.o\n"),
            ("fs/kept.o", "tracked\n"),
            (".git/HEAD", "ref\n"),
            (".config", "CONFIG_X=y\n"),
            ("vmlinux", "built"),
            ("fs/exec.o", "built"),
            ("fs/.exec.o.cmd", "built"),
            ("fs/made.h", "built"),
            ("include/generated/autoconf.h", "built"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_view_has_the_sources_and_nothing_that_was_built() {
        let dir = tree();
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        let entry = store.path("view");
        let view = Sources::scan(dir.path()).unwrap().view(&store, &entry, &|_| ()).unwrap();
        let is_there = |path: &str| view.join(path).exists();
        for path in ["Makefile", "fs/exec.c", "fs/kept.o", ".gitignore"] {
            assert!(is_there(path), "{path}");
        }
        for path in
            [".git", ".config", "vmlinux", "fs/exec.o", "fs/.exec.o.cmd", "fs/made.h", "include/generated"]
        {
            assert!(!is_there(path), "{path}");
        }
        assert!(view.join("fs").symlink_metadata().unwrap().is_dir(), "a link would lead to what was built");
    }

    #[test]
    fn building_changes_nothing_and_editing_does() {
        let dir = tree();
        let identity = || Sources::scan(dir.path()).unwrap().identity();
        let before = identity();
        fs::write(dir.path().join("fs/more.o"), "built").unwrap();
        fs::write(dir.path().join(".git/HEAD"), "another\n").unwrap();
        assert_eq!(identity(), before);
        fs::write(dir.path().join("fs/new.c"), "").unwrap();
        let with_new = identity();
        assert_ne!(with_new, before);
        fs::write(dir.path().join("fs/exec.c"), "int xy;\n").unwrap();
        assert_ne!(identity(), with_new);
    }
}
