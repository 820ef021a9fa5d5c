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

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, BString, ByteSlice};
use kbuild::symvers::Symvers;
use kpatch_elf::arch::Machine;
use kpatch_elf::extract::{self, Manifest};
use kpatch_elf::klp::{self, VMLINUX};
use kpatch_elf::{
    Contents, Info, Link, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, binding,
    section_flags, section_type, symbol_kind,
};

mod error;

pub use error::LinkError;

use crate::manifest::{KlpReference, ModuleManifest, NewFunction, ObjectCallback, PatchedObject, Rename};
use crate::special::SPECIAL_SECTIONS;

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
    let import_namespaces: BTreeSet<&String> =
        extracts.iter().flat_map(|e| &e.manifest.import_namespaces).collect();
    let manifest = ModuleManifest {
        objects,
        references: names.references,
        import_namespaces: import_namespaces.into_iter().cloned().collect(),
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

impl<'a, 'd> Linker<'a, 'd> {
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

    /// Joins tables and strings; gives sections of single functions and data a name of their own.
    fn place_sections(&mut self) {
        let mut taken: BTreeSet<BString> = BTreeSet::new();
        let mut joined: BTreeMap<(BString, u32, u64, u64), SectionId> = BTreeMap::new();
        for extract in self.extracts {
            let mut bases = Vec::with_capacity(extract.object.sections.len());
            let mut linked = Vec::new();
            for section in &extract.object.sections {
                if left_out(section) {
                    bases.push(None);
                    continue;
                }
                if joins(section) {
                    let key = (
                        BString::from(section.name.to_vec()),
                        section.kind,
                        section.flags,
                        section.entry_size,
                    );
                    if let Some(&id) = joined.get(&key) {
                        let out = &mut self.out.sections[id.index()];
                        let end = out.size();
                        let base = append(out, section, self.extracts[0].object.machine);
                        if base != end
                            && SPECIAL_SECTIONS.iter().any(|s| section.name.as_ref() == s.as_bytes())
                        {
                            // What fills the gap would be read as an entry.
                            self.errors.push(LinkError::Section {
                                unit: extract.manifest.unit.clone(),
                                section: section.name.to_string(),
                                what: "its alignment leaves a gap between entries of two units",
                            });
                        }
                        bases.push(Some((id, base)));
                        continue;
                    }
                    let id = self.out.add_section(copy(section, section.name.clone()));
                    taken.insert(section.name.to_vec().into());
                    joined.insert(key, id);
                    bases.push(Some((id, 0)));
                    continue;
                }
                let name = if matches!(section.link, Link::None) {
                    unused_name(section.name.as_ref(), |name| taken.contains(name))
                } else {
                    // The code a table belongs to is told by its link; its name is what the kernel looks for.
                    section.name.clone()
                };
                taken.insert(name.to_vec().into());
                let id = self.out.add_section(copy(section, name));
                linked.push((id, section));
                bases.push(Some((id, 0)));
            }
            for (id, section) in linked {
                let map = |old: SectionId| bases.get(old.index()).copied().flatten().map(|(new, _)| new);
                let out = &mut self.out.sections[id.index()];
                out.link = match section.link {
                    Link::Section(old) => map(old).map_or(Link::None, Link::Section),
                    link => link,
                };
                if let Contents::Group { flags, members } = &section.contents {
                    let members = members.iter().filter_map(|&m| map(m)).collect();
                    out.contents = Contents::Group { flags: *flags, members };
                }
            }
            self.bases.push(bases);
        }
    }

    /// Decides what each undefined name means and under which name it appears.
    fn settle_names(&mut self) -> Names<'a> {
        let definitions = self.new_definitions();
        let mut of_unit = Vec::with_capacity(self.extracts.len());
        let mut references: Vec<KlpReference> = Vec::new();
        let mut by_key: BTreeMap<Key<'a>, usize> = BTreeMap::new();
        for extract in self.extracts {
            let manifest = &extract.manifest;
            let mut names = BTreeMap::new();
            for reference in &manifest.references {
                // What vmlinux defines is there from the start; the kernel refuses to see it asked for
                // later (`klp_resolve_symbols`).
                let gate = if reference.object == VMLINUX { VMLINUX } else { manifest.object.as_str() };
                let key = (gate, reference.object.as_str(), reference.name.as_str(), reference.sympos);
                let index = *by_key.entry(key).or_insert_with(|| {
                    references.push(KlpReference {
                        symbol: String::new(),
                        gate: gate.to_owned(),
                        object: reference.object.clone(),
                        name: reference.name.clone(),
                        sympos: reference.sympos,
                        function: reference.function,
                        units: Vec::new(),
                    });
                    references.len() - 1
                });
                references[index].function |= reference.function;
                references[index].units.push(manifest.unit.clone());
                if names.insert(reference.symbol.as_str(), index).is_some() {
                    self.errors.push(LinkError::Names {
                        unit: manifest.unit.clone(),
                        symbol: reference.symbol.clone(),
                        what: "listed twice",
                    });
                }
            }
            of_unit.push(names);
        }
        self.name_references(&mut references, &of_unit);
        Names { references, of_unit, definitions }
    }

    /// Global definitions that other units may refer to: all but the replaced functions.
    fn new_definitions(&mut self) -> Definitions<'a> {
        let mut definitions: Definitions<'a> = BTreeMap::new();
        let extracts: &'a [Extract<'d>] = self.extracts;
        for (unit, extract) in extracts.iter().enumerate() {
            let replaced: BTreeSet<&str> =
                extract.manifest.functions.iter().map(|f| f.symbol.as_str()).collect();
            for (id, symbol) in extract.object.symbols_with_ids() {
                let name = symbol.name.as_ref();
                if symbol.is_local()
                    || !matches!(symbol.place, Place::Section(_) | Place::Absolute)
                    || name.to_str().is_ok_and(|n| replaced.contains(n))
                {
                    continue;
                }
                let key = (extract.manifest.object.as_str(), name);
                match definitions.get(&key) {
                    None => {
                        definitions.insert(key, (unit, id));
                    }
                    Some(&(other, old)) => {
                        let weak = |s: &Symbol<'_>| s.binding == binding::WEAK;
                        if weak(symbol) {
                            continue;
                        }
                        if weak(extracts[other].object.symbol(old)) {
                            definitions.insert(key, (unit, id));
                        } else {
                            self.errors.push(LinkError::Duplicate {
                                symbol: name.to_string(),
                                first: self.unit(other),
                                second: self.unit(unit),
                            });
                        }
                    }
                }
            }
        }
        definitions
    }

    /// Gives each livepatch reference the name it goes by until convert.
    fn name_references(&mut self, references: &mut [KlpReference], of_unit: &[BTreeMap<&str, usize>]) {
        // Names that mean something else in this link: exports in use, and the few definitions that do not
        // become local.
        let mut taken: BTreeSet<String> = MODULE_NAMES.iter().map(|&n| n.to_owned()).collect();
        for (unit, extract) in self.extracts.iter().enumerate() {
            for symbol in &extract.object.symbols {
                let name = symbol.name.to_string();
                let visible = if symbol.is_undefined() {
                    !of_unit[unit].contains_key(name.as_str())
                } else {
                    !symbol.is_local() && is_static_call(&name)
                };
                if visible {
                    taken.insert(name);
                }
            }
        }
        for reference in references {
            let name = reference.name.as_str();
            // modpost would say that two objects export it, or take the export's CRC for it.
            let exported = self.exports.get(name.into()).is_some();
            // modpost cuts a number behind the first dot off (`remove_dot`, against LTO's suffixes).
            let unspeakable = name.len() > MAX_VERSIONED_NAME || name.contains('.');
            // objtool knows static calls by name and lists them in a table, which the kernel works through
            // before it knows where a module's keys are. Under another name it is a plain call of the
            // trampoline, which always leads where the static call does.
            let early = is_static_call(name) && reference.gate != VMLINUX;
            reference.symbol = if exported || unspeakable || early || taken.contains(name) {
                alias(name, |candidate| {
                    taken.contains(candidate) || self.exports.get(candidate.into()).is_some()
                })
            } else {
                name.to_owned()
            };
            taken.insert(reference.symbol.clone());
        }
    }

    /// Copies symbols: definitions unit by unit, then what stays undefined.
    fn place_symbols(&mut self, names: &Names<'a>) -> Maps {
        let extracts: &'a [Extract<'d>] = self.extracts;
        let mut maps: Maps = extracts.iter().map(|e| vec![None; e.object.symbols.len()]).collect();
        // One file for all: from several, objtool would conclude that this is a finished module.
        self.out.add_symbol(Symbol {
            kind: symbol_kind::FILE,
            place: Place::Absolute,
            ..Symbol::undefined(FILE_SYMBOL, binding::LOCAL)
        });
        for (unit, extract) in extracts.iter().enumerate() {
            for (id, symbol) in extract.object.symbols_with_ids() {
                let place = match symbol.place {
                    Place::Section(section) => {
                        self.bases[unit][section.index()].map(|(new, base)| (Place::Section(new), base))
                    }
                    Place::Undefined | Place::Common => None,
                    _ if symbol.kind == symbol_kind::FILE => None,
                    place => Some((place, 0)),
                };
                let Some((place, base)) = place else { continue };
                let linked = match (symbol.kind, place) {
                    (symbol_kind::SECTION, Place::Section(section)) => self.section_symbol(section),
                    _ => self.out.add_symbol(Symbol {
                        value: symbol.value.wrapping_add(base),
                        binding: if is_static_call_bytes(symbol.name.as_ref()) {
                            symbol.binding
                        } else {
                            binding::LOCAL
                        },
                        place,
                        ..symbol.clone()
                    }),
                };
                maps[unit][id.index()] = Some(linked);
            }
        }
        let mut klp: Vec<Option<SymbolId>> = vec![None; names.references.len()];
        let mut exports: BTreeMap<&BStr, SymbolId> = BTreeMap::new();
        for (unit, extract) in extracts.iter().enumerate() {
            let used = used_symbols(&extract.object, &self.bases[unit]);
            for (id, symbol) in extract.object.symbols_with_ids() {
                if !symbol.is_undefined() || !used[id.index()] {
                    continue;
                }
                let name = symbol.name.as_ref();
                let reference = name.to_str().ok().and_then(|n| names.of_unit[unit].get(n));
                let linked = if let Some(&reference) = reference {
                    *klp[reference].get_or_insert_with(|| {
                        let name = names.references[reference].symbol.as_str();
                        self.out.add_symbol(Symbol::undefined(name, binding::GLOBAL))
                    })
                } else if let Some((definer, definition)) = self.find_definition(names, unit, name) {
                    match maps[definer][definition.index()] {
                        Some(linked) => linked,
                        None => continue,
                    }
                } else {
                    let exported = self.exports.get(name).is_some_and(|e| !e.is_restricted());
                    let weak = symbol.binding == binding::WEAK;
                    if !exported && self.is_spare_key(name) {
                        continue;
                    }
                    if !exported && !weak {
                        self.errors
                            .push(LinkError::Unresolved { unit: self.unit(unit), symbol: name.to_string() });
                        continue;
                    }
                    let out = &mut self.out;
                    let linked = *exports
                        .entry(name)
                        .or_insert_with(|| out.add_symbol(Symbol::undefined(name, symbol.binding)));
                    if !weak {
                        out.symbols[linked.index()].binding = binding::GLOBAL;
                    }
                    linked
                };
                maps[unit][id.index()] = Some(linked);
            }
            for name in names.of_unit[unit].keys() {
                let found = extract
                    .object
                    .symbols
                    .iter()
                    .find(|s| s.name.as_ref() == name.as_bytes() && !s.is_local());
                let what = match found {
                    Some(symbol) if symbol.is_undefined() => continue,
                    Some(_) => "defined",
                    None => "absent",
                };
                let symbol = (*name).to_owned();
                self.errors.push(LinkError::Names { unit: self.unit(unit), symbol, what });
            }
        }
        maps
    }

    /// The new definition that `unit` means by a name: that of its own object, else that of vmlinux. One of
    /// another module is out of reach, as that module need not be loaded.
    fn find_definition(&mut self, names: &Names<'a>, unit: usize, name: &BStr) -> Option<(usize, SymbolId)> {
        let extracts: &'a [Extract<'d>] = self.extracts;
        let user = &extracts[unit].manifest;
        let near =
            [user.object.as_str(), VMLINUX].into_iter().find_map(|o| names.definitions.get(&(o, name)));
        if near.is_some() || self.exports.get(name).is_some() {
            return near.copied();
        }
        let (_, &(definer, symbol)) = names.definitions.iter().find(|((_, other), _)| *other == name)?;
        let owner = &extracts[definer].manifest;
        self.errors.push(LinkError::CrossObject {
            unit: user.unit.clone(),
            user: user.object.clone(),
            symbol: name.to_string(),
            definer: owner.unit.clone(),
            object: owner.object.clone(),
        });
        Some((definer, symbol))
    }

    /// The key of a static call whose trampoline is exported, and the key is not
    /// (`EXPORT_STATIC_CALL_TRAMP`). Code of modules then names the trampoline for its key, as objtool
    /// arranges where it finds no key, and the kernel knows which key that means.
    fn is_spare_key(&self, name: &BStr) -> bool {
        let Some(call) = name.strip_prefix(b"__SCK__") else { return false };
        let trampoline = [b"__SCT__", call].concat();
        self.exports.get(trampoline.as_bstr()).is_some_and(|e| !e.is_restricted())
    }

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        if let Some(&symbol) = self.section_symbols.get(&section) {
            return symbol;
        }
        let symbol = self.out.add_symbol(Symbol {
            name: Cow::Borrowed(BStr::new(b"")),
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

    fn place_relocations(&mut self, maps: &Maps) {
        let extracts: &'a [Extract<'d>] = self.extracts;
        for (unit, extract) in extracts.iter().enumerate() {
            for (id, section) in extract.object.sections_with_ids() {
                let Some((linked, base)) = self.bases[unit][id.index()] else { continue };
                if let Info::Symbol(signature) = section.info {
                    self.out.sections[linked.index()].info =
                        maps[unit][signature.index()].map_or(Info::Raw(0), Info::Symbol);
                }
                let mut relocations = Vec::with_capacity(section.relocations.len());
                for relocation in &section.relocations {
                    let Some(old) = relocation.symbol else {
                        relocations.push(Relocation { offset: relocation.offset + base, ..*relocation });
                        continue;
                    };
                    let symbol = extract.object.symbol(old);
                    let Some(new) = maps[unit][old.index()] else {
                        if symbol.section().is_some() {
                            self.errors.push(LinkError::Section {
                                unit: self.unit(unit),
                                section: section.name.to_string(),
                                what: "a relocation's target is not part of the link",
                            });
                        }
                        // Undefined and unresolved: said already.
                        continue;
                    };
                    let shift = match symbol.section() {
                        Some(target) if symbol.is_section() => {
                            self.bases[unit][target.index()].map_or(0, |(_, base)| base)
                        }
                        _ => 0,
                    };
                    relocations.push(Relocation {
                        offset: relocation.offset + base,
                        kind: relocation.kind,
                        symbol: Some(new),
                        addend: relocation.addend.wrapping_add(shift as i64),
                    });
                }
                self.out.sections[linked.index()].relocations.extend(relocations);
            }
        }
    }

    /// The tables of the hook.
    fn objects(&mut self, maps: &Maps) -> Vec<PatchedObject> {
        let extracts: &'a [Extract<'d>] = self.extracts;
        let mut objects: BTreeMap<(bool, &str), PatchedObject> = BTreeMap::new();
        for (unit, extract) in extracts.iter().enumerate() {
            let manifest = &extract.manifest;
            let module = manifest.object != VMLINUX;
            if !module && manifest.functions.is_empty() && manifest.callbacks.is_empty() {
                continue;
            }
            // A module's relocations are applied only if the module is among the patched objects, also
            // when nothing but new code belongs to it.
            let object = objects.entry((module, manifest.object.as_str())).or_insert_with(|| PatchedObject {
                name: manifest.object.clone(),
                functions: Vec::new(),
                callbacks: Vec::new(),
            });
            for function in &manifest.functions {
                let Some(symbol) = self.own_symbol(unit, maps, &function.symbol) else { continue };
                let linked = self.unique_name(symbol, &function.symbol, false);
                let same = object
                    .functions
                    .iter()
                    .find(|f| f.name == function.name && f.sympos.max(1) == function.sympos.max(1));
                if let Some(other) = same {
                    self.errors.push(LinkError::TwoReplacements {
                        object: object.name.clone(),
                        name: function.name.clone(),
                        sympos: function.sympos,
                        first: other.unit.clone(),
                        second: manifest.unit.clone(),
                    });
                }
                object.functions.push(NewFunction {
                    symbol: linked,
                    name: function.name.clone(),
                    sympos: function.sympos,
                    old_size: function.old_size,
                    unit: manifest.unit.clone(),
                });
            }
            for callback in &manifest.callbacks {
                let Some(symbol) = self.own_symbol(unit, maps, &callback.symbol) else { continue };
                let linked = self.unique_name(symbol, &callback.symbol, true);
                if let Some(other) = object.callbacks.iter().find(|c| c.kind == callback.kind) {
                    self.errors.push(LinkError::TwoCallbacks {
                        object: object.name.clone(),
                        kind: callback.kind,
                        first: format!("{}: {}", other.unit, other.symbol),
                        second: format!("{}: {}", manifest.unit, callback.symbol),
                    });
                }
                object.callbacks.push(ObjectCallback {
                    kind: callback.kind,
                    symbol: linked,
                    unit: manifest.unit.clone(),
                });
            }
        }
        objects.into_values().collect()
    }

    /// The linked symbol of a function that the manifest of `unit` names.
    fn own_symbol(&mut self, unit: usize, maps: &Maps, name: &str) -> Option<SymbolId> {
        let object = &self.extracts[unit].object;
        let mut found = object
            .symbols_with_ids()
            .filter(|(_, s)| s.name.as_ref() == name.as_bytes() && s.is_function() && s.section().is_some());
        let what = match (found.next(), found.next()) {
            (Some((id, _)), None) => match maps[unit][id.index()] {
                Some(symbol) => return Some(symbol),
                None => "left out",
            },
            (Some(_), Some(_)) => "there twice",
            (None, _) => "no function",
        };
        self.errors.push(LinkError::Names { unit: self.unit(unit), symbol: name.to_owned(), what });
        None
    }

    /// Makes sure that no other symbol has the name of `symbol`, as hook and convert look it up by name.
    fn unique_name(&mut self, symbol: SymbolId, name: &str, callback: bool) -> String {
        if self.out.symbol(symbol).name.as_ref() != name.as_bytes() {
            // Named before, for another role.
            return self.out.symbol(symbol).name.to_string();
        }
        let count = self.out.symbols.iter().filter(|s| s.name.as_ref() == name.as_bytes()).count();
        // The hook's C file names callbacks, so that objtool sees their address taken.
        if count == 1 && !callback && !name.starts_with(crate::hook::PREFIX) {
            return name.to_owned();
        }
        let role = if callback { "callback" } else { "new" };
        let linked = format!("{}{role}_{}", crate::hook::PREFIX, self.renames.len());
        let entry = &mut self.out.symbols[symbol.index()];
        entry.name = Cow::Owned(linked.clone().into());
        if callback {
            entry.binding = binding::GLOBAL;
        }
        self.renames.push(Rename { linked: linked.clone(), name: name.to_owned() });
        linked
    }
}

/// Sections that are of no use to the module.
fn left_out(section: &Section<'_>) -> bool {
    section.name.as_ref() == extract::SECTION.as_bytes()
        || section.name.as_ref() == ".note.GNU-stack"
        || section.name.as_ref() == ".note.gnu.property"
        || section.name.as_ref() == ".comment"
        || section.kind == section_type::LLVM_ADDRSIG
}

/// Sections that the linked object has only one of by name: tables, which objtool and the module loader
/// find by name, and strings. Sections that -ffunction-sections and -fdata-sections made stay single.
fn joins(section: &Section<'_>) -> bool {
    const SINGLE: [&str; 5] = [".text.", ".data.", ".bss.", ".rodata.", ".ref.text."];
    if !matches!(section.link, Link::None) || matches!(section.contents, Contents::Group { .. }) {
        return false;
    }
    if section.has(section_flags::GROUP) {
        return false;
    }
    if section.has(section_flags::MERGE) {
        return true;
    }
    // Two dots mark names that mean something to the kernel: .data..ro_after_init, .text..refcount.
    !SINGLE.iter().any(|prefix| {
        section.name.strip_prefix(prefix.as_bytes()).is_some_and(|rest| !rest.starts_with(b"."))
    })
}

fn copy<'d>(section: &Section<'d>, name: Cow<'d, BStr>) -> Section<'d> {
    Section { name, link: Link::None, relocations: Vec::new(), ..section.clone() }
}

/// Puts a section behind what is there, returns the offset it got.
fn append(out: &mut Section<'_>, section: &Section<'_>, machine: Machine) -> u64 {
    let code = out.is_text();
    let align = section.align.max(1);
    let base = out.size().checked_next_multiple_of(align).unwrap_or(u64::MAX);
    out.align = out.align.max(section.align);
    match (&mut out.contents, &section.contents) {
        (Contents::Bytes(bytes), Contents::Bytes(more)) => {
            let bytes = bytes.to_mut();
            // objtool reads what is between functions as code.
            let filler = if code { no_operation(machine) } else { &[0] };
            while (bytes.len() as u64) < base {
                bytes.push(filler[bytes.len() % filler.len()]);
            }
            bytes.extend_from_slice(more);
        }
        (Contents::Zero(size), Contents::Zero(more)) => *size = base.saturating_add(*more),
        // The key of joined sections holds their type, so that contents are of one kind.
        _ => {}
    }
    base
}

/// An instruction that does nothing, in memory order.
fn no_operation(machine: Machine) -> &'static [u8] {
    match machine {
        Machine::X86_64 => &[0x90],
        Machine::Aarch64 => &[0x1f, 0x20, 0x03, 0xd5],
        Machine::Ppc64le => &[0x00, 0x00, 0x00, 0x60],
        Machine::S390x => &[0x07, 0x07],
        Machine::LoongArch64 => &[0x00, 0x00, 0x40, 0x03],
    }
}

fn used_symbols(object: &Object<'_>, bases: &[Option<(SectionId, u64)>]) -> Vec<bool> {
    let mut used = vec![false; object.symbols.len()];
    for (id, section) in object.sections_with_ids() {
        if bases[id.index()].is_some() {
            for symbol in section.relocations.iter().filter_map(|r| r.symbol) {
                used[symbol.index()] = true;
            }
        }
    }
    used
}

/// `NAME`, or `NAME.2`, `NAME.3` and so on, whichever is unused.
fn unused_name<'d>(name: &BStr, taken: impl Fn(&BString) -> bool) -> Cow<'d, BStr> {
    let mut candidate = BString::from(name.to_vec());
    let mut number = 1u32;
    while taken(&candidate) {
        number += 1;
        candidate = BString::from(name.to_vec());
        candidate.extend_from_slice(format!(".{number}").as_bytes());
    }
    Cow::Owned(candidate)
}

/// A name for a reference whose own name cannot be used.
fn alias(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .map(|c| if c == '.' { '_' } else { c })
        .take(MAX_VERSIONED_NAME - "kpatch_hook_ref__000".len())
        .collect();
    let mut candidate = format!("{}ref_{plain}", crate::hook::PREFIX);
    let mut number = 1u32;
    while taken(&candidate) {
        number += 1;
        candidate = format!("{}ref_{plain}_{number}", crate::hook::PREFIX);
    }
    candidate
}

/// objtool finds trampolines and keys of static calls by their names (`__SCT__`, `__SCK__`).
fn is_static_call(name: &str) -> bool {
    name.starts_with("__SCT__") || name.starts_with("__SCK__")
}

fn is_static_call_bytes(name: &BStr) -> bool {
    name.to_str().is_ok_and(is_static_call)
}
