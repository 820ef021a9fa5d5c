//! `kpatch uname`.

use serde::Serialize;

use super::Context;
use crate::edge::read;
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Uname {
    release: String,
    /// Version of the packaged patch in force: number of the cumulative patch, and of its packaging.
    level: Option<String>,
    patches: Vec<String>,
}

/// Prints the release, then the live patches in force with a `+` each, lowest of the stack first: by the version of
/// their package, `+2-1`, or else by name.
pub fn run(cx: &mut Context<'_>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let in_force: Vec<_> = state.patches.iter().filter(|patch| patch.enabled && !patch.transition).collect();
    let level = |patch: &crate::model::state::LivePatch| patch.note.as_ref()?.provenance.level.clone();
    let words = in_force.iter().map(|patch| level(patch).unwrap_or_else(|| patch.name.clone()));
    let text = words.fold(state.release.clone(), |text, word| text + "+" + &word) + "\n";
    let uname = Uname {
        level: in_force.iter().rev().find_map(|patch| level(patch)),
        patches: in_force.iter().map(|patch| patch.name.clone()).collect(),
        release: state.release,
    };
    cx.print(&uname, &text)
}
