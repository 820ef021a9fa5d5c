//! Prints the units that can see a file: `affected_units SOURCE OBJECT_TREE ARCH CACHE FILE...`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kbuild::include_graph::IncludeGraph;
use kbuild::store::Item;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, tree, arch, cache, changed @ ..] = arguments.as_slice() else {
        return Err("usage: affected_units SOURCE OBJECT_TREE ARCH CACHE FILE...".into());
    };
    let start = Instant::now();
    let item = Item::new(PathBuf::from(cache), source.as_str());
    let graph = IncludeGraph::cached(&item, Path::new(source), Path::new(tree), arch)?;
    eprintln!("{} files: {:?}", graph.len(), start.elapsed());
    for file in changed {
        let start = Instant::now();
        let affected = graph.affected([Path::new(file)]);
        for unit in &affected.units {
            println!("{file}\t{}", unit.display());
        }
        eprintln!("{file}: {} units, {:?}", affected.units.len(), start.elapsed());
    }
    Ok(())
}
