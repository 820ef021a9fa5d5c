//! Units that read a changed file and still compile to the very same code: they need no proof and no comparison.
//!
//! Of a header with hundreds of readers mostly a few use what changed. This looks at bytes only; whatever differs,
//! the differ judges.

use kpatch_elf::Object;
use rayon::prelude::*;

use super::compile::Objects;
use super::job::Variant;
use super::unit::Unit;
use crate::events::{Event, Events};
use crate::loaded::same_code;

/// Units by whether their code changes.
#[derive(Debug, Default)]
pub struct Narrowed {
    /// To be proven and compared.
    pub kept: Vec<Unit>,
    /// Untouched, with two objects that say the same to the machine.
    pub unchanged: Vec<Unit>,
}

/// Leaves out the untouched units whose two objects say the same to the machine.
pub fn run(units: Vec<Unit>, objects: &Objects, events: Events<'_>) -> Narrowed {
    let keep: Vec<bool> = units.par_iter().map(|unit| !unit.indirect || differs(unit, objects)).collect();
    let mut narrowed = Narrowed::default();
    for (unit, keep) in units.into_iter().zip(keep) {
        if keep {
            narrowed.kept.push(unit);
        } else {
            events(Event::Unchanged { unit: unit.object.clone() });
            narrowed.unchanged.push(unit);
        }
    }
    narrowed
}

/// True also where a file cannot be read, so that later phases say why.
fn differs(unit: &Unit, objects: &Objects) -> bool {
    let read = |variant| fs_err::read(objects.get(&(unit.object.clone(), variant))?).ok();
    let (Some(original), Some(patched)) = (read(Variant::Original), read(Variant::Patched)) else {
        return true;
    };
    match (Object::read(&original), Object::read(&patched)) {
        (Ok(original), Ok(patched)) => !same_code(&original, &patched),
        _ => true,
    }
}
