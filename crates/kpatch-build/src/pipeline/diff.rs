//! Object pairs to extracts.

use std::path::{Path, PathBuf};

use create_diff_object::{Diagnostic, EntrySizes, Failure, Input, Outcome, Report};
use rayon::prelude::*;

use super::compile::{self, Context, Job, Objects, Variant};
use super::plan::Unit;
use super::shipped::{ShippedBytes, Tables};
use crate::cache::{Cache, KeyBuilder};
use crate::error::Error;
use crate::events::{Change, Event, Events, Phase};

/// What changed in one unit.
pub struct Extract {
    /// The unit's object file.
    pub unit: PathBuf,
    /// The object, see [`kpatch_elf::extract`].
    pub bytes: Vec<u8>,
    /// What was found and why.
    pub report: Report,
}

/// What comparing needs to know about the kernel.
pub struct Shipped<'a> {
    /// Symbol tables.
    pub tables: &'a Tables<'a>,
    /// Files and exports.
    pub files: &'a ShippedBytes,
    /// Sizes of special sections' entries.
    pub sizes: &'a EntrySizes,
}

/// Compares all units. An error where nothing changed at all.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    objects: &Objects,
    shipped: &Shipped<'_>,
    events: Events<'_>,
) -> Result<Vec<Extract>, Vec<Error>> {
    let results: Vec<Result<Option<Extract>, Vec<Error>>> =
        units.par_iter().map(|unit| one(context, unit, objects, shipped, events)).collect();
    let mut extracts = Vec::new();
    let mut errors = Vec::new();
    for (unit, result) in units.iter().zip(results) {
        match result {
            Ok(Some(extract)) => {
                tell(&extract, events);
                extracts.push(extract);
            }
            Ok(None) => events(Event::Unchanged { unit: unit.object.clone() }),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() && extracts.is_empty() {
        errors.push(
            Error::new(Phase::Diff, "no-change", "no functional changes found")
                .cause(
                    "every unit compiles to the same code with and without the patches, line numbers aside",
                )
                .remedy("check that the patch changes code that this kernel's configuration compiles"),
        );
    }
    if errors.is_empty() { Ok(extracts) } else { Err(errors) }
}

fn one(
    context: &Context<'_>,
    unit: &Unit,
    objects: &Objects,
    shipped: &Shipped<'_>,
    events: Events<'_>,
) -> Result<Option<Extract>, Vec<Error>> {
    match compare(context, unit, objects, shipped)? {
        Ok(outcome) => Ok(extract(unit, outcome)),
        // The code that the kernel runs was compared; what is extracted reads the constants as variables.
        Err(failure) if failure.needs_runtime_const_shim() => {
            let jobs = [Variant::Original, Variant::Patched].map(|variant| Job {
                unit,
                variant,
                plain_runtime_constants: true,
            });
            let objects = compile::run(context, &jobs, events)?;
            match compare(context, unit, &objects, shipped)? {
                Ok(outcome) => Ok(extract(unit, outcome)),
                Err(failure) => Err(errors(context, unit, &failure)),
            }
        }
        Err(failure) => Err(errors(context, unit, &failure)),
    }
}

/// Compares one pair; the outer error is one of reading files.
fn compare(
    context: &Context<'_>,
    unit: &Unit,
    objects: &Objects,
    shipped: &Shipped<'_>,
) -> Result<Result<Outcome, Failure>, Vec<Error>> {
    let missing = |what: &str| {
        vec![Error::new(Phase::Diff, "missing", format!("{what} is missing")).file(&unit.source)]
    };
    let read = |variant| {
        let path =
            objects.get(&(unit.object.clone(), variant)).ok_or_else(|| missing("a compiled object"))?;
        fs_err::read(path).map_err(|error| vec![Error::io(Phase::Diff, "read", path)(error)])
    };
    let (original, patched) = (read(Variant::Original)?, read(Variant::Patched)?);
    let symbols = shipped.tables.get(&unit.owner).ok_or_else(|| missing("the shipped symbol table"))?;
    let trees = [context.overlay.root(), context.source, context.headers]
        .map(|directory| format!("{}/", directory.display()));
    Ok(create_diff_object::diff(&Input {
        original: &original,
        patched: &patched,
        unit: &unit.object.to_string_lossy(),
        object: &unit.owner,
        shipped: symbols,
        exports: &shipped.files.exports,
        sizes: shipped.sizes,
        source_trees: &trees.each_ref().map(String::as_str),
        options: create_diff_object::Options::default(),
    }))
}

fn extract(unit: &Unit, outcome: Outcome) -> Option<Extract> {
    match outcome {
        Outcome::Unchanged(_) => None,
        Outcome::Extract(extract) => {
            Some(Extract { unit: unit.object.clone(), bytes: extract.bytes, report: extract.report })
        }
    }
}

fn tell(extract: &Extract, events: Events<'_>) {
    let changed =
        |change, name: &String| Event::Changed { unit: extract.unit.clone(), change, name: name.clone() };
    for name in &extract.report.changed {
        events(changed(Change::ChangedFunction, name));
    }
    for name in &extract.report.new {
        events(changed(Change::NewFunction, name));
    }
    for warning in &extract.report.warnings {
        events(Event::warning(format!("{}: {warning}", extract.unit.display())));
    }
}

fn errors(context: &Context<'_>, unit: &Unit, failure: &Failure) -> Vec<Error> {
    failure.errors.iter().map(|diagnostic| error(context, unit, diagnostic)).collect()
}

fn error(context: &Context<'_>, unit: &Unit, diagnostic: &Diagnostic) -> Error {
    let mut error = Error::new(Phase::Diff, diagnostic.error.code(), &diagnostic.error)
        .file(&unit.source)
        .remedy(diagnostic.error.remedy());
    if let Some(source) = &diagnostic.source {
        let file = context.overlay.to_source(Path::new(&source.file));
        error = error.file(file).line(source.line).text(context.overlay.source_of(file));
    }
    if let Some(element) = &diagnostic.element {
        error = error.function(element);
    }
    error
}

/// Sizes of special sections' entries, from the kernel's debug information; kept in the cache, since they
/// do not change.
pub fn entry_sizes(vmlinux: &[u8], identity: &str, cache: &Cache) -> Result<EntrySizes, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Phase::Diff, "entry-sizes", "the sizes of the kernel's tables cannot be found")
            .cause(error)
            .remedy("name the vmlinux with debug information with -v")
    };
    let key = KeyBuilder::new("entry-sizes").field("vmlinux", identity).finish();
    if let Some(sizes) = cache.get_value(key).map_err(|e| failed(&e))? {
        return Ok(sizes);
    }
    let sizes = EntrySizes::from_dwarf(vmlinux).map_err(|e| failed(&e))?;
    cache.put_value(key, &sizes).map_err(|e| failed(&e))?;
    Ok(sizes)
}
