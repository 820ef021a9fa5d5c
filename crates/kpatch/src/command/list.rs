//! `kpatch list`.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::Context;
use crate::edge::{read, store};
use crate::error::{Result, stalled};
use crate::model::state::{Phase, Provided};
use crate::model::tasks::Task;

#[derive(Debug, Serialize)]
struct List {
    release: String,
    loaded: Vec<Loaded>,
    installed: Vec<Installed>,
    functions: Vec<Provided>,
    /// Modules whose live patch is disabled or replaced.
    leftovers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Loaded {
    module: String,
    state: Phase,
    /// When kpatch loaded it.
    since: Option<String>,
    replace: Option<bool>,
    /// Release that it was made for.
    target: Option<String>,
    /// Subjects of the source patches.
    patches: Vec<String>,
    stalled: Vec<Stalled>,
}

#[derive(Debug, Serialize)]
struct Stalled {
    #[serde(flatten)]
    task: Task,
    why: String,
}

#[derive(Debug, Serialize)]
struct Installed {
    module: String,
    release: String,
    file: String,
}

/// Lists everything.
pub fn run(cx: &mut Context<'_>) -> Result<()> {
    let list = gather(cx)?;
    let text = text(&list);
    cx.print(&list, &text)
}

/// Seconds since 1970 as a date.
pub(super) fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn gather(cx: &Context<'_>) -> Result<List> {
    let state = read::state(&cx.root)?;
    let functions = state.provided();
    let mut loaded = Vec::new();
    for patch in &state.patches {
        let names: Vec<String> = patch.functions().map(|function| function.name).collect();
        let tasks = if patch.transition { read::unswitched(&cx.root, patch.enabled) } else { Vec::new() };
        let provenance = patch.note.as_ref().map(|note| &note.provenance);
        loaded.push(Loaded {
            module: patch.name.clone(),
            state: patch.phase(),
            since: patch.since.map(date),
            replace: patch.replace,
            target: provenance.map(|from| from.release.clone()),
            patches: provenance
                .map_or_else(Vec::new, |from| from.patches.iter().map(|p| p.subject.clone()).collect()),
            stalled: tasks.into_iter().map(|task| Stalled { why: task.explain(&names), task }).collect(),
        });
    }
    let installed = store::installed(&cx.root, None)?.into_iter().map(|module| Installed {
        module: module.stem,
        release: module.release,
        file: module.path.display().to_string(),
    });
    Ok(List {
        release: state.release.clone(),
        loaded,
        installed: installed.collect(),
        functions,
        leftovers: state.leftovers,
    })
}

fn text(list: &List) -> String {
    let mut out = String::from("Loaded patch modules:\n");
    for patch in &list.loaded {
        let since = patch.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
        let _ = writeln!(out, "{} [{}]{since}", patch.module, patch.state.word());
        for subject in &patch.patches {
            let _ = writeln!(out, "    {subject}");
        }
        if !patch.stalled.is_empty() {
            out.push_str("\nStalled processes:\n");
            for one in &patch.stalled {
                for line in stalled(std::slice::from_ref(&one.task), std::slice::from_ref(&one.why)) {
                    let _ = writeln!(out, "  {line}");
                }
            }
        }
    }
    for module in &list.leftovers {
        let _ = writeln!(out, "{module} [replaced or disabled, kpatch unload removes it]");
    }
    out.push_str("\nInstalled patch modules:\n");
    for module in &list.installed {
        let _ = writeln!(out, "{} ({})", module.module, module.release);
    }
    if list.functions.is_empty() {
        return out;
    }
    out.push('\n');
    let rows = list.functions.iter().map(|entry| {
        let position = if entry.sympos > 1 { format!(",{}", entry.sympos) } else { String::new() };
        let mut module = entry.by.first().cloned().unwrap_or_default();
        if entry.transition {
            module.push_str(" (transition)");
        }
        if entry.by.len() > 1 {
            let _ = write!(module, " (over {})", entry.by[1..].join(", "));
        }
        [entry.object.clone(), format!("{}{position}", entry.function), module]
    });
    let head = ["Object", "Function", "Module"].map(str::to_owned);
    let rows: Vec<[String; 3]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [object, function, module] in &rows {
        let _ = writeln!(out, "{object:first$}  {function:second$}  {module}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_as_people_and_scripts_see_it() {
        let list = List {
            release: "6.1.0".into(),
            loaded: vec![Loaded {
                module: "one".into(),
                state: Phase::Enabling,
                since: Some(date(0)),
                replace: None,
                target: None,
                patches: vec!["fix it".into()],
                stalled: vec![Stalled {
                    task: Task {
                        tid: 7,
                        comm: "sleep".into(),
                        state: 'S',
                        kernel_thread: false,
                        stack: vec!["f+0x1/0x2".into()],
                    },
                    why: "sleeps".into(),
                }],
            }],
            installed: vec![Installed { module: "one".into(), release: "6.1.0".into(), file: "x".into() }],
            functions: vec![Provided {
                object: "vmlinux".into(),
                function: "f".into(),
                sympos: 2,
                by: vec!["one".into(), "zero".into()],
                transition: true,
            }],
            leftovers: vec!["old".into()],
        };
        let expected = "\
Loaded patch modules:
one [enabling...] since 1970-01-01T00:00:00Z
    fix it

Stalled processes:
  7 sleep: sleeps
      f+0x1/0x2
old [replaced or disabled, kpatch unload removes it]

Installed patch modules:
one (6.1.0)

Object   Function  Module
vmlinux  f,2       one (transition) (over zero)
";
        assert_eq!(text(&list), expected);
    }
}
