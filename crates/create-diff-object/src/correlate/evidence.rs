//! What tells elements of a group apart: what they contain, who refers to them and where.
//!
//! All of it is the same for the same element whatever numbers, sections and positions the compiler gave it.

use std::collections::{BTreeMap, BTreeSet};

use bstr::BString;

use crate::names;
use crate::unit::{ElementId, Kind, Target, Unit};

/// The source-level functions that refer to an element, sorted.
pub(super) fn roots(unit: &Unit<'_>, id: ElementId) -> BTreeSet<BString> {
    let mut out = BTreeSet::new();
    for (by, _) in &unit.referrers[id.index()] {
        match unit.element(*by).kind {
            Kind::Function | Kind::Datum => {
                if let Some(name) = unit.symbol_name(*by) {
                    out.insert(names::root(name).into());
                }
            }
            _ => {}
        }
    }
    out
}

/// How each of some elements is used: for each function or datum with a name that refers to it, its name and
/// how.
pub(super) type Uses = BTreeMap<ElementId, BTreeSet<Vec<u8>>>;

/// What to note of a use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// What the referrer refers to before and after.
    Surroundings,
    /// One of both; nothing where the element is the referrer's first or last.
    Before,
    After,
    /// Which of how many of the members it refers to first.
    Order,
}

/// Stands between what a referrer refers to before and what after.
const BETWEEN: u8 = 1;

/// Notes how members are used.
pub(super) fn uses(
    unit: &Unit<'_>,
    twin: &[Option<ElementId>],
    first: bool,
    members: &[ElementId],
    note: Note,
) -> Uses {
    let mut uses: Uses = members.iter().map(|id| (*id, BTreeSet::new())).collect();
    let referrers: BTreeSet<ElementId> = members
        .iter()
        .flat_map(|id| &unit.referrers[id.index()])
        .map(|(by, _)| *by)
        .filter(|by| unit.element(*by).main.is_some() && !uses.contains_key(by))
        .collect();
    for by in referrers {
        // A pair goes by the original's number: its name alone may be that of many (`__compound_literal.7`).
        let name: BString = match twin[by.index()] {
            Some(other) => format!("={}", if first { by.0 } else { other.0 }).into(),
            None => unit.symbol_name(by).map(names::base).unwrap_or_default(),
        };
        let mut order: Vec<ElementId> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut around: BTreeMap<ElementId, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut before = Vec::new();
        let mut open: Vec<(ElementId, Vec<u8>)> = Vec::new();
        for reference in unit.references(by) {
            match unit.through(reference.target) {
                Target::Element(target, _) if uses.contains_key(&target) => {
                    if seen.insert(target) {
                        order.push(target);
                    }
                    open.push((target, before.clone()));
                }
                other => {
                    let name = description(unit, other);
                    if name.is_empty() {
                        continue;
                    }
                    for (target, mut text) in open.drain(..) {
                        text.push(BETWEEN);
                        text.extend_from_slice(&name);
                        around.entry(target).or_default().insert(text);
                    }
                    before = name.to_vec();
                }
            }
        }
        for (target, mut text) in open {
            text.push(BETWEEN);
            around.entry(target).or_default().insert(text);
        }
        if matches!(note, Note::Before | Note::After) {
            for (target, parts) in around {
                for part in parts {
                    let mut halves = part.splitn(2, |&b| b == BETWEEN);
                    let half = if note == Note::Before { halves.next() } else { halves.nth(1) };
                    if let Some(half) = half.filter(|half| !half.is_empty()) {
                        uses.entry(target).or_default().insert([&name[..], &[0], half].concat());
                    }
                }
            }
            continue;
        }
        let count = order.len() as u32;
        for (place, target) in order.into_iter().enumerate() {
            let mut text = name.to_vec();
            match note {
                Note::Order => {
                    text.push(0);
                    text.extend_from_slice(&(place as u32).to_le_bytes());
                    text.extend_from_slice(&count.to_le_bytes());
                }
                Note::Surroundings => {
                    for part in around.remove(&target).unwrap_or_default() {
                        text.push(0);
                        text.extend_from_slice(&part);
                    }
                }
                Note::Before | Note::After => {}
            }
            uses.entry(target).or_default().insert(text);
        }
    }
    uses
}

/// What a reference leads to, without anything that the compiler numbered; empty for what has no name.
fn description(unit: &Unit<'_>, target: Target) -> BString {
    match target {
        Target::Element(id, _) => unit.symbol_name(id).map(names::base).unwrap_or_default(),
        Target::String(section, start, _) => unit.string(section, start, 0).unwrap_or_default().into(),
        Target::External(symbol, _) => unit.object.display_name(symbol).into(),
        Target::Constant(..) | Target::Number(_) => BString::default(),
    }
}

/// Bytes and references of an element, in a form that is equal for equal elements of both versions.
pub(super) fn content(
    unit: &Unit<'_>,
    twin: &[Option<ElementId>],
    first: bool,
    id: ElementId,
    out: &mut Vec<u8>,
) {
    let arch = unit.object.machine.arch();
    let element = unit.element(id);
    let extent = unit.extent(id);
    out.extend_from_slice(&(extent - element.start).to_le_bytes());
    let bytes = unit.bytes(id);
    out.extend_from_slice(bytes.get(..(extent - element.start) as usize).unwrap_or(bytes));
    for reference in unit.references(id) {
        out.extend_from_slice(&(reference.offset - element.start).to_le_bytes());
        out.extend_from_slice(&arch.plain(reference.kind).to_le_bytes());
        match unit.through(reference.target) {
            Target::Element(target, delta) => {
                // A pair goes by the original's number.
                if let Some(other) = twin[target.index()] {
                    out.push(b'=');
                    let number = if first { target } else { other };
                    out.extend_from_slice(&number.0.to_le_bytes());
                } else {
                    out.push(b'~');
                    if let Some(name) = unit.symbol_name(target) {
                        out.extend_from_slice(&names::base(name));
                    }
                    out.push(0);
                }
                out.extend_from_slice(&delta.to_le_bytes());
            }
            Target::String(section, start, delta) => {
                out.push(b's');
                out.extend_from_slice(unit.string(section, start, 0).unwrap_or_default());
                out.extend_from_slice(&delta.to_le_bytes());
            }
            Target::Constant(section, start, delta) => {
                out.push(b'c');
                out.extend_from_slice(unit.constant(section, start).unwrap_or_default());
                out.extend_from_slice(&delta.to_le_bytes());
            }
            Target::External(symbol, delta) => {
                out.push(b'e');
                out.extend_from_slice(unit.object.display_name(symbol));
                out.push(0);
                out.extend_from_slice(&delta.to_le_bytes());
            }
            Target::Number(value) => {
                out.push(b'n');
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// Whether two data come in the same order as those of their name that have counterparts, wherever a function of both
/// versions refers to several.
pub(super) fn keeps_order(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twin: &[Option<ElementId>],
    one: ElementId,
    other: ElementId,
) -> bool {
    let base = |unit: &Unit<'_>, id| unit.symbol_name(id).map(names::base);
    let name = base(original, one);
    // Data of that name in the order in which a function refers to them first.
    let order = |unit: &Unit<'_>, by: ElementId| -> Vec<ElementId> {
        let mut seen = BTreeSet::new();
        let targets =
            unit.references(by).iter().filter_map(|reference| match unit.through(reference.target) {
                Target::Element(target, _) => Some(target),
                _ => None,
            });
        targets.filter(|id| base(unit, *id) == name && seen.insert(*id)).collect()
    };
    let referrers: BTreeSet<ElementId> = original.referrers[one.index()].iter().map(|(by, _)| *by).collect();
    referrers.into_iter().filter_map(|by| Some((by, twin[by.index()]?))).all(|(by, version)| {
        let before: Vec<ElementId> = order(original, by)
            .into_iter()
            .filter_map(|id| if id == one { Some(other) } else { twin[id.index()] })
            .collect();
        let after = order(patched, version);
        let place = |list: &[ElementId], id| list.iter().position(|known| *known == id);
        let (Some(was), Some(is)) = (place(&before, other), place(&after, other)) else { return true };
        before.iter().enumerate().all(|(at, id)| match place(&after, *id) {
            Some(now) => at.cmp(&was) == now.cmp(&is),
            None => true,
        })
    })
}
