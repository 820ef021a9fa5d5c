//! The finished module against the shipped kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use create_diff_object::{EntrySizes, Pointer};
use kbuild::symtab::SymbolTable;
use klp_module::ModuleManifest;
use klp_module::check::{EntrySites, Finding, Ibt, Target, check};
use klp_module::vermagic;
use kpatch_elf::arch::Machine;

use super::compile::Objects;
use super::job::Variant;
use super::overlay::Overlay;
use super::resolve::Resolved;
use super::shipped::{self, ShippedBytes, Tables};
use super::unit::Unit;
use crate::error::Error;
use crate::events::Events;
use crate::phase::Phase;

/// What the module is checked against.
pub struct Context<'a> {
    /// The kernel.
    pub resolved: &'a Resolved,
    /// Its files.
    pub bytes: &'a ShippedBytes,
    /// Their symbols.
    pub tables: &'a Tables<'a>,
    /// The units of the plan, for naming sources.
    pub units: &'a [Unit],
    /// What was compiled of them.
    pub objects: &'a Objects,
    /// Sizes of special sections' entries.
    pub sizes: &'a EntrySizes,
    /// The patched sources.
    pub overlay: &'a Overlay,
    /// The machine.
    pub machine: Machine,
}

/// Checks the module called `name`; everything that is wrong with it.
pub fn run(
    context: &Context<'_>,
    module: &[u8],
    name: &str,
    manifest: &ModuleManifest,
    events: Events<'_>,
) -> Result<(), Vec<Error>> {
    let config = &context.resolved.config;
    let known = context.tables.all();
    // A reference may lead to a module that is not patched itself.
    let others: BTreeSet<&str> = manifest
        .references
        .iter()
        .map(|reference| reference.object.as_str())
        .filter(|object| !known.contains_key(*object))
        .collect();
    let others = shipped::modules(&context.resolved.kernel, others, events)?;
    let mut tables: BTreeMap<String, SymbolTable<'_>> = known.clone();
    for (object, bytes) in &others {
        let table = SymbolTable::from_elf(bytes).map_err(|e| vec![unreadable(object, &e)])?;
        tables.insert(object.clone(), table);
    }
    let mut entries = BTreeMap::new();
    for object in &manifest.objects {
        let (Some(bytes), Some(table)) = (context.tables.bytes(&object.name), tables.get(&object.name))
        else {
            continue;
        };
        let sites = EntrySites::from_elf(bytes, table).map_err(|e| vec![unreadable(&object.name, &e)])?;
        entries.insert(object.name.clone(), sites);
    }
    let mut ibt = BTreeMap::new();
    if config.is_yes("X86_KERNEL_IBT") {
        for (object, table) in &tables {
            let bytes = context.tables.bytes(object).or_else(|| others.get(object).map(Vec::as_slice));
            let Some(bytes) = bytes else { continue };
            let pads = Ibt::from_elf(bytes, table).map_err(|e| vec![unreadable(object, &e)])?;
            ibt.insert(object.clone(), pads);
        }
    }
    // A shipped module is the surest witness; without one the configuration has to tell.
    let mut witness = manifest.objects.iter().filter(|o| o.name != kpatch_elf::klp::VMLINUX);
    let magic = witness
        .find_map(|object| vermagic::of_module(context.tables.bytes(&object.name)?))
        .or_else(|| {
            vermagic::of_config(&context.resolved.kernel.release, context.machine, |o| config.is_yes(o))
        })
        .ok_or_else(|| {
            vec![Error::new(Phase::Check, "vermagic", "the kernel's vermagic string is not known")]
        })?;
    let target = Target {
        release: &context.resolved.kernel.release,
        vermagic: &magic,
        exports: &context.bytes.exports,
        modversions: config.modversions(),
        tables: &tables,
        entries: &entries,
        ibt: &ibt,
    };
    // A module's name has underscores, its file may have hyphens.
    let findings = check(module, &name.replace('-', "_"), manifest, &target);
    if findings.is_empty() {
        return Ok(());
    }
    Err(findings.iter().map(|finding| explain(context, manifest, finding)).collect())
}

fn unreadable(object: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(Phase::Check, "shipped-object", format!("the shipped {object} is not understood")).cause(error)
}

fn explain(context: &Context<'_>, manifest: &ModuleManifest, finding: &Finding) -> Error {
    let mut error = Error::new(Phase::Check, finding.code(), finding).remedy(finding.remedy());
    if let Finding::Endbr { name, .. } = finding
        && let Some(pointer) = pointer_to(context, name)
    {
        error = error.function(pointer.holder);
        if let Some(source) = pointer.source {
            let file = context.overlay.to_source(Path::new(&source.file));
            error = error.file(file).line(source.line).text(context.overlay.source_of(file));
        }
        return error;
    }
    if let Some(subject) = finding.subject() {
        let function = manifest.functions().find(|(_, f)| f.name == subject || f.symbol == subject);
        let unit = function
            .and_then(|(_, f)| context.units.iter().find(|u| u.object.as_os_str() == f.unit.as_str()));
        if let Some(unit) = unit {
            error = error.file(&unit.source);
        }
        error = error.function(subject);
    }
    error
}

/// Where the patch takes the address of a function. The shipped kernel takes it nowhere, or the function would have its
/// ENDBR, so the first place is the patch's.
fn pointer_to(context: &Context<'_>, function: &str) -> Option<Pointer> {
    context.units.iter().find_map(|unit| {
        let object = context.objects.get(&(unit.object.clone(), Variant::Patched))?;
        // Without the object, the message lacks the place.
        let bytes = fs_err::read(object).ok()?;
        create_diff_object::pointers_to(&bytes, context.sizes, function).into_iter().next()
    })
}
