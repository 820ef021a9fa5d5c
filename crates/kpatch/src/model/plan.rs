//! What a command will do, or why not. Everything that can be known is known before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use kpatch_elf::klp::VMLINUX;
use kpatch_elf::note::{Note, NotedFunction};

use super::ftrace::{Hooked, kprobe_on};
use super::module::PatchModule;
use super::state::{LivePatch, Phase, State};
use crate::error::Error;

/// What the running system demands and does, besides its live patches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Build-ids of loaded modules, hexadecimal.
    pub modules: BTreeMap<String, String>,
    /// The level of `/sys/kernel/security/lockdown`, `none` where it is off or missing.
    pub lockdown: String,
    /// `module.sig_enforce`.
    pub signatures_enforced: bool,
    /// Hooked functions; none where tracefs cannot be read.
    pub hooks: Option<Vec<Hooked>>,
    /// The list of kprobes; empty where it cannot be read.
    pub kprobes: String,
}

/// How loading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The module goes into the kernel.
    Insert,
    /// It is there, without its live patch: it goes out first.
    Reinsert,
    /// It is being disabled, or disabled: it is enabled again.
    Enable,
    /// It is being enabled: there is only the end to wait for.
    Wait,
    /// It is in force.
    Nothing,
}

/// What loading will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// How it begins.
    pub start: Start,
    /// What the administrator should know.
    pub remarks: Vec<String>,
}

/// Decides about loading a module. A transition of another patch is the caller's to wait for; here it is an
/// error.
pub fn load(
    module: &PatchModule,
    state: &State,
    around: &Surroundings,
    downgrade: bool,
) -> Result<Load, Error> {
    if !state.livepatch {
        return Err(Error::NoLivepatch(state.release.clone()));
    }
    belongs(module, &state.release, state.build_id.as_deref())?;
    patched_modules(module, around)?;
    if let Some(patch) = state.patch(&module.name) {
        return again(module, patch);
    }
    if let Some(other) = state.in_transition() {
        return Err(Error::OtherTransition(other.name.clone()));
    }
    signature(module, around)?;
    if !downgrade {
        newer_is_loaded(module, state)?;
    }
    hooks(module, state, around)?;
    let start = if state.leftovers.contains(&module.name) { Start::Reinsert } else { Start::Insert };
    Ok(Load { start, remarks: remarks(module, state) })
}

/// Is the module for that kernel?
pub fn belongs(module: &PatchModule, release: &str, build_id: Option<&str>) -> Result<(), Error> {
    if module.release() != release {
        return Err(Error::Release {
            module: module.name.clone(),
            wanted: module.release().to_owned(),
            running: release.to_owned(),
        });
    }
    match (module.build_id.as_deref(), build_id) {
        (Some(wanted), Some(running)) if wanted != running => Err(Error::BuildId {
            module: module.name.clone(),
            release: release.to_owned(),
            wanted: wanted.to_owned(),
            running: running.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The modules that are loaded and would be patched must be those that the patch was made for. Of those that come later,
/// the kernel checks nothing but the places of their functions.
fn patched_modules(module: &PatchModule, around: &Surroundings) -> Result<(), Error> {
    for (name, wanted) in module.module_build_ids().into_iter().flatten() {
        if let Some(running) = around.modules.get(name).filter(|running| *running != wanted) {
            return Err(Error::ModuleBuildId {
                module: module.name.clone(),
                object: name.clone(),
                wanted: wanted.clone(),
                running: running.clone(),
            });
        }
    }
    Ok(())
}

/// A live patch of the module's name is there.
fn again(module: &PatchModule, patch: &LivePatch) -> Result<Load, Error> {
    if let (Some(new), Some(loaded)) = (&module.note, &patch.note)
        && (hashes(new) != hashes(loaded) || new.functions != loaded.functions)
    {
        return Err(Error::OtherOfThatName(module.name.clone()));
    }
    let start = match patch.phase() {
        Phase::Enabled => Start::Nothing,
        Phase::Enabling => Start::Wait,
        Phase::Disabled | Phase::Disabling => Start::Enable,
    };
    Ok(Load { start, remarks: Vec::new() })
}

fn signature(module: &PatchModule, around: &Surroundings) -> Result<(), Error> {
    let why = if around.signatures_enforced {
        "this kernel accepts signed modules only (module.sig_enforce)".to_owned()
    } else if !matches!(around.lockdown.as_str(), "" | "none") {
        format!("this kernel is locked down ({})", around.lockdown)
    } else {
        return Ok(());
    };
    if module.signed { Ok(()) } else { Err(Error::Unsigned { module: module.name.clone(), why }) }
}

fn hashes(note: &Note) -> BTreeSet<&str> {
    note.provenance.patches.iter().map(|patch| patch.blake3.as_str()).collect()
}

/// Cumulative patches hold their predecessors' fixes: what holds all of these and more is newer.
fn newer_is_loaded(module: &PatchModule, state: &State) -> Result<(), Error> {
    let Some(new) = &module.note else { return Ok(()) };
    let ours = hashes(new);
    for patch in &state.patches {
        let Some(loaded) = &patch.note else { continue };
        let theirs = hashes(loaded);
        if !ours.is_empty() && ours.is_subset(&theirs) && ours.len() < theirs.len() {
            let lost = loaded.provenance.patches.iter().filter(|p| !ours.contains(p.blake3.as_str()));
            return Err(Error::Older {
                module: module.name.clone(),
                loaded: patch.name.clone(),
                lost: lost.map(|patch| patch.subject.clone()).collect(),
            });
        }
    }
    Ok(())
}

/// ftrace allows one hook that redirects (`FTRACE_OPS_FL_IPMODIFY`) on each function, and all live patches of
/// a function share one. A kprobe with a post handler and error injection are such hooks.
fn hooks(module: &PatchModule, state: &State, around: &Surroundings) -> Result<(), Error> {
    let Some(hooked) = &around.hooks else { return Ok(()) };
    for function in &module.functions {
        let of_function = |hook: &&Hooked| {
            hook.redirects
                && !hook.livepatch
                && hook.function == function.name
                && hook.module.as_deref().unwrap_or(VMLINUX) == function.object
        };
        let Some(hook) = hooked.iter().find(of_function) else { continue };
        if state.patches.iter().any(|patch| patch.has(function)) {
            continue;
        }
        let probe = kprobe_on(&around.kprobes, &function.name);
        return Err(Error::Hooked {
            function: function.name.clone(),
            hook: probe.map_or_else(
                || format!("enabled_functions: {}", hook.line),
                |probe| format!("kprobes: {probe}"),
            ),
        });
    }
    Ok(())
}

fn remarks(module: &PatchModule, state: &State) -> Vec<String> {
    let mut out = Vec::new();
    if module.replace == Some(true) {
        let replaced: Vec<&str> = state.patches.iter().map(|patch| patch.name.as_str()).collect();
        if !replaced.is_empty() {
            out.push(format!("{} replaces {}", module.name, replaced.join(", ")));
        }
        return out;
    }
    for patch in &state.patches {
        let shared: Vec<&NotedFunction> = module.functions.iter().filter(|f| patch.has(f)).collect();
        for function in shared {
            out.push(format!(
                "{} is patched by {} already; {} takes its place",
                function.name, patch.name, module.name
            ));
        }
    }
    out
}

/// How unloading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unload {
    /// The live patch is disabled first.
    Disable,
    /// It is being disabled already.
    Wait,
    /// Only the module is left.
    Remove,
}

/// Decides about unloading.
pub fn unload(name: &str, state: &State) -> Result<Unload, Error> {
    if let Some(patch) = state.patch(name) {
        if let Some(other) = state.in_transition().filter(|other| other.name != name) {
            return Err(Error::OtherTransition(other.name.clone()));
        }
        return Ok(match patch.phase() {
            Phase::Enabled | Phase::Enabling => Unload::Disable,
            Phase::Disabling | Phase::Disabled => Unload::Wait,
        });
    }
    if state.leftovers.iter().any(|left| left == name) {
        return Ok(Unload::Remove);
    }
    Err(Error::NotLoaded(name.to_owned()))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
