//! Places in the source for errors about compiled code.

use std::collections::BTreeMap;
use std::path::Path;

use create_diff_object::SourceLine;

use super::compile;
use super::debug_information::DebugInformation;
use super::extract::Extract;
use super::job::{Context, Job, Plain, Variant};
use super::overlay::Overlay;
use super::unit::Unit;
use crate::error::Error;
use crate::layout::{Place, Types};

/// Names a line of the patched source.
pub fn at(error: Error, overlay: &Overlay, source: &SourceLine) -> Error {
    line(error, overlay, Path::new(&source.file), source.line)
}

/// Names the place where a unit uses a symbol first, as far as it is known.
pub fn of_use(error: Error, overlay: &Overlay, extract: &Extract, symbol: &str) -> Error {
    let Some(used) = extract.report.uses.iter().find(|used| used.symbol == symbol) else { return error };
    let error = error.function(&used.by);
    match &used.source {
        Some(source) => at(error, overlay, source),
        None => error,
    }
}

/// Names the place where a datum is declared.
pub fn of_datum(error: Error, overlay: &Overlay, data: &BTreeMap<String, Place>, name: &str) -> Error {
    // A static variable of a function has a number behind its name.
    let plain = name.split('.').next().unwrap_or(name);
    match data.get(plain) {
        Some(place) => line(error, overlay, &place.file, place.line),
        None => error,
    }
}

/// Where the data of a unit are declared. Only debug information of types knows, which is compiled for that where there is
/// none yet; without it, messages lack the line.
pub fn data(context: &Context<'_>, unit: &Unit) -> BTreeMap<String, Place> {
    let full = Context { debug: DebugInformation::Full, ..*context };
    let job = Job { unit, variant: Variant::Patched, plain: Plain::default() };
    let objects = compile::run(&full, &[job], &|_| ()).unwrap_or_default();
    let bytes = objects.values().next().and_then(|path| fs_err::read(path).ok()).unwrap_or_default();
    Types::of(&bytes).map(|types| types.data).unwrap_or_default()
}

fn line(error: Error, overlay: &Overlay, file: &Path, line: impl TryInto<u32>) -> Error {
    let file = overlay.to_source(file);
    error.file(file).line(line).text(overlay.source_of(file))
}
