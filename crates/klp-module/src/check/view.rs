//! The finished module through goblin: a reader that shares no code with the one that made it.

use std::borrow::Cow;

use goblin::elf::{Elf, Sym, header, section_header, sym};

use super::finding::Finding;

/// Undefined.
pub(super) const UNDEFINED: usize = section_header::SHN_UNDEF as usize;

/// One relocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rela {
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) symbol: usize,
    pub(super) addend: i64,
}

/// One relocation section.
#[derive(Debug)]
pub(super) struct RelaSection {
    /// Index of the section itself.
    pub(super) index: usize,
    /// Index of the section it applies to.
    pub(super) target: usize,
    pub(super) entries: Vec<Rela>,
}

/// A module, read.
pub struct ModuleView<'d> {
    pub(super) elf: Elf<'d>,
    bytes: &'d [u8],
    pub(super) symbols: Vec<Sym>,
    pub(super) relas: Vec<RelaSection>,
}

impl<'d> ModuleView<'d> {
    /// Reads a module.
    pub fn parse(bytes: &'d [u8]) -> Result<ModuleView<'d>, Finding> {
        let elf = Elf::parse(bytes).map_err(|error| Finding::Malformed(error.to_string()))?;
        if elf.header.e_type != header::ET_REL || !elf.is_64 {
            return Err(Finding::Malformed("not a 64-bit relocatable object".to_owned()));
        }
        let symbols: Vec<Sym> = elf.syms.iter().collect();
        let mut relas = Vec::new();
        for (index, section) in &elf.shdr_relocs {
            let header = elf
                .section_headers
                .get(*index)
                .ok_or_else(|| Finding::Malformed("a relocation section has no header".to_owned()))?;
            let entries = section.iter().map(|r| Rela {
                offset: r.r_offset,
                kind: r.r_type,
                symbol: r.r_sym,
                addend: r.r_addend.unwrap_or(0),
            });
            relas.push(RelaSection {
                index: *index,
                target: header.sh_info as usize,
                entries: entries.collect(),
            });
        }
        let view = ModuleView { elf, bytes, symbols, relas };
        if let Some(lost) =
            view.relas.iter().flat_map(|r| &r.entries).find(|r| r.symbol >= view.symbols.len().max(1))
        {
            return Err(Finding::Malformed(format!("relocation against symbol {} of none", lost.symbol)));
        }
        Ok(view)
    }

    pub(super) fn section_name(&self, index: usize) -> &str {
        let header = self.elf.section_headers.get(index);
        header.and_then(|h| self.elf.shdr_strtab.get_at(h.sh_name)).unwrap_or_default()
    }

    pub(super) fn section_flags(&self, index: usize) -> u64 {
        self.elf.section_headers.get(index).map_or(0, |h| h.sh_flags)
    }

    pub(super) fn section_named(&self, name: &str) -> Option<usize> {
        (1..self.elf.section_headers.len()).find(|&index| self.section_name(index) == name)
    }

    /// The bytes of a section, empty where it has none in the file.
    pub(super) fn bytes(&self, index: usize) -> &'d [u8] {
        let Some(header) = self.elf.section_headers.get(index) else { return &[] };
        if header.sh_type == section_header::SHT_NOBITS {
            return &[];
        }
        let start = usize::try_from(header.sh_offset).ok();
        let size = usize::try_from(header.sh_size).ok();
        start
            .zip(size)
            .and_then(|(start, size)| self.bytes.get(start..start.checked_add(size)?))
            .unwrap_or_default()
    }

    pub(super) fn symbol(&self, index: usize) -> Option<&Sym> {
        self.symbols.get(index)
    }

    pub(super) fn symbol_name(&self, symbol: &Sym) -> &str {
        self.elf.strtab.get_at(symbol.st_name).unwrap_or_default()
    }

    /// A symbol's name for people.
    pub(super) fn name_at(&self, index: usize) -> Cow<'_, str> {
        let Some(symbol) = self.symbol(index) else { return Cow::Borrowed("nothing") };
        if symbol.st_type() == sym::STT_SECTION {
            Cow::Borrowed(self.section_name(symbol.st_shndx))
        } else {
            Cow::Borrowed(self.symbol_name(symbol))
        }
    }

    /// The definitions of that name.
    pub(super) fn defined<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (usize, &'a Sym)> {
        self.symbols.iter().enumerate().filter(move |(_, s)| is_defined(s) && self.symbol_name(s) == name)
    }

    /// The ordinary relocations of a section.
    pub(super) fn relocations_of(&self, section: usize) -> impl Iterator<Item = &Rela> {
        self.relas
            .iter()
            .filter(move |r| r.target == section && !self.section_name(r.index).starts_with(".klp."))
            .flat_map(|r| &r.entries)
    }

    /// The ordinary relocation at one place.
    pub(super) fn relocation_at(&self, section: usize, offset: u64) -> Option<&Rela> {
        self.relocations_of(section).find(|r| r.offset == offset)
    }

    /// Section and offset that a relocation of an absolute address means.
    pub(super) fn target(&self, rela: &Rela) -> Option<(usize, u64)> {
        let symbol = self.symbol(rela.symbol).filter(|s| is_defined(s))?;
        Some((symbol.st_shndx, symbol.st_value.wrapping_add_signed(rela.addend)))
    }

    /// The string that a relocated pointer means.
    pub(super) fn string(&self, rela: &Rela) -> Option<&'d str> {
        let (section, offset) = self.target(rela)?;
        let rest = self.bytes(section).get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|&b| b == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// The values of a tag in `.modinfo`.
    pub fn info<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'d str> + 'a {
        let bytes = self.section_named(".modinfo").map_or(&[][..], |index| self.bytes(index));
        bytes
            .split(|&b| b == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok())
            .filter_map(move |entry| entry.strip_prefix(tag)?.strip_prefix('='))
    }

    pub(super) fn word(&self, bytes: &[u8], offset: usize) -> Option<u64> {
        let word = bytes.get(offset..)?.first_chunk::<8>()?;
        Some(if self.elf.little_endian { u64::from_le_bytes(*word) } else { u64::from_be_bytes(*word) })
    }

    pub(super) fn half(&self, bytes: &[u8], offset: usize) -> Option<u32> {
        let word = bytes.get(offset..)?.first_chunk::<4>()?;
        Some(if self.elf.little_endian { u32::from_le_bytes(*word) } else { u32::from_be_bytes(*word) })
    }
}

/// In a section of the module.
pub(super) fn is_defined(symbol: &Sym) -> bool {
    symbol.st_shndx != UNDEFINED && symbol.st_shndx < section_header::SHN_LORESERVE as usize
}
