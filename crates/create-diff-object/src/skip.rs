//! Changes that cannot take effect in a running kernel, and that the user wants left out.
//!
//! What is left out keeps the original's state: freed code has run, a datum has its value. Code that is taken must
//! not rely on the new state.

use bstr::{BStr, ByteSlice};
use kpatch_elf::section_flags;

use crate::correlate::Twins;
use crate::error::DiffError;
use crate::report::SkipReason;
use crate::select::{Change, Selection, Statuses};
use crate::unit::{ElementId, Kind, Target, Unit};

/// Something that is left out, and why.
pub(crate) type Left = (ElementId, SkipReason);

/// The name that the source gave: the entry points of a module are aliases of functions with names of their own.
pub(crate) fn name(unit: &Unit<'_>, id: ElementId) -> String {
    let entry = |name: &BStr| matches!(name.as_bytes(), b"init_module" | b"cleanup_module");
    unit.names(id).find(|name| !entry(name)).map_or_else(|| unit.name(id), ToString::to_string)
}

/// Makes changed data of these names count as unchanged; returns them.
pub(crate) fn data(patched: &Unit<'_>, names: &[String], statuses: &mut Statuses) -> Vec<Left> {
    let mut left = Vec::new();
    for id in patched.ids() {
        let named = |name: &BStr| names.iter().any(|n| n.as_bytes() == name.as_bytes());
        if patched.element(id).kind == Kind::Datum
            && statuses.of[id.index()] == Change::Changed
            && patched.symbol_name(id).is_some_and(named)
        {
            statuses.of[id.index()] = Change::Same;
            left.push((id, SkipReason::Value));
        }
    }
    left
}

/// Errors for taken code that relies on what is left out: on a variable that only left out code sets, on a datum
/// of another size, or, where the original does not use the datum, on its value.
pub(crate) fn dependencies(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    statuses: &Statuses,
    selection: &Selection,
    left: &[Left],
) -> Vec<(Option<ElementId>, DiffError)> {
    let mut errors = Vec::new();
    let mut depends = |by: ElementId, datum: ElementId, on: ElementId| {
        let error = DiffError::DependsOnSkipped {
            by: patched.name(by),
            name: patched.name(datum),
            skipped: patched.name(on),
        };
        errors.push((Some(by), error));
    };
    for &(id, reason) in left {
        if reason == SkipReason::Value {
            let Some(twin) = twins.of_patched[id.index()] else { continue };
            let resized = original.element(twin).size() != patched.element(id).size();
            for by in users(patched, selection, id) {
                let used = twins.of_patched[by.index()].is_some_and(|old| refers(original, old, twin));
                if resized || !used {
                    depends(by, id, id);
                }
            }
        } else {
            for reference in patched.references(id) {
                let Target::Element(datum, _) = reference.target else { continue };
                let variable = patched.element(datum).kind == Kind::Datum
                    && statuses.of[datum.index()] == Change::New
                    && patched.section(datum).has(section_flags::WRITE);
                if variable && let Some(by) = users(patched, selection, datum).next() {
                    depends(by, datum, id);
                }
            }
        }
    }
    errors
}

/// The taken functions that refer to a datum.
fn users(
    unit: &Unit<'_>,
    selection: &Selection,
    datum: ElementId,
) -> impl Iterator<Item = ElementId> + use<> {
    let mut list: Vec<ElementId> = unit.referrers[datum.index()]
        .iter()
        .map(|(by, _)| *by)
        .filter(|by| unit.element(*by).kind == Kind::Function && selection.has(*by))
        .collect();
    list.sort_unstable();
    list.dedup();
    list.into_iter()
}

fn refers(unit: &Unit<'_>, by: ElementId, to: ElementId) -> bool {
    unit.references(by).iter().any(|r| matches!(r.target, Target::Element(target, _) if target == to))
}
