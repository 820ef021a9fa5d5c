//! Making an object tree.

use std::io;
use std::path::{Path, PathBuf};

use super::{ObjectTree, Origin, TreeError};
use crate::store::StoreError;

/// Generated headers that say who built the kernel and when. kbuild writes its own at every run; the shipped ones
/// are put back, because a few units contain their text.
const BUILD_IDENTITY: [&str; 3] =
    ["include/generated/compile.h", "include/generated/package.h", "include/generated/utsversion.h"];

/// Directories of a headers package that belong to the object tree.
const GENERATED: [&str; 2] = ["include", "arch"];

/// Fills the tree's directory, which does not exist yet.
pub(super) fn prepare(tree: &ObjectTree) -> Result<(), TreeError> {
    let path = tree.path();
    std::fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
    match &tree.recipe().origin {
        Origin::Headers(headers) => {
            from_headers(path, headers)?;
            make(tree, "build the tools that compiling needs", &["prepare"])?;
            restore_identity(tree)?;
            compare(path, headers)
        }
        Origin::Config(config) => {
            copy(config, &path.join(".config"))?;
            make(tree, "bring the configuration up to date", &["olddefconfig"])?;
            make(tree, "prepare the object tree", &["prepare", "modules_prepare"])
        }
    }
}

/// Puts the shipped headers about the kernel's build back after kbuild wrote its own.
pub(super) fn restore_identity(tree: &ObjectTree) -> Result<(), TreeError> {
    let Origin::Headers(headers) = &tree.recipe().origin else { return Ok(()) };
    for name in BUILD_IDENTITY {
        let (shipped, ours) = (headers.join(name), tree.path().join(name));
        match std::fs::read(&shipped) {
            Ok(content) if std::fs::read(&ours).is_ok_and(|ours| ours == content) => {}
            Ok(content) => crate::store::write(&ours, &content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &shipped)(error).into()),
        }
    }
    Ok(())
}

fn make(tree: &ObjectTree, what: &'static str, goals: &[&str]) -> Result<(), TreeError> {
    tree.make().arg("-s").args(goals).run().map_err(|source| TreeError::Run { what, source })?;
    Ok(())
}

fn from_headers(path: &Path, headers: &Path) -> Result<(), TreeError> {
    // The configuration comes first: whatever is derived from it must be newer, or kbuild configures again.
    for file in [".config", "Module.symvers"] {
        copy(&headers.join(file), &path.join(file))?;
    }
    for directory in GENERATED {
        copy_directory(&headers.join(directory), &path.join(directory))?;
    }
    // kbuild wants all of these and configures again where one is missing, as the first is in the package.
    for file in [
        "include/config/auto.conf.cmd",
        "include/config/auto.conf",
        "include/generated/autoconf.h",
        "include/generated/rustc_cfg",
    ] {
        let file = path.join(file);
        let opened = std::fs::File::options().create(true).append(true).open(&file);
        opened
            .and_then(|opened| opened.set_modified(std::time::SystemTime::now()))
            .map_err(StoreError::io("touch", &file))?;
    }
    Ok(())
}

/// Copies a directory; links become what they lead to.
fn copy_directory(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(to).map_err(StoreError::io("create", to))?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        let meta = std::fs::metadata(&from).map_err(StoreError::io("read", &from))?;
        if meta.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            copy(&from, &to)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::copy(from, to).map_err(StoreError::io("copy", from))?;
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
    let error = || StoreError::io("list", directory);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(error())? {
        names.push(entry.map_err(error())?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Every file of the headers package must be in the tree with the same content, now that kbuild ran.
fn compare(path: &Path, headers: &Path) -> Result<(), TreeError> {
    let mut different = Vec::new();
    for directory in GENERATED {
        compare_directory(path, headers, Path::new(directory), &mut different)?;
    }
    for file in [".config", "Module.symvers"] {
        compare_file(path, headers, Path::new(file), &mut different)?;
    }
    if different.is_empty() { Ok(()) } else { Err(TreeError::NotReproduced { files: different }) }
}

fn compare_directory(
    path: &Path,
    headers: &Path,
    below: &Path,
    different: &mut Vec<PathBuf>,
) -> Result<(), StoreError> {
    for name in names(&headers.join(below))? {
        let below = below.join(name);
        let shipped = headers.join(&below);
        let meta = std::fs::metadata(&shipped).map_err(StoreError::io("read", &shipped))?;
        if meta.is_dir() {
            compare_directory(path, headers, &below, different)?;
        } else {
            compare_file(path, headers, &below, different)?;
        }
    }
    Ok(())
}

fn compare_file(
    path: &Path,
    headers: &Path,
    name: &Path,
    different: &mut Vec<PathBuf>,
) -> Result<(), StoreError> {
    let shipped = headers.join(name);
    let shipped = std::fs::read(&shipped).map_err(StoreError::io("read", &shipped))?;
    if std::fs::read(path.join(name)).ok().as_deref() != Some(shipped.as_slice()) {
        different.push(name.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_from_the_package_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (headers, tree) = (dir.path().join("h"), dir.path().join("o"));
        for (file, content) in [
            (".config", "CONFIG_A=y\n"),
            ("Module.symvers", ""),
            ("include/config/auto.conf", "CONFIG_A=y\n"),
            ("include/generated/autoconf.h", "#define CONFIG_A 1\n"),
            ("include/generated/asm-offsets.h", "#define X 8\n"),
            ("arch/x86/include/generated/asm/x.h", ""),
        ] {
            crate::store::write(&headers.join(file), content.as_bytes()).unwrap();
        }
        std::fs::create_dir(&tree).unwrap();
        from_headers(&tree, &headers).unwrap();
        assert!(tree.join("include/config/auto.conf.cmd").exists());
        compare(&tree, &headers).unwrap();
        std::fs::write(tree.join("include/generated/asm-offsets.h"), "#define X 16\n").unwrap();
        std::fs::remove_file(tree.join("arch/x86/include/generated/asm/x.h")).unwrap();
        let Err(TreeError::NotReproduced { files }) = compare(&tree, &headers) else { panic!("not seen") };
        assert_eq!(
            files,
            [Path::new("include/generated/asm-offsets.h"), Path::new("arch/x86/include/generated/asm/x.h")]
        );
    }
}
