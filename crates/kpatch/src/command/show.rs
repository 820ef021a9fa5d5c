//! `kpatch show`: the fixes, with their text.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use kpatch_elf::note::PatchFile;
use serde::Serialize;

use super::{Context, cves};
use crate::edge::{read, store};
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Fix {
    module: String,
    cves: Vec<String>,
    #[serde(flatten)]
    patch: PatchFile,
}

/// Shows the fixes in force.
pub fn in_force(cx: &mut Context<'_>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let mut fixes = Vec::new();
    for patch in state.patches.iter().filter(|patch| patch.enabled && !patch.transition) {
        match &patch.note {
            Some(note) => fixes.extend(note.provenance.patches.iter().map(|p| fix(&patch.name, p.clone()))),
            None => cx.warn(format_args!("{} does not tell what it fixes", patch.name)),
        }
    }
    print(cx, &fixes, "no fixes are in force\n")
}

/// Shows the fixes that modules would add: the named ones, or else the installed ones.
pub fn available(cx: &mut Context<'_>, modules: &[PathBuf]) -> Result<()> {
    let state = read::state(&cx.root)?;
    let notes = state.patches.iter().filter_map(|patch| patch.note.as_ref());
    let mut known: BTreeSet<String> =
        notes.flat_map(|note| &note.provenance.patches).map(|patch| patch.blake3.clone()).collect();
    let files: Vec<PathBuf> = if modules.is_empty() {
        let installed = store::installed(&cx.root, Some(&cx.release(None)?))?;
        installed.into_iter().map(|module| module.path).collect()
    } else {
        modules.iter().map(|module| cx.file(module)).collect::<Result<_>>()?
    };
    let mut fixes = Vec::new();
    for file in files {
        let module = match read::module(&file) {
            Ok(module) => module,
            Err(error) => {
                cx.warn(error);
                continue;
            }
        };
        for patch in module.patches() {
            if known.insert(patch.blake3.clone()) {
                fixes.push(fix(&module.name, patch.clone()));
            }
        }
    }
    print(cx, &fixes, "no further fixes are available\n")
}

fn fix(module: &str, patch: PatchFile) -> Fix {
    Fix { module: module.to_owned(), cves: cves(&[&patch.subject, &patch.description]), patch }
}

fn print(cx: &mut Context<'_>, fixes: &[Fix], none: &str) -> Result<()> {
    let mut text = String::new();
    for fix in fixes {
        let _ = writeln!(text, "{} ({})", fix.patch.subject, fix.module);
        if !fix.cves.is_empty() {
            let _ = writeln!(text, "    {}", fix.cves.join(", "));
        }
        for line in fix.patch.description.lines() {
            text.push_str(if line.is_empty() { "" } else { "    " });
            text.push_str(line);
            text.push('\n');
        }
    }
    cx.print(&fixes, if fixes.is_empty() { none } else { &text })
}
