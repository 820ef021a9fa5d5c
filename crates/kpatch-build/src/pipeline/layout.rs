//! Structures whose layout the patches change, and who of the patched functions uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kpatch_elf::Object;
use rayon::prelude::*;

use super::compile::Objects;
use super::job::Variant;
use super::overlay::Overlay;
use super::unit::Unit;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::layout::{self, LayoutChange, Types};
use crate::loaded::changed_functions;
use crate::phase::Phase;

/// A changed structure, with all that use it.
struct Found<'u> {
    change: LayoutChange,
    /// The first unit that has it.
    unit: &'u Unit,
    users: Vec<String>,
}

/// Compares the structures of the units' two objects, which must have been compiled with full debug information.
/// A change is an error unless the user allows it for that structure, by its name with or without `struct`.
pub fn run(
    overlay: &Overlay,
    units: &[Unit],
    objects: &Objects,
    allowed: &[String],
    events: Events<'_>,
) -> Result<(), Vec<Error>> {
    let results: Vec<Result<Vec<Found<'_>>, Error>> =
        units.par_iter().filter(|unit| !unit.created).map(|unit| of_unit(unit, objects)).collect();
    let mut by_name: BTreeMap<String, Found<'_>> = BTreeMap::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(found) => {
                for found in found {
                    match by_name.get_mut(&found.change.name) {
                        Some(known) => known.users.extend(found.users),
                        None => {
                            by_name.insert(found.change.name.clone(), found);
                        }
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    for (name, found) in by_name {
        let bare = name.split_once(' ').map_or(name.as_str(), |(_, bare)| bare);
        if allowed.iter().any(|allowed| *allowed == name || allowed == bare) {
            events(Event::warning(format!("{name} changes its layout, as allowed: {}", found.change)));
        } else {
            errors.push(error(overlay, &name, bare, &found));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn of_unit<'u>(unit: &'u Unit, objects: &Objects) -> Result<Vec<Found<'u>>, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Phase::Diff, "debug-information", "the debug information of the unit is not understood")
            .file(&unit.source)
            .cause(error)
            .remedy("check that the kernel's own compiler is used")
    };
    let read = |variant| -> Result<Vec<u8>, Error> {
        let path = objects.get(&(unit.object.clone(), variant));
        let path = path.ok_or_else(|| failed(&"the unit was not compiled"))?;
        fs_err::read(path).map_err(Error::io(Phase::Diff, "read", path))
    };
    let (original, patched) = (read(Variant::Original)?, read(Variant::Patched)?);
    let old = Types::of(&original).map_err(|e| failed(&e))?;
    let new = Types::of(&patched).map_err(|e| failed(&e))?;
    let changes = layout::changes(&old, &new);
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let changed = match (Object::read(&original), Object::read(&patched)) {
        (Ok(original), Ok(patched)) => changed_functions(&original, &patched),
        // The differ says what is wrong.
        _ => BTreeSet::new(),
    };
    let found = changes.into_iter().map(|change| {
        let users = layout::users(&new, &change.name, &changed);
        let users = users.into_iter().map(|name| format!("{name} ({})", unit.source.display())).collect();
        Found { change, unit, users }
    });
    Ok(found.collect())
}

/// Functions that a message names; the others are counted.
const NAMED: usize = 6;

fn error(overlay: &Overlay, name: &str, bare: &str, found: &Found<'_>) -> Error {
    let mut cause = if found.change.only_adds() {
        "what is new is not set in objects that live already".to_owned()
    } else {
        "objects that live already, and code that is not patched, keep the old layout".to_owned()
    };
    if !found.users.is_empty() {
        let named: Vec<&str> = found.users.iter().take(NAMED).map(String::as_str).collect();
        let _ = write!(cause, "; used by {}", named.join(", "));
        if found.users.len() > NAMED {
            let _ = write!(cause, " and {} more", found.users.len() - NAMED);
        }
    }
    let error =
        Error::new(Phase::Diff, "layout-changed", format!("{name} changes its layout: {}", found.change));
    let error = match &found.change.place {
        Some(place) => {
            let file = overlay.to_source(&place.file);
            error.file(file).line(place.line).text(overlay.source_of(file))
        }
        None => error.file(&found.unit.source),
    };
    error.cause(cause).remedy(format!(
        "keep the new data elsewhere, as in a shadow variable (klp_shadow_alloc); or, where it does no harm, \
             --allow-layout-change {bare}"
    ))
}
