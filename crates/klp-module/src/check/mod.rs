//! Check: does the finished module fit the shipped kernel?
//!
//! That a kernel loads a module proves little: one with damaged or empty livepatch sections loads as well.
//! So everything the kernel will take on trust is looked up here, by an ELF reader of its own (goblin), and
//! against the shipped symbol tables. All findings of a module are reported together.

mod entry;
mod finding;
mod ibt;
mod info;
mod relocations;
mod symbols;
mod tables;
mod view;

use std::collections::BTreeMap;

use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;

pub use entry::{EntryError, EntrySites};
pub use finding::Finding;
pub use ibt::{Ibt, IbtError};
pub use view::ModuleView;

use crate::manifest::ModuleManifest;

/// What is known about the shipped kernel.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its release, as `uname -r` prints it.
    pub release: &'a str,
    /// The vermagic string of its modules, see [`crate::vermagic`].
    pub vermagic: &'a str,
    /// Its exported symbols.
    pub exports: &'a Symvers,
    /// True if the loader compares versions of symbols (`CONFIG_MODVERSIONS`).
    pub modversions: bool,
    /// Shipped symbol tables by object; those of all objects that the patch names are needed.
    pub tables: &'a BTreeMap<String, SymbolTable<'a>>,
    /// Entry calls by object; those of all patched objects are needed.
    pub entries: &'a BTreeMap<String, EntrySites>,
    /// Where indirect branches may land, by object; empty if the kernel does not enforce it (`CONFIG_X86_KERNEL_IBT`).
    pub ibt: &'a BTreeMap<String, Ibt>,
}

/// Checks a finished module named `name` (as `lsmod` prints it). No finding means that it may be used.
pub fn check(module: &[u8], name: &str, manifest: &ModuleManifest, target: &Target<'_>) -> Vec<Finding> {
    let view = match ModuleView::parse(module) {
        Ok(view) => view,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    info::check(&view, name, target, &mut findings);
    relocations::check(&view, manifest, &mut findings);
    symbols::livepatch(&view, manifest, target, &mut findings);
    symbols::undefined(&view, target, &mut findings);
    symbols::versions(&view, target, &mut findings);
    tables::check(&view, manifest, &mut findings);
    entry::check(&view, manifest, target, &mut findings);
    ibt::check(&view, target, &mut findings);
    findings
}
