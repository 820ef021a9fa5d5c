//! Functions that tasks do not leave: the transition to a live patch ends only when no task has a replaced function
//! on its stack.

use std::collections::BTreeSet;

use bstr::ByteSlice;
use kpatch_elf::arch::Flow;

use crate::correlate::Twins;
use crate::error::DiffError;
use crate::select::{Change, Selection, Statuses};
use crate::unit::{ElementId, Kind, Target, Unit};

/// Saves one task and goes on with another: whoever calls it is on the stack of every task that does not run
/// (`arch/x86/include/asm/switch_to.h`).
const SWITCH: [&[u8]; 2] = [b"__switch_to_asm", b"__switch_to"];

/// What makes kernel threads, with their main function as an argument.
const MAKES_THREADS: [&[u8]; 4] =
    [b"kthread_create_on_node", b"kthread_create_on_cpu", b"kernel_thread", b"user_mode_thread"];

/// What only the main loops of kernel threads ask.
const ASKED_BY_THREADS: [&[u8]; 5] = [
    b"kthread_should_stop",
    b"kthread_should_park",
    b"kthread_should_stop_or_park",
    b"kthread_parkme",
    b"kthread_freezable_should_stop",
];

/// What sleeps until something happens, without end.
const SLEEPS: [&[u8]; 7] = [
    b"schedule",
    b"io_schedule",
    b"wait_woken",
    b"wait_for_completion",
    b"wait_for_completion_interruptible",
    b"wait_for_completion_killable",
    b"wait_for_completion_io",
];

/// Errors for replaced functions that are on every task's stack; warnings for those that tasks rarely leave. What
/// counts is the original: that is where tasks are when the patch comes.
pub(crate) fn check(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    statuses: &Statuses,
    selection: &Selection,
    warnings: &mut Vec<String>,
) -> Vec<(Option<ElementId>, DiffError)> {
    let mut errors = Vec::new();
    for id in patched.ids() {
        let replaced = patched.element(id).kind == Kind::Function
            && selection.has(id)
            && statuses.of[id.index()] == Change::Changed
            && !statuses.parent.contains_key(&id);
        let Some(twin) = twins.of_patched[id.index()].filter(|_| replaced) else { continue };
        let called = called(original, twin);
        let calls = |names: &'static [&'static [u8]]| names.iter().find(|name| called.contains(**name));
        let function = patched.name(id);
        let switcher = |id: ElementId| calls_any(original, id, &SWITCH);
        let inner = function == "schedule" && callees(original, twin).any(switcher);
        if calls(&SWITCH).is_some() || inner {
            errors.push((Some(id), DiffError::AlwaysOnStack { function }));
        } else if calls(&ASKED_BY_THREADS).is_some() || starts_thread(original, twin) {
            warnings.push(format!(
                "{function} is the main loop of a kernel thread: the transition waits until the thread leaves it"
            ));
        } else if let Some(sleep) = calls(&SLEEPS) {
            warnings.push(format!(
                "{function} calls {}(): the transition waits for tasks that sleep there",
                sleep.as_bstr()
            ));
        }
    }
    errors
}

/// Names of what an element refers to in other units.
fn called<'u>(unit: &'u Unit<'_>, id: ElementId) -> BTreeSet<&'u [u8]> {
    unit.references(id).iter().filter_map(|r| external(unit, r.target)).collect()
}

fn external<'u>(unit: &'u Unit<'_>, target: Target) -> Option<&'u [u8]> {
    match target {
        Target::External(symbol, _) => Some(unit.object.symbol(symbol).name.as_bytes()),
        _ => None,
    }
}

fn calls_any(unit: &Unit<'_>, id: ElementId, names: &[&[u8]]) -> bool {
    unit.references(id).iter().filter_map(|r| external(unit, r.target)).any(|name| names.contains(&name))
}

/// The functions of the unit that one calls.
fn callees(unit: &Unit<'_>, id: ElementId) -> impl Iterator<Item = ElementId> {
    unit.references(id).iter().filter_map(move |r| match r.target {
        Target::Element(to, _) if to != id && r.flow != Flow::Next => Some(to),
        _ => None,
    })
}

/// True if a function's address is handed to what makes threads: the next call behind the place that takes it.
fn starts_thread(unit: &Unit<'_>, id: ElementId) -> bool {
    unit.referrers[id.index()].iter().any(|&(by, index)| {
        let range = &unit.element(by).references;
        unit.element(by).kind == Kind::Function
            && unit.references[index as usize].flow == Flow::Next
            && unit.references[index as usize + 1..range.end as usize]
                .iter()
                .find(|r| r.flow != Flow::Next)
                .and_then(|r| external(unit, r.target))
                .is_some_and(|name| MAKES_THREADS.contains(&name))
    })
}
