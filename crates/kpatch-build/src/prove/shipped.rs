//! The shipped object: a linked vmlinux, or a relocatable module.

use bstr::{BStr, ByteSlice};
use kbuild::symtab::{ShippedId, SymbolTable};
use kpatch_elf::{Object, ReadError, Relocation, SectionId};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use thiserror::Error;

/// Why a shipped file cannot be compared with.
#[derive(Debug, Error)]
pub enum ShippedError {
    /// No ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Malformed(#[from] object::read::Error),
    /// A module that cannot be read.
    #[error(transparent)]
    Module(#[from] ReadError),
}

/// A shipped vmlinux or module, with its symbol table.
pub struct Shipped<'d> {
    pub(super) symbols: &'d SymbolTable<'d>,
    pub(super) image: Image<'d>,
}

pub(super) enum Image<'d> {
    /// Allocated sections with contents, sorted by address.
    Linked(Vec<LinkedSection<'d>>),
    /// A module: its object, and the id of each ELF section index.
    Relocatable { object: Object<'d>, ids: Vec<Option<SectionId>> },
}

/// What stands at a place where a relocation is expected.
pub(super) enum ShippedRelocation<'a, 'd> {
    /// The object is linked and keeps none; the bytes tell.
    Linked,
    /// A module that has none there.
    Missing,
    /// A module's relocation.
    Found(&'a Object<'d>, Relocation),
}

pub(super) struct LinkedSection<'d> {
    address: u64,
    size: u64,
    /// Empty where the section has no contents in the file.
    bytes: &'d [u8],
    text: bool,
}

/// A place in the shipped object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Location {
    /// ELF section index in a module, `None` in vmlinux.
    pub(super) section: Option<u32>,
    /// Address in vmlinux, offset in the section in a module.
    pub(super) value: u64,
}

impl Location {
    pub(super) fn plus(self, delta: i64) -> Location {
        Location { section: self.section, value: self.value.wrapping_add_signed(delta) }
    }
}

impl<'d> Shipped<'d> {
    /// A vmlinux with contents.
    pub fn vmlinux(data: &'d [u8], symbols: &'d SymbolTable<'d>) -> Result<Shipped<'d>, ShippedError> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let mut sections = Vec::new();
        for section in header.sections(endian, data)?.iter() {
            let flags = section.sh_flags(endian).0;
            if flags & kpatch_elf::section_flags::ALLOC == 0 {
                continue;
            }
            sections.push(LinkedSection {
                address: section.sh_addr(endian),
                size: section.sh_size(endian),
                bytes: section.data(endian, data)?,
                text: flags & kpatch_elf::section_flags::EXECINSTR != 0,
            });
        }
        sections.sort_by_key(|s| s.address);
        Ok(Shipped { symbols, image: Image::Linked(sections) })
    }

    /// A module as the package ships it.
    pub fn module(data: &'d [u8], symbols: &'d SymbolTable<'d>) -> Result<Shipped<'d>, ShippedError> {
        let object = Object::read(data)?;
        let ids = Object::section_ids(data)?;
        Ok(Shipped { symbols, image: Image::Relocatable { object, ids } })
    }

    /// The symbol table.
    pub fn symbols(&self) -> &SymbolTable<'d> {
        self.symbols
    }

    pub(super) fn location(&self, id: ShippedId) -> Location {
        let symbol = self.symbols.symbol(id);
        let section = if self.symbols.is_module() { symbol.section } else { None };
        Location { section, value: symbol.value }
    }

    /// `length` bytes at a place, `None` where there are not as many.
    pub(super) fn bytes(&self, at: Location, length: u64) -> Option<&[u8]> {
        let rest = self.from(at)?;
        rest.get(..usize::try_from(length).ok()?)
    }

    /// The bytes from a place to the end of its section.
    pub(super) fn from(&self, at: Location) -> Option<&[u8]> {
        match &self.image {
            Image::Linked(_) => {
                let section = self.linked(at.value)?;
                section.bytes.get(usize::try_from(at.value - section.address).ok()?..)
            }
            Image::Relocatable { object, ids } => {
                let id = (*ids.get(at.section? as usize)?)?;
                object.section(id).bytes().get(usize::try_from(at.value).ok()?..)
            }
        }
    }

    /// The NUL-terminated string at a place.
    pub(super) fn string(&self, at: Location) -> Option<&BStr> {
        let rest = self.from(at)?;
        Some(rest[..rest.find_byte(0)?].as_bstr())
    }

    /// True if the place holds code.
    pub(super) fn is_text(&self, at: Location) -> bool {
        match &self.image {
            Image::Linked(_) => self.linked(at.value).is_some_and(|s| s.text),
            Image::Relocatable { object, ids } => at
                .section
                .and_then(|index| ids.get(index as usize).copied().flatten())
                .is_some_and(|id| object.section(id).is_text()),
        }
    }

    /// The relocation at a place.
    pub(super) fn relocation(&self, at: Location) -> ShippedRelocation<'_, 'd> {
        match &self.image {
            Image::Linked(_) => ShippedRelocation::Linked,
            Image::Relocatable { object, ids } => {
                let id = at.section.and_then(|index| ids.get(index as usize).copied().flatten());
                let found =
                    id.and_then(|id| object.section(id).relocations_in(at.value, at.value + 1).first());
                match found {
                    Some(relocation) => ShippedRelocation::Found(object, relocation),
                    None => ShippedRelocation::Missing,
                }
            }
        }
    }

    /// ELF index of a section of a module.
    pub(super) fn section_index(&self, id: SectionId) -> Option<u32> {
        match &self.image {
            Image::Linked(_) => None,
            Image::Relocatable { ids, .. } => ids.iter().position(|i| *i == Some(id)).map(|i| i as u32),
        }
    }

    fn linked(&self, address: u64) -> Option<&LinkedSection<'d>> {
        let Image::Linked(sections) = &self.image else { return None };
        let end = sections.partition_point(|s| s.address <= address);
        // Several sections may start at one address, as the zero-based per-CPU one does with empty ones.
        sections[..end].iter().rev().take(4).find(|s| address - s.address < s.size)
    }
}
