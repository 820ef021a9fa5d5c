//! A small kernel to patch: its symbol tables, its exports, and a kbuild of two commands.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may panic")]
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kbuild::symtab::{ShippedBinding, ShippedKind, ShippedSymbol, SymbolTable, shipped};
use kbuild::symvers::Symvers;
use klp_module::ModuleManifest;
use klp_module::check::{EntrySites, Finding, Ibt, Target, check};
use klp_module::convert::convert;
use klp_module::hook::{self, Hook, PatchFile, Provenance};
use klp_module::link::{Extract, Linked, link};
use kpatch_elf::extract::{Callback, CallbackKind, Manifest, PatchedFunction, Reference, SECTION, VERSION};
use kpatch_elf::{Object, Section, section_type};

pub(crate) const RELEASE: &str = "6.6.6-test";
pub(crate) const VERMAGIC: &str = "6.6.6-test SMP mod_unload modversions ";
pub(crate) const NAME: &str = "livepatch_test";
pub(crate) const LONG: &str = "a_name_that_is_so_long_that_modpost_would_refuse_to_note_it";

const SYMVERS: &str = "0x00000011\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000022\tklp_enable_patch\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
                       0x00000033\t__fentry__\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000044\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n\
                       0x00000055\txfs_exported\tfs/xfs/xfs\tEXPORT_SYMBOL_GPL\t\n\
                       0x00000088\t__SCT__shared\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
                       0x00000066\tspaced\tvmlinux\tEXPORT_SYMBOL_GPL\tNS\n\
                       0x00000077\trestricted\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:kvm\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn compile(directory: &Path, source: &Path, object: &str) -> PathBuf {
    let object = directory.join(object);
    run(Command::new("gcc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Werror", "-mcmodel=kernel", "-fno-pic", "-mno-red-zone"])
        .args(["-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-pg", "-mfentry"])
        .args(["-mrecord-mcount", "-ffunction-sections", "-fdata-sections", "-fno-common", "-I"])
        .args([&root().join("kernel"), Path::new("-c"), source, Path::new("-o"), &object]));
    object
}

/// The compiled bytes of a unit in tests/units.
pub(crate) fn unit(name: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let object = compile(directory.path(), &root().join("units").join(name), "unit.o");
    std::fs::read(object).unwrap()
}

/// Compiles a source text.
pub(crate) fn text(source: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("unit.c");
    std::fs::write(&file, source).unwrap();
    std::fs::read(compile(directory.path(), &file, "unit.o")).unwrap()
}

/// Puts a manifest into an object.
pub(crate) fn extract(object: &[u8], manifest: &Manifest) -> Vec<u8> {
    let mut object = Object::read(object).unwrap();
    let text = serde_json::to_vec(manifest).unwrap();
    object.add_section(Section::new(SECTION, section_type::PROGBITS, 0, 1, text));
    object.write().unwrap()
}

pub(crate) fn manifest(unit: &str, object: &str) -> Manifest {
    Manifest {
        version: VERSION,
        unit: unit.to_owned(),
        object: object.to_owned(),
        after_objtool: false,
        functions: Vec::new(),
        references: Vec::new(),
        callbacks: Vec::new(),
        import_namespaces: Vec::new(),
    }
}

pub(crate) fn function(name: &str, old_size: u64) -> PatchedFunction {
    PatchedFunction { symbol: name.to_owned(), name: name.to_owned(), sympos: 0, old_size }
}

pub(crate) fn reference(symbol: &str, object: &str, sympos: u32) -> Reference {
    Reference {
        symbol: symbol.to_owned(),
        object: object.to_owned(),
        name: symbol.to_owned(),
        sympos,
        function: symbol != "banner",
    }
}

pub(crate) fn exports() -> Symvers {
    Symvers::parse(SYMVERS.as_bytes()).unwrap()
}

/// The two units of the standard patch.
pub(crate) fn extracts() -> Vec<(String, Vec<u8>)> {
    let mut proc = manifest("fs/proc/proc.o", "vmlinux");
    proc.functions = vec![function("show", 32)];
    proc.references = vec![reference("banner", "vmlinux", 0), reference("init_once", "vmlinux", 2)];
    proc.callbacks = vec![Callback { kind: CallbackKind::PrePatch, symbol: "before".to_owned() }];
    let mut inode = manifest("fs/xfs/inode.o", "xfs");
    inode.functions = vec![function("read_inode", 64)];
    inode.references = vec![
        reference("banner", "vmlinux", 0),
        reference("xfs_private", "xfs", 0),
        reference("xfs_exported", "xfs", 0),
        reference("init_once", "xfs", 0),
        reference(LONG, "vmlinux", 0),
    ];
    inode.import_namespaces = vec!["NS".to_owned()];
    vec![
        (proc.unit.clone(), extract(&unit("proc.c"), &proc)),
        (inode.unit.clone(), extract(&unit("inode.c"), &inode)),
    ]
}

pub(crate) fn read(extracts: &[(String, Vec<u8>)]) -> Vec<Extract<'_>> {
    extracts.iter().map(|(unit, bytes)| Extract::read(bytes, unit).unwrap()).collect()
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        release: RELEASE.to_owned(),
        build_id: Some("00ff".to_owned()),
        modules: BTreeMap::from(["xfs", "untouched"].map(|name| (name.to_owned(), "11".to_owned()))),
        level: None,
        patches: vec![PatchFile::new("fix.patch", b"Subject: [PATCH] say \"two\"\n words\n\n--- a/x\n")],
        skipped: vec!["vmlinux:setup .init.text".to_owned()],
        version: "1.0".to_owned(),
    }
}

/// What kbuild would do: compile the hook, note versions, link.
pub(crate) fn build(linked: &Linked<'_>, hook: &Hook) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join(hook::LINKED), linked.object.write().unwrap()).unwrap();
    for (file, text) in hook.files() {
        std::fs::write(path.join(file), text).unwrap();
    }
    let mut versions = String::new();
    let known = exports();
    let klp = Symvers::parse(hook.symvers.as_bytes()).unwrap();
    let imported = ["printk", "klp_enable_patch", "__fentry__", "module_layout"];
    let imported = imported.iter().map(|&name| (name.to_owned(), known.get(name.into()).unwrap().crc));
    for (name, crc) in imported.chain(klp.exports().iter().map(|e| (e.name.to_string(), e.crc))) {
        writeln!(versions, "\t{{ {crc:#x}, \"{name}\" }},").unwrap();
    }
    let module = format!(
        "#include <linux/module.h>\n\
         MODULE_INFO(name, \"{NAME}\");\n\
         MODULE_INFO(vermagic, \"{VERMAGIC}\");\n\
         MODULE_INFO(depends, \"\");\n\
         int init_module(void);\nvoid cleanup_module(void);\n\
         struct module __this_module __section(\".gnu.linkonce.this_module\") = {{\n\
         \t.name = \"{NAME}\", .init = init_module, .exit = cleanup_module,\n}};\n\
         static const struct {{ unsigned long crc; char name[56]; }} versions[] __used\n\
         __section(\"__versions\") = {{\n{versions}}};\n\
         static const int btf __used __section(\".BTF\") = 1;\n"
    );
    std::fs::write(path.join("module.c"), module).unwrap();
    let main = compile(path, &path.join(hook::SOURCE), "hook.o");
    let module = compile(path, &path.join("module.c"), "module.o");
    let out = path.join("out.ko");
    run(Command::new("ld").args(["-r", "-o"]).args([&out, &main, &path.join(hook::LINKED), &module]));
    std::fs::read(out).unwrap()
}

/// Everything about a good module, to be damaged.
#[derive(Clone)]
pub(crate) struct Good {
    pub(crate) kbuild: Vec<u8>,
    pub(crate) module: Vec<u8>,
    pub(crate) manifest: ModuleManifest,
    pub(crate) kernel: Kernel,
}

pub(crate) fn good() -> Good {
    let extracts = extracts();
    let linked = link(&read(&extracts), &exports()).unwrap();
    let hook = hook::hook(NAME, &linked.manifest, &provenance(), true).unwrap();
    let kbuild = build(&linked, &hook);
    let module = convert(&kbuild, &linked.manifest).unwrap();
    Good { kbuild, module, manifest: linked.manifest, kernel: Kernel::new() }
}

/// The kernel that the module is for.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) vermagic: String,
    pub(crate) exports: Symvers,
    pub(crate) modversions: bool,
    pub(crate) tables: BTreeMap<String, SymbolTable<'static>>,
    pub(crate) entries: BTreeMap<String, EntrySites>,
    pub(crate) ibt: BTreeMap<String, Ibt>,
}

pub(crate) fn vmlinux_symbols() -> Vec<ShippedSymbol<'static>> {
    use ShippedBinding::{Global, Local};
    use ShippedKind::{Function, Object};
    vec![
        shipped("init_once", 0x300, 16, Function, Local, Some(1)),
        shipped("init_once", 0x100, 16, Function, Local, Some(1)),
        shipped("init_once", 0x200, 16, Function, Global, Some(1)),
        shipped("show", 0x400, 32, Function, Local, Some(1)),
        shipped("banner", 0x900, 8, Object, Global, Some(2)),
        shipped(LONG, 0x500, 16, Function, Global, Some(1)),
        shipped("printk", 0x600, 16, Function, Global, Some(1)),
    ]
}

pub(crate) fn xfs_symbols() -> Vec<ShippedSymbol<'static>> {
    use ShippedBinding::{Global, Local};
    use ShippedKind::Function;
    vec![
        shipped("read_inode", 0x40, 64, Function, Local, Some(1)),
        shipped("xfs_private", 0x80, 16, Function, Global, Some(1)),
        shipped("xfs_exported", 0x90, 16, Function, Global, Some(1)),
        shipped("init_once", 0xa0, 16, Function, Local, Some(1)),
    ]
}

impl Kernel {
    pub(crate) fn new() -> Kernel {
        Kernel {
            release: RELEASE.to_owned(),
            vermagic: VERMAGIC.to_owned(),
            exports: exports(),
            modversions: true,
            tables: BTreeMap::from([
                ("vmlinux".to_owned(), SymbolTable::new(vmlinux_symbols(), false)),
                ("xfs".to_owned(), SymbolTable::new(xfs_symbols(), true)),
            ]),
            entries: BTreeMap::from([
                ("vmlinux".to_owned(), EntrySites::new([(0, 0x404)])),
                ("xfs".to_owned(), EntrySites::new([(1, 0x40)])),
            ]),
            ibt: BTreeMap::new(),
        }
    }

    pub(crate) fn check(&self, module: &[u8], manifest: &ModuleManifest) -> Vec<Finding> {
        let target = Target {
            release: &self.release,
            vermagic: &self.vermagic,
            exports: &self.exports,
            modversions: self.modversions,
            tables: &self.tables,
            entries: &self.entries,
            ibt: &self.ibt,
        };
        check(module, NAME, manifest, &target)
    }
}

/// Symbol and sections by name, for damaging.
pub(crate) fn symbol(object: &Object<'_>, name: &str) -> kpatch_elf::SymbolId {
    object.symbols_with_ids().find(|(_, s)| s.name.as_ref() == name.as_bytes()).expect(name).0
}

pub(crate) fn section(object: &Object<'_>, name: &str) -> kpatch_elf::SectionId {
    object.section_named(name).expect(name)
}
