//! `cargo xtask corpus compare`: which patches of a set end otherwise than in an earlier report, and why.

use super::{Entry, report};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The earlier report, in JSON.
    before: PathBuf,
    /// The later one.
    after: PathBuf,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    print!("{}", markdown(&read(&arguments.before)?, &read(&arguments.after)?));
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))
}

/// How many patches went from which end to which, and each with the reason.
fn markdown(before: &[Entry], after: &[Entry]) -> String {
    let before: BTreeMap<&str, &Entry> = before.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut list, mut both) = (String::new(), 0);
    for now in after {
        let Some(then) = before.get(now.name.as_str()) else { continue };
        both += 1;
        let ends = (report::end_of(then), report::end_of(now));
        if ends.0 == ends.1 {
            continue;
        }
        let _ = writeln!(list, "| {} | {} | {} | {} |", now.name, ends.0, ends.1, reason(then, now));
        *counts.entry(ends).or_default() += 1;
    }
    let changed: usize = counts.values().sum();
    let mut text = format!("{changed} of {both} patches that are in both reports end otherwise.\n");
    if changed > 0 {
        text.push_str("\n| then | now | patches |\n|---|---|---|\n");
        for ((then, now), count) in counts {
            let _ = writeln!(text, "| {then} | {now} | {count} |");
        }
        text.push_str("\n| patch | then | now | reason |\n|---|---|---|---|\n");
        text.push_str(&list);
    }
    text
}

/// What stands in the way now and did not then, or the other way round.
fn reason(then: &Entry, now: &Entry) -> String {
    let all = |entry: &Entry| {
        let lists = [&entry.errors, &entry.whole, &entry.layouts];
        let lines = lists.into_iter().flatten().filter_map(|error| error.lines().next()).map(str::to_owned);
        lines.collect::<Vec<String>>()
    };
    let (old, new) = (all(then), all(now));
    let first = |of: &[String], but: &[String]| of.iter().find(|line| !but.contains(line)).cloned();
    let told = match (first(&new, &old), first(&old, &new)) {
        (Some(line), _) => line,
        (None, Some(line)) => format!("no more: {line}"),
        (None, None) => "the same is told in another way".to_owned(),
    };
    told.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::*;

    fn entry(name: &str, end: End, errors: &[&str]) -> Entry {
        Entry { errors: errors.iter().map(|&error| error.to_owned()).collect(), ..Entry::new(name, end) }
    }

    #[test]
    fn ends_that_changed_are_listed_with_reasons() {
        let refused = |code: &str| End::Refused { codes: vec![code.to_owned()] };
        let before = [
            entry("a", refused("no-entry"), &["x.c:1: f has no entry\n  why: it has none"]),
            entry("b", End::Module, &[]),
            entry("c", End::Module, &[]),
            entry("gone", End::Module, &[]),
        ];
        let after = [
            entry("a", End::Module, &[]),
            entry("b", refused("layout-changed"), &["x.c:2: struct s | t changes"]),
            entry("c", End::Module, &[]),
            entry("new", End::Module, &[]),
        ];
        let text = markdown(&before, &after);
        assert!(text.starts_with("2 of 3 patches"), "{text}");
        assert!(text.contains("| module | refused: layout-changed | 1 |\n"), "{text}");
        assert!(
            text.contains("| a | refused: no-entry | module | no more: x.c:1: f has no entry |\n"),
            "{text}"
        );
        assert!(
            text.contains("| b | module | refused: layout-changed | x.c:2: struct s \\| t changes |\n"),
            "{text}"
        );
        assert!(!text.contains("| c |") && !text.contains("| new |"), "{text}");
        assert_eq!(markdown(&before, &before), "0 of 4 patches that are in both reports end otherwise.\n");
    }
}
