//! Model to bytes.
//!
//! Layout: file header, section contents in table order, relocations, symbol table, strings, headers. A
//! `.rela.*` section stands right behind the section it applies to, as assemblers put it. The same model
//! gives the same bytes.

use bstr::ByteSlice;
use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use thiserror::Error;

use crate::endian::Endian;
use crate::ids::SectionId;
use crate::klp;
use crate::object::{Contents, Info, Link, Object, Place, Section, binding, section_flags, section_type};

/// Why a model cannot be written.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// The container's limits are exceeded.
    #[error("cannot write the object: {0}")]
    Container(#[from] object::write::Error),
    /// A name with a NUL byte inside.
    #[error("name {0:?} holds a NUL byte")]
    Name(String),
    /// Livepatch relocation sections need the section they apply to.
    #[error("livepatch relocation section {0} names no section to apply to")]
    KlpRela(String),
}

/// Where the relocations of one section go.
struct RelaTable {
    owner: SectionId,
    index: SectionIndex,
    offset: u64,
}

impl Object<'_> {
    /// Writes the object. Local symbols come before global ones, otherwise tables keep their order.
    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        self.check_names()?;
        let rela_names: Vec<Option<Vec<u8>>> = self
            .sections
            .iter()
            .map(|s| {
                (!s.relocations.is_empty() && !s.is_klp_rela())
                    .then(|| [b".rela", s.name.as_bytes()].concat())
            })
            .collect();
        for section in &self.sections {
            if section.is_klp_rela() && !matches!(section.info, Info::Section(_)) {
                return Err(WriteError::KlpRela(section.name.to_string()));
            }
        }

        let endian = match self.endian {
            Endian::Little => Endianness::Little,
            Endian::Big => Endianness::Big,
        };
        let mut out = Vec::new();
        let mut writer = Writer::new(endian, true, &mut out);
        writer.reserve_file_header();
        writer.reserve_null_section_index();

        // Section indexes and names.
        let mut indexes = Vec::with_capacity(self.sections.len());
        let mut names = Vec::with_capacity(self.sections.len());
        let mut relas: Vec<RelaTable> = Vec::new();
        let mut rela_of = vec![None; self.sections.len()];
        let mut rela_strings = Vec::new();
        for (id, section) in self.sections_with_ids() {
            indexes.push(writer.reserve_section_index());
            names.push(writer.add_section_name(section.name.as_bytes()));
            if let Some(name) = &rela_names[id.index()] {
                rela_of[id.index()] = Some(relas.len());
                rela_strings.push(writer.add_section_name(name));
                relas.push(RelaTable { owner: id, index: writer.reserve_section_index(), offset: 0 });
            }
        }

        // Symbols: locals first, order kept otherwise.
        writer.reserve_null_symbol_index();
        let order: Vec<usize> = (0..self.symbols.len())
            .filter(|&i| self.symbols[i].binding == binding::LOCAL)
            .chain((0..self.symbols.len()).filter(|&i| self.symbols[i].binding != binding::LOCAL))
            .collect();
        let locals = self.symbols.iter().filter(|s| s.binding == binding::LOCAL).count() as u32 + 1;
        let mut symbol_indexes = vec![SymbolIndex(0); self.symbols.len()];
        let mut symbol_names = vec![None; self.symbols.len()];
        for &i in &order {
            let symbol = &self.symbols[i];
            let section = symbol.section().map(|s| indexes[s.index()]);
            symbol_indexes[i] = writer.reserve_symbol_index(section);
            if !symbol.name.is_empty() {
                symbol_names[i] = Some(writer.add_string(symbol.name.as_bytes()));
            }
        }
        let symtab = writer.reserve_symtab_section_index();
        if writer.symtab_shndx_needed() {
            writer.reserve_symtab_shndx_section_index();
        }
        writer.require_strtab();
        writer.reserve_strtab_section_index();
        writer.reserve_shstrtab_section_index();

        // Groups name their members by index, so their bytes are known only now.
        let groups: Vec<Option<Vec<u8>>> =
            self.sections.iter().map(|s| self.group_bytes(s, &indexes, &relas, &rela_of)).collect();

        // Offsets.
        let mut offsets = Vec::with_capacity(self.sections.len());
        for (i, section) in self.sections.iter().enumerate() {
            let align = file_align(section.align);
            offsets.push(match (&section.contents, &groups[i]) {
                (_, Some(words)) => writer.reserve(words.len() as u64, 4),
                (Contents::Bytes(_), None) if section.is_klp_rela() => {
                    writer.reserve(section.relocations.len() as u64 * 24, 8)
                }
                // What is empty is not written, so there must be no padding in front of it.
                (Contents::Bytes(bytes), None) if !bytes.is_empty() => {
                    writer.reserve(bytes.len() as u64, align)
                }
                (_, None) => writer.reserve(0, 1),
            });
        }
        for rela in &mut relas {
            rela.offset = writer.reserve(self.section(rela.owner).relocations.len() as u64 * 24, 8);
        }
        writer.reserve_symtab();
        writer.reserve_symtab_shndx();
        writer.reserve_strtab()?;
        writer.reserve_shstrtab()?;
        writer.reserve_section_headers();

        // Bytes.
        writer.write_file_header(&FileHeader {
            os_abi: elf::OsAbi(self.abi[0]),
            abi_version: self.abi[1],
            e_type: elf::ET_REL,
            e_machine: elf::Machine(self.machine.to_elf()),
            e_entry: 0,
            e_flags: elf::FileFlags(self.file_flags),
        })?;
        for (i, section) in self.sections.iter().enumerate() {
            let bytes = groups[i].as_deref().unwrap_or(section.bytes());
            if !bytes.is_empty() {
                writer.pad_until(offsets[i]);
                writer.write(bytes);
            } else if section.is_klp_rela() {
                writer.pad_until(offsets[i]);
                write_relocations(&mut writer, section, &symbol_indexes);
            }
        }
        for rela in &relas {
            writer.pad_until(rela.offset);
            write_relocations(&mut writer, self.section(rela.owner), &symbol_indexes);
        }
        writer.write_null_symbol();
        for &i in &order {
            let symbol = &self.symbols[i];
            let (section, shndx) = match symbol.place {
                Place::Section(id) => (Some(indexes[id.index()].0), 0),
                Place::Undefined | Place::Other(0xffff) => (None, 0),
                Place::Absolute => (None, 0xfff1),
                Place::Common => (None, 0xfff2),
                Place::Livepatch => (None, klp::SHN_LIVEPATCH),
                Place::Other(shndx) => (None, shndx),
            };
            let st_name = writer.string_offset(symbol_names[i]);
            writer.write_symbol(&Sym {
                section,
                st_name,
                st_info: elf::SymbolInfo(symbol.binding << 4 | symbol.kind & 0xf),
                st_other: elf::SymbolOther(symbol.other),
                st_shndx: elf::SymbolSection(shndx),
                st_value: symbol.value,
                st_size: symbol.size,
            });
        }
        writer.write_symtab_shndx();
        writer.write_strtab();
        writer.write_shstrtab();

        // Headers.
        writer.write_null_section_header();
        for (i, section) in self.sections.iter().enumerate() {
            let (sh_link, sh_info) = if section.is_klp_rela() {
                (symtab.0, info_value(section, &indexes, &symbol_indexes))
            } else {
                let link = match section.link {
                    Link::None => 0,
                    Link::SymbolTable => symtab.0,
                    Link::Section(id) => indexes[id.index()].0,
                };
                let link = if section.kind == section_type::GROUP { symtab.0 } else { link };
                (link, info_value(section, &indexes, &symbol_indexes))
            };
            let sh_size = match &groups[i] {
                Some(words) => words.len() as u64,
                None if section.is_klp_rela() => section.relocations.len() as u64 * 24,
                None => section.size(),
            };
            let sh_name = writer.section_name_offset(Some(names[i]));
            writer.write_section_header(&SectionHeader {
                sh_name,
                sh_type: elf::SectionType(section.kind),
                sh_flags: elf::SectionFlags(section.flags),
                sh_addr: 0,
                sh_offset: offsets[i],
                sh_size,
                sh_link,
                sh_info,
                sh_addralign: section.align,
                sh_entsize: if section.is_klp_rela() { 24 } else { section.entry_size },
            });
            if let Some(position) = rela_of[i] {
                let rela = &relas[position];
                let group = section.flags & section_flags::GROUP;
                let sh_name = writer.section_name_offset(Some(rela_strings[position]));
                writer.write_section_header(&SectionHeader {
                    sh_name,
                    sh_type: elf::SectionType(section_type::RELA),
                    sh_flags: elf::SectionFlags(section_flags::INFO_LINK | group),
                    sh_addr: 0,
                    sh_offset: rela.offset,
                    sh_size: section.relocations.len() as u64 * 24,
                    sh_link: symtab.0,
                    sh_info: indexes[i].0,
                    sh_addralign: 8,
                    sh_entsize: 24,
                });
            }
        }
        writer.write_symtab_section_header(locals);
        writer.write_symtab_shndx_section_header();
        writer.write_strtab_section_header();
        writer.write_shstrtab_section_header();
        Ok(out)
    }

    fn check_names(&self) -> Result<(), WriteError> {
        let names = self.sections.iter().map(|s| &s.name).chain(self.symbols.iter().map(|s| &s.name));
        for name in names {
            if name.contains(&0) {
                return Err(WriteError::Name(name.to_string()));
            }
        }
        Ok(())
    }

    fn group_bytes(
        &self,
        section: &Section<'_>,
        indexes: &[SectionIndex],
        relas: &[RelaTable],
        rela_of: &[Option<usize>],
    ) -> Option<Vec<u8>> {
        let Contents::Group { flags, members } = &section.contents else { return None };
        let mut words = vec![*flags];
        for member in members {
            words.push(indexes[member.index()].0);
            // A member's relocations belong to its group (generic ABI, "Section Groups").
            if let Some(position) = rela_of[member.index()] {
                words.push(relas[position].index.0);
            }
        }
        Some(match self.endian {
            Endian::Little => words.iter().flat_map(|w| w.to_le_bytes()).collect(),
            Endian::Big => words.iter().flat_map(|w| w.to_be_bytes()).collect(),
        })
    }
}

/// Alignment in the file of contents that are aligned in memory. The generic ABI asks for none; words that a
/// reader looks at in place need theirs, and more would only make files large.
fn file_align(align: u64) -> u64 {
    1 << align.max(1).trailing_zeros().min(6)
}

fn info_value(section: &Section<'_>, indexes: &[SectionIndex], symbols: &[SymbolIndex]) -> u32 {
    match section.info {
        Info::Raw(value) => value,
        Info::Section(id) => indexes[id.index()].0,
        Info::Symbol(id) => symbols[id.index()].0,
    }
}

fn write_relocations(writer: &mut Writer<'_>, section: &Section<'_>, symbols: &[SymbolIndex]) {
    for relocation in &section.relocations {
        writer.write_relocation(
            true,
            &Rel {
                r_offset: relocation.offset,
                r_sym: relocation.symbol.map_or(0, |s| symbols[s.index()].0),
                r_type: elf::RelocationType(relocation.kind),
                r_addend: relocation.addend,
            },
        );
    }
}
