//! Refuses what a live patch cannot do.

use std::collections::BTreeMap;

use bstr::BStr;

use kpatch_elf::arch::Machine;
use kpatch_elf::klp::VMLINUX;

use crate::author::Author;
use crate::compare::referenced;
use crate::correlate::Twins;
use crate::entry::has_entry;
use crate::error::DiffError;
use crate::names;
use crate::report::SkipReason;
use crate::select::{Change, Selection, Statuses, entry_owner};
use crate::skip::Left;
use crate::tables::{self, Class, TableKind};
use crate::unit::{ElementId, Kind, Target, Unit};

/// What came of the examination.
pub(crate) struct Verdict {
    /// What stands in the way, by element of the patched version.
    pub(crate) errors: Vec<(Option<ElementId>, DiffError)>,
    /// Changes that are left out.
    pub(crate) left_out: Vec<Left>,
}

/// Finds what a live patch cannot do: it stands in the way, or is left out.
///
/// Exit code of a module is left out always: `__exit` functions are `notrace`, so that nothing can be done about
/// them, and they run only when the module goes.
#[expect(clippy::too_many_arguments, reason = "it judges the results of all phases")]
pub(crate) fn verify(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    statuses: &Statuses,
    selection: &Selection,
    author: &Author,
    (object, skip_init): (&str, bool),
    warnings: &mut Vec<String>,
) -> Verdict {
    let mut errors = Vec::new();
    let mut left_out = Vec::new();
    for id in patched.ids() {
        let element = patched.element(id);
        let status = statuses.of[id.index()];
        if status == Change::Same || !matches!(element.kind, Kind::Function | Kind::Datum) {
            continue;
        }
        let section: &BStr = patched.section(id).name.as_ref();
        let name = || patched.name(id);
        let ignored = author.ignores(section) || author.ignored_functions.contains(&id);
        if tables::is_export(section) {
            if status == Change::New && element.kind == Kind::Datum {
                warnings.push(format!("{} has no effect outside the patch", patched.name(id)));
            }
            continue;
        }
        let never_run = object == VMLINUX && tables::is_exit(section);
        if ignored || never_run {
            continue;
        }
        let registration = patched.classes[element.section.index()] == Class::Registration;
        let init = patched.is_freed(element.section);
        let late = match element.kind {
            Kind::Function => init || registration,
            Kind::Datum => registration || init && status == Change::Changed,
            _ => false,
        };
        if late && !selection.has(id) {
            if tables::is_exit(section) {
                left_out.push((id, SkipReason::Exit));
                continue;
            }
            if skip_init {
                left_out.push((id, SkipReason::Start));
                continue;
            }
        }
        let error = match (element.kind, status) {
            (Kind::Function | Kind::Datum, _) if registration => {
                Some(DiffError::Registration { name: name(), section: section.to_string() })
            }
            (Kind::Function, _) | (Kind::Datum, Change::Changed) if init => {
                Some(DiffError::Init { name: name(), section: section.to_string() })
            }
            (Kind::Datum, Change::Changed) => Some(DiffError::ChangedData {
                name: name(),
                section: section.to_string(),
                what: match twins.of_patched[id.index()] {
                    Some(twin) if original.element(twin).size() != element.size() => "size",
                    _ => "contents",
                },
            }),
            (Kind::Function, Change::Changed) if selection.has(id) => no_entry(original, twins, statuses, id),
            (Kind::Datum, Change::New) if init && selection.has(id) => {
                Some(DiffError::Init { name: name(), section: section.to_string() })
            }
            _ => None,
        };
        errors.extend(error.map(|e| (Some(id), e)));
        if status == Change::New
            && selection.has(id)
            && let Some(&candidates) = twins.ambiguous.get(&id)
        {
            let error = DiffError::Ambiguous { name: name(), section: section.to_string(), candidates };
            errors.push((Some(id), error));
        }
    }
    if patched.object.machine == Machine::Ppc64le {
        for id in patched.ids().filter(|id| selection.has(*id)) {
            errors.extend(sibling_calls(patched, statuses, selection, id).map(|e| (Some(id), e)));
            warnings.extend(calls_without_nop(patched, selection, id));
        }
    }
    for id in patched.ids() {
        match patched.element(id).kind {
            Kind::Entry(TableKind::Runtime) if selection.has(id) => {
                let function = entry_owner(patched, id).map(|f| patched.name(f)).unwrap_or_default();
                let constant = patched.section(id).name.to_string();
                errors.push((entry_owner(patched, id), DiffError::RuntimeConstant { function, constant }));
            }
            // Data that nothing refers to and that knows of functions is a table of a kind that this tool
            // has not met.
            Kind::Unnamed
                if patched.referrers[id.index()].is_empty()
                    && !selection.has(id)
                    && patched.classes[patched.element(id).section.index()] == Class::Data =>
            {
                let section: &BStr = patched.section(id).name.as_ref();
                if names::is_sanitizer_data(section) || patched.is_freed(patched.element(id).section) {
                    continue;
                }
                let function = referenced(patched, id)
                    .into_iter()
                    .find(|f| patched.element(*f).kind == Kind::Function && selection.has(*f));
                if let Some(function) = function {
                    errors.push((
                        Some(function),
                        DiffError::UnknownTable {
                            section: section.to_string(),
                            function: patched.name(function),
                        },
                    ));
                }
            }
            _ => {}
        }
    }
    errors.extend(aliases(original, patched, twins));
    Verdict { errors, left_out }
}

/// Global names whose holders are not each other's versions: an alias that became a function of its own, or the
/// reverse. Code elsewhere goes on using the old holder, whatever becomes of the new one.
fn aliases(original: &Unit<'_>, patched: &Unit<'_>, twins: &Twins) -> Vec<(Option<ElementId>, DiffError)> {
    let held = |unit: &Unit<'_>, id| matches!(unit.element(id).kind, Kind::Function | Kind::Datum);
    let shared =
        |unit: &Unit<'_>| unit.ids().any(|id| held(unit, id) && unit.global_names(id).nth(1).is_some());
    if !shared(original) && !shared(patched) {
        return Vec::new();
    }
    let mut holders: BTreeMap<&BStr, ElementId> = BTreeMap::new();
    for id in original.ids().filter(|id| held(original, *id)) {
        holders.extend(original.global_names(id).map(|name| (name, id)));
    }
    let mut errors = Vec::new();
    for id in patched.ids().filter(|id| held(patched, *id)) {
        for name in patched.global_names(id) {
            let Some(&holder) = holders.get(name) else { continue };
            if twins.of_patched[id.index()] == Some(holder) {
                continue;
            }
            let other = |unit: &Unit<'_>, id| {
                unit.global_names(id).find(|other| *other != name).map(ToString::to_string)
            };
            // Both hold where aliases were dealt out anew; to name one is enough.
            let (what, other) = match (other(original, holder), other(patched, id)) {
                (Some(other), _) => ("is no longer an alias of", other),
                (None, Some(other)) => ("has become an alias of", other),
                (None, None) => continue,
            };
            errors.push((Some(id), DiffError::Alias { name: name.to_string(), what, other }));
        }
    }
    errors
}

/// A jump to a function of the kernel proper leaves the module's table of contents in the register, and
/// nothing behind it restores the caller's.
fn sibling_calls<'a>(
    unit: &'a Unit<'_>,
    statuses: &'a Statuses,
    selection: &'a Selection,
    id: ElementId,
) -> impl Iterator<Item = DiffError> + 'a {
    const REL24: u32 = 10;
    let element = unit.element(id);
    unit.references(id).iter().filter_map(move |reference| {
        let bytes = unit.section(id).bytes();
        let word = unit.object.endian.u32(bytes, reference.offset as usize)?;
        let jump = reference.kind == REL24 && word & 0xfc00_0001 == 0x4800_0000;
        let outside = match reference.target {
            Target::Element(target, _) => target != id && !selection.has(target),
            Target::External(..) => true,
            _ => false,
        };
        let taken = element.kind == Kind::Function && statuses.of[id.index()] != Change::Same;
        (jump && outside && taken).then(|| DiffError::SiblingCall {
            function: unit.name(id),
            target: crate::compare::describe(unit, reference.target),
        })
    })
}

/// Calls of functions that stay in the kernel proper, with nothing behind them that could restore the table of contents:
/// the compiler took them for neighbours. The module loader refuses such a module (`restore_r2` in powerpc's
/// module_64.c), so that a warning is enough.
fn calls_without_nop<'a>(
    unit: &'a Unit<'_>,
    selection: &'a Selection,
    id: ElementId,
) -> impl Iterator<Item = String> + 'a {
    const REL24: u32 = 10;
    const NOP: u32 = 0x6000_0000;
    /// `ld r2,24(r1)`
    const RESTORE: u32 = 0xe841_0018;
    unit.references(id).iter().filter_map(move |reference| {
        let bytes = unit.section(id).bytes();
        let word = |at: u64| unit.object.endian.u32(bytes, usize::try_from(at).ok()?);
        let call = reference.kind == REL24 && word(reference.offset)? & 0xfc00_0003 == 0x4800_0001;
        let outside = matches!(reference.target, Target::Element(to, _) if to != id && !selection.has(to));
        let behind = word(reference.offset.saturating_add(4));
        (call && outside && !matches!(behind, Some(NOP | RESTORE))).then(|| {
            format!(
                "{} calls {} without a nop behind the call: the module will not load; build with the plugin that \
                 makes all calls global, or make the function that is called global",
                unit.name(id),
                crate::compare::describe(unit, reference.target)
            )
        })
    })
}

/// A function without the call that ftrace redirects cannot be replaced.
fn no_entry(original: &Unit<'_>, twins: &Twins, statuses: &Statuses, id: ElementId) -> Option<DiffError> {
    let twin = twins.of_patched[id.index()]?;
    if statuses.parent.contains_key(&id) || statuses.copied.contains(&id) || has_entry(original, twin) {
        return None;
    }
    Some(DiffError::NoEntry { function: original.name(twin) })
}
