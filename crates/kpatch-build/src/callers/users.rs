//! Who refers to a function of the shipped kernel at all. Of a function that cannot be replaced, the callers are what
//! can be patched instead, if nothing else can reach it.

use std::collections::BTreeSet;
use std::ops::Range;

use kbuild::symtab::{ShippedKind, ShippedSymbol, SymbolTable};
use kpatch_elf::Endian;
use kpatch_elf::arch::{Flow, Machine};
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget,
    SectionFlags,
};

use super::{Caller, calls};

/// All that refers to a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Functions that call it or jump to it, start code of vmlinux aside, which is over.
    pub calls: BTreeSet<Caller>,
    /// Start and exit code of a module that calls it: where the module is not loaded yet, that is still to run.
    pub passing: BTreeSet<String>,
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

/// All users of functions of an x86-64 vmlinux, which are given with their addresses; `None` for anything else.
///
/// A linked file has no relocations that could be relied on. So every place that holds an address counts, and every
/// one that holds its distance from there: rather one too many. Other machines spread an address over several
/// instructions.
pub fn of_vmlinux(
    vmlinux: &[u8],
    symbols: &SymbolTable<'_>,
    functions: &[(&str, u64)],
) -> Option<Vec<Users>> {
    let file = x86_64(vmlinux).filter(|_| !symbols.is_module())?;
    let names: Vec<&str> = functions.iter().map(|(name, _)| *name).collect();
    let calls = calls(vmlinux, symbols, &names);
    let lists = lists(symbols);
    let mut sorted: Vec<(u64, usize)> = functions.iter().map(|(_, address)| *address).zip(0..).collect();
    sorted.sort_unstable();
    let (low, high) = (sorted.first()?.0, sorted.last()?.0);
    let at = |value: u64| {
        let from = sorted.partition_point(|(address, _)| *address < value);
        sorted[from..].iter().take_while(move |(address, _)| *address == value).map(|(_, index)| *index)
    };
    let mut users = vec![Users::default(); functions.len()];
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let has = |flag: object::elf::SectionFlags| sh_flags.0 & flag.0 != 0;
        let name = section.name().unwrap_or_default();
        if !has(object::elf::SHF_ALLOC) || ABOUT_CODE.contains(&name) {
            continue;
        }
        let is_code = has(object::elf::SHF_EXECINSTR);
        let is_over = is_passing(name);
        // The distance counts from the next instruction: behind the field and what else the instruction holds.
        let behind: &[u64] = if is_code { &BEHIND } else { &[0] };
        let bytes = section.data().ok()?;
        for (offset, field) in bytes.windows(4).enumerate() {
            let field = i64::from(i32::from_le_bytes(field.try_into().ok()?));
            let place = section.address().wrapping_add(offset as u64);
            let target = place.wrapping_add_signed(field);
            let may_be = |value: u64, reach: u64| value <= high && value.saturating_add(reach) >= low;
            if !may_be(target, BEHIND[BEHIND.len() - 1]) && !may_be(field as u64, 0) {
                continue;
            }
            let meant: BTreeSet<usize> =
                behind.iter().flat_map(|b| at(target.wrapping_add(*b))).chain(at(field as u64)).collect();
            for function in meant {
                let (users, address) = (&mut users[function], functions[function].1);
                match calls.get(&(None, place)).filter(|(called, _)| *called == function) {
                    Some((_, caller)) if is_over || caller.address == address => {}
                    Some((_, caller)) => {
                        users.calls.insert(caller.clone());
                    }
                    None if lists.iter().any(|list| list.contains(&place)) => {}
                    None => {
                        let covering = symbols.covering(None, place).next().map(|id| symbols.symbol(id));
                        let is_aside = match covering {
                            // Zeros of a nop that fills the gap in front of the function.
                            None => field == 0,
                            // A constant that happens to look like the distance, as small ones do in the function
                            // itself.
                            Some(symbol) if symbol.kind == ShippedKind::Function => {
                                let from = symbol.value.wrapping_sub(section.address());
                                field as u64 != address && !holds_distance(bytes, from, offset)
                            }
                            Some(_) => false,
                        };
                        if !(is_code && is_aside) {
                            users.others.insert(named(covering, name));
                        }
                    }
                }
            }
        }
    }
    Some(users)
}

/// All users of functions of an x86-64 module, as its relocations tell: its linker has left them all in. `None` for anything
/// else, and for what is no function of it.
pub fn of_module(module: &[u8], symbols: &SymbolTable<'_>, functions: &[&str]) -> Option<Vec<Users>> {
    let file = x86_64(module).filter(|_| symbols.is_module())?;
    let arch = Machine::X86_64.arch();
    let mut targets: Vec<(Option<u32>, u64)> = Vec::new();
    for name in functions {
        let symbol = symbols.symbol(symbols.global((*name).into())?);
        targets.push((symbol.section, symbol.value));
    }
    let mut users = vec![Users::default(); functions.len()];
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let has = |flag: object::elf::SectionFlags| sh_flags.0 & flag.0 != 0;
        let name = section.name().unwrap_or_default();
        if !has(object::elf::SHF_ALLOC) || ABOUT_CODE.contains(&name) {
            continue;
        }
        let is_code = has(object::elf::SHF_EXECINSTR);
        let index = u32::try_from(section.index().0).ok();
        let bytes = section.data().ok()?;
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(target) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(target).ok()?;
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return None };
            let target_section = symbol.section_index().and_then(|index| u32::try_from(index.0).ok());
            if target_section.is_none() {
                continue;
            }
            // What is meant from the symbol on; a distance counts from the next instruction.
            let is_distance = is_code && arch.field(r_type.0).is_some_and(|field| field.pc_relative);
            let behind: &[u64] = if is_distance { &BEHIND } else { &[0] };
            let meant = symbol.address().wrapping_add_signed(relocation.addend());
            let is_meant = |target: &(Option<u32>, u64)| {
                target.0 == target_section && behind.iter().any(|b| meant.wrapping_add(*b) == target.1)
            };
            let Some(function) = targets.iter().position(is_meant) else { continue };
            let users = &mut users[function];
            let covering = symbols.covering(index, offset).next().map(|id| symbols.symbol(id));
            let instruction = covering
                .filter(|symbol| is_code && symbol.kind == ShippedKind::Function)
                .and_then(|symbol| arch.relocated(r_type.0, bytes, symbol.value, offset));
            match covering.zip(instruction) {
                Some((caller, instruction)) if arch.flow(r_type.0, instruction.flow) != Flow::Next => {
                    let is_itself = (caller.section, caller.value) == targets[function];
                    if is_passing(name) {
                        users.passing.insert(caller.name.to_string());
                    } else if !is_itself {
                        users.calls.insert(Caller { name: caller.name.to_string(), address: caller.value });
                    }
                }
                _ => {
                    users.others.insert(named(covering, name));
                }
            }
        }
    }
    Some(users)
}

/// Places of vmlinux that list functions for others than callers.
fn lists(symbols: &SymbolTable<'_>) -> Vec<Range<u64>> {
    let place = |name: &str| symbols.global(name.into()).map(|id| symbols.symbol(id).value);
    // `NOKPROBE_SYMBOL` lists functions among the start data.
    let blacklist = place("__start_kprobe_blacklist").zip(place("__stop_kprobe_blacklist"));
    // kallsyms tells the addresses of names, in 7.2 by the distance of each from there (6.12 counts all from one base).
    let names = place("kallsyms_offsets").and_then(|from| {
        let behind = symbols.symbols().iter().map(|symbol| symbol.value).filter(|place| *place > from);
        Some((from, behind.min()?))
    });
    blacklist.into_iter().chain(names).map(|(from, to)| from..to).collect()
}

/// The bytes that an instruction of code has from a field with a distance to its end.
const BEHIND: [u64; 4] = [4, 5, 6, 8];

/// Whether code of a section is run once only: `__init` code, and `__exit` code, which of vmlinux never runs.
fn is_passing(section: &str) -> bool {
    section.starts_with(".init") || section.starts_with(".exit")
}

/// What a place is part of.
fn named(covering: Option<&ShippedSymbol<'_>>, section: &str) -> String {
    covering.map_or(section.to_owned(), |symbol| symbol.name.to_string())
}

fn x86_64(file: &[u8]) -> Option<ElfFile64<'_, Endianness>> {
    let file = ElfFile64::<Endianness, &[u8]>::parse(file).ok()?;
    let machine = Machine::from_elf(file.elf_header().e_machine(file.endian()).0, Endian::Little);
    (machine == Some(Machine::X86_64)).then_some(file)
}

/// True if the instruction of x86-64 code that the byte at `place` belongs to has a field for a distance there. Its
/// function begins at `from`, and has no data in between.
fn holds_distance(code: &[u8], from: u64, place: usize) -> bool {
    let Some(holder) = Machine::X86_64.arch().holding(code, from, place as u64) else { return true };
    holder.distance.is_some_and(|distance| holder.offset + u64::from(distance.at) == place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file linked as vmlinux is.
    fn linked(source: &str) -> Vec<u8> {
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
        fs_err::read(&object).unwrap()
    }

    /// What refers to `leaf` of a linked file.
    fn users_of_leaf(source: &str) -> Users {
        let bytes = linked(source);
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        let address = symbols.symbol(symbols.global("leaf".into()).unwrap()).value;
        of_vmlinux(&bytes, &symbols, &[("leaf", address)]).unwrap().remove(0)
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
    fn lists_of_functions_are_no_users() {
        let list = |from: &str, to: &str| {
            format!(
                "asm(\".pushsection .rodata; .globl {from}, {to}; {from}: .long leaf - ., entry - .; {to}: \
                 .long 0; .popsection\");"
            )
        };
        for (from, to) in [
            ("kallsyms_offsets", "kallsyms_seqs_of_names"),
            ("__start_kprobe_blacklist", "__stop_kprobe_blacklist"),
        ] {
            assert_eq!(
                users_of_leaf(&format!("{LEAF}{}\n", list(from, to))).others,
                BTreeSet::new(),
                "{from}"
            );
        }
        assert!(!users_of_leaf(&format!("{LEAF}{}\n", list("some", "more"))).others.is_empty());
    }

    /// What refers to `leaf` of a module whose other unit has this source.
    fn users_in_module(source: &str) -> Users {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let leaf = "__attribute__((noinline)) int leaf(int a) { return a ? leaf(a / 3) * 5 : 2; }\n\
                    int beside(int a) { return leaf(a) + 3; }\n";
        fs_err::write(path("leaf.c"), leaf).unwrap();
        fs_err::write(path("other.c"), format!("int leaf(int);\n{source}\n")).unwrap();
        for unit in ["leaf", "other"] {
            let done = std::process::Command::new("gcc")
                .args(["-O2", "-fno-pic", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables", "-c", "-o"])
                .args([path(&format!("{unit}.o")), path(&format!("{unit}.c"))])
                .status();
            assert!(done.unwrap().success());
        }
        let mut link = std::process::Command::new("ld");
        link.args(["-r", "-o"]).args(["m.ko", "leaf.o", "other.o"].map(path));
        assert!(link.status().unwrap().success());
        let bytes = fs_err::read(path("m.ko")).unwrap();
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        of_module(&bytes, &symbols, &["beside", "leaf"]).unwrap().remove(1)
    }

    #[test]
    fn relocations_of_a_module_tell_all_users() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        for (source, calls, passing, others) in [
            ("int call(int a) { return leaf(a) + 1; }", &["beside", "call"][..], &[][..], &[][..]),
            ("int jump(int a) { return leaf(a + 1); }", &["beside", "jump"], &[], &[]),
            (
                "__attribute__((section(\".init.text\"))) int start(int a) { return leaf(a) + 2; }",
                &["beside"],
                &["start"],
                &[],
            ),
            (
                "__attribute__((section(\".exit.text\"))) int stop(int a) { return leaf(a); }",
                &["beside"],
                &["stop"],
                &[],
            ),
            ("int (*pointer)(int) = leaf;", &["beside"], &[], &["pointer"]),
            ("void *give(void) { return leaf; }", &["beside"], &[], &["give"]),
            (
                "void *lea(void) { void *p; asm volatile(\"lea leaf(%%rip), %0\" : \"=r\"(p)); return p; }",
                &["beside"],
                &[],
                &["lea"],
            ),
            ("asm(\".pushsection __bug_table,\\\"aw\\\"; .quad leaf; .popsection\");", &["beside"], &[], &[]),
        ] {
            let found = users_in_module(source);
            let of_calls: BTreeSet<String> = found.calls.into_iter().map(|caller| caller.name).collect();
            assert_eq!(of_calls, names(calls), "{source}");
            assert_eq!((found.passing, found.others), (names(passing), names(others)), "{source}");
        }
    }

    #[test]
    fn several_functions_are_looked_for_at_once() {
        let source = LEAF.replace(" return a ? leaf", " other(a); return a ? leaf");
        let source = format!(
            "int other(int); {source} int more(int a) {{ return other(a) + 4; }}\n\
            __attribute__((noinline)) int other(int a) {{ extern volatile int d; d = a; return d; }} volatile int d;\n"
        );
        let bytes = linked(&source);
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        let at = |name: &str| symbols.symbol(symbols.global(name.into()).unwrap()).value;
        let found = of_vmlinux(&bytes, &symbols, &[("other", at("other")), ("leaf", at("leaf"))]).unwrap();
        let calls = |users: &Users| users.calls.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (calls(&found[0]), calls(&found[1])),
            (vec!["leaf".into(), "more".into()], vec!["entry".into()])
        );
    }
}
