//! Units as the phases know them, and how kbuild's answer about a source becomes one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kbuild::command::CompileCommand;
use kbuild::include_graph::IncludeGraph;
use kbuild::object_tree::ObjectTree;
use kbuild::units::{self, Home, UnitList, Unpatchable};
use kpatch_elf::klp::VMLINUX;

use super::plain;
use super::resolve::tree_error;
use crate::error::Error;
use crate::phase::Phase;

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
    /// More modules that it is part of: their makefiles list the object, and kbuild compiles it once for all.
    pub also: Vec<String>,
    /// The compiler's command as kbuild saved it.
    pub compile: CompileCommand,
    /// objtool's command, on kernels where it sees every object.
    pub objtool: Option<Vec<String>>,
    /// No patch touches its source; it may read a touched file.
    pub indirect: bool,
    /// A patch adds it: the kernel has no original.
    pub created: bool,
}

impl Unit {
    /// The objects that it is part of.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.owner).chain(&self.also).map(String::as_str)
    }
}

/// What is known about the kernel.
pub struct Kernel<'a> {
    /// The object tree.
    pub tree: &'a ObjectTree,
    /// The units of vmlinux.
    pub vmlinux: &'a UnitList,
    /// Who includes whom.
    pub graph: &'a IncludeGraph,
    /// Whether the kernel comes with a module of that name.
    pub is_shipped: &'a dyn Fn(&str) -> bool,
    /// Tells the sources that a build of both whole trees found changed, where the user wants it so.
    pub whole: Option<&'a dyn Fn() -> Result<BTreeSet<PathBuf>, Error>>,
}

/// Sources, each with the unit it is or why it is none.
pub(super) type Located = BTreeMap<PathBuf, Result<units::Unit, Unpatchable>>;

pub(super) fn locate(kernel: &Kernel<'_>, sources: &[PathBuf]) -> Result<Located, Error> {
    units::locate(kernel.tree, kernel.vmlinux, kernel.is_shipped, sources)
        .map_err(|error| tree_error(Phase::Plan, error))
}

/// Each unit as often as there are objects that it is part of, side by side: what refers to a symbol means that of the
/// same module.
pub fn by_owner(units: &[Unit]) -> Vec<Unit> {
    let alone = |unit: &Unit, owner: &str| Unit { owner: owner.to_owned(), also: Vec::new(), ..unit.clone() };
    units.iter().flat_map(|unit| unit.owners().map(move |owner| alone(unit, owner))).collect()
}

pub(super) fn planned(source: &Path, unit: &units::Unit, indirect: bool) -> Result<Unit, Error> {
    let compile = unit.command.compile().map_err(|e| {
        error("command", "kbuild's command for the unit is not understood").file(source).cause(e)
    })?;
    let (owner, also) = match &unit.home {
        Home::Vmlinux => (VMLINUX.to_owned(), Vec::new()),
        Home::Modules(first, more) => (first.clone(), more.clone()),
    };
    Ok(Unit {
        source: source.to_owned(),
        spelled: unit.spelled.clone(),
        object: plain(&unit.command.target),
        owner,
        also,
        compile,
        objtool: unit.command.objtool().map(<[String]>::to_vec),
        indirect,
        created: false,
    })
}

/// The error for a source whose code is not where a live patch reaches.
pub(super) fn unpatchable(source: &Path, reason: &Unpatchable) -> Error {
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

pub(super) fn error(code: &'static str, message: impl std::fmt::Display) -> Error {
    Error::new(Phase::Plan, code, message)
}
