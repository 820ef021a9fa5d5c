//! What two versions of a cumulative patch module differ in.

use std::collections::BTreeSet;

use kpatch_elf::note::{NotedFunction, PatchFile};
use serde::Serialize;

use super::module::PatchModule;

/// The difference between two modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// Functions that only the new one patches.
    pub added: Vec<NotedFunction>,
    /// Functions that only the old one patches: they go back to the kernel's own.
    pub dropped: Vec<NotedFunction>,
    /// Functions that both patch, with other code.
    pub repatched: Vec<NotedFunction>,
    /// Functions that both patch with the same code.
    pub same: Vec<NotedFunction>,
    /// Functions that both patch, of which a module does not show the code.
    pub unknown: Vec<NotedFunction>,
    /// Source patches that only the new one holds.
    pub patches_added: Vec<PatchFile>,
    /// Source patches that only the old one holds.
    pub patches_dropped: Vec<PatchFile>,
}

/// Compares two modules.
pub fn delta(old: &PatchModule, new: &PatchModule) -> Delta {
    let mut out = Delta::default();
    let before: BTreeSet<&NotedFunction> = old.functions.iter().collect();
    let after: BTreeSet<&NotedFunction> = new.functions.iter().collect();
    out.dropped = before.difference(&after).map(|f| (*f).clone()).collect();
    for function in after {
        let list = match (old.code.get(function), new.code.get(function)) {
            _ if !before.contains(function) => &mut out.added,
            (Some(a), Some(b)) if a == b => &mut out.same,
            (Some(_), Some(_)) => &mut out.repatched,
            _ => &mut out.unknown,
        };
        list.push(function.clone());
    }
    out.patches_added = missing(new, old);
    out.patches_dropped = missing(old, new);
    out
}

/// Source patches of one module that the other lacks.
pub fn missing(of: &PatchModule, from: &PatchModule) -> Vec<PatchFile> {
    let has: BTreeSet<&str> = from.patches().iter().map(|patch| patch.blake3.as_str()).collect();
    of.patches().iter().filter(|patch| !has.contains(patch.blake3.as_str())).cloned().collect()
}
