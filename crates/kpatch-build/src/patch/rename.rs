//! Source files that patches rename: they stay what they are to the running kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Action, FileKind, PatchFile, Patched};

/// Puts the new contents of renamed source files under their old names. Only files that stay in their directory and
/// whose both names the patches leave alone otherwise are followed; what becomes of their makefile is judged later.
pub(super) fn follow(patches: &[PatchFile], mut patched: Patched) -> Patched {
    let renames = patches.iter().flat_map(|patch| &patch.files).filter_map(|file| match &file.action {
        Action::Rename(from, to) => Some((from, to)),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    let mut renames: Vec<(&PathBuf, &PathBuf)> = renames.collect();
    // Renamed twice: too much to follow.
    let twice: BTreeSet<&PathBuf> =
        renames.iter().flat_map(|(from, to)| [*from, *to]).filter(|path| !seen.insert(*path)).collect();
    renames.retain(|(from, to)| !twice.contains(from) && !twice.contains(to));
    for (from, to) in renames {
        if is_followed(&patched, from, to)
            && let Some(contents) = patched.files.remove(to)
            && let Some(mut touched) = patched.touched.remove(to)
        {
            touched.created = false;
            patched.files.insert(from.clone(), contents);
            patched.touched.insert(from.clone(), touched);
            patched.renamed.insert(from.clone(), to.clone());
        }
    }
    patched
}

fn is_followed(patched: &Patched, from: &Path, to: &Path) -> bool {
    let is_source = |path| patched.touched.get(path).is_some_and(|touched| touched.kind == FileKind::Source);
    let is_new = patched.touched.get(to).is_some_and(|touched| touched.created);
    let is_gone = patched.files.get(from).is_some_and(Option::is_none);
    let has_contents = patched.files.get(to).is_some_and(Option::is_some);
    is_source(from) && is_source(to) && is_new && is_gone && has_contents && from.parent() == to.parent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow_all(patches: &[&str]) -> Patched {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("fs/sub")).unwrap();
        fs_err::write(dir.path().join("fs/a.c"), "one\n").unwrap();
        let patches: Vec<PatchFile> = patches
            .iter()
            .map(|text| PatchFile {
                path: "x.patch".into(),
                text: text.as_bytes().to_vec(),
                files: crate::patch::parse(text.as_bytes()).unwrap(),
            })
            .collect();
        crate::patch::apply(&patches, dir.path(), 0, &|_| {}).unwrap()
    }

    fn rename(from: &str, to: &str, hunk: &str) -> String {
        format!(
            "diff --git a/{from} b/{to}\nsimilarity index 50%\nrename from {from}\nrename to {to}\n{hunk}"
        )
    }

    #[test]
    fn the_new_contents_stand_under_the_old_name() {
        let edit = "--- a/fs/a.c\n+++ b/fs/b.c\n@@ -1 +1 @@\n-one\n+two\n";
        let patched = follow_all(&[&rename("fs/a.c", "fs/b.c", edit)]);
        assert_eq!(patched.files, [(PathBuf::from("fs/a.c"), Some(b"two\n".to_vec()))].into());
        assert_eq!(patched.renamed, [(PathBuf::from("fs/a.c"), PathBuf::from("fs/b.c"))].into());
        let touched = &patched.touched[Path::new("fs/a.c")];
        assert!(!touched.created && touched.lines == [(1, 1)]);
    }

    #[test]
    fn what_is_more_than_a_name_is_not_followed() {
        let there_and_back = [rename("fs/a.c", "fs/b.c", ""), rename("fs/b.c", "fs/c.c", "")];
        let there_and_back: Vec<&str> = there_and_back.iter().map(String::as_str).collect();
        for patches in [&[rename("fs/a.c", "fs/sub/a.c", "").as_str()][..], &there_and_back] {
            let patched = follow_all(patches);
            assert!(patched.renamed.is_empty(), "{patches:?}");
            assert_eq!(patched.files[Path::new("fs/a.c")], None);
        }
    }
}
