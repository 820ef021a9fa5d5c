//! Paths below a tree, without asking the file system.

use std::path::{Component, Path, PathBuf};

/// The path without `.` and, where a name stands before it, without `..`.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// True for a relative path of something below the directory it starts in.
pub(crate) fn is_below(path: &Path) -> bool {
    let plain = plain(path);
    plain.file_name().is_some() && plain.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_are_taken_out() {
        for (path, expected) in [
            ("./fs/../fs/exec.c", "fs/exec.c"),
            ("arch/x86/kvm/../../../virt/kvm/kvm_main.c", "virt/kvm/kvm_main.c"),
            ("../init/main.c", "../init/main.c"),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(plain(Path::new(path)), Path::new(expected), "{path}");
        }
        assert!(is_below(Path::new("a/../b.c")));
        for path in ["", "/a", "../a", "a/../../b", "a/.."] {
            assert!(!is_below(Path::new(path)), "{path}");
        }
    }
}
