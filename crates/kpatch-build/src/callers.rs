//! Who calls a function of the shipped kernel directly. Of a function that cannot be replaced, these are what can be
//! patched instead.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bstr::{BStr, ByteSlice};
use kbuild::symtab::{ShippedKind, SymbolTable};
use kpatch_elf::Endian;
use kpatch_elf::arch::{Flow, Machine};
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{
    Endian as _, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    SectionFlags,
};

/// Functions that a message names; the others are counted.
const NAMED: usize = 8;

/// The functions of an object (vmlinux or a module) that call or jump to a function by its name, without itself. What
/// cannot be read has none: this only makes a message clearer.
pub fn callers(object: &[u8], symbols: &SymbolTable<'_>, function: &str) -> BTreeSet<String> {
    let Ok(file) = ElfFile64::<Endianness, &[u8]>::parse(object) else { return BTreeSet::new() };
    let endian = file.endian();
    let order = if endian.is_little_endian() { Endian::Little } else { Endian::Big };
    let Some(machine) = Machine::from_elf(file.elf_header().e_machine(endian).0, order) else {
        return BTreeSet::new();
    };
    let arch = machine.arch();
    let name: &BStr = function.as_bytes().as_bstr();
    let targets: BTreeSet<(Option<u32>, u64)> = symbols
        .named(name)
        .map(|id| symbols.symbol(id))
        .filter(|symbol| symbol.defined && symbol.kind == ShippedKind::Function)
        .map(|symbol| (symbol.section.filter(|_| symbols.is_module()), symbol.value))
        .collect();
    let mut found = BTreeSet::new();
    let mut add = |section: Option<u32>, place: u64| {
        let covering = symbols.covering(section, place).map(|id| symbols.symbol(id));
        let mut functions = covering.filter(|symbol| symbol.kind == ShippedKind::Function);
        if let Some(caller) = functions.next().filter(|caller| *caller.name != *name) {
            found.insert(caller.name.to_str_lossy().into_owned());
        }
    };
    let text = |flags: SectionFlags| match flags {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0 & object::elf::SHF_EXECINSTR.0 != 0,
        _ => false,
    };
    for section in file.sections().filter(|section| text(section.flags())) {
        if symbols.is_module() {
            let index = u32::try_from(section.index().0).ok();
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(target) = relocation.target() else { continue };
                let Ok(symbol) = file.symbol_by_index(target) else { continue };
                let of_symbol = symbol.name_bytes().is_ok_and(|found| found == name.as_bytes());
                // Functions of the same section are called by the section's symbol or without a relocation.
                let section_index = symbol.section_index().and_then(|index| u32::try_from(index.0).ok());
                let place = symbol.address().wrapping_add_signed(relocation.addend().saturating_add(4));
                if of_symbol || targets.contains(&(section_index, place)) {
                    add(index, offset);
                }
            }
        }
        let index = if symbols.is_module() { u32::try_from(section.index().0).ok() } else { None };
        let Ok(bytes) = section.data() else { continue };
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let place = section.address().wrapping_add(at as u64);
            let instruction = arch.instruction(rest);
            at += usize::from(instruction.length);
            let Some(distance) = instruction.distance.filter(|_| instruction.flow != Flow::Next) else {
                continue;
            };
            // A field that a relocation fills leads to the next instruction.
            if distance.target != i64::from(instruction.length)
                && targets.contains(&(index, place.wrapping_add_signed(distance.target)))
            {
                add(index, place);
            }
        }
    }
    found
}

/// Why it does not help that the unit itself could be replaced: who else calls the function.
pub fn describe(object: &str, callers: &BTreeSet<String>, is_exported: bool) -> String {
    let mut text = if callers.is_empty() {
        format!("{object} has no direct call of it, so it is reached by pointers")
    } else {
        let named: Vec<&str> = callers.iter().take(NAMED).map(String::as_str).collect();
        format!("{object} calls it in {}", named.join(", "))
    };
    if callers.len() > NAMED {
        let _ = write!(text, " and {} more", callers.len() - NAMED);
    }
    if is_exported {
        text.push_str("; it is exported, so modules may call it, too");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "void extra(void); __attribute__((noinline)) int leaf(int a) { extra(); return a * 3; }\n\
        int by_call(int a) { return leaf(a) + 1; }\n\
        int by_jump(int a) { return leaf(a + 1); }\n\
        int nobody(int a) { return a; }\n\
        int (*pointer)(int) = nobody;\n";

    fn found(arguments: &[&str], function: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("a.c"), dir.path().join("a.o"));
        fs_err::write(&source, SOURCE).unwrap();
        let status = std::process::Command::new("gcc")
            .args(["-O2", "-fno-ipa-icf", "-fno-pic", "-o"])
            .args([&object, &source])
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success());
        let bytes = fs_err::read(&object).unwrap();
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        callers(&bytes, &symbols, function).into_iter().collect()
    }

    #[test]
    fn calls_and_jumps_are_found() {
        let linked = ["-nostdlib", "-static", "-Wl,-e,by_call", "-Wl,--unresolved-symbols=ignore-all"];
        for arguments in [&["-c"][..], &["-c", "-ffunction-sections"], &linked] {
            assert_eq!(found(arguments, "leaf"), ["by_call", "by_jump"], "{arguments:?}");
            assert_eq!(found(arguments, "nobody"), [""; 0]);
            assert_eq!(found(arguments, "none"), [""; 0]);
        }
    }

    #[test]
    fn messages() {
        let names = |count: usize| (0..count).map(|n| format!("f{n}")).collect();
        assert_eq!(describe("vmlinux", &names(2), false), "vmlinux calls it in f0, f1");
        assert!(
            describe("m", &names(9), true)
                .ends_with("f7 and 1 more; it is exported, so modules may call it, too")
        );
        assert!(describe("m", &names(0), false).ends_with("by pointers"));
    }
}
