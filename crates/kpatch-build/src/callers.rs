//! Who calls a function of the shipped kernel directly, and who refers to it at all. Of a function that cannot be
//! replaced, the callers are what can be patched instead, if nothing else can reach it.

use std::collections::{BTreeMap, BTreeSet};
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
    let names = calls(object, symbols, function).into_values().map(|caller| caller.name);
    names.filter(|name| name != function).collect()
}

/// A function that calls another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// Its name; that of the part where the compiler has split it (`name.cold`).
    pub name: String,
    /// Where it begins.
    pub address: u64,
}

/// The callers, with itself where it calls itself, by section (of a module) and place: of the field that holds the
/// distance, or of the instruction where a relocation has it.
fn calls(object: &[u8], symbols: &SymbolTable<'_>, function: &str) -> BTreeMap<(Option<u32>, u64), Caller> {
    let mut found = BTreeMap::new();
    let Ok(file) = ElfFile64::<Endianness, &[u8]>::parse(object) else { return found };
    let endian = file.endian();
    let order = if endian.is_little_endian() { Endian::Little } else { Endian::Big };
    let Some(machine) = Machine::from_elf(file.elf_header().e_machine(endian).0, order) else {
        return found;
    };
    let arch = machine.arch();
    let name: &BStr = function.as_bytes().as_bstr();
    let targets: BTreeSet<(Option<u32>, u64)> = symbols
        .named(name)
        .map(|id| symbols.symbol(id))
        .filter(|symbol| symbol.defined && symbol.kind == ShippedKind::Function)
        .map(|symbol| (symbol.section.filter(|_| symbols.is_module()), symbol.value))
        .collect();
    let mut add = |section: Option<u32>, place: u64, field: u64| {
        let covering = symbols.covering(section, place).map(|id| symbols.symbol(id));
        let mut functions = covering.filter(|symbol| symbol.kind == ShippedKind::Function);
        if let Some(caller) = functions.next() {
            let name = caller.name.to_str_lossy().into_owned();
            found.insert((section, field), Caller { name, address: caller.value });
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
                    add(index, offset, offset);
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
                add(index, place, place.wrapping_add(u64::from(distance.at)));
            }
        }
    }
    found
}

/// All that refers to a function of vmlinux.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Functions that call it or jump to it, start code aside, which is over.
    pub calls: BTreeSet<Caller>,
    /// Whatever else may hold its address: functions, data, sections.
    pub others: BTreeSet<String>,
}

/// Sections of vmlinux that tell about instructions and through which nobody gets at a function.
const ABOUT_CODE: [&str; 12] = [
    ".orc_unwind_ip",
    ".altinstructions",
    ".parainstructions",
    ".smp_locks",
    "__bug_table",
    "__jump_table",
    ".static_call_sites",
    ".return_sites",
    ".retpoline_sites",
    ".call_sites",
    ".ibt_endbr_seal",
    "__mcount_loc",
];

/// All users of the function at `address` of an x86-64 vmlinux; `None` for anything else.
///
/// A linked file has no relocations that could be relied on. So every place that holds the address counts, and every
/// one that holds its distance from there: rather one too many. Other machines spread an address over several
/// instructions.
pub fn users(vmlinux: &[u8], symbols: &SymbolTable<'_>, function: &str, address: u64) -> Option<Users> {
    let file = ElfFile64::<Endianness, &[u8]>::parse(vmlinux).ok()?;
    let endian = file.endian();
    let machine = Machine::from_elf(file.elf_header().e_machine(endian).0, Endian::Little);
    if machine != Some(Machine::X86_64) || symbols.is_module() {
        return None;
    }
    let calls = calls(vmlinux, symbols, function);
    // `NOKPROBE_SYMBOL` lists functions among the start data.
    let place = |name: &str| symbols.global(name.into()).map(|id| symbols.symbol(id).value);
    let blacklist = place("__start_kprobe_blacklist").zip(place("__stop_kprobe_blacklist"));
    let mut users = Users::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let has = |flag: object::elf::SectionFlags| sh_flags.0 & flag.0 != 0;
        let name = section.name().unwrap_or_default();
        if !has(object::elf::SHF_ALLOC) || ABOUT_CODE.contains(&name) {
            continue;
        }
        let is_code = has(object::elf::SHF_EXECINSTR);
        // `__init` code has run, and `__exit` code of vmlinux never does.
        let is_over = name.starts_with(".init") || name.starts_with(".exit");
        let bytes = section.data().ok()?;
        for (offset, field) in bytes.windows(4).enumerate() {
            let field = i64::from(i32::from_le_bytes(field.try_into().ok()?));
            let place = section.address().wrapping_add(offset as u64);
            // The distance counts from the next instruction: behind the field and what else the instruction holds.
            let behind: &[u64] = if is_code { &[4, 5, 6, 8] } else { &[0] };
            let is_distance =
                behind.iter().any(|b| place.wrapping_add_signed(field).wrapping_add(*b) == address);
            if !is_distance && field as u64 != address {
                continue;
            }
            match calls.get(&(None, place)) {
                Some(caller) if is_over || caller.address == address => {}
                Some(caller) => {
                    users.calls.insert(caller.clone());
                }
                None if blacklist.is_some_and(|(from, to)| (from..to).contains(&place)) => {}
                None => {
                    let covering = symbols.covering(None, place).next().map(|id| symbols.symbol(id));
                    let is_aside = match covering {
                        // Zeros of a nop that fills the gap in front of the function.
                        None => field == 0,
                        // A constant that happens to look like the distance, as small ones do in the function itself.
                        Some(symbol) if symbol.kind == ShippedKind::Function => {
                            field as u64 != address
                                && !holds_distance(
                                    bytes,
                                    symbol.value.wrapping_sub(section.address()),
                                    offset,
                                )
                        }
                        Some(_) => false,
                    };
                    if !(is_code && is_aside) {
                        users
                            .others
                            .insert(covering.map_or(name.to_owned(), |symbol| symbol.name.to_string()));
                    }
                }
            }
        }
    }
    Some(users)
}

/// True if the instruction of x86-64 code that the byte at `place` belongs to has a field for a distance there. Its
/// function begins at `from`, and has no data in between.
fn holds_distance(code: &[u8], from: u64, place: usize) -> bool {
    let Some(holder) = Machine::X86_64.arch().holding(code, from, place as u64) else { return true };
    holder.distance.is_some_and(|distance| holder.offset + u64::from(distance.at) == place as u64)
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
    let mut text = if callers.is_empty() {
        format!("{object} has no direct call of it, so it is reached by pointers")
    } else {
        format!("{object} calls it in {}", some(callers))
    };
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

    /// What refers to `leaf` of a linked file.
    fn users_of_leaf(source: &str) -> Users {
        let dir = tempfile::tempdir().unwrap();
        let (file, object) = (dir.path().join("a.c"), dir.path().join("a"));
        fs_err::write(&file, source).unwrap();
        let options = [
            "-O2",
            "-fno-ipa-icf",
            "-fno-pic",
            "-mcmodel=kernel",
            "-fno-asynchronous-unwind-tables",
            "-nostdlib",
            "-static",
            "-Wl,-e,entry",
        ];
        // As high as kernels are, so that an address fits in a sign-extended field.
        let status = std::process::Command::new("gcc")
            .args(options)
            .args(["-Wl,-Ttext-segment=0xffffffff81000000", "-Wl,--build-id=none", "-o"])
            .args([&object, &file])
            .status()
            .unwrap();
        assert!(status.success());
        let bytes = fs_err::read(&object).unwrap();
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        let address = symbols.symbol(symbols.global("leaf".into()).unwrap()).value;
        users(&bytes, &symbols, "leaf", address).unwrap()
    }

    const LEAF: &str = "__attribute__((noinline)) int leaf(int a) { return a ? leaf(a / 3) * 5 : 2; }\n\
        int entry(int a) { return leaf(a) + 1; }\n\
        __attribute__((section(\".init.text\"))) int start(int a) { return leaf(a) + 2; }\n";

    #[test]
    fn callers_are_all_users_where_nobody_takes_the_address() {
        let users = users_of_leaf(LEAF);
        let calls: Vec<&str> = users.calls.iter().map(|caller| caller.name.as_str()).collect();
        assert_eq!((calls, users.others), (vec!["entry"], BTreeSet::new()));
    }

    #[test]
    fn constants_that_look_like_distances_are_none() {
        // Each store takes ten bytes; some have just the distance to the function's start.
        let store = |n: usize| format!("to[{n}] = -{};", 10 * n + 10 + n % 64);
        let stores = (0..640).map(store).collect::<Vec<_>>().concat();
        let leaf = LEAF.replace("{ return a ?", &format!("{{ extern volatile int to[]; {stores} return a ?"));
        let users = users_of_leaf(&format!("{leaf}volatile int to[640];\n"));
        assert_eq!(users.others, BTreeSet::new());
    }

    #[test]
    fn whatever_holds_the_address_is_a_user() {
        for (holder, text) in [
            ("pointer", "int (*pointer)(int) = leaf;"),
            ("packed", "struct { char c; int (*p)(int); } __attribute__((packed)) packed = { 1, leaf };"),
            ("give", "void *give(void) { return leaf; }"),
            ("put", "void *to; void put(void) { to = leaf; }"),
            (
                "relative",
                "asm(\".pushsection .rodata; relative: .long leaf - .; .size relative, 4; \
                          .type relative, @object; .popsection\"); extern int relative;",
            ),
            (
                "lea",
                "void *lea(void) { void *p; asm volatile(\"lea leaf(%%rip), %0\" : \"=r\"(p)); return p; }",
            ),
            ("early", "__attribute__((section(\".init.text\"))) void *early(void) { return leaf; }"),
        ] {
            let users = users_of_leaf(&format!("{LEAF}{text}\n"));
            assert_eq!(users.others.iter().map(String::as_str).collect::<Vec<_>>(), [holder]);
        }
        let own = LEAF.replace("{ return a ?", "{ extern void *to; to = leaf; return a ?");
        let users = users_of_leaf(&format!("{own}void *to;\n"));
        assert!(users.others.contains("leaf"), "{users:?}");
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
