//! Tells where the code of units is: `locate_units TREE SOURCE HEADERS RELEASE COMPILER VMLINUX UNIT...`
//!
//! `HEADERS` may be a configuration file instead; the variable `BUILD_ROOT` names a root file system to work in,
//! `MODULES` a list of the kernel's module files.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use kbuild::object_tree::{ObjectTree, Origin, Recipe};
use kbuild::root::Root;
use kbuild::units::{UnitList, locate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("missing argument: {what}"));
    let path = PathBuf::from(next("TREE")?);
    let source = PathBuf::from(next("SOURCE")?);
    let headers = PathBuf::from(next("HEADERS")?);
    let origin = if headers.is_dir() { Origin::Headers(headers) } else { Origin::Config(headers) };
    let release = next("RELEASE")?;
    let compiler = next("COMPILER")?;
    let vmlinux = std::fs::read(next("VMLINUX")?)?;
    let root = std::env::var_os("BUILD_ROOT").map_or(Root::Host, |dir| Root::in_dir(dir, []));
    let recipe = Recipe {
        release,
        arch: "x86".to_owned(),
        source,
        origin,
        host_compiler: compiler.clone(),
        compiler,
        variables: BTreeMap::new(),
        root,
        identity: String::new(),
    };
    let start = Instant::now();
    let tree = ObjectTree::open(&path, recipe)?;
    let modules = std::env::var_os("MODULES").map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let tree = tree.with_modules(modules.lines());
    println!("object tree: {:?}; configuration drift {:?}", start.elapsed(), tree.config_drift()?);
    let start = Instant::now();
    let list = UnitList::from_elf(&vmlinux)?;
    println!("{} units in vmlinux: {:?}", list.len(), start.elapsed());
    let start = Instant::now();
    let units: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let located = locate(&tree, &list, &|_| true, &units)?;
    println!("{} units located: {:?}", located.len(), start.elapsed());
    for (path, outcome) in located {
        match outcome {
            Ok(unit) => {
                let objtool = unit.command.objtool().map(|words| words.join(" "));
                println!("{}: {:?}, objtool {objtool:?}", unit.spelled.display(), unit.home);
            }
            Err(reason) => println!("{}: {reason}", path.display()),
        }
    }
    Ok(())
}
