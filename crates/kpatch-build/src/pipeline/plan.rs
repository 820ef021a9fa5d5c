//! Touched files to units: what is compiled, by which command, into which object.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use kbuild::command::CompileCommand;
use kbuild::object_tree::ObjectTree;
use kbuild::units::{self, Home, UnitList, Unpatchable};
use kpatch_elf::klp::VMLINUX;

use super::resolve::tree_error;
use crate::error::Error;
use crate::events::{Event, Events, Phase};
use crate::options::Options;
use crate::patch::{FileKind, Patched};

/// A unit of the plan.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The source file, relative to the source tree.
    pub source: PathBuf,
    /// The source file as kbuild spells it, which is what `__FILE__` says: for some units it leads through
    /// another directory (`arch/x86/kvm/../../../virt/kvm/kvm_main.c`).
    pub spelled: PathBuf,
    /// The object file, relative to the object tree.
    pub object: PathBuf,
    /// The object it is part of: `vmlinux`, or a module's name with `_` for `-`.
    pub owner: String,
    /// The compiler's command as kbuild saved it.
    pub compile: CompileCommand,
    /// objtool's command, on kernels where it sees every object.
    pub objtool: Option<Vec<String>>,
    /// Every file that the unit reads, absolute.
    pub dependencies: Vec<PathBuf>,
}

/// Asks kbuild for the commands of all touched sources, so that it works while vmlinux is unpacked; what it
/// answers is kept in the object tree.
pub fn prepare(patched: &Patched, tree: &ObjectTree) -> Result<(), Error> {
    let sources: Vec<PathBuf> =
        patched.of_kind(FileKind::Source).filter(|path| exists(patched, path)).map(Path::to_owned).collect();
    tree.commands(&sources).map(|_| ()).map_err(|error| tree_error(Phase::Plan, error))
}

/// The units that the patches change, in the order of their paths. All that is wrong is reported.
pub fn run(
    options: &Options,
    patched: &Patched,
    tree: &ObjectTree,
    vmlinux: &UnitList,
    is_shipped: &dyn Fn(&str) -> bool,
    events: Events<'_>,
) -> Result<Vec<Unit>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
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
        } else {
            errors.push(
                error("new-unit", "a new source file cannot be part of a live patch yet")
                    .file(source)
                    .remedy("put the new functions into a file that the kernel has"),
            );
        }
    }
    let located = match units::locate(tree, vmlinux, is_shipped, &sources) {
        Ok(located) => located,
        Err(error) => {
            errors.push(tree_error(Phase::Plan, error));
            return Err(errors);
        }
    };
    let mut units = Vec::new();
    for (source, located) in &located {
        match located {
            Ok(unit) => match planned(source, unit, tree) {
                Ok(unit) => units.push(unit),
                Err(error) => errors.push(error),
            },
            Err(reason) => errors.push(unpatchable(source, reason)),
        }
    }
    errors.extend(outside_targets(options, &units));
    errors.extend(uncovered_headers(patched, tree, &units));
    if units.is_empty() && errors.is_empty() {
        errors.push(
            error("no-units", "the patch changes no source file of the kernel")
                .remedy("a live patch needs a change to a .c file that the kernel is compiled from"),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    events(Event::Planned { units: units.iter().map(|u| (u.object.clone(), u.owner.clone())).collect() });
    Ok(units)
}

fn error(code: &'static str, message: impl std::fmt::Display) -> Error {
    Error::new(Phase::Plan, code, message)
}

/// True for a file that both the tree and the patched tree have.
fn exists(patched: &Patched, source: &Path) -> bool {
    let touched = patched.touched.get(source);
    patched.files.get(source).is_some_and(Option::is_some) && touched.is_some_and(|touched| !touched.created)
}

fn planned(source: &Path, unit: &units::Unit, tree: &ObjectTree) -> Result<Unit, Error> {
    let compile = unit.command.compile().map_err(|e| {
        error("command", "kbuild's command for the unit is not understood").file(source).cause(e)
    })?;
    let owner = match &unit.home {
        Home::Vmlinux => VMLINUX.to_owned(),
        Home::Modules(names) => {
            let [name] = names.as_slice() else {
                let message = format!("the file is part of several modules: {}", names.join(", "));
                return Err(error("several-modules", message)
                    .file(source)
                    .remedy("a live patch of such a file is not supported yet; change its callers instead"));
            };
            name.clone()
        }
    };
    Ok(Unit {
        source: source.to_owned(),
        spelled: unit.spelled.clone(),
        object: normal(&unit.command.target),
        owner,
        compile,
        objtool: unit.command.objtool().map(<[String]>::to_vec),
        dependencies: unit.command.files().map(|file| tree.path().join(file)).collect(),
    })
}

/// A path without `.` and `..`, which here never leads through a link.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// The error for a source whose code is not where a live patch reaches.
fn unpatchable(source: &Path, reason: &Unpatchable) -> Error {
    let (code, remedy) = match reason {
        Unpatchable::NotConfigured { .. } => (
            "not-compiled",
            "leave the file out of the live patch, or check that release and flavour are right",
        ),
        Unpatchable::NotShipped { .. } => ("not-shipped", "leave the file out of the live patch"),
        Unpatchable::DoesNotCompile { .. } | Unpatchable::Contradiction { .. } => {
            ("contradiction", "source, configuration and vmlinux do not belong together: check -s, -c and -v")
        }
        Unpatchable::Assembly => ("assembly", "change the C code that uses it"),
        _ => ("out-of-reach", "leave the file out of the live patch"),
    };
    let subject = match reason {
        Unpatchable::DoesNotCompile { .. } => {
            error(code, "the original source does not compile").cause(reason)
        }
        _ => error(code, format!("the file cannot be patched: {reason}")),
    };
    subject.file(source).remedy(remedy)
}

fn outside_targets(options: &Options, units: &[Unit]) -> Vec<Error> {
    units
        .iter()
        .filter(|unit| !options.allows(&unit.owner, &unit.object))
        .map(|unit| {
            let message =
                format!("the file belongs to {}, which -t does not allow to be patched", unit.owner);
            let target = if unit.owner == "vmlinux" { "vmlinux".to_owned() } else { "modules".to_owned() };
            error("outside-target", message)
                .file(&unit.source)
                .remedy(format!("add -t {target}, or leave the file out of the live patch"))
        })
        .collect()
}

/// Touched headers that no unit of the plan reads: whoever else reads them would change unseen.
fn uncovered_headers(patched: &Patched, tree: &ObjectTree, units: &[Unit]) -> Vec<Error> {
    let read: BTreeSet<&Path> = units
        .iter()
        .flat_map(|unit| &unit.dependencies)
        .filter_map(|path| path.strip_prefix(tree.source()).ok())
        .collect();
    patched
        .of_kind(FileKind::Header)
        .filter(|header| !read.contains(header))
        .map(|header| {
            error("header-of-other-units", "no unit of this patch reads this header")
                .file(header)
                .cause("units that the patch does not touch may read it, and they are not searched for yet")
                .remedy("touch the units that use it in the same patch, or make the change in their .c files")
        })
        .collect()
}
