//! Finds what relocations mean, and who refers to whom.

use kpatch_elf::arch::{Distance, Flow, Instruction, Machine};
use kpatch_elf::{Contents, Relocation, SectionId, Symbol};

use super::lists::Lists;
use super::{ElementId, Kind, Reference, Target, Unit};
use crate::names;
use crate::sizes::Entry;
use crate::tables::{self, Class, EntrySize};

impl Unit<'_> {
    /// Finds the meaning of every relocation. Nobody asks for the relocations themselves afterwards, but for those of
    /// debug information and of the author macros.
    pub(super) fn resolve(&mut self) {
        let arch = self.object.machine.arch();
        self.references.reserve(self.object.sections.iter().map(|s| s.relocations.len()).sum());
        let mut list: Vec<Reference> = Vec::new();
        let mut instructions: Vec<Instruction> = Vec::new();
        for index in 0..self.object.sections.len() {
            let id = SectionId(index as u32);
            if matches!(self.classes[index], Class::Ignored) {
                continue;
            }
            let section = self.object.section(id);
            let code = self.classes[index] == Class::Text;
            let mut at = 0;
            let range = self.of_section[index].clone();
            let several = range.len() > 1;
            instructions.clear();
            // Instructions are decoded from each element's start, as text sections may hold several. Nobody asks
            // about those of a section that refers to nothing.
            if code && (several || !section.relocations.is_empty()) {
                for element in &self.elements[range.start as usize..range.end as usize] {
                    let bytes =
                        section.bytes().get(element.start as usize..element.end as usize).unwrap_or(&[]);
                    instructions.extend(arch.instructions(bytes).into_iter().map(|i| Instruction {
                        offset: i.offset + element.start,
                        distance:
                            i.distance.map(|d| Distance {
                                target: d.target.wrapping_add(element.start as i64),
                                ..d
                            }),
                        ..i
                    }));
                }
            }
            for relocation in &section.relocations {
                let mut decoded = Flow::Next;
                let mut to_end = None;
                if code {
                    while at < instructions.len()
                        && instructions[at].offset + u64::from(instructions[at].length) <= relocation.offset
                    {
                        at += 1;
                    }
                    if let Some(i) = instructions.get(at).filter(|i| i.offset <= relocation.offset) {
                        decoded = i.flow;
                        to_end = Some(i.offset + u64::from(i.length) - relocation.offset);
                    }
                }
                let bias =
                    arch.addend_bias(relocation.kind, to_end) - self.in_entry(index, relocation.offset);
                list.push(Reference {
                    offset: relocation.offset,
                    kind: relocation.kind,
                    symbol: relocation.symbol,
                    addend: relocation.addend,
                    bias,
                    target: self.target(relocation, bias),
                    flow: arch.flow(relocation.kind, decoded),
                    synthetic: false,
                });
            }
            if code && several {
                self.resolved_distances(id, &instructions, &mut list);
            }
            let base = self.references.len();
            let mut cursor = 0;
            for element in &mut self.elements[range.start as usize..range.end as usize] {
                let from = cursor;
                while cursor < list.len() && list[cursor].offset < element.end {
                    cursor += 1;
                }
                element.references = (base + from) as u32..(base + cursor) as u32;
            }
            self.references.append(&mut list);
            if self.classes[index] != Class::Author {
                self.object.sections[index].relocations = Vec::new();
            }
        }
    }

    /// What the distances in an entry of a special section are too long by: those of `struct fixup_entry` (powerpc's
    /// feature-fixups.h) are counted from the entry's beginning, not from themselves.
    fn in_entry(&self, section: usize, offset: u64) -> i64 {
        match self.classes[section] {
            Class::Table(_, EntrySize::Structure(Entry::Fixup)) => {
                let first = self.elements.get(self.of_section[section].start as usize);
                first.map_or(0, |entry| (offset % entry.size().max(1)) as i64)
            }
            _ => 0,
        }
    }

    /// Branches and addresses from one function to another of the same section need no relocation as long
    /// as both stay together. They become references like all others, and the distances themselves zero.
    fn resolved_distances(&mut self, id: SectionId, instructions: &[Instruction], list: &mut Vec<Reference>) {
        let arch = self.object.machine.arch();
        let mut added = Vec::new();
        for instruction in instructions {
            let Some(distance) = instruction.distance else { continue };
            let field = instruction.offset + u64::from(distance.at);
            if list.binary_search_by_key(&field, |r| r.offset).is_ok() {
                continue;
            }
            let target = distance.target;
            let (Some(from), Some(to)) = (self.at(id, instruction.offset as i64), self.at(id, target)) else {
                continue;
            };
            if from == to || target < 0 || target as u64 > self.object.section(id).size() {
                continue;
            }
            let to_end = instruction.offset + u64::from(instruction.length) - field;
            added.push(Reference {
                offset: field,
                kind: distance.kind,
                symbol: None,
                addend: 0,
                bias: arch.addend_bias(distance.kind, Some(to_end)),
                target: Target::Element(to, target - self.element(to).origin as i64),
                flow: instruction.flow,
                synthetic: true,
            });
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
        list.append(&mut added);
        list.sort_by_key(|r| r.offset);
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

    /// Notes for each element who refers to it, and for each function its entries of special sections.
    pub(super) fn attach(&mut self) {
        let elements = self.elements.len();
        let all = self.ids().flat_map(|id| self.element(id).references.clone().map(move |index| (id, index)));
        let targets = |index: u32| {
            let direct = self.references[index as usize].target;
            let Target::Element(target, _) = direct else { return [None, None] };
            // Whoever loads an address from the table of contents refers to what is there.
            match self.through(direct) {
                behind @ Target::Element(element, _) if behind != direct => [Some(target), Some(element)],
                _ => [Some(target), None],
            }
        };
        let referrers = Lists::new(
            elements,
            all.clone().flat_map(|(id, index)| {
                targets(index).into_iter().flatten().map(move |target| (target.index(), (id, index)))
            }),
        );
        let entries = all.filter(|&(id, _)| matches!(self.element(id).kind, Kind::Entry(_)));
        let about = entries.filter_map(|(id, index)| match self.references[index as usize].target {
            Target::Element(target, _)
                if matches!(self.element(target).kind, Kind::Function | Kind::Detached) =>
            {
                Some((target, id))
            }
            _ => None,
        });
        // An entry that refers to a function twice is one entry.
        let mut about: Vec<(ElementId, ElementId)> = about.collect();
        about.sort_unstable();
        about.dedup();
        self.entries_of = Lists::new(elements, about.into_iter().map(|(target, id)| (target.index(), id)));
        self.referrers = referrers;
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
