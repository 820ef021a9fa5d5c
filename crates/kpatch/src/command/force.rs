//! `kpatch force`. Takes no lock: it is meant to be called while another command waits.

use serde::Serialize;

use super::Context;
use crate::edge::read;
use crate::error::{Error, Result, stalled};
use crate::model::tasks::Task;

#[derive(Debug, Serialize)]
struct Forced {
    module: String,
    /// The tasks that were switched although they were in functions that change.
    tasks: Vec<Task>,
}

/// Forces the transition under way.
pub fn run(cx: &mut Context<'_>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let patch = state.in_transition().ok_or(Error::NoTransition)?;
    let name = patch.name.clone();
    let functions: Vec<String> = patch.functions().map(|function| function.name).collect();
    let tasks = read::unswitched(&cx.root, patch.enabled);
    cx.system.set(&name, "force", "1").map_err(|reason| Error::Attribute {
        action: "force the transition of",
        module: name.clone(),
        reason,
    })?;
    let why: Vec<String> = tasks.iter().map(|task| task.explain(&functions)).collect();
    cx.say(format_args!("forced the transition of {name}; these tasks may still run the code before it:"));
    for line in stalled(&tasks, &why) {
        cx.say(format_args!("  {line}"));
    }
    // What forced takes away stays, see klp_force_transition() in kernel/livepatch/transition.c.
    cx.say("the kernel keeps the modules that such tasks may be in until it is booted again");
    if cx.json { cx.print(&Forced { module: name, tasks }, "") } else { Ok(()) }
}
