//! Entry calls: ftrace replaces a function by way of the call, or the no-op, at its start.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::header::{ET_REL, Header};
use goblin::elf::section_header::{SHT_NOBITS, SectionHeader};
use kbuild::symtab::{ShippedKind, SymbolTable};
use thiserror::Error;

use super::Target;
use super::finding::Finding;
use super::view::ModuleView;
use crate::manifest::ModuleManifest;

/// Why the entry calls of a shipped object are not known.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// No 64-bit ELF file, or a damaged one.
    #[error("not a readable 64-bit ELF object: {0}")]
    Malformed(String),
    /// A vmlinux without the symbols that bound its table.
    #[error("no table of entry calls (__start_mcount_loc, __stop_mcount_loc)")]
    NoTable,
    /// A table whose bytes are not in the file.
    #[error("the table of entry calls is empty in the file")]
    Empty,
}

/// The entry calls of a shipped object, by section (modules only) and address.
#[derive(Clone, Debug, Default)]
pub struct EntrySites {
    sites: BTreeSet<(u32, u64)>,
}

/// How far behind the start of a function its entry call may stand: landing pads, set-up of a table pointer.
const REACH: u64 = 32;

impl EntrySites {
    /// Reads the table of a vmlinux or a module.
    ///
    /// `table` is the object's own symbol table.
    pub fn from_elf(bytes: &[u8], table: &SymbolTable<'_>) -> Result<EntrySites, EntryError> {
        let header = Elf::parse_header(bytes).map_err(|error| EntryError::Malformed(error.to_string()))?;
        if header.e_type == ET_REL {
            EntrySites::of_module(bytes)
        } else {
            EntrySites::of_vmlinux(bytes, &header, table)
        }
    }

    fn of_module(bytes: &[u8]) -> Result<EntrySites, EntryError> {
        let view = ModuleView::parse(bytes).map_err(|finding| EntryError::Malformed(finding.to_string()))?;
        let sites = recorded(&view).into_iter().map(|(section, offset)| (section as u32, offset));
        Ok(EntrySites { sites: sites.collect() })
    }

    fn of_vmlinux(bytes: &[u8], header: &Header, table: &SymbolTable<'_>) -> Result<EntrySites, EntryError> {
        let bound = |name: &str| {
            let symbol = table.symbol(table.named(name.into()).find(|&id| table.symbol(id).defined)?);
            Some((symbol.value, symbol.section))
        };
        let (start, _) = bound("__start_mcount_loc").ok_or(EntryError::NoTable)?;
        let (stop, _) = bound("__stop_mcount_loc").ok_or(EntryError::NoTable)?;
        let little = header.endianness().map_err(|e| EntryError::Malformed(e.to_string()))?;
        let sections = section_headers(bytes, header).ok_or(EntryError::NoTable)?;
        let words = address_range(bytes, &sections, start, stop).ok_or(EntryError::NoTable)?;
        let sites: BTreeSet<(u32, u64)> = words
            .chunks_exact(8)
            .filter_map(|word| word.first_chunk::<8>())
            .map(
                |word| if little.is_little() { u64::from_le_bytes(*word) } else { u64::from_be_bytes(*word) },
            )
            .filter(|&address| address != 0)
            .map(|address| (0, address))
            .collect();
        if sites.is_empty() { Err(EntryError::Empty) } else { Ok(EntrySites { sites }) }
    }

    /// A table of known sites: section (0 in vmlinux) and address.
    pub fn new(sites: impl IntoIterator<Item = (u32, u64)>) -> EntrySites {
        EntrySites { sites: sites.into_iter().collect() }
    }

    /// Is there an entry call at the start of the function at `start`?
    pub fn has(&self, section: u32, start: u64, size: u64) -> bool {
        let end = start.saturating_add(size.clamp(1, REACH));
        self.sites.range((section, start)..(section, end)).next().is_some()
    }
}

/// The file's bytes of an address range in a linked file.
pub(super) fn address_range<'d>(
    bytes: &'d [u8],
    sections: &[SectionHeader],
    start: u64,
    stop: u64,
) -> Option<&'d [u8]> {
    let length = usize::try_from(stop.checked_sub(start)?).ok()?;
    let section = sections.iter().find(|s| {
        s.sh_addr != 0 && s.sh_type != SHT_NOBITS && s.sh_addr <= start && stop - s.sh_addr <= s.sh_size
    })?;
    let from = usize::try_from(section.sh_offset.checked_add(start - section.sh_addr)?).ok()?;
    bytes.get(from..from.checked_add(length)?)
}

/// Section headers without the rest, which for a vmlinux would be hundreds of megabytes.
pub(super) fn section_headers(bytes: &[u8], header: &Header) -> Option<Vec<SectionHeader>> {
    let ctx = goblin::container::Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let offset = usize::try_from(header.e_shoff).ok()?;
    SectionHeader::parse(bytes, offset, usize::from(header.e_shnum), ctx).ok()
}

/// The entry calls that a module records: section and offset.
fn recorded(view: &ModuleView<'_>) -> BTreeSet<(usize, u64)> {
    view.relas
        .iter()
        .filter(|r| matches!(view.section_name(r.target), "__mcount_loc" | "__patchable_function_entries"))
        .flat_map(|r| &r.entries)
        .filter_map(|r| view.target(r))
        .collect()
}

pub(super) fn check(
    view: &ModuleView<'_>,
    manifest: &ModuleManifest,
    target: &Target<'_>,
    findings: &mut Vec<Finding>,
) {
    let own = recorded(view);
    for object in &manifest.objects {
        if object.functions.is_empty() {
            continue;
        }
        let table = target.tables.get(&object.name);
        let entries = target.entries.get(&object.name);
        let (Some(table), Some(entries)) = (table, entries) else {
            findings.push(Finding::NoEntryTable { object: object.name.clone() });
            continue;
        };
        for function in &object.functions {
            let (name, sympos) = (function.name.clone(), function.sympos);
            let shipped = table.at_sympos(name.as_str().into(), sympos).map(|id| table.symbol(id));
            match shipped.filter(|s| s.kind != ShippedKind::Object) {
                None => findings.push(Finding::NoFunction { object: object.name.clone(), name, sympos }),
                Some(shipped) => {
                    if shipped.size != function.old_size {
                        findings.push(Finding::FunctionSize {
                            object: object.name.clone(),
                            name: name.clone(),
                            sympos,
                            found: shipped.size,
                            expected: function.old_size,
                        });
                    }
                    let section = if table.is_module() { shipped.section.unwrap_or(0) } else { 0 };
                    if !entries.has(section, shipped.value, shipped.size) {
                        findings.push(Finding::NoEntry { object: object.name.clone(), name, sympos });
                    }
                }
            }
            let new = manifest.final_name(&function.symbol);
            let traced = view.defined(new).any(|(_, s)| {
                let end = s.st_value.saturating_add(s.st_size.clamp(1, REACH));
                own.range((s.st_shndx, s.st_value)..(s.st_shndx, end)).next().is_some()
            });
            if !traced {
                findings.push(Finding::NewWithoutEntry { name: new.to_owned() });
            }
        }
    }
}
