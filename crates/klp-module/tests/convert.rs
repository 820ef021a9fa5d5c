//! From extracts to a module in livepatch form.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use klp_module::convert::{ConvertError, convert};
use klp_module::hook;
use klp_module::link::link;
use kpatch_elf::klp::SHF_RELA_LIVEPATCH;
use kpatch_elf::{Info, Object, Place};

use common::{Good, good, section};

fn klp_relas(object: &Object<'_>) -> Vec<(String, Vec<String>)> {
    let relas = object.sections.iter().filter(|s| s.is_klp_rela());
    relas
        .map(|s| {
            let symbols = s.relocations.iter().map(|r| object.display_name(r.symbol.unwrap()).to_string());
            (s.name.to_string(), symbols.collect())
        })
        .collect()
}

#[test]
fn references_become_livepatch_relocations_behind_their_gates() {
    let Good { module, .. } = good();
    let object = Object::read(&module).unwrap();
    let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let mut relas = klp_relas(&object);
    for (_, symbols) in &mut relas {
        symbols.sort();
    }
    assert_eq!(
        relas,
        [
            (
                ".klp.rela.vmlinux..text.show".to_owned(),
                strings(&[".klp.sym.vmlinux.banner,0", ".klp.sym.vmlinux.init_once,2"])
            ),
            (
                ".klp.rela.vmlinux..text.read_inode".to_owned(),
                vec![format!(".klp.sym.vmlinux.{},0", common::LONG), ".klp.sym.vmlinux.banner,0".to_owned(),]
            ),
            (
                ".klp.rela.xfs..text.read_inode".to_owned(),
                strings(&[
                    ".klp.sym.xfs.init_once,0",
                    ".klp.sym.xfs.xfs_exported,0",
                    ".klp.sym.xfs.xfs_private,0"
                ])
            ),
            (".klp.rela.xfs..rodata.pointers".to_owned(), strings(&[".klp.sym.xfs.xfs_private,0"])),
        ]
    );
    for rela in object.sections.iter().filter(|s| s.is_klp_rela()) {
        assert_eq!(rela.flags, 2 | 0x40 | SHF_RELA_LIVEPATCH);
        assert!(matches!(rela.info, Info::Section(_)));
    }
}

#[test]
fn tables_point_to_the_replacing_functions() {
    let Good { module, .. } = good();
    let object = Object::read(&module).unwrap();
    for (table, function) in [("kpatch_hook_funcs_0", "show"), ("kpatch_hook_funcs_1", "read_inode")] {
        let table = object.symbol(common::symbol(&object, table));
        let data = object.section(table.section().unwrap());
        let place = table.value + 8;
        let pointer = data.relocations_in(place, place + 1).next().unwrap_or_else(|| panic!("{function}"));
        assert_eq!(object.display_name(pointer.symbol.unwrap()), function);
        assert_eq!(pointer.addend, 0);
    }
}

#[test]
fn traces_of_the_build_are_gone() {
    let Good { kbuild, module, .. } = good();
    let (before, after) = (Object::read(&kbuild).unwrap(), Object::read(&module).unwrap());
    for name in [".BTF", hook::LAYOUT_SECTION] {
        assert!(before.section_named(name).is_some(), "{name}");
        assert!(after.section_named(name).is_none(), "{name}");
    }
    let versions = |object: &Object<'_>| object.section(section(object, "__versions")).size() / 64;
    assert_eq!((versions(&before), versions(&after)), (4 + 6, 4));
    let made_up: Vec<_> = after
        .symbols
        .iter()
        .filter(|s| s.name.starts_with(b"kpatch_hook_"))
        .filter(|s| {
            s.name.contains(&b'r')
                && (s.name.starts_with(b"kpatch_hook_ref") || s.name.starts_with(b"kpatch_hook_callback"))
        })
        .collect();
    assert!(made_up.is_empty(), "{made_up:?}");
    assert!(after.symbols.iter().any(|s| s.name.as_ref() == "before" && s.is_local()));
}

#[test]
fn extended_versions_are_taken_back_as_well() {
    let Good { kbuild, manifest, .. } = good();
    let mut object = Object::read(&kbuild).unwrap();
    let names = b"printk\0banner\0klp_enable_patch\0".to_vec();
    let crcs: Vec<u8> = [1u32, 2, 3].iter().flat_map(|w| w.to_le_bytes()).collect();
    object.add_section(kpatch_elf::Section::new("__version_ext_names", 1, 2, 1, names));
    object.add_section(kpatch_elf::Section::new("__version_ext_crcs", 1, 2, 4, crcs));
    let module = convert(&object.write().unwrap(), &manifest).unwrap();
    let object = Object::read(&module).unwrap();
    let bytes = |name| object.section(section(&object, name)).bytes().to_vec();
    assert_eq!(bytes("__version_ext_names"), b"printk\0klp_enable_patch\0");
    assert_eq!(bytes("__version_ext_crcs"), [1, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn equal_inputs_give_equal_modules() {
    let (a, b) = (good(), good());
    assert_eq!(a.module, b.module);
}

#[test]
fn a_table_that_is_read_too_early_is_refused() {
    let mut inode = common::manifest("fs/xfs/inode.o", "xfs");
    inode.functions = vec![common::function("read_inode", 64)];
    inode.references = vec![common::reference("xfs_key", "xfs", 0)];
    let source = "extern int xfs_key;\n\
                  static __attribute__((used)) int read_inode(void) { return 1; }\n\
                  static const struct { long code, key; } entry __attribute__((used, section(\"__jump_table\")))\n\
                  = { (long)read_inode, (long)&xfs_key };\n";
    let bytes = common::extract(&common::text(source), &inode);
    let extracts = [("inode.o".to_owned(), bytes)];
    let linked = link(&common::read(&extracts), &common::exports()).unwrap();
    let hook = hook::hook(common::NAME, &linked.manifest, &common::provenance(), true).unwrap();
    let errors = convert(&common::build(&linked, &hook), &linked.manifest).unwrap_err();
    let [ConvertError::SpecialSection { section, place, symbol, gate, .. }] = errors.as_slice() else {
        panic!("{errors:?}");
    };
    assert_eq!(
        (section.as_str(), place.as_str(), symbol.as_str(), gate.as_str()),
        ("__jump_table", "read_inode+0x0", "xfs:xfs_key", "xfs")
    );

    // The same table about vmlinux is fine.
    let mut proc = inode.clone();
    proc.object = "vmlinux".to_owned();
    proc.references[0].object = "vmlinux".to_owned();
    let extracts = [("proc.o".to_owned(), common::extract(&common::text(source), &proc))];
    let linked = link(&common::read(&extracts), &common::exports()).unwrap();
    let hook = hook::hook(common::NAME, &linked.manifest, &common::provenance(), true).unwrap();
    let module = convert(&common::build(&linked, &hook), &linked.manifest).unwrap();
    let relas = klp_relas(&Object::read(&module).unwrap());
    assert_eq!(
        relas,
        [(".klp.rela.vmlinux.__jump_table".to_owned(), vec![".klp.sym.vmlinux.xfs_key,0".to_owned()])]
    );
}

#[test]
fn modules_without_the_hook_are_refused() {
    let Good { kbuild, module, manifest, .. } = good();
    assert!(convert(&module, &manifest).is_err(), "converted twice");
    assert!(matches!(convert(b"no module", &manifest).unwrap_err()[..], [ConvertError::Read(_)]));
    let mut other = manifest.clone();
    other.objects[0].functions[0].symbol = "absent".to_owned();
    let errors = convert(&kbuild, &other).unwrap_err();
    assert!(matches!(&errors[..], [ConvertError::Function { count: 0, .. }]), "{errors:?}");
    for at in 0..kbuild.len() {
        let _ = convert(&kbuild[..at], &manifest);
        let mut damaged = kbuild.clone();
        damaged[at] ^= if at % 2 == 0 { 0xff } else { 1 };
        let _ = convert(&damaged, &manifest);
    }
}

#[test]
fn livepatch_symbols_are_in_their_place() {
    let Good { module, .. } = good();
    let object = Object::read(&module).unwrap();
    let mut names = Vec::new();
    for symbol in object.symbols.iter().filter(|s| s.place == Place::Livepatch) {
        assert!(symbol.name.starts_with(b".klp.sym."), "{}", symbol.name);
        assert!(!symbol.is_local());
        names.push(symbol.name.to_string());
    }
    assert_eq!(names.len(), 6);
    assert_eq!(object.symbols.iter().filter(|s| s.name.starts_with(b".klp.sym.")).count(), 6);
}
