//! A whole build of the kernel in an object tree, as far as goals name it, and which units it compiled since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{ObjectTree, TreeError, read_command};
use crate::paths;
use crate::store::StoreError;

/// What would be another in each build, and is compiled into one unit.
const SAME_IN_ALL_BUILDS: [&str; 4] = [
    "KBUILD_BUILD_TIMESTAMP=1970-01-01",
    "KBUILD_BUILD_VERSION=1",
    "KBUILD_BUILD_USER=kpatch",
    "KBUILD_BUILD_HOST=build",
];

/// Names of directories in which kbuild compiles programs of the host.
const HOST_DIRECTORIES: [&str; 3] = ["scripts", "tools", "usr"];

impl ObjectTree {
    /// Has kbuild make the goals, and compile what they need and is missing or older than its source.
    pub fn build(&self, goals: &[String], jobs: usize) -> Result<(), TreeError> {
        let _lock = self.item.lock()?;
        let make = self.make().arg("-s").arg(format!("-j{jobs}")).args(SAME_IN_ALL_BUILDS);
        make.args(goals).run().map_err(|source| TreeError::Run { what: "build the whole tree", source })?;
        Ok(())
    }

    /// The objects that were compiled from files of the source tree, with the source of each (a path below it, without
    /// detours), where the object was written after `since`.
    pub fn compiled_since(&self, since: SystemTime) -> Result<BTreeMap<PathBuf, PathBuf>, TreeError> {
        let mut found = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            let path = self.path().join(&directory);
            for entry in std::fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
                let entry = entry.map_err(StoreError::io("list", &path))?;
                let kind = entry.file_type().map_err(StoreError::io("look at", &entry.path()))?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if kind.is_dir() {
                    let is_top = directory.as_os_str().is_empty();
                    if !(is_top && (HOST_DIRECTORIES.contains(&name) || name.starts_with('.'))) {
                        open.push(directory.join(name));
                    }
                    continue;
                }
                let Some(stem) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".o.cmd")) else {
                    continue;
                };
                let object = directory.join(format!("{stem}.o"));
                let written = std::fs::metadata(self.path().join(&object)).and_then(|meta| meta.modified());
                if written.is_ok_and(|written| written > since)
                    && let Some(source) = self.source_of(&entry.path())
                {
                    found.insert(object, source);
                }
            }
        }
        Ok(found)
    }

    /// The source that a saved command compiles, if it is one of the source tree.
    fn source_of(&self, command: &Path) -> Option<PathBuf> {
        // Commands that link, or copy, may be of any form.
        let source = read_command(command).ok()?.source?;
        let source = paths::plain(&self.path().join(source));
        source.strip_prefix(self.source()).ok().map(Path::to_owned)
    }
}
