//! Finds what relocations mean, and who refers to whom.

use kpatch_elf::arch::{Arch, Flow, Machine};
use kpatch_elf::{Contents, Relocation, SectionId, Symbol};

use super::lists::Lists;
use super::{Element, ElementId, Kind, NO_SYMBOL, Reference, Target, Unit};
use crate::names;
use crate::sizes::Entry;
use crate::tables::{self, Class, EntrySize, TableKind};

impl Unit<'_> {
    /// Finds the meaning of every relocation.
    pub(super) fn resolve(&mut self) {
        let arch = self.object.machine.arch();
        self.references.reserve(self.object.sections.iter().map(|s| s.relocations.len()).sum());
        for index in 0..self.object.sections.len() {
            let id = SectionId(index as u32);
            let class = self.classes[index];
            if class == Class::Ignored {
                continue;
            }
            let base = self.references.len();
            let relocations = std::mem::take(&mut self.object.sections[index].relocations);
            let range = self.of_section[index].start as usize..self.of_section[index].end as usize;
            let section = self.object.section(id);
            let entry = self.entry_of_distances(index);
            let mut code =
                (class == Class::Text).then(|| Code::new(section.bytes(), &self.elements[range.clone()]));
            // In data the kind says everything, and neighbours are of one kind.
            let mut last = None;
            for relocation in &relocations {
                let (bias, flow) = match (&mut code, last) {
                    (None, Some((kind, known))) if kind == relocation.kind => known,
                    (code, _) => {
                        let found = code.as_mut().and_then(|code| code.relocated(arch, &relocation));
                        let to_end = found.map(|(_, end)| end - relocation.offset);
                        let flow = arch.flow(relocation.kind, found.map_or(Flow::Next, |(flow, _)| flow));
                        (arch.addend_bias(relocation.kind, to_end), flow)
                    }
                };
                last = Some((relocation.kind, (bias, flow)));
                let in_entry = if entry == 0 { 0 } else { (relocation.offset % entry) as i64 };
                // No instruction and no structure is that long.
                let bias = i32::try_from(bias - in_entry).unwrap_or_default();
                let reference = Reference {
                    offset: relocation.offset,
                    target: self.target(&relocation, i64::from(bias)),
                    kind: relocation.kind,
                    symbol: relocation.symbol.map_or(NO_SYMBOL, |symbol| symbol.0),
                    bias,
                    flow,
                    synthetic: false,
                };
                self.references.push(reference);
            }
            if class == Class::Text && range.len() > 1 {
                self.resolved_distances(id, base);
            }
            let mut cursor = base;
            for element in &mut self.elements[range] {
                let from = cursor;
                while self.references.get(cursor).is_some_and(|r| r.offset < element.end) {
                    cursor += 1;
                }
                element.references = from as u32..cursor as u32;
            }
            self.object.sections[index].relocations = relocations;
        }
    }

    /// What the distances in an entry of a special section are too long by: those of `struct fixup_entry` (powerpc's
    /// feature-fixups.h) are counted from the entry's beginning, not from themselves.
    ///
    /// The size of an entry, or 0 where distances are counted as always.
    fn entry_of_distances(&self, section: usize) -> u64 {
        match self.classes[section] {
            Class::Table(_, EntrySize::Structure(Entry::Fixup)) => {
                let first = self.elements.get(self.of_section[section].start as usize);
                first.map_or(0, Element::size)
            }
            _ => 0,
        }
    }

    /// Branches and addresses from one function to another of the same section need no relocation as long
    /// as both stay together. They become references like all others, and the distances themselves zero.
    ///
    /// The section's relocations are the references from `base` on.
    fn resolved_distances(&mut self, id: SectionId, base: usize) {
        let arch = self.object.machine.arch();
        let section = self.object.section(id);
        let (bytes, size) = (section.bytes(), section.size());
        let mut added = Vec::new();
        for from in self.in_section(id) {
            let element = self.element(from);
            let code = bytes.get(element.start as usize..element.end as usize).unwrap_or(&[]);
            for instruction in arch.instructions(code) {
                let Some(distance) = instruction.distance else { continue };
                let field = element.start + instruction.offset + u64::from(distance.at);
                if self.references[base..].binary_search_by_key(&field, |r| r.offset).is_ok() {
                    continue;
                }
                let target = distance.target.wrapping_add(element.start as i64);
                let Some(to) = self.at(id, target) else { continue };
                if from == to || target < 0 || target as u64 > size {
                    continue;
                }
                let to_end = element.start + instruction.offset + u64::from(instruction.length) - field;
                added.push(Reference {
                    offset: field,
                    kind: distance.kind,
                    symbol: NO_SYMBOL,
                    bias: arch.addend_bias(distance.kind, Some(to_end)) as i32,
                    target: Target::Element(to, target - self.element(to).origin as i64),
                    flow: instruction.flow,
                    synthetic: true,
                });
            }
        }
        if added.is_empty() {
            return;
        }
        if let Some(Contents::Bytes(bytes)) =
            self.object.sections.get_mut(id.index()).map(|s| &mut s.contents)
        {
            let bytes = bytes.to_mut();
            for reference in &added {
                if let Some(field) = bytes.get_mut(reference.offset as usize..) {
                    arch.clear(reference.kind, field);
                }
            }
        }
        self.references.append(&mut added);
        self.references[base..].sort_by_key(|r| r.offset);
    }

    pub(crate) fn target(&self, relocation: &Relocation, bias: i64) -> Target {
        let Some(id) = relocation.symbol else { return Target::Number(relocation.addend) };
        let symbol = self.object.symbol(id);
        let distance = relocation.addend.wrapping_add(bias);
        let Some(section) = symbol.section() else { return Target::External(id, distance) };
        let place = (symbol.value as i64).wrapping_add(distance);
        match self.classes[section.index()] {
            Class::Strings(_) => {
                // Only a symbol tells a string's start; a section symbol means the start itself.
                let (start, delta) =
                    if symbol.is_section() { (place, 0) } else { (symbol.value as i64, distance) };
                let start = u64::try_from(start).ok();
                match start.and_then(|start| Some((start, self.string(section, start, 0)?))) {
                    Some((start, text)) => {
                        let tree = if delta == 0 { self.source_tree_of(text) } else { 0 };
                        Target::String(section, start + tree, delta)
                    }
                    None => Target::External(id, distance),
                }
            }
            Class::Constants(unit) => {
                let base = if symbol.is_section() { place } else { symbol.value as i64 };
                let start = u64::try_from(base).unwrap_or(0) / unit * unit;
                if self.constant(section, start).is_some() {
                    Target::Constant(section, start, place - start as i64)
                } else {
                    Target::External(id, distance)
                }
            }
            _ => {
                let element = match self.of_symbol[id.index()] {
                    Some(element) => Some(element),
                    None => self.at(section, place),
                };
                match element {
                    Some(element) => {
                        Target::Element(element, place.wrapping_sub(self.element(element).origin as i64))
                    }
                    None => Target::External(id, distance),
                }
            }
        }
    }

    /// What a reference means in the end: through the table of contents to what the entry holds.
    pub(crate) fn through(&self, target: Target) -> Target {
        if let Target::Element(id, 0) = target
            && self.is_toc(id)
            && let [only] = self.references(id)
        {
            return only.target;
        }
        target
    }

    /// An entry of the table of contents.
    pub(crate) fn is_toc(&self, id: ElementId) -> bool {
        self.object.machine == Machine::Ppc64le
            && self.element(id).kind == Kind::Unnamed
            && tables::is_toc(self.section(id).name.as_ref())
    }

    /// An alternative without replacement code points to nothing. One of arm64 with a callback (`ALTERNATIVE_CB`) has no
    /// such code either, and points to the function that writes it.
    pub(crate) fn is_empty_replacement(&self, id: ElementId, reference: &Reference) -> bool {
        let element = self.element(id);
        element.kind == Kind::Entry(TableKind::Alternatives)
            && reference.offset == element.start + 4
            && !match reference.target {
                Target::Element(target, _) => self.element(target).kind == Kind::Function,
                Target::External(symbol, _) => self.object.symbol(symbol).is_undefined(),
                _ => false,
            }
            && tables::alternative_lengths(self.object.machine, element.size())
                .and_then(|(_, at)| self.bytes(id).get(at).copied())
                .is_some_and(|length| length == 0)
    }

    /// Notes for each element who refers to it, and for each function its entries of special sections.
    pub(super) fn attach(&mut self) {
        let mut about: Vec<(ElementId, ElementId)> = Vec::new();
        for id in self.ids().filter(|id| matches!(self.element(*id).kind, Kind::Entry(_))) {
            let own = about.len();
            for reference in self.references(id) {
                let Target::Element(target, _) = reference.target else { continue };
                let code = matches!(self.element(target).kind, Kind::Function | Kind::Detached);
                // An entry that refers to a function twice is one entry.
                if code && !about[own..].contains(&(target, id)) {
                    about.push((target, id));
                }
            }
        }
        self.entries_of = Lists::new(self.elements.len(), |put| {
            for &(target, entry) in &about {
                put(target.index(), entry);
            }
        });
        self.referrers = Lists::new(self.elements.len(), |put| self.each_referrer(put));
    }

    /// Passes on who refers to which element.
    fn each_referrer(&self, put: &mut dyn FnMut(usize, (ElementId, u32))) {
        for id in self.ids() {
            for index in self.element(id).references.clone() {
                let direct = self.references[index as usize].target;
                let Target::Element(target, _) = direct else { continue };
                put(target.index(), (id, index));
                // Whoever loads an address from the table of contents refers to what is there.
                match self.through(direct) {
                    behind @ Target::Element(element, _) if behind != direct => {
                        put(element.index(), (id, index));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Finds what is handed to the handlers of the undefined-behaviour sanitizer. gcc's data for them have names of
    /// their own, clang's go by number like all data without a name.
    pub(super) fn find_places_of_sanitizer(&mut self) {
        let handler = |symbol: &Symbol<'_>| symbol.name.starts_with(b"__ubsan_handle_");
        if !self.object.symbols.iter().any(handler) {
            return;
        }
        let mut found = Vec::new();
        for element in self.elements.iter().filter(|e| e.kind == Kind::Function) {
            // Calls from several places may share one handler.
            let mut since = Vec::new();
            let range = element.references.start as usize..element.references.end as usize;
            for reference in &self.references[range] {
                match reference.target {
                    Target::Element(id, 0)
                        if self.element(id).kind == Kind::Unnamed
                            && names::is_clang_unnamed(self.section(id).name.as_ref()) =>
                    {
                        since.push(id);
                    }
                    Target::External(symbol, _) if handler(self.object.symbol(symbol)) => {
                        found.append(&mut since);
                    }
                    _ => {}
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        self.places_of_sanitizer = found;
    }
}

/// The code of a section, asked for relocated fields in ascending order.
///
/// Instructions are told apart from each element's start, as a section may hold several.
struct Code<'a> {
    bytes: &'a [u8],
    elements: &'a [Element],
    /// Where an instruction of the first of them begins, as distance from its start.
    from: u64,
}

impl<'a> Code<'a> {
    fn new(bytes: &'a [u8], elements: &'a [Element]) -> Code<'a> {
        Code { bytes, elements, from: 0 }
    }

    /// Where the instruction with a field sends control, and where it ends.
    fn relocated(&mut self, arch: &dyn Arch, relocation: &Relocation) -> Option<(Flow, u64)> {
        let field = relocation.offset;
        while self.elements.first()?.end <= field {
            self.elements = &self.elements[1..];
            self.from = 0;
        }
        let Element { start, end, .. } = *self.elements.first()?;
        let code = self.bytes.get(start as usize..end as usize)?;
        let found = arch.relocated(relocation.kind, code, self.from, field.checked_sub(start)?)?;
        self.from = found.offset;
        Some((found.flow, start + found.offset + u64::from(found.length)))
    }
}
