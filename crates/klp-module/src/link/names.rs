//! What each undefined name means, and under which name it appears in the linked object.

use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, ByteSlice};
use kpatch_elf::klp::VMLINUX;
use kpatch_elf::{Place, Symbol, SymbolId, binding};

use super::{Definitions, Extract, Key, LinkError, Linker, MAX_VERSIONED_NAME, MODULE_NAMES, Names};
use crate::manifest::KlpReference;

impl<'a, 'd> Linker<'a, 'd> {
    /// Decides what each undefined name means and under which name it appears.
    pub(super) fn settle_names(&mut self) -> Names<'a> {
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

    /// The new definition that `unit` means by a name: that of its own object, else that of vmlinux. One of
    /// another module is out of reach, as that module need not be loaded.
    pub(super) fn find_definition(
        &mut self,
        names: &Names<'a>,
        unit: usize,
        name: &BStr,
    ) -> Option<(usize, SymbolId)> {
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
    pub(super) fn is_spare_key(&self, name: &BStr) -> bool {
        let Some(call) = name.strip_prefix(b"__SCK__") else { return false };
        let trampoline = [b"__SCT__", call].concat();
        self.exports.get(trampoline.as_bstr()).is_some_and(|e| !e.is_restricted())
    }
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

pub(super) fn is_static_call_bytes(name: &BStr) -> bool {
    name.to_str().is_ok_and(is_static_call)
}
