//! Units that no patch touches, but that may read a touched file: which of them see a change.
//!
//! The textual graph names every unit that could. The compiler's own preprocessor tells more: an original that
//! reads no touched file is the same after the patches, and where what decides the code is the same before and
//! after, lines and counters aside, so is the code. What it said about originals is kept for the next patch.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bstr::ByteSlice;
use kbuild::object_tree::UnitCommand;
use kbuild::units::Unpatchable;
use rayon::prelude::*;

use super::compile;
use super::job::{Context, Job, Plain, Variant};
use super::resolve::tree_error;
use super::unit::{self, Unit};
use crate::cache::{Key, KeyBuilder};
use crate::error::{self, Error};
use crate::events::{Event, Events};
use crate::originals::Original;
use crate::patch::{FileKind, Patched};
use crate::phase::Phase;
use crate::slice;

/// Keeps the units that see a change, of `considered` ones that may. Units that patches touch themselves stay without being asked; what kbuild
/// generates for them is there afterwards.
pub fn run(
    context: &Context<'_>,
    units: Vec<Unit>,
    patched: &Patched,
    considered: usize,
    events: Events<'_>,
) -> Result<Vec<Unit>, Vec<Error>> {
    let search = Search { context, runs: AtomicUsize::new(0), events };
    let named = units.iter().filter(|unit| unit.indirect).count();
    let pool = compile::pool(context.jobs)?;
    let originals = pool.install(|| search.originals(&units));
    // What was found before an interruption spares the next run the work.
    context
        .originals
        .save()
        .map_err(|error| vec![Error::new(Phase::Plan, error::Code::IO, error).remedy(super::CACHE_REMEDY)])?;
    let originals = originals?;
    let changes = Changes::new(patched, context.source);
    let readers: Vec<(Unit, Option<Original>)> = units
        .into_iter()
        .zip(originals)
        .filter(|(unit, original)| {
            !unit.indirect || original.as_ref().is_none_or(|o| o.files.iter().any(|file| changes.reach(file)))
        })
        .collect();
    let kept = pool.install(|| search.changed(readers))?;
    if considered > 0 {
        events(Event::Searched {
            considered,
            named,
            preprocessed: search.runs.into_inner(),
            changed: kept.iter().filter(|unit| unit.indirect).count(),
        });
    }
    Ok(kept)
}

/// Files whose readers may see a change.
struct Changes {
    files: BTreeSet<PathBuf>,
    /// Names of new headers, which may stand before others of the name in the order of the search.
    created: BTreeSet<std::ffi::OsString>,
}

impl Changes {
    fn new(patched: &Patched, source: &Path) -> Changes {
        let created = patched.of_kind(FileKind::Header);
        let created = created.filter(|path| patched.touched.get(*path).is_some_and(|t| t.created));
        Changes {
            files: patched.touched.keys().map(|path| source.join(path)).collect(),
            created: created.filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect(),
        }
    }

    fn reach(&self, file: &Path) -> bool {
        let straight = file.components().all(|part| part != Component::ParentDir);
        let touched =
            if straight { self.files.contains(file) } else { self.files.contains(&super::plain(file)) };
        touched || file.file_name().is_some_and(|name| self.created.contains(name))
    }
}

/// The preprocessor at work on many units.
struct Search<'a> {
    context: &'a Context<'a>,
    /// How often it ran.
    runs: AtomicUsize,
    events: Events<'a>,
}

impl Search<'_> {
    /// What each unit's original reads; `None` where the preprocessor fails, which is left to the compiler to
    /// explain.
    fn originals(&self, units: &[Unit]) -> Result<Vec<Option<Original>>, Vec<Error>> {
        let done = AtomicUsize::new(0);
        let found = units.par_iter().map(|unit| {
            let original = if unit.created { Ok(None) } else { self.original(unit) };
            self.progress(&done, units.len(), unit);
            original
        });
        let mut found = gather(found.collect())?;
        // Some read files that kbuild generates together with their objects.
        let lacking: Vec<usize> =
            (0..units.len()).filter(|&at| found[at].is_none() && !units[at].created).collect();
        self.generate(lacking.iter().map(|&at| &units[at]))?;
        let again = lacking.par_iter().map(|&at| Ok((at, self.original(&units[at])?)));
        for (at, original) in gather(again.collect())? {
            found[at] = original;
        }
        Ok(found)
    }

    fn generate<'u>(&self, units: impl Iterator<Item = &'u Unit>) -> Result<(), Vec<Error>> {
        let spelled: Vec<PathBuf> = units.map(|unit| unit.spelled.clone()).collect();
        let made = self.context.tree.generate(&spelled).map_err(|e| vec![tree_error(Phase::Plan, e)])?;
        let errors: Vec<Error> = made
            .into_iter()
            .filter_map(|(unit, command)| match command {
                UnitCommand::Failed { diagnostics, .. } => {
                    Some(unit::unpatchable(&unit, &Unpatchable::DoesNotCompile { diagnostics }))
                }
                _ => None,
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn original(&self, unit: &Unit) -> Result<Option<Original>, Error> {
        // What is known already needs no compiler, which would not start any more.
        if kbuild::root::interrupted() {
            return Err(Error::interrupted(Phase::Plan));
        }
        let words = self.words(unit, Variant::Original);
        let key = key(self.context, &words);
        if let Some(known) = self.context.originals.get(key, self.context.cache) {
            return Ok(Some(known));
        }
        let since = SystemTime::now();
        let Some(output) = self.preprocess(unit, &words)? else { return Ok(None) };
        let files = files(&output).iter().map(|file| self.context.on_host(file)).collect();
        let original = Original { slice: slice::hash(&output), files };
        self.context
            .originals
            .put(key, &original, since, self.context.cache)
            .map_err(|error| Error::new(Phase::Plan, error::Code::IO, error).remedy(super::CACHE_REMEDY))?;
        Ok(Some(original))
    }

    /// Those whose slice the patches change, and those that they touch.
    fn changed(&self, units: Vec<(Unit, Option<Original>)>) -> Result<Vec<Unit>, Vec<Error>> {
        let done = AtomicUsize::new(0);
        let total = units.iter().filter(|(unit, _)| unit.indirect).count();
        let kept = units.into_par_iter().map(|(unit, original)| {
            // What cannot be preprocessed is left to the compiler, which says why.
            let Some(original) = original.filter(|_| unit.indirect) else { return Ok(Some(unit)) };
            let words = self.words(&unit, Variant::Patched);
            let patched = self.preprocess(&unit, &words)?;
            self.progress(&done, total, &unit);
            let same = patched.is_some_and(|output| slice::hash(&output) == original.slice);
            Ok((!same).then_some(unit))
        });
        Ok(gather(kept.collect())?.into_iter().flatten().collect())
    }

    fn words(&self, unit: &Unit, variant: Variant) -> Vec<String> {
        let job = Job { unit, variant, plain: Plain::default() };
        compile::command(self.context, job).preprocessing_words()
    }

    /// What the preprocessor prints; `None` where it fails.
    fn preprocess(&self, unit: &Unit, words: &[String]) -> Result<Option<Vec<u8>>, Error> {
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        self.runs.fetch_add(1, Ordering::Relaxed);
        let task = self.context.command(program).args(arguments);
        let output = task.output().map_err(|error| match error {
            kbuild::root::RunError::Interrupted => Error::interrupted(Phase::Plan),
            error => Error::new(Phase::Plan, "compiler", "the compiler does not start")
                .file(&unit.source)
                .cause(error),
        })?;
        Ok(output.status.success().then_some(output.stdout))
    }

    fn progress(&self, done: &AtomicUsize, total: usize, unit: &Unit) {
        (self.events)(Event::Progress {
            phase: Phase::Plan,
            done: done.fetch_add(1, Ordering::Relaxed) + 1,
            total,
            what: unit.source.display().to_string(),
        });
    }
}

/// All results, or all errors.
fn gather<T>(results: Vec<Result<T, Error>>) -> Result<Vec<T>, Vec<Error>> {
    let (mut all, mut errors) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        match result {
            Ok(value) => all.push(value),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// What decides what the preprocessor prints for an original, besides the files that it reads.
fn key(context: &Context<'_>, words: &[String]) -> Key {
    KeyBuilder::new("original")
        .field("compiler", context.compiler)
        .field("directory", context.tree.path().as_os_str().as_encoded_bytes())
        .list("command", words)
        .finish()
}

/// The files that the preprocessor read, in the order they were first entered, as the compiler spells them.
fn files(output: &[u8]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for line in output.lines() {
        if let Some(marker) = line.strip_prefix(b"# ").filter(|r| r.first().is_some_and(u8::is_ascii_digit))
            && let Some(name) = marked_file(marker)
            && seen.insert(name)
        {
            files.extend(unquoted(name));
        }
    }
    files
}

/// The quoted name in a line marker, `1 "fs/a.c" 2`, if it is one of a file: `<built-in>` is none, nor is the
/// directory that the compiler ran in, which ends in two slashes.
fn marked_file(marker: &[u8]) -> Option<&[u8]> {
    let start = marker.find_byte(b'"')? + 1;
    let end = marker.rfind_byte(b'"').filter(|&end| end > start)?;
    let name = &marker[start..end];
    (!name.starts_with(b"<") && !name.ends_with(b"//")).then_some(name)
}

/// Undoes the quoting of a C string: backslashes, and octal numbers for bytes that do not print.
fn unquoted(name: &[u8]) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
        } else if let Some((digits, after)) = rest.split_first_chunk::<3>()
            && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        {
            bytes.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8) | (digit - b'0')));
            rest = after;
        } else if let Some((&byte, after)) = rest.split_first() {
            bytes.push(byte);
            rest = after;
        }
    }
    Some(PathBuf::from(bytes.to_path().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_markers_tell_what_was_read() {
        let read = files(
            b"# 0 \"/s/fs/a.c\"\n# 1 \"/o//\"\n# 0 \"<built-in>\"\n# 1 \"./x\\\\y\\\"\\303\\244.h\" 1\n\
              # 7 \"/s/fs/a.c\" 2\n",
        );
        assert_eq!(read, [Path::new("/s/fs/a.c"), Path::new("./x\\y\"\u{e4}.h")]);
        for text in ["# 1", "# 1 \"", "# 1 \"\\\"", "# 1 \"a\\1\"", "#"] {
            let _ = files(text.as_bytes());
        }
    }

    #[test]
    fn readers_of_touched_and_of_hidden_files_are_asked() {
        let touched = |created| crate::patch::Touched { kind: FileKind::Header, created, lines: Vec::new() };
        let patched = Patched {
            files: [("include/a.h".into(), None), ("fs/new.h".into(), None)].into(),
            touched: [("include/a.h".into(), touched(false)), ("fs/new.h".into(), touched(true))].into(),
            ..Patched::default()
        };
        let changes = Changes::new(&patched, Path::new("/s"));
        for (file, reached) in [
            ("/s/include/a.h", true),
            ("/s/fs/../include/a.h", true),
            ("/o/include/a.h", false),
            ("/s/include/b.h", false),
            ("/s/include/linux/new.h", true),
        ] {
            assert_eq!(changes.reach(Path::new(file)), reached, "{file}");
        }
    }
}
