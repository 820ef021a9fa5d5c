//! `kpatch signal`. Takes no lock: it is meant to be called while another command waits.

use serde::Serialize;

use super::{Context, transition};
use crate::edge::read;
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Signalled {
    /// The module whose transition is under way.
    module: Option<String>,
    /// The kernel was asked; else it signals by itself.
    asked: bool,
}

/// Signals the tasks that hold the transition up.
pub fn run(cx: &mut Context<'_>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let Some(patch) = state.in_transition() else {
        cx.say("no transition is under way");
        return if cx.json { cx.print(&Signalled { module: None, asked: false }, "") } else { Ok(()) };
    };
    let name = patch.name.clone();
    let asked = transition::signal(cx, &name)?;
    if asked {
        cx.say("signaled stalled process(es)");
    } else {
        cx.warn("this kernel signals stalled tasks every 15 seconds by itself and cannot be asked to");
    }
    if cx.json { cx.print(&Signalled { module: Some(name), asked }, "") } else { Ok(()) }
}
