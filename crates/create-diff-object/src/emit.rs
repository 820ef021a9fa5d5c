//! Builds the extract: an object of everything selected, with ordinary relocations and a manifest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, BString, ByteSlice};
use kpatch_elf::arch::{Flow, Machine};
use kpatch_elf::extract::{self, Callback, Manifest, PatchedFunction};
use kpatch_elf::klp::VMLINUX;
use kpatch_elf::{
    Contents, Info, Link, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, binding,
    section_flags, section_type, symbol_kind,
};

use crate::author::Author;
use crate::correlate::Twins;
use crate::error::DiffError;
use crate::lookup::{Lookup, Resolution};
use crate::select::{Change, Selection, Statuses, function_of};
use crate::tables::{self, Class, TableKind};
use crate::unit::{ElementId, Kind, Reference, Target, Unit};

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
    /// Undefined symbols that nobody is known to define, and where each is used first: element, and offset in
    /// its section.
    pub(crate) unresolved: BTreeMap<String, (ElementId, u64)>,
    pub(crate) warnings: Vec<String>,
}

/// Name under which the original of something that the extract defines as well is referred to.
const ALIAS: &str = "__klp_ref.";

/// Where names of source files go that were absolute. The compiler's choice of a section follows from the length
/// of the whole path, which must not show.
const FILE_NAMES: &str = ".rodata.str1.1";

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
    /// Names that the extract defines or uses.
    names: BTreeSet<BString>,
    undefined: BTreeMap<(BString, Resolution), SymbolId>,
    references: Vec<extract::Reference>,
    unresolved: BTreeMap<String, (ElementId, u64)>,
    keys: BTreeSet<BString>,
    warnings: Vec<String>,
    errors: Vec<(Option<ElementId>, DiffError)>,
}

struct Pool {
    section: SectionId,
    bytes: Vec<u8>,
    align: usize,
    known: BTreeMap<Vec<u8>, u64>,
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
        names: BTreeSet::new(),
        undefined: BTreeMap::new(),
        references: Vec::new(),
        unresolved: BTreeMap::new(),
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
        noreturn: Vec::new(),
    };
    if !emitter.errors.is_empty() {
        return Err(emitter.errors);
    }
    Ok(Emitted { object: emitter.out, manifest, unresolved: emitter.unresolved, warnings: emitter.warnings })
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

    /// Gives every selected element its section.
    fn place(&mut self) {
        let unit = self.parts.patched;
        let mut shared: BTreeMap<(SectionId, Option<SectionId>), SectionId> = BTreeMap::new();
        for id in self.selected() {
            let element = unit.element(id);
            let section = unit.object.section(element.section);
            let toc = tables::is_toc(section.name.as_ref());
            match element.kind {
                Kind::Function | Kind::Datum | Kind::Special(_) | Kind::Unnamed if !toc => {
                    let alone = unit.in_section(element.section).len() == 1;
                    let end = if alone { element.end } else { unit.extent(id) };
                    let align = section.align.max(1);
                    let (align, front) = if element.kind == Kind::Function {
                        // Code keeps its place relative to the alignment.
                        (align, element.start % align)
                    } else if element.start == 0 {
                        (align, 0)
                    } else {
                        (align.min(1 << element.start.trailing_zeros().min(20)), 0)
                    };
                    let contents = if section.kind == section_type::NOBITS {
                        Contents::Zero(element.size())
                    } else {
                        let own =
                            section.bytes().get(element.start as usize..end as usize).unwrap_or_default();
                        if front == 0 {
                            Contents::Bytes(Cow::Owned(own.to_vec()))
                        } else {
                            let mut bytes = vec![filler(unit.object.machine); front as usize];
                            bytes.extend_from_slice(own);
                            Contents::Bytes(Cow::Owned(bytes))
                        }
                    };
                    let new = self.out.add_section(like(section, align, contents));
                    let delta = front as i64 - element.start as i64;
                    self.placed.insert(id, Placed { section: new, delta });
                }
                _ => {
                    // Entries stay together, in order; those of a section that follows its code's order
                    // stay with their code.
                    let link = section
                        .has(section_flags::LINK_ORDER)
                        .then(|| crate::select::entry_owner(unit, id))
                        .flatten()
                        .and_then(|owner| self.placed.get(&owner).map(|p| p.section));
                    let out = &mut self.out;
                    let new = *shared.entry((element.section, link)).or_insert_with(|| {
                        let contents = Contents::Bytes(Cow::Owned(Vec::new()));
                        let mut section = like(section, section.align, contents);
                        if let Some(link) = link {
                            section.link = Link::Section(link);
                        } else {
                            section.flags &= !section_flags::LINK_ORDER;
                        }
                        out.add_section(section)
                    });
                    let bytes = unit.bytes(id);
                    let Contents::Bytes(Cow::Owned(buffer)) = &mut self.out.sections[new.index()].contents
                    else {
                        continue;
                    };
                    let start = buffer.len() as i64;
                    buffer.extend_from_slice(bytes);
                    let delta = start - element.start as i64;
                    self.placed.insert(id, Placed { section: new, delta });
                    if element.kind == Kind::Entry(TableKind::OrcAddresses) {
                        self.place_orc(id, &mut shared);
                    }
                }
            }
        }
        if self.placed.keys().any(|id| unit.element(*id).kind == Kind::Entry(TableKind::OrcAddresses)) {
            for (index, section) in unit.object.sections.iter().enumerate() {
                if unit.classes[index] == Class::OrcHeader {
                    let contents = Contents::Bytes(Cow::Owned(section.bytes().to_vec()));
                    self.out.add_section(like(section, section.align, contents));
                }
            }
        }
    }

    /// The unwind entry that belongs to an address.
    fn place_orc(&mut self, id: ElementId, shared: &mut BTreeMap<(SectionId, Option<SectionId>), SectionId>) {
        let unit = self.parts.patched;
        let element = unit.element(id);
        let Some(index) = unit.classes.iter().position(|c| *c == Class::Orc) else { return };
        let orc = SectionId(index as u32);
        let section = unit.object.section(orc);
        let count = unit.object.section(element.section).size() / 4;
        let size = section.size() / count.max(1);
        let from = (element.start / 4).saturating_mul(size);
        if size == 0 || size * count != section.size() {
            let error = DiffError::EntrySizeWrong {
                section: section.name.to_string(),
                size: section.size(),
                entry: size,
            };
            self.fail(id, error);
            return;
        }
        let bytes = section.bytes().get(from as usize..(from + size) as usize).unwrap_or_default();
        let out = &mut self.out;
        let new = *shared.entry((orc, None)).or_insert_with(|| {
            out.add_section(like(section, section.align, Contents::Bytes(Cow::Owned(Vec::new()))))
        });
        if let Contents::Bytes(Cow::Owned(buffer)) = &mut self.out.sections[new.index()].contents {
            buffer.extend_from_slice(bytes);
        }
    }

    /// Makes the symbols of what was placed.
    fn name(&mut self) {
        let unit = self.parts.patched;
        let mut files = BTreeSet::new();
        for id in self.placed.keys() {
            for symbol in &unit.element(*id).symbols {
                files.extend(unit.file_of[symbol.index()]);
            }
        }
        let mut owners: BTreeMap<SymbolId, ElementId> = BTreeMap::new();
        for id in self.placed.keys() {
            owners.extend(unit.element(*id).symbols.iter().map(|s| (*s, *id)));
        }
        for (id, symbol) in unit.object.symbols_with_ids() {
            if files.contains(&id) {
                let new = self.out.add_symbol(Symbol { place: Place::Absolute, ..symbol.clone() });
                self.symbols.insert(id, new);
            }
            let Some(owner) = owners.get(&id) else { continue };
            let Some(placed) = self.placed.get(owner) else { continue };
            let mut new = symbol.clone();
            new.place = Place::Section(placed.section);
            new.value = symbol.value.wrapping_add_signed(placed.delta);
            self.names.insert(symbol.name.as_ref().into());
            let new = self.out.add_symbol(new);
            self.symbols.insert(id, new);
        }
    }

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        if let Some(&symbol) = self.section_symbols.get(&section) {
            return symbol;
        }
        let symbol = self.out.add_symbol(Symbol {
            name: Cow::Borrowed(BStr::new("")),
            value: 0,
            size: 0,
            kind: symbol_kind::SECTION,
            binding: binding::LOCAL,
            other: 0,
            place: Place::Section(section),
        });
        self.section_symbols.insert(section, symbol);
        symbol
    }

    /// Carries over the references of everything placed.
    fn relocate(&mut self) {
        let unit = self.parts.patched;
        let placed: Vec<(ElementId, Placed)> = self.placed.iter().map(|(id, p)| (*id, *p)).collect();
        for (id, place) in placed {
            let limit = self.out.section(place.section).size();
            let references: Vec<Reference> = unit.references(id).to_vec();
            for reference in references {
                if is_empty_replacement(unit, id, &reference) {
                    continue;
                }
                let offset = reference.offset.wrapping_add_signed(place.delta);
                if offset >= limit {
                    // Padding behind the function that is left behind.
                    continue;
                }
                if reference.synthetic && unit.object.machine.arch().is_short(reference.kind) {
                    let error = DiffError::ShortBranch {
                        place: place_of(unit, id, &reference),
                        target: crate::compare::describe(unit, reference.target),
                    };
                    self.fail(id, error);
                    continue;
                }
                let Some((symbol, addend)) = self.carry(id, &reference) else { continue };
                self.out.sections[place.section.index()].relocations.push(Relocation {
                    offset,
                    kind: reference.kind,
                    symbol,
                    addend,
                });
            }
        }
        for section in &mut self.out.sections {
            section.relocations.sort_by_key(|r| r.offset);
        }
    }

    /// Symbol and addend of a reference in the extract.
    fn carry(&mut self, by: ElementId, reference: &Reference) -> Option<(Option<SymbolId>, i64)> {
        let unit = self.parts.patched;
        match reference.target {
            Target::Number(value) => Some((None, value)),
            Target::String(section, start, delta) => {
                let bytes = unit.string(section, start, 0)?.to_vec();
                let from = unit.begins_string(section, start).then_some(section);
                let (symbol, place) = self.pool(from, bytes);
                Some((Some(symbol), (place as i64).wrapping_add(delta).wrapping_sub(reference.bias)))
            }
            Target::Constant(section, start, delta) => {
                let bytes = unit.constant(section, start)?.to_vec();
                let (symbol, place) = self.pool(Some(section), bytes);
                Some((Some(symbol), (place as i64).wrapping_add(delta).wrapping_sub(reference.bias)))
            }
            Target::External(symbol, _) => {
                let old = unit.object.symbol(symbol);
                match old.place {
                    Place::Undefined => {
                        let name: &BStr = old.name.as_ref();
                        let resolution = match self.parts.lookup.external(name) {
                            Ok(resolution) => resolution,
                            Err(error) => {
                                self.fail(by, error);
                                return None;
                            }
                        };
                        self.check_special(by, &resolution);
                        let new = self.undefined(name, &resolution, old.binding);
                        if resolution == Resolution::Unknown && old.binding != binding::WEAK {
                            self.unresolved.entry(name.to_string()).or_insert((by, reference.offset));
                        }
                        if name.starts_with(b"__SCT__") {
                            self.keys.insert(name.into());
                        }
                        Some((Some(new), reference.addend))
                    }
                    Place::Absolute => {
                        let out = &mut self.out;
                        let new = *self.symbols.entry(symbol).or_insert_with(|| out.add_symbol(old.clone()));
                        Some((Some(new), reference.addend))
                    }
                    _ => {
                        let error = self.uncarried(by, reference);
                        self.fail(by, error);
                        None
                    }
                }
            }
            Target::Element(target, delta) => self.carry_element(by, reference, target, delta),
        }
    }

    fn carry_element(
        &mut self,
        by: ElementId,
        reference: &Reference,
        target: ElementId,
        delta: i64,
    ) -> Option<(Option<SymbolId>, i64)> {
        let unit = self.parts.patched;
        let twin = self.parts.twins.of_patched[target.index()];
        let existing = self.parts.statuses.of[target.index()] != Change::New;
        let addend = delta.wrapping_sub(reference.bias);
        // A pointer to a function that exists outlives the patch and must be comparable with pointers that
        // exist: it goes to the original.
        let pointer = unit.element(target).kind == Kind::Function
            && existing
            && delta == 0
            && reference.flow == Flow::Next
            && !matches!(unit.element(by).kind, Kind::Entry(_))
            && !self.parts.statuses.parent.contains_key(&target)
            && reference.kind != 0;
        if !pointer && let Some(&placed) = self.placed.get(&target) {
            let named = reference.symbol.filter(|s| !unit.object.symbol(*s).is_section());
            if let Some(symbol) = named.and_then(|s| self.symbols.get(&s)) {
                return Some((Some(*symbol), reference.addend));
            }
            if reference.synthetic
                && let Some(symbol) = unit.element(target).main.and_then(|s| self.symbols.get(&s))
            {
                return Some((Some(*symbol), addend));
            }
            let origin = (unit.element(target).origin as i64).wrapping_add(placed.delta);
            let symbol = self.section_symbol(placed.section);
            return Some((Some(symbol), origin.wrapping_add(addend)));
        }
        let Some(twin) = twin else {
            let error = self.uncarried(by, reference);
            self.fail(by, error);
            return None;
        };
        let section: &BStr = unit.section(target).name.as_ref();
        if unit.is_freed(unit.element(target).section) {
            self.fail(
                by,
                DiffError::InitReference {
                    by: unit.name(by),
                    name: unit.name(target),
                    section: section.to_string(),
                },
            );
            return None;
        }
        let original = self.parts.original;
        // An alias goes by its own name where both versions have it.
        let alias = reference.symbol.map(|s| unit.object.symbol(s).name.as_ref()).and_then(|name: &BStr| {
            let symbols = &original.element(twin).symbols;
            symbols.iter().copied().find(|s| {
                let symbol = original.object.symbol(*s);
                symbol.name.as_ref() == name && symbol.value == original.element(twin).origin
            })
        });
        let Some(symbol) = alias.or(original.element(twin).main) else {
            let error = self.uncarried(by, reference);
            self.fail(by, error);
            return None;
        };
        let own = if self.placed.contains_key(&target) {
            self.parts.lookup.own_klp(original, symbol)
        } else {
            self.parts.lookup.own(original, symbol)
        };
        let resolution = match own {
            Ok(resolution) => resolution,
            Err(error) => {
                self.fail(by, error);
                return None;
            }
        };
        self.check_special(by, &resolution);
        let old = original.object.symbol(symbol);
        let name: BString = old.name.as_ref().into();
        let new = self.undefined(name.as_ref(), &resolution, binding::GLOBAL);
        if name.starts_with(b"__SCT__") {
            self.keys.insert(name);
        }
        Some((Some(new), addend))
    }

    fn uncarried(&self, by: ElementId, reference: &Reference) -> DiffError {
        let unit = self.parts.patched;
        let kind = unit
            .object
            .machine
            .arch()
            .relocation_name(reference.kind)
            .map_or_else(|| reference.kind.to_string(), str::to_owned);
        let what = crate::compare::describe(unit, reference.target);
        DiffError::Relocation { kind, place: format!("{} (to {what})", place_of(unit, by, reference)) }
    }

    /// Tables are used as soon as the module is loaded, before the livepatch core relocates what depends on
    /// another module.
    fn check_special(&mut self, by: ElementId, resolution: &Resolution) {
        let Resolution::Klp { object, name, .. } = resolution else { return };
        if object == VMLINUX {
            return;
        }
        let unit = self.parts.patched;
        let replacement = unit.element(by).kind == Kind::Detached
            && unit.section(by).name.as_bytes() == b".altinstr_replacement";
        // Entries about keys have been judged before, see `keys`.
        let entry = match unit.element(by).kind {
            Kind::Entry(kind) => !matches!(kind, TableKind::Jumps | TableKind::StaticCalls),
            _ => false,
        };
        if entry || replacement {
            let function = function_of(unit, by).map(|f| unit.name(f)).unwrap_or_default();
            let error = DiffError::ModuleSpecial {
                section: unit.section(by).name.to_string(),
                function,
                symbol: name.to_string(),
                object: object.clone(),
            };
            self.fail(by, error);
        }
    }

    /// The undefined symbol for a name and its meaning.
    fn undefined(&mut self, name: &BStr, resolution: &Resolution, bind: u8) -> SymbolId {
        let key = (name.into(), resolution.clone());
        if let Some(&known) = self.undefined.get(&key) {
            return known;
        }
        let mut own: BString = name.into();
        if matches!(resolution, Resolution::Klp { .. }) {
            let mut number = 0;
            while self.names.contains(&own) {
                own = format!("{ALIAS}{name}").into();
                if number > 0 {
                    own.extend_from_slice(format!(".{number}").as_bytes());
                }
                number += 1;
            }
        }
        self.names.insert(own.clone());
        let weak = bind == binding::WEAK;
        let bind = if weak && *resolution == Resolution::Unknown { binding::WEAK } else { binding::GLOBAL };
        // A static call whose key lives in a module stays a call of its trampoline: objtool leaves calls to
        // weak symbols alone.
        let bind = match resolution {
            Resolution::Klp { object, .. } if object != VMLINUX && name.starts_with(b"__SCT__") => {
                binding::WEAK
            }
            _ => bind,
        };
        let symbol = self.out.add_symbol(Symbol::undefined(own.clone(), bind));
        if let Resolution::Klp { object, name, sympos, function } = resolution {
            self.references.push(extract::Reference {
                symbol: own.to_string(),
                object: object.clone(),
                name: name.to_string(),
                sympos: *sympos,
                function: *function,
            });
        }
        self.undefined.insert(key, symbol);
        symbol
    }

    /// Puts a string or constant into the pool of its section, once.
    fn pool(&mut self, from: Option<SectionId>, bytes: Vec<u8>) -> (SymbolId, u64) {
        let unit = self.parts.patched;
        let out = &mut self.out;
        let pool = self.pools.entry(from).or_insert_with(|| {
            let empty = Contents::Bytes(Cow::Owned(Vec::new()));
            let new = match from {
                Some(from) => {
                    let section = unit.object.section(from);
                    let mut new = like(section, section.align, empty);
                    // Linked as it is: merging would have to know what section symbols with offsets mean.
                    new.flags &= !(section_flags::MERGE | section_flags::STRINGS);
                    new.entry_size = 0;
                    new
                }
                None => Section::new(FILE_NAMES, section_type::PROGBITS, section_flags::ALLOC, 1, Vec::new()),
            };
            let align = usize::try_from(new.align.clamp(1, 4096)).unwrap_or(1);
            Pool { section: out.add_section(new), bytes: Vec::new(), align, known: BTreeMap::new() }
        });
        let place = if let Some(&place) = pool.known.get(&bytes) {
            place
        } else {
            pool.bytes.resize(pool.bytes.len().next_multiple_of(pool.align), 0);
            let place = pool.bytes.len() as u64;
            pool.bytes.extend_from_slice(&bytes);
            pool.known.insert(bytes, place);
            place
        };
        let section = pool.section;
        (self.section_symbol(section), place)
    }

    fn pour_pools(&mut self) {
        for pool in std::mem::take(&mut self.pools).into_values() {
            self.out.sections[pool.section.index()].contents = Contents::Bytes(Cow::Owned(pool.bytes));
        }
    }

    /// For each static call, objtool must find its key in the object; nothing else refers to it there.
    fn keep_keys(&mut self) {
        let mut entries = Vec::new();
        for trampoline in std::mem::take(&mut self.keys) {
            let key: BString = [b"__SCK__", &trampoline[7..]].concat().into();
            let unit = self.parts.patched;
            let defined = unit
                .object
                .symbols_with_ids()
                .find(|(_, s)| s.name.as_ref() == key && s.section().is_some())
                .and_then(|(id, _)| self.symbols.get(&id).copied());
            let symbol = match defined {
                Some(symbol) => symbol,
                None => match self.parts.lookup.external(key.as_ref()) {
                    Ok(Resolution::Klp { object, .. }) if object != VMLINUX => continue,
                    // Where the trampoline alone is exported, modules have no key and the kernel finds it by
                    // the trampoline.
                    Ok(Resolution::Unknown) if self.parts.lookup.is_exported(trampoline.as_ref()) => continue,
                    Ok(resolution) => self.undefined(key.as_ref(), &resolution, binding::GLOBAL),
                    Err(error) => {
                        self.errors.push((None, error));
                        continue;
                    }
                },
            };
            entries.push(symbol);
        }
        if entries.is_empty() {
            return;
        }
        let kind = self.out.machine.arch().absolute64();
        let mut section = Section::new(
            ".discard.addressable",
            section_type::PROGBITS,
            section_flags::ALLOC | section_flags::WRITE,
            8,
            vec![0; entries.len() * 8],
        );
        section.relocations = entries
            .into_iter()
            .enumerate()
            .map(|(i, symbol)| Relocation { offset: i as u64 * 8, kind, symbol: Some(symbol), addend: 0 })
            .collect();
        self.out.add_section(section);
    }

    /// Lists the tracer's call sites where recordmcount or objtool would have done so.
    fn entry_table(&mut self) {
        let unit = self.parts.patched;
        let mut sites = Vec::new();
        let placed: Vec<(ElementId, Placed)> = self.placed.iter().map(|(id, p)| (*id, *p)).collect();
        for (id, place) in placed {
            let element = unit.element(id);
            let listed = unit.entries_of[id.index()].iter().any(|e| {
                unit.element(*e).kind == Kind::Entry(TableKind::Entries) && self.placed.contains_key(e)
            });
            if element.kind != Kind::Function || listed {
                continue;
            }
            let (Some(reference), Some(main)) = (tracer_call(unit, id), element.main) else { continue };
            let Some(&symbol) = self.symbols.get(&main) else { continue };
            let field = reference.offset;
            // The field lies behind the operation code on x86, and is the instruction itself elsewhere.
            let front = u64::from(unit.object.machine == Machine::X86_64);
            let at = match field.checked_sub(front) {
                Some(at) if at >= element.start => at,
                _ => continue,
            };
            if front > 0 && reference.kind == 0 {
                self.restore_call(place, field);
            }
            sites.push((symbol, at as i64 - element.origin as i64));
        }
        if sites.is_empty() {
            return;
        }
        let kind = self.out.machine.arch().absolute64();
        let existing = self.out.section_named("__mcount_loc");
        let id = match existing {
            Some(id) => id,
            None => self.out.add_section(Section::new(
                "__mcount_loc",
                section_type::PROGBITS,
                section_flags::ALLOC,
                8,
                Vec::new(),
            )),
        };
        let section = &mut self.out.sections[id.index()];
        for (symbol, addend) in sites {
            let Contents::Bytes(bytes) = &mut section.contents else { return };
            let offset = bytes.len() as u64;
            bytes.to_mut().extend_from_slice(&[0; 8]);
            section.relocations.push(Relocation { offset, kind, symbol: Some(symbol), addend });
        }
    }

    /// recordmcount turned the call into a no-operation; the module loader expects it to be a call.
    fn restore_call(&mut self, place: Placed, field: u64) {
        let field = field.wrapping_add_signed(place.delta);
        let section = &mut self.out.sections[place.section.index()];
        let Contents::Bytes(bytes) = &mut section.contents else { return };
        let from = field as usize - 1;
        if let Some(site) = bytes.to_mut().get_mut(from..from + 5)
            && site[0] == 0x0f
        {
            site.copy_from_slice(&[0xe8, 0, 0, 0, 0]);
            for relocation in &mut section.relocations {
                if relocation.offset == field {
                    relocation.kind = 2;
                    relocation.addend = -4;
                }
            }
        }
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

/// Where a reference is, for people: its element and the distance from there.
fn place_of(unit: &Unit<'_>, by: ElementId, reference: &Reference) -> String {
    format!("{}+{:#x}", unit.name(by), reference.offset as i64 - unit.element(by).origin as i64)
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
        relocations: Vec::new(),
    }
}

/// What fills the space in front of code that has to keep its place.
fn filler(machine: Machine) -> u8 {
    if machine == Machine::X86_64 { 0x90 } else { 0 }
}

/// An alternative without replacement code points to nothing.
pub(crate) fn is_empty_replacement(unit: &Unit<'_>, id: ElementId, reference: &Reference) -> bool {
    let element = unit.element(id);
    element.kind == Kind::Entry(TableKind::Alternatives)
        && reference.offset == element.start + 4
        && tables::alternative_lengths(unit.object.machine, element.size())
            .and_then(|(_, at)| unit.bytes(id).get(at).copied())
            .is_some_and(|length| length == 0)
}

/// The reference of a function's entry to the tracer.
pub(crate) fn tracer_call<'a>(unit: &'a Unit<'_>, id: ElementId) -> Option<&'a Reference> {
    let origin = unit.element(id).origin;
    let mut references = unit.references(id).iter().filter(|r| r.offset >= origin);
    let is = |reference: &Reference, name: &[u8]| match reference.target {
        Target::External(symbol, _) => unit.object.symbol(symbol).name.as_bytes() == name,
        _ => false,
    };
    match unit.object.machine {
        Machine::X86_64 => references.next().filter(|r| is(r, b"__fentry__")),
        // Behind what makes the function's frame.
        Machine::Ppc64le => references.find(|r| is(r, b"_mcount")),
        Machine::Aarch64 | Machine::S390x | Machine::LoongArch64 => None,
    }
}
