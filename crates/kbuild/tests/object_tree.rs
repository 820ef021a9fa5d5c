//! Object trees of a source tree whose makefile does what kbuild's does, on a scale of four files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kbuild::object_tree::{ObjectTree, Origin, Recipe, TreeError, UnitCommand};
use kbuild::root::Root;
use kbuild::store;
use kbuild::units::{Home, UnitList, Unpatchable, locate};

/// `prepare` generates two headers; any `.o` whose source exists is compiled, as by kbuild's pattern rules, and
/// leaves a saved command. Every run is counted.
const MAKEFILE: &str = r#"
MAKEFLAGS += -r
.PHONY: prepare FORCE
Makefile: ;
prepare:
	@echo '#define OFFSET 8' > $(O)/include/generated/asm-offsets.h
	@echo ours > $(O)/include/generated/compile.h
	@echo $(KERNELRELEASE) $(ARCH) > $(O)/prepared
%.o: FORCE
	@echo run >> $(O)/runs
	@echo ours > $(O)/include/generated/compile.h
	@test -f $*.c || { echo "make: *** No rule to make target '$@'." >&2; exit 1; }
	@echo "  CC $(if $(findstring net/,$@),[M])     $@"
	@mkdir -p $(O)/$(dir $@)
	@cd $(O) && $(CC) $(if $(findstring net/,$@),-DMODULE) -DKBUILD_MODNAME='"$(notdir $*)"' -c -o $@ $(CURDIR)/$*.c
	@echo "savedcmd_$@ := $(CC) $(if $(findstring net/,$@),-DMODULE) -DKBUILD_MODNAME='\"$(notdir $*)\"' -c -o $@ $(CURDIR)/$*.c" > $(O)/$(dir $@).$(notdir $*).o.cmd
"#;

struct Kernel {
    dir: tempfile::TempDir,
}

impl Kernel {
    fn new(offset: &str) -> Kernel {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("src/Makefile", MAKEFILE),
            ("src/init/main.c", "int main(void) { return 0; }\n"),
            ("src/net/proto.c", "int proto;\n"),
            ("src/fs/broken.c", "int broken(\n"),
            ("src/fs/Makefile", "obj-$(CONFIG_BROKEN) += broken.o\n"),
            ("headers/.config", "CONFIG_NET=m\n"),
            ("headers/Module.symvers", ""),
            ("headers/include/config/auto.conf", "CONFIG_NET=m\n"),
            ("headers/include/generated/autoconf.h", ""),
            ("headers/include/generated/compile.h", "shipped\n"),
            ("headers/include/generated/asm-offsets.h", offset),
            ("headers/arch/x86/include/generated/asm/x.h", ""),
        ] {
            store::write(&dir.path().join(path), content.as_bytes()).unwrap();
        }
        Kernel { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, identity: &str) -> Result<ObjectTree, TreeError> {
        let recipe = Recipe {
            release: "6.1.0-test".into(),
            arch: "x86".into(),
            source: self.path("src"),
            origin: Origin::Headers(self.path("headers")),
            compiler: "gcc".into(),
            host_compiler: "gcc".into(),
            variables: BTreeMap::new(),
            root: Root::Host,
            identity: identity.into(),
        };
        ObjectTree::open(&self.path("tree"), recipe)
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("tree/runs")).map_or(0, |text| text.lines().count())
    }
}

fn units(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn kbuild_runs_once_per_unit_and_the_shipped_build_identity_stays() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let tree = kernel.open("1").unwrap();
    assert_eq!(fs::read_to_string(kernel.path("tree/prepared")).unwrap(), "6.1.0-test x86\n");
    let asked = units(&["init/main.c", "net/proto.c", "fs/broken.c", "fs/none.c"]);
    let commands = tree.commands(&asked).unwrap();
    assert!(
        matches!(&commands[Path::new("init/main.c")], UnitCommand::Known(saved) if !saved.compile().unwrap().is_module())
    );
    assert!(
        matches!(&commands[Path::new("net/proto.c")], UnitCommand::Known(saved) if saved.compile().unwrap().is_module())
    );
    let UnitCommand::Failed { module: false, diagnostics } = &commands[Path::new("fs/broken.c")] else {
        panic!("{commands:?}")
    };
    assert!(diagnostics.contains("broken.c:1") && !diagnostics.contains("make"), "{diagnostics}");
    assert_eq!(commands[Path::new("fs/none.c")], UnitCommand::NotBuilt);
    assert!(tree.object(Path::new("init/main.c")).is_file());
    assert_eq!(kernel.runs(), 4);
    assert_eq!(fs::read_to_string(kernel.path("tree/include/generated/compile.h")).unwrap(), "shipped\n");

    // Another run of the tool, after one that was killed while kbuild worked.
    fs::write(kernel.path("tree/include/generated/compile.h"), "ours").unwrap();
    let tree = kernel.open("1").unwrap();
    assert_eq!(fs::read_to_string(kernel.path("tree/include/generated/compile.h")).unwrap(), "shipped\n");
    let again = tree.commands(&asked[..2]).unwrap();
    assert_eq!(again[Path::new("net/proto.c")], commands[Path::new("net/proto.c")]);
    assert_eq!(kernel.runs(), 4, "what is known is not asked again");

    kernel.open("2").unwrap();
    assert_eq!(kernel.runs(), 0, "another identity is another tree");
}

#[test]
fn what_a_killed_run_left_is_not_taken_for_an_answer() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let tree = kernel.open("1").unwrap();
    store::write(&kernel.path("tree/fs/.none.o.cmd"), b"cmd_fs/none.o := gcc -c -o fs/none.o none.c\n")
        .unwrap();
    store::write(&kernel.path("tree/fs/none.o"), b"half").unwrap();
    let commands = tree.commands(&units(&["fs/none.c"])).unwrap();
    assert_eq!(commands[Path::new("fs/none.c")], UnitCommand::NotBuilt);
    // No stamp: the tree is made anew.
    fs::remove_file(kernel.path("tree.stamp")).unwrap();
    fs::write(kernel.path("tree/half"), "").unwrap();
    kernel.open("1").unwrap();
    assert!(!kernel.path("tree/half").exists());
}

#[test]
fn source_that_does_not_belong_to_the_headers_is_refused() {
    let kernel = Kernel::new("#define OFFSET 16\n");
    let Err(TreeError::NotReproduced { files }) = kernel.open("1") else { panic!("not seen") };
    assert_eq!(files, [Path::new("include/generated/asm-offsets.h")]);
    assert!(!kernel.path("tree.stamp").exists());
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let tree = kernel.open("1").unwrap();
    for path in ["../a.c", "/etc/a.c", "fs/../../a.c", ""] {
        assert!(matches!(tree.commands(&units(&[path])), Err(TreeError::NoUnit { .. })), "{path}");
    }
}

#[test]
fn units_are_located_by_the_shipped_kernel() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let tree = kernel.open("1").unwrap();
    let status = std::process::Command::new("gcc")
        .args(["-g", "-nostdlib", "-static", "-Wl,-e,main", "-o", "../vmlinux", "init/main.c"])
        .current_dir(kernel.path("src"))
        .status()
        .unwrap();
    assert!(status.success());
    let list = UnitList::from_elf(&fs::read(kernel.path("vmlinux")).unwrap()).unwrap();
    let asked = units(&["init/main.c", "net/proto.c", "fs/broken.c", "arch/x86/kernel/entry.S"]);
    let located = locate(&tree, &list, &|module| module == "proto", &asked).unwrap();
    let home = |unit: &str| located[Path::new(unit)].as_ref().map(|unit| unit.home.clone());
    assert_eq!(home("init/main.c"), Ok(Home::Vmlinux));
    assert_eq!(home("net/proto.c"), Ok(Home::Modules(vec!["proto".into()])));
    assert_eq!(home("arch/x86/kernel/entry.S"), Err(&Unpatchable::Assembly));
    assert_eq!(
        home("fs/broken.c"),
        Err(&Unpatchable::NotConfigured { option: Some("BROKEN".into()) }),
        "no option, no command: that it does not compile does not matter"
    );
}
