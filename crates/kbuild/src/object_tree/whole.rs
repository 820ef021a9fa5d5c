//! A whole build of the kernel in an object tree, as far as goals name it, and which units it compiled since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{ObjectTree, TreeError, read_command};
use crate::paths;
use crate::root::RunError;
use crate::store::{self, StoreError};

/// Stands in the tree while kbuild works there, and stays when it is killed.
const AT_WORK: &str = ".at-work";

/// What was written so shortly before a build was killed may have been in work. kbuild would take it for done.
const IN_WORK: Duration = Duration::from_mins(1);

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
        let at_work = self.path().join(AT_WORK);
        if at_work.exists() {
            forget_in_work(self.path())?;
        }
        store::write(&at_work, b"")?;
        let make = self.make().arg("-s").arg(format!("-j{jobs}")).args(SAME_IN_ALL_BUILDS);
        let run = make.args(goals).run();
        if !matches!(run, Err(RunError::Interrupted)) {
            // It has ended by itself, and left nothing half done.
            store::remove(&at_work)?;
        }
        run.map(drop).map_err(|source| TreeError::Run { what: "build the whole tree", source })
    }

    /// The objects that were compiled from files of the source tree, with the source of each (a path below it, without
    /// detours), where the object was written after `since`.
    pub fn compiled_since(&self, since: SystemTime) -> Result<BTreeMap<PathBuf, PathBuf>, TreeError> {
        let mut found = BTreeMap::new();
        for (directory, target) in targets(self.path())? {
            let of_host = |top: &str| HOST_DIRECTORIES.contains(&top) || top.starts_with('.');
            let top = directory.components().next().and_then(|top| top.as_os_str().to_str());
            let object = directory.join(&target);
            if top.is_some_and(of_host) || object.extension().is_none_or(|extension| extension != "o") {
                continue;
            }
            if written(&self.path().join(&object)) > Some(since)
                && let Some(source) = self.source_of(&self.path().join(directory).join(command_of(&target)))
            {
                found.insert(object, source);
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

/// All that kbuild has a saved command for below `root`: directories relative to it, and names in them.
fn targets(root: &Path) -> Result<Vec<(PathBuf, String)>, StoreError> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let path = root.join(&directory);
        for entry in std::fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
            let entry = entry.map_err(StoreError::io("list", &path))?;
            let kind = entry.file_type().map_err(StoreError::io("look at", &entry.path()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if kind.is_dir() {
                open.push(directory.join(name));
            } else if let Some(target) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".cmd")) {
                found.push((directory.clone(), target.to_owned()));
            }
        }
    }
    Ok(found)
}

/// The file with the command that made a file.
fn command_of(target: &str) -> String {
    format!(".{target}.cmd")
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

/// Removes what was in work when a build was killed: a file that is cut short is newer than its sources.
fn forget_in_work(root: &Path) -> Result<(), StoreError> {
    let mut pairs = Vec::new();
    for (directory, target) in targets(root)? {
        let [command, target] = [command_of(&target), target].map(|name| root.join(&directory).join(name));
        pairs.push((written(&command).max(written(&target)), [command, target]));
    }
    let last = pairs.iter().filter_map(|(written, _)| *written).max();
    let from = last.and_then(|last| last.checked_sub(IN_WORK));
    for path in pairs.iter().filter(|(written, _)| *written >= from).flat_map(|(_, paths)| paths) {
        store::remove(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_work_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("fs")).unwrap();
        let killed = SystemTime::now();
        for (name, age) in [
            ("fs/old.o", 500),
            ("fs/.old.o.cmd", 500),
            // Compiled again, by the same command.
            ("fs/cut.o", 1),
            ("fs/.cut.o.cmd", 500),
            ("fs/half.o", 100),
            ("fs/.half.o.cmd", 0),
            ("fs/generated.h", 0),
        ] {
            let file = std::fs::File::create(root.path().join(name)).unwrap();
            file.set_modified(killed - Duration::from_secs(age)).unwrap();
        }
        forget_in_work(root.path()).unwrap();
        let left = std::fs::read_dir(root.path().join("fs")).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".old.o.cmd", "generated.h", "old.o"]);
        forget_in_work(tempfile::tempdir().unwrap().path()).unwrap();
    }
}
