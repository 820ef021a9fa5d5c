//! Bytes to model.
//!
//! Input is hostile: every index is checked here once, so that ids in the model are always in range.

use std::borrow::Cow;

use bstr::{BStr, ByteSlice};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::read::{SectionIndex, SymbolIndex};
use thiserror::Error;

use crate::arch::Machine;
use crate::endian::Endian;
use crate::ids::{SectionId, SymbolId};
use crate::klp;
use crate::object::{Contents, Info, Link, Object, Place, Section, Symbol, section_flags, section_type};
use crate::relocations::{Relocation, Relocations};

/// Why bytes are not an object that can be worked on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The container is damaged or no 64-bit ELF file.
    #[error("not a readable 64-bit ELF object: {0}")]
    Malformed(#[from] object::read::Error),
    /// Not `ET_REL`.
    #[error("not a relocatable object (e_type {0})")]
    NotRelocatable(u16),
    /// A machine that live patching does not know.
    #[error("unsupported machine {machine} ({order}-endian)")]
    Machine {
        /// `e_machine`.
        machine: u16,
        /// `little` or `big`.
        order: &'static str,
    },
    /// Program headers in a relocatable object.
    #[error("program headers in a relocatable object")]
    ProgramHeaders,
    /// Relocations without addend.
    #[error("section {0} holds relocations without addends, which no 64-bit kernel uses")]
    Rel(String),
    /// Two relocation sections for one section.
    #[error("section {0} has two relocation sections")]
    TwoRelas(String),
    /// An index that leads out of its table.
    #[error("{what} {index} of {place} is out of range")]
    OutOfRange {
        /// What kind of index.
        what: &'static str,
        /// The index.
        index: u64,
        /// Where it was found.
        place: String,
    },
    /// No symbol table, or more than one.
    #[error("{0} symbol tables, one expected")]
    SymbolTables(usize),
}

const UNSET: u32 = u32::MAX;

type Header = FileHeader64<Endianness>;

/// Which ELF section becomes which id, and how many ids there are; tables that the writer makes anew
/// become none.
fn assign_ids(header: &Header, data: &[u8]) -> Result<(Vec<u32>, u32), ReadError> {
    let endian = header.endian()?;
    let table = header.sections(endian, data)?;
    let symtab = table.symbols(endian, data, elf::SHT_SYMTAB)?;
    let section_names = header.section_strings_index(endian, data)?;
    let mut ids = vec![UNSET; table.len()];
    let mut next = 0;
    for (index, section) in table.iter().enumerate().skip(1) {
        let kind = section.sh_type(endian).0;
        let made_anew = match kind {
            section_type::NULL | section_type::SYMTAB | section_type::SYMTAB_SHNDX => true,
            section_type::RELA => section.sh_flags(endian).0 & klp::SHF_RELA_LIVEPATCH == 0,
            section_type::REL => {
                return Err(ReadError::Rel(table.section_name(endian, section)?.as_bstr().to_string()));
            }
            section_type::STRTAB => index == symtab.string_section().0 || index == section_names.0,
            _ => false,
        };
        if !made_anew {
            ids[index] = next;
            next += 1;
        }
    }
    Ok((ids, next))
}

impl<'d> Object<'d> {
    /// The id that [`Object::read`] gives to each ELF section index of these bytes.
    pub fn section_ids(data: &[u8]) -> Result<Vec<Option<SectionId>>, ReadError> {
        let (ids, _) = assign_ids(Header::parse(data)?, data)?;
        Ok(ids.into_iter().map(|id| (id != UNSET).then_some(SectionId(id))).collect())
    }

    /// Reads a relocatable object.
    ///
    /// Linear in the input's size; borrows names and bytes.
    pub fn read(data: &'d [u8]) -> Result<Object<'d>, ReadError> {
        let header = Header::parse(data)?;
        let endianness = header.endian()?;
        let endian = match endianness {
            Endianness::Little => Endian::Little,
            Endianness::Big => Endian::Big,
        };
        let e_type = header.e_type(endianness);
        if e_type != elf::ET_REL {
            return Err(ReadError::NotRelocatable(e_type.0));
        }
        let e_machine = header.e_machine(endianness).0;
        let machine = Machine::from_elf(e_machine, endian).ok_or(ReadError::Machine {
            machine: e_machine,
            order: if endian == Endian::Little { "little" } else { "big" },
        })?;
        if header.e_phnum(endianness) != 0 {
            return Err(ReadError::ProgramHeaders);
        }
        let table = header.sections(endianness, data)?;
        let tables = table.iter().filter(|s| s.sh_type(endianness).0 == section_type::SYMTAB).count();
        if tables > 1 {
            return Err(ReadError::SymbolTables(tables));
        }
        let symtab = table.symbols(endianness, data, elf::SHT_SYMTAB)?;

        let name_of = |index: usize| -> Result<&'d BStr, ReadError> {
            let section = table.section(SectionIndex(index))?;
            Ok(table.section_name(endianness, section)?.as_bstr())
        };

        let (ids, next) = assign_ids(header, data)?;
        let section_id = |index: usize, what: &'static str, place: &BStr| match ids.get(index) {
            Some(&id) if id != UNSET => Ok(SectionId(id)),
            _ => Err(ReadError::OutOfRange { what, index: index as u64, place: place.to_string() }),
        };
        let symbol_count = symtab.len().max(1);
        let symbol_id = |index: usize, place: &BStr| {
            if index == 0 {
                Ok(None)
            } else if index < symbol_count {
                Ok(Some(SymbolId(index as u32 - 1)))
            } else {
                Err(ReadError::OutOfRange { what: "symbol", index: index as u64, place: place.to_string() })
            }
        };

        let mut sections = Vec::with_capacity(next as usize);
        for (index, raw) in table.iter().enumerate() {
            if ids[index] == UNSET {
                continue;
            }
            let name = name_of(index)?;
            let kind = raw.sh_type(endianness).0;
            let flags = raw.sh_flags(endianness).0;
            let link_index = raw.sh_link(endianness) as usize;
            let info_index = raw.sh_info(endianness);
            let link = if link_index == 0 {
                Link::None
            } else if link_index == symtab.section().0 {
                Link::SymbolTable
            } else {
                match ids.get(link_index) {
                    Some(&UNSET) => Link::None,
                    Some(&id) => Link::Section(SectionId(id)),
                    None => {
                        return Err(ReadError::OutOfRange {
                            what: "sh_link",
                            index: link_index as u64,
                            place: name.to_string(),
                        });
                    }
                }
            };
            let is_klp_rela = kind == section_type::RELA;
            let info = if kind == section_type::GROUP {
                match symbol_id(info_index as usize, name)? {
                    Some(id) => Info::Symbol(id),
                    None => Info::Raw(0),
                }
            } else if is_klp_rela || flags & section_flags::INFO_LINK != 0 {
                Info::Section(section_id(info_index as usize, "sh_info", name)?)
            } else {
                Info::Raw(info_index)
            };
            let contents = match kind {
                section_type::NOBITS => Contents::Zero(raw.sh_size(endianness)),
                section_type::GROUP => {
                    let words = raw.data(endianness, data)?;
                    let flags = endian.u32(words, 0).unwrap_or(0);
                    let mut members = Vec::with_capacity(words.len() / 4);
                    for word in 1..words.len() / 4 {
                        let member = endian.u32(words, word * 4).unwrap_or(0) as usize;
                        let is_table = table
                            .section(SectionIndex(member))
                            .is_ok_and(|s| s.sh_type(endianness).0 == section_type::RELA);
                        if !is_table {
                            members.push(section_id(member, "group member", name)?);
                        }
                    }
                    Contents::Group { flags, members }
                }
                _ if is_klp_rela => Contents::Bytes(Cow::Borrowed(&[])),
                _ => Contents::Bytes(Cow::Borrowed(raw.data(endianness, data)?)),
            };
            sections.push(Section {
                name: Cow::Borrowed(name),
                kind,
                flags,
                align: raw.sh_addralign(endianness),
                entry_size: raw.sh_entsize(endianness),
                link,
                info,
                contents,
                relocations: Relocations::new(),
            });
        }

        let mut has_rela = vec![false; sections.len()];
        for (index, raw) in table.iter().enumerate() {
            let Some((entries, _)) = raw.rela(endianness, data)? else { continue };
            let name = name_of(index)?;
            let owner = if ids[index] == UNSET {
                let target = section_id(raw.sh_info(endianness) as usize, "sh_info", name)?;
                if std::mem::replace(&mut has_rela[target.index()], true) {
                    return Err(ReadError::TwoRelas(sections[target.index()].name.to_string()));
                }
                target
            } else {
                SectionId(ids[index])
            };
            let patched = match sections[owner.index()].info {
                Info::Section(target) if ids[index] != UNSET => target,
                _ => owner,
            };
            let limit = sections[patched.index()].size();
            let (entries, _) = object::bytes_of_slice(entries).as_chunks();
            let mut relocations = Relocations::of_file(entries, endian);
            let (mut last, mut sorted) = (0, true);
            for relocation in &relocations {
                let Relocation { offset, symbol, .. } = relocation;
                if offset > limit {
                    let place = name.to_string();
                    return Err(ReadError::OutOfRange { what: "offset", index: offset, place });
                }
                symbol_id(symbol.map_or(0, |id| id.index() + 1), name)?;
                sorted &= last <= offset;
                last = offset;
            }
            // Assemblers emit them in order; `ld -r` of several inputs need not.
            if !sorted {
                relocations.to_mut().sort_by_key(|r| r.offset);
            }
            sections[owner.index()].relocations = relocations;
        }

        let mut symbols = Vec::with_capacity(symbol_count - 1);
        for (index, raw) in symtab.enumerate().skip(1) {
            let SymbolIndex(number) = index;
            let name = symtab.symbol_name(endianness, raw)?.as_bstr();
            let place = match raw.st_shndx(endianness).0 {
                0 => Place::Undefined,
                0xfff1 => Place::Absolute,
                0xfff2 => Place::Common,
                klp::SHN_LIVEPATCH => Place::Livepatch,
                shndx @ 0xff00..=0xfffe => Place::Other(shndx),
                0xffff => {
                    let section = symtab.shndx(endianness, index).unwrap_or(0) as usize;
                    Place::Section(section_id(section, "section", name)?)
                }
                shndx => match ids.get(shndx as usize) {
                    // A section symbol of a table that the writer makes anew says nothing.
                    Some(&UNSET) if raw.st_type().0 == crate::symbol_kind::SECTION => Place::Other(0xffff),
                    Some(&id) if id != UNSET => Place::Section(SectionId(id)),
                    _ => {
                        return Err(ReadError::OutOfRange {
                            what: "section of symbol",
                            index: number as u64,
                            place: name.to_string(),
                        });
                    }
                },
            };
            symbols.push(Symbol {
                name: Cow::Borrowed(name),
                value: raw.st_value(endianness),
                size: raw.st_size(endianness),
                kind: raw.st_type().0,
                binding: raw.st_bind().0,
                other: raw.st_other().0,
                place,
            });
        }
        let ident = header.e_ident();
        Ok(Object {
            machine,
            endian,
            file_flags: header.e_flags(endianness).0,
            abi: [ident.os_abi.0, ident.abi_version],
            sections,
            symbols,
        })
    }
}
