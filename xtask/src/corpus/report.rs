//! The yield report for people.

mod why;

use super::{End, Entry, Facts, Loaded};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// An end in a few words.
pub(super) fn end(end: &End) -> String {
    match end {
        End::Module => "module".to_owned(),
        End::NoChange => "no functional change".to_owned(),
        End::Refused { codes } => format!("refused: {}", codes.join(", ")),
        End::Stopped => "stopped".to_owned(),
        End::Crash => "CRASH".to_owned(),
    }
}

fn loaded(loaded: Option<&Loaded>) -> &'static str {
    match loaded {
        None => "",
        Some(Loaded::Works) => "works",
        Some(Loaded::WithoutObject { .. }) => "loads, object absent",
        Some(Loaded::Fails { .. }) => "FAILS",
    }
}

/// How an entry ended, and on what conditions.
pub(super) fn end_of(entry: &Entry) -> String {
    format!("{}{}", end(&entry.end), conditions(entry))
}

/// What was done for the patch to come to its end.
fn conditions(entry: &Entry) -> String {
    let mut all = Vec::new();
    if !entry.whole.is_empty() {
        all.push("touched units alone");
    }
    if !entry.allowed.is_empty() {
        all.push("layouts allowed");
    }
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

/// Counts, one a line.
pub(super) fn summary(entries: &[Entry]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let key = match (&entry.end, &entry.loaded) {
            (End::Module, Some(state)) => format!("module, {}", loaded(Some(state))),
            (other, _) => end(other),
        };
        *counts.entry(key + &conditions(entry)).or_default() += 1;
    }
    let mut text = String::new();
    for (key, count) in counts {
        let _ = writeln!(text, "{count:5}  {key}");
    }
    let _ = writeln!(text, "{:5}  patches", entries.len());
    text
}

/// Where the ends agree with the other tool's and where not: its status, how it ended here, how many.
fn ends_beside(entries: &[Entry], facts: &BTreeMap<String, Facts>) -> String {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in entries {
        let Some(facts) = facts.get(&entry.name) else { continue };
        let other = match facts.c_tool.status {
            0 => "output".to_owned(),
            3 => "no functional change".to_owned(),
            status => format!("refused ({status})"),
        };
        let here = match entry.end {
            End::Refused { .. } => "refused".to_owned(),
            ref other => end(other),
        };
        *counts.entry((other, here)).or_default() += 1;
    }
    let mut text = String::new();
    if !counts.is_empty() {
        text.push_str("| C tool | here | patches |\n|---|---|---|\n");
    }
    for ((other, here), count) in counts {
        let _ = writeln!(text, "| {other} | {here} | {count} |");
    }
    text
}

/// How the changed functions of the unit that the other tool compared differ from its list, each with the rule.
fn differences(entry: &Entry, facts: &Facts) -> Vec<String> {
    if facts.c_tool.status != 0 || entry.end != End::Module {
        return Vec::new();
    }
    let object = facts.unit.strip_suffix(".c").unwrap_or(&facts.unit);
    let unit = entry.units.iter().find(|u| u.unit.strip_suffix(".o") == Some(object));
    let of = |kind| unit.map(|u| u.functions(kind)).unwrap_or_default();
    let (changed, lines) = (of("changed-function"), of("lines-only"));
    let other: BTreeSet<&str> = facts.c_tool.changed.iter().map(String::as_str).collect();
    let root = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let mut text = Vec::new();
    for name in other.difference(&changed) {
        let clone = changed.iter().any(|c| root(c) == root(name));
        let part = lines.iter().any(|l| root(l) == root(name));
        let rule = match () {
            () if lines.contains(name) => "only line numbers differ, by the line tables of both versions",
            () if clone => "replaced under the name of another clone",
            () if part => "only line numbers differ, in a part that the compiler split off",
            // It is on no list, so it was compared, and is the same.
            () if unit.is_some() => {
                "equal in code and in the contents of what it refers to; the labels of constants (`.LC12`) differ"
            }
            () => "UNEXPLAINED",
        };
        text.push(format!("fewer: {name}: {rule}"));
    }
    for name in changed.difference(&other) {
        let rule = if facts.c_tool.new.contains(*name) {
            "new for the C tool, which found no original"
        } else if other.iter().any(|o| root(o) == root(name)) {
            "replaced under the name of another clone"
        } else if name.contains(".part.") {
            // Seen in its output: the section is there, but no entry of `.kpatch.funcs`.
            "a part that the compiler split off changes; the C tool has its new code for new callers, but does not redirect \
             the running one"
        } else {
            "UNEXPLAINED"
        };
        text.push(format!("more: {name}: {rule}"));
    }
    text
}

/// How the changed functions compare with the other tool's, in a word.
fn compared(entry: &Entry, facts: Option<&Facts>) -> String {
    let Some(facts) = facts else { return String::new() };
    match (facts.c_tool.status, &entry.end) {
        (0, End::Module) => match differences(entry, facts).len() {
            0 => "same".to_owned(),
            count => format!("{count} explained below"),
        },
        (3, End::NoChange) => "same".to_owned(),
        (0, _) => "output".to_owned(),
        (3, _) => "no change".to_owned(),
        (status, _) => format!("refused ({status})"),
    }
}

fn functions(entry: &Entry) -> String {
    let count = |kind| entry.units.iter().map(|unit| unit.functions(kind).len()).sum::<usize>();
    let (changed, new) = (count("changed-function"), count("new-function"));
    if changed + new == 0 { String::new() } else { format!("{changed}+{new}") }
}

/// The whole report.
pub(super) fn markdown(
    set: &str,
    release: &str,
    remarks: &str,
    entries: &[Entry],
    facts: &BTreeMap<String, Facts>,
) -> String {
    let mut text = format!(
        "# Yield: {set} on {release}\n\nMade by `cargo xtask corpus`.\n{remarks}\n```\n{}```\n\n{}\n",
        summary(entries),
        ends_beside(entries, facts)
    );
    text.push_str(if entries.iter().all(|entry| conditions(entry).is_empty()) {
        "Each patch was built with default options.\n\n"
    } else {
        "In brackets stands what was done for a patch to come to this end: the units that it touches were built alone, \
         since the readers of its header do not compile with it or would take too long; or the layouts of structures were \
         allowed to change, which is refused otherwise. Both are listed below. A module in brackets is what the patch \
         amounts to, not what kpatch-build makes of it unasked.\n\n"
    });
    text.push_str(
        "Functions are changed + new ones of all units. Units that a touched header brings in are considered (they \
         may read it), preprocessed if they name what changes, and compiled where their text changes.\n\n\
         | patch | end | kernel | functions | C tool | considered / named / preprocessed / compiled | seconds |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for entry in entries {
        let search = entry.searched.as_ref().map_or_else(String::new, |searched| {
            format!("{} / {} / {} / ", searched.considered, searched.named, searched.preprocessed)
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {search}{} | {:.1} |",
            entry.name,
            end_of(entry),
            loaded(entry.loaded.as_ref()),
            functions(entry),
            compared(entry, facts.get(&entry.name)),
            entry.units.len(),
            entry.seconds
        );
    }
    text.push_str(&refusals(entries));
    details(&mut text, "Differences from the C tool's changed functions", entries, |entry| {
        facts.get(&entry.name).map(|facts| differences(entry, facts)).unwrap_or_default()
    });
    details(&mut text, "Every refusal", entries, |entry| match entry.end {
        End::Refused { .. } | End::Stopped | End::Crash => entry.errors.clone(),
        _ => Vec::new(),
    });
    details(&mut text, "Patches of which the touched units were built alone", entries, |entry| {
        entry.whole.clone()
    });
    details(&mut text, "Changes of layouts, refused until they were allowed", entries, |entry| {
        entry.layouts.clone()
    });
    details(&mut text, "Changes that are left out", entries, |entry| {
        let skipped = entry.units.iter().flat_map(|unit| &unit.skipped);
        skipped.map(|s| format!("{} in {}: {}", s.name, s.section, s.why)).collect()
    });
    details(&mut text, "Modules that do not work", entries, |entry| match &entry.loaded {
        Some(Loaded::Fails { failures }) => failures.clone(),
        _ => Vec::new(),
    });
    details(&mut text, "Modules that were warned about", entries, |entry| match entry.end {
        End::Module => entry.warnings.clone(),
        _ => Vec::new(),
    });
    details(&mut text, "Objects that cannot be loaded in plain QEMU", entries, |entry| match &entry.loaded {
        Some(Loaded::WithoutObject { reason }) => vec![reason.clone()],
        _ => Vec::new(),
    });
    text
}

/// Refusals by code, with why each code is right.
fn refusals(entries: &[Entry]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        if let End::Refused { codes } = &entry.end {
            for code in codes {
                *counts.entry(code).or_default() += 1;
            }
        }
    }
    let mut text = String::new();
    if !counts.is_empty() {
        text.push_str("\n## Refusals by code\n\nA patch can be in several.\n\n");
        text.push_str("| code | patches | why it is right |\n|---|---|---|\n");
    }
    for (code, count) in counts {
        let _ = writeln!(text, "| {code} | {count} | {} |", why::right(code));
    }
    text
}

fn details(text: &mut String, title: &str, entries: &[Entry], lines: impl Fn(&Entry) -> Vec<String>) {
    let mut first = true;
    for entry in entries {
        let lines = lines(entry);
        if lines.is_empty() {
            continue;
        }
        if std::mem::take(&mut first) {
            let _ = write!(text, "\n## {title}\n\n");
        }
        let _ = writeln!(text, "* {}", entry.name);
        for line in lines.iter().flat_map(|line| line.lines()) {
            let _ = writeln!(text, "      {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChangeReport, Entry, OtherTool, UnitReport};
    use super::*;

    fn entry(end: End, changes: &[(&str, &str)]) -> Entry {
        let change =
            |&(change, name): &(&str, &str)| ChangeReport { change: change.into(), name: name.into() };
        let units = vec![UnitReport {
            unit: "fs/a.o".into(),
            changes: changes.iter().map(change).collect(),
            skipped: Vec::new(),
        }];
        Entry { units, errors: vec!["why".into()], ..Entry::new("n", end) }
    }

    fn facts(status: i32, changed: &[&str]) -> Facts {
        let changed = changed.iter().map(|name| (*name).to_owned()).collect();
        let c_tool = OtherTool { status, changed, new: BTreeSet::new() };
        Facts { name: "n".into(), unit: "fs/a.c".into(), c_tool }
    }

    #[test]
    fn differences_of_functions_are_explained() {
        let changed = |name| ("changed-function", name);
        let module = entry(
            End::Module,
            &[
                changed("a"),
                changed("b.isra.0"),
                ("lines-only", "l"),
                ("lines-only", "c.cold"),
                ("new-function", "n"),
            ],
        );
        assert_eq!(compared(&module, Some(&facts(0, &["a", "b.isra.0"]))), "same");
        assert_eq!(
            differences(&module, &facts(0, &["b", "c", "l", "x"])),
            [
                "fewer: b: replaced under the name of another clone",
                "fewer: c: only line numbers differ, in a part that the compiler split off",
                "fewer: l: only line numbers differ, by the line tables of both versions",
                "fewer: x: equal in code and in the contents of what it refers to; the labels of constants (`.LC12`) differ",
                "more: a: UNEXPLAINED",
                "more: b.isra.0: replaced under the name of another clone",
            ]
        );
        let part = differences(&entry(End::Module, &[changed("p.part.0")]), &facts(0, &[]));
        assert!(
            part[0].starts_with("more: p.part.0: a part that the compiler split off changes"),
            "{part:?}"
        );
        assert_eq!(compared(&module, Some(&facts(2, &[]))), "refused (2)");
        assert_eq!(compared(&entry(End::NoChange, &[]), Some(&facts(3, &[]))), "same");
    }

    #[test]
    fn refusals_are_listed_with_their_errors() {
        let refused = entry(End::Refused { codes: vec!["no-entry".into()] }, &[]);
        let entries = [refused, entry(End::NoChange, &[])];
        let text = markdown("s", "r", "", &entries, &BTreeMap::new());
        assert!(text.contains("    1  refused: no-entry\n"));
        assert_eq!(text.matches("      why").count(), 1);
        assert!(text.contains("| no-entry | 1 | "));
    }

    #[test]
    fn ends_are_counted_beside_the_other_tool() {
        let facts = BTreeMap::from([("n".to_owned(), facts(2, &[]))]);
        let text = ends_beside(&[entry(End::Module, &[])], &facts);
        assert!(text.ends_with("| refused (2) | module | 1 |\n"), "{text}");
    }
}
