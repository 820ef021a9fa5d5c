//! Decides what goes into the extract, and why.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bstr::ByteSlice;
use kpatch_elf::arch::{Flow, Machine};
use kpatch_elf::section_flags;

use crate::Options;
use crate::compare::{Comparer, Difference};
use crate::correlate::Twins;
use crate::entry::has_entry;
use crate::lines::LineNumbers;
use crate::names::{self, Special};
use crate::tables::{self, Class};
use crate::unit::{ElementId, Kind, Reference, Target, Unit};

/// Status of an element of the patched version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Same,
    Changed,
    New,
}

/// Why an element is in. Ids are of the patched version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Changed,
    ContainsChanged(ElementId),
    NewGlobal,
    Callback,
    PartOf(ElementId),
    ReferencedBy(ElementId),
    About(ElementId),
}

/// The status of every element of the patched version.
pub(crate) struct Statuses {
    pub(crate) of: Vec<Change>,
    pub(crate) differences: BTreeMap<ElementId, Difference>,
    /// Functions that differ in line numbers only.
    pub(crate) line_only: Vec<ElementId>,
    /// Constants that changed together with all their users, and whether they hold function pointers.
    pub(crate) tables: Vec<(ElementId, bool)>,
    /// Changed functions that cannot be replaced and are called by replaced functions only.
    pub(crate) copied: BTreeSet<ElementId>,
    /// Changed functions that cannot be replaced and that nothing calls any more: only start code did.
    pub(crate) unreached: Vec<ElementId>,
    /// For functions that are replaced because a part of them changed.
    pub(crate) contains: BTreeMap<ElementId, ElementId>,
    /// For each function that the compiler split off, the one it belongs to.
    pub(crate) parent: BTreeMap<ElementId, ElementId>,
}

impl Statuses {
    /// Marks an element as changed; the places are offsets in its versions.
    fn change(&mut self, id: ElementId, what: String, original: i64, patched: i64) {
        self.of[id.index()] = Change::Changed;
        self.differences.insert(id, Difference { what, original, patched });
    }
}

/// Compares all pairs. Constants of a function that differ from their originals become unrelated to them. `start_is_over`
/// says that freed code has run, which that of a module has not before the module is loaded.
pub(crate) fn statuses(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &mut Twins,
    lines: &LineNumbers<'_>,
    options: &Options<'_>,
    start_is_over: bool,
) -> Statuses {
    separate_constants(original, patched, twins);
    let mut statuses = compare_all(original, patched, twins, lines);
    replace_tables(original, patched, twins, &mut statuses);
    for id in patched.ids().filter(|id| patched.element(*id).kind == Kind::Function) {
        if statuses.of[id.index()] == Change::Same && options.also_changed.contains(&patched.name(id)) {
            statuses.change(id, "it changed in the form that the kernel has".to_owned(), 0, 0);
        }
    }
    let copied: BTreeSet<&str> = options.copied.iter().map(String::as_str).collect();
    call_copies(patched, &copied, &mut statuses);
    // A part without entry of its own is replaced with its function.
    for (&part, &parent) in &statuses.parent {
        let changed = statuses.of[part.index()] != Change::Same;
        if changed && statuses.of[parent.index()] == Change::Same {
            statuses.of[parent.index()] = Change::Changed;
            statuses.contains.insert(parent, part);
        }
    }
    replace_callers(original, patched, twins, &copied, start_is_over, &mut statuses);
    statuses
}

/// Whatever calls a copy of another unit's function is replaced. What only knows the function's address keeps the
/// original's: a pointer may outlive the patch.
fn call_copies(patched: &Unit<'_>, copied: &BTreeSet<&str>, statuses: &mut Statuses) {
    if copied.is_empty() {
        return;
    }
    for id in patched.ids().filter(|id| patched.element(*id).kind == Kind::Function) {
        let called = patched.references(id).iter().filter(|r| r.flow != Flow::Next).find_map(|reference| {
            let name = match reference.target {
                Target::External(symbol, _) => patched.object.symbol(symbol).name.as_ref(),
                // A definition that the copied one overrides, such as a default of the kernel that a machine has its own for.
                Target::Element(target, _) => patched.weak(target)?.1,
                _ => return None,
            };
            let name = name.to_str().ok()?;
            copied.contains(name).then_some((name, reference.offset))
        });
        let Some((name, offset)) = called.filter(|_| !patched.is_freed(patched.element(id).section)) else {
            continue;
        };
        if statuses.of[id.index()] == Change::Same {
            let place = offset as i64 - patched.element(id).origin as i64;
            statuses.change(id, format!("calls {name}, which has no patchable entry"), place, place);
        }
    }
}

/// A function without patchable entry (`notrace`, `inline`, in `.noinstr.text`) cannot be replaced, but all its
/// callers can: they call the new one. Those of a static function are in this unit; the driver says of which global
/// ones it takes care of those in others.
fn replace_callers(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    copied: &BTreeSet<&str>,
    start_is_over: bool,
    statuses: &mut Statuses,
) {
    let mut queue: Vec<ElementId> = patched
        .ids()
        .filter(|id| {
            patched.element(*id).kind == Kind::Function && statuses.of[id.index()] == Change::Changed
        })
        .collect();
    while let Some(id) = queue.pop() {
        let Some(twin) = twins.of_patched[id.index()] else { continue };
        let is_local = original.is_local(twin) && patched.is_local(id);
        let is_known =
            is_local || patched.symbol_name(id).is_some_and(|n| n.to_str().is_ok_and(|n| copied.contains(n)));
        let without = !has_entry(original, twin)
            && !statuses.parent.contains_key(&id)
            && is_known
            && !patched.is_freed(patched.element(id).section);
        if !without || statuses.copied.contains(&id) {
            continue;
        }
        let of = |unit, id| callers(unit, id, start_is_over);
        let (Some((before, _)), Some((after, over))) = (of(original, twin), of(patched, id)) else {
            continue;
        };
        if is_local && before.is_empty() && after.is_empty() && over {
            for part in statuses.parent.iter().filter(|(_, parent)| **parent == id).map(|(part, _)| *part) {
                statuses.of[part.index()] = Change::Same;
            }
            statuses.of[id.index()] = Change::Same;
            statuses.unreached.push(id);
            continue;
        }
        // Who called the original and does not call it any more has changed anyway.
        let known = |caller: &ElementId| twins.of_original[caller.index()].is_some();
        if is_local && after.is_empty() || !before.iter().all(known) {
            continue;
        }
        statuses.copied.insert(id);
        for caller in after {
            if statuses.of[caller.index()] == Change::Same {
                statuses.of[caller.index()] = Change::Changed;
                statuses.contains.insert(caller, id);
                queue.push(caller);
            }
        }
    }
    // Callers that are themselves parts are replaced with their function.
    for (&part, &parent) in &statuses.parent {
        if statuses.of[part.index()] == Change::Changed && statuses.of[parent.index()] == Change::Same {
            statuses.of[parent.index()] = Change::Changed;
            statuses.contains.insert(parent, part);
        }
    }
}

/// The functions that call one, and whether start code does that is over; nothing if anything but calls refers to it.
fn callers(unit: &Unit<'_>, id: ElementId, start_is_over: bool) -> Option<(BTreeSet<ElementId>, bool)> {
    let mut out = BTreeSet::new();
    let mut over = false;
    for &(by, index) in &unit.referrers[id.index()] {
        let reference = &unit.references[index as usize];
        let inside = matches!(reference.target, Target::Element(_, delta) if delta != 0);
        match unit.element(by).kind {
            Kind::Entry(_) => {}
            _ if by == id || inside => {}
            Kind::Function if reference.flow == Flow::Next => return None,
            Kind::Function if !unit.is_freed(unit.element(by).section) => {
                out.insert(by);
            }
            Kind::Function if start_is_over => over = true,
            _ => return None,
        }
    }
    Some((out, over))
}

fn compare_all(original: &Unit<'_>, patched: &Unit<'_>, twins: &Twins, lines: &LineNumbers<'_>) -> Statuses {
    let comparer = Comparer::new(original, patched, twins);
    let mut statuses = Statuses {
        of: vec![Change::New; patched.elements.len()],
        differences: BTreeMap::new(),
        line_only: Vec::new(),
        tables: Vec::new(),
        copied: BTreeSet::new(),
        unreached: Vec::new(),
        contains: BTreeMap::new(),
        parent: parents(patched),
    };
    for id in patched.ids() {
        let Some(twin) = twins.of_patched[id.index()] else { continue };
        let mut change = Change::Same;
        let moved = original.is_freed(original.element(twin).section)
            != patched.is_freed(patched.element(id).section);
        if let Some(difference) = comparer.difference(twin, id) {
            if patched.element(id).kind == Kind::Function
                && lines.only_lines_differ(original, patched, &comparer, twin, id)
            {
                statuses.line_only.push(id);
            } else {
                change = Change::Changed;
                statuses.differences.insert(id, difference);
            }
        } else if moved {
            change = Change::Changed;
            let what = format!("section {} became {}", original.section(twin).name, patched.section(id).name);
            statuses.differences.insert(id, Difference { what, original: 0, patched: 0 });
        }
        statuses.of[id.index()] = change;
    }
    statuses
}

/// A constant of this unit that only functions of this unit use may change: they are replaced and use the new
/// one. Constants that others know of keep their contents.
fn replace_tables(original: &Unit<'_>, patched: &Unit<'_>, twins: &mut Twins, statuses: &mut Statuses) {
    let changed: Vec<ElementId> = patched
        .ids()
        .filter(|id| statuses.of[id.index()] == Change::Changed && patched.element(*id).kind == Kind::Datum)
        .collect();
    for id in changed {
        // Somebody's table may have dealt with it already.
        if statuses.of[id.index()] != Change::Changed {
            continue;
        }
        let mut tables = BTreeSet::new();
        let mut users = BTreeSet::new();
        if !users_of_table(original, patched, twins, id, &mut tables, &mut users) || users.is_empty() {
            continue;
        }
        for table in tables {
            if let Some(twin) = twins.of_patched[table.index()] {
                twins.separate(twin, table);
            }
            statuses.of[table.index()] = Change::New;
            statuses.differences.remove(&table);
            let pointers = patched.references(table).iter().any(
                |r| matches!(r.target, Target::Element(t, _) if patched.element(t).kind == Kind::Function),
            );
            statuses.tables.push((table, pointers));
        }
        for user in users {
            if statuses.of[user.index()] == Change::Same {
                let at = |unit: &Unit<'_>, function: ElementId, table: &str| {
                    let origin = unit.element(function).origin as i64;
                    unit.references(function)
                        .iter()
                        .find(|r| matches!(r.target, Target::Element(t, _) if unit.name(t) == table))
                        .map_or(0, |r| r.offset as i64 - origin)
                };
                let name = patched.name(id);
                let place = at(patched, user, &name);
                statuses.change(user, format!("uses constant {name}, which changed"), place, place);
            }
        }
    }
}

/// Collects the functions that use a constant, directly or through other constants, and these; false if
/// others use it, too.
fn users_of_table(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    id: ElementId,
    tables: &mut BTreeSet<ElementId>,
    users: &mut BTreeSet<ElementId>,
) -> bool {
    let mut queue = vec![id];
    while let Some(table) = queue.pop() {
        if !tables.insert(table) {
            continue;
        }
        let section = patched.section(table);
        let registered = patched.classes[patched.element(table).section.index()] != Class::Data;
        if !tables::is_constant(section)
            || registered
            || !patched.is_local(table)
            || patched.is_freed(patched.element(table).section)
        {
            return false;
        }
        for (by, _) in &patched.referrers[table.index()] {
            match patched.element(*by).kind {
                Kind::Function if !patched.is_freed(patched.element(*by).section) => {
                    users.insert(*by);
                }
                Kind::Datum => queue.push(*by),
                // Those who use it are listed themselves.
                Kind::Unnamed if patched.is_toc(*by) => {}
                _ => return false,
            }
        }
        // Whoever used the original and is the same today must be among them.
        let Some(twin) = twins.of_patched[table.index()] else { continue };
        for (by, _) in &original.referrers[twin.index()] {
            if original.is_freed(original.element(*by).section) {
                return false;
            }
        }
    }
    true
}

/// Constants inside functions (`static const` in a block) are the function's business: a different one is a
/// new one, not a changed datum.
fn separate_constants(original: &Unit<'_>, patched: &Unit<'_>, twins: &mut Twins) {
    let different: Vec<(ElementId, ElementId)> = {
        let comparer = Comparer::new(original, patched, twins);
        patched
            .ids()
            .filter_map(|id| Some((twins.of_patched[id.index()]?, id)))
            .filter(|&(twin, id)| {
                let numbered = |unit: &Unit<'_>, id| {
                    unit.symbol_name(id).is_some_and(names::is_numbered) && unit.is_local(id)
                };
                let read_only = |unit: &Unit<'_>, id| !unit.section(id).has(section_flags::WRITE);
                patched.element(id).kind == Kind::Datum
                    && numbered(original, twin)
                    && numbered(patched, id)
                    && read_only(original, twin)
                    && read_only(patched, id)
                    && comparer.own_difference(twin, id).is_some()
            })
            .collect()
    };
    for (twin, id) in different {
        twins.separate(twin, id);
    }
}

fn parents(unit: &Unit<'_>) -> BTreeMap<ElementId, ElementId> {
    let mut by_name: BTreeMap<&[u8], Vec<ElementId>> = BTreeMap::new();
    for id in unit.ids().filter(|id| unit.element(*id).kind == Kind::Function) {
        if let Some(name) = unit.symbol_name(id) {
            by_name.entry(name.as_bytes()).or_default().push(id);
        }
    }
    let mut out = BTreeMap::new();
    for id in unit.ids().filter(|id| unit.element(*id).kind == Kind::Function) {
        let Some(parent) = unit.symbol_name(id).and_then(names::cold_parent) else { continue };
        let candidates = by_name.get(parent.as_bytes()).map(Vec::as_slice).unwrap_or_default();
        let refers = |candidate: &ElementId| {
            unit.references(*candidate).iter().any(|r| matches!(r.target, Target::Element(t, _) if t == id))
        };
        let found = match candidates {
            [only] => Some(*only),
            several => several.iter().copied().find(refers),
        };
        if let Some(found) = found {
            out.insert(id, found);
        }
    }
    out
}

/// What is in the extract.
pub(crate) struct Selection {
    /// For each element of the patched version, why it is in.
    pub(crate) why: Vec<Option<Why>>,
    /// In the order of selection.
    pub(crate) order: Vec<ElementId>,
}

impl Selection {
    pub(crate) fn has(&self, id: ElementId) -> bool {
        self.why[id.index()].is_some()
    }
}

/// What to begin with.
pub(crate) struct Seeds {
    pub(crate) callbacks: Vec<ElementId>,
    pub(crate) ignored: BTreeSet<ElementId>,
    /// Entries of special sections that must not be taken.
    pub(crate) dropped: BTreeSet<ElementId>,
}

/// Takes changed functions, new global symbols and callbacks, and everything they need.
pub(crate) fn select(patched: &Unit<'_>, statuses: &Statuses, seeds: &Seeds) -> Selection {
    let mut selection = Selection { why: vec![None; patched.elements.len()], order: Vec::new() };
    let mut queue = VecDeque::new();
    let take = |selection: &mut Selection, queue: &mut VecDeque<ElementId>, id: ElementId, why: Why| {
        if selection.why[id.index()].is_none() && !seeds.dropped.contains(&id) {
            selection.why[id.index()] = Some(why);
            selection.order.push(id);
            queue.push_back(id);
        }
    };
    for id in patched.ids() {
        let element = patched.element(id);
        let init = || patched.is_freed(element.section);
        if seeds.ignored.contains(&id) || patched.classes[element.section.index()] == Class::Registration {
            continue;
        }
        match (element.kind, statuses.of[id.index()]) {
            (Kind::Function, Change::Changed) if !init() => {
                let why = match statuses.contains.get(&id) {
                    Some(part) => Why::ContainsChanged(*part),
                    None => Why::Changed,
                };
                take(&mut selection, &mut queue, id, why);
            }
            (Kind::Function | Kind::Datum, Change::New) if !patched.is_local(id) && !init() => {
                take(&mut selection, &mut queue, id, Why::NewGlobal);
            }
            _ => {}
        }
    }
    for &id in &seeds.callbacks {
        take(&mut selection, &mut queue, id, Why::Callback);
    }
    let mut parts: BTreeMap<ElementId, Vec<ElementId>> = BTreeMap::new();
    for (&part, &parent) in &statuses.parent {
        parts.entry(parent).or_default().push(part);
    }
    let after_objtool = patched.after_objtool();
    while let Some(id) = queue.pop_front() {
        let kind = patched.element(id).kind;
        for reference in patched.references(id) {
            let Target::Element(target, _) = reference.target else { continue };
            if seeds.ignored.contains(&target) || patched.is_empty_replacement(id, reference) {
                continue;
            }
            let needed = match patched.element(target).kind {
                Kind::Function | Kind::Datum => statuses.of[target.index()] == Change::New,
                Kind::Special(Special::Site | Special::Constant) | Kind::Unnamed | Kind::Detached => true,
                Kind::Entry(_) => false,
            };
            if needed {
                take(&mut selection, &mut queue, target, Why::ReferencedBy(id));
            }
        }
        // The cold part of a function jumps back into it: it must be this version's. One that does not may stay, unless
        // objtool is to see the code: a jump to another object would be a call at the end to it.
        if kind == Kind::Function {
            let jumps_back = |part: ElementId| {
                let back = |r: &Reference| matches!(r.target, Target::Element(to, _) if to == id);
                patched.references(part).iter().any(back)
            };
            for &part in parts.get(&id).map(Vec::as_slice).unwrap_or_default() {
                if after_objtool && statuses.of[part.index()] == Change::Same && !jumps_back(part) {
                    continue;
                }
                take(&mut selection, &mut queue, part, Why::PartOf(id));
            }
            if let Some(&parent) = statuses.parent.get(&id) {
                take(&mut selection, &mut queue, parent, Why::ContainsChanged(id));
            }
        }
        if kind == Kind::Function || is_auxiliary(patched, id) {
            for &entry in &patched.entries_of[id.index()] {
                let own = entry_owner(patched, entry) == Some(id);
                if own && !is_padding_list(patched, entry) {
                    take(&mut selection, &mut queue, entry, Why::About(id));
                }
            }
        }
    }
    selection
}

/// x86 lists its call sites in `__mcount_loc`; `__patchable_function_entries` there says only where padding
/// is, and nobody reads it.
fn is_padding_list(unit: &Unit<'_>, entry: ElementId) -> bool {
    unit.object.machine == Machine::X86_64
        && unit.section(entry).name.as_bytes() == b"__patchable_function_entries"
}

/// Code without a name that entries of special sections may be about.
fn is_auxiliary(unit: &Unit<'_>, id: ElementId) -> bool {
    unit.element(id).kind == Kind::Detached
}

/// The code that an entry of a special section is about: what its first field points to.
pub(crate) fn entry_owner(unit: &Unit<'_>, entry: ElementId) -> Option<ElementId> {
    unit.references(entry).iter().find_map(|r| match r.target {
        Target::Element(target, _)
            if matches!(unit.element(target).kind, Kind::Function | Kind::Detached) =>
        {
            Some(target)
        }
        _ => None,
    })
}

/// The function behind an element of code: itself, or for code without a name the function that refers to
/// it.
pub(crate) fn function_of(unit: &Unit<'_>, id: ElementId) -> Option<ElementId> {
    match unit.element(id).kind {
        Kind::Function => Some(id),
        Kind::Entry(_) => entry_owner(unit, id),
        _ => unit.referrers[id.index()].iter().find_map(|(by, _)| {
            (*by != id && unit.element(*by).kind != Kind::Detached)
                .then(|| function_of_once(unit, *by))
                .flatten()
        }),
    }
}

fn function_of_once(unit: &Unit<'_>, id: ElementId) -> Option<ElementId> {
    match unit.element(id).kind {
        Kind::Function => Some(id),
        Kind::Entry(_) => entry_owner(unit, id).filter(|o| unit.element(*o).kind == Kind::Function),
        _ => None,
    }
}
