//! `kpatch unload`.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::transition::{self, End};
use super::{Context, load, module_name};
use crate::edge::read::{self, RECORDS};
use crate::error::{Error, Result};
use crate::model::plan::{self, Unload};

#[derive(Debug, Serialize)]
struct Unloaded {
    module: String,
}

/// Disables one patch and removes its module.
pub fn one(cx: &mut Context<'_>, module: &Path, limit: Duration) -> Result<()> {
    let _lock = load::lock(cx)?;
    let done = unload(cx, &module_name(module), limit)?;
    if cx.json { cx.print(&done, "") } else { Ok(()) }
}

/// Disables all patches, the topmost first, and removes their modules.
pub fn all(cx: &mut Context<'_>, limit: Duration) -> Result<()> {
    let _lock = load::lock(cx)?;
    let state = read::state(&cx.root)?;
    let loaded: Vec<String> =
        state.patches.iter().rev().map(|patch| patch.name.clone()).chain(state.leftovers).collect();
    let (mut done, mut failed) = (Vec::new(), 0);
    // Each once: what comes meanwhile is not ours.
    for name in &loaded {
        match unload(cx, name, limit) {
            Ok(unloaded) => done.push(unloaded),
            Err(error) => {
                failed += 1;
                cx.tell(&error);
            }
        }
    }
    if cx.json {
        cx.print(&done, "")?;
    }
    if failed > 0 { Err(Error::Some { failed, all: loaded.len() }) } else { Ok(()) }
}

fn unload(cx: &mut Context<'_>, name: &str, limit: Duration) -> Result<Unloaded> {
    let mut waited = false;
    let plan = loop {
        match plan::unload(name, &read::state(&cx.root)?) {
            Err(Error::OtherTransition(other)) if !waited => {
                waited = true;
                transition::others(cx, &other, limit)?;
            }
            result => break result?,
        }
    };
    if plan == Unload::Disable {
        cx.say(format_args!("disabling patch module: {name}"));
        transition::turn(cx, name, false)?;
    }
    if plan != Unload::Remove
        && let End::Stalled(tasks, why) = transition::wait(cx, name, false, limit)?
    {
        let undone = undo(cx, name, limit);
        let seconds = limit.as_secs();
        return Err(Error::Stalled { module: name.to_owned(), seconds, undone, tasks, why });
    }
    cx.say(format_args!("unloading patch module: {name}"));
    transition::remove(cx, name)?;
    // A stale record does no harm.
    let _ = std::fs::remove_file(cx.root.path(format!("{RECORDS}/{name}.json")));
    Ok(Unloaded { module: name.to_owned() })
}

/// A half disabled patch is worse than one in force.
fn undo(cx: &mut Context<'_>, name: &str, limit: Duration) -> String {
    cx.say(format_args!("undoing the transition of {name}"));
    match transition::turn(cx, name, true).and_then(|()| transition::wait(cx, name, true, limit)) {
        Ok(End::There) => "it was undone, the patch is in force".to_owned(),
        Ok(End::Stalled(..)) => {
            format!("undoing it has not ended either; `kpatch load {name}` goes on with it")
        }
        Err(error) => format!("undoing it failed: {error}"),
    }
}
