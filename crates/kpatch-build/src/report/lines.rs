//! The text of each event.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use kernel_artifacts::event::Event as KernelEvent;

use super::join;
use crate::events::{Change, Event, Step};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// A line of the predecessor.
    Step,
    /// The run succeeded.
    Success,
    /// News for a person.
    Note,
    /// Something is not as it should be.
    Warning,
    /// For developers.
    Debug,
}

/// Most units that are listed by name.
const LISTED_UNITS: usize = 4;

/// The lines of an event; none for those that only a bar or a table shows.
pub(super) fn of(event: &Event) -> Option<(Weight, String)> {
    let note = |text: String| Some((Weight::Note, text));
    match event {
        Event::Step(step @ Step::Success) => Some((Weight::Success, step.to_string())),
        Event::Step(step) => Some((Weight::Step, step.to_string())),
        Event::Changed { unit, change, name } => {
            let weight = if *change == Change::LinesOnly { Weight::Debug } else { Weight::Step };
            Some((weight, format!("{}: {change}: {name}", unit.display())))
        }
        Event::Kernel(event) => kernel(event),
        Event::Resolved { release, parts } => {
            note(parts.iter().fold(format!("{release}:"), |text, part| text + "\n  " + part))
        }
        Event::HunkMoved { file, hunk, line, offset, fuzz } => {
            // In the words of patch(1), which everybody knows.
            let mut text = format!("{}: Hunk #{hunk} succeeded at {line}", file.display());
            if *fuzz > 0 {
                let _ = write!(text, " with fuzz {fuzz}");
            }
            if *offset != 0 {
                let _ = write!(text, " (offset {offset} {})", plural(offset.unsigned_abs(), "line"));
            }
            note(text + ".")
        }
        Event::Searched { considered, named, preprocessed, changed } => note(format!(
            "{considered} untouched {} may read touched files, {named} {} what changed: {preprocessed} {} of the \
             preprocessor, {changed} {} a change",
            plural(*considered as u64, "unit"),
            if *named == 1 { "names" } else { "name" },
            plural(*preprocessed as u64, "run"),
            if *changed == 1 { "sees" } else { "see" },
        )),
        Event::WholeTree { compiled, changed } => note(format!(
            "whole patched tree: {compiled} {} compiled, {} changed",
            plural(*compiled as u64, "unit"),
            changed.len()
        )),
        Event::Planned { units } => note(planned(units)),
        Event::Proven { unit, object, equal, undecided } => {
            let mut text = format!(
                "{}: {equal} {} proven equal to {object}",
                unit.display(),
                plural(*equal as u64, "function")
            );
            if *undecided > 0 {
                let _ = write!(text, ", {undecided} with references that could not be decided");
            }
            note(text)
        }
        Event::Skipped { unit, name, section, place, why } => {
            let place = place.clone().unwrap_or_else(|| unit.display().to_string());
            Some((Weight::Warning, format!("{place}: {name} in {section} is left out: {why}")))
        }
        Event::Part(part) => Some((Weight::Step, part.to_string())),
        Event::Unchanged { unit } => note(format!("{}: no functional change", unit.display())),
        Event::CacheHit { unit } => {
            Some((Weight::Debug, format!("{}: original taken from the cache", unit.display())))
        }
        Event::Warning { message } => Some((Weight::Warning, message.clone())),
        Event::Note { message } => note(message.clone()),
        Event::Debug { message } => Some((Weight::Debug, message.clone())),
        Event::PhaseStarted { .. } | Event::PhaseFinished { .. } | Event::Progress { .. } => None,
    }
}

fn kernel(event: &KernelEvent) -> Option<(Weight, String)> {
    let text = match event {
        KernelEvent::Waiting { what } => format!("Waiting for another run that works on {what}"),
        KernelEvent::UpdatingIndex { suite } => format!("Updating the package index of {suite}"),
        KernelEvent::Resolved { release, version } => format!("{release} is version {version}"),
        KernelEvent::Fetching { file, size } => format!("Fetching {file} ({})", bytes(*size)),
        KernelEvent::Unpacking { what } => format!("Unpacking {what}"),
        KernelEvent::MakingBuildRoot { suite, path } => {
            format!("Making a build root of {suite} in {}", path.display())
        }
        KernelEvent::Warning { message } => return Some((Weight::Warning, message.clone())),
        _ => return None,
    };
    Some((Weight::Note, text))
}

fn planned(units: &[(PathBuf, String)]) -> String {
    let count = format!("{} {} to compile", units.len(), plural(units.len() as u64, "unit"));
    let mut by_object: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for (unit, object) in units {
        by_object.entry(object).or_default().push(unit.clone());
    }
    let objects = by_object.into_iter().map(|(object, of_object)| {
        if units.len() <= LISTED_UNITS {
            format!("{} ({object})", join(of_object))
        } else {
            format!("{} of {object}", of_object.len())
        }
    });
    format!("{count}: {}", objects.collect::<Vec<_>>().join(", "))
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// A size in the unit that people use for downloads.
fn bytes(size: u64) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{} kB", size.div_ceil(1_000)),
        _ => format!("{} MB", size.div_ceil(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: &Event) -> String {
        of(event).unwrap().1
    }

    #[test]
    fn lines_of_the_predecessor_keep_their_text() {
        let step = |step| text(&Event::Step(step));
        assert_eq!(step(Step::TestingPatches), "Testing patch file(s)");
        assert_eq!(step(Step::ReadingSpecialSections), "Reading special section data");
        assert_eq!(step(Step::BuildingOriginal), "Building original source");
        assert_eq!(step(Step::BuildingPatched), "Building patched source");
        assert_eq!(step(Step::Extracting), "Extracting new and modified ELF sections");
        assert_eq!(
            step(Step::PatchedObjects { objects: vec!["vmlinux".into(), "xfs".into()] }),
            "Patched objects: vmlinux xfs"
        );
        assert_eq!(
            step(Step::BuildingModule { file: "livepatch-x.ko".into() }),
            "Building patch module: livepatch-x.ko"
        );
        assert_eq!(step(Step::Success), "SUCCESS");
        let changed = Event::Changed {
            unit: "fs/proc/meminfo.o".into(),
            change: Change::ChangedFunction,
            name: "meminfo_proc_show".into(),
        };
        assert_eq!(text(&changed), "fs/proc/meminfo.o: changed function: meminfo_proc_show");
    }

    #[test]
    fn moved_hunks_read_as_patch_says_it() {
        let moved =
            |offset, fuzz| text(&Event::HunkMoved { file: "fs/a.c".into(), hunk: 1, line: 55, offset, fuzz });
        assert_eq!(moved(2, 0), "fs/a.c: Hunk #1 succeeded at 55 (offset 2 lines).");
        assert_eq!(moved(-1, 0), "fs/a.c: Hunk #1 succeeded at 55 (offset -1 line).");
        assert_eq!(moved(0, 1), "fs/a.c: Hunk #1 succeeded at 55 with fuzz 1.");
        assert_eq!(moved(3, 2), "fs/a.c: Hunk #1 succeeded at 55 with fuzz 2 (offset 3 lines).");
    }

    #[test]
    fn proofs_are_counted() {
        let proven = |equal, undecided| {
            text(&Event::Proven { unit: "fs/a.o".into(), object: "vmlinux".into(), equal, undecided })
        };
        assert_eq!(proven(2, 0), "fs/a.o: 2 functions proven equal to vmlinux");
        assert_eq!(
            proven(1, 3),
            "fs/a.o: 1 function proven equal to vmlinux, 3 with references that could not be decided"
        );
    }

    #[test]
    fn few_units_are_named_and_many_counted() {
        let unit = |at: usize| {
            (PathBuf::from(format!("fs/{at}.o")), if at == 0 { "xfs" } else { "vmlinux" }.to_owned())
        };
        assert_eq!(planned(&[unit(1)]), "1 unit to compile: fs/1.o (vmlinux)");
        assert_eq!(
            planned(&[unit(0), unit(1), unit(2)]),
            "3 units to compile: fs/1.o fs/2.o (vmlinux), fs/0.o (xfs)"
        );
        let many: Vec<_> = (0..10).map(unit).collect();
        assert_eq!(planned(&many), "10 units to compile: 9 of vmlinux, 1 of xfs");
    }

    #[test]
    fn sizes_are_in_handy_units() {
        assert_eq!([bytes(999), bytes(1_000), bytes(282_900_001)], ["999 B", "1 kB", "283 MB"]);
    }
}
