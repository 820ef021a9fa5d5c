//! The kernel's units that can see a changed file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::UnitList;
use crate::include_graph::IncludeGraph;
use crate::object_tree::{ModuleObjects, ObjectTree, TreeError};

/// What is known of the readers of changed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Units of this kernel that can see a changed file, by the textual graph.
    pub units: BTreeSet<PathBuf>,
    /// All files of the tree that can, headers too, and the changed files themselves.
    pub files: BTreeSet<PathBuf>,
    /// How many sources of the tree can, whether or not this kernel compiles them.
    pub considered: usize,
    /// Changed files that nothing in the tree can see.
    pub unseen: BTreeSet<PathBuf>,
}

/// Finds the units of the kernel that can see the changed files: headers, or sources that others include. A changed
/// unit sees itself. Where the members of modules cannot be had from kbuild, every source that may be part of one
/// is named; [`super::locate`] tells.
pub fn readers(
    tree: &ObjectTree,
    graph: &IncludeGraph,
    vmlinux: &UnitList,
    changed: &[PathBuf],
) -> Result<Readers, TreeError> {
    let mut readers = Readers::default();
    let mut all = BTreeSet::new();
    for file in changed {
        let mut affected = graph.affected([file.as_path()]);
        if affected.units.is_empty() {
            readers.unseen.insert(file.clone());
        }
        all.append(&mut affected.units);
        readers.files.append(&mut affected.files);
    }
    readers.considered = all.len();
    // Makefiles need to be asked only if anything may be outside of vmlinux.
    let modules = if all.iter().all(|unit| vmlinux.contains(unit)) { None } else { tree.module_objects()? };
    readers.units = restrict(all, vmlinux, modules.as_ref());
    Ok(readers)
}

fn restrict(
    units: BTreeSet<PathBuf>,
    vmlinux: &UnitList,
    modules: Option<&ModuleObjects>,
) -> BTreeSet<PathBuf> {
    let objects = modules.map(ModuleObjects::objects);
    let in_module = |unit: &Path| match &objects {
        Some(objects) => objects.contains(&unit.with_extension("o")),
        None => true,
    };
    units.into_iter().filter(|unit| vmlinux.contains(unit) || in_module(unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn only_units_of_this_kernel_are_named() {
        let vmlinux = UnitList::from_text("fs/exec.c\ninit/main.c\n");
        let modules = ModuleObjects::from_text("net/a\tnet/../lib/shared.o\tnet/a.o\n");
        let all = paths(&["fs/exec.c", "lib/shared.c", "lib/other.c", "net/a.c"]);
        assert_eq!(
            restrict(all.clone(), &vmlinux, Some(&modules)),
            paths(&["fs/exec.c", "lib/shared.c", "net/a.c"])
        );
        assert_eq!(restrict(all.clone(), &vmlinux, None), all);
    }
}
