//! Which hunks of a refused patch could be built alone (`--split`).
//!
//! The patch is taken apart, by files first, then each file's hunks by halves, until every part is built or is a single
//! hunk. What needs another hunk, as a call needs the declaration of what it calls, is tried again with all that was
//! built. Building is somebody else's business.

pub mod part;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Code, Error};
use crate::patch::{Action, PatchFile};
use part::{FilePart, Outcome, Part};

/// The least that a patch can be divided into: a hunk, or a file that comes, goes or changes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Atom {
    patch: usize,
    file: usize,
    hunk: Option<usize>,
}

/// Codes of refusals that another hunk may cure.
const NEEDS_OTHERS: [&str; 3] = ["compiler-error", "unresolved", "not-applicable"];

const NO_CHANGE: &str = "no-change";

/// What builds patches.
pub type Build<'b> = &'b dyn Fn(&[PatchFile]) -> Result<(), Vec<Error>>;

/// Divides patches that `build` refuses as a whole. Each part is told as soon as it is known; the error is that of an
/// interrupted run.
pub fn run(patches: &[PatchFile], build: Build<'_>, tell: &dyn Fn(Part)) -> Result<(), Error> {
    let all = atoms(patches);
    let mut split =
        Split { patches, build, tell, good: BTreeSet::new(), changes: false, dependent: Vec::new() };
    split.divide(&all, true)?;
    split.join()?;
    split.together(all.len())
}

struct Split<'s> {
    patches: &'s [PatchFile],
    build: Build<'s>,
    tell: &'s dyn Fn(Part),
    /// All that can be built.
    good: BTreeSet<Atom>,
    /// Some of it changes code.
    changes: bool,
    /// What may need others.
    dependent: Vec<(Atom, Vec<Error>)>,
}

impl Split<'_> {
    fn try_build(&self, atoms: &[Atom]) -> Result<(Outcome, Vec<Error>), Error> {
        let errors = match (self.build)(&some(self.patches, atoms)) {
            Ok(()) => return Ok((Outcome::Builds, Vec::new())),
            Err(errors) => errors,
        };
        if let Some(interrupted) = errors.iter().find(|error| error.code == Code::INTERRUPTED) {
            return Err(interrupted.clone());
        }
        let is_no_change = !errors.is_empty() && errors.iter().all(|error| error.code.as_str() == NO_CHANGE);
        Ok(if is_no_change { (Outcome::NoChange, Vec::new()) } else { (Outcome::Refused, errors) })
    }

    fn tell(&self, atoms: &[Atom], outcome: Outcome, errors: Vec<Error>) {
        (self.tell)(Part { files: places(self.patches, atoms), outcome, errors });
    }

    fn divide(&mut self, atoms: &[Atom], is_refused: bool) -> Result<(), Error> {
        if !is_refused || atoms.len() == 1 {
            let (outcome, errors) = self.try_build(atoms)?;
            match (outcome, atoms) {
                (Outcome::Builds | Outcome::NoChange, _) => {
                    self.changes |= outcome == Outcome::Builds;
                    self.good.extend(atoms);
                    self.tell(atoms, outcome, errors);
                    return Ok(());
                }
                (_, [single]) => {
                    if errors.iter().any(|error| NEEDS_OTHERS.contains(&error.code.as_str())) {
                        self.dependent.push((*single, errors));
                    } else {
                        self.tell(atoms, outcome, errors);
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
        let mut by_file: BTreeMap<(usize, usize), Vec<Atom>> = BTreeMap::new();
        for atom in atoms {
            by_file.entry((atom.patch, atom.file)).or_default().push(*atom);
        }
        if by_file.len() > 1 {
            return by_file.values().try_for_each(|file| self.divide(file, false));
        }
        let (first, second) = atoms.split_at(atoms.len() / 2);
        self.divide(first, false)?;
        self.divide(second, false)
    }

    /// Tries what may need others with all that was built: everything at once, then one after the other.
    fn join(&mut self) -> Result<(), Error> {
        let mut left = std::mem::take(&mut self.dependent);
        let several: Vec<Atom> = left.iter().map(|(atom, _)| *atom).collect();
        if several.len() > 1 && self.joins(&several)? {
            return Ok(());
        }
        while !left.is_empty() {
            let before = left.len();
            let mut still = Vec::new();
            for (atom, errors) in left {
                // With nothing else built, it has been tried.
                if self.good.is_empty() || !self.joins(&[atom])? {
                    still.push((atom, errors));
                }
            }
            left = still;
            if left.len() == before {
                break;
            }
        }
        for (atom, errors) in left {
            self.tell(&[atom], Outcome::Refused, errors);
        }
        Ok(())
    }

    fn joins(&mut self, atoms: &[Atom]) -> Result<bool, Error> {
        let all: Vec<Atom> = self.good.iter().chain(atoms).copied().collect();
        let (outcome, _) = self.try_build(&all)?;
        let joins = outcome != Outcome::Refused;
        if joins {
            self.changes |= outcome == Outcome::Builds;
            self.good.extend(atoms);
            self.tell(atoms, Outcome::BuildsWithOthers, Vec::new());
        }
        Ok(joins)
    }

    /// Parts that can be built alone may still contradict each other.
    fn together(&self, of: usize) -> Result<(), Error> {
        if !self.changes || self.good.len() == of {
            return Ok(());
        }
        let all: Vec<Atom> = self.good.iter().copied().collect();
        let (outcome, errors) = self.try_build(&all)?;
        let outcome = if outcome == Outcome::Builds { Outcome::Together } else { outcome };
        self.tell(&all, outcome, errors);
        Ok(())
    }
}

fn atoms(patches: &[PatchFile]) -> Vec<Atom> {
    let mut atoms = Vec::new();
    for (patch, file) in
        patches.iter().enumerate().flat_map(|(at, p)| (0..p.files.len()).map(move |f| (at, f)))
    {
        let parts = &patches[patch].files[file];
        match parts.action {
            Action::Modify(..) => {
                atoms.extend((0..parts.hunks.len()).map(|hunk| Atom { patch, file, hunk: Some(hunk) }));
            }
            _ => atoms.push(Atom { patch, file, hunk: None }),
        }
    }
    atoms
}

/// The patches with some of their hunks only. Line numbers of an original file stay right.
fn some(patches: &[PatchFile], atoms: &[Atom]) -> Vec<PatchFile> {
    let wanted: BTreeSet<Atom> = atoms.iter().copied().collect();
    let mut out = Vec::new();
    for (at, patch) in patches.iter().enumerate() {
        let mut files = Vec::new();
        for (file, change) in patch.files.iter().enumerate() {
            let has = |hunk| wanted.contains(&Atom { patch: at, file, hunk });
            if has(None) {
                files.push(change.clone());
                continue;
            }
            let hunks = change.hunks.iter().enumerate().filter(|(hunk, _)| has(Some(*hunk)));
            let hunks: Vec<_> = hunks.map(|(_, hunk)| hunk.clone()).collect();
            if !hunks.is_empty() {
                files.push(crate::patch::FilePatch { hunks, ..change.clone() });
            }
        }
        if !files.is_empty() {
            out.push(PatchFile { files, ..patch.clone() });
        }
    }
    out
}

fn places(patches: &[PatchFile], atoms: &[Atom]) -> Vec<FilePart> {
    let mut out: BTreeMap<(usize, usize), FilePart> = BTreeMap::new();
    for atom in atoms {
        let patch = &patches[atom.patch];
        let change = &patch.files[atom.file];
        let part = out.entry((atom.patch, atom.file)).or_insert_with(|| FilePart {
            patch: patch.path.clone(),
            file: change.paths().last().map(ToOwned::to_owned).unwrap_or_default(),
            hunks: Vec::new(),
            lines: Vec::new(),
        });
        match atom.hunk {
            Some(hunk) => {
                part.hunks.push(hunk + 1);
                part.lines.push(change.hunks[hunk].line);
            }
            None => part.lines.push(change.line),
        }
    }
    out.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fmt::Write;

    use super::*;
    use crate::patch::parse;
    use crate::phase::Phase;

    /// A patch of two files, with a hunk for each word: `bad` is refused, `use` needs `declare`, `none` changes nothing.
    fn patch(files: &[(&str, &[&str])]) -> Vec<PatchFile> {
        let mut text = String::new();
        for (file, words) in files {
            let _ = write!(text, "--- a/{file}\n+++ b/{file}\n");
            for (at, word) in words.iter().enumerate() {
                let line = at * 10 + 1;
                let _ = write!(text, "@@ -{line} +{line} @@\n-old\n+{word}\n");
            }
        }
        let files = parse(text.as_bytes()).unwrap();
        vec![PatchFile { path: "x.patch".into(), text: text.into_bytes(), files }]
    }

    fn build(patches: &[PatchFile]) -> Result<(), Vec<Error>> {
        let lines = patches.iter().flat_map(|p| &p.files).flat_map(|f| &f.hunks).flat_map(|h| &h.lines);
        let words: Vec<String> = lines.map(|l| String::from_utf8_lossy(&l.text).trim().to_owned()).collect();
        let has = |word: &str| words.iter().any(|found| found == word);
        let error = |code: &'static str| Err(vec![Error::new(Phase::Diff, code, format!("it is {code}"))]);
        if has("stop") {
            return error("interrupted");
        }
        if has("bad") {
            return error("no-entry");
        }
        if has("use") != has("declare") && has("use") || has("one") != has("other") {
            return error("compiler-error");
        }
        if has("left") && has("right") {
            return error("crc-changed");
        }
        if words.iter().all(|word| ["old", "none", "declare"].contains(&word.as_str())) {
            return error("no-change");
        }
        Ok(())
    }

    fn parts(files: &[(&str, &[&str])]) -> Vec<String> {
        let told = RefCell::new(Vec::new());
        run(&patch(files), &build, &|part| told.borrow_mut().push(part.to_string())).unwrap();
        told.into_inner()
    }

    #[test]
    fn the_hunk_that_is_refused_is_found() {
        assert_eq!(
            parts(&[("a.c", &["f", "g", "h", "bad", "i"]), ("b.c", &["j"])]),
            [
                "a.c hunks 1-2 (lines 3, 6 of x.patch): can be built alone",
                "a.c hunk 3 (line 9 of x.patch): can be built alone",
                "a.c hunk 4 (line 12 of x.patch): refused\n  it is no-entry [kpatch::diff::no-entry]",
                "a.c hunk 5 (line 15 of x.patch): can be built alone",
                "b.c hunk 1 (line 20 of x.patch): can be built alone",
                "what can be built as one: a.c hunks 1-3, 5 (lines 3, 6, 9, 15 of x.patch); \
                 b.c hunk 1 (line 20 of x.patch)",
            ]
        );
    }

    #[test]
    fn a_hunk_that_needs_another_joins_it() {
        assert_eq!(
            parts(&[("a.c", &["declare", "bad", "none", "use"])]),
            [
                "a.c hunk 1 (line 3 of x.patch): no functional change alone",
                "a.c hunk 2 (line 6 of x.patch): refused\n  it is no-entry [kpatch::diff::no-entry]",
                "a.c hunk 3 (line 9 of x.patch): no functional change alone",
                "a.c hunk 4 (line 12 of x.patch): can be built with all of the above that can be built",
                "what can be built as one: a.c hunks 1, 3-4 (lines 3, 9, 12 of x.patch)",
            ]
        );
        // Two that need each other.
        let found = parts(&[("a.c", &["one", "bad"]), ("b.c", &["other"])]);
        assert!(
            found.iter().any(|part| part.starts_with("a.c hunk 1 (line 3 of x.patch); b.c hunk 1")),
            "{found:?}"
        );
    }

    #[test]
    fn parts_that_contradict_each_other_are_told() {
        let found = parts(&[("a.c", &["left", "bad"]), ("b.c", &["right"])]);
        assert!(found.last().unwrap().contains("refused\n  it is crc-changed"), "{found:?}");
    }

    #[test]
    fn nothing_is_told_twice() {
        let one = "a.c hunk 1 (line 3 of x.patch): refused\n  it is no-entry [kpatch::diff::no-entry]";
        assert_eq!(parts(&[("a.c", &["bad"])]), [one]);
        let one =
            "a.c hunk 1 (line 3 of x.patch): refused\n  it is compiler-error [kpatch::diff::compiler-error]";
        assert_eq!(parts(&[("a.c", &["use"])]), [one]);
    }

    #[test]
    fn an_interrupted_run_ends() {
        let patch = patch(&[("a.c", &["f", "stop"])]);
        assert_eq!(run(&patch, &build, &|_| ()).unwrap_err().code, Code::INTERRUPTED);
    }

    #[test]
    fn a_new_file_is_one_part() {
        let text =
            "--- /dev/null\n+++ b/n.c\n@@ -0,0 +1 @@\n+bad\n--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-old\n+f\n";
        let files = parse(text.as_bytes()).unwrap();
        let patches = vec![PatchFile { path: "x.patch".into(), text: text.into(), files }];
        let told = RefCell::new(Vec::new());
        run(&patches, &build, &|part| told.borrow_mut().push(part)).unwrap();
        let told = told.into_inner();
        assert_eq!((told[0].files[0].hunks.len(), told[0].outcome), (0, Outcome::Refused));
        assert_eq!(told[1].outcome, Outcome::Builds);
    }
}
