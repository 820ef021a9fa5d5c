//! Entry sizes of special sections: given by the caller, read from DWARF, or known for the machine.

use gimli::{AttributeValue, EndianSlice, RunTimeEndian, Section as _};
use kpatch_elf::arch::Machine;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The structures whose sizes differ between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// `struct bug_entry`
    Bug,
    /// `struct exception_table_entry`
    Exception,
    /// `struct alt_instr`
    Alternative,
    /// `struct static_call_site`
    StaticCall,
    /// `struct paravirt_patch_site`
    Paravirt,
    /// `struct jump_entry`
    Jump,
    /// `struct orc_entry`
    Orc,
    /// `struct pi_entry`
    PrintkIndex,
    /// `struct fixup_entry`
    Fixup,
}

impl Entry {
    /// All of them.
    pub const ALL: [Entry; 9] = [
        Entry::Bug,
        Entry::Exception,
        Entry::Alternative,
        Entry::StaticCall,
        Entry::Paravirt,
        Entry::Jump,
        Entry::Orc,
        Entry::PrintkIndex,
        Entry::Fixup,
    ];

    /// The C structure.
    pub fn structure(self) -> &'static str {
        match self {
            Self::Bug => "bug_entry",
            Self::Exception => "exception_table_entry",
            Self::Alternative => "alt_instr",
            Self::StaticCall => "static_call_site",
            Self::Paravirt => "paravirt_patch_site",
            Self::Jump => "jump_entry",
            Self::Orc => "orc_entry",
            Self::PrintkIndex => "pi_entry",
            Self::Fixup => "fixup_entry",
        }
    }

    /// NAME in the environment variable `NAME_STRUCT_SIZE`.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Bug => "BUG",
            Self::Exception => "EX",
            Self::Alternative => "ALT",
            Self::StaticCall => "STATIC_CALL",
            Self::Paravirt => "PARA",
            Self::Jump => "JUMP",
            Self::Orc => "ORC",
            Self::PrintkIndex => "PRINTK_INDEX",
            Self::Fixup => "FIXUP",
        }
    }
}

/// Entry sizes in bytes, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrySizes {
    sizes: [Option<u32>; Entry::ALL.len()],
}

/// Why sizes cannot be read from a file.
#[derive(Debug, Error)]
pub enum SizesError {
    /// No ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// The debug information cannot be read.
    #[error("cannot read the debug information: {0}")]
    Dwarf(#[from] gimli::Error),
    /// There is none.
    #[error("no debug information (.debug_info)")]
    NoDwarf,
}

impl EntrySizes {
    /// What current kernels of a machine use, for callers that know nothing better.
    ///
    /// A size that does not fit the relocations of a section is an error later, not a wrong result.
    pub fn builtin(machine: Machine) -> EntrySizes {
        let mut sizes = EntrySizes::default();
        let mut set = |entry, size| sizes.set(entry, size);
        set(Entry::Jump, 16);
        set(Entry::PrintkIndex, 44);
        match machine {
            Machine::X86_64 => {
                set(Entry::Bug, 12);
                set(Entry::Exception, 12);
                set(Entry::Alternative, 14);
                set(Entry::StaticCall, 8);
                set(Entry::Paravirt, 16);
                set(Entry::Orc, 6);
            }
            Machine::Aarch64 | Machine::S390x => {
                set(Entry::Bug, 12);
                set(Entry::Exception, 12);
                set(Entry::Alternative, 12);
            }
            Machine::Ppc64le => {
                set(Entry::Bug, 12);
                set(Entry::Exception, 8);
                set(Entry::Fixup, 48);
            }
            Machine::LoongArch64 => {
                set(Entry::Bug, 12);
                set(Entry::Exception, 12);
                set(Entry::Alternative, 12);
                set(Entry::Orc, 8);
            }
        }
        sizes
    }

    /// The size of an entry, `None` where the kernel has no such structure or nobody said.
    pub fn get(&self, entry: Entry) -> Option<u32> {
        self.sizes[entry as usize]
    }

    /// Says the size of an entry.
    pub fn set(&mut self, entry: Entry, size: u32) {
        self.sizes[entry as usize] = Some(size);
    }

    /// Reads the sizes from a kernel's DWARF. Stops as soon as all are known; a structure that the kernel
    /// lacks stays unknown.
    pub fn from_dwarf(vmlinux: &[u8]) -> Result<EntrySizes, SizesError> {
        let header = elf::FileHeader64::<Endianness>::parse(vmlinux)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, vmlinux)?;
        let order = if endian == Endianness::Big { RunTimeEndian::Big } else { RunTimeEndian::Little };
        let section = |id: gimli::SectionId| -> Result<EndianSlice<'_, RunTimeEndian>, SizesError> {
            let bytes = match sections.section_by_name(endian, id.name().as_bytes()) {
                Some((_, section)) => section.data(endian, vmlinux)?,
                None => &[],
            };
            Ok(EndianSlice::new(bytes, order))
        };
        let dwarf = gimli::Dwarf::load(section)?;
        if dwarf.debug_info.reader().is_empty() {
            return Err(SizesError::NoDwarf);
        }
        let mut sizes = EntrySizes::default();
        let mut missing = Entry::ALL.len();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let abbreviations = dwarf.abbreviations(&header)?;
            let mut entries = header.entries_raw(&abbreviations, None)?;
            while !entries.is_empty() {
                let Some(abbreviation) = entries.read_abbreviation()? else { continue };
                if abbreviation.tag() != gimli::DW_TAG_structure_type {
                    entries.skip_attributes(abbreviation.attributes())?;
                    continue;
                }
                let (mut name, mut size) = (None, None);
                for specification in abbreviation.attributes() {
                    let attribute = entries.read_attribute(*specification)?;
                    match attribute.name() {
                        gimli::DW_AT_name => {
                            name = match attribute.value() {
                                AttributeValue::DebugStrRef(offset) => dwarf.string(offset).ok(),
                                AttributeValue::String(text) => Some(text),
                                AttributeValue::DebugLineStrRef(offset) => dwarf.line_string(offset).ok(),
                                _ => None,
                            };
                        }
                        gimli::DW_AT_byte_size => size = attribute.udata_value(),
                        _ => {}
                    }
                }
                let (Some(name), Some(size)) = (name, size) else { continue };
                for entry in Entry::ALL {
                    if sizes.get(entry).is_none() && name.slice() == entry.structure().as_bytes() {
                        sizes.set(entry, size.try_into().unwrap_or(u32::MAX));
                        missing -= 1;
                    }
                }
                if missing == 0 {
                    return Ok(sizes);
                }
            }
        }
        Ok(sizes)
    }
}
