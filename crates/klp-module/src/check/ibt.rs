//! Indirect branch tracking: a function that the kernel never calls through a pointer has lost its `ENDBR`,
//! and a new pointer to it would trap.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::sym::STT_FUNC;
use kbuild::symtab::{ShippedKind, SymbolTable};
use kpatch_elf::arch::{Flow, Machine};
use kpatch_elf::klp::{self, SHN_LIVEPATCH, VMLINUX};
use thiserror::Error;

use super::Target;
use super::entry::{address_range, section_headers};
use super::finding::Finding;
use super::view::{ModuleView, UNDEFINED, is_defined};
use crate::special::SPECIAL_SECTIONS;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Why the landing pads of a vmlinux are not known.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IbtError {
    /// No 64-bit ELF file, or a damaged one.
    #[error("not a readable 64-bit ELF file: {0}")]
    Malformed(String),
}

/// Where indirect branches may land in the kernel proper.
#[derive(Clone, Debug, Default)]
pub struct Ibt {
    landing: BTreeSet<u64>,
    sealed: BTreeSet<u64>,
}

impl Ibt {
    /// Reads a vmlinux built with `CONFIG_X86_KERNEL_IBT`, whose symbol table is `table`.
    pub fn from_vmlinux(bytes: &[u8], table: &SymbolTable<'_>) -> Result<Ibt, IbtError> {
        let bad = |what: &str| IbtError::Malformed(what.to_owned());
        let header = Elf::parse_header(bytes).map_err(|error| IbtError::Malformed(error.to_string()))?;
        let sections = section_headers(bytes, &header).ok_or_else(|| bad("no section headers"))?;
        let names = sections.get(usize::from(header.e_shstrndx)).ok_or_else(|| bad("no section names"))?;
        let name_at = |offset: usize| {
            let from = usize::try_from(names.sh_offset).ok()?.checked_add(offset)?;
            bytes.get(from..)?.split(|&b| b == 0).next()
        };
        let mut sealed = BTreeSet::new();
        for section in sections.iter().filter(|s| name_at(s.sh_name) == Some(b".ibt_endbr_seal")) {
            let end = section.sh_addr.saturating_add(section.sh_size);
            let words = address_range(bytes, &sections, section.sh_addr, end)
                .ok_or_else(|| bad("the list of sealed functions is cut off"))?;
            for (index, word) in words.chunks_exact(4).enumerate() {
                let Some(word) = word.first_chunk::<4>() else { continue };
                let place = section.sh_addr.wrapping_add(4 * index as u64);
                sealed.insert(place.wrapping_add_signed(i64::from(i32::from_le_bytes(*word))));
            }
        }
        let landing = table
            .symbols()
            .iter()
            .filter(|s| s.kind == ShippedKind::Function && s.defined)
            .filter(|s| {
                let code = address_range(bytes, &sections, s.value, s.value.saturating_add(4));
                code == Some(&ENDBR64)
            })
            .map(|s| s.value)
            .collect();
        Ok(Ibt { landing, sealed })
    }

    /// Landing pads and sealed ones among them, by address.
    pub fn new(landing: impl IntoIterator<Item = u64>, sealed: impl IntoIterator<Item = u64>) -> Ibt {
        Ibt { landing: landing.into_iter().collect(), sealed: sealed.into_iter().collect() }
    }
}

pub(super) fn check(view: &ModuleView<'_>, target: &Target<'_>, ibt: &Ibt, findings: &mut Vec<Finding>) {
    let Some(table) = target.tables.get(VMLINUX) else { return };
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
            let id = if symbol.st_shndx == usize::from(SHN_LIVEPATCH) {
                match klp::parse_symbol_name(name.into()) {
                    Some((object, name, sympos)) if object == VMLINUX => table.at_sympos(name, sympos),
                    _ => None,
                }
            } else if symbol.st_shndx == UNDEFINED {
                table.global(name.into())
            } else {
                None
            };
            let Some(shipped) = id.map(|id| table.symbol(id)) else { continue };
            if shipped.kind != ShippedKind::Function || !seen.insert(shipped.value) {
                continue;
            }
            let what = if !ibt.landing.contains(&shipped.value) {
                "missing"
            } else if ibt.sealed.contains(&shipped.value) {
                "sealed at boot"
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
