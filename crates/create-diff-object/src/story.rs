//! Fills the report.

use std::collections::BTreeMap;

use bstr::ByteSlice;
use kpatch_elf::extract::{Manifest, Reference};
use kpatch_elf::{Object, Section};

use crate::author::Author;
use crate::compare::{Difference, describe};
use crate::correlate::Twins;
use crate::names;
use crate::report::{ElementReport, FirstDifference, Reason, Report, SharedName, Status};
use crate::select::{Change, Selection, Statuses, Why};
use crate::source::SourceLine;
use crate::source::SourceMap;
use crate::unit::{ElementId, Kind, Unit};

/// Tells what was found in the patched version and why what is taken is taken.
#[expect(clippy::too_many_arguments, reason = "the report is about the results of all phases")]
pub(crate) fn tell(
    report: &mut Report,
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twins: &Twins,
    statuses: &Statuses,
    selection: &Selection,
    author: &Author,
    scenery: &Scenery<'_>,
) {
    report.callbacks = author.callbacks.iter().map(|c| patched.name(c.1)).collect();
    report.line_only = statuses.line_only.iter().map(|id| patched.name(*id)).collect();
    for id in patched.ids() {
        let element = patched.element(id);
        let status = match statuses.of[id.index()] {
            Change::Same => Status::Same,
            Change::Changed => Status::Changed,
            Change::New => Status::New,
        };
        let kind = match element.kind {
            Kind::Function => "function",
            Kind::Datum => "datum",
            Kind::Special(_) => "special",
            Kind::Unnamed => "unnamed",
            Kind::Detached => "detached-code",
            Kind::Entry(_) => "entry",
        };
        let named = matches!(element.kind, Kind::Function | Kind::Datum);
        let part = statuses.parent.contains_key(&id);
        if element.kind == Kind::Function && selection.has(id) && !part {
            match status {
                Status::Changed if statuses.copied.contains(&id) => report.warnings.push(format!(
                    "{} has no patchable entry; its callers are replaced with it",
                    patched.name(id)
                )),
                Status::Changed => report.changed.push(patched.name(id)),
                Status::New => report.new.push(patched.name(id)),
                Status::Same => {}
            }
        }
        let is_static_local = selection.has(id)
            && element.kind == Kind::Datum
            && patched.is_local(id)
            && patched.symbol_name(id).is_some_and(names::is_numbered);
        if is_static_local {
            let by = match selection.why[id.index()] {
                Some(Why::ReferencedBy(by)) => patched.name(by),
                _ => String::new(),
            };
            report.warnings.push(format!(
                "unable to correlate static local variable {} used by {by}, assuming variable is new",
                patched.name(id)
            ));
        }
        let interesting = selection.has(id) || named && status == Status::Changed;
        if !interesting {
            continue;
        }
        let name = patched.name(id);
        let old = twins.of_patched[id.index()].map(|twin| original.name(twin));
        let difference = statuses
            .differences
            .get(&id)
            .zip(twins.of_patched[id.index()])
            .map(|(d, twin)| first_difference(original, patched, twin, id, d, scenery));
        report.elements.push(ElementReport {
            section: names::text(patched.section(id).name.as_ref()),
            kind,
            status,
            original: old.filter(|old| *old != name),
            included: selection.why[id.index()].map(|why| reason(patched, why)),
            difference,
            name,
        });
    }
}

fn reason(unit: &Unit<'_>, why: Why) -> Reason {
    match why {
        Why::Changed => Reason::Changed,
        Why::ContainsChanged(part) => Reason::ContainsChanged { part: unit.name(part) },
        Why::NewGlobal => Reason::NewGlobal,
        Why::Callback => Reason::Callback,
        Why::PartOf(function) => Reason::PartOf { function: unit.name(function) },
        Why::ReferencedBy(by) => Reason::ReferencedBy { element: unit.name(by) },
        Why::About(function) => Reason::About { function: unit.name(function) },
    }
}

fn first_difference(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    twin: ElementId,
    id: ElementId,
    difference: &Difference,
    scenery: &Scenery<'_>,
) -> FirstDifference {
    let (before, after) = scenery.sources;
    let old = show(original, before, scenery.instructions, twin, difference.original);
    let new = show(patched, after, scenery.instructions, id, difference.patched);
    FirstDifference {
        what: difference.what.clone(),
        original_offset: old.offset,
        patched_offset: new.offset,
        original_instruction: old.instruction,
        patched_instruction: new.instruction,
        original_source: old.source,
        patched_source: new.source,
    }
}

/// How places are shown.
pub(crate) struct Scenery<'a> {
    /// Source lines of the original and the patched version.
    pub(crate) sources: (&'a SourceMap<'a>, &'a SourceMap<'a>),
    /// Instructions are written as text.
    pub(crate) instructions: bool,
}

/// A place in a function.
#[derive(Default)]
struct Shown {
    /// Distance of its instruction from the function's start.
    offset: u64,
    instruction: Option<String>,
    source: Option<SourceLine>,
}

/// The instruction at a place of a function, and its source.
fn show(unit: &Unit<'_>, lines: &SourceMap<'_>, instructions: bool, id: ElementId, at: i64) -> Shown {
    let element = unit.element(id);
    let offset = u64::try_from(at).unwrap_or(0);
    if element.kind != Kind::Function {
        return Shown { offset, ..Shown::default() };
    }
    let place = u64::try_from(element.origin as i64 + at).unwrap_or(element.origin);
    let source = lines.at(element.section, place);
    let arch = unit.object.machine.arch();
    let bytes = unit.bytes(id);
    let inside = place.saturating_sub(element.start);
    let found = arch.holding(bytes, 0, inside);
    let text = found.filter(|_| instructions).and_then(|i| {
        let from = i.offset + element.start;
        let text = arch.disassemble(bytes.get(i.offset as usize..)?, from.wrapping_sub(element.origin))?;
        // What a relocation will put there says more than the zeros that are there.
        let range = from..from + u64::from(i.length);
        let reference = unit.references(id).iter().find(|r| range.contains(&r.offset) && r.kind != 0);
        Some(match reference {
            Some(reference) => format!("{text} ({})", describe(unit, unit.through(reference.target))),
            None => text,
        })
    });
    let start = found.and_then(|i| (i.offset + element.start).checked_sub(element.origin));
    Shown { offset: start.unwrap_or(offset), instruction: text, source }
}

/// Adds what the extract consists of.
pub(crate) fn sum_up(report: &mut Report, object: &Object<'_>, manifest: &Manifest) {
    for section in object.sections.iter().filter(|s| s.is_alloc()) {
        *report.sections.entry(names::text(section.name.as_ref())).or_default() += section.size();
    }
    let references: BTreeMap<&str, &Reference> =
        manifest.references.iter().map(|r| (r.symbol.as_str(), r)).collect();
    let meanings: Vec<Option<&Reference>> = object
        .symbols
        .iter()
        .map(|symbol| {
            let name = symbol.is_undefined().then(|| symbol.name.to_str_lossy())?;
            references.get(name.as_ref()).copied()
        })
        .collect();
    for (symbol, meaning) in object.symbols.iter().zip(&meanings) {
        let section = symbol.section().map(|s| object.section(s));
        if symbol.is_function() && section.is_some() {
            report.functions.push(names::text(symbol.name.as_ref()));
        } else if symbol.is_undefined() && meaning.is_none() {
            report.undefined.push(names::text(symbol.name.as_ref()));
        }
        if section.is_some_and(Section::is_text) && !symbol.is_section() {
            report.text_symbols += 1;
        }
    }
    report.functions.sort();
    report.undefined.sort();
    // There are many of them, and formatting looks at their bytes one by one.
    let named =
        |object: &str, name: &str, sympos: u32| [object, ".", name, ",", &sympos.to_string()].concat();
    report.patched = manifest.functions.iter().map(|f| named(&manifest.object, &f.name, f.sympos)).collect();
    report.patched.sort();
    let full = |r: &Reference| named(&r.object, &r.name, r.sympos);
    report.klp_symbols = manifest.references.iter().map(full).collect();
    report.klp_symbols.sort();
    report.klp_symbols.dedup();
    let patched = SharedName(manifest.object.as_str().into());
    let symbols: Vec<Option<SharedName>> =
        meanings.iter().map(|meaning| meaning.map(|reference| SharedName(full(reference).into()))).collect();
    for section in object.sections.iter().filter(|s| s.is_alloc()) {
        let name = SharedName(section.name.to_str_lossy().into());
        for relocation in &section.relocations {
            let Some(symbol) = relocation.symbol.and_then(|symbol| symbols[symbol.index()].clone()) else {
                continue;
            };
            report.klp_relocations.push((
                name.clone(),
                relocation.offset,
                relocation.kind,
                relocation.addend,
                patched.clone(),
                symbol,
            ));
        }
    }
    report.klp_relocations.sort();
}
