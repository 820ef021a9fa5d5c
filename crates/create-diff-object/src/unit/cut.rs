//! Cuts sections into elements.

use bstr::{BStr, ByteSlice};
use kpatch_elf::{Relocation, Section, SectionId, SymbolId, binding, symbol_kind};

use super::{Element, Kind, Unit};
use crate::error::DiffError;
use crate::names;
use crate::sizes::EntrySizes;
use crate::tables::{self, Class, EntrySize, TableKind};

impl Unit<'_> {
    /// Where code without functions has to be cut: every place that something refers to.
    pub(super) fn cuts(&self) -> Vec<Vec<u64>> {
        let mut cuts = vec![Vec::new(); self.object.sections.len()];
        let detached: Vec<bool> = self
            .object
            .sections
            .iter()
            .zip(&self.classes)
            .map(|(section, class)| *class == Class::Text && tables::is_detached_code(section.name.as_ref()))
            .collect();
        if !detached.contains(&true) {
            return cuts;
        }
        let is_detached = |r: &Relocation| {
            let section = r.symbol.and_then(|s| self.object.symbol(s).section());
            section.is_some_and(|id| detached[id.index()])
        };
        for (index, section) in self.object.sections.iter().enumerate() {
            if self.classes[index] == Class::Ignored {
                continue;
            }
            let code = matches!(self.classes[index], Class::Text);
            let arch = self.object.machine.arch();
            let mut from = 0;
            for relocation in section.relocations.iter().filter(is_detached) {
                let Some(symbol) = relocation.symbol.map(|s| self.object.symbol(s)) else { continue };
                let Some(target) = symbol.section() else { continue };
                let found = code
                    .then(|| arch.relocated(relocation.kind, section.bytes(), from, relocation.offset))
                    .flatten();
                from = found.map_or(from, |instruction| instruction.offset);
                let to_end = found.map(|i| i.offset + u64::from(i.length) - relocation.offset);
                let bias = arch.addend_bias(relocation.kind, to_end);
                let place = symbol.value.wrapping_add_signed(relocation.addend.wrapping_add(bias));
                cuts[target.index()].push(place);
            }
        }
        for list in &mut cuts {
            list.sort_unstable();
            list.dedup();
        }
        cuts
    }

    fn push(&mut self, kind: Kind, section: SectionId, range: std::ops::Range<u64>, main: Option<SymbolId>) {
        let origin = main.map_or(range.start, |s| self.object.symbol(s).value);
        let padding = kind == Kind::Unnamed && self.is_padding(section, &range);
        self.elements.push(Element {
            kind,
            section,
            start: range.start,
            end: range.end,
            origin,
            main,
            symbols: 0..0,
            padding,
            references: 0..0,
        });
    }

    fn is_padding(&self, section: SectionId, range: &std::ops::Range<u64>) -> bool {
        let section = self.object.section(section);
        let bytes = section.bytes().get(range.start as usize..range.end as usize);
        bytes.is_none_or(|bytes| bytes.iter().all(|&b| b == 0))
            && section.relocations_in(range.start, range.end).is_empty()
    }

    /// For each section, the places that `__patchable_function_entries` lists, sorted.
    pub(super) fn patchable(&self) -> Vec<Vec<u64>> {
        let mut places = vec![Vec::new(); self.object.sections.len()];
        let lists =
            self.object.sections.iter().filter(|s| s.name.as_bytes() == b"__patchable_function_entries");
        for relocation in lists.flat_map(|s| s.relocations.iter()) {
            let Some(symbol) = relocation.symbol.map(|s| self.object.symbol(s)) else { continue };
            if let Some(section) = symbol.section() {
                places[section.index()].push(symbol.value.wrapping_add_signed(relocation.addend));
            }
        }
        for list in &mut places {
            list.sort_unstable();
        }
        places
    }

    /// `symbols` are those of the section, sorted by value; `cuts` and `patchable` its places.
    pub(super) fn cut_text(&mut self, id: SectionId, symbols: &[SymbolId], cuts: &[u64], patchable: &[u64]) {
        let size = self.object.section(id).size();
        let heads: Vec<SymbolId> = symbols
            .iter()
            .copied()
            .filter(|&s| {
                let symbol = self.object.symbol(s);
                symbol.is_function() && !names::is_prefix_symbol(symbol.name.as_ref()) && symbol.value <= size
            })
            .collect();
        if heads.is_empty() {
            let mut bounds: Vec<u64> = cuts.iter().copied().filter(|&c| c > 0 && c < size).collect();
            bounds.push(size);
            let mut start = 0;
            for end in bounds {
                if end > start {
                    self.push(Kind::Detached, id, start..end, None);
                    start = end;
                }
            }
        } else {
            // Aliases have the same value; the best one gives the name.
            let mut starts: Vec<(u64, SymbolId)> = Vec::with_capacity(heads.len());
            for &head in &heads {
                let value = self.object.symbol(head).value;
                match starts.last_mut() {
                    Some((start, main)) if *start == value => {
                        if self.precedence(head) < self.precedence(*main) {
                            *main = head;
                        }
                    }
                    _ => starts.push((value, head)),
                }
            }
            let mut start = 0;
            for (position, &(value, main)) in starts.iter().enumerate() {
                let end = match starts.get(position + 1) {
                    Some(&(next, _)) => self.front_of(value, main, next, symbols, patchable),
                    None => size,
                };
                self.push(Kind::Function, id, start..end, Some(main));
                start = end;
            }
        }
        self.assign(id, symbols);
    }

    /// Which of several names an element goes by, whatever their order in the symbol table: the one that the
    /// compiler named the section after, global before weak before local, then by name.
    fn precedence(&self, id: SymbolId) -> (bool, u8, &BStr) {
        let symbol = self.object.symbol(id);
        let section = symbol.section().map(|s| self.object.section(s).name.as_bytes()).unwrap_or_default();
        let front = section.strip_suffix(symbol.name.as_bytes());
        let named = front.is_some_and(|front| front.ends_with(b"."));
        let rank = match symbol.binding {
            binding::GLOBAL => 0,
            binding::WEAK => 1,
            _ => 2,
        };
        (!named, rank, symbol.name.as_ref())
    }

    /// Where what belongs to the function at `next` begins: its prefix symbol or patchable padding, at the
    /// earliest where the previous function ends.
    fn front_of(
        &self,
        value: u64,
        main: SymbolId,
        next: u64,
        symbols: &[SymbolId],
        patchable: &[u64],
    ) -> u64 {
        let previous_end = value.saturating_add(self.object.symbol(main).size).clamp(value, next);
        let from = symbols.partition_point(|&s| self.object.symbol(s).value < previous_end);
        let prefix = symbols[from..]
            .iter()
            .map(|&s| self.object.symbol(s))
            .take_while(|s| s.value < next)
            .find(|s| names::is_prefix_symbol(s.name.as_ref()));
        if let Some(prefix) = prefix {
            return prefix.value;
        }
        // Padding that `-fpatchable-function-entry=N,N` put there is reported by an entry of its own.
        let from = patchable.partition_point(|&place| place < previous_end);
        patchable.get(from).copied().filter(|&place| place < next).unwrap_or(next)
    }

    pub(super) fn cut_data(&mut self, id: SectionId, symbols: &[SymbolId]) {
        let section = self.object.section(id);
        let size = section.size();
        let name = section.name.clone();
        let name: &BStr = name.as_ref();
        if tables::is_toc(name) {
            for start in (0..section.bytes().len() as u64).step_by(8) {
                self.push(Kind::Unnamed, id, start..(start + 8).min(size), None);
            }
            return;
        }
        let sanitizer = names::is_sanitizer_data(name) || names::is_clang_unnamed(name);
        let mut starts: Vec<(u64, SymbolId)> = Vec::with_capacity(symbols.len());
        for &s in symbols {
            let symbol = self.object.symbol(s);
            let named = matches!(symbol.kind, symbol_kind::OBJECT | symbol_kind::TLS)
                || symbol.kind == symbol_kind::NOTYPE && !symbol.name.starts_with(b".L");
            if !named || symbol.value > size || sanitizer {
                continue;
            }
            match starts.last_mut() {
                Some((value, main)) if *value == symbol.value => {
                    let old = self.object.symbol(*main);
                    let larger = symbol.size > old.size;
                    if larger || symbol.size == old.size && self.precedence(s) < self.precedence(*main) {
                        *main = s;
                    }
                }
                _ => starts.push((symbol.value, s)),
            }
        }
        let mut start = 0;
        for (position, &(value, main)) in starts.iter().enumerate() {
            // Symbols inside another's extent are parts of it.
            if value < start {
                continue;
            }
            if value > start {
                self.push(Kind::Unnamed, id, start..value, None);
            }
            let symbol = self.object.symbol(main);
            let next = starts.iter().skip(position + 1).map(|s| s.0).find(|&v| v > value).unwrap_or(size);
            let end = if symbol.size > 0 { value.saturating_add(symbol.size).min(size) } else { next };
            let kind = match names::special_static(symbol.name.as_ref(), name) {
                Some(special) if symbol.is_local() => Kind::Special(special),
                _ => Kind::Datum,
            };
            self.push(kind, id, value..end, Some(main));
            start = end;
        }
        if size > start {
            self.push(Kind::Unnamed, id, start..size, None);
        }
        self.assign(id, symbols);
    }

    pub(super) fn cut_table(
        &mut self,
        id: SectionId,
        kind: TableKind,
        how: EntrySize,
        sizes: &EntrySizes,
    ) -> Result<(), DiffError> {
        let section = self.object.section(id);
        // A section without bytes in the file has no entries.
        let size = section.bytes().len() as u64;
        if size == 0 {
            return Ok(());
        }
        let name = section.name.clone();
        let starts: Vec<u64> = section.relocations.iter().map(|r| r.offset).collect();
        let given = match how {
            EntrySize::Bytes(bytes) => Some(bytes),
            EntrySize::Structure(structure) => sizes.get(structure).map(u64::from),
            // Where nothing is relocated, nothing is about code of this unit.
            EntrySize::Layout if starts.is_empty() => return Ok(()),
            EntrySize::Layout => Some(size / starts.len() as u64),
        };
        // The relocations have the last word: they show where entries begin, and each bug has one address.
        let bugs = (kind == TableKind::Bugs).then(|| self.code_relocations(section));
        let right = |entry: u64| fits(size, entry, &starts) && bugs.is_none_or(|n| n * entry == size);
        let entry = match given.filter(|&entry| right(entry)) {
            Some(entry) => entry,
            None => match stride(section, size).filter(|&entry| right(entry)) {
                Some(entry) => {
                    if let Some(given) = given {
                        self.warnings.push(format!(
                            "{name}: its relocations show entries of {entry} bytes, not {given}"
                        ));
                    }
                    entry
                }
                None => {
                    return Err(match (how, given) {
                        (EntrySize::Structure(structure), None) => DiffError::EntrySizeUnknown {
                            section: names::text(name.as_ref()),
                            structure: structure.structure(),
                            variable: structure.variable(),
                        },
                        (_, given) => DiffError::EntrySizeWrong {
                            section: names::text(name.as_ref()),
                            size,
                            entry: given.unwrap_or_default(),
                        },
                    });
                }
            },
        };
        for index in 0..size.div_ceil(entry) {
            let end = ((index + 1) * entry).min(size);
            self.push(Kind::Entry(kind), id, index * entry..end, None);
        }
        Ok(())
    }

    /// How many relocations of a section lead to code.
    fn code_relocations(&self, section: &Section<'_>) -> u64 {
        let code = |r: &Relocation| {
            let target = r.symbol.and_then(|s| self.object.symbol(s).section());
            target.is_some_and(|id| self.classes[id.index()] == Class::Text)
        };
        section.relocations.iter().filter(code).count() as u64
    }

    /// Gives every symbol of a section to the element it lies in.
    fn assign(&mut self, id: SectionId, symbols: &[SymbolId]) {
        let from = self.elements.iter().rposition(|e| e.section != id).map_or(0, |p| p + 1);
        let mut at = from;
        for &s in symbols {
            let value = self.object.symbol(s).value;
            // A symbol at the very end of an element belongs to the next one, the last excepted.
            while at + 1 < self.elements.len() && self.elements[at].end <= value {
                at += 1;
            }
            if let Some(element) = self.elements.get_mut(at) {
                let next = self.element_symbols.len() as u32;
                if element.symbols.is_empty() {
                    element.symbols.start = next;
                }
                element.symbols.end = next + 1;
                self.element_symbols.push(s);
            }
        }
    }
}

/// Whether a section consists of entries of that size: the first relocation of each is at the same place of it, its
/// beginning or, where numbers stand in front (`struct fixup_entry` of powerpc), further in. The padding behind the
/// last entry may be missing.
fn fits(size: u64, entry: u64, places: &[u64]) -> bool {
    if entry == 0 {
        return false;
    }
    let phase = places.first().map(|place| place % entry);
    let mut next = 0;
    for place in places {
        match (place / entry).cmp(&next) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal if Some(place % entry) == phase => next += 1,
            _ => return false,
        }
    }
    next == size.div_ceil(entry)
}

/// The distance after which a section's relocations repeat; the whole section if they do not, as then it
/// holds one entry.
fn stride(section: &Section<'_>, size: u64) -> Option<u64> {
    let list = section.relocations.all();
    let first = list.first()?;
    let most = 8.min(list.len());
    for count in 1..=most {
        let Some(next) = list.get(count) else { return Some(size) };
        let step = next.offset - first.offset;
        let repeats = list
            .zip(list.skip(count))
            .all(|(one, other)| one.kind == other.kind && other.offset - one.offset == step);
        if repeats && step > 0 {
            return Some(step);
        }
    }
    None
}
