//! The special sections: tables whose entries are about pieces of code.

use bstr::{BStr, ByteSlice};
use kpatch_elf::arch::Machine;
use kpatch_elf::{Section, section_flags, section_type};

use crate::names;
use crate::sizes::Entry;

/// How a table's entry size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntrySize {
    /// By the size of a C structure of that kernel.
    Structure(Entry),
    /// The same in every kernel, in bytes.
    Bytes(u64),
    /// By where its relocations stand: one at the start of each entry.
    Layout,
}

/// What a table is for, where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// `__bug_table`: its lines are no change.
    Bugs,
    /// `__jump_table`
    Jumps,
    /// `.static_call_sites`
    StaticCalls,
    /// `.altinstructions`: its entries own pieces of `.altinstr_replacement`. `__ftr_fixup` of powerpc likewise.
    Alternatives,
    /// `__ex_table`
    Exceptions,
    /// Where functions call the tracer: `__mcount_loc`, `__patchable_function_entries`.
    Entries,
    /// `.orc_unwind_ip`; `.orc_unwind` runs in parallel.
    OrcAddresses,
    /// `runtime_ptr_*`, `runtime_shift_*`: patched at boot, in vmlinux only.
    Runtime,
    /// Everything else.
    Plain,
}

/// How the differ treats a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Code.
    Text,
    /// Data, read-only or not.
    Data,
    /// Mergeable strings of characters of this many bytes.
    Strings(u64),
    /// Mergeable constants of this many bytes.
    Constants(u64),
    /// A special section.
    Table(TableKind, EntrySize),
    /// `.orc_unwind`
    Orc,
    /// `.orc_header`
    OrcHeader,
    /// Entries that make the kernel know of something at start; a live patch comes too late for them.
    Registration,
    /// What the author macros leave for this tool.
    Author,
    /// `.modinfo`
    ModInfo,
    /// Made anew, of no meaning for the change, or never loaded.
    Ignored,
}

/// Registrations. A patch that adds one has no effect.
const REGISTRATIONS: [&[u8]; 16] = [
    b".initcall",
    b".con_initcall",
    b".security_initcall",
    b"__ksymtab",
    b"___ksymtab",
    b"__kcrctab",
    b"___kcrctab",
    b"__kflagstab",
    b".export_symbol",
    b"__param",
    b".init.setup",
    b"_ftrace_eval_map",
    b"__obs_param",
    b"__modver",
    b"_error_injection_whitelist",
    b".pci_fixup",
];

/// Sections of which nothing is compared or taken.
const IGNORED: [&[u8]; 22] = [
    b".debug_",
    b".eh_frame",
    b".comment",
    b".note",
    b".llvm",
    b".printk_index",
    b"__mcount_loc.hashed",
    b".sframe",
    b".gnu.",
    b".kcov",
    b"__export_symbol_strings",
    b".discard.addressable",
    b".discard.annotate_data",
    b".discard.sym_checksum",
    b".discard.ibt_endbr_noseal",
    b".export_symbol_",
    b"__ksymtab_strings",
    b".BTF.",
    b".ctors",
    b".stack_sizes",
    b".shstrtab",
    b".strtab",
];

/// What the names of nearly all sections begin with, and none of those with a meaning of their own.
const ORDINARY: [&[u8]; 4] = [b".text", b".data", b".rodata", b".bss"];

/// How a section is treated.
pub(crate) fn classify(section: &Section<'_>, machine: Machine) -> Class {
    use EntrySize::{Bytes, Layout, Structure};
    let name: &BStr = section.name.as_ref();
    let plain = |size| Class::Table(TableKind::Plain, size);
    if section.is_alloc() && ORDINARY.iter().any(|prefix| name.starts_with(prefix)) {
        return ordinary(section);
    }
    if section.kind == section_type::GROUP || section.kind == section_type::LLVM_ADDRSIG {
        return Class::Ignored;
    }
    if name.starts_with(b".kpatch.") {
        return Class::Author;
    }
    match name.as_bytes() {
        b".modinfo" => return Class::ModInfo,
        b".BTF" => return Class::Ignored,
        b"__bug_table" => return Class::Table(TableKind::Bugs, Structure(Entry::Bug)),
        b"__ex_table" => return Class::Table(TableKind::Exceptions, Structure(Entry::Exception)),
        b"__jump_table" => return Class::Table(TableKind::Jumps, Structure(Entry::Jump)),
        b".static_call_sites" => return Class::Table(TableKind::StaticCalls, Structure(Entry::StaticCall)),
        b".altinstructions" => return Class::Table(TableKind::Alternatives, Structure(Entry::Alternative)),
        b".parainstructions" => return plain(Structure(Entry::Paravirt)),
        b"__mcount_loc" | b"__patchable_function_entries" => {
            return Class::Table(TableKind::Entries, Bytes(8));
        }
        b".orc_unwind_ip" => return Class::Table(TableKind::OrcAddresses, Bytes(4)),
        b".orc_unwind" => return Class::Orc,
        b".orc_header" => return Class::OrcHeader,
        b".smp_locks" | b".call_sites" | b".retpoline_sites" | b".return_sites" | b".ibt_endbr_seal"
        | b".cfi_sites" | b".kcfi_traps" => return plain(Bytes(4)),
        b"_kprobe_blacklist" => return plain(Bytes(8)),
        b".static_call_tramp_key" => return Class::Registration,
        _ => {}
    }
    match machine {
        Machine::Ppc64le => match name.as_bytes() {
            b"__ftr_fixup" | b"__mmu_ftr_fixup" | b"__fw_ftr_fixup" => {
                return Class::Table(TableKind::Alternatives, Structure(Entry::Fixup));
            }
            b"__lwsync_fixup" | b"__barrier_nospec_fixup" => return plain(Bytes(8)),
            _ => {}
        },
        Machine::S390x if name.starts_with(b".s390_return") || name.starts_with(b".s390_indirect") => {
            return plain(Bytes(4));
        }
        _ => {}
    }
    if name.starts_with(b"runtime_ptr_") || name.starts_with(b"runtime_shift_") {
        return Class::Table(TableKind::Runtime, Bytes(4));
    }
    if IGNORED.iter().any(|prefix| name.starts_with(prefix)) {
        return Class::Ignored;
    }
    if name.starts_with(b".discard") {
        return plain(Layout);
    }
    if !section.is_alloc() {
        return Class::Ignored;
    }
    if REGISTRATIONS.iter().any(|prefix| name.starts_with(prefix)) {
        return Class::Registration;
    }
    ordinary(section)
}

/// What a loaded section without a name of its own is by its type and flags.
fn ordinary(section: &Section<'_>) -> Class {
    if section.is_text() {
        return Class::Text;
    }
    if section.has(section_flags::MERGE)
        && section.kind != section_type::NOBITS
        && section.relocations.is_empty()
    {
        let unit = section.entry_size.max(1);
        if section.is_strings() {
            return Class::Strings(unit);
        }
        return Class::Constants(unit);
    }
    Class::Data
}

/// True for sections that only objtool or recordmcount make, so that the object has been through them.
pub(crate) fn made_by_objtool(name: &BStr) -> bool {
    matches!(
        name.as_bytes(),
        b".orc_unwind"
            | b".orc_unwind_ip"
            | b".return_sites"
            | b".retpoline_sites"
            | b".call_sites"
            | b".static_call_sites"
            | b".ibt_endbr_seal"
    )
}

/// Where an alternative's replacement length stands in an entry of that size: `(offset of the length of
/// the original code, offset of the replacement's)`, one byte each on x86 and arm64.
pub(crate) fn alternative_lengths(machine: Machine, entry: u64) -> Option<(usize, usize)> {
    match (machine, entry) {
        // s32 instr_offset, s32 repl_offset, u16 cpuid, u8 instrlen, u8 replacementlen; x86 of 5.10 has u8 padlen
        // behind it. In entries of 11 and 13 bytes s390 has no length of the replacement.
        (_, 12) | (Machine::X86_64, 13) => Some((10, 11)),
        // s32 instr_offset, s32 repl_offset, u32 flags, u8 instrlen, u8 replacementlen (6.3 and later)
        (Machine::X86_64, 14) => Some((12, 13)),
        _ => None,
    }
}

/// Where an entry of that size says where its replacement ends; where that begins is said by the relocation before.
pub(crate) fn alternative_end(machine: Machine, entry: u64) -> Option<u64> {
    // unsigned long mask, value; long start_off, end_off, alt_start_off, alt_end_off
    (machine == Machine::Ppc64le && entry == 48).then_some(40)
}

/// Bytes of a bug-table entry that hold the line number, if it has one.
pub(crate) fn bug_line(entry: u64) -> Option<std::ops::Range<usize>> {
    // The last two fields are `unsigned short line` and `unsigned short flags`, padded to the entry's
    // alignment in kernels with absolute addresses.
    match entry {
        12 => Some(8..10),
        16 => Some(12..14),
        24 => Some(16..18),
        _ => None,
    }
}

/// True for replacement code and other code that belongs to whoever refers to it.
pub(crate) fn is_detached_code(section: &BStr) -> bool {
    matches!(section.as_bytes(), b".altinstr_replacement" | b".altinstr_aux" | b".fixup")
}

/// The table of contents of ppc64le: addresses that code loads, each for itself.
pub(crate) fn is_toc(section: &BStr) -> bool {
    section.as_bytes() == b".toc"
}

/// What makes symbols known to modules that are linked later. A live patch needs none: its own units are
/// linked with each other, and no module that exists can know of a new export.
pub(crate) fn is_export(section: &BStr) -> bool {
    [&b"__ksymtab"[..], b"___ksymtab", b"__kcrctab", b"___kcrctab", b"__kflagstab", b".export_symbol"]
        .iter()
        .any(|prefix| section.starts_with(prefix))
}

/// Data that nothing writes to once the kernel runs: without `SHF_WRITE`, or writable for relocation only.
pub(crate) fn is_constant(section: &Section<'_>) -> bool {
    !section.has(section_flags::WRITE) || section.name.starts_with(b".data.rel.ro")
}

/// Code and data for the exit of the module. Units of vmlinux never run it.
pub(crate) fn is_exit(section: &BStr) -> bool {
    section.starts_with(b".exit") || section.starts_with(b".memexit.") || section.starts_with(b"__exit")
}

/// Code and data that the kernel frees after start, the kind of [`is_memory_init`] included.
pub(crate) fn is_init(section: &BStr) -> bool {
    names::is_discarded_after_init(section)
}

/// Code and data of `__meminit` and the like, which the kernel keeps if it can add memory at run time
/// (`MEM_KEEP` in `vmlinux.lds.h`), and which modules keep in any case.
pub(crate) fn is_memory_init(section: &BStr) -> bool {
    section.starts_with(b".meminit.") || section.starts_with(b".memexit.")
}
