//! One version of the translation unit: its object cut into elements, and what each refers to.
//!
//! An *element* is the smallest piece that is compared and taken: a function, a datum, an entry of a special
//! section, or a stretch of code or data without a name. Sections that hold several functions or data
//! (`.noinstr.text`, `.data..read_mostly`) are cut like those that the compiler made for one only.

mod cut;
mod lists;

use bstr::BStr;
use kpatch_elf::arch::{Distance, Flow, Instruction, Machine};
use kpatch_elf::{
    Contents, Object, ReadError, Relocation, Section, SectionId, Symbol, SymbolId, symbol_kind,
};

use crate::error::DiffError;
use crate::names::{self, Special};
use crate::sizes::{Entry, EntrySizes};
use crate::tables::{self, Class, EntrySize, TableKind};
use lists::Lists;

/// The largest alignment that makes sense in a kernel, a huge page.
const MOST_ALIGN: u64 = 2 << 20;

/// Index into [`Unit::elements`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ElementId(pub(crate) u32);

impl ElementId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function with everything in front of it that belongs to it.
    Function,
    /// A datum with a name.
    Datum,
    /// A datum that the macros or the compiler make per use.
    Special(Special),
    /// A stretch without a name: jump tables, constants, sanitizer data.
    Unnamed,
    /// Code without a name: replacement code of alternatives, fix-up code.
    Detached,
    /// An entry of a special section.
    Entry(TableKind),
}

/// An element.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) kind: Kind,
    pub(crate) section: SectionId,
    /// Its bytes in the section, `start..end`.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where offsets into it are counted from: the main symbol's value, else `start`.
    pub(crate) origin: u64,
    /// The symbol it goes by.
    pub(crate) main: Option<SymbolId>,
    /// All symbols in it but section symbols, [`Element::main`] included.
    pub(crate) symbols: Vec<SymbolId>,
    /// Its references: a range of [`Unit::references`].
    pub(crate) references: std::ops::Range<u32>,
}

impl Element {
    pub(crate) fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// What a relocation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A place in an element of this object, as distance from its origin.
    Element(ElementId, i64),
    /// A string: its start in its section, and the distance of the place meant from there.
    String(SectionId, u64, i64),
    /// A mergeable constant, the same way.
    Constant(SectionId, u64, i64),
    /// A symbol defined elsewhere, and the distance from it.
    External(SymbolId, i64),
    /// Nothing: no symbol.
    Number(i64),
}

/// A relocation with its meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// Offset of the field in its section.
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    /// The relocation's own symbol and addend; `None` and 0 for a distance without relocation.
    pub(crate) symbol: Option<SymbolId>,
    pub(crate) addend: i64,
    /// What was added to the addend to get the place meant.
    pub(crate) bias: i64,
    pub(crate) target: Target,
    pub(crate) flow: Flow,
    /// A distance that the assembler had resolved; it becomes a relocation only when its element is taken.
    pub(crate) synthetic: bool,
}

/// One version of the unit.
pub(crate) struct Unit<'d> {
    pub(crate) object: Object<'d>,
    pub(crate) classes: Vec<Class>,
    /// Sorted by section and start.
    pub(crate) elements: Vec<Element>,
    /// Elements of each section.
    of_section: Vec<std::ops::Range<u32>>,
    /// The element in which a symbol is defined.
    of_symbol: Vec<Option<ElementId>>,
    /// Sorted by section and offset.
    pub(crate) references: Vec<Reference>,
    /// The `STT_FILE` symbol before each local symbol.
    pub(crate) file_of: Vec<Option<SymbolId>>,
    /// For each function, the entries of special sections that are about it, in section order.
    pub(crate) entries_of: Lists<ElementId>,
    /// The kernel keeps `.meminit` sections.
    pub(crate) keeps_memory_init: bool,
    /// Remarks.
    pub(crate) warnings: Vec<String>,
    /// Directories with `/` at their end below which source files go by relative names.
    source_trees: &'d [&'d str],
    /// For each element, who refers to it: `(referring element, index into references)`.
    pub(crate) referrers: Lists<(ElementId, u32)>,
}

impl<'d> Unit<'d> {
    /// Reads and cuts an object.
    pub(crate) fn load(
        data: &'d [u8],
        sizes: &EntrySizes,
        source_trees: &'d [&'d str],
    ) -> Result<Unit<'d>, LoadError> {
        let object = Object::read(data)?;
        let classes: Vec<Class> =
            object.sections.iter().map(|s| tables::classify(s, object.machine)).collect();
        let mut unit = Unit {
            of_section: vec![0..0; object.sections.len()],
            of_symbol: vec![None; object.symbols.len()],
            file_of: files(&object),
            classes,
            elements: Vec::new(),
            references: Vec::new(),
            entries_of: Lists::none(),
            keeps_memory_init: false,
            warnings: Vec::new(),
            source_trees,
            referrers: Lists::none(),
            object,
        };
        let unaligned = |s: &Section<'_>| s.is_alloc() && (s.align > MOST_ALIGN || s.align.count_ones() > 1);
        if let Some(section) = unit.object.sections.iter().find(|s| unaligned(s)) {
            return Err(LoadError::Tables(vec![DiffError::Alignment {
                section: section.name.to_string(),
                align: section.align,
            }]));
        }
        let cut_at = unit.object.symbols.iter().enumerate().filter_map(|(index, symbol)| {
            let section = symbol.section().filter(|_| !symbol.is_section() && !is_mapping_symbol(symbol))?;
            Some((section.index(), SymbolId(index as u32)))
        });
        let by_section = Lists::new(unit.object.sections.len(), cut_at);
        let mut symbols: Vec<SymbolId> = Vec::new();
        let (cuts, patchable) = (unit.cuts(), unit.patchable());
        let mut errors = Vec::new();
        for index in 0..unit.object.sections.len() {
            let id = SectionId(index as u32);
            symbols.clear();
            symbols.extend_from_slice(&by_section[index]);
            symbols.sort_unstable_by_key(|&s| (unit.object.symbol(s).value, s));
            let from = unit.elements.len() as u32;
            match unit.classes[index] {
                Class::Text => unit.cut_text(id, &symbols, &cuts[index], &patchable[index]),
                Class::Data | Class::Registration => unit.cut_data(id, &symbols),
                Class::Table(kind, size) => {
                    if let Err(error) = unit.cut_table(id, kind, size, sizes) {
                        errors.push(error);
                    }
                }
                Class::Strings(_)
                | Class::Constants(_)
                | Class::Orc
                | Class::OrcHeader
                | Class::Author
                | Class::ModInfo
                | Class::Ignored => {}
            }
            unit.of_section[index] = from..unit.elements.len() as u32;
        }
        if !errors.is_empty() {
            return Err(LoadError::Tables(errors));
        }
        for (index, element) in unit.elements.iter().enumerate() {
            for symbol in &element.symbols {
                unit.of_symbol[symbol.index()] = Some(ElementId(index as u32));
            }
        }
        unit.resolve();
        unit.attach();
        Ok(unit)
    }

    pub(crate) fn element(&self, id: ElementId) -> &Element {
        &self.elements[id.index()]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ElementId> + Clone + use<> {
        (0..self.elements.len() as u32).map(ElementId)
    }

    pub(crate) fn section(&self, id: ElementId) -> &Section<'d> {
        self.object.section(self.element(id).section)
    }

    pub(crate) fn references(&self, id: ElementId) -> &[Reference] {
        let range = &self.element(id).references;
        &self.references[range.start as usize..range.end as usize]
    }

    /// Code or data that is gone when the patch is loaded.
    pub(crate) fn is_freed(&self, section: SectionId) -> bool {
        let name: &BStr = self.object.section(section).name.as_ref();
        tables::is_init(name) && !(self.keeps_memory_init && tables::is_memory_init(name))
    }

    /// The elements of a section.
    pub(crate) fn in_section(&self, id: SectionId) -> impl ExactSizeIterator<Item = ElementId> + use<> {
        let range = self.of_section[id.index()].clone();
        (range.start..range.end).map(ElementId)
    }

    /// The element's name for people: its symbol, else its section and place.
    pub(crate) fn name(&self, id: ElementId) -> String {
        let element = self.element(id);
        match element.main {
            Some(symbol) => self.object.symbol(symbol).name.to_string(),
            None if element.start == 0 => self.section(id).name.to_string(),
            None => format!("{}+{:#x}", self.section(id).name, element.start),
        }
    }

    /// The element's symbol name.
    pub(crate) fn symbol_name(&self, id: ElementId) -> Option<&BStr> {
        self.element(id).main.map(|symbol| self.object.symbol(symbol).name.as_ref())
    }

    /// The element's bytes; empty where the section has none in the file.
    pub(crate) fn bytes(&self, id: ElementId) -> &[u8] {
        let element = self.element(id);
        self.section(id).bytes().get(element.start as usize..element.end as usize).unwrap_or(&[])
    }

    /// Where an element's meaningful bytes end: padding behind a function's last instruction is no part of
    /// it.
    pub(crate) fn extent(&self, id: ElementId) -> u64 {
        let element = self.element(id);
        let Some(symbol) = element.main.map(|s| self.object.symbol(s)) else { return element.end };
        if element.kind == Kind::Function && symbol.size > 0 {
            symbol.value.saturating_add(symbol.size).clamp(element.start, element.end)
        } else {
            element.end
        }
    }

    /// True for functions and data that only this unit sees.
    pub(crate) fn is_local(&self, id: ElementId) -> bool {
        self.element(id).main.is_none_or(|s| self.object.symbol(s).is_local())
    }

    /// True if the object has been through objtool or recordmcount.
    pub(crate) fn after_objtool(&self) -> bool {
        self.object.sections.iter().any(|s| tables::made_by_objtool(s.name.as_ref()))
    }

    /// The text of a reference to a string, from the place meant to its end.
    pub(crate) fn string(&self, section: SectionId, start: u64, delta: i64) -> Option<&[u8]> {
        let Class::Strings(unit) = self.classes[section.index()] else { return None };
        let from = start.checked_add_signed(delta)?;
        let bytes = self.object.section(section).bytes().get(usize::try_from(from).ok()?..)?;
        let unit = usize::try_from(unit).ok()?;
        let length = bytes.chunks(unit).position(|c| c.iter().all(|&b| b == 0))?;
        bytes.get(..(length + 1) * unit)
    }

    /// How many bytes of the name of a source file say where its tree is.
    ///
    /// `-fmacro-prefix-map` makes `__FILE__` relative, but not the file names that the compiler notes for the
    /// undefined-behaviour sanitizer, which would tell a patched unit from its original, and one machine from another.
    pub(crate) fn source_tree_of(&self, name: &[u8]) -> u64 {
        let tree = self.source_trees.iter().filter(|tree| name.starts_with(tree.as_bytes()));
        tree.map(|tree| tree.len() as u64).max().unwrap_or(0)
    }

    /// True if a string begins there; false for the part of one that is left of a longer name.
    pub(crate) fn begins_string(&self, section: SectionId, start: u64) -> bool {
        let before = start.checked_sub(1).and_then(|last| usize::try_from(last).ok());
        before.is_none_or(|last| self.object.section(section).bytes().get(last) == Some(&0))
    }

    /// The bytes of a mergeable constant.
    pub(crate) fn constant(&self, section: SectionId, start: u64) -> Option<&[u8]> {
        let Class::Constants(unit) = self.classes[section.index()] else { return None };
        let start = usize::try_from(start).ok()?;
        self.object.section(section).bytes().get(start..start.checked_add(usize::try_from(unit).ok()?)?)
    }

    /// The names of an element: its symbol's and its aliases'.
    pub(crate) fn names(&self, id: ElementId) -> impl Iterator<Item = &BStr> {
        let element = self.element(id);
        element
            .symbols
            .iter()
            .map(|s| self.object.symbol(*s))
            .filter(move |s| s.value == element.origin && (s.is_function() || s.is_object()))
            .filter(|s| !names::is_prefix_symbol(s.name.as_ref()))
            .map(|s| s.name.as_ref())
    }

    /// The names by which other units know an element.
    pub(crate) fn global_names(&self, id: ElementId) -> impl Iterator<Item = &BStr> {
        let element = self.element(id);
        element
            .symbols
            .iter()
            .map(|s| self.object.symbol(*s))
            .filter(move |s| s.value == element.origin && (s.is_function() || s.is_object()) && !s.is_local())
            .filter(|s| !names::is_prefix_symbol(s.name.as_ref()))
            .map(|s| s.name.as_ref())
    }

    /// The element of a section that a place belongs to; places before the first or behind the last are
    /// theirs.
    pub(crate) fn at(&self, section: SectionId, place: i64) -> Option<ElementId> {
        let range = self.of_section[section.index()].clone();
        let elements = &self.elements[range.start as usize..range.end as usize];
        if elements.is_empty() {
            return None;
        }
        let place = u64::try_from(place).unwrap_or(0);
        let after = elements.partition_point(|e| e.start <= place);
        let mut found = after.saturating_sub(1);
        // The address behind a datum's last byte, of loops over arrays, is the datum's; what begins there is
        // mere padding.
        if found > 0 && elements[found].start == place && self.is_padding(&elements[found]) {
            found -= 1;
        }
        Some(ElementId(range.start + found as u32))
    }

    fn is_padding(&self, element: &Element) -> bool {
        element.main.is_none()
            && element.kind == Kind::Unnamed
            && self
                .object
                .section(element.section)
                .bytes()
                .get(element.start as usize..element.end as usize)
                .is_none_or(|bytes| bytes.iter().all(|&b| b == 0))
            && self.object.section(element.section).relocations_in(element.start, element.end).is_empty()
    }

    fn resolve(&mut self) {
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
    fn attach(&mut self) {
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
}

/// Why a unit cannot be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    Read(ReadError),
    Tables(Vec<DiffError>),
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> LoadError {
        LoadError::Read(error)
    }
}

/// Marks of code and data in between (`$x`, `$d`).
fn is_mapping_symbol(symbol: &Symbol<'_>) -> bool {
    symbol.kind == symbol_kind::NOTYPE
        && symbol.is_local()
        && (symbol.name.starts_with(b"$x") || symbol.name.starts_with(b"$d"))
}

fn files(object: &Object<'_>) -> Vec<Option<SymbolId>> {
    let mut file = None;
    object
        .symbols_with_ids()
        .map(|(id, symbol)| {
            if symbol.kind == symbol_kind::FILE {
                file = (!symbol.name.is_empty()).then_some(id);
            }
            if symbol.is_local() { file } else { None }
        })
        .collect()
}
