//! Where code takes the address of a function: for messages about functions that cannot be called through a
//! pointer.

use kpatch_elf::arch::Flow;

use crate::names;
use crate::select::function_of;
use crate::sizes::EntrySizes;
use crate::source::SourceLine;
use crate::source::SourceMap;
use crate::unit::{Kind, Target, Unit};

/// A place that holds a function's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The function or datum that it is in; of a function that the compiler split, the whole.
    pub holder: String,
    /// The source line, for code in an object with line tables.
    pub source: Option<SourceLine>,
}

/// The places of an object where the address of a function is taken, in the order of the object; calls and jumps to
/// it are none. Empty as well for an object that cannot be read.
pub fn pointers_to(object: &[u8], sizes: &EntrySizes, function: &str) -> Vec<Pointer> {
    let Ok(unit) = Unit::load(object, sizes, &[]) else { return Vec::new() };
    let lines = SourceMap::of(&unit.object);
    let mut found = Vec::new();
    for id in unit.ids().filter(|&id| !matches!(unit.element(id).kind, Kind::Entry(_))) {
        for reference in unit.references(id).iter().filter(|reference| reference.flow == Flow::Next) {
            let named = match reference.target {
                Target::External(symbol, 0) => unit.object.symbol(symbol).name.as_ref() == function,
                Target::Element(target, 0) => unit.names(target).any(|name| name == function),
                _ => false,
            };
            if named {
                let holder = unit.name(function_of(&unit, id).unwrap_or(id));
                let holder = match names::cold_parent(holder.as_str().into()) {
                    Some(whole) => whole.to_string(),
                    None => holder,
                };
                let source = lines.at(unit.element(id).section, reference.offset);
                found.push(Pointer { holder, source });
            }
        }
    }
    found
}
