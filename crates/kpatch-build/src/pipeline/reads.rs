//! What a patched unit may read: files of the kernel and of its compiler, nothing else of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kbuild::command::{CompileCommand, absolute, listed_files};

use super::job::Context;
use super::unit::Unit;
use crate::error::Error;
use crate::phase::Phase;

/// Refuses a unit that has read something else. `rule` is what the compiler wrote about it (`-MD`).
pub fn check(context: &Context<'_>, unit: &Unit, command: &CompileCommand, rule: &str) -> Result<(), Error> {
    let tree = context.tree.path();
    let roots =
        [context.overlay.root(), context.source, tree, context.headers].into_iter().map(Path::to_owned);
    // The compiler's own headers are named on the command line.
    let named = command.include_directories().chain(command.values("-isystem").map(Path::new));
    let named = named.map(|directory| context.root.on_host(&absolute(tree, directory)));
    let allowed: Vec<PathBuf> = roots.chain(named).filter_map(|path| path.canonicalize().ok()).collect();
    let files = listed_files(rule).into_iter().map(|file| context.on_host(Path::new(&file)));
    match first_outside(files, &allowed) {
        None => Ok(()),
        Some(file) => Err(Error::new(
            Phase::Compile,
            "outside-include",
            format!("the patched source reads {}, which is no file of the kernel", file.display()),
        )
        .file(&unit.source)
        .remedy("include files of the source tree only, by paths below it")),
    }
}

/// The first file that is in none of the directories, which have no links in their paths.
fn first_outside(files: impl Iterator<Item = PathBuf>, allowed: &[PathBuf]) -> Option<PathBuf> {
    let mut known: BTreeMap<PathBuf, bool> = BTreeMap::new();
    let mut is_allowed = |file: &Path| {
        let directory = file.parent().unwrap_or(Path::new("/"));
        *known.entry(directory.to_owned()).or_insert_with(|| {
            // `..` behind a link leads elsewhere than it reads.
            directory.canonicalize().is_ok_and(|path| allowed.iter().any(|allowed| path.starts_with(allowed)))
        })
    };
    files.into_iter().find(|file| !is_allowed(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_detours_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for path in ["tree/fs/proc", "tree/include", "elsewhere/deep"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("elsewhere/deep"), root.join("tree/link")).unwrap();
        let outside =
            |file: &str| first_outside([root.join(file)].into_iter(), &[root.join("tree")]).is_some();
        for file in ["tree/fs/a.c", "tree/fs/proc/../../include/a.h", "tree/fs/../../tree/include/a.h"] {
            assert!(!outside(file), "{file}");
        }
        for file in
            ["elsewhere/a.h", "tree/../elsewhere/a.h", "tree/link/a.h", "tree/link/../a.h", "tree/no/a.h"]
        {
            assert!(outside(file), "{file}");
        }
    }
}
