//! The tables: sections, symbols, relocations.

use std::borrow::Cow;

use bstr::{BStr, BString, ByteSlice};

use crate::arch::Machine;
use crate::endian::Endian;
use crate::ids::{SectionId, SymbolId};
use crate::relocations::{RelocationSlice, Relocations};

/// A name or other short byte string: borrowed from the input, or made by us.
pub type Name<'d> = Cow<'d, BStr>;

/// Values of `sh_type` that are named here; others pass through unnamed.
pub mod section_type {
    #![allow(missing_docs)]
    pub const NULL: u32 = 0;
    pub const PROGBITS: u32 = 1;
    pub const SYMTAB: u32 = 2;
    pub const STRTAB: u32 = 3;
    pub const RELA: u32 = 4;
    pub const NOTE: u32 = 7;
    pub const NOBITS: u32 = 8;
    pub const REL: u32 = 9;
    pub const GROUP: u32 = 17;
    pub const SYMTAB_SHNDX: u32 = 18;
    pub const LLVM_ADDRSIG: u32 = 0x6fff_4c03;
}

/// Bits of `sh_flags`.
pub mod section_flags {
    #![allow(missing_docs)]
    pub const WRITE: u64 = 1;
    pub const ALLOC: u64 = 2;
    pub const EXECINSTR: u64 = 4;
    pub const MERGE: u64 = 0x10;
    pub const STRINGS: u64 = 0x20;
    pub const INFO_LINK: u64 = 0x40;
    pub const LINK_ORDER: u64 = 0x80;
    pub const GROUP: u64 = 0x200;
    pub const TLS: u64 = 0x400;
    pub const COMPRESSED: u64 = 0x800;
}

/// Values of a symbol's type (`STT_*`).
pub mod symbol_kind {
    #![allow(missing_docs)]
    pub const NOTYPE: u8 = 0;
    pub const OBJECT: u8 = 1;
    pub const FUNC: u8 = 2;
    pub const SECTION: u8 = 3;
    pub const FILE: u8 = 4;
    pub const TLS: u8 = 6;
}

/// Values of a symbol's binding (`STB_*`).
pub mod binding {
    #![allow(missing_docs)]
    pub const LOCAL: u8 = 0;
    pub const GLOBAL: u8 = 1;
    pub const WEAK: u8 = 2;
}

/// A relocatable object.
#[derive(Clone, Debug)]
pub struct Object<'d> {
    /// The machine, one of the five that live patching knows.
    pub machine: Machine,
    /// Byte order.
    pub endian: Endian,
    /// `e_flags`.
    pub file_flags: u32,
    /// `EI_OSABI` and `EI_ABIVERSION`.
    pub abi: [u8; 2],
    /// All sections but the symbol table, its strings and the relocation sections, in file order.
    pub sections: Vec<Section<'d>>,
    /// All symbols but the null symbol, in file order.
    pub symbols: Vec<Symbol<'d>>,
}

/// What `sh_link` refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    None,
    /// The symbol table.
    SymbolTable,
    /// A section, as in `SHF_LINK_ORDER`.
    Section(SectionId),
}

/// What `sh_info` refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// A number whose meaning is the section's own.
    Raw(u32),
    /// A section (`SHF_INFO_LINK`).
    Section(SectionId),
    /// A symbol (signature of a group).
    Symbol(SymbolId),
}

/// What a section holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents<'d> {
    /// Bytes of the file.
    Bytes(Cow<'d, [u8]>),
    /// As many zero bytes at run time, none in the file (`SHT_NOBITS`).
    Zero(u64),
    /// Members of a section group (`SHT_GROUP`); relocation sections are not listed, the writer adds them.
    Group {
        /// `GRP_COMDAT` or 0.
        flags: u32,
        /// The members, in order.
        members: Vec<SectionId>,
    },
}

/// A section together with the relocations that apply to it.
#[derive(Clone, Debug)]
pub struct Section<'d> {
    /// `.text.foo`.
    pub name: Name<'d>,
    /// `sh_type`, see [`section_type`].
    pub kind: u32,
    /// `sh_flags`, see [`section_flags`].
    pub flags: u64,
    /// Alignment in bytes, 0 and 1 mean none.
    pub align: u64,
    /// `sh_entsize`, bytes.
    pub entry_size: u64,
    /// `sh_link`.
    pub link: Link,
    /// `sh_info`.
    pub info: Info,
    /// The bytes.
    pub contents: Contents<'d>,
    /// Relocations in ascending order of offset. In a livepatch relocation section, which is the only
    /// kind of `SHT_RELA` section in the model, they apply to the section named by [`Section::info`].
    pub relocations: Relocations<'d>,
}

impl<'d> Section<'d> {
    /// Size in bytes at run time.
    pub fn size(&self) -> u64 {
        match &self.contents {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Zero(size) => *size,
            Contents::Group { members, .. } => 4 + 4 * members.len() as u64,
        }
    }

    /// The bytes in the file; empty for `SHT_NOBITS` and groups.
    pub fn bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Bytes(bytes) => bytes,
            Contents::Zero(_) | Contents::Group { .. } => &[],
        }
    }

    /// True if all bits of `flags` are set.
    pub fn has(&self, flags: u64) -> bool {
        self.flags & flags == flags
    }

    /// Code that is loaded: `SHT_PROGBITS` with `SHF_ALLOC` and `SHF_EXECINSTR`.
    pub fn is_text(&self) -> bool {
        self.kind == section_type::PROGBITS && self.has(section_flags::ALLOC | section_flags::EXECINSTR)
    }

    /// Loaded at run time.
    pub fn is_alloc(&self) -> bool {
        self.has(section_flags::ALLOC)
    }

    /// A section of mergeable NUL-terminated strings.
    pub fn is_strings(&self) -> bool {
        self.has(section_flags::STRINGS)
    }

    /// Debug information or unwind tables for debuggers, never loaded by the kernel.
    pub fn is_debug(&self) -> bool {
        self.name.starts_with(b".debug_") || self.name.starts_with(b".eh_frame")
    }

    /// A livepatch relocation section.
    pub fn is_klp_rela(&self) -> bool {
        self.kind == section_type::RELA && self.has(crate::klp::SHF_RELA_LIVEPATCH)
    }

    /// The relocations with `start <= offset < end`, found by binary search.
    pub fn relocations_in(&self, start: u64, end: u64) -> RelocationSlice<'_> {
        self.relocations.all().between(start, end)
    }

    /// The NUL-terminated string at `offset` of the bytes, without the NUL.
    pub fn string_at(&self, offset: u64) -> Option<&BStr> {
        let rest = self.bytes().get(usize::try_from(offset).ok()?..)?;
        let end = rest.find_byte(0)?;
        Some(rest[..end].as_bstr())
    }

    /// A new section of bytes without relocations.
    pub fn new(name: impl Into<BString>, kind: u32, flags: u64, align: u64, bytes: Vec<u8>) -> Section<'d> {
        Section {
            name: Cow::Owned(name.into()),
            kind,
            flags,
            align,
            entry_size: 0,
            link: Link::None,
            info: Info::Raw(0),
            contents: Contents::Bytes(Cow::Owned(bytes)),
            relocations: Relocations::new(),
        }
    }
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Elsewhere (`SHN_UNDEF`).
    Undefined,
    /// Its value is no address (`SHN_ABS`).
    Absolute,
    /// Not yet allocated (`SHN_COMMON`).
    Common,
    /// In a section.
    Section(SectionId),
    /// Resolved by the livepatch core, see [`crate::klp::SHN_LIVEPATCH`].
    Livepatch,
    /// Any other reserved section index.
    Other(u16),
}

/// A symbol.
#[derive(Clone, Debug)]
pub struct Symbol<'d> {
    /// Name; empty for section symbols.
    pub name: Name<'d>,
    /// `st_value`: the offset in its section.
    pub value: u64,
    /// `st_size`, bytes.
    pub size: u64,
    /// `STT_*`, see [`symbol_kind`].
    pub kind: u8,
    /// `STB_*`, see [`binding`].
    pub binding: u8,
    /// `st_other`: visibility and machine bits.
    pub other: u8,
    /// Where it is.
    pub place: Place,
}

impl<'d> Symbol<'d> {
    /// The nameless symbol of a section.
    pub fn of_section(section: SectionId) -> Self {
        Self {
            name: Name::default(),
            value: 0,
            size: 0,
            kind: symbol_kind::SECTION,
            binding: binding::LOCAL,
            other: 0,
            place: Place::Section(section),
        }
    }

    /// The section it is in.
    pub fn section(&self) -> Option<SectionId> {
        match self.place {
            Place::Section(id) => Some(id),
            _ => None,
        }
    }

    /// A function.
    pub fn is_function(&self) -> bool {
        self.kind == symbol_kind::FUNC
    }

    /// A datum with a type.
    pub fn is_object(&self) -> bool {
        self.kind == symbol_kind::OBJECT
    }

    /// The symbol of a section.
    pub fn is_section(&self) -> bool {
        self.kind == symbol_kind::SECTION
    }

    /// Not visible outside its file.
    pub fn is_local(&self) -> bool {
        self.binding == binding::LOCAL
    }

    /// Defined elsewhere.
    pub fn is_undefined(&self) -> bool {
        self.place == Place::Undefined
    }

    /// A new undefined symbol.
    pub fn undefined(name: impl Into<BString>, binding: u8) -> Symbol<'d> {
        Symbol {
            name: Cow::Owned(name.into()),
            value: 0,
            size: 0,
            kind: symbol_kind::NOTYPE,
            binding,
            other: 0,
            place: Place::Undefined,
        }
    }
}

impl<'d> Object<'d> {
    /// An object of the same machine without sections and symbols.
    pub fn empty_like(other: &Object<'_>) -> Object<'d> {
        Object {
            machine: other.machine,
            endian: other.endian,
            file_flags: other.file_flags,
            abi: other.abi,
            sections: Vec::new(),
            symbols: Vec::new(),
        }
    }

    /// The section of an id of this object.
    ///
    /// Ids come only from this object's own tables, so that the index exists.
    pub fn section(&self, id: SectionId) -> &Section<'d> {
        &self.sections[id.index()]
    }

    /// The symbol of an id of this object.
    pub fn symbol(&self, id: SymbolId) -> &Symbol<'d> {
        &self.symbols[id.index()]
    }

    /// All sections with their ids, in file order.
    pub fn sections_with_ids(&self) -> impl ExactSizeIterator<Item = (SectionId, &Section<'d>)> {
        self.sections.iter().enumerate().map(|(i, s)| (SectionId(i as u32), s))
    }

    /// All symbols with their ids, in file order.
    pub fn symbols_with_ids(&self) -> impl ExactSizeIterator<Item = (SymbolId, &Symbol<'d>)> {
        self.symbols.iter().enumerate().map(|(i, s)| (SymbolId(i as u32), s))
    }

    /// The first section of that name.
    pub fn section_named(&self, name: &str) -> Option<SectionId> {
        self.sections_with_ids().find(|(_, s)| s.name.as_bytes() == name.as_bytes()).map(|(id, _)| id)
    }

    /// Adds a section.
    pub fn add_section(&mut self, section: Section<'d>) -> SectionId {
        self.sections.push(section);
        SectionId(self.sections.len() as u32 - 1)
    }

    /// Adds a symbol.
    pub fn add_symbol(&mut self, symbol: Symbol<'d>) -> SymbolId {
        self.symbols.push(symbol);
        SymbolId(self.symbols.len() as u32 - 1)
    }

    /// A symbol's name for people: a section symbol goes by its section's name.
    pub fn display_name(&self, id: SymbolId) -> &BStr {
        let symbol = self.symbol(id);
        match symbol.section() {
            Some(section) if symbol.is_section() => self.section(section).name.as_ref(),
            _ => symbol.name.as_ref(),
        }
    }
}
