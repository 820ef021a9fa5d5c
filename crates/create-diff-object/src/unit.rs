//! One version of the translation unit: its object cut into elements, and what each refers to.
//!
//! An *element* is the smallest piece that is compared and taken: a function, a datum, an entry of a special
//! section, or a stretch of code or data without a name. Sections that hold several functions or data
//! (`.noinstr.text`, `.data..read_mostly`) are cut like those that the compiler made for one only.

mod cut;
mod lists;
mod resolve;

use std::fmt::Write as _;

use bstr::{BStr, ByteSlice};
use kpatch_elf::arch::Flow;
use kpatch_elf::{Object, ReadError, Section, SectionId, Symbol, SymbolId, symbol_kind};

use crate::error::DiffError;
use crate::names::{self, Special};
use crate::sizes::EntrySizes;
use crate::tables::{self, Class, TableKind};
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
    /// All symbols in it but section symbols, [`Element::main`] included: a range of [`Unit::symbols`].
    symbols: std::ops::Range<u32>,
    /// Zeros without a name and references, between or behind other elements.
    padding: bool,
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

/// A relocation with its meaning. There are millions of them, so that it is kept small: the addend is that of the place
/// meant, see [`Unit::addend`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// Offset of the field in its section.
    pub(crate) offset: u64,
    pub(crate) target: Target,
    pub(crate) kind: u32,
    /// The relocation's own symbol, [`NO_SYMBOL`] for none.
    symbol: u32,
    /// What was added to the addend to get the place meant.
    bias: i32,
    pub(crate) flow: Flow,
    /// A distance that the assembler had resolved; it becomes a relocation only when its element is taken.
    pub(crate) synthetic: bool,
}

/// [`Reference::symbol`] of the null symbol, and of a distance without relocation.
const NO_SYMBOL: u32 = u32::MAX;

impl Reference {
    /// The relocation's own symbol.
    pub(crate) fn symbol(&self) -> Option<SymbolId> {
        (self.symbol != NO_SYMBOL).then_some(SymbolId(self.symbol))
    }

    /// What was added to the addend to get the place meant.
    pub(crate) fn bias(&self) -> i64 {
        i64::from(self.bias)
    }
}

/// One version of the unit.
pub(crate) struct Unit<'d> {
    pub(crate) object: Object<'d>,
    pub(crate) classes: Vec<Class>,
    /// Sorted by section and start.
    pub(crate) elements: Vec<Element>,
    /// Elements of each section.
    of_section: Vec<std::ops::Range<u32>>,
    /// The symbols of all elements.
    element_symbols: Vec<SymbolId>,
    /// The element in which a symbol is defined.
    of_symbol: Vec<Option<ElementId>>,
    /// Sorted by section and offset.
    pub(crate) references: Vec<Reference>,
    /// The `STT_FILE` symbol before each local symbol.
    pub(crate) file_of: Vec<Option<SymbolId>>,
    /// For each function, the entries of special sections that are about it, in section order.
    pub(crate) entries_of: Lists<ElementId>,
    /// Elements without names that say where the undefined-behaviour sanitizer was called, sorted.
    pub(crate) places_of_sanitizer: Vec<ElementId>,
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
            element_symbols: Vec::new(),
            references: Vec::new(),
            entries_of: Lists::none(),
            places_of_sanitizer: Vec::new(),
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
        let by_section = Lists::new(unit.object.sections.len(), |put| {
            for (id, symbol) in unit.object.symbols_with_ids() {
                let Some(section) = symbol.section() else { continue };
                if !symbol.is_section() && !is_mapping_symbol(symbol) {
                    put(section.index(), id);
                }
            }
        });
        let mut symbols: Vec<SymbolId> = Vec::new();
        unit.element_symbols.reserve(unit.object.symbols.len());
        unit.elements.reserve(unit.object.sections.len());
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
            for symbol in &unit.element_symbols[element.symbols.start as usize..element.symbols.end as usize]
            {
                unit.of_symbol[symbol.index()] = Some(ElementId(index as u32));
            }
        }
        unit.resolve();
        unit.attach();
        unit.find_places_of_sanitizer();
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

    /// The relocation's addend of a reference to an element or to something defined elsewhere.
    pub(crate) fn addend(&self, reference: &Reference) -> i64 {
        let distance = match reference.target {
            Target::Element(id, delta) => {
                let symbol = reference.symbol().map_or(0, |s| self.object.symbol(s).value);
                (self.element(id).origin as i64).wrapping_add(delta).wrapping_sub(symbol as i64)
            }
            Target::External(_, distance)
            | Target::String(_, _, distance)
            | Target::Constant(_, _, distance)
            | Target::Number(distance) => distance,
        };
        distance.wrapping_sub(reference.bias())
    }

    /// All symbols in an element but section symbols.
    pub(crate) fn symbols(&self, id: ElementId) -> &[SymbolId] {
        let range = &self.element(id).symbols;
        &self.element_symbols[range.start as usize..range.end as usize]
    }

    /// The symbol of a weak function, and its name.
    pub(crate) fn weak(&self, id: ElementId) -> Option<(SymbolId, &BStr)> {
        let main = self.element(id).main.filter(|_| self.element(id).kind == Kind::Function)?;
        let symbol = self.object.symbol(main);
        (symbol.binding == kpatch_elf::binding::WEAK).then(|| (main, symbol.name.as_ref()))
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
            Some(symbol) => names::text(self.object.symbol(symbol).name.as_ref()),
            None if element.start == 0 => names::text(self.section(id).name.as_ref()),
            None => {
                let mut name = names::text(self.section(id).name.as_ref());
                // Writing to a text does not fail.
                let _ = write!(name, "+{:#x}", element.start);
                name
            }
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
        if unit == 1 {
            return bytes.get(..=bytes.find_byte(0)?);
        }
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
        self.symbols(id)
            .iter()
            .map(|s| self.object.symbol(*s))
            .filter(move |s| s.value == element.origin && (s.is_function() || s.is_object()))
            .filter(|s| !names::is_prefix_symbol(s.name.as_ref()))
            .map(|s| s.name.as_ref())
    }

    /// The names by which other units know an element.
    pub(crate) fn global_names(&self, id: ElementId) -> impl Iterator<Item = &BStr> {
        let element = self.element(id);
        self.symbols(id)
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
        if found > 0 && elements[found].start == place && elements[found].padding {
            found -= 1;
        }
        Some(ElementId(range.start + found as u32))
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
