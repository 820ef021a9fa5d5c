//! Where each section of the compiled unit lies in the shipped object.
//!
//! A linker moves a section as a whole, so one distance holds for all of it, and each reference into the
//! section is a witness. Text is placed by its functions; data by the names that the shipped symbol table
//! has there, or by contents.

use std::collections::BTreeMap;

use kbuild::symtab::{ShippedBinding, ShippedKind};
use kpatch_elf::{Contents, Object, SectionId, Symbol, binding, section_flags};

use super::shipped::{Location, Shipped};

/// The place of one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Where the section's first byte would be.
    pub(super) at: Location,
    /// A name or equal contents vouch for it; otherwise it was only seen.
    pub(super) proven: bool,
}

/// The places of a unit's sections.
pub(super) struct Bases<'a, 'd> {
    object: &'a Object<'d>,
    shipped: &'a Shipped<'a>,
    places: Vec<Option<Base>>,
    /// Symbols of each section by value, for finding the one that holds an offset.
    symbols: Vec<Vec<u32>>,
}

impl<'a, 'd> Bases<'a, 'd> {
    /// Places the text sections: the distance that most of its functions agree on wins.
    pub(super) fn place_text(object: &'a Object<'d>, shipped: &'a Shipped<'a>, file: &str) -> Bases<'a, 'd> {
        let mut symbols = vec![Vec::new(); object.sections.len()];
        for (id, symbol) in object.symbols_with_ids() {
            if let Some(section) = symbol.section().filter(|_| !symbol.is_section()) {
                symbols[section.index()].push(id.0);
            }
        }
        for list in &mut symbols {
            list.sort_by_key(|&i| (object.symbols[i as usize].value, i));
        }
        let mut bases = Bases { object, shipped, places: vec![None; object.sections.len()], symbols };
        for (id, section) in object.sections_with_ids() {
            if section.is_text() {
                bases.places[id.index()] = bases.vote(id, file);
            }
        }
        bases
    }

    pub(super) fn get(&self, section: SectionId) -> Option<Base> {
        self.places[section.index()]
    }

    fn vote(&self, section: SectionId, file: &str) -> Option<Base> {
        // A definition that the linker must have taken from this unit weighs more than a namesake.
        let mut votes: BTreeMap<Location, u32> = BTreeMap::new();
        for &index in &self.symbols[section.index()] {
            let symbol = &self.object.symbols[index as usize];
            if !symbol.is_function() {
                continue;
            }
            for id in self.shipped.symbols.named(symbol.name.as_ref()) {
                let found = self.shipped.symbols.symbol(id);
                if !found.defined || found.kind != ShippedKind::Function {
                    continue;
                }
                let of_this_file =
                    found.file.is_some_and(|f| self.shipped.symbols.symbol(f).name.as_ref() == file);
                let weight = match (symbol.binding, found.binding) {
                    (binding::LOCAL, ShippedBinding::Local) => 1 + 2 * u32::from(of_this_file),
                    (binding::GLOBAL, ShippedBinding::Global) => 4,
                    (binding::WEAK, ShippedBinding::Weak) => 2,
                    _ => continue,
                };
                let weight = weight + u32::from(found.size == symbol.size);
                *votes.entry(self.shipped.location(id).plus(-(symbol.value as i64))).or_default() += weight;
            }
        }
        // Of equals the first in address order; its bytes are compared in any case.
        let best = votes.values().max().copied()?;
        votes.into_iter().find(|&(_, count)| count == best).map(|(at, _)| Base { at, proven: true })
    }

    /// Takes note that `offset` of `section` was seen at `seen`; proves the place if it can.
    pub(super) fn witness(&mut self, section: SectionId, offset: i64, seen: Location) {
        if self.places[section.index()].is_some_and(|b| b.proven) {
            return;
        }
        let base = Base { at: seen.plus(-offset), proven: false };
        let proven = self.vouched_by_name(section, base.at) || self.vouched_by_contents(section, base.at);
        if proven || self.places[section.index()].is_none() {
            self.places[section.index()] = Some(Base { proven, ..base });
        }
    }

    /// Some symbol of the section is where the place says it must be.
    fn vouched_by_name(&self, section: SectionId, base: Location) -> bool {
        let is_name = |symbol: &Symbol<'_>| !symbol.name.is_empty() && !symbol.name.starts_with(b".L");
        self.symbols[section.index()]
            .iter()
            .map(|&i| &self.object.symbols[i as usize])
            .filter(|s| is_name(s))
            .take(16)
            .any(|symbol| {
                let at = base.plus(symbol.value as i64);
                self.shipped
                    .symbols
                    .at(at.section, at.value)
                    .any(|id| self.shipped.symbols.symbol(id).name == symbol.name)
            })
    }

    /// The section's bytes outside relocated fields are there, and are not all zero.
    fn vouched_by_contents(&self, id: SectionId, base: Location) -> bool {
        let section = self.object.section(id);
        let Contents::Bytes(bytes) = &section.contents else { return false };
        if section.has(section_flags::WRITE) || bytes.is_empty() {
            return false;
        }
        let Some(shipped) = self.shipped.bytes(base, bytes.len() as u64) else { return false };
        let arch = self.object.machine.arch();
        let mut telling = false;
        let mut from = 0;
        let fields = section.relocations.iter().map(|r| {
            let width = arch.field(r.kind).map_or(8, |f| usize::from(f.width));
            (r.offset as usize, (r.offset as usize).saturating_add(width))
        });
        for (start, end) in fields.chain(std::iter::once((bytes.len(), bytes.len()))) {
            let start = start.clamp(from, bytes.len());
            if bytes[from..start] != shipped[from..start] {
                return false;
            }
            telling |= bytes[from..start].iter().any(|&b| b != 0);
            from = end.min(bytes.len()).max(from);
        }
        // A table of nothing but addresses (a switch's jump table) tells by what the addresses are.
        telling || self.pointers_match(id, base)
    }

    /// All absolute pointers of a linked read-only section lead into text that is placed where they say.
    fn pointers_match(&self, id: SectionId, base: Location) -> bool {
        let section = self.object.section(id);
        let absolute = self.object.machine.arch().absolute64();
        !section.relocations.is_empty()
            && section.relocations.iter().all(|r| {
                let Some(symbol) = r.symbol.map(|s| self.object.symbol(s)) else { return false };
                let Some(target) = symbol.section().and_then(|s| self.get(s)).filter(|b| b.proven) else {
                    return false;
                };
                let at = base.plus(r.offset as i64);
                let word = self.shipped.bytes(at, 8).and_then(|b| self.object.endian.u64(b, 0));
                let expected = target.at.plus((symbol.value as i64).wrapping_add(r.addend));
                r.kind == absolute && expected.section.is_none() && word == Some(expected.value)
            })
    }
}
