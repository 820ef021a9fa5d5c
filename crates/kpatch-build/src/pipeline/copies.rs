//! Functions without patchable entry that other units call.
//!
//! ftrace cannot redirect such a function (`notrace`, or of a directory that is compiled without `-pg`, such as `lib/`).
//! Where all that can reach it is known and calls it, its callers are patched instead: their units are compiled, too, and
//! they call the copy of the function in the module. A caller without an entry of its own is such a function again.

mod callers;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::compile::{self, Objects};
use super::diff::{self, Choices, Differences, Refused, WithoutEntry};
use super::extract::Extract;
use super::job::Variant;
use super::plan;
use super::unit::{self, Kernel, Unit};
use super::{Compiler, prove};
use crate::error::Error;
use crate::events::{Event, phase};
use crate::phase::Phase;
use callers::Found;
use create_diff_object::Status;

/// Functions whose callers are looked for. With more, the change is one of half the kernel.
const MOST: usize = 64;

/// What is known about the kernel.
pub struct Known<'a> {
    /// Where units are.
    pub kernel: &'a Kernel<'a>,
    /// Symbols, files and sizes.
    pub shipped: &'a diff::Shipped<'a>,
}

/// Compares all units, to which those of callers are added where they are needed.
pub(super) fn run(
    compiler: &Compiler<'_>,
    known: &Known<'_>,
    units: &mut Vec<Unit>,
    objects: &mut Objects,
) -> Result<Differences, Vec<Error>> {
    let (options, events) = (compiler.options, compiler.events);
    let mut copied: Vec<String> = Vec::new();
    let mut expected: Vec<(Error, Found)> = Vec::new();
    loop {
        let choices = Choices { skip: &options.skip, copied: &copied };
        let found = phase(Phase::Diff, events, || {
            diff::run(compiler.context, units, objects, known.shipped, choices, events)
        });
        let refused = match found {
            Ok(differences) => {
                let left = left_alone(&expected, &differences.extracts);
                return if left.is_empty() { Ok(differences) } else { Err(left) };
            }
            Err(refused) => refused,
        };
        let Refused { errors, without_entry, told } = refused;
        let is_new = |without: &WithoutEntry| !copied.contains(&without.function);
        let may_go_on = copied.len() + without_entry.len() <= MOST && without_entry.iter().all(is_new);
        let found = if may_go_on { sources(known, &without_entry, &errors) } else { Err(errors.clone()) };
        let found = match found {
            Ok(found) => found,
            Err(errors) => {
                told.into_iter().for_each(events);
                return Err(errors);
            }
        };
        let sources: BTreeSet<PathBuf> = found.iter().flat_map(|found| found.sources.clone()).collect();
        let more: Vec<PathBuf> =
            sources.into_iter().filter(|s| units.iter().all(|unit| unit.source != *s)).collect();
        let new = join(compiler, known, &more, objects)?;
        let all = || units.iter().chain(&new);
        let lost = errors.iter().zip(&found).filter_map(|(error, found)| {
            let mut of_owner = all().filter(|unit| unit.owners().any(|owner| owner == found.owner));
            let lost = callers::lost(found, &mut of_owner, objects)?;
            Some(explained(error.clone(), &format!("the source of {lost} is not found")))
        });
        let lost: Vec<Error> = lost.collect();
        if !lost.is_empty() {
            return Err(lost);
        }
        expected.extend(errors.into_iter().zip(found));
        copied.extend(without_entry.into_iter().map(|without| without.function));
        events(Event::note(format!(
            "{} cannot be replaced, so their callers are, in {}",
            copied.join(", "),
            match more.as_slice() {
                [] => "the units of the patch".to_owned(),
                files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
            }
        )));
        units.extend(new);
        units.sort_by(|a, b| a.source.cmp(&b.source));
    }
}

/// The sources of all that calls each function. The errors are these where there are none, or not all callers are
/// known; then they say why.
fn sources(
    known: &Known<'_>,
    functions: &[WithoutEntry],
    errors: &[Error],
) -> Result<Vec<Found>, Vec<Error>> {
    if functions.is_empty() {
        return Err(errors.to_vec());
    }
    let found = callers::find(known, functions);
    if found.iter().all(Result::is_ok) {
        return Ok(found.into_iter().flatten().collect());
    }
    let why = errors.iter().cloned().zip(found).map(|(error, found)| match found {
        Err(reason) if !reason.is_empty() => explained(error, &reason),
        _ => error,
    });
    Err(why.collect())
}

/// Errors for functions that one of their callers would go on calling in its old form.
fn left_alone(expected: &[(Error, Found)], extracts: &[Extract]) -> Vec<Error> {
    let plain = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let mut replaced: BTreeSet<(&str, String)> = BTreeSet::new();
    for extract in extracts {
        let changed = extract.report.elements.iter().filter(|element| element.status == Status::Changed);
        replaced.extend(changed.map(|element| (extract.owner.as_str(), plain(&element.name))));
    }
    let left = expected.iter().filter_map(|(error, Found { owner, callers, .. })| {
        let is_replaced = |name: &String| replaced.contains(&(owner.as_str(), plain(name)));
        let caller = callers.iter().find(|names| !names.iter().any(is_replaced))?.first()?;
        Some(explained(error.clone(), &format!("{caller} would go on calling the old one")))
    });
    left.collect()
}

/// An error with one more cause.
fn explained(error: Error, reason: &str) -> Error {
    let cause = error.cause.clone().map(|cause| format!("{cause}; ")).unwrap_or_default();
    error.cause(format!("{cause}{reason}"))
}

/// Compiles and proves the units of callers.
fn join(
    compiler: &Compiler<'_>,
    known: &Known<'_>,
    sources: &[PathBuf],
    objects: &mut Objects,
) -> Result<Vec<Unit>, Vec<Error>> {
    let events = compiler.events;
    let mut new = Vec::new();
    let mut errors = Vec::new();
    for (source, located) in unit::locate(known.kernel, sources).map_err(super::one)? {
        let unit = located.map_err(|reason| unit::unpatchable(&source, &reason));
        match unit.and_then(|unit| unit::planned(&source, &unit, true)) {
            Ok(unit) => new.push(unit),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    plan::confirm(compiler.options, &new, events)?;
    phase(Phase::Compile, events, || {
        compiler.pairs(&new, objects)?;
        objects.extend(compile::run(compiler.context, &compile::jobs(&new, &[Variant::Shipped]), events)?);
        Ok::<_, Vec<Error>>(())
    })?;
    phase(Phase::Prove, events, || {
        let lenient = compiler.options.skip_compiler_check;
        prove::run(&new, objects, &known.shipped.tables.files(), lenient, events)
    })?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caller_must_be_replaced() {
        let report = |functions: &[(&str, Status)]| {
            let element = |(name, status): &(&str, Status)| create_diff_object::ElementReport {
                name: (*name).to_owned(),
                section: ".text".to_owned(),
                kind: "function",
                status: *status,
                original: None,
                included: None,
                difference: None,
            };
            let elements = functions.iter().map(element).collect();
            create_diff_object::Report { elements, ..create_diff_object::Report::default() }
        };
        let extract = |owner: &str, functions: &[(&str, Status)]| Extract {
            unit: "a.o".into(),
            owner: owner.to_owned(),
            bytes: Vec::new(),
            report: report(functions),
        };
        let callers = [&["f"][..], &["alias", "g.cold"]]
            .map(|names| names.iter().map(|&name| name.to_owned()).collect())
            .into();
        let found = Found { owner: "m".to_owned(), sources: BTreeSet::new(), callers };
        let expected = [(Error::new(Phase::Diff, "no-entry", "old cause").cause("known"), found)];
        let both = [("f", Status::Changed), ("g", Status::Changed)];
        assert!(left_alone(&expected, &[extract("m", &both)]).is_empty());
        assert!(left_alone(&expected, &[extract("m", &both[..1]), extract("m", &both[1..])]).is_empty());
        for extracts in [
            vec![extract("vmlinux", &both)],
            vec![extract("m", &both[..1]), extract("vmlinux", &both)],
            vec![extract("m", &[("f", Status::Changed), ("g", Status::Same)])],
        ] {
            let left = left_alone(&expected, &extracts);
            assert_eq!(left.len(), 1);
            assert!(left[0].cause.as_deref().is_some_and(|c| c.ends_with("would go on calling the old one")));
        }
    }
}
