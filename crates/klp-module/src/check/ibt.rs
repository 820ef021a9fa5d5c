//! Indirect branch tracking: a function that the kernel never calls through a pointer has lost its `ENDBR`,
//! and a new pointer to it would trap.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::sym::STT_FUNC;
use kbuild::symtab::{ShippedKind, ShippedSymbol, SymbolTable};
use kpatch_elf::arch::{Flow, Machine};
use kpatch_elf::klp::{self, SHN_LIVEPATCH, VMLINUX};
use thiserror::Error;

use super::Target;
use super::entry::{address_range, section_headers};
use super::finding::Finding;
use super::view::{ModuleView, UNDEFINED, is_defined};
use crate::special::SPECIAL_SECTIONS;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Where objtool lists the functions whose `ENDBR` the kernel overwrites at boot, or when it loads the module.
const SEALED: &str = ".ibt_endbr_seal";

/// Why the landing pads of a shipped object are not known.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IbtError {
    /// No 64-bit ELF file, or a damaged one.
    #[error("not a readable 64-bit ELF file: {0}")]
    Malformed(String),
}

/// A place in a shipped object: section (0 in vmlinux) and address.
type Place = (u32, u64);

/// Where indirect branches may land in a shipped object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ibt {
    landing: BTreeSet<Place>,
    sealed: BTreeSet<Place>,
}

impl Ibt {
    /// Reads a vmlinux or a module built with `CONFIG_X86_KERNEL_IBT`, whose symbol table is `table`.
    pub fn from_elf(bytes: &[u8], table: &SymbolTable<'_>) -> Result<Ibt, IbtError> {
        if table.is_module() {
            return Ibt::of_module(bytes, table);
        }
        let bad = |what: &str| IbtError::Malformed(what.to_owned());
        let header = Elf::parse_header(bytes).map_err(|error| IbtError::Malformed(error.to_string()))?;
        let sections = section_headers(bytes, &header).ok_or_else(|| bad("no section headers"))?;
        let names = sections.get(usize::from(header.e_shstrndx)).ok_or_else(|| bad("no section names"))?;
        let name_at = |offset: usize| {
            let from = usize::try_from(names.sh_offset).ok()?.checked_add(offset)?;
            bytes.get(from..)?.split(|&b| b == 0).next()
        };
        let mut sealed = BTreeSet::new();
        for section in sections.iter().filter(|s| name_at(s.sh_name) == Some(SEALED.as_bytes())) {
            let end = section.sh_addr.saturating_add(section.sh_size);
            let words = address_range(bytes, &sections, section.sh_addr, end)
                .ok_or_else(|| bad("the list of sealed functions is cut off"))?;
            for (index, word) in words.chunks_exact(4).enumerate() {
                let Some(word) = word.first_chunk::<4>() else { continue };
                let place = section.sh_addr.wrapping_add(4 * index as u64);
                sealed.insert((0, place.wrapping_add_signed(i64::from(i32::from_le_bytes(*word)))));
            }
        }
        let landing = landing(table, |symbol| {
            address_range(bytes, &sections, symbol.value, symbol.value.saturating_add(4))
        });
        Ok(Ibt { landing, sealed })
    }

    /// In a module, the list is relocations.
    fn of_module(bytes: &[u8], table: &SymbolTable<'_>) -> Result<Ibt, IbtError> {
        let view = ModuleView::parse(bytes).map_err(|finding| IbtError::Malformed(finding.to_string()))?;
        let lists = view.relas.iter().filter(|rela| view.section_name(rela.target) == SEALED);
        let sealed = lists.flat_map(|rela| &rela.entries).filter_map(|entry| view.target(entry));
        let sealed = sealed.map(|(section, offset)| (section as u32, offset)).collect();
        let landing = landing(table, |symbol| {
            let from = usize::try_from(symbol.value).ok()?;
            view.bytes(symbol.section? as usize).get(from..from.checked_add(ENDBR64.len())?)
        });
        Ok(Ibt { landing, sealed })
    }

    /// Landing pads and sealed ones among them.
    pub fn new(landing: impl IntoIterator<Item = Place>, sealed: impl IntoIterator<Item = Place>) -> Ibt {
        Ibt { landing: landing.into_iter().collect(), sealed: sealed.into_iter().collect() }
    }
}

/// The functions whose first instruction is an `ENDBR`.
fn landing<'b>(
    table: &SymbolTable<'_>,
    code: impl Fn(&ShippedSymbol<'_>) -> Option<&'b [u8]>,
) -> BTreeSet<Place> {
    let functions = table.symbols().iter().filter(|s| s.kind == ShippedKind::Function && s.defined);
    functions
        .filter(|symbol| code(symbol).is_some_and(|code| code == ENDBR64))
        .map(|symbol| place(table, symbol))
        .collect()
}

fn place(table: &SymbolTable<'_>, symbol: &ShippedSymbol<'_>) -> Place {
    (if table.is_module() { symbol.section.unwrap_or(0) } else { 0 }, symbol.value)
}

pub(super) fn check(view: &ModuleView<'_>, target: &Target<'_>, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for rela in &view.relas {
        // Tables about code hold addresses of functions, but nobody calls through them.
        let section = view.section_name(rela.target);
        if SPECIAL_SECTIONS.contains(&section) {
            continue;
        }
        let code = view.bytes(rela.target);
        let branches =
            if is_text(view, rela.target) { branches(view, rela.target, code) } else { BTreeSet::new() };
        for entry in &rela.entries {
            if branches.contains(&entry.offset) {
                continue;
            }
            let Some(symbol) = view.symbol(entry.symbol) else { continue };
            let name = view.symbol_name(symbol);
            // An export is never sealed: EXPORT_SYMBOL() counts as a pointer (.discard.ibt_endbr_noseal). Those of vmlinux are
            // looked at, as assembly code may have no ENDBR.
            let (object, table, id) = if symbol.st_shndx == usize::from(SHN_LIVEPATCH) {
                let Some((object, name, sympos)) = klp::parse_symbol_name(name.into()) else { continue };
                let Some(table) = target.tables.get(&object.to_string()) else { continue };
                (object.to_string(), table, table.at_sympos(name, sympos))
            } else if symbol.st_shndx == UNDEFINED {
                let Some(table) = target.tables.get(VMLINUX) else { continue };
                (VMLINUX.to_owned(), table, table.global(name.into()))
            } else {
                continue;
            };
            let (Some(ibt), Some(id)) = (target.ibt.get(&object), id) else { continue };
            let shipped = table.symbol(id);
            let place = place(table, shipped);
            if shipped.kind != ShippedKind::Function || !seen.insert((object, place)) {
                continue;
            }
            let what = if !ibt.landing.contains(&place) {
                "missing"
            } else if ibt.sealed.contains(&place) {
                "overwritten"
            } else {
                continue;
            };
            findings.push(Finding::Endbr { name: shipped.name.to_string(), what });
        }
    }
}

fn is_text(view: &ModuleView<'_>, section: usize) -> bool {
    view.section_flags(section) & u64::from(goblin::elf::section_header::SHF_EXECINSTR) != 0
}

/// The offsets of fields that direct calls and jumps hold.
fn branches(view: &ModuleView<'_>, section: usize, code: &[u8]) -> BTreeSet<u64> {
    let arch = Machine::X86_64.arch();
    let mut out = BTreeSet::new();
    let mut decode = |start: u64, body: &[u8]| {
        for instruction in arch.instructions(body) {
            if instruction.flow != Flow::Next && instruction.length >= 5 {
                out.insert(start + instruction.offset + u64::from(instruction.length) - 4);
            }
        }
    };
    // Function by function, since bytes between them need not decode.
    let mut functions = view
        .symbols
        .iter()
        .filter(|s| is_defined(s) && s.st_shndx == section && s.st_type() == STT_FUNC)
        .peekable();
    // Replacements of alternatives are instructions end to end, without a symbol.
    if functions.peek().is_none() {
        decode(0, code);
    }
    for symbol in functions {
        let Some(end) = symbol.st_value.checked_add(symbol.st_size) else { continue };
        let Some(body) = code.get(symbol.st_value as usize..end as usize) else { continue };
        decode(symbol.st_value, body);
    }
    out
}
