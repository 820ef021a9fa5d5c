//! Link: the extracts of all units become one relocatable object.
//!
//! The kernel's own link, `ld -r` in kbuild, cannot do this: it would bind a reference that livepatch has
//! to resolve to whatever definition bears the same name, mix symbols of one name and different meaning,
//! and let `.text.init_once` of two units run together. So names are settled here, and what kbuild gets is
//! one object in which every name means one thing:
//! * a reference of a unit's manifest stays undefined, one symbol for each (gate, object, name, sympos);
//!   where its name is taken or would confuse modpost, an alias stands for it;
//! * an undefined symbol without manifest entry is bound to the new global definition of another unit, or
//!   else is an export of the kernel, or else an error;
//! * definitions become local, since nobody outside refers to them, so that units may define like names.
//!   A call of another unit to a function that the patch replaces therefore goes to the original, where
//!   ftrace redirects it: right also while the transition is under way.

use std::collections::{BTreeMap, BTreeSet};

use bstr::BStr;
use kbuild::symvers::Symvers;
use kpatch_elf::extract::{self, Manifest};
use kpatch_elf::klp;
use kpatch_elf::{Object, Place, SectionId, SymbolId};

mod error;
mod names;
mod objects;
mod sections;
mod symbols;

pub use error::LinkError;

use crate::manifest::{KlpReference, ModuleManifest, Rename};

/// The longest name for which modpost can make a `__versions` entry
/// (`MODULE_NAME_LEN - 1`, `include/linux/moduleparam.h`).
pub const MAX_VERSIONED_NAME: usize = 55;

/// What the linked object says it was compiled from.
const FILE_SYMBOL: &str = "kpatch-linked";

/// The largest alignment that makes sense in a module, a huge page.
const MAX_ALIGN: u64 = 2 << 20;

/// Names that kbuild defines in every module, or that its final link does.
const MODULE_NAMES: [&str; 4] = ["__this_module", "init_module", "cleanup_module", "_GLOBAL_OFFSET_TABLE_"];

/// An extract, read.
#[derive(Clone, Debug)]
pub struct Extract<'d> {
    /// Sections, symbols, relocations.
    pub object: Object<'d>,
    /// What they mean.
    pub manifest: Manifest,
}

impl<'d> Extract<'d> {
    /// Reads an extract. `unit` is what errors call it before its manifest is known.
    pub fn read(bytes: &'d [u8], unit: &str) -> Result<Extract<'d>, LinkError> {
        let object =
            Object::read(bytes).map_err(|source| LinkError::Read { unit: unit.to_owned(), source })?;
        let bad = |what: String| LinkError::Manifest { unit: unit.to_owned(), what };
        let section = object.section_named(extract::SECTION).ok_or_else(|| bad("is missing".to_owned()))?;
        let manifest: Manifest = serde_json::from_slice(object.section(section).bytes())
            .map_err(|error| bad(format!("cannot be understood: {error}")))?;
        if manifest.version != extract::VERSION {
            return Err(bad(format!("has version {}, not {}", manifest.version, extract::VERSION)));
        }
        Ok(Extract { object, manifest })
    }
}

/// The linked object and what is known about it.
#[derive(Clone, Debug)]
pub struct Linked<'d> {
    /// Everything from all units, without manifests.
    pub object: Object<'d>,
    /// The merged manifest.
    pub manifest: ModuleManifest,
}

/// Links extracts, in the order given.
///
/// `exports` are the target kernel's (`Module.symvers`).
pub fn link<'d>(extracts: &[Extract<'d>], exports: &Symvers) -> Result<Linked<'d>, Vec<LinkError>> {
    let Some(first) = extracts.first() else { return Err(vec![LinkError::NoUnits]) };
    let mut linker = Linker {
        extracts,
        exports,
        errors: Vec::new(),
        out: Object::empty_like(&first.object),
        section_symbols: BTreeMap::new(),
        namespaces: BTreeSet::new(),
        bases: Vec::new(),
        renames: Vec::new(),
    };
    linker.check_inputs();
    if !linker.errors.is_empty() {
        return Err(linker.errors);
    }
    linker.place_sections();
    let names = linker.settle_names();
    let maps = linker.place_symbols(&names);
    linker.place_relocations(&maps);
    let objects = linker.objects(&maps);
    if objects.iter().all(|o| o.functions.is_empty() && o.callbacks.is_empty()) && linker.errors.is_empty() {
        linker.errors.push(LinkError::Empty);
    }
    if !linker.errors.is_empty() {
        return Err(linker.errors);
    }
    let mut import_namespaces = linker.namespaces;
    import_namespaces.extend(extracts.iter().flat_map(|e| &e.manifest.import_namespaces).cloned());
    let manifest = ModuleManifest {
        objects,
        references: names.references,
        import_namespaces: import_namespaces.into_iter().collect(),
        renames: linker.renames,
        after_objtool: first.manifest.after_objtool,
    };
    Ok(Linked { object: linker.out, manifest })
}

struct Linker<'a, 'd> {
    extracts: &'a [Extract<'d>],
    exports: &'a Symvers,
    errors: Vec<LinkError>,
    out: Object<'d>,
    section_symbols: BTreeMap<SectionId, SymbolId>,
    /// Of the exports referred to. Code of vmlinux uses them without an import, a module needs one.
    namespaces: BTreeSet<String>,
    /// For each unit and section: where it went, and at which offset. `None` for what is left out.
    bases: Vec<Vec<Option<(SectionId, u64)>>>,
    renames: Vec<Rename>,
}

/// A livepatch reference's identity.
type Key<'a> = (&'a str, &'a str, &'a str, u32);

/// What the undefined symbols of each unit mean.
struct Names<'a> {
    /// Livepatch references in the order of the linked symbol table.
    references: Vec<KlpReference>,
    /// For each unit: its reference symbols' names and where in `references` they are.
    of_unit: Vec<BTreeMap<&'a str, usize>>,
    /// New global definitions by object and name: unit and symbol.
    definitions: Definitions<'a>,
}

type Definitions<'a> = BTreeMap<(&'a str, &'a BStr), (usize, SymbolId)>;

/// For each unit: the linked symbol of each of its symbols.
type Maps = Vec<Vec<Option<SymbolId>>>;

impl Linker<'_, '_> {
    fn unit(&self, index: usize) -> String {
        self.extracts[index].manifest.unit.clone()
    }

    fn check_inputs(&mut self) {
        let first = &self.extracts[0];
        for extract in self.extracts {
            let unit = extract.manifest.unit.clone();
            let (a, b) = (&extract.object, &first.object);
            if (a.machine, a.endian, a.file_flags, a.abi[0]) != (b.machine, b.endian, b.file_flags, b.abi[0])
            {
                let first = first.manifest.unit.clone();
                self.errors.push(LinkError::Machine { unit: unit.clone(), first });
            }
            if !extract.manifest.after_objtool && self.extracts.iter().any(|e| e.manifest.after_objtool) {
                self.errors.push(LinkError::MixedObjtool { unit: unit.clone() });
            }
            let references = extract.manifest.references.iter().map(|r| &r.object);
            for object in references.chain([&extract.manifest.object]) {
                let good = !object.is_empty()
                    && object.len() <= klp::MAX_OBJECT_NAME
                    && object.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !good {
                    self.errors.push(LinkError::ObjectName { unit: unit.clone(), object: object.clone() });
                }
            }
            for section in &extract.object.sections {
                if section.align > MAX_ALIGN || section.align > 1 && !section.align.is_power_of_two() {
                    self.errors.push(LinkError::Section {
                        unit: unit.clone(),
                        section: section.name.to_string(),
                        what: "unusable alignment",
                    });
                }
            }
            for symbol in &extract.object.symbols {
                if symbol.place == Place::Common {
                    let symbol = symbol.name.to_string();
                    self.errors.push(LinkError::Common { unit: unit.clone(), symbol });
                }
            }
        }
    }
}
