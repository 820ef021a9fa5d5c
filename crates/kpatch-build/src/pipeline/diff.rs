//! Object pairs to extracts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bstr::ByteSlice;
use create_diff_object::{
    Diagnostic, DiffError, EntrySizes, Failure, Input, Outcome, Report, SkipReason, Skipped, SourceLine,
};
use rayon::prelude::*;

use super::compile::{self, Objects};
use super::extract::Extract;
use super::job::{Context, Job, Plain, Variant};
use super::places;
use super::shipped::{ShippedBytes, Tables};
use super::unit::{Unit, by_owner};
use crate::cache::{Cache, KeyBuilder};
use crate::callers;
use crate::error::Error;
use crate::events::{Change, Event, Events};
use crate::layout::Place;
use crate::options::Skip;
use crate::phase::Phase;

/// What comparing needs to know about the kernel.
pub struct Shipped<'a> {
    /// Symbol tables.
    pub tables: &'a Tables<'a>,
    /// Files and exports.
    pub files: &'a ShippedBytes,
    /// Sizes of special sections' entries.
    pub sizes: &'a EntrySizes,
}

/// What comparing all units found.
pub struct Differences {
    /// What changed, in the order of the units.
    pub extracts: Vec<Extract>,
    /// What is left out, for the module's record: `OBJECT:NAME SECTION`.
    pub skipped: Vec<String>,
}

/// What stands in the way.
#[derive(Debug, Default)]
pub struct Refused {
    /// Why there is no module.
    pub errors: Vec<Error>,
    /// Where nothing else stands in the way: the functions without patchable entry, in the order of `errors`.
    pub without_entry: Vec<WithoutEntry>,
    /// What is to be told of the other units.
    pub told: Vec<Event>,
}

/// A function without patchable entry that changed.
#[derive(Clone, Debug)]
pub struct WithoutEntry {
    /// Its name.
    pub function: String,
    /// The object that it is part of.
    pub owner: String,
}

/// How units are compared.
#[derive(Clone, Copy)]
pub struct Choices<'a> {
    /// Changes that the user wants left out.
    pub skip: &'a Skip,
    /// Functions without entry whose callers are replaced, see [`super::copies`].
    pub copied: &'a [String],
}

/// Compares all units, each for every object that it is part of. An error where nothing changed at all.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    objects: &Objects,
    shipped: &Shipped<'_>,
    choices: Choices<'_>,
    events: Events<'_>,
) -> Result<Differences, Refused> {
    let units = by_owner(units);
    // Those of one source may have to be compiled again, into one file.
    let results: Vec<Vec<Result<Outcome, Failed>>> = units
        .par_chunk_by(|a, b| a.object == b.object)
        .map(|same| same.iter().map(|unit| one(context, unit, objects, shipped, choices, events)).collect())
        .collect();
    let mut found = Differences { extracts: Vec::new(), skipped: Vec::new() };
    let mut values = BTreeSet::new();
    let mut told = Vec::new();
    let mut refused = Refused::default();
    for (unit, result) in units.iter().zip(results.into_iter().flatten()) {
        let report = match &result {
            Ok(Outcome::Unchanged(report)) => report,
            Ok(Outcome::Extract(extract)) => &extract.report,
            Err(failed) => {
                refused.errors.extend(failed.errors.iter().cloned());
                let without = failed
                    .without_entry
                    .iter()
                    .map(|function| WithoutEntry { function: function.clone(), owner: unit.owner.clone() });
                refused.without_entry.extend(without);
                continue;
            }
        };
        for skipped in &report.skipped {
            told.push(left_out(context, unit, skipped));
            found.skipped.push(format!("{}:{} {}", unit.owner, skipped.name, skipped.section));
            if skipped.reason == SkipReason::Value {
                values.insert(skipped.name.clone());
            }
        }
        match result {
            Ok(Outcome::Extract(extract)) => {
                tell(unit, &extract.report, &mut told);
                let (owner, unit) = (unit.owner.clone(), unit.object.clone());
                found.extracts.push(Extract { unit, owner, bytes: extract.bytes, report: extract.report });
            }
            Ok(Outcome::Unchanged(report)) => {
                warn(unit, &report, &mut told);
                told.push(Event::Unchanged { unit: unit.object.clone() });
            }
            Err(_) => {}
        }
    }
    if !refused.errors.is_empty() {
        if refused.errors.len() != refused.without_entry.len() {
            refused.without_entry.clear();
        }
        return Err(Refused { told, ..refused });
    }
    told.into_iter().for_each(events);
    for name in choices.skip.data.iter().filter(|name| !values.contains(*name)) {
        events(Event::warning(format!(
            "--skip-data-changes {name}: the patch changes no datum of that name"
        )));
    }
    if found.extracts.is_empty() {
        return Err(Refused { errors: vec![nothing(&found.skipped)], ..refused });
    }
    Ok(found)
}

fn nothing(skipped: &[String]) -> Error {
    if skipped.is_empty() {
        return Error::new(Phase::Diff, "no-change", "no functional changes found")
            .cause("every unit compiles to the same code with and without the patches, line numbers aside")
            .remedy("check that the patch changes code that this kernel's configuration compiles");
    }
    Error::new(Phase::Diff, "all-left-out", "nothing remains to be patched")
        .cause(format!("all that the patch changes is left out: {}", skipped.join(", ")))
        .remedy("boot the corrected kernel, or unload the module and load the corrected one")
}

/// What stands in the way of a change that is left out.
fn left_out(context: &Context<'_>, unit: &Unit, skipped: &Skipped) -> Event {
    let why = match skipped.reason {
        SkipReason::Start => "it has run, and its memory is freed",
        SkipReason::Exit => {
            "it runs only when the module is unloaded, and has no entry that livepatch could use"
        }
        SkipReason::Value => "the running kernel keeps the value that the datum has",
        SkipReason::Unreached => "only start code calls it, which has run",
    };
    let place = |source: &SourceLine| {
        format!("{}:{}", context.overlay.to_source(Path::new(&source.file)).display(), source.line)
    };
    Event::Skipped {
        unit: unit.object.clone(),
        name: skipped.name.clone(),
        section: skipped.section.clone(),
        place: skipped.source.as_ref().map(place),
        why,
    }
}

/// What stands in the way in one unit.
#[derive(Debug)]
struct Failed {
    errors: Vec<Error>,
    /// The functions that have no patchable entry, if that is all.
    without_entry: Vec<String>,
}

impl From<Vec<Error>> for Failed {
    fn from(errors: Vec<Error>) -> Failed {
        Failed { errors, without_entry: Vec::new() }
    }
}

/// Compares a unit. The code that the kernel runs is what is compared; where the new code cannot be used as it is
/// because the kernel would have to write into it, it is compiled anew to read variables.
fn one(
    context: &Context<'_>,
    unit: &Unit,
    objects: &Objects,
    shipped: &Shipped<'_>,
    choices: Choices<'_>,
    events: Events<'_>,
) -> Result<Outcome, Failed> {
    let options = create_diff_object::Options {
        skip_init: choices.skip.init,
        skip_data: &choices.skip.data,
        copied: choices.copied,
        report_tracepoints: true,
        ..create_diff_object::Options::default()
    };
    let failure = match compare(context, unit, objects, shipped, options)? {
        Ok(outcome) => return Ok(outcome),
        Err(failure) => failure,
    };
    let lasting: Vec<&Diagnostic> = failure.lasting().collect();
    if !lasting.is_empty() {
        let is_datum = |diagnostic: &&Diagnostic| diagnostic.source.is_none() && diagnostic.element.is_some();
        let data = if lasting.iter().any(is_datum) { places::data(context, unit) } else { BTreeMap::new() };
        let without_entry = lasting.iter().filter_map(|diagnostic| match &diagnostic.error {
            DiffError::NoEntry { function } => Some(function.clone()),
            _ => None,
        });
        let without_entry = without_entry.collect();
        let errors = lasting.into_iter().map(|d| error(context, unit, shipped, &data, d)).collect();
        return Err(Failed { errors, without_entry });
    }
    let overcome = failure.overcome_by();
    let plain = Plain { runtime_constants: overcome.runtime_constants, static_keys: overcome.static_keys };
    let jobs = [Variant::Original, Variant::Patched].map(|variant| Job { unit, variant, plain });
    let objects = compile::run(context, &jobs, events)?;
    // What changed in the code that the kernel runs is replaced in any case: the other form may have been inlined
    // differently.
    let options = create_diff_object::Options {
        also_changed: &failure.report.changed,
        report_tracepoints: false,
        ..options
    };
    match compare(context, unit, &objects, shipped, options)? {
        Ok(outcome) => {
            if plain.static_keys {
                events(Event::note(format!(
                    "{}: replaced functions read static keys as variables, since keys of a module are among them: {}",
                    unit.object.display(),
                    module_keys(&failure)
                )));
            }
            Ok(outcome)
        }
        Err(again) => {
            let errors = if plain.static_keys { &failure } else { &again };
            let explained = errors.errors.iter().map(|diagnostic| {
                let error = error(context, unit, shipped, &BTreeMap::new(), diagnostic);
                if lost_constant(&failure, &diagnostic.error) { explain_lost(error) } else { error }
            });
            Err(Failed::from(explained.collect::<Vec<_>>()))
        }
    }
}

/// Whether an error is about the variable behind a runtime constant. Only start code writes such a variable and nothing reads
/// it, as the code has the value in its instructions: gcc drops a static one, such as `__filp_cache` of 7.2.
fn lost_constant(failure: &Failure, error: &DiffError) -> bool {
    let DiffError::NotShipped { name: variable, .. } = error else { return false };
    failure.errors.iter().any(|diagnostic| match &diagnostic.error {
        DiffError::RuntimeConstant { constant, .. } => {
            let constants = ["runtime_ptr_", "runtime_shift_"];
            constants.iter().any(|prefix| constant.strip_prefix(prefix) == Some(variable))
        }
        _ => false,
    })
}

fn explain_lost(error: Error) -> Error {
    error
        .cause("it is a runtime constant: the kernel keeps its value in the instructions that use it only, and the compiler has dropped the variable")
        .remedy("leave the functions that use it as they are, and change their callers or what they call")
}

/// Which keys of modules are used where.
fn module_keys(failure: &Failure) -> String {
    let is_key = |diagnostic: &&Diagnostic| matches!(diagnostic.error, DiffError::JumpLabel { .. });
    let uses = failure.errors.iter().filter(is_key).map(|diagnostic| diagnostic.error.to_string());
    uses.collect::<Vec<_>>().join("; ")
}

/// Compares one pair; the outer error is one of reading files.
fn compare(
    context: &Context<'_>,
    unit: &Unit,
    objects: &Objects,
    shipped: &Shipped<'_>,
    options: create_diff_object::Options<'_>,
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
        options,
    }))
}

fn tell(unit: &Unit, report: &Report, told: &mut Vec<Event>) {
    let changed =
        |change, name: &String| Event::Changed { unit: unit.object.clone(), change, name: name.clone() };
    for name in &report.changed {
        told.push(changed(Change::ChangedFunction, name));
    }
    for name in &report.new {
        told.push(changed(Change::NewFunction, name));
    }
    for name in &report.line_only {
        told.push(changed(Change::LinesOnly, name));
    }
    warn(unit, report, told);
}

/// Tells what the differ remarked. Of a unit without a change it says what is left out, such as an export.
fn warn(unit: &Unit, report: &Report, told: &mut Vec<Event>) {
    for warning in &report.warnings {
        told.push(Event::warning(format!("{}: {warning}", unit.object.display())));
    }
}

fn error(
    context: &Context<'_>,
    unit: &Unit,
    shipped: &Shipped<'_>,
    data: &BTreeMap<String, Place>,
    diagnostic: &Diagnostic,
) -> Error {
    let mut error = Error::new(Phase::Diff, diagnostic.error.code(), &diagnostic.error)
        .file(&unit.source)
        .remedy(remedy(&diagnostic.error));
    if let Some(element) = &diagnostic.element {
        error = places::of_datum(error.function(element), context.overlay, data, element);
    }
    if let Some(source) = &diagnostic.source {
        error = places::at(error, context.overlay, source);
    }
    if let Some(cause) = cause(&diagnostic.error) {
        error = error.cause(cause);
    }
    if let DiffError::NoEntry { function } = &diagnostic.error
        && let Some((bytes, symbols)) = shipped.tables.bytes(&unit.owner).zip(shipped.tables.get(&unit.owner))
    {
        let exported = shipped.files.exports.get(function.as_bytes().as_bstr()).is_some();
        let callers = callers::callers(bytes, symbols, function);
        error = error.cause(callers::describe(&unit.owner, &callers, exported));
        if callers.is_empty() && !exported {
            error = error.remedy(
                "lead the pointer to a new function in a pre-patch callback, and back in a post-unpatch one",
            );
        }
    }
    error
}

/// Why a change cannot take effect, where the message does not say.
fn cause(error: &DiffError) -> Option<&'static str> {
    match error {
        DiffError::ChangedData { .. } => {
            Some("the datum is in use: the running kernel goes on with the old one")
        }
        DiffError::Init { .. } => Some("it is used while the kernel, or the module, starts, which is over"),
        _ => None,
    }
}

fn remedy(error: &DiffError) -> String {
    let remedy = error.remedy();
    match error {
        DiffError::Init { .. } | DiffError::Registration { .. } => {
            format!("{remedy}, or leave the change out with --skip-init-changes")
        }
        DiffError::ChangedData { name, .. } => {
            format!("{remedy}, or leave the change out with --skip-data-changes {name}")
        }
        _ => remedy.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_became_constants_are_told_from_others() {
        let diagnostic = |error| Diagnostic { error, element: None, section: None, source: None };
        let constant = DiffError::RuntimeConstant {
            function: "get".to_owned(),
            constant: "runtime_ptr___cache".to_owned(),
        };
        let failure = Failure { errors: vec![diagnostic(constant)], report: Report::default() };
        let missing =
            |name: &str| DiffError::NotShipped { name: name.to_owned(), object: "vmlinux".to_owned() };
        assert!(lost_constant(&failure, &missing("__cache")));
        assert!(!lost_constant(&failure, &missing("cache")));
        let other = Failure { errors: vec![diagnostic(missing("__cache"))], report: Report::default() };
        assert!(!lost_constant(&other, &missing("__cache")));
    }
}
