//! Who calls a function of the shipped kernel directly.

pub mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bstr::ByteSlice;
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
    let names = calls(object, symbols, &[function]).into_values().map(|(_, caller)| caller.name);
    names.filter(|name| name != function).collect()
}

/// See [`calls`].
type Calls = BTreeMap<(Option<u32>, u64), (usize, Caller)>;

/// A function that calls another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// Its name; that of the part where the compiler has split it (`name.cold`).
    pub name: String,
    /// Where it begins; in its section in a module.
    pub address: u64,
}

/// The calls of functions, each with the place of the function in the list and the caller, which may be itself. By
/// section (of a module) and place: of the field that holds the distance, or of the instruction where a relocation has it.
fn calls(object: &[u8], symbols: &SymbolTable<'_>, functions: &[&str]) -> Calls {
    let mut found = BTreeMap::new();
    let Ok(file) = ElfFile64::<Endianness, &[u8]>::parse(object) else { return found };
    let endian = file.endian();
    let order = if endian.is_little_endian() { Endian::Little } else { Endian::Big };
    let Some(machine) = Machine::from_elf(file.elf_header().e_machine(endian).0, order) else {
        return found;
    };
    let arch = machine.arch();
    let by_name: BTreeMap<&[u8], usize> =
        functions.iter().enumerate().map(|(index, name)| (name.as_bytes(), index)).collect();
    let mut targets = BTreeMap::new();
    for (name, index) in &by_name {
        let defined = symbols.named(name.as_bstr()).map(|id| symbols.symbol(id));
        for symbol in defined.filter(|symbol| symbol.defined && symbol.kind == ShippedKind::Function) {
            targets.insert((symbol.section.filter(|_| symbols.is_module()), symbol.value), *index);
        }
    }
    let mut add = |function: usize, section: Option<u32>, place: u64, field: u64| {
        let covering = symbols.covering(section, place).map(|id| symbols.symbol(id));
        let mut functions = covering.filter(|symbol| symbol.kind == ShippedKind::Function);
        if let Some(caller) = functions.next() {
            let name = caller.name.to_str_lossy().into_owned();
            found.insert((section, field), (function, Caller { name, address: caller.value }));
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
                let of_symbol = symbol.name_bytes().ok().and_then(|name| by_name.get(name));
                // Functions of the same section are called by the section's symbol or without a relocation.
                let section_index = symbol.section_index().and_then(|index| u32::try_from(index.0).ok());
                let place = symbol.address().wrapping_add_signed(relocation.addend().saturating_add(4));
                if let Some(function) = of_symbol.or_else(|| targets.get(&(section_index, place))) {
                    add(*function, index, offset, offset);
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
                && let Some(function) = targets.get(&(index, place.wrapping_add_signed(distance.target)))
            {
                add(*function, index, place, place.wrapping_add(u64::from(distance.at)));
            }
        }
    }
    found
}

/// The first of many names, and how many more there are.
pub fn some(names: &BTreeSet<String>) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let mut text = named.join(", ");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

/// Why it does not help that the unit itself could be replaced: who else calls the function.
pub fn describe(object: &str, callers: &BTreeSet<String>, is_exported: bool) -> String {
    match (callers.is_empty(), is_exported) {
        (true, true) => format!("{object} has no direct call of it; it is exported, so modules may call it"),
        (true, false) => format!("{object} has no direct call of it, so it is reached by pointers"),
        (false, true) => {
            format!("{object} calls it in {}; it is exported, so modules may call it, too", some(callers))
        }
        (false, false) => format!("{object} calls it in {}", some(callers)),
    }
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
        assert_eq!(
            describe("m", &names(0), true),
            "m has no direct call of it; it is exported, so modules may call it"
        );
    }
}
