//! The symbols of the linked object, and the relocations that refer to them.

use std::collections::BTreeMap;

use bstr::{BStr, ByteSlice};
use kpatch_elf::{Info, Object, Place, Relocation, SectionId, Symbol, SymbolId, binding, symbol_kind};

use super::names::is_static_call_bytes;
use super::{Extract, FILE_SYMBOL, LinkError, Linker, Maps, Names};

impl<'a, 'd> Linker<'a, 'd> {
    /// Copies symbols: definitions unit by unit, then what stays undefined.
    pub(super) fn place_symbols(&mut self, names: &Names<'a>) -> Maps {
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
                    let export = self.exports.get(name).filter(|e| !e.is_restricted());
                    let exported = export.is_some();
                    let weak = symbol.binding == binding::WEAK;
                    if !exported && self.is_spare_key(name) {
                        continue;
                    }
                    if !exported && !weak {
                        self.errors
                            .push(LinkError::Unresolved { unit: self.unit(unit), symbol: name.to_string() });
                        continue;
                    }
                    if let Some(export) = export.filter(|e| !e.namespace.is_empty()) {
                        self.namespaces.insert(export.namespace.to_string());
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

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        if let Some(&symbol) = self.section_symbols.get(&section) {
            return symbol;
        }
        let symbol = self.out.add_symbol(Symbol::of_section(section));
        self.section_symbols.insert(section, symbol);
        symbol
    }

    pub(super) fn place_relocations(&mut self, maps: &Maps) {
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
                        relocations.push(Relocation { offset: relocation.offset + base, ..relocation });
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
                self.out.sections[linked.index()].relocations.to_mut().extend(relocations);
            }
        }
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
