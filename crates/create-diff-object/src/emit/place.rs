//! Gives every element its section, and makes the symbols of what was placed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kpatch_elf::arch::Machine;
use kpatch_elf::{Contents, Link, Place, SectionId, Symbol, SymbolId, section_flags, section_type};

use super::{Emitter, Placed, like};
use crate::error::DiffError;
use crate::tables::{self, Class, TableKind};
use crate::unit::{ElementId, Kind};

impl Emitter<'_, '_> {
    /// Gives every selected element its section.
    pub(super) fn place(&mut self) {
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
    pub(super) fn place_orc(
        &mut self,
        id: ElementId,
        shared: &mut BTreeMap<(SectionId, Option<SectionId>), SectionId>,
    ) {
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

    /// A second name of a function that the original has as well: it leads to the original, which is replaced under
    /// its first name.
    fn is_spare(&self, owner: ElementId, id: SymbolId) -> bool {
        let (original, patched) = (self.parts.original, self.parts.patched);
        let (element, symbol) = (patched.element(owner), patched.object.symbol(id));
        let alias = element.kind == Kind::Function
            && element.main != Some(id)
            && symbol.is_function()
            && symbol.value == element.origin;
        let twin = self.parts.twins.of_patched[owner.index()];
        alias && twin.is_some_and(|twin| original.names(twin).any(|name| name == symbol.name.as_ref()))
    }

    /// Makes the symbols of what was placed.
    pub(super) fn name(&mut self) {
        let unit = self.parts.patched;
        let mut files = BTreeSet::new();
        for id in self.placed.keys() {
            for symbol in unit.symbols(*id) {
                files.extend(unit.file_of[symbol.index()]);
            }
        }
        let used: BTreeSet<SymbolId> = self
            .placed
            .keys()
            .flat_map(|id| unit.references(*id))
            .filter_map(crate::unit::Reference::symbol)
            .collect();
        let mut owners: BTreeMap<SymbolId, ElementId> = BTreeMap::new();
        for id in self.placed.keys() {
            owners.extend(unit.symbols(*id).iter().map(|s| (*s, *id)));
        }
        for (id, symbol) in unit.object.symbols_with_ids() {
            if files.contains(&id) {
                let new = self.out.add_symbol(Symbol { place: Place::Absolute, ..symbol.clone() });
                self.symbols.insert(id, new);
            }
            let Some(owner) = owners.get(&id) else { continue };
            let Some(placed) = self.placed.get(owner) else { continue };
            if !used.contains(&id) && self.is_spare(*owner, id) {
                continue;
            }
            let mut new = symbol.clone();
            new.place = Place::Section(placed.section);
            new.value = symbol.value.wrapping_add_signed(placed.delta);
            self.names.insert(symbol.name.as_ref().into());
            let new = self.out.add_symbol(new);
            self.symbols.insert(id, new);
        }
    }
}

/// What fills the space in front of code that has to keep its place.
fn filler(machine: Machine) -> u8 {
    if machine == Machine::X86_64 { 0x90 } else { 0 }
}
