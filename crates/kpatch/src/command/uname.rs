//! `kpatch uname`.

use serde::Serialize;

use super::Context;
use crate::edge::read;
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Uname {
    release: String,
    patches: Vec<String>,
}

/// Prints the release, then the live patches in force with a `+` each, lowest of the stack first.
pub fn run(cx: &mut Context<'_>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let in_force = state.patches.iter().filter(|patch| patch.enabled && !patch.transition);
    let uname = Uname { release: state.release.clone(), patches: in_force.map(|p| p.name.clone()).collect() };
    let text = uname.patches.iter().fold(uname.release.clone(), |text, patch| text + "+" + patch) + "\n";
    cx.print(&uname, &text)
}
