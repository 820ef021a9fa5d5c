//! Makes an object tree from an unpacked headers package and prints the command lines of units:
//! `unit_commands TREE SOURCE HEADERS RELEASE COMPILER UNIT...`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use kbuild::object_tree::{ObjectTree, Origin, Recipe, UnitCommand};
use kbuild::root::Root;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("missing argument: {what}"));
    let path = PathBuf::from(next("TREE")?);
    let source = PathBuf::from(next("SOURCE")?);
    let headers = PathBuf::from(next("HEADERS")?);
    let origin = if headers.is_dir() { Origin::Headers(headers) } else { Origin::Config(headers) };
    let release = next("RELEASE")?;
    let compiler = next("COMPILER")?;
    let root = match std::env::var_os("BUILD_ROOT") {
        Some(dir) => Root::in_dir(dir, []),
        None => Root::Host,
    };
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
    println!("object tree: {:?}; configuration drift {:?}", start.elapsed(), tree.config_drift()?);
    let start = Instant::now();
    let units: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let commands = tree.commands(&units)?;
    println!("commands: {:?}", start.elapsed());
    for (unit, command) in commands {
        match command {
            UnitCommand::Known(saved) => {
                let compile = saved.compile()?;
                let modules: Vec<&str> = compile.modules().collect();
                println!(
                    "{}: modules {modules:?}, {} files, objtool {:?}",
                    unit.display(),
                    saved.files().count(),
                    saved.objtool().map(|words| words.join(" "))
                );
            }
            UnitCommand::NotBuilt => println!("{}: not built", unit.display()),
            UnitCommand::Failed(output) => println!("{}: failed\n{output}", unit.display()),
        }
    }
    Ok(())
}
