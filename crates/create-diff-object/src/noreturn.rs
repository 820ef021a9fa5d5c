//! Functions that never return. objtool has to know which calls end a path, and sees in an extract only
//! names of what it calls.

use std::collections::{BTreeMap, BTreeSet};

use kpatch_elf::arch::Flow;

use crate::select::Selection;
use crate::unit::{ElementId, Kind, Target, Unit};

/// The functions in the extract or called from there out of which nothing leads: no return, no jump to where nothing in the code tells,
/// no jump to a function that returns. `parents` tells to which function each split-off part belongs.
pub(crate) fn never_return(
    unit: &Unit<'_>,
    selection: &Selection,
    parents: &BTreeMap<ElementId, ElementId>,
) -> BTreeSet<ElementId> {
    let whole = |id: ElementId| parents.get(&id).copied().unwrap_or(id);
    let mut returning = BTreeSet::new();
    // For each function, who jumps to it and returns if it does.
    let mut jumpers: BTreeMap<ElementId, BTreeSet<ElementId>> = BTreeMap::new();
    let functions = concerned(unit, selection, parents);
    for &id in &functions {
        let mut leaves = leaves(unit, id);
        for reference in unit.references(id).iter().filter(|r| r.flow == Flow::Jump) {
            match reference.target {
                Target::Element(target, _) if unit.element(target).kind == Kind::Function => {
                    jumpers.entry(whole(target)).or_default().insert(whole(id));
                }
                _ => leaves = true,
            }
        }
        if leaves {
            returning.insert(whole(id));
        }
    }
    let mut queue: Vec<ElementId> = returning.iter().copied().collect();
    while let Some(id) = queue.pop() {
        for &by in jumpers.get(&id).into_iter().flatten() {
            if returning.insert(by) {
                queue.push(by);
            }
        }
    }
    functions.into_iter().filter(|id| whole(*id) == *id && !returning.contains(id)).collect()
}

/// The functions in the extract, those they refer to, and whatever either jumps to, with all parts.
fn concerned(
    unit: &Unit<'_>,
    selection: &Selection,
    parents: &BTreeMap<ElementId, ElementId>,
) -> BTreeSet<ElementId> {
    let mut parts: BTreeMap<ElementId, Vec<ElementId>> = BTreeMap::new();
    for (&part, &parent) in parents {
        parts.entry(parent).or_default().push(part);
    }
    let function = |target| match target {
        Target::Element(id, _) if unit.element(id).kind == Kind::Function => Some(id),
        _ => None,
    };
    let taken = selection.order.iter().copied().filter(|id| unit.element(*id).kind == Kind::Function);
    let mut queue: Vec<ElementId> = taken.collect();
    for index in 0..queue.len() {
        queue.extend(unit.references(queue[index]).iter().filter_map(|r| function(r.target)));
    }
    let mut out = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if out.insert(id) {
            let jumps = unit.references(id).iter().filter(|r| r.flow == Flow::Jump);
            queue.extend(jumps.filter_map(|r| function(r.target)));
            queue.extend(parents.get(&id));
            queue.extend(parts.get(&id).into_iter().flatten());
        }
    }
    out
}

fn leaves(unit: &Unit<'_>, id: ElementId) -> bool {
    let element = unit.element(id);
    let inside = element.origin - element.start;
    let end = unit.extent(id) - element.start;
    let bytes = unit.bytes(id);
    let code = bytes.get(inside as usize..end as usize).unwrap_or_default();
    let arch = unit.object.machine.arch();
    arch.instructions(code)
        .iter()
        .any(|i| code.get(i.offset as usize..).is_some_and(|instruction| arch.leaves(instruction)))
}
