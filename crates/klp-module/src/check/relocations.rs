//! Every relocation, and the bytes under it.

use std::collections::BTreeSet;

use goblin::elf::section_header::{SHF_ALLOC, SHF_INFO_LINK, SHT_RELA};
use kpatch_elf::Endian;
use kpatch_elf::arch::Machine;
use kpatch_elf::klp::{self, RELA_PREFIX, SHF_RELA_LIVEPATCH, SHN_LIVEPATCH, VMLINUX};

use super::finding::Finding;
use super::view::{ModuleView, RelaSection};
use crate::manifest::ModuleManifest;
use crate::special::SPECIAL_SECTIONS;

/// What `apply_relocate_add` of x86-64 takes (`arch/x86/kernel/module.c`): NONE, 64, PC32, PLT32, 32, 32S,
/// PC64.
const X86_64_LOADER: [u32; 7] = [0, 1, 2, 4, 10, 11, 24];

pub(super) fn check(view: &ModuleView<'_>, manifest: &ModuleManifest, findings: &mut Vec<Finding>) {
    let endian = if view.elf.little_endian { Endian::Little } else { Endian::Big };
    let Some(machine) = Machine::from_elf(view.elf.header.e_machine, endian) else {
        findings.push(Finding::Malformed(format!("unknown machine {}", view.elf.header.e_machine)));
        return;
    };
    let gates: BTreeSet<&str> = manifest.objects.iter().map(|o| o.name.as_str()).chain([VMLINUX]).collect();
    // Of each section: the offsets that somebody writes.
    let mut written: BTreeSet<(usize, u64)> = BTreeSet::new();
    for rela in &view.relas {
        let target_flags = view.section_flags(rela.target);
        let name = view.section_name(rela.index).to_owned();
        let flags = view.section_flags(rela.index);
        let livepatch = name.starts_with(RELA_PREFIX) || flags & SHF_RELA_LIVEPATCH != 0;
        if livepatch {
            section(view, rela, &name, flags, &gates, findings);
        } else if target_flags & u64::from(SHF_ALLOC) == 0 {
            // Not loaded, not relocated.
            continue;
        }
        entries(view, rela, livepatch, machine, &mut written, findings);
    }
}

fn section(
    view: &ModuleView<'_>,
    rela: &RelaSection,
    name: &str,
    flags: u64,
    gates: &BTreeSet<&str>,
    findings: &mut Vec<Finding>,
) {
    let mut bad = |what| findings.push(Finding::RelaSection { section: name.to_owned(), what });
    let required = u64::from(SHF_ALLOC) | u64::from(SHF_INFO_LINK) | SHF_RELA_LIVEPATCH;
    let header = &view.elf.section_headers[rela.index];
    if flags != required || header.sh_type != SHT_RELA || header.sh_entsize != 24 {
        bad("lacks the type or flags of livepatch relocations");
    }
    if view.section_flags(rela.target) & u64::from(SHF_ALLOC) == 0 {
        bad("applies to a section that is not loaded");
    }
    if rela.entries.is_empty() {
        bad("is empty");
    }
    let Some((gate, target)) = klp::parse_rela_name(name.into()) else {
        bad("has a name that the kernel cannot parse");
        return;
    };
    if target != view.section_name(rela.target) {
        bad("is named after another section than it applies to");
    }
    let gate = gate.to_string();
    if !gates.contains(gate.as_str()) {
        findings.push(Finding::UnknownGate { section: name.to_owned(), gate: gate.clone() });
    }
    let special = SPECIAL_SECTIONS.contains(&view.section_name(rela.target));
    for entry in &rela.entries {
        let symbol = view.name_at(entry.symbol).into_owned();
        let Some((owner, _, _)) = klp::parse_symbol_name(symbol.as_str().into()) else { continue };
        if gate != VMLINUX && owner == VMLINUX {
            findings.push(Finding::GatedVmlinux {
                section: name.to_owned(),
                gate: gate.clone(),
                symbol: symbol.clone(),
            });
        }
        if gate == VMLINUX && owner != VMLINUX {
            findings.push(Finding::UngatedModule { section: name.to_owned(), symbol: symbol.clone() });
        }
        if gate != VMLINUX && special {
            findings.push(Finding::SpecialSection {
                section: view.section_name(rela.target).to_owned(),
                gate: gate.clone(),
                symbol,
            });
        }
    }
}

fn entries(
    view: &ModuleView<'_>,
    rela: &RelaSection,
    livepatch: bool,
    machine: Machine,
    written: &mut BTreeSet<(usize, u64)>,
    findings: &mut Vec<Finding>,
) {
    let arch = machine.arch();
    let bytes = view.bytes(rela.target);
    let section = view.section_name(rela.target);
    for entry in &rela.entries {
        let symbol = view.name_at(entry.symbol).into_owned();
        let place = |symbol: String| (section.to_owned(), entry.offset, symbol);
        let to_livepatch =
            view.symbol(entry.symbol).is_some_and(|s| s.st_shndx == usize::from(SHN_LIVEPATCH));
        if livepatch && !to_livepatch {
            let (section, offset, symbol) = place(symbol.clone());
            findings.push(Finding::LivepatchToPlain { section, offset, symbol });
        }
        if !livepatch && to_livepatch {
            let (section, offset, symbol) = place(symbol.clone());
            findings.push(Finding::PlainToLivepatch { section, offset, symbol });
        }
        let known = match machine {
            Machine::X86_64 => X86_64_LOADER.contains(&entry.kind),
            _ => arch.relocation_name(entry.kind).is_some(),
        };
        let field = match arch.field(entry.kind) {
            Some(field) if known => field,
            _ => {
                let (section, offset, symbol) = place(symbol);
                findings.push(Finding::RelocationType { section, offset, kind: entry.kind, symbol });
                continue;
            }
        };
        let width = u64::from(field.width);
        let Some(range) = entry.offset.checked_add(width).filter(|&end| end <= bytes.len() as u64) else {
            let (section, offset, symbol) = place(symbol);
            findings.push(Finding::RelocationRange { section, offset, symbol });
            continue;
        };
        if width == 0 {
            continue;
        }
        // x86 writes over nothing but zeros, whoever relocates; the other bits of a partial field are the
        // instruction's.
        let zero = machine == Machine::X86_64 || livepatch && field.whole;
        let content = &bytes[entry.offset as usize..range as usize];
        if zero && content.iter().any(|&b| b != 0) {
            let (section, offset, symbol) = place(symbol.clone());
            findings.push(Finding::NonZero { section, offset, symbol });
        }
        if (entry.offset..range).any(|at| !written.insert((rela.target, at))) && machine == Machine::X86_64 {
            let (section, offset, symbol) = place(symbol);
            findings.push(Finding::Overlap { section, offset, symbol });
        }
    }
}
