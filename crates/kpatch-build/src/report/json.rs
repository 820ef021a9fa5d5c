//! The report for programs (`--json`), one JSON document at the end of the run.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::time::Times;
use super::{Outcome, Reporter};
use crate::error::Error;
use crate::events::{Change, Event, Step};
use crate::phase::Phase;
use crate::split::part::Part;

/// Where the document goes.
#[derive(Clone, Debug)]
pub(super) enum To {
    Stdout,
    File(PathBuf),
}

/// Collects what happens, and writes it when the run is over.
pub(super) struct Json {
    to: To,
    report: Report,
    times: Times,
    /// Where each unit is in the report.
    places: HashMap<PathBuf, usize>,
}

/// The document. Keys are added, never renamed.
#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    /// Version of this tool.
    version: &'static str,
    success: bool,
    /// Path of the module, or null.
    module: Option<PathBuf>,
    /// The kernel, as `uname -r` prints it.
    release: Option<String>,
    /// What the kernel was taken from.
    parts: Vec<String>,
    /// Hunks that apply elsewhere than they say.
    moved_hunks: Vec<MovedHunk>,
    /// Units that no patch touches; null where no patch reaches beyond the files it touches.
    searched: Option<Searched>,
    /// What two whole builds say; null without `--whole-tree`.
    whole_tree: Option<WholeTree>,
    units: Vec<Unit>,
    /// vmlinux and modules that the module patches.
    objects: Vec<String>,
    warnings: Vec<String>,
    phases: Vec<PhaseTime>,
    /// What became of parts of a refused patch (`--split`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    split: Vec<Part>,
    errors: Vec<Error>,
}

#[derive(Clone, Debug, Serialize)]
struct MovedHunk {
    file: PathBuf,
    hunk: usize,
    line: u64,
    offset: i64,
    fuzz: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Searched {
    /// Units that may read a touched file.
    considered: usize,
    /// Those of them whose text mentions a name that a change reaches.
    named: usize,
    /// Runs of the preprocessor.
    preprocessed: usize,
    /// Units of which the patches change what decides their code.
    changed: usize,
}

#[derive(Clone, Debug, Serialize)]
struct WholeTree {
    /// Objects that the second build compiled.
    compiled: usize,
    /// Those that are not the original's.
    changed: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Unit {
    /// Its object file in the kernel's build.
    #[serde(rename = "unit")]
    file: PathBuf,
    /// vmlinux or a module.
    object: Option<String>,
    /// Whether the original came from the cache.
    cached: bool,
    /// Functions equal to the shipped ones; null where nothing was compared.
    proven: Option<usize>,
    undecided: Option<usize>,
    changes: Vec<Changed>,
    /// Changes that are left out.
    skipped: Vec<Skipped>,
}

#[derive(Clone, Debug, Serialize)]
struct Skipped {
    name: String,
    section: String,
    place: Option<String>,
    why: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Changed {
    change: Change,
    name: String,
}

#[derive(Clone, Debug, Serialize)]
struct PhaseTime {
    phase: Phase,
    seconds: f64,
}

impl Json {
    pub(super) fn new(to: To) -> Json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), ..Report::default() };
        Json { to, report, times: Times::default(), places: HashMap::new() }
    }

    fn unit(&mut self, unit: &Path) -> &mut Unit {
        let at = *self.places.entry(unit.to_owned()).or_insert_with(|| {
            self.report.units.push(Unit { file: unit.to_owned(), ..Unit::default() });
            self.report.units.len() - 1
        });
        &mut self.report.units[at]
    }

    fn document(&mut self, outcome: Outcome<'_>) -> io::Result<Vec<u8>> {
        match outcome {
            Outcome::Module(path) => {
                self.report.success = true;
                self.report.module = Some(path.to_owned());
            }
            Outcome::Failed(errors) => self.report.errors = errors.to_vec(),
        }
        self.report.units.sort_by(|a, b| a.file.cmp(&b.file));
        let seconds = |(phase, elapsed): (Phase, std::time::Duration)| PhaseTime {
            phase,
            seconds: elapsed.as_secs_f64(),
        };
        self.report.phases = self.times.phases().map(seconds).collect();
        let mut document = serde_json::to_vec_pretty(&self.report)?;
        document.push(b'\n');
        Ok(document)
    }
}

impl Reporter for Json {
    fn event(&mut self, event: &Event) {
        self.times.event(event);
        match event {
            Event::Resolved { release, parts } => {
                self.report.release = Some(release.clone());
                self.report.parts.clone_from(parts);
            }
            Event::HunkMoved { file, hunk, line, offset, fuzz } => self.report.moved_hunks.push(MovedHunk {
                file: file.clone(),
                hunk: *hunk,
                line: *line,
                offset: *offset,
                fuzz: *fuzz,
            }),
            Event::Searched { considered, named, preprocessed, changed } => {
                let (considered, named, preprocessed, changed) =
                    (*considered, *named, *preprocessed, *changed);
                self.report.searched = Some(Searched { considered, named, preprocessed, changed });
            }
            Event::WholeTree { compiled, changed } => {
                self.report.whole_tree = Some(WholeTree { compiled: *compiled, changed: changed.clone() });
            }
            Event::Planned { units } => {
                for (unit, object) in units {
                    self.unit(unit).object = Some(object.clone());
                }
            }
            Event::CacheHit { unit } => self.unit(unit).cached = true,
            Event::Proven { unit, object, equal, undecided } => {
                let unit = self.unit(unit);
                unit.object.get_or_insert_with(|| object.clone());
                unit.proven = Some(*equal);
                unit.undecided = Some(*undecided);
            }
            Event::Changed { unit, change, name } => {
                self.unit(unit).changes.push(Changed { change: *change, name: name.clone() });
            }
            Event::Skipped { unit, name, section, place, why } => {
                self.unit(unit).skipped.push(Skipped {
                    name: name.clone(),
                    section: section.clone(),
                    place: place.clone(),
                    why,
                });
            }
            Event::Part(part) => self.report.split.push(part.clone()),
            Event::Step(Step::PatchedObjects { objects }) => self.report.objects.clone_from(objects),
            Event::Warning { message }
            | Event::Kernel(kernel_artifacts::event::Event::Warning { message }) => {
                self.report.warnings.push(message.clone());
            }
            _ => {}
        }
    }

    fn finish(&mut self, outcome: Outcome<'_>) -> io::Result<()> {
        let document = self.document(outcome)?;
        match &self.to {
            To::Stdout => io::stdout().lock().write_all(&document),
            To::File(path) => {
                let written = kbuild::store::write(path, &document);
                written.map_err(|error| io::Error::other(error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn events() -> Vec<Event> {
        vec![
            Event::Resolved { release: "6.1.0-1-amd64".into(), parts: vec!["linux-image 6.1.1-1".into()] },
            Event::HunkMoved { file: "fs/a.c".into(), hunk: 1, line: 7, offset: 2, fuzz: 0 },
            Event::Searched { considered: 9, named: 5, preprocessed: 11, changed: 1 },
            Event::WholeTree { compiled: 7, changed: vec!["fs/a.o".into()] },
            Event::Planned {
                units: vec![("fs/b.o".into(), "b".into()), ("fs/a.o".into(), "vmlinux".into())],
            },
            Event::CacheHit { unit: "fs/a.o".into() },
            Event::Proven { unit: "fs/a.o".into(), object: "vmlinux".into(), equal: 3, undecided: 1 },
            Event::Changed { unit: "fs/a.o".into(), change: Change::NewFunction, name: "f".into() },
            Event::warning("careful"),
            Event::Step(Step::PatchedObjects { objects: vec!["vmlinux".into()] }),
            Event::PhaseFinished { phase: Phase::Parse, elapsed: Duration::from_millis(250) },
        ]
    }

    #[test]
    fn a_run_with_a_module() {
        let mut json = Json::new(To::Stdout);
        for event in &events() {
            json.event(event);
        }
        let document = json.document(Outcome::Module(Path::new("/o/livepatch-x.ko"))).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&document).unwrap();
        value["version"] = "V".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap(), @r#"
        {
          "errors": [],
          "module": "/o/livepatch-x.ko",
          "moved_hunks": [
            {
              "file": "fs/a.c",
              "fuzz": 0,
              "hunk": 1,
              "line": 7,
              "offset": 2
            }
          ],
          "objects": [
            "vmlinux"
          ],
          "parts": [
            "linux-image 6.1.1-1"
          ],
          "phases": [
            {
              "phase": "parse",
              "seconds": 0.25
            }
          ],
          "release": "6.1.0-1-amd64",
          "searched": {
            "changed": 1,
            "considered": 9,
            "named": 5,
            "preprocessed": 11
          },
          "success": true,
          "units": [
            {
              "cached": true,
              "changes": [
                {
                  "change": "new-function",
                  "name": "f"
                }
              ],
              "object": "vmlinux",
              "proven": 3,
              "skipped": [],
              "undecided": 1,
              "unit": "fs/a.o"
            },
            {
              "cached": false,
              "changes": [],
              "object": "b",
              "proven": null,
              "skipped": [],
              "undecided": null,
              "unit": "fs/b.o"
            }
          ],
          "version": "V",
          "warnings": [
            "careful"
          ],
          "whole_tree": {
            "changed": [
              "fs/a.o"
            ],
            "compiled": 7
          }
        }
        "#);
    }

    #[test]
    fn a_run_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let mut json = Json::new(To::File(path.clone()));
        let errors = [Error::new(Phase::Plan, "not-compiled", "not compiled").file("fs/a.c").line(3)];
        json.finish(Outcome::Failed(&errors)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(value["success"], false);
        assert_eq!(value["module"], serde_json::Value::Null);
        insta::assert_snapshot!(
            value["errors"].to_string(),
            @r#"[{"code":"not-compiled","file":"fs/a.c","line":3,"message":"not compiled","phase":"plan"}]"#
        );
        assert!(Json::new(To::File(dir.path().join("r.json/x"))).finish(Outcome::Failed(&[])).is_err());
    }
}
