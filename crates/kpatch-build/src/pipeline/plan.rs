//! Touched files to units: what is compiled, by which command, into which object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kbuild::object_tree::ObjectTree;
use kbuild::units::{self, Unpatchable};
use kpatch_elf::klp::VMLINUX;

use super::new_units;
use super::resolve::tree_error;
use super::unit::{Kernel, Located, Unit, error, locate, planned, unpatchable};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::options::Options;
use crate::patch::{FileKind, Patched};
use crate::phase::Phase;

/// The units, and what the overlay needs to know.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Units that patches touch, and those that can see a touched file, in the order of their paths.
    pub units: Vec<Unit>,
    /// Files of the tree that can see a touched file.
    pub reaching: BTreeSet<PathBuf>,
}

/// Asks kbuild for the commands of all touched sources, so that it works while vmlinux is unpacked; what it
/// answers is kept in the object tree.
pub fn prepare(patched: &Patched, tree: &ObjectTree) -> Result<(), Error> {
    let sources: Vec<PathBuf> =
        patched.of_kind(FileKind::Source).filter(|path| exists(patched, path)).map(Path::to_owned).collect();
    tree.commands(&sources).map(|_| ()).map_err(|error| tree_error(Phase::Plan, error))
}

/// The units that the patches change or may change, in the order of their paths. All that is wrong is reported.
pub fn run(
    options: &Options,
    patched: &Patched,
    kernel: &Kernel<'_>,
    events: Events<'_>,
) -> Result<Plan, Vec<Error>> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
    let created = new_units::run(patched, kernel).unwrap_or_else(|more| {
        errors.extend(more);
        Vec::new()
    });
    let makefiles_understood = errors.is_empty();
    for source in patched.of_kind(FileKind::Source) {
        if exists(patched, source) {
            sources.push(source.to_owned());
        } else if patched.files.get(source).is_some_and(Option::is_none) {
            errors.push(
                error(
                    "deleted-unit",
                    "the patch deletes a source file, which the running kernel cannot forget",
                )
                .file(source)
                .remedy("leave the deletion out of the live patch; the old code stays unused"),
            );
        } else if makefiles_understood && !created.iter().any(|unit| unit.source == source) {
            errors.push(
                error("new-unit", "no makefile of the patch adds the new source file to an object")
                    .file(source)
                    .remedy("put the new functions into a file that the kernel has"),
            );
        }
    }
    let located = locate(kernel, &sources).map_err(|error| {
        errors.push(error);
        std::mem::take(&mut errors)
    })?;
    let mut units = created;
    let mut no_units = BTreeMap::new();
    for (source, located) in located {
        match located {
            Ok(unit) => match planned(&source, &unit, false) {
                Ok(unit) => units.push(unit),
                Err(error) => errors.push(error),
            },
            Err(reason @ Unpatchable::NotConfigured { .. }) => {
                no_units.insert(source, reason);
            }
            Err(reason) => errors.push(unpatchable(&source, &reason)),
        }
    }
    errors.extend(outside_targets(options, &units));
    let mut plan = Plan { units, reaching: BTreeSet::new() };
    if kernel.whole.is_some() && !errors.is_empty() {
        // Both trees are built only of what was understood: makefiles are code.
        return Err(errors);
    }
    match indirect(options, patched, kernel, &plan.units, &no_units, events) {
        Ok((found, reaching)) => {
            plan.reaching = reaching;
            for (source, located) in found {
                match located {
                    Ok(unit) => match planned(&source, &unit, true) {
                        Ok(unit) => plan.units.push(unit),
                        Err(error) => errors.push(error),
                    },
                    Err(
                        reason @ (Unpatchable::DoesNotCompile { .. } | Unpatchable::Contradiction { .. }),
                    ) => {
                        errors.push(unpatchable(&source, &reason));
                    }
                    // The graph names too many; this kernel does not have this one.
                    Err(_) => {}
                }
            }
        }
        Err(error) => errors.push(error),
    }
    errors.extend(read_by_nobody(patched, kernel, &plan.units, &no_units, events));
    if plan.units.is_empty() && errors.is_empty() {
        errors.push(
            error("no-units", "the patch changes no source file of the kernel")
                .remedy("a live patch needs a change to a .c file that the kernel is compiled from"),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    plan.units.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(plan)
}

/// Tells what will be compiled; units outside of `-t` are errors.
pub fn confirm(options: &Options, units: &[Unit], events: Events<'_>) -> Result<(), Vec<Error>> {
    let errors = outside_targets(options, units);
    if !errors.is_empty() {
        return Err(errors);
    }
    let owners = |unit: &Unit| unit.owners().collect::<Vec<_>>().join(", ");
    events(Event::Planned { units: units.iter().map(|u| (u.object.clone(), owners(u))).collect() });
    Ok(())
}

/// The units that no patch touches but that can see a touched file, and all files that can.
fn indirect(
    options: &Options,
    patched: &Patched,
    kernel: &Kernel<'_>,
    direct: &[Unit],
    no_units: &BTreeMap<PathBuf, Unpatchable>,
    events: Events<'_>,
) -> Result<(Located, BTreeSet<PathBuf>), Error> {
    let touched = |path: &Path| patched.touched.contains_key(path);
    // A unit can be included by others besides; most are not, and then nobody needs to be asked.
    let included = direct
        .iter()
        .map(|unit| unit.source.as_path())
        .filter(|source| kernel.graph.affected([*source]).units.iter().any(|reader| !touched(reader)));
    let (headers, created): (Vec<&Path>, Vec<&Path>) =
        patched.of_kind(FileKind::Header).partition(|path| exists_or_goes(patched, path));
    // A new header can stand before another of its name in the order of the search.
    let hidden = created.iter().filter_map(|path| path.file_name()?.to_str());
    let hidden = hidden.flat_map(|name| kernel.graph.named(name));
    let sources: Vec<&Path> = no_units.keys().map(PathBuf::as_path).chain(included).collect();
    let changed: Vec<PathBuf> =
        headers.into_iter().chain(hidden).chain(sources.iter().copied()).map(Path::to_owned).collect();
    if changed.is_empty() && kernel.whole.is_none() {
        return Ok((Located::new(), BTreeSet::new()));
    }
    let mut readers = units::readers(kernel.tree, kernel.graph, kernel.vmlinux, &changed)
        .map_err(|error| tree_error(Phase::Plan, error))?;
    if let Some(whole) = kernel.whole {
        readers.units = whole()?;
    }
    let mut untouched: Vec<PathBuf> = readers.units.into_iter().filter(|unit| !touched(unit)).collect();
    if options.only_touched {
        let all = untouched.len();
        let of_sources = kernel.graph.affected(sources).units;
        untouched.retain(|unit| of_sources.contains(unit));
        let left = all - untouched.len();
        if left > 0 {
            events(Event::warning(format!(
                "{left} untouched units may read touched headers and keep the old ones (--only-touched-units)"
            )));
        }
    }
    Ok((locate(kernel, &untouched)?, readers.files))
}

/// Errors for sources that are neither units nor included by any; headers that no unit reads change nothing.
fn read_by_nobody(
    patched: &Patched,
    kernel: &Kernel<'_>,
    units: &[Unit],
    no_units: &BTreeMap<PathBuf, Unpatchable>,
    events: Events<'_>,
) -> Vec<Error> {
    let sources: BTreeSet<&Path> = units.iter().map(|unit| unit.source.as_path()).collect();
    let is_read =
        |path: &Path| kernel.graph.affected([path]).units.iter().any(|unit| sources.contains(unit.as_path()));
    for header in patched.of_kind(FileKind::Header).filter(|path| exists_or_goes(patched, path)) {
        if !is_read(header) {
            events(Event::note(format!("{}: no unit of this kernel reads it", header.display())));
        }
    }
    let lost = no_units.iter().filter(|(source, _)| !is_read(source));
    lost.map(|(source, reason)| unpatchable(source, reason)).collect()
}

/// True for a file that both the tree and the patched tree have.
fn exists(patched: &Patched, source: &Path) -> bool {
    let touched = patched.touched.get(source);
    patched.files.get(source).is_some_and(Option::is_some) && touched.is_some_and(|touched| !touched.created)
}

/// True for a file that the tree has, whether or not the patched tree still has it.
fn exists_or_goes(patched: &Patched, path: &Path) -> bool {
    patched.touched.get(path).is_some_and(|touched| !touched.created)
}

fn outside_targets(options: &Options, units: &[Unit]) -> Vec<Error> {
    let of_owners = |unit| Unit::owners(unit).map(move |owner| (unit, owner));
    units
        .iter()
        .flat_map(of_owners)
        .filter(|(unit, owner)| !options.allows(owner, &unit.object))
        .map(|(unit, owner)| {
            let message = format!("the file belongs to {owner}, which -t does not allow to be patched");
            let target = if owner == VMLINUX { VMLINUX } else { "modules" };
            error("outside-target", message)
                .file(&unit.source)
                .remedy(format!("add -t {target}, or leave the file out of the live patch"))
        })
        .collect()
}
