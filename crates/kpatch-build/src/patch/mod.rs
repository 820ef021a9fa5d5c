//! Patch files: reading them, judging what they touch, and applying them without writing to the source tree.
//!
//! A patch is applied here, not by `patch`, because the result is wanted in memory, every hunk that fails is to
//! be reported with its line in the patch file, and a hostile patch must not reach outside the tree.

mod apply;
mod change;
mod included;
mod kind;
mod name;
mod parse;
mod problem;
mod rename;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use apply::Moved;
pub use change::{Action, FilePatch, Hunk, Line, LineKind};
pub use kind::{FileKind, classify};
pub use parse::parse;
pub use problem::{ParseError, Problem};

use crate::error::Error;
use crate::events::{Event, Events};
use crate::phase::Phase;

/// A patch file as the user gave it.
#[derive(Clone, Debug)]
pub struct PatchFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its contents.
    pub text: Vec<u8>,
    /// What it changes.
    pub files: Vec<FilePatch>,
}

/// What all patches together make of the files they touch.
#[derive(Clone, Debug, Default)]
pub struct Patched {
    /// By path below the source tree: the new contents, or `None` where the file is deleted.
    pub files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// What is known about each of these files.
    pub touched: BTreeMap<PathBuf, Touched>,
    /// Source files that get another name, by the name that the tree knows. They stand above by that name only, as the
    /// running kernel does not know the other one.
    pub renamed: BTreeMap<PathBuf, PathBuf>,
}

/// A file that patches touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// What kind of file it is.
    pub kind: FileKind,
    /// True if the tree does not have it.
    pub created: bool,
    /// Lines of the new contents that a patch wrote, as first line and number of lines, ascending.
    pub lines: Vec<(u64, u64)>,
}

impl Patched {
    /// Paths of one kind, in order.
    pub fn of_kind(&self, kind: FileKind) -> impl Iterator<Item = &Path> {
        self.touched.iter().filter(move |(_, touched)| touched.kind == kind).map(|(path, _)| path.as_path())
    }
}

/// Reads and understands patch files. All that is wrong with any of them is reported.
pub fn read(paths: &[PathBuf]) -> Result<Vec<PatchFile>, Vec<Error>> {
    let mut patches = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                errors.push(Error::io(Phase::Parse, "read patch file", path)(error));
                continue;
            }
        };
        match parse(&text) {
            Ok(files) => {
                errors.extend(files.iter().filter_map(|file| refuse(path, file)));
                patches.push(PatchFile { path: path.clone(), text, files });
            }
            Err(problems) => errors.extend(problems.into_iter().map(|problem| problem.into_error(path))),
        }
    }
    if errors.is_empty() { Ok(patches) } else { Err(errors) }
}

/// The reason why a live patch cannot be made of a change to this file.
fn refuse(patch: &Path, file: &FilePatch) -> Option<Error> {
    // Both names count: a rename out of a supported kind is a change of it.
    let (path, reason) = file.paths().find_map(|path| match classify(path) {
        FileKind::Unsupported(reason) => Some((path, reason)),
        _ => None,
    })?;
    Some(
        Error::new(Phase::Parse, "unsupported-file", format!("{}: {}", path.display(), reason.message()))
            .file(patch)
            .line(file.line)
            .text(patch)
            .remedy(reason.remedy()),
    )
}

/// Applies the patches in order to the files of `tree`, which is only read.
///
/// A hunk that applies elsewhere than it says is accepted and reported as an event; context that differs is
/// refused beyond `fuzz` lines. All hunks that fail are reported.
pub fn apply(
    patches: &[PatchFile],
    tree: &Path,
    fuzz: usize,
    events: Events<'_>,
) -> Result<Patched, Vec<Error>> {
    let mut work = apply::Work::new(tree, fuzz);
    for patch in patches {
        for file in &patch.files {
            for moved in work.apply(&patch.path, file) {
                events(Event::HunkMoved {
                    file: moved.file,
                    hunk: moved.hunk,
                    line: moved.line,
                    offset: moved.offset,
                    fuzz: moved.fuzz,
                });
            }
        }
    }
    let patched = included::follow(rename::follow(patches, work.finish()?));
    for (old, new) in &patched.renamed {
        let (old, new) = (old.display(), new.display());
        events(Event::note(format!("{old} is renamed to {new}; the running kernel knows it as {old}")));
    }
    for (path, touched) in &patched.touched {
        if touched.kind == FileKind::Inert {
            events(Event::note(format!(
                "{} is not part of the kernel, its change is left out",
                path.display()
            )));
        }
    }
    Ok(patched)
}
