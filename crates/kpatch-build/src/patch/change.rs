//! What a patch file says: which files change, and where.

use std::path::{Path, PathBuf};

/// What a patch file makes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePatch {
    /// Line in the patch file where it begins.
    pub line: usize,
    /// What happens to the file as a whole.
    pub action: Action,
    /// The changes, in the order of the patch file.
    pub hunks: Vec<Hunk>,
}

/// What happens to a file as a whole. Paths are below the source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It changes. The two names differ where `diff` compared `x.c.orig` with `x.c`: one of them exists.
    Modify(PathBuf, PathBuf),
    /// It is new.
    Create(PathBuf),
    /// It goes.
    Delete(PathBuf),
    /// It gets another name.
    Rename(PathBuf, PathBuf),
    /// A file is made from another.
    Copy(PathBuf, PathBuf),
}

impl FilePatch {
    /// The paths that it names, the older first.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match &self.action {
            Action::Modify(old, new) | Action::Rename(old, new) | Action::Copy(old, new) => (old, Some(new)),
            Action::Create(path) | Action::Delete(path) => (path, None),
        };
        std::iter::once(first).chain(second.filter(|path| *path != first)).map(PathBuf::as_path)
    }
}

/// One place of a file that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// Line of its header in the patch file.
    pub line: usize,
    /// First line in the original file, from 1; 0 where there is none.
    pub old_start: u64,
    /// First line in the patched file.
    pub new_start: u64,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What happens to it.
    pub kind: LineKind,
    /// Its text, with the newline if it has one.
    pub text: Vec<u8>,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// It stays.
    Context,
    /// It goes.
    Removed,
    /// It is new.
    Added,
}
