//! Applies changes to files in memory, by the rules of GNU patch.
//!
//! A hunk is looked for where it says, moved by as much as the hunk before it, then ever further away in both
//! directions. Context that is shorter on one side means the begin or the end of the file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;

use super::kind::classify;
use super::{Action, FilePatch, Hunk, Line, LineKind, Patched, Touched};
use crate::error::Error;
use crate::phase::Phase;

/// A hunk that applies, but not exactly as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The file that is patched.
    pub file: PathBuf,
    /// Number of the hunk in that file's change, from 1.
    pub hunk: usize,
    /// First line of the hunk in the patched file.
    pub line: u64,
    /// By how many lines it moved.
    pub offset: i64,
    /// How many lines of context were ignored at each end.
    pub fuzz: usize,
}

/// Most lines compared in search of the place that a failing hunk is most like; that is for a message only.
const MAX_COMPARISONS: usize = 100_000_000;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileLine {
    text: Vec<u8>,
    /// True if a patch wrote it.
    written: bool,
}

/// A file as the patches so far have left it.
#[derive(Clone, Debug)]
struct State {
    in_tree: bool,
    /// `None` where there is no such file.
    lines: Option<Vec<FileLine>>,
    /// True if a patch names it; others were only looked for.
    touched: bool,
}

/// The application of all patches.
pub(super) struct Work<'t> {
    tree: &'t Path,
    fuzz: usize,
    files: BTreeMap<PathBuf, State>,
    errors: Vec<Error>,
}

impl<'t> Work<'t> {
    pub(super) fn new(tree: &'t Path, fuzz: usize) -> Work<'t> {
        Work { tree, fuzz, files: BTreeMap::new(), errors: Vec::new() }
    }

    /// Applies one file's change; what is wrong is kept for [`Work::finish`].
    pub(super) fn apply(&mut self, patch: &Path, file: &FilePatch) -> Vec<Moved> {
        self.try_apply(patch, file).unwrap_or_else(|error| {
            self.errors.push(error);
            Vec::new()
        })
    }

    /// What became of all files.
    pub(super) fn finish(self) -> Result<Patched, Vec<Error>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut patched = Patched::default();
        for (path, state) in self.files {
            // A file that one patch made and another removed never was.
            if !state.touched || !state.in_tree && state.lines.is_none() {
                continue;
            }
            let lines = state.lines.as_deref().map(written).unwrap_or_default();
            let touched = Touched { kind: classify(&path), created: !state.in_tree, lines };
            patched.touched.insert(path.clone(), touched);
            patched
                .files
                .insert(path, state.lines.map(|lines| lines.into_iter().flat_map(|l| l.text).collect()));
        }
        Ok(patched)
    }

    fn try_apply(&mut self, patch: &Path, file: &FilePatch) -> Result<Vec<Moved>, Error> {
        let fail = |code: &'static str, message: String| {
            Error::new(Phase::Parse, code, message).file(patch).line(file.line).text(patch)
        };
        let missing = |path: &Path| {
            fail("no-such-file", format!("{} is not in the source tree", path.display())).remedy(
                "check that the patch is for this kernel, and that its paths are those of `patch -p1`",
            )
        };
        let exists = |path: &Path| {
            fail("file-exists", format!("{} is in the source tree already", path.display()))
                .remedy("the patch may be applied to this source already; leave it out then")
        };
        let (from, to, action) = match &file.action {
            Action::Modify(old, new) => {
                let path = self.choose(patch, file, old, new)?;
                if self.load(patch, file, &path)?.lines.is_none() {
                    let creates =
                        matches!(&file.hunks[..], [hunk] if hunk.old_start == 0 && hunk.new_start == 1);
                    if !creates {
                        return Err(missing(&path));
                    }
                }
                (path.clone(), path, &file.action)
            }
            Action::Create(path) => {
                let there =
                    self.load(patch, file, path)?.lines.as_ref().is_some_and(|lines| !lines.is_empty());
                if there {
                    return Err(exists(path));
                }
                (path.clone(), path.clone(), &file.action)
            }
            Action::Delete(path) => {
                if self.load(patch, file, path)?.lines.is_none() {
                    return Err(missing(path));
                }
                (path.clone(), path.clone(), &file.action)
            }
            Action::Rename(from, to) | Action::Copy(from, to) => {
                if self.load(patch, file, from)?.lines.is_none() {
                    return Err(missing(from));
                }
                if self.load(patch, file, to)?.lines.is_some() {
                    return Err(exists(to));
                }
                (from.clone(), to.clone(), &file.action)
            }
        };

        let original = self.files.get(&from).and_then(|state| state.lines.as_deref()).unwrap_or_default();
        let Outcome { lines, moved, failed } = patch_lines(original, &file.hunks, self.fuzz);
        self.errors.extend(failed.into_iter().map(|failure| failure.into_error(patch, &from)));
        let moved = moved.into_iter().map(|moved| Moved { file: to.clone(), ..moved }).collect();
        let lines = match action {
            Action::Delete(path) => {
                if !lines.is_empty() {
                    let message = format!("{} has lines that the patch does not delete", path.display());
                    return Err(fail("not-applicable", message));
                }
                None
            }
            _ => Some(lines),
        };
        if matches!(action, Action::Rename(..))
            && let Some(state) = self.files.get_mut(&from)
        {
            (state.lines, state.touched) = (None, true);
        }
        if let Some(state) = self.files.get_mut(&to) {
            (state.lines, state.touched) = (lines, true);
        }
        Ok(moved)
    }

    /// Where `diff` compared two names, the one that exists is meant; of two, the one that looks less like a copy.
    fn choose(&mut self, patch: &Path, file: &FilePatch, old: &Path, new: &Path) -> Result<PathBuf, Error> {
        let mut there = Vec::new();
        for path in [old, new] {
            if self.load(patch, file, path)?.lines.is_some() {
                there.push(path);
            }
        }
        there.sort_by_key(|path| {
            (
                path.components().count(),
                path.file_name().map_or(0, std::ffi::OsStr::len),
                path.as_os_str().len(),
            )
        });
        Ok(there.first().copied().unwrap_or(new).to_owned())
    }

    /// The state of a file, read from the tree the first time.
    fn load(&mut self, patch: &Path, file: &FilePatch, path: &Path) -> Result<&State, Error> {
        if !self.files.contains_key(path) {
            let text = read_in(self.tree, path).map_err(|reason| {
                let message = format!("{} cannot be patched: {reason}", path.display());
                Error::new(Phase::Parse, "bad-path", message).file(patch).line(file.line).text(patch)
            })?;
            let lines = text.as_deref().map(|text| {
                text.lines_with_terminator()
                    .map(|l| FileLine { text: l.to_owned(), written: false })
                    .collect()
            });
            self.files.insert(path.to_owned(), State { in_tree: text.is_some(), lines, touched: false });
        }
        Ok(&self.files[path])
    }
}

/// Reads a file of the tree without following symbolic links on the way; `None` where there is none.
fn read_in(tree: &Path, path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut full = tree.to_owned();
    for component in path.components() {
        full.push(component);
        match std::fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                return Err(format!("{} is a symbolic link", full.display()));
            }
            Ok(metadata) if full == tree.join(path) && !metadata.is_file() => {
                return Err("it is no regular file".to_owned());
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    std::fs::read(&full).map(Some).map_err(|error| error.to_string())
}

/// Stretches of lines that a patch wrote.
fn written(lines: &[FileLine]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| line.written) {
        let line = index as u64 + 1;
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == line => *count += 1,
            _ => ranges.push((line, 1)),
        }
    }
    ranges
}

/// What became of a file's hunks.
struct Outcome {
    lines: Vec<FileLine>,
    moved: Vec<Moved>,
    failed: Vec<Failure>,
}

/// A hunk that does not apply.
#[derive(Debug)]
struct Failure {
    number: usize,
    /// Line of its header in the patch file.
    line: usize,
    /// Line of the file where it should have applied.
    at: u64,
    reason: FailReason,
}

#[derive(Debug, PartialEq, Eq)]
enum FailReason {
    /// Its result is what the file has.
    Applied,
    /// It would apply if that many lines of context were ignored.
    Fuzz(usize),
    /// Most of it is there, but a line differs: its number, the file's and the patch's text.
    Differs(u64, String, String),
    /// Nothing like it is in the file.
    Nowhere,
}

impl Failure {
    fn into_error(self, patch: &Path, file: &Path) -> Error {
        let message = format!("{}: Hunk #{} FAILED at {}", file.display(), self.number, self.at);
        let error =
            Error::new(Phase::Parse, "not-applicable", message).file(patch).line(self.line).text(patch);
        let other = "make the patch anew for the source of this kernel release";
        match self.reason {
            FailReason::Applied => error
                .cause("the source has what this hunk makes: it is applied already")
                .remedy("leave it out of the patch"),
            FailReason::Fuzz(fuzz) => error
                .cause("lines around the change differ from those in the patch")
                .remedy(format!("{other}, or allow the context to differ with --fuzz {fuzz}")),
            FailReason::Differs(line, found, wanted) => error
                .cause(format!(
                    "line {line} of {} is\n    {found}\nwhere the patch has\n    {wanted}",
                    file.display()
                ))
                .remedy(other),
            FailReason::Nowhere => {
                error.cause(format!("nothing in {} looks like this hunk", file.display())).remedy(other)
            }
        }
    }
}

/// A hunk as something to be looked for.
struct Pattern<'h> {
    lines: Vec<&'h Line>,
    /// Index of its first line in the original, as the patch says.
    index: usize,
    /// Lines of context at its begin and end.
    prefix: usize,
    suffix: usize,
    /// True if it says that it is about the first line.
    first: bool,
}

impl<'h> Pattern<'h> {
    /// The hunk's lines of the original, or with `reversed` of its result.
    fn new(hunk: &'h Hunk, reversed: bool) -> Pattern<'h> {
        let (start, skip) =
            if reversed { (hunk.new_start, LineKind::Removed) } else { (hunk.old_start, LineKind::Added) };
        let lines: Vec<&Line> = hunk.lines.iter().filter(|line| line.kind != skip).collect();
        let is_context = |line: &&Line| line.kind == LineKind::Context;
        // An empty range comes after the line it names.
        let start_index = if lines.is_empty() { start } else { start.saturating_sub(1) };
        Pattern {
            // Far beyond any file, but a number that can be counted from.
            index: usize::try_from(start_index).unwrap_or(usize::MAX).min(i64::MAX as usize),
            prefix: hunk.lines.iter().take_while(is_context).count(),
            suffix: hunk.lines.iter().rev().take_while(is_context).count(),
            first: start <= 1,
            lines,
        }
    }

    fn context(&self) -> usize {
        self.prefix.max(self.suffix)
    }

    /// True if the file has these lines at an index, but for some at each end.
    fn matches(&self, file: &[FileLine], index: usize, skip_prefix: usize, skip_suffix: usize) -> bool {
        let end = self.lines.len().saturating_sub(skip_suffix);
        let Some(wanted) = self.lines.get(skip_prefix..end) else { return false };
        let Some(there) = file.get(index..).and_then(|rest| rest.get(skip_prefix..end)) else { return false };
        wanted.iter().zip(there).all(|(wanted, there)| wanted.text == there.text)
    }

    /// The index where the file has these lines, at least `from`, nearest to where it should be.
    fn locate(&self, file: &[FileLine], from: usize, shift: i64, fuzz: usize) -> Option<usize> {
        let missing_before = self.context() - self.prefix;
        let missing_behind = self.context() - self.suffix;
        let (skip_prefix, skip_suffix) =
            (fuzz.saturating_sub(missing_before), fuzz.saturating_sub(missing_behind));
        // At the end, lines that may be ignored may as well be missing.
        let last = (file.len() + skip_suffix).checked_sub(self.lines.len())?;
        let at = |index: usize| {
            (from..=last).contains(&index) && self.matches(file, index, skip_prefix, skip_suffix)
        };
        if self.first && missing_before > fuzz {
            let whole = missing_behind <= fuzz || self.lines.len() == file.len();
            return (whole && at(0)).then_some(0);
        }
        if missing_behind > fuzz {
            let end = file.len().checked_sub(self.lines.len())?;
            return at(end).then_some(end);
        }
        if last < from {
            return None;
        }
        let guess = self.guess(shift);
        // Both bounds of the search are lines of the file, however far outside it the patch says to look.
        let nearest = from.saturating_sub(guess).max(guess.saturating_sub(last));
        let farthest = last.abs_diff(guess).max(from.abs_diff(guess));
        (nearest..=farthest)
            .flat_map(|distance| [guess.checked_add(distance), guess.checked_sub(distance)])
            .flatten()
            .find(|&index| at(index))
    }

    /// Where it should be, if it moves as the hunk before it did.
    fn guess(&self, shift: i64) -> usize {
        usize::try_from((self.index as i64).saturating_add(shift)).unwrap_or(0)
    }
}

/// Applies the hunks to a file.
fn patch_lines(original: &[FileLine], hunks: &[Hunk], fuzz: usize) -> Outcome {
    let mut outcome =
        Outcome { lines: Vec::with_capacity(original.len()), moved: Vec::new(), failed: Vec::new() };
    // Lines before this index are done with.
    let mut done = 0;
    let mut shift = 0;
    for (index, hunk) in hunks.iter().enumerate() {
        let number = index + 1;
        let pattern = Pattern::new(hunk, false);
        let find = |fuzz| pattern.locate(original, done, shift, fuzz);
        let found = (0..=fuzz.min(pattern.context())).find_map(|fuzz| Some((find(fuzz)?, fuzz)));
        let Some((at, used)) = found else {
            let reason = explain(original, done, shift, hunk, &pattern, fuzz);
            outcome.failed.push(Failure { number, line: hunk.line, at: hunk.old_start, reason });
            continue;
        };
        outcome.lines.extend_from_slice(original.get(done..at).unwrap_or_default());
        let offset = at as i64 - pattern.index as i64;
        if offset != 0 || used != 0 {
            let line = outcome.lines.len() as u64 + 1;
            outcome.moved.push(Moved { file: PathBuf::new(), hunk: number, line, offset, fuzz: used });
        }
        shift = offset;
        let mut next = at;
        for line in &hunk.lines {
            match line.kind {
                // The file's own, which may differ where context was ignored, or be missing at its end.
                LineKind::Context => {
                    outcome.lines.extend(original.get(next).cloned());
                    next += 1;
                }
                LineKind::Removed => next += 1,
                LineKind::Added => outcome.lines.push(FileLine { text: line.text.clone(), written: true }),
            }
        }
        done = next.min(original.len());
    }
    outcome.lines.extend_from_slice(original.get(done..).unwrap_or_default());
    outcome
}

/// Why a hunk does not apply.
fn explain(
    file: &[FileLine],
    from: usize,
    shift: i64,
    hunk: &Hunk,
    pattern: &Pattern<'_>,
    fuzz: usize,
) -> FailReason {
    let reversed = Pattern::new(hunk, true);
    if !reversed.lines.is_empty() && reversed.locate(file, from, shift, 0).is_some() {
        return FailReason::Applied;
    }
    let more = fuzz.saturating_add(1)..=pattern.context();
    if let Some(fuzz) = more.into_iter().find(|&fuzz| pattern.locate(file, from, shift, fuzz).is_some()) {
        return FailReason::Fuzz(fuzz);
    }
    let alike = |at: usize| {
        let there = file.get(at..).unwrap_or_default();
        pattern.lines.iter().zip(there).filter(|(wanted, there)| wanted.text == there.text).count()
    };
    if file.len().saturating_mul(pattern.lines.len()) > MAX_COMPARISONS {
        return FailReason::Nowhere;
    }
    let guess = pattern.guess(shift);
    let best = (0..file.len()).max_by_key(|&at| (alike(at), std::cmp::Reverse(at.abs_diff(guess))));
    let Some(best) = best.filter(|&at| alike(at) * 2 > pattern.lines.len()) else {
        return FailReason::Nowhere;
    };
    let text = |text: &[u8]| text.trim_end().to_str_lossy().into_owned();
    for (number, wanted) in pattern.lines.iter().enumerate() {
        let there = file.get(best + number);
        if there.is_none_or(|there| there.text != wanted.text) {
            let found = there.map_or_else(|| "the end of the file".to_owned(), |line| text(&line.text));
            return FailReason::Differs((best + number) as u64 + 1, found, text(&wanted.text));
        }
    }
    // All lines are there, but before a hunk that comes earlier in the patch.
    FailReason::Nowhere
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
