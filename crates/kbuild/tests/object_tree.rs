//! Object trees of a source tree whose makefile does what kbuild's does, on a scale of four files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kbuild::object_tree::{ObjectTree, Origin, Recipe, TreeError, UnitCommand};
use kbuild::root::Root;
use kbuild::store;
use kbuild::units::{Home, UnitList, Unpatchable, locate};

/// `prepare` generates two headers and the tool that saves commands; any `.o` whose source exists is compiled, as by
/// kbuild's pattern rules, one with a generated header. Every compilation is counted.
const MAKEFILE: &str = r#"
MAKEFLAGS += -r
.PHONY: prepare FORCE
Makefile: ;
prepare:
	@echo '#define OFFSET 8' > $(O)/include/generated/asm-offsets.h
	@echo ours > $(O)/include/generated/compile.h
	@echo $(KERNELRELEASE) $(ARCH) > $(O)/prepared
	@mkdir -p $(O)/scripts/basic && echo 'echo "savedcmd_$$2 := $$3"' > $(O)/scripts/basic/fixdep
%.o: %.c FORCE
	@echo $@ >> $(O)/runs
	@echo ours > $(O)/include/generated/compile.h
	@echo "  CC $(if $(findstring net/,$@),[M])     $@"
	@mkdir -p $(O)/$(dir $@)
	@touch $(O)/include/generated/late.h
	@cd $(O); $(CC) -Iinclude/generated $(if $(findstring net/,$@),-DMODULE) -DKBUILD_MODNAME='"$(notdir $*)"' -c -o $@ $(CURDIR)/$*.c && sh scripts/basic/fixdep $*.d $@ '$(CC) -Iinclude/generated $(if $(findstring net/,$@),-DMODULE) -DKBUILD_MODNAME='\''"$(notdir $*)"'\'' -c -o $@ $(CURDIR)/$*.c' > $(dir $@).$(notdir $*).o.cmd
"#;

struct Kernel {
    dir: tempfile::TempDir,
}

impl Kernel {
    fn new(offset: &str) -> Kernel {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("src/Makefile", MAKEFILE),
            ("src/init/main.c", "#include \"config.h\"\nint main(void) { return 0; }\n"),
            ("src/net/proto.c", "int proto;\n"),
            ("src/fs/broken.c", "#include <missing.h>\n"),
            ("src/fs/late.c", "#include <late.h>\n"),
            ("src/init/config.h", ""),
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

    /// What was compiled, in order.
    fn compiled(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("tree/runs")).unwrap_or_default();
        let mut objects: Vec<String> = text.lines().map(str::to_owned).collect();
        objects.sort();
        objects
    }
}

fn units(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn kbuild_is_asked_once_and_the_shipped_build_identity_stays() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let tree = kernel.open("1").unwrap();
    assert_eq!(fs::read_to_string(kernel.path("tree/prepared")).unwrap(), "6.1.0-test x86\n");
    let asked = units(&["init/main.c", "net/proto.c", "fs/late.c", "fs/broken.c", "fs/none.c"]);
    let commands = tree.commands(&asked).unwrap();
    let UnitCommand::Known(main) = &commands[Path::new("init/main.c")] else { panic!("{commands:?}") };
    assert!(!main.compile().unwrap().is_module());
    assert!(
        matches!(&commands[Path::new("net/proto.c")], UnitCommand::Known(saved) if saved.compile().unwrap().is_module())
    );
    assert!(matches!(&commands[Path::new("fs/late.c")], UnitCommand::Known(_)));
    assert_eq!(commands[Path::new("fs/none.c")], UnitCommand::NotBuilt);
    assert_eq!(kernel.compiled(), [""; 0], "kbuild only says what it would do");

    let generated = tree.generate(&units(&["fs/late.c", "fs/broken.c", "fs/none.c"])).unwrap();
    assert!(kernel.path("tree/include/generated/late.h").exists());
    assert!(matches!(&generated[Path::new("fs/late.c")], UnitCommand::Known(_)));
    let UnitCommand::Failed { module: false, diagnostics } = &generated[Path::new("fs/broken.c")] else {
        panic!("{generated:?}")
    };
    assert!(diagnostics.contains("broken.c:1") && !diagnostics.contains("make"), "{diagnostics}");
    assert_eq!(generated[Path::new("fs/none.c")], UnitCommand::NotBuilt);
    let compiled = ["fs/broken.o", "fs/late.o"];
    assert_eq!(kernel.compiled(), compiled);
    assert_eq!(fs::read_to_string(kernel.path("tree/include/generated/compile.h")).unwrap(), "shipped\n");

    // Another run of the tool, after one that was killed while kbuild worked.
    fs::write(kernel.path("tree/include/generated/compile.h"), "ours").unwrap();
    let tree = kernel.open("1").unwrap();
    assert_eq!(fs::read_to_string(kernel.path("tree/include/generated/compile.h")).unwrap(), "shipped\n");
    let again = tree.commands(&asked[..3]).unwrap();
    assert!(again.iter().all(|(unit, command)| *command == commands[unit]));
    assert_eq!(kernel.compiled(), compiled, "what is known is not asked again");

    kernel.open("2").unwrap();
    assert!(kernel.compiled().is_empty(), "another identity is another tree");
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
    assert_eq!(home("net/proto.c"), Ok(Home::Modules("proto".into(), Vec::new())));
    assert_eq!(home("arch/x86/kernel/entry.S"), Err(&Unpatchable::Assembly));
    assert_eq!(
        home("fs/broken.c"),
        Err(&Unpatchable::NotConfigured { option: Some("BROKEN".into()) }),
        "no option, no command: that it does not compile does not matter"
    );
}

#[test]
fn a_hostile_makefile_writes_into_its_tree_only() {
    let kernel = Kernel::new("#define OFFSET 8\n");
    let path = kernel.path("src/Makefile");
    let here = kernel.dir.path().display().to_string();
    let hostile = format!(
        "x := $(shell echo hostile > {here}/outside; echo hostile > {here}/src/init/main.c; rm -f {here}/src/net/proto.c)\n\
         y := $(shell echo hostile > $(O)/inside)\n"
    );
    fs::write(&path, format!("{hostile}{}", fs::read_to_string(&path).unwrap())).unwrap();
    let sources = ["src/init/main.c", "src/net/proto.c"].map(|name| fs::read(kernel.path(name)).unwrap());
    let tree = kernel.open("1").unwrap();
    tree.commands(&units(&["init/main.c"])).unwrap();
    tree.generate(&units(&["init/main.c"])).unwrap();
    assert!(tree.path().join("inside").exists(), "it was run");
    assert!(!kernel.path("outside").exists());
    let after = ["src/init/main.c", "src/net/proto.c"].map(|name| fs::read(kernel.path(name)).unwrap());
    assert_eq!(after, sources);
}
