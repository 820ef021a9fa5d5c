//! Waits for transitions, and tells what holds them up.

use std::time::Duration;

use super::Context;
use crate::edge::read::{self, LIVEPATCH};
use crate::error::{Error, Result, stalled};
use crate::model::tasks::Task;

/// After that long a transition counts as stalled and its tasks are shown. Less than the 15 s after which the
/// kernel signals them (`SIGNALS_TIMEOUT` of `kernel/livepatch/transition.c`): many go on then, and who held it up
/// could not be told any more.
const STALL: Duration = Duration::from_secs(10);

/// The first wait between two looks; it doubles up to the longest. A line in the kernel's log ends it early.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);

/// How long a disabled patch may take to let go of its module.
const REFERENCES: Duration = Duration::from_secs(15);

/// How a wait ended.
#[derive(Debug)]
pub(super) enum End {
    /// The patch is where it should be.
    There,
    /// The time is over; these tasks have not switched, for these reasons.
    Stalled(Vec<Task>, Vec<String>),
}

/// Where a live patch stands: the two attributes that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    enabled: bool,
    transition: bool,
}

fn standing(cx: &Context<'_>, name: &str) -> Option<Standing> {
    let flag = |attribute| Some(cx.root.maybe(format!("{LIVEPATCH}/{name}/{attribute}"))? == "1");
    Some(Standing { enabled: flag("enabled")?, transition: flag("transition")? })
}

/// Waits until a patch is enabled, or disabled.
pub(super) fn wait(cx: &mut Context<'_>, name: &str, enabling: bool, limit: Duration) -> Result<End> {
    let start = cx.system.elapsed();
    let mut pause = SHORTEST;
    let mut next_report = STALL;
    let mut told = false;
    let mut last: Vec<Task> = Vec::new();
    loop {
        match standing(cx, name) {
            // A disabled patch vanishes from sysfs; so does one that another replaces.
            None if enabling => return Err(changed(name, "disabled", "enabled")),
            None => return Ok(End::There),
            Some(Standing { transition: false, enabled }) if enabled == enabling => {
                if told {
                    let seconds = cx.system.elapsed().saturating_sub(start).as_secs();
                    cx.say(format_args!("transition complete ({seconds} seconds)"));
                }
                return Ok(End::There);
            }
            Some(Standing { transition: false, .. }) => {
                let (found, wanted) =
                    if enabling { ("disabled", "enabled") } else { ("enabled", "disabled") };
                return Err(changed(name, found, wanted));
            }
            Some(_) => {}
        }
        let passed = cx.system.elapsed().saturating_sub(start);
        if passed >= limit {
            let tasks = read::unswitched(&cx.root, enabling);
            let why = reasons(cx, name, &tasks);
            return Ok(End::Stalled(tasks, why));
        }
        if !told && passed >= Duration::from_millis(100) {
            told = true;
            let seconds = limit.as_secs();
            cx.say(format_args!("waiting (up to {seconds} seconds) for patch transition to complete..."));
        }
        if passed >= next_report {
            next_report += STALL;
            report(cx, name, enabling, &mut last);
        }
        cx.system.wait(pause.min(limit.saturating_sub(passed)).max(Duration::from_millis(1)));
        pause = (pause * 2).min(LONGEST);
    }
}

fn changed(module: &str, found: &'static str, wanted: &'static str) -> Error {
    Error::Changed { module: module.to_owned(), found, wanted }
}

fn reasons(cx: &Context<'_>, name: &str, tasks: &[Task]) -> Vec<String> {
    let patch = read::patch(&cx.root, name);
    let functions: Vec<String> =
        patch.iter().flat_map(|patch| patch.functions().map(|function| function.name)).collect();
    tasks.iter().map(|task| task.explain(&functions)).collect()
}

/// Tells what a patch in transition waits for; nothing new, nothing told.
fn report(cx: &mut Context<'_>, name: &str, enabling: bool, last: &mut Vec<Task>) {
    let tasks = read::unswitched(&cx.root, enabling);
    if tasks.is_empty() || tasks == *last {
        return;
    }
    if last.is_empty() {
        cx.say("patch transition has stalled!");
    }
    let why = reasons(cx, name, &tasks);
    cx.say("Stalled processes:");
    for line in stalled(&tasks, &why) {
        cx.say(format_args!("  {line}"));
    }
    if last.is_empty() {
        match signal(cx, name) {
            Ok(true) => cx.say("signaled stalled process(es)"),
            Ok(false) => cx.say("the kernel signals them every 15 seconds by itself"),
            Err(error) => cx.warn(error),
        }
    }
    *last = tasks;
}

/// Asks the kernel to signal those that hold a transition up. False where it does that by itself: the
/// attribute is gone since 5.1.
pub(super) fn signal(cx: &mut Context<'_>, name: &str) -> Result<bool> {
    if !cx.root.path(format!("{LIVEPATCH}/{name}/signal")).exists() {
        return Ok(false);
    }
    cx.system.set(name, "signal", "1").map_err(|reason| Error::Attribute {
        action: "signal the tasks of",
        module: name.to_owned(),
        reason,
    })?;
    Ok(true)
}

/// Writes the attribute that starts or turns a transition.
pub(super) fn turn(cx: &mut Context<'_>, name: &str, enable: bool) -> Result<()> {
    let (action, value) = if enable { ("enable", "1") } else { ("disable", "0") };
    match cx.system.set(name, "enabled", value) {
        Ok(()) => Ok(()),
        // Gone, or where it should be: somebody else was faster.
        Err(_) if standing(cx, name).map_or(!enable, |now| now.enabled == enable) => Ok(()),
        Err(reason) => Err(Error::Attribute { action, module: name.to_owned(), reason }),
    }
}

/// Removes a module whose patch is disabled, as soon as the kernel lets go of it.
pub(super) fn remove(cx: &mut Context<'_>, name: &str) -> Result<()> {
    let start = cx.system.elapsed();
    let mut pause = SHORTEST;
    loop {
        // EAGAIN: it has users still. The patch's own reference goes with a work item of the kernel's.
        let error = match cx.system.remove(name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        let waiting = error.kind() == std::io::ErrorKind::WouldBlock;
        if !waiting || cx.system.elapsed().saturating_sub(start) >= REFERENCES {
            let reason = if waiting { "it is still in use".to_owned() } else { error.to_string() };
            return Err(Error::Remove { module: name.to_owned(), reason });
        }
        cx.system.wait(pause);
        pause = (pause * 2).min(LONGEST);
    }
}

/// Waits until no patch but the named one is on its way.
pub(super) fn others(cx: &mut Context<'_>, other: &str, limit: Duration) -> Result<()> {
    cx.say(format_args!("waiting for the transition of {other} to complete"));
    let start = cx.system.elapsed();
    let mut pause = SHORTEST;
    while standing(cx, other).is_some_and(|now| now.transition) {
        if cx.system.elapsed().saturating_sub(start) >= limit {
            return Err(Error::OtherTransition(other.to_owned()));
        }
        cx.system.wait(pause);
        pause = (pause * 2).min(LONGEST);
    }
    Ok(())
}
