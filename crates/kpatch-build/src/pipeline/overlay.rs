//! The patched sources: a directory that holds only what the patches touch, laid over the source tree by
//! the compiler's search order.
//!
//! The source tree itself is never written. A patched file stands at its own path below the overlay. A file
//! that includes it, directly or through others, must be read there too, since `#include "../x.h"` starts at
//! the including file. So every directory of a touched file, or of one that can see it, is a directory here as
//! well, filled with links to all that stands beside; a directory that leads to no such file is one link.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use super::plain;

/// Contents of the files that patches touch, by path below the source tree; `None` where a patch deletes
/// the file.
pub type PatchedFiles = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Patched sources on disk.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
    source: PathBuf,
    /// Directories that are real here, relative to the tree.
    directories: BTreeSet<PathBuf>,
}

impl Overlay {
    /// Writes the patched files below `root`, which must be empty, over the tree `source`. `reaching` are the
    /// paths by which files that can see a touched one are compiled or included: a unit's path may lead through
    /// other directories (`arch/x86/kvm/../../../virt/kvm/kvm_main.c`), which must be real as well.
    ///
    /// An error of the kind `Interrupted` says that the run is to end.
    pub fn create<'p>(
        root: &Path,
        source: &Path,
        files: &'p PatchedFiles,
        reaching: impl IntoIterator<Item = &'p Path>,
    ) -> io::Result<Overlay> {
        let mut directories = BTreeSet::from([PathBuf::new()]);
        for path in files.keys().map(PathBuf::as_path).chain(reaching) {
            let mut directory = PathBuf::new();
            for part in path.parent().unwrap_or(Path::new("")).components() {
                match part {
                    Component::Normal(name) => directory.push(name),
                    Component::ParentDir => {
                        directory.pop();
                    }
                    _ => {}
                }
                directories.insert(directory.clone());
            }
        }
        // `#include "sub/../x.h"` must not leave by a link: what is below a touched header's directory is real too.
        for header in files.keys().filter(|path| path.extension().is_some_and(|e| e == "h")) {
            add_below(source, header.parent().unwrap_or(Path::new("")), &mut directories)?;
        }
        for directory in &directories {
            // A header that all read has thousands of them.
            if kbuild::root::interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            fs::create_dir_all(root.join(directory))?;
            link_entries(root, source, directory, &directories, files)?;
        }
        for (path, contents) in files {
            if let Some(contents) = contents {
                fs::write(root.join(path), contents)?;
            }
        }
        Ok(Overlay { root: root.to_owned(), source: source.to_owned(), directories })
    }

    /// The path of a unit's source: patched if it is touched, else the tree's own.
    pub fn source_of(&self, unit: &Path) -> PathBuf {
        let patched = self.root.join(unit);
        if patched.is_file() { patched } else { self.source.join(unit) }
    }

    /// The directory to be searched before one of the command line's `-I`, if it is a real one here.
    ///
    /// Each stands right before its own: in front of all, the patched `include/uapi/linux` would hide
    /// `include/linux`, whose files of the same names include those of `uapi`.
    pub fn directory_before(&self, searched: &Path) -> Option<PathBuf> {
        let searched = plain(searched);
        let relative = searched.strip_prefix(&self.source).ok()?;
        self.directories.contains(relative).then(|| self.root.join(relative))
    }

    /// The file to be included first in place of one that the command line names (`-include`).
    pub fn first_include(&self, named: &Path) -> Option<PathBuf> {
        let named = plain(named);
        let relative = named.strip_prefix(&self.source).ok()?;
        self.directories.contains(relative.parent()?).then(|| self.root.join(relative))
    }

    /// Compiler options that lead from the overlay to the rest of the tree, for one unit.
    pub fn options(&self, unit: &Path) -> Vec<String> {
        let parent = unit.parent().unwrap_or(Path::new(""));
        vec![
            format!("-iquote{}", self.source.join(parent).display()),
            // __FILE__ and the line tables must not tell the trees apart.
            format!("-fmacro-prefix-map={}/=", self.root.display()),
        ]
    }

    /// The overlay's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Turns a path below the overlay into one below the source tree.
    pub fn to_source<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).or_else(|_| path.strip_prefix(&self.source)).unwrap_or(path)
    }
}

/// Adds a directory of the tree with all below it.
fn add_below(source: &Path, directory: &Path, directories: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let from = source.join(directory);
    if from.is_dir() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                add_below(source, &directory.join(entry.file_name()), directories)?;
            }
        }
    }
    directories.insert(directory.to_owned());
    Ok(())
}

/// Fills a directory of the overlay with links to what the tree has there, except real directories and touched
/// files.
fn link_entries(
    root: &Path,
    source: &Path,
    directory: &Path,
    directories: &BTreeSet<PathBuf>,
    files: &PatchedFiles,
) -> io::Result<()> {
    let from = source.join(directory);
    // A patch may create a directory.
    if !from.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        let relative = directory.join(entry.file_name());
        if !directories.contains(&relative) && !files.contains_key(&relative) {
            std::os::unix::fs::symlink(entry.path(), root.join(&relative))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("fs/x/a.c", "#include \"outer.h\"\nint a = VALUE;\n"),
            ("fs/x/outer.h", "#include \"inner.h\"\n"),
            ("fs/x/inner.h", "#define VALUE 1\n"),
            ("include/linux/k.h", "#include \"sub/../leaf.h\"\n"),
            ("include/linux/leaf.h", "#define VALUE 1\n"),
            ("include/linux/sub/s.h", ""),
            ("fs/b.c", "#include <linux/k.h>\nint b = VALUE; const char *f = __FILE__;\n"),
        ] {
            let path = dir.path().join("src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn preprocess(dir: &Path, unit: &str, touched: &str, reaching: &[&str]) -> String {
        let source = dir.join("src");
        let files = PatchedFiles::from([(PathBuf::from(touched), Some(b"#define VALUE 2\n".to_vec()))]);
        let root = dir.join("patched");
        let overlay = Overlay::create(&root, &source, &files, reaching.iter().map(Path::new)).unwrap();
        let unit = Path::new(unit);
        let output = std::process::Command::new("gcc-12")
            .args(["-E", "-P", "-nostdinc"])
            .args(overlay.options(unit))
            .args(overlay.directory_before(&source.join("include")).map(|d| format!("-I{}", d.display())))
            .arg(format!("-I{}", source.join("include").display()))
            .arg(format!("-fmacro-prefix-map={}/=", source.display()))
            .arg(overlay.source_of(unit))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_touched_header_is_found_through_an_untouched_neighbour() {
        let dir = tree();
        // The unit itself is touched too, as it would be in a patch.
        fs::write(dir.path().join("src/fs/x/a.c"), "#include \"outer.h\"\nint a = VALUE;\n").unwrap();
        let source = dir.path().join("src");
        let files = PatchedFiles::from([
            ("fs/x/inner.h".into(), Some(b"#define VALUE 2\n".to_vec())),
            ("fs/x/a.c".into(), Some(b"#include \"outer.h\"\nint a = VALUE;\n".to_vec())),
        ]);
        let overlay = Overlay::create(&dir.path().join("patched"), &source, &files, []).unwrap();
        let output = std::process::Command::new("gcc-12")
            .args(["-E", "-P"])
            .args(overlay.options(Path::new("fs/x/a.c")))
            .arg(overlay.source_of(Path::new("fs/x/a.c")))
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("int a = 2;"));
    }

    #[test]
    fn a_touched_global_header_is_found_by_search_path_and_dot_dot() {
        let dir = tree();
        let text = preprocess(dir.path(), "fs/b.c", "include/linux/leaf.h", &["include/linux/k.h", "fs/b.c"]);
        assert!(text.contains("int b = 2;"), "{text}");
        assert!(text.contains("\"fs/b.c\""), "{text}");
    }

    #[test]
    fn patched_directories_keep_the_order_of_the_search() {
        let dir = tree();
        let source = dir.path().join("src");
        let files = PatchedFiles::from([("include/uapi/linux/x.h".into(), Some(Vec::new()))]);
        let overlay = Overlay::create(&dir.path().join("patched"), &source, &files, []).unwrap();
        let words = ["gcc", "-I/src/include", "-I", "/src/fs/../include/uapi", "-c", "-o", "a.o", "a.c"]
            .map(|word| word.replace("/src", &source.to_string_lossy()));
        let command = kbuild::command::CompileCommand::from_words(&words).unwrap();
        let command = command.with_directories_before(|directory| overlay.directory_before(directory));
        let searched: Vec<String> = command
            .include_directories()
            .map(|d| d.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(
            searched,
            ["patched/include", "src/include", "patched/include/uapi", "src/fs/../include/uapi"]
        );
    }

    #[test]
    fn an_untouched_unit_reads_a_touched_file_of_another_directory() {
        let dir = tree();
        let source = dir.path().join("src");
        for (path, text) in [
            ("net/a/unit.c", "#include \"../b/part.c\"\n#include \"beside.h\"\n#include \"../c/far.h\"\n"),
            ("net/a/beside.h", "int beside;\n"),
            ("net/b/part.c", "int part = 1;\n"),
            ("net/c/far.h", "int far;\n"),
        ] {
            fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
            fs::write(source.join(path), text).unwrap();
        }
        let text = preprocess(dir.path(), "net/a/unit.c", "net/b/part.c", &["net/a/unit.c"]);
        assert!(text.contains("VALUE 2") || !text.contains("int part"), "{text}");
        assert!(text.contains("int beside;") && text.contains("int far;"), "{text}");
        // By the path of a makefile that leads through another directory.
        fs::remove_dir_all(dir.path().join("patched")).unwrap();
        let unit = "net/c/../a/unit.c";
        let text = preprocess(dir.path(), unit, "net/b/part.c", &[unit]);
        assert!(!text.contains("int part") && text.contains("int far;"), "{text}");
    }

    #[test]
    fn a_deleted_file_does_not_shine_through() {
        let dir = tree();
        let source = dir.path().join("src");
        let files = PatchedFiles::from([("include/linux/leaf.h".into(), None)]);
        let overlay = Overlay::create(&dir.path().join("patched"), &source, &files, []).unwrap();
        assert!(!overlay.root().join("include/linux/leaf.h").exists());
        assert!(overlay.root().join("include/linux/k.h").exists());
    }
}
