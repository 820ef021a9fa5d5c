//! Building one patch, by the remedies that kpatch-build names until it comes to an end that says something.
//!
//! A header can be changed so that its other readers do not compile, or has so many that there is no time for them:
//! then what the patch touches is built alone. A structure's changed layout is refused; that is recorded, and the
//! patch built once more with the change allowed, to see what else there is.

use super::{BuildReport, End, Entry, ErrorReport};
use crate::builder::{Builder, Built};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const NO_CHANGE: &str = "no-change";
const INTERRUPTED: &str = "interrupted";
const COMPILER_ERROR: &str = "compiler-error";
const LAYOUT_CHANGED: &str = "layout-changed";

/// The option that a refusal for a layout names in its remedy, before the structure.
const ALLOW_LAYOUT: &str = "--allow-layout-change";

/// A patch's structures are all named at once, or in two steps: those of touched units, then those of readers.
const MOST_ATTEMPTS: usize = 5;

/// How patches are built.
pub(super) struct Attempts<'b> {
    builder: &'b Builder,
    /// Hash of kpatch-build.
    tool: blake3::Hash,
    /// Time for a build with all readers of a header.
    limit: Duration,
    /// Take results of other versions of kpatch-build as well.
    reuse: bool,
    /// Follow no remedy.
    as_is: bool,
}

/// What is kept of a build beside kpatch-build's own report.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Hash of kpatch-build, release and patch.
    key: String,
    /// Hash of release and patch.
    #[serde(default)]
    input: String,
    seconds: f64,
    /// It was stopped when its time was over.
    #[serde(default)]
    stopped: bool,
}

/// One build, and what follows from it for the next.
struct Attempt {
    entry: Entry,
    stopped: bool,
    /// The structures whose layouts stand in the way, if nothing else does.
    layouts: Vec<String>,
}

impl<'b> Attempts<'b> {
    pub(super) fn new(
        builder: &'b Builder,
        limit: Duration,
        reuse: bool,
        as_is: bool,
    ) -> Result<Attempts<'b>> {
        let tool = blake3::hash(&fs_err::read(builder.program())?);
        Ok(Attempts { builder, tool, limit, reuse, as_is })
    }

    /// The one line that says that the time was over.
    fn not_enough(&self, entry: &Entry) -> String {
        let searched = entry.searched.as_ref().map_or_else(String::new, |searched| {
            format!(" ({} may read the touched headers)", searched.considered)
        });
        format!("{} seconds were not enough for all units{searched}", self.limit.as_secs())
    }

    /// What becomes of a patch.
    pub(super) fn entry(&self, name: &str, patch: &Path, output: &Path) -> Result<Entry> {
        if self.as_is {
            let found = self.attempt(name, patch, output, false, &[])?;
            if !found.stopped {
                return Ok(found.entry);
            }
            let errors = vec![self.not_enough(&found.entry)];
            return Ok(Entry { end: End::Stopped, errors, ..found.entry });
        }
        let (mut whole, mut refused, mut allowed) = (Vec::new(), Vec::new(), Vec::new());
        let mut first: Option<Entry> = None;
        for _ in 0..MOST_ATTEMPTS {
            let alone = !whole.is_empty();
            let found = self.attempt(name, patch, output, alone, &allowed)?;
            let compiles = !found.entry.has_code(COMPILER_ERROR);
            if found.stopped && !alone {
                whole.push(self.not_enough(&found.entry));
            } else if !compiles && !alone {
                whole.clone_from(&found.entry.errors);
                first = Some(found.entry);
            } else if !found.layouts.is_empty() {
                refused.extend(found.entry.errors);
                allowed.extend(found.layouts);
            } else if let Some(first) = first.filter(|_| !compiles) {
                // The touched units themselves do not compile: no header is to blame.
                return Ok(first);
            } else {
                return Ok(Entry { whole, layouts: refused, allowed, ..found.entry });
            }
        }
        Err(Error::Failed(format!("{name}: {MOST_ATTEMPTS} attempts came to no end")))
    }

    /// Builds a patch in one way, unless the result is known.
    fn attempt(
        &self,
        name: &str,
        patch: &Path,
        output: &Path,
        alone: bool,
        allowed: &[String],
    ) -> Result<Attempt> {
        let mut words = Vec::new();
        let mut suffix = String::new();
        if alone {
            words.push("--only-touched-units".to_owned());
            suffix.push_str(".alone");
        }
        for structure in allowed {
            words.extend([ALLOW_LAYOUT.to_owned(), structure.clone()]);
        }
        if !allowed.is_empty() {
            let _ = write!(suffix, ".allowed-{}", allowed.len());
        }
        let output = output.with_file_name(format!("{name}{suffix}"));
        let mut hasher = blake3::Hasher::new();
        let text = fs_err::read(patch)?;
        hasher.update(self.builder.release.as_bytes()).update(b"\0").update(&text);
        let input = hasher.finalize().to_hex().to_string();
        let key = hasher.update(self.tool.as_bytes()).finalize().to_hex().to_string();
        let (record, json) = (output.join("record.json"), output.join("report.json"));
        if let Some(known) =
            fs_err::read(&record).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok())
            && (known.key == key || self.reuse && known.input == input)
        {
            let built = Built::kept(&output)?;
            // With more time it may come to an end.
            let is_short = known.stopped && self.as_is && known.seconds < self.limit.as_secs_f64();
            let found = attempt(name, known, &json, &built);
            // A build that is stopped may have no time for its report.
            if found.stopped && !is_short || !found.stopped && found.entry.end != End::Crash {
                return Ok(found);
            }
        }
        words.extend(["--json".to_owned(), json.display().to_string()]);
        let limit = (!alone && touches_header(&text)).then_some(self.limit);
        let built =
            self.builder.build_within(limit, &module_stem(name), &[patch.to_owned()], &words, &output)?;
        let record_of = Record { key, input, seconds: built.time.as_secs_f64(), stopped: built.stopped };
        let text = serde_json::to_vec_pretty(&record_of).map_err(|error| Error::Failed(error.to_string()))?;
        let found = attempt(name, record_of, &json, &built);
        // A run that somebody stopped says nothing about its patch.
        if found.entry.has_code(INTERRUPTED) && !found.stopped {
            return Err(Error::Failed(format!("the build of {name} was interrupted")));
        }
        fs_err::write(&record, text)?;
        Ok(found)
    }
}

impl Entry {
    fn has_code(&self, code: &str) -> bool {
        matches!(&self.end, End::Refused { codes } if codes.iter().any(|found| found == code))
    }
}

/// What a build came to.
fn attempt(name: &str, record: Record, json: &Path, built: &Built) -> Attempt {
    let report: Option<BuildReport> =
        fs_err::read(json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut entry = Entry { key: record.key, seconds: record.seconds, ..Entry::new(name, End::Crash) };
    let mut layouts = Vec::new();
    match report {
        Some(report) if !built.output.contains("panicked at") => {
            entry.end = end_of(&report, built.modules.len() == 1);
            entry.module = built.modules.first().cloned();
            entry.units = report.units;
            entry.searched = report.searched;
            entry.objects = report.objects;
            entry.warnings = report.warnings;
            entry.errors = report.errors.iter().map(ToString::to_string).collect();
            if report.errors.iter().all(|error| error.code == LAYOUT_CHANGED) {
                layouts = report.errors.iter().filter_map(structure).collect();
            }
        }
        _ => entry.errors = built.tail(20),
    }
    Attempt { entry, stopped: record.stopped, layouts }
}

/// Whether a patch names a header among the files that it changes: only these have readers that may be many.
fn touches_header(patch: &[u8]) -> bool {
    let of_line = |line: &[u8]| {
        let name = line.strip_prefix(b"+++ ").and_then(|rest| rest.split(u8::is_ascii_whitespace).next());
        name.is_some_and(|name| name.ends_with(b".h"))
    };
    patch.split(|byte| *byte == b'\n').any(of_line)
}

/// The structure that a refusal's remedy names.
fn structure(error: &ErrorReport) -> Option<String> {
    let (_, rest) = error.remedy.as_deref()?.split_once(ALLOW_LAYOUT)?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// A module's name: kpatch-build shortens long ones, which could make two the same; only one is loaded at a time.
fn module_stem(name: &str) -> String {
    format!("c-{name}")
}

fn end_of(report: &BuildReport, made: bool) -> End {
    if made && report.success {
        return End::Module;
    }
    let codes: BTreeSet<String> = report.errors.iter().map(|error| error.code.clone()).collect();
    match codes.first() {
        None => End::Crash,
        Some(code) if codes.len() == 1 && code.ends_with(NO_CHANGE) => End::NoChange,
        Some(_) => End::Refused { codes: codes.into_iter().collect() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: &str) -> BuildReport {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn ends() {
        let good = report(r#"{"success": true, "objects": ["vmlinux"]}"#);
        assert_eq!(end_of(&good, true), End::Module);
        assert_eq!(end_of(&good, false), End::Crash);
        let none = report(r#"{"success": false, "errors": [{"code": "diff::no-change", "message": "m"}]}"#);
        assert_eq!(end_of(&none, false), End::NoChange);
        let refused = report(
            r#"{"success": false, "errors": [{"code": "b", "message": "m"}, {"code": "a", "message": "m"}, {"code": "a", "message": "n"}]}"#,
        );
        assert_eq!(end_of(&refused, false), End::Refused { codes: vec!["a".into(), "b".into()] });
    }

    /// A kpatch-build that notes its words, refuses layouts and readers until it is told otherwise.
    const FAKE: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift ;;
        -n) name=$2; shift ;;
        --json) json=$2; shift ;;
        --only-touched-units) alone=1 ;;
        --allow-layout-change) allowed="$allowed $2"; shift ;;
    esac
    shift
done
refuse() { echo "{\"success\": false, \"errors\": [$1]}" > "$json"; exit 1; }
layout() { echo "{\"code\": \"layout-changed\", \"message\": \"$1\", \"remedy\": \"or --allow-layout-change $1\"}"; }
case $name in
    c-slow) [ "$alone" ] || exec sleep 30 ;;
    c-header) [ "$alone" ] || refuse '{"code": "compiler-error", "message": "m"}' ;;
    c-broken) refuse '{"code": "compiler-error", "message": "m"}' ;;
    c-layout) case $allowed in "") refuse "$(layout a), $(layout b)" ;; " a b") refuse "$(layout c)" ;; esac ;;
    c-both) refuse "$(layout a), {\"code\": \"no-entry\", \"message\": \"m\"}" ;;
esac
echo '{"success": true}' > "$json"
touch "$out/$name.ko"
"#;

    fn entry_of(name: &str) -> Entry {
        entry_by(name, false)
    }

    fn entry_by(name: &str, as_is: bool) -> Entry {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("fake");
        fs_err::write(&program, FAKE).unwrap();
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let patch = root.path().join("x.patch");
        fs_err::write(&patch, "--- a/x.h\t1970\n+++ b/x.h\t1970\n").unwrap();
        let builder = Builder::existing(&program, "r").unwrap();
        let attempts = Attempts::new(&builder, Duration::from_secs(1), false, as_is).unwrap();
        attempts.entry(name, &patch, &root.path().join("out").join(name)).unwrap()
    }

    #[test]
    fn remedies_are_followed_one_after_the_other() {
        let plain = entry_of("plain");
        assert_eq!((&plain.end, plain.whole.len(), plain.allowed.len()), (&End::Module, 0, 0));
        let header = entry_of("header");
        assert_eq!((&header.end, header.whole.len()), (&End::Module, 1));
        let layout = entry_of("layout");
        assert_eq!(layout.end, End::Module);
        assert_eq!(layout.allowed, ["a", "b", "c"]);
        assert_eq!(layout.layouts.len(), 3);
    }

    #[test]
    fn headers_are_told_from_sources() {
        assert!(touches_header(b"--- a/x.h\n+++ b/x.h\n@@ -1 +1 @@\n"));
        assert!(!touches_header(b"--- a/x.c\n+++ b/x.c\n+++ that .h\n"));
    }

    #[test]
    fn what_no_remedy_cures_stays_refused() {
        let broken = entry_of("broken");
        assert_eq!((broken.has_code(COMPILER_ERROR), broken.whole.len()), (true, 0));
        let both = entry_of("both");
        assert_eq!((both.has_code("no-entry"), both.allowed.len()), (true, 0));
    }

    #[test]
    fn no_remedy_is_followed_where_patches_are_built_as_they_are() {
        let header = entry_by("header", true);
        assert_eq!((header.has_code(COMPILER_ERROR), header.whole.len()), (true, 0));
        assert!(entry_by("layout", true).has_code(LAYOUT_CHANGED));
        let slow = entry_by("slow", true);
        assert_eq!(slow.end, End::Stopped);
        assert_eq!(slow.errors, ["1 seconds were not enough for all units"]);
    }

    #[test]
    fn a_patch_that_takes_too_long_is_built_for_what_it_touches() {
        let slow = entry_of("slow");
        assert_eq!(slow.end, End::Module);
        assert_eq!(slow.whole, ["1 seconds were not enough for all units"]);
    }
}
