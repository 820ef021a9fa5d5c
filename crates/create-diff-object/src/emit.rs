//! Builds the extract: an object of everything selected, with ordinary relocations and a manifest.
//!
//! One step per file, in this order: `place` gives every element its section and makes symbols; `references`
//! carries over what they refer to, `pools` the strings and constants among it; `made` adds the sections that
//! the input does not have.

mod made;
mod place;
mod pools;
mod references;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bstr::BString;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use kpatch_elf::extract::{self, Callback, Manifest, PatchedFunction};
use kpatch_elf::{
    Contents, Info, Link, Object, Relocations, Section, SectionId, Symbol, SymbolId, section_flags,
};

use crate::author::Author;
use crate::correlate::Twins;
use crate::error::DiffError;
use crate::lookup::{Lookup, Resolution};
use crate::select::{Change, Selection, Statuses};
use crate::unit::{ElementId, Kind, Unit};
use pools::Pool;

/// Everything that the earlier phases found.
pub(crate) struct Parts<'a, 'd> {
    pub(crate) original: &'a Unit<'d>,
    pub(crate) patched: &'a Unit<'d>,
    pub(crate) twins: &'a Twins,
    pub(crate) statuses: &'a Statuses,
    pub(crate) selection: &'a Selection,
    pub(crate) lookup: &'a Lookup<'a>,
    pub(crate) author: &'a Author,
    pub(crate) unit: &'a str,
    pub(crate) object: &'a str,
    /// List the entries of functions where the input has no such list.
    pub(crate) make_entry_table: bool,
}

/// The extract as a model, and what its manifest says.
pub(crate) struct Emitted<'d> {
    pub(crate) object: Object<'d>,
    pub(crate) manifest: Manifest,
    /// Undefined symbols that nobody is known to define.
    pub(crate) unresolved: BTreeSet<String>,
    /// Where each symbol that the input does not define is used first: element, and offset in its section.
    pub(crate) uses: BTreeMap<String, (ElementId, u64)>,
    pub(crate) warnings: Vec<String>,
}

/// Where an element went: its section, and what to add to its offsets.
#[derive(Clone, Copy)]
struct Placed {
    section: SectionId,
    delta: i64,
}

struct Emitter<'a, 'd> {
    parts: &'a Parts<'a, 'd>,
    out: Object<'d>,
    placed: BTreeMap<ElementId, Placed>,
    symbols: BTreeMap<SymbolId, SymbolId>,
    section_symbols: BTreeMap<SectionId, SymbolId>,
    /// Sections of strings and constants, by their section in the input; none for [`FILE_NAMES`].
    pools: BTreeMap<Option<SectionId>, Pool>,
    /// Names that the extract defines or uses. These two are only asked, never iterated over.
    names: HashSet<BString>,
    undefined: HashMap<(BString, Resolution), SymbolId>,
    /// What undefined symbols of the input mean, and what stands for them here.
    externals: BTreeMap<SymbolId, (Resolution, SymbolId)>,
    references: Vec<extract::Reference>,
    unresolved: BTreeSet<String>,
    uses: BTreeMap<String, (ElementId, u64)>,
    keys: BTreeSet<BString>,
    warnings: Vec<String>,
    errors: Vec<(Option<ElementId>, DiffError)>,
}

/// Builds the extract, or says what stands in the way.
pub(crate) fn emit<'d>(parts: &Parts<'_, 'd>) -> Result<Emitted<'d>, Vec<(Option<ElementId>, DiffError)>> {
    let mut emitter = Emitter {
        parts,
        out: Object::empty_like(&parts.patched.object),
        placed: BTreeMap::new(),
        symbols: BTreeMap::new(),
        section_symbols: BTreeMap::new(),
        pools: BTreeMap::new(),
        names: HashSet::new(),
        undefined: HashMap::new(),
        externals: BTreeMap::new(),
        references: Vec::new(),
        unresolved: BTreeSet::new(),
        uses: BTreeMap::new(),
        keys: BTreeSet::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    emitter.place();
    emitter.name();
    emitter.relocate();
    if parts.make_entry_table {
        emitter.entry_table();
    }
    let after_objtool = parts.patched.after_objtool();
    if !after_objtool {
        emitter.keep_keys();
    }
    emitter.pour_pools();
    let functions = emitter.functions();
    let callbacks = parts
        .author
        .callbacks
        .iter()
        .map(|&(kind, id)| Callback { kind, symbol: parts.patched.name(id) })
        .collect();
    let manifest = Manifest {
        version: extract::VERSION,
        unit: parts.unit.to_owned(),
        object: parts.object.to_owned(),
        after_objtool,
        functions,
        references: emitter.references,
        callbacks,
        import_namespaces: parts.author.import_namespaces.iter().cloned().collect(),
    };
    if !emitter.errors.is_empty() {
        return Err(emitter.errors);
    }
    let Emitter { out: object, unresolved, uses, warnings, .. } = emitter;
    Ok(Emitted { object, manifest, unresolved, uses, warnings })
}

impl Emitter<'_, '_> {
    fn fail(&mut self, id: ElementId, error: DiffError) {
        self.errors.push((Some(id), error));
    }

    /// What is in, in the order of the file; entries of special sections last, as some follow the order of
    /// the code they are about.
    fn selected(&self) -> Vec<ElementId> {
        let unit = self.parts.patched;
        let mut list: Vec<ElementId> = unit.ids().filter(|id| self.parts.selection.has(*id)).collect();
        list.sort_by_key(|id| matches!(unit.element(*id).kind, Kind::Entry(_)));
        list
    }

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        if let Some(&symbol) = self.section_symbols.get(&section) {
            return symbol;
        }
        let symbol = self.out.add_symbol(Symbol::of_section(section));
        self.section_symbols.insert(section, symbol);
        symbol
    }

    /// The functions to be replaced.
    fn functions(&mut self) -> Vec<PatchedFunction> {
        let (original, patched) = (self.parts.original, self.parts.patched);
        let mut out = Vec::new();
        for id in self.selected() {
            if patched.element(id).kind != Kind::Function
                || self.parts.statuses.of[id.index()] != Change::Changed
                || self.parts.statuses.parent.contains_key(&id)
                || self.parts.statuses.copied.contains(&id)
            {
                continue;
            }
            let Some(twin) = self.parts.twins.of_patched[id.index()] else { continue };
            let Some(symbol) = original.element(twin).main else { continue };
            match self.parts.lookup.replaced(original, symbol) {
                Ok((name, sympos, old_size)) => {
                    out.push(PatchedFunction { symbol: patched.name(id), name, sympos, old_size });
                }
                Err(error) => self.fail(id, error),
            }
        }
        out
    }
}

/// A section of the same kind without contents.
fn like<'d>(section: &Section<'_>, align: u64, contents: Contents<'d>) -> Section<'d> {
    Section {
        name: Cow::Owned(section.name.as_ref().into()),
        kind: section.kind,
        flags: section.flags & !(section_flags::GROUP | section_flags::INFO_LINK),
        align,
        entry_size: section.entry_size,
        link: Link::None,
        info: Info::Raw(0),
        contents,
        relocations: Relocations::new(),
    }
}
