//! Static keys and static calls that live in modules.
//!
//! The kernel reads `__jump_table` and `.static_call_sites` when it loads the patch module. What an entry
//! refers to in another module is known only later, when the livepatch core applies its relocations, so
//! such entries cannot be kept.

use std::collections::BTreeSet;

use bstr::{BStr, BString};
use kpatch_elf::klp::VMLINUX;

use crate::error::{DiffError, used_by};
use crate::inlined::{self, Inlined, Site};
use crate::lookup::{Lookup, Resolution};
use crate::select::{Selection, entry_owner};
use crate::tables::TableKind;
use crate::unit::{ElementId, Kind, Target, Unit};

/// Finds entries that must not be taken; the ones that cannot be left out either are errors.
pub(crate) fn check(
    patched: &Unit<'_>,
    lookup: &Lookup<'_>,
    selection: &Selection,
    report_tracepoints: bool,
    warnings: &mut Vec<String>,
) -> (BTreeSet<ElementId>, Vec<(Option<ElementId>, DiffError)>) {
    let mut dropped = BTreeSet::new();
    let mut errors = Vec::new();
    let mut found = Vec::new();
    for &entry in &selection.order {
        let Kind::Entry(kind @ (TableKind::Jumps | TableKind::StaticCalls)) = patched.element(entry).kind
        else {
            continue;
        };
        if let Some((key, object)) = module_key(patched, lookup, selection, entry) {
            found.push((entry, kind, key, object));
        }
    }
    let writers = writers(patched, found.iter().map(|&(entry, ..)| entry));
    for ((entry, kind, key, object), by) in found.into_iter().zip(writers) {
        let owner = entry_owner(patched, entry);
        let function = owner.map(|f| patched.name(f)).unwrap_or_default();
        let by = by.map(Box::new);
        let tracepoint = match kind {
            TableKind::Jumps => key.starts_with(b"__tracepoint_"),
            _ => key.starts_with(b"__SCK__tp_func_"),
        };
        // The code of a tracepoint asks for its probes once more behind the branch. So nothing is lost by a branch that stays
        // as the compiler made it: a jump there where objtool would have made it a no-op (HAVE_JUMP_LABEL_HACK), which
        // traces all the same; a no-op on older kernels, which does not.
        if tracepoint && !(report_tracepoints && kind == TableKind::Jumps) {
            dropped.insert(entry);
            warnings.push(format!(
                "{function}: the static key of tracepoint {key} of module {object} does not switch the patched function{}",
                used_by(by.as_deref())
            ));
        } else {
            let (key, object) = (key.to_string(), object);
            let error = match kind {
                TableKind::Jumps => DiffError::JumpLabel { function, key, object, by },
                _ => DiffError::StaticCall { function, key, object, by },
            };
            errors.push((owner, error));
        }
    }
    (dropped, errors)
}

/// The inline functions that the sites of entries were written in.
fn writers(patched: &Unit<'_>, entries: impl Iterator<Item = ElementId>) -> Vec<Option<Inlined>> {
    let site = |entry: ElementId| {
        let (function, distance) = patched.references(entry).iter().find_map(|r| match r.target {
            Target::Element(id, distance) if patched.element(id).kind == Kind::Function => {
                Some((id, distance))
            }
            _ => None,
        })?;
        let element = patched.element(function);
        Some(Site {
            section: element.section,
            offset: element.origin.checked_add_signed(distance)?,
            branch: patched.element(entry).kind == Kind::Entry(TableKind::Jumps),
        })
    };
    let sites: Vec<Option<Site>> = entries.map(site).collect();
    let known: Vec<Site> = sites.iter().flatten().copied().collect();
    let mut found = inlined::writers_of(&patched.object, &known).into_iter();
    let relative = |mut writer: Inlined| {
        for line in writer.declared.iter_mut().chain(&mut writer.called) {
            let tree = usize::try_from(patched.source_tree_of(line.file.as_bytes())).unwrap_or(0);
            line.file = line.file.split_off(tree);
        }
        writer
    };
    sites.iter().map(|site| site.and_then(|_| found.next().flatten()).map(relative)).collect()
}

/// The key of an entry and its module, if it is in one and not in the patch.
fn module_key(
    patched: &Unit<'_>,
    lookup: &Lookup<'_>,
    selection: &Selection,
    entry: ElementId,
) -> Option<(BString, String)> {
    // The key is the last field.
    let reference = patched.references(entry).last()?;
    let name: &BStr = match reference.target {
        Target::External(symbol, _) => patched.object.symbol(symbol).name.as_ref(),
        Target::Element(target, _) => {
            let main = patched.element(target).main?;
            if patched.element(target).kind != Kind::Datum || selection.has(target) {
                return None;
            }
            patched.object.symbol(main).name.as_ref()
        }
        _ => return None,
    };
    match reference.target {
        Target::Element(target, _) if patched.is_local(target) => {
            (lookup.object() != VMLINUX).then(|| (name.into(), lookup.object().to_owned()))
        }
        _ => match lookup.external(name) {
            Ok(Resolution::Klp { object, .. }) if object != VMLINUX => Some((name.into(), object)),
            _ => None,
        },
    }
}
