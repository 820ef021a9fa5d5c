//! Looking after the cache: `kpatch-build cache list`, `prune` and `verify`.

use std::fmt::Write;
use std::path::Path;

use crate::args::CacheAction;
use crate::cache::{Cache, CacheError};
use crate::error::Error;
use crate::phase::Phase;
use crate::workspace::Workspace;

/// What was found or done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Lines for the user.
    pub text: String,
    /// Something in the cache was damaged.
    pub damaged: bool,
}

/// Parts of the cache by the names of their directories, and what is in them.
const PARTS: [(&str, &str); 6] = [
    ("objects", "compiled objects"),
    ("debs", "packages"),
    ("source", "sources"),
    ("kernels", "kernels"),
    ("roots", "root file systems"),
    ("tmp", "work files"),
];

/// Does it, in the cache in a directory; `limit` is the size that objects may have where the user says none.
pub fn run(action: CacheAction, directory: &Path, limit: u64) -> Result<Done, Error> {
    match action {
        CacheAction::List => list(directory),
        CacheAction::Prune { cache_size } => prune(directory, cache_size.unwrap_or(limit)),
        CacheAction::Verify => verify(directory),
    }
}

fn list(directory: &Path) -> Result<Done, Error> {
    let mut text = format!("{}\n", directory.display());
    for (name, what) in PARTS {
        let (files, bytes) = size(&directory.join(name))?;
        if files > 0 {
            let _ = writeln!(text, "{:>10}  {what}: {files} files in {name}", megabytes(bytes));
        }
    }
    Ok(Done { text, damaged: false })
}

fn prune(directory: &Path, limit: u64) -> Result<Done, Error> {
    let trimmed = open(directory)?.trim(limit).map_err(|error| unusable(&error))?;
    // A new run's directory is only made after those of killed runs were removed.
    Workspace::create(directory, false).map_err(|error| {
        Error::new(Phase::Arguments, "workspace", "there is no place to work in").cause(error)
    })?;
    let text = format!(
        "{} objects removed, {}; at most {} are kept\n",
        trimmed.entries,
        megabytes(trimmed.bytes),
        megabytes(limit)
    );
    Ok(Done { text, damaged: false })
}

fn verify(directory: &Path) -> Result<Done, Error> {
    let cache = open(directory)?;
    let intact = cache.verify().map_err(|error| unusable(&error))?;
    let mut text = String::new();
    let damaged = cache.damaged();
    for path in &damaged {
        let _ = writeln!(text, "{} was damaged and is removed", path.display());
    }
    let _ = writeln!(text, "{intact} objects are intact, {} were damaged", damaged.len());
    Ok(Done { text, damaged: !damaged.is_empty() })
}

fn open(directory: &Path) -> Result<Cache, Error> {
    Cache::open(directory.join("objects")).map_err(|error| unusable(&error))
}

fn unusable(error: &CacheError) -> Error {
    let remedy = error.remedy();
    let out = Error::new(Phase::Arguments, "cache", "the cache cannot be used").cause(error);
    match remedy {
        Some(remedy) => out.remedy(remedy),
        None => out,
    }
}

/// Files below a directory, and their bytes. Links are counted as what they are.
fn size(directory: &Path) -> Result<(u64, u64), Error> {
    let mut sum = (0, 0);
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Another run may have removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io(Phase::Arguments, "list", &directory)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(Phase::Arguments, "list", &directory))?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                sum = (sum.0 + 1, sum.1 + metadata.len());
            }
        }
    }
    Ok(sum)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KeyBuilder;
    use crate::error::Code;

    #[test]
    fn the_cache_is_told_checked_and_cut() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("objects")).unwrap();
        for name in ["a", "b"] {
            cache.put(KeyBuilder::new("test").field("name", name).finish(), &vec![7; 3 << 20]).unwrap();
        }
        let text = list(dir.path()).unwrap().text;
        assert!(text.contains("7 MiB  compiled objects: 2 files in objects\n"), "{text}");
        assert_eq!(verify(dir.path()).unwrap().text, "2 objects are intact, 0 were damaged\n");

        let victim = cache.entries().unwrap().remove(0);
        fs_err::write(&victim, "no object").unwrap();
        let found = verify(dir.path()).unwrap();
        assert!(found.damaged && found.text.starts_with(&victim.display().to_string()), "{}", found.text);
        assert!(found.text.ends_with("1 objects are intact, 1 were damaged\n"), "{}", found.text);
        assert!(!victim.exists() && !verify(dir.path()).unwrap().damaged);

        let killed = dir.path().join("tmp/run-killed");
        fs_err::create_dir_all(&killed).unwrap();
        let pruned = run(CacheAction::Prune { cache_size: Some(0) }, dir.path(), 1 << 30).unwrap();
        assert!(pruned.text.starts_with("1 objects removed, 4 MiB"), "{}", pruned.text);
        assert!(!killed.exists() && cache.entries().unwrap().is_empty());
    }

    #[test]
    fn a_cache_that_cannot_be_used_is_an_error_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs_err::write(&file, "").unwrap();
        for action in [CacheAction::List, CacheAction::Verify, CacheAction::Prune { cache_size: None }] {
            let error = run(action, &file, 0).unwrap_err();
            assert!([Code::IO.as_str(), "cache"].contains(&error.code.as_str()), "{action:?}");
        }
    }
}
