//! The yield report for people.

use super::{End, Entry, Facts, Loaded};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// An end in a few words.
pub(super) fn end(end: &End) -> String {
    match end {
        End::Module => "module".to_owned(),
        End::NoChange => "no functional change".to_owned(),
        End::Refused { codes } => format!("refused: {}", codes.join(", ")),
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

/// Counts, one a line.
pub(super) fn summary(entries: &[Entry]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let key = match (&entry.end, &entry.loaded) {
            (End::Module, Some(state)) => format!("module, {}", loaded(Some(state))),
            (other, _) => end(other),
        };
        *counts.entry(key).or_default() += 1;
    }
    let mut text = String::new();
    for (key, count) in counts {
        let _ = writeln!(text, "{count:5}  {key}");
    }
    let _ = writeln!(text, "{:5}  patches", entries.len());
    text
}

/// How the changed functions compare with the other tool's.
fn compared(entry: &Entry, facts: Option<&Facts>) -> String {
    let Some(facts) = facts else { return String::new() };
    let other = &facts.c_tool;
    match (other.status, &entry.end) {
        (0, End::Module) => {
            let more: Vec<&str> = entry.changed.difference(&other.changed).map(String::as_str).collect();
            let fewer: Vec<&str> = other.changed.difference(&entry.changed).map(String::as_str).collect();
            match (more.is_empty(), fewer.is_empty()) {
                (true, true) => "same".to_owned(),
                _ => format!("more: {}; fewer: {}", more.join(" "), fewer.join(" ")),
            }
        }
        (3, End::NoChange) => "same".to_owned(),
        (0, _) => "output".to_owned(),
        (3, _) => "no change".to_owned(),
        (status, _) => format!("refused ({status})"),
    }
}

/// The whole report.
pub(super) fn markdown(
    set: &str,
    release: &str,
    entries: &[Entry],
    facts: &BTreeMap<String, Facts>,
) -> String {
    let mut text = format!(
        "# Yield: {set} on {release}\n\nMade by `cargo xtask corpus`.\n\n```\n{}```\n\n",
        summary(entries)
    );
    text.push_str(
        "| patch | end | kernel | functions | C tool | units | seconds |\n|---|---|---|---|---|---|---|\n",
    );
    for entry in entries {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {:.1} |",
            entry.name,
            end(&entry.end),
            loaded(entry.loaded.as_ref()),
            entry.changed.len() + entry.new.len(),
            compared(entry, facts.get(&entry.name)),
            entry.units,
            entry.seconds
        );
    }
    details(&mut text, "Refusals", entries, |entry| match entry.end {
        End::Refused { .. } | End::Crash => entry.errors.clone(),
        _ => Vec::new(),
    });
    details(&mut text, "Modules that do not work", entries, |entry| match &entry.loaded {
        Some(Loaded::Fails { failures }) => failures.clone(),
        _ => Vec::new(),
    });
    details(&mut text, "Objects that cannot be loaded in plain QEMU", entries, |entry| match &entry.loaded {
        Some(Loaded::WithoutObject { reason }) => vec![reason.clone()],
        _ => Vec::new(),
    });
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
    use super::super::{Entry, OtherTool};
    use super::*;
    use std::collections::BTreeSet;

    fn entry(end: End, changed: &[&str]) -> Entry {
        Entry {
            name: "n".into(),
            key: String::new(),
            end,
            module: None,
            objects: Vec::new(),
            changed: changed.iter().map(|name| (*name).to_owned()).collect(),
            new: BTreeSet::new(),
            units: 1,
            seconds: 1.0,
            errors: vec!["why".into()],
            loaded: None,
        }
    }

    fn facts(status: i32, changed: &[&str]) -> Facts {
        let changed = changed.iter().map(|name| (*name).to_owned()).collect();
        Facts { name: "n".into(), c_tool: OtherTool { status, changed } }
    }

    #[test]
    fn differences_of_functions_are_named() {
        let module = entry(End::Module, &["a", "b"]);
        assert_eq!(compared(&module, Some(&facts(0, &["a", "b"]))), "same");
        assert_eq!(compared(&module, Some(&facts(0, &["b", "c"]))), "more: a; fewer: c");
        assert_eq!(compared(&module, Some(&facts(2, &[]))), "refused (2)");
        assert_eq!(compared(&entry(End::NoChange, &[]), Some(&facts(3, &[]))), "same");
    }

    #[test]
    fn refusals_are_listed_with_their_errors() {
        let entries = [entry(End::Refused { codes: vec!["code".into()] }, &[]), entry(End::NoChange, &[])];
        let text = markdown("s", "r", &entries, &BTreeMap::new());
        assert!(text.contains("    1  refused: code\n"));
        assert_eq!(text.matches("      why").count(), 1);
    }
}
