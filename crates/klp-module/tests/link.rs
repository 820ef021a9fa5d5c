//! Which symbol of the linked object each name of each unit becomes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use std::collections::BTreeMap;

use klp_module::ModuleManifest;
use klp_module::link::{Extract, LinkError, Linked, link};
use kpatch_elf::extract::{Callback, CallbackKind, Manifest, Reference};
use kpatch_elf::{Object, Place};

use common::{extract, function, manifest, reference, text};

fn vmlinux(unit: &str) -> Manifest {
    let mut manifest = manifest(unit, "vmlinux");
    manifest.functions = vec![function("patched", 1)];
    manifest
}

const PATCHED: &str = "static __attribute__((used, noinline)) int patched(int n) { return n; }\n";

/// Links units of source and manifest.
fn try_link(units: &[(&str, Manifest)]) -> Result<(Vec<u8>, ModuleManifest), Vec<LinkError>> {
    let extracts: Vec<(String, Vec<u8>)> =
        units.iter().map(|(source, m)| (m.unit.clone(), extract(&text(source), m))).collect();
    let extracts = common::read(&extracts);
    let Linked { object, manifest } = link(&extracts, &common::exports())?;
    Ok((object.write().unwrap(), manifest))
}

fn errors(units: &[(&str, Manifest)]) -> Vec<LinkError> {
    match try_link(units) {
        Ok(_) => panic!("linked"),
        Err(errors) => errors,
    }
}

/// What the text section of a name refers to, by display name; definitions with their section.
fn targets(object: &Object<'_>, section: &str) -> Vec<String> {
    let section = object.section(common::section(object, section));
    let name = |id| {
        let symbol = object.symbol(id);
        match symbol.place {
            Place::Section(place) => format!("{}@{}", object.display_name(id), object.section(place).name),
            _ => symbol.name.to_string(),
        }
    };
    section.relocations.iter().filter_map(|r| r.symbol).map(name).filter(|n| n != "__fentry__").collect()
}

fn symbols_of(manifest: &ModuleManifest) -> BTreeMap<(String, String, String, u32), String> {
    let key = |r: &klp_module::KlpReference| (r.gate.clone(), r.object.clone(), r.name.clone(), r.sympos);
    manifest.references.iter().map(|r| (key(r), r.symbol.clone())).collect()
}

#[test]
fn like_names_of_units_stay_apart() {
    let source =
        "static int state; static __attribute__((used, noinline)) int patched(int n) { return state += n; }";
    let (mut a, mut b) = (vmlinux("a.o"), vmlinux("b.o"));
    a.functions[0].sympos = 1;
    b.functions[0].sympos = 2;
    let (bytes, manifest) = try_link(&[(source, a), (source, b)]).unwrap();
    let object = Object::read(&bytes).unwrap();
    assert!(targets(&object, ".text.patched").iter().all(|t| t.ends_with("@.bss.state")));
    assert!(targets(&object, ".text.patched.2").iter().all(|t| t.ends_with("@.bss.state.2")));
    let functions: Vec<_> = manifest.functions().map(|(_, f)| (f.symbol.as_str(), f.sympos)).collect();
    assert_ne!(functions[0].0, functions[1].0);
    for (symbol, _) in &functions {
        assert_eq!(object.symbols.iter().filter(|s| s.name.as_ref() == symbol.as_bytes()).count(), 1);
        assert_eq!(manifest.final_name(symbol), "patched");
    }
    // Both, with their own table entries joined.
    assert_eq!(object.section(common::section(&object, "__mcount_loc")).size(), 16);
    assert_eq!(targets(&object, "__mcount_loc").len(), 2);
    assert_eq!(targets(&object, "__mcount_loc")[1], ".text.patched.2@.text.patched.2");
}

#[test]
fn strings_and_tables_are_joined_with_their_offsets() {
    let unit = |text: &str| {
        format!(
            "extern int printk(const char *format, ...);\n\
             static __attribute__((used, noinline)) int patched(int n) {{ return printk(\"{text}\", n); }}"
        )
    };
    let (a, mut b) = (vmlinux("a.o"), vmlinux("b.o"));
    b.functions[0].sympos = 2;
    let (one, two) = (unit("first unit %d"), unit("second unit %d"));
    let (bytes, _) = try_link(&[(&one, a), (&two, b)]).unwrap();
    let object = Object::read(&bytes).unwrap();
    for (text, string) in [(".text.patched", "first unit %d"), (".text.patched.2", "second unit %d")] {
        let code = object.section(common::section(&object, text));
        let found = code.relocations.iter().any(|r| {
            let symbol = object.symbol(r.symbol.unwrap());
            let Some(section) = symbol.section() else { return false };
            let place = symbol.value.wrapping_add_signed(r.addend);
            object.section(section).string_at(place).is_some_and(|s| s == string.as_bytes())
        });
        assert!(found, "{string}");
    }
}

#[test]
fn references_are_shared_by_meaning_not_by_name() {
    let source = "extern int helper(int n);\n\
                  static __attribute__((used, noinline)) int patched(int n) { return helper(n) + 1; }";
    let unit = |name: &str, object: &str, sympos| {
        let mut m = manifest(name, object);
        m.functions = vec![function("patched", 1)];
        m.functions[0].sympos = if object == "vmlinux" { sympos } else { 0 };
        m.references = vec![reference("helper", "vmlinux", sympos)];
        m
    };
    let units = [unit("a.o", "vmlinux", 1), unit("b.o", "vmlinux", 2), unit("c.o", "xfs", 2), {
        let mut m = unit("d.o", "xfs", 0);
        m.functions[0].sympos = 7;
        m.references[0].object = "xfs".to_owned();
        m
    }];
    let (bytes, manifest) = try_link(&units.map(|m| (source, m))).unwrap();
    let object = Object::read(&bytes).unwrap();
    let symbols = symbols_of(&manifest);
    assert_eq!(symbols.len(), 3);
    let of = |gate: &str, object: &str, sympos| {
        symbols[&(gate.to_owned(), object.to_owned(), "helper".to_owned(), sympos)].clone()
    };
    let (first, second, third) =
        (of("vmlinux", "vmlinux", 1), of("vmlinux", "vmlinux", 2), of("xfs", "xfs", 0));
    assert_eq!(first, "helper");
    assert_ne!(second, third);
    assert_eq!(targets(&object, ".text.patched"), [first]);
    assert_eq!(targets(&object, ".text.patched.2"), [second.as_str()]);
    assert_eq!(targets(&object, ".text.patched.3"), [second]);
    assert_eq!(targets(&object, ".text.patched.4"), [third]);
    let users = manifest.references.iter().find(|r| r.sympos == 2).unwrap();
    assert_eq!(users.units, ["b.o", "c.o"]);
}

#[test]
fn names_that_modpost_knows_otherwise_get_an_alias() {
    let source = "extern int xfs_exported(void), restricted(void), __this_module, local asm(\"local.0\");\n\
                  static __attribute__((used)) int patched(int n)\n\
                  { return xfs_exported() + restricted() + __this_module + local; }";
    let mut unit = manifest("a.o", "xfs");
    unit.functions = vec![function("patched", 1)];
    unit.references = vec![
        reference("xfs_exported", "xfs", 0),
        reference("restricted", "vmlinux", 0),
        reference("__this_module", "xfs", 0),
        reference("local.0", "vmlinux", 0),
    ];
    let (_, manifest) = try_link(&[(source, unit)]).unwrap();
    for reference in &manifest.references {
        assert_ne!(reference.symbol, reference.name);
        assert!(reference.symbol.len() <= 55);
        assert!(reference.symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    }
    let text = klp_module::hook::symvers(&manifest);
    assert_eq!(text.lines().count(), 4);
    assert!(
        text.starts_with("0x00000000\tkpatch_hook_ref_xfs_exported\tvmlinux\tEXPORT_SYMBOL_GPL\t\n"),
        "{text}"
    );
}

#[test]
fn the_namespaces_of_what_is_used_are_imported() {
    let source = "extern int spaced(void), printk(const char *, ...);\n\
                  static __attribute__((used)) int patched(int n) { return spaced() + printk(0) + n; }";
    let (_, manifest) = try_link(&[(source, vmlinux("a.o"))]).unwrap();
    assert_eq!(manifest.import_namespaces, ["NS"]);
    let source = source.replace("spaced() + ", "").replace("spaced(void), ", "");
    let (_, manifest) = try_link(&[(&source, vmlinux("a.o"))]).unwrap();
    assert!(manifest.import_namespaces.is_empty());
}

#[test]
fn a_static_call_keeps_its_name_where_its_table_entry_can_be_used() {
    let source = "extern int __SCT__call(void);\n\
                  static __attribute__((used)) int patched(int n) { return __SCT__call() + n; }";
    let of = |object: &str| {
        let mut unit = manifest("a.o", object);
        unit.functions = vec![function("patched", 1)];
        unit.references = vec![reference("__SCT__call", object, 0)];
        let (_, linked) = try_link(&[(source, unit)]).unwrap();
        linked.references[0].symbol.clone()
    };
    assert_eq!(of("vmlinux"), "__SCT__call");
    assert!(
        !of("xfs").starts_with("__SCT__"),
        "objtool would make an entry that is read before xfs is there"
    );
}

#[test]
fn a_key_behind_an_exported_trampoline_is_left_to_the_kernel() {
    let source = "extern int __SCT__shared(void), __SCK__shared, __SCK__other;\n\
                  static __attribute__((used)) int patched(int n) { return __SCT__shared() + n; }\n\
                  static void *const key __attribute__((used, section(\".discard.addressable\"))) = &__SCK__shared;";
    let (bytes, _) = try_link(&[(source, vmlinux("a.o"))]).unwrap();
    let object = Object::read(&bytes).unwrap();
    assert!(!object.symbols.iter().any(|s| s.name.starts_with(b"__SCK__")));
    assert_eq!(targets(&object, ".text.patched"), ["__SCT__shared"]);

    let found = errors(&[(&source.replace("&__SCK__shared", "&__SCK__other"), vmlinux("a.o"))]);
    assert!(
        matches!(&found[..], [LinkError::Unresolved { symbol, .. }] if symbol == "__SCK__other"),
        "{found:?}"
    );
}

#[test]
fn new_definitions_serve_other_units_but_replaced_functions_do_not() {
    let user = "extern int fresh(int n), patched(int n), printk(const char *, ...);\n\
                static __attribute__((used)) int other(int n) { return fresh(n) + patched(n) + printk(\"\"); }";
    let definer = "int fresh(int n) { return n + 2; }\n\
                   __attribute__((noinline)) int patched(int n) { return n + 3; }";
    let mut uses = vmlinux("user.o");
    uses.functions[0] = function("other", 1);
    uses.references = vec![reference("patched", "vmlinux", 0)];
    let (bytes, manifest) = try_link(&[(user, uses.clone()), (definer, vmlinux("definer.o"))]).unwrap();
    let object = Object::read(&bytes).unwrap();
    let mut found = targets(&object, ".text.other");
    found.retain(|t| !t.contains(".str"));
    found.sort();
    assert_eq!(found, ["fresh@.text.fresh", "patched", "printk"]);
    assert_eq!(manifest.references.len(), 1);
    // Nobody outside needs them, and vmlinux has a global of one of these names.
    assert!(object.symbols.iter().filter(|s| s.section().is_some()).all(kpatch_elf::Symbol::is_local));

    // The same where the definition is one of a module.
    let mut definition = vmlinux("definer.o");
    definition.object = "xfs".to_owned();
    let errors = errors(&[(user, uses), (definer, definition)]);
    assert!(
        matches!(&errors[..], [LinkError::CrossObject { symbol, .. }] if symbol == "fresh"),
        "{errors:?}"
    );
}

#[test]
fn modules_may_define_like_names() {
    let source = "int fresh(int n) { return n + 2; }\n\
                  static __attribute__((used)) int patched(int n) { return n; }";
    let user = "extern int fresh(int n); static __attribute__((used)) int other(int n) { return fresh(n); }";
    let of = |unit: &str, object: &str, name: &str| {
        let mut m = manifest(unit, object);
        m.functions = vec![function(name, 1)];
        m
    };
    let units = [
        (source, of("a.o", "xfs", "patched")),
        (source, of("b.o", "ext4", "patched")),
        (user, of("c.o", "ext4", "other")),
    ];
    let (bytes, linked) = try_link(&units).unwrap();
    assert_eq!(targets(&Object::read(&bytes).unwrap(), ".text.other"), ["fresh@.text.fresh.2"]);
    let objects: Vec<_> = linked.objects.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(objects, ["ext4", "xfs"]);
}

#[test]
fn code_is_joined_with_no_operations() {
    let source = "static __attribute__((used, section(\".sched.text\"))) int patched(int n) { return n; }";
    let mut second = vmlinux("b.o");
    second.functions[0].sympos = 2;
    let (bytes, linked) = try_link(&[(source, vmlinux("a.o")), (source, second)]).unwrap();
    let object = Object::read(&bytes).unwrap();
    let code = object.section(common::section(&object, ".sched.text"));
    let symbols: Vec<_> =
        linked.functions().map(|(_, f)| object.symbol(common::symbol(&object, &f.symbol))).collect();
    let end = (symbols[0].value + symbols[0].size) as usize;
    let gap = &code.bytes()[end..symbols[1].value as usize];
    assert!(!gap.is_empty() && gap.iter().all(|&b| b == 0x90), "{gap:?}");
}

#[test]
fn gaps_between_table_entries_are_refused() {
    let source = "static __attribute__((used)) int patched(int n) { return n; }\n\
                  asm(\".pushsection __bug_table,\\\"aw\\\"\\n.balign 8\\n.skip 12\\n.popsection\");";
    let mut second = vmlinux("b.o");
    second.functions[0].sympos = 2;
    let found = errors(&[(source, vmlinux("a.o")), (source, second)]);
    assert!(
        matches!(&found[..], [LinkError::Section { section, .. }] if section == "__bug_table"),
        "{found:?}"
    );
}

/// `_paravirt_alt` of 5.10 aligns each entry at its start, so that the last one of a unit ends early.
#[test]
fn the_padding_of_paravirt_entries_is_no_gap() {
    let source = "static __attribute__((used)) int patched(int n) { return n; }\n\
                  asm(\".pushsection .parainstructions,\\\"a\\\"\\n.balign 8\\n.skip 12\\n.popsection\");";
    let mut second = vmlinux("b.o");
    second.functions[0].sympos = 2;
    let (bytes, _) = try_link(&[(source, vmlinux("a.o")), (source, second)]).unwrap();
    let object = Object::read(&bytes).unwrap();
    assert_eq!(object.section(common::section(&object, ".parainstructions")).size(), 28);
}

#[test]
fn callbacks_are_global_for_the_hook_and_one_of_a_kind() {
    let source = format!("{PATCHED}static __attribute__((used)) int before(void *o) {{ return !o; }}");
    let callback = Callback { kind: CallbackKind::PrePatch, symbol: "before".to_owned() };
    let mut unit = vmlinux("a.o");
    unit.callbacks = vec![callback.clone()];
    let (bytes, linked) = try_link(&[(&source, unit.clone())]).unwrap();
    let object = Object::read(&bytes).unwrap();
    let symbol = &linked.objects[0].callbacks[0].symbol;
    assert!(!object.symbol(common::symbol(&object, symbol)).is_local());
    assert_eq!(linked.final_name(symbol), "before");

    let mut second = vmlinux("b.o");
    second.functions.clear();
    second.callbacks = vec![callback];
    assert!(matches!(&errors(&[(&source, unit), (&source, second)])[..], [LinkError::TwoCallbacks { .. }]));
}

#[test]
fn modules_with_nothing_but_new_code_are_patched_objects_too() {
    let (a, mut b) = (vmlinux("a.o"), manifest("b.o", "xfs"));
    b.references = vec![reference("private", "xfs", 0)];
    let source = "extern int private(void); int fresh(void) { return private() + 1; }";
    let (_, linked) = try_link(&[(PATCHED, a), (source, b)]).unwrap();
    let names: Vec<_> = linked.objects.iter().map(|o| (o.name.as_str(), o.functions.len())).collect();
    assert_eq!(names, [("vmlinux", 1), ("xfs", 0)]);
}

#[test]
fn what_cannot_be_linked_is_said() {
    let undefined = "extern int nowhere(void), restricted(void);\n\
                     static __attribute__((used)) int patched(int n) { return nowhere() + restricted(); }";
    let found = errors(&[(undefined, vmlinux("a.o"))]);
    assert!(
        matches!(&found[..], [LinkError::Unresolved { symbol: a, .. }, LinkError::Unresolved { symbol: b, .. }]
            if a == "nowhere" && b == "restricted"),
        "{found:?}"
    );

    let global = "int fresh = 1;\n".to_owned() + PATCHED;
    let mut other = vmlinux("b.o");
    other.functions[0].sympos = 2;
    let found = errors(&[(&global, vmlinux("a.o")), (&global, other)]);
    assert!(matches!(&found[..], [LinkError::Duplicate { symbol, .. }] if symbol == "fresh"), "{found:?}");

    // Positions 0 and 1 are the same for the kernel.
    let mut again = vmlinux("b.o");
    again.functions[0].sympos = 1;
    let found = errors(&[(PATCHED, vmlinux("a.o")), (PATCHED, again)]);
    assert!(matches!(&found[..], [LinkError::TwoReplacements { .. }]), "{found:?}");

    let mut absent = vmlinux("a.o");
    absent.functions[0].symbol = "absent".to_owned();
    absent.references = vec![reference("unused", "vmlinux", 0)];
    let found = errors(&[(PATCHED, absent)]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|e| matches!(e, LinkError::Names { .. })), "{found:?}");

    let mut empty = vmlinux("a.o");
    empty.functions.clear();
    assert_eq!(errors(&[(PATCHED, empty)]), [LinkError::Empty]);
    assert_eq!(errors(&[]), [LinkError::NoUnits]);

    let mut mixed = vmlinux("b.o");
    mixed.after_objtool = true;
    assert!(matches!(
        &errors(&[(PATCHED, vmlinux("a.o")), (PATCHED, mixed)])[..],
        [LinkError::MixedObjtool { unit }] if unit == "a.o"
    ));

    for name in ["", "a.b", "x,y", &"m".repeat(56)] {
        let mut odd = vmlinux("a.o");
        name.clone_into(&mut odd.object);
        assert!(matches!(&errors(&[(PATCHED, odd)])[..], [LinkError::ObjectName { .. }]), "{name}");
    }
}

#[test]
fn manifests_are_read_with_care() {
    let plain = text(PATCHED);
    assert!(matches!(Extract::read(&plain, "a.o").unwrap_err(), LinkError::Manifest { .. }));
    assert!(matches!(Extract::read(b"", "a.o").unwrap_err(), LinkError::Read { .. }));
    let mut newer = vmlinux("a.o");
    newer.version += 1;
    let bytes = extract(&plain, &newer);
    assert!(matches!(Extract::read(&bytes, "a.o").unwrap_err(), LinkError::Manifest { .. }));
    let mut twice = vmlinux("a.o");
    twice.references = vec![Reference { ..reference("x", "vmlinux", 1) }; 2];
    let source = format!("extern int x; int fresh(void) {{ return x; }}\n{PATCHED}");
    assert!(matches!(&errors(&[(&source, twice)])[..], [LinkError::Names { what: "listed twice", .. }]));
}

#[test]
fn damaged_extracts_never_panic() {
    let good = common::extracts();
    for at in 0..good[1].1.len() {
        let mut damaged = good.clone();
        damaged[1].1[at] ^= if at % 2 == 0 { 0xff } else { 1 };
        let read = damaged.iter().map(|(unit, bytes)| Extract::read(bytes, unit));
        if let Ok(extracts) = read.collect::<Result<Vec<_>, _>>()
            && let Ok(linked) = link(&extracts, &common::exports())
        {
            let _ = linked.object.write();
        }
    }
}
