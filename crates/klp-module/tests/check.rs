//! A good module passes, and each kind of damage is found under its own code.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use klp_module::check::{EntrySites, Ibt};
use kpatch_elf::{Contents, Object, Place, Relocation, Section, Symbol, section_flags, section_type};

use common::{Good, Kernel, good, section, symbol};

/// A vmlinux with these landing pads, some of them sealed.
fn ibt<const L: usize, const S: usize>(landing: [u64; L], sealed: [u64; S]) -> BTreeMap<String, Ibt> {
    let places = |address| (0, address);
    BTreeMap::from([("vmlinux".to_owned(), Ibt::new(landing.map(places), sealed.map(places)))])
}

/// Changes the module.
fn module(good: &mut Good, change: impl FnOnce(&mut Object<'_>)) {
    let bytes = good.module.clone();
    let mut object = Object::read(&bytes).unwrap();
    change(&mut object);
    good.module = object.write().unwrap();
}

fn bytes<'o>(object: &'o mut Object<'_>, name: &str) -> &'o mut Vec<u8> {
    let id = section(object, name);
    let Contents::Bytes(bytes) = &mut object.sections[id.index()].contents else { panic!("{name}") };
    bytes.to_mut()
}

fn replace_bytes(object: &mut Object<'_>, name: &str, from: &[u8], to: &[u8]) {
    let bytes = bytes(object, name);
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the bytes to be replaced");
    bytes[at..at + to.len()].copy_from_slice(to);
}

fn rename(object: &mut Object<'_>, from: &str, to: &str) {
    let id = symbol(object, from);
    object.symbols[id.index()].name = Cow::Owned(to.into());
}

fn rename_section(object: &mut Object<'_>, from: &str, to: &str) {
    let id = section(object, from);
    object.sections[id.index()].name = Cow::Owned(to.into());
}

fn undefined(object: &mut Object<'_>, name: &str) {
    object.add_symbol(Symbol::undefined(name, 1));
}

fn without(
    symbols: Vec<kbuild::symtab::ShippedSymbol<'static>>,
    name: &str,
    module: bool,
) -> SymbolTable<'static> {
    SymbolTable::new(symbols.into_iter().filter(|s| s.name.as_ref() != name.as_bytes()).collect(), module)
}

const SHOW_RELA: &str = ".klp.rela.vmlinux..text.show";
const XFS_RELA: &str = ".klp.rela.xfs..text.read_inode";
const BANNER: &str = ".klp.sym.vmlinux.banner,0";

/// Code of the finding, and what causes it.
type Damage = (&'static str, fn(&mut Good));

const DAMAGES: &[Damage] = &[
    ("malformed", |g| g.module.truncate(100)),
    ("rela-section", |g| {
        // As `strip --strip-debug` leaves them.
        module(g, |o| {
            let id = section(o, SHOW_RELA);
            o.sections[id.index()].flags &= !0x40;
        });
    }),
    ("rela-section", |g| module(g, |o| rename_section(o, SHOW_RELA, ".klp.rela.vmlinux..text.other"))),
    ("rela-section", |g| {
        module(g, |o| {
            let id = section(o, SHOW_RELA);
            o.sections[id.index()].relocations.to_mut().clear();
        });
    }),
    ("rela-section", |g| module(g, |o| rename_section(o, SHOW_RELA, ".klp.rela.vmlinux"))),
    ("relocation-type", |g| {
        module(g, |o| {
            let id = section(o, SHOW_RELA);
            // R_X86_64_GOTPCREL, which the loader does not take.
            o.sections[id.index()].relocations.to_mut()[0].kind = 9;
        });
    }),
    ("relocation-range", |g| {
        module(g, |o| {
            let text = section(o, ".text.show");
            let size = o.section(text).size();
            let id = section(o, SHOW_RELA);
            o.sections[id.index()].relocations.to_mut()[0].offset = size - 1;
        });
    }),
    ("non-zero-bytes", |g| {
        module(g, |o| {
            let id = section(o, SHOW_RELA);
            let offset = o.section(id).relocations.all().first().unwrap().offset as usize;
            bytes(o, ".text.show")[offset] = 1;
        });
    }),
    ("overlapping-relocations", |g| {
        module(g, |o| {
            let id = section(o, SHOW_RELA);
            let relocations = o.sections[id.index()].relocations.to_mut();
            let double = relocations[0];
            relocations.insert(0, double);
        });
    }),
    ("plain-to-livepatch", |g| {
        module(g, |o| {
            let banner = symbol(o, BANNER);
            let id = section(o, ".text.show");
            o.sections[id.index()].relocations.to_mut()[0].symbol = Some(banner);
        });
    }),
    ("livepatch-to-plain", |g| {
        module(g, |o| {
            let plain = symbol(o, "printk");
            let id = section(o, SHOW_RELA);
            o.sections[id.index()].relocations.to_mut()[0].symbol = Some(plain);
        });
    }),
    ("gated-vmlinux-symbol", |g| {
        module(g, |o| {
            let banner = symbol(o, BANNER);
            let id = section(o, XFS_RELA);
            o.sections[id.index()].relocations.to_mut()[0].symbol = Some(banner);
        });
    }),
    ("ungated-module-symbol", |g| {
        module(g, |o| {
            let private = symbol(o, ".klp.sym.xfs.xfs_private,0");
            let id = section(o, SHOW_RELA);
            o.sections[id.index()].relocations.to_mut()[0].symbol = Some(private);
        });
    }),
    ("unknown-gate", |g| module(g, |o| rename_section(o, XFS_RELA, ".klp.rela.ext4..text.read_inode"))),
    ("gated-special-section", |g| {
        module(g, |o| {
            rename_section(o, ".text.read_inode", "__jump_table");
            rename_section(o, XFS_RELA, ".klp.rela.xfs.__jump_table");
        });
    }),
    ("symbol-name", |g| module(g, |o| rename(o, BANNER, ".klp.sym.vmlinux.banner"))),
    ("symbol-name", |g| {
        // Too long for the kernels before 6.1.
        "5.10.0-1-amd64".clone_into(&mut g.kernel.release);
        let name = format!(".klp.sym.vmlinux.{},0", "b".repeat(128));
        module(g, |o| rename(o, BANNER, &name));
    }),
    ("symbol-name", |g| {
        module(g, |o| {
            let id = symbol(o, BANNER);
            o.symbols[id.index()].place = Place::Undefined;
        });
    }),
    ("no-symbol-table", |g| {
        g.kernel.tables.remove("xfs");
    }),
    ("no-symbol", |g| {
        let table = without(common::vmlinux_symbols(), "banner", false);
        g.kernel.tables.insert("vmlinux".to_owned(), table);
    }),
    // Unique in the manifest, ambiguous in the kernel.
    ("no-symbol", |g| {
        let mut symbols = common::xfs_symbols();
        symbols.push(symbols[1].clone());
        g.kernel.tables.insert("xfs".to_owned(), SymbolTable::new(symbols, true));
    }),
    ("no-symbol", |g| {
        module(g, |o| rename(o, ".klp.sym.vmlinux.init_once,2", ".klp.sym.vmlinux.init_once,4"));
    }),
    // A datum of the name where a function is meant.
    ("no-symbol", |g| {
        let mut symbols = common::xfs_symbols();
        symbols[1].kind = kbuild::symtab::ShippedKind::Object;
        g.kernel.tables.insert("xfs".to_owned(), SymbolTable::new(symbols, true));
    }),
    ("unexpected-symbol", |g| {
        module(g, |o| rename(o, ".klp.sym.vmlinux.init_once,2", ".klp.sym.vmlinux.init_once,1"));
    }),
    ("lost-reference", |g| module(g, |o| rename(o, BANNER, ".klp.sym.vmlinux.show,0"))),
    ("not-exported", |g| module(g, |o| undefined(o, "private"))),
    ("restricted-export", |g| module(g, |o| undefined(o, "restricted"))),
    ("module-export", |g| module(g, |o| undefined(o, "xfs_exported"))),
    ("namespace", |g| {
        module(g, |o| {
            undefined(o, "spaced");
            replace_bytes(o, ".modinfo", b"import_ns=NS", b"import_ns=XX");
        });
    }),
    ("no-version", |g| module(g, |o| replace_bytes(o, "__versions", b"printk", b"printf"))),
    ("no-version", |g| module(g, |o| replace_bytes(o, "__versions", b"module_layout", b"nodule_layout"))),
    ("version", |g| module(g, |o| replace_bytes(o, "__versions", &[0x11, 0, 0, 0], &[0x12, 0, 0, 0]))),
    ("stray-version", |g| module(g, |o| replace_bytes(o, "__versions", b"printk", b"banner"))),
    ("versions", |g| {
        module(g, |o| {
            bytes(o, "__versions").pop();
        });
    }),
    ("versions", |g| {
        module(g, |o| {
            o.add_section(Section::new("__version_ext_names", 1, 2, 1, b"printk\0".to_vec()));
            o.add_section(Section::new("__version_ext_crcs", 1, 2, 4, vec![0; 8]));
        });
    }),
    ("modinfo", |g| module(g, |o| replace_bytes(o, ".modinfo", b"livepatch=Y", b"livepatch=N"))),
    ("modinfo", |g| module(g, |o| replace_bytes(o, ".modinfo", b"name=live", b"name=dead"))),
    ("modinfo", |g| module(g, |o| replace_bytes(o, ".modinfo", b"license=GPL", b"license=MIT"))),
    ("modinfo", |g| "6.6.7-test SMP".clone_into(&mut g.kernel.vermagic)),
    ("modinfo", |g| {
        module(g, |o| {
            let text = bytes(o, ".modinfo");
            text.extend_from_slice(b"depends=xfs\0");
        });
    }),
    ("leftover-section", |g| {
        module(g, |o| {
            o.add_section(Section::new(
                ".kpatch.callbacks.pre_patch",
                section_type::PROGBITS,
                2,
                8,
                vec![0; 8],
            ));
        });
    }),
    ("empty", |g| {
        for object in &mut g.manifest.objects {
            object.functions.clear();
            object.callbacks.clear();
        }
    }),
    ("table", |g| module(g, |o| rename(o, "kpatch_hook_patch", "other"))),
    ("table", |g| module(g, |o| rename(o, "kpatch_hook_objects", "other"))),
    ("table", |g| module(g, |o| rename(o, "kpatch_hook_funcs_1", "other"))),
    ("table", |g| module(g, |o| rename(o, "klp_enable_patch", "klp_disable_patch"))),
    ("table", |g| pointer(g, "kpatch_hook_patch", 0, None)),
    ("table", |g| pointer(g, "kpatch_hook_patch", 8, None)),
    ("table", |g| pointer(g, "kpatch_hook_objects", 8, None)),
    // The callback.
    ("table", |g| pointer(g, "kpatch_hook_objects", 16, None)),
    ("table", |g| pointer(g, "kpatch_hook_funcs_0", 0, None)),
    ("table", |g| pointer(g, "kpatch_hook_funcs_0", 8, None)),
    ("table", |g| pointer(g, "kpatch_hook_funcs_0", 8, Some("shared"))),
    ("table", |g| g.manifest.objects[0].functions[0].sympos = 1),
    ("table", |g| "ext4".clone_into(&mut g.manifest.objects[1].name)),
    ("table", |g| {
        let double = g.manifest.objects[0].functions[0].clone();
        g.manifest.objects[0].functions.push(double);
    }),
    ("no-function", |g| {
        let table = without(common::vmlinux_symbols(), "show", false);
        g.kernel.tables.insert("vmlinux".to_owned(), table);
    }),
    ("function-size", |g| g.manifest.objects[0].functions[0].old_size = 33),
    ("no-entry-call", |g| {
        g.kernel.entries.insert("vmlinux".to_owned(), EntrySites::new([(0, 0x420), (0, 0x3ff)]));
    }),
    // The right place in another section.
    ("no-entry-call", |g| {
        g.kernel.entries.insert("xfs".to_owned(), EntrySites::new([(2, 0x40)]));
    }),
    ("no-entry-table", |g| {
        g.kernel.entries.remove("xfs");
    }),
    ("new-without-entry-call", |g| module(g, |o| rename_section(o, "__mcount_loc", "__lost"))),
    ("endbr", |g| {
        // Its address is in the array of pointers; vmlinux has no landing pad.
        module(g, |o| rename(o, ".klp.sym.xfs.xfs_private,0", ".klp.sym.vmlinux.printk,0"));
        g.kernel.ibt = ibt([], []);
    }),
    ("endbr", |g| {
        module(g, |o| rename(o, ".klp.sym.xfs.xfs_private,0", ".klp.sym.vmlinux.printk,0"));
        g.kernel.ibt = ibt([0x600], [0x600]);
    }),
    // A function of a module, whose address is in the array of pointers.
    ("endbr", |g| {
        g.kernel.ibt.insert("xfs".to_owned(), Ibt::default());
    }),
];

/// Puts another target, or none, into a field of a table.
fn pointer(good: &mut Good, table: &str, offset: u64, target: Option<&str>) {
    module(good, |o| {
        let table = o.symbol(symbol(o, table));
        let (section, place) = (table.section().unwrap(), table.value + offset);
        let target = target.map(|name| symbol(o, name));
        let relocations = o.sections[section.index()].relocations.to_mut();
        let index = relocations.iter().position(|r| r.offset == place).expect("a pointer");
        match target {
            Some(_) => relocations[index].symbol = target,
            None => {
                relocations.remove(index);
            }
        }
    });
}

fn codes(good: &Good) -> Vec<&'static str> {
    good.kernel.check(&good.module, &good.manifest).iter().map(klp_module::check::Finding::code).collect()
}

#[test]
fn a_good_module_passes() {
    let good = good();
    assert_eq!(good.kernel.check(&good.module, &good.manifest), []);
    let mut unversioned = good.kernel.clone();
    unversioned.modversions = false;
    assert_eq!(unversioned.check(&good.module, &good.manifest), []);
    // Direct calls need no landing pad, and pointers to a sound one are fine.
    let mut tracked = good.kernel.clone();
    tracked.ibt = ibt([], []);
    assert_eq!(tracked.check(&good.module, &good.manifest), []);
}

const PLT32: u32 = 4;
const SIGNED: u32 = 11;

/// `clear_user()` of 6.4 and later calls `rep_stos_alternative`, which has no `ENDBR`, from an alternative.
#[test]
fn direct_calls_of_alternatives_need_no_landing_pad() {
    let with = |bytes: &'static [u8], field: u64, kind: u32| {
        let mut good = good();
        good.kernel.ibt = ibt([], []);
        module(&mut good, |o| {
            let flags = section_flags::ALLOC | section_flags::EXECINSTR;
            let mut code =
                Section::new(".altinstr_replacement", section_type::PROGBITS, flags, 1, bytes.to_vec());
            let printk = symbol(o, "printk");
            code.relocations.to_mut().push(Relocation {
                offset: field,
                kind,
                symbol: Some(printk),
                addend: -4,
            });
            o.add_section(code);
        });
        codes(&good)
    };
    // `call printk`, and `mov rax, offset printk`.
    assert!(!with(&[0xe8, 0, 0, 0, 0], 1, PLT32).contains(&"endbr"));
    assert!(with(&[0x48, 0xc7, 0xc0, 0, 0, 0, 0], 3, SIGNED).contains(&"endbr"));
}

/// objtool lists sealed functions of a module as relocations; a function that nobody pointed to when it was compiled
/// has no landing pad at all.
#[test]
fn landing_pads_of_a_module() {
    let object = common::text(
        r#"__asm__(".text\n.type pad,@function\npad: endbr64\nret\n.type none,@function\nnone: ret\n"
                   ".type sealed,@function\nsealed: endbr64\nret\n"
                   ".pushsection .ibt_endbr_seal,\"a\"\n.long sealed - .\n.popsection");"#,
    );
    let table = SymbolTable::from_elf(&object).unwrap();
    let place = |name: &str| {
        let symbol = table.symbol(table.named(name.into()).next().unwrap());
        (symbol.section.unwrap(), symbol.value)
    };
    let expected = Ibt::new([place("pad"), place("sealed")], [place("sealed")]);
    assert_eq!(Ibt::from_elf(&object, &table), Ok(expected));
}

#[test]
fn every_damage_is_found() {
    let sound = good();
    for (index, (code, damage)) in DAMAGES.iter().enumerate() {
        let mut good = sound.clone();
        damage(&mut good);
        let found = codes(&good);
        assert!(found.contains(code), "damage {index}: {code} not among {found:?}");
    }
}

#[test]
fn every_code_has_a_damage() {
    let source = include_str!("../src/check/finding.rs");
    let codes = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once("=> \""))
        .map(|(_, code)| code)
        .filter(|code| !code.contains(' '));
    let codes: BTreeSet<&str> = codes.collect();
    assert!(codes.len() > 30, "{codes:?}");
    let tried: BTreeSet<&str> = DAMAGES.iter().map(|d| d.0).collect();
    assert_eq!(codes.difference(&tried).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn findings_say_what_to_do() {
    let mut good = good();
    good.kernel.exports = Symvers::parse(b"0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n").unwrap();
    let findings = good.kernel.check(&good.module, &good.manifest);
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(!finding.remedy().is_empty());
        assert!(finding.subject().is_some_and(|s| finding.to_string().contains(s)), "{finding}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let good = good();
    let kernel = Kernel { ibt: ibt([], []), ..good.kernel.clone() };
    for at in 0..good.module.len() {
        let mut bytes = good.module.clone();
        bytes[at] ^= 0xff;
        let _ = kernel.check(&bytes, &good.manifest);
        if at % 7 == 0 {
            let _ = kernel.check(&good.module[..at], &good.manifest);
        }
    }
}

/// Kernels with FineIBT, kCFI, call depth tracking or sealed landing pads work through these tables when the module is
/// loaded; none of them can be run here.
#[test]
fn tables_of_hardened_kernels_come_before_relocations_that_wait_for_a_module() {
    let sound = good();
    for table in [
        ".kcfi_traps",
        ".cfi_sites",
        ".ibt_endbr_seal",
        ".call_sites",
        ".return_sites",
        ".retpoline_sites",
        ".static_call_sites",
    ] {
        let mut good = sound.clone();
        module(&mut good, |o| {
            rename_section(o, ".text.read_inode", table);
            rename_section(o, XFS_RELA, &format!(".klp.rela.xfs.{table}"));
        });
        assert!(codes(&good).contains(&"gated-special-section"), "{table}");
    }
}

/// Names and CRCs.
type Versions = Vec<(Vec<u8>, [u8; 4])>;

/// The versions of a module in the form of kernels with `CONFIG_EXTENDED_MODVERSIONS` (6.14 and later), which those with
/// `CONFIG_GENDWARFKSYMS` have.
fn with_extended_versions(good: &mut Good, change: impl Fn(&mut Versions)) {
    module(good, |o| {
        let entries = bytes(o, "__versions").clone();
        let mut versions: Versions = entries
            .chunks_exact(64)
            .map(|entry| {
                let name = entry[8..].split(|&b| b == 0).next().unwrap().to_vec();
                (name, entry[..4].try_into().unwrap())
            })
            .collect();
        assert!(versions.len() > 1);
        change(&mut versions);
        bytes(o, "__versions").clear();
        let crcs: Vec<u8> = versions.iter().flat_map(|(_, crc)| *crc).collect();
        let names: Vec<u8> =
            versions.iter().flat_map(|(name, _)| [name.as_slice(), b"\0"].concat()).collect();
        o.add_section(Section::new("__version_ext_crcs", section_type::PROGBITS, 2, 4, crcs));
        o.add_section(Section::new("__version_ext_names", section_type::PROGBITS, 2, 1, names));
    });
}

#[test]
fn extended_versions_are_checked_like_the_others() {
    let sound = good();
    let codes_with = |change: &dyn Fn(&mut Versions)| {
        let mut good = sound.clone();
        with_extended_versions(&mut good, change);
        codes(&good)
    };
    assert_eq!(codes_with(&|_| {}), Vec::<&str>::new());
    assert!(codes_with(&|versions| versions[0].1[0] ^= 1).contains(&"version"));
    assert!(codes_with(&|versions| drop(versions.pop())).contains(&"no-version"));
    let stray = |versions: &mut Versions| versions.push((b"stray".to_vec(), [0; 4]));
    assert!(codes_with(&stray).contains(&"stray-version"));
}
