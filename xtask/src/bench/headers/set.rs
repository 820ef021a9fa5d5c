//! What is built without other patches: `test-patches/bench/set.toml`, which describes itself.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Patches that are built together.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// What the table calls it.
    pub(super) name: String,
    /// In the order in which they are applied.
    pub(super) patches: Vec<PathBuf>,
    /// How often they are built, one after another.
    #[serde(default = "once")]
    pub(super) runs: usize,
    /// Nothing is built; of so many units the compiler's time is measured.
    #[serde(default)]
    pub(super) sample: Option<usize>,
}

fn once() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    entry: Vec<Entry>,
}

impl Entry {
    /// One patch, built once.
    pub(super) fn of(patch: &Path) -> Entry {
        let name = patch.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Entry { name, patches: vec![patch.to_owned()], runs: 1, sample: None }
    }
}

/// The entries whose names contain `only`.
pub(super) fn read(directory: &Path, only: Option<&str>) -> Result<Vec<Entry>> {
    let path = directory.join("set.toml");
    let set: Set = toml::from_str(&fs_err::read_to_string(&path)?)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let mut entries = set.entry;
    entries.retain(|entry| only.is_none_or(|only| entry.name.contains(only)));
    if entries.is_empty() {
        return Err(Error::Usage(format!("{} has no such entry", path.display())));
    }
    for patch in entries.iter_mut().flat_map(|entry| &mut entry.patches) {
        *patch = directory.join(&*patch);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patches_of_the_set_are_there() {
        let directory = crate::workspace_root().join("test-patches/bench");
        let entries = read(&directory, None).unwrap();
        for patch in entries.iter().flat_map(|entry| &entry.patches) {
            assert!(patch.is_file(), "{}", patch.display());
        }
        assert!(entries.iter().all(|entry| entry.runs > 0));
        assert_eq!(read(&directory, Some(&entries[0].name)).unwrap(), entries[..1]);
        assert!(read(&directory, Some("nothing of the kind")).is_err());
    }
}
