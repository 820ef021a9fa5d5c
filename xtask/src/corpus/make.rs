//! `cargo xtask corpus make`: patches from the differences between two versions of a source package.
//!
//! One patch folds all that changed in one file between the versions. It applies to the first version; with the newer
//! one first, the patches take fixes back, which serves as well to see what becomes of them.

use crate::error::{Error, Result};
use crate::{builder, kernels};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Version of the package that the kernel is made of, as in 6.12.117-1~deb12u1.
    from: String,
    /// Version that the patches lead to.
    to: String,
    /// The package with the sources.
    #[arg(long, default_value = "linux-source-6.12")]
    package: String,
    /// The kernel whose units count, as `uname -r` prints it.
    #[arg(long)]
    release: String,
    /// Suite to look for the kernel in, besides the host's own.
    #[arg(long)]
    suite: Vec<String>,
    /// Most patches, evenly spread over all.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Where to put them.
    output: PathBuf,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (from, to) = (tree(&arguments.package, &arguments.from)?, tree(&arguments.package, &arguments.to)?);
    let mut settings = kernels::settings();
    settings.suites.extend(arguments.suite.iter().cloned());
    let compiled = Compiled::of(&kernels::resolve(&arguments.release, &settings)?)?;
    let mut changed = Vec::new();
    for entry in walkdir::WalkDir::new(&to).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::Failed(error.to_string()))?;
        let Ok(path) = entry.path().strip_prefix(&to) else { continue };
        let old = from.join(path);
        if path.extension().is_some_and(|extension| extension == "c")
            && compiled.has(path)
            && old.is_file()
            && fs_err::read(&old)? != fs_err::read(entry.path())?
        {
            changed.push(path.to_owned());
        }
    }
    let directory = arguments.output.join("patches");
    fs_err::create_dir_all(&directory)?;
    let chosen = spread(&changed, arguments.count);
    for path in &chosen {
        let text = difference(&from, &to, path)?;
        fs_err::write(directory.join(format!("{}.patch", patch_name(path))), text)?;
    }
    println!("{} of {} changed units: {}", chosen.len(), changed.len(), directory.display());
    Ok(())
}

/// Sources that this kernel compiles, as far as its files tell.
struct Compiled {
    vmlinux: BTreeSet<PathBuf>,
    /// Directories of the source tree from which modules come.
    modules: BTreeSet<PathBuf>,
}

impl Compiled {
    fn of(kernel: &kernel_artifacts::Kernel) -> Result<Compiled> {
        let vmlinux = fs_err::read(kernels::vmlinux(kernel)?)?;
        let units =
            kbuild::units::UnitList::from_elf(&vmlinux).map_err(|error| Error::Failed(error.to_string()))?;
        let bootable = kernels::bootable(kernel)?;
        let root = bootable.modules.join("kernel");
        let mut modules = BTreeSet::new();
        for entry in walkdir::WalkDir::new(&root) {
            let entry = entry.map_err(|error| Error::Failed(error.to_string()))?;
            let file = entry.path().file_name().map(|name| name.to_string_lossy().into_owned());
            if file.is_some_and(|name| name.contains(".ko"))
                && let Some(parent) = entry.path().parent()
                && let Ok(directory) = parent.strip_prefix(&root)
            {
                modules.insert(directory.to_owned());
            }
        }
        Ok(Compiled { vmlinux: units.iter().map(PathBuf::from).collect(), modules })
    }

    fn has(&self, source: &Path) -> bool {
        self.vmlinux.contains(source) || source.parent().is_some_and(|parent| self.modules.contains(parent))
    }
}

/// At most so many, at equal distances.
fn spread(all: &[PathBuf], most: usize) -> Vec<PathBuf> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|index| all[index * all.len() / most].clone()).collect()
}

/// `fs/ext4/xattr.c` to `fs_ext4_xattr`.
fn patch_name(source: &Path) -> String {
    source.with_extension("").to_string_lossy().replace(['/', '-'], "_")
}

fn difference(from: &Path, to: &Path, path: &Path) -> Result<String> {
    let label = |side: &str| format!("--label={side}/{}", path.display());
    duct::cmd!("diff", "-u", label("a"), label("b"), from.join(path), to.join(path))
        .unchecked()
        .stdout_capture()
        .run()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .map_err(|error| Error::Command { command: "diff".to_owned(), reason: error.to_string() })
}

/// The sources of a version: those that kpatch-build unpacked, else C files from the package.
fn tree(package: &str, version: &str) -> Result<PathBuf> {
    let name = format!("{package}_{version}");
    let known = builder::cache_directory().join("source").join(&name);
    if known.join("Makefile").is_file() {
        return Ok(known);
    }
    let place = crate::target_directory().join("corpus/sources");
    let tree = place.join(&name);
    if tree.join("Makefile").is_file() {
        return Ok(tree);
    }
    fs_err::create_dir_all(&tree)?;
    let run = |words: &[&str], directory: &Path| {
        let failed = |reason: String| Error::Command { command: words.join(" "), reason };
        duct::cmd(words[0], &words[1..]).dir(directory).run().map_err(|error| failed(error.to_string()))
    };
    if package_file(&place, &name)?.is_none() {
        run(&["apt-get", "download", &format!("{package}={version}")], &place)?;
    }
    let file = package_file(&place, &name)?
        .ok_or_else(|| Error::Failed(format!("{package} {version} was not downloaded")))?;
    let file = file.display().to_string();
    let script = "set -e; dpkg-deb --fsys-tarfile \"$0\" | tar -xO --wildcards '*.tar.xz' | \
                  tar -xJ --strip-components=1 --wildcards '*.c' '*/Makefile'";
    run(&["sh", "-c", script, &file], &tree)?;
    Ok(tree)
}

/// The package's file, which apt names by package, version and architecture.
fn package_file(place: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs_err::read_dir(place)? {
        let path = entry?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let package = path.extension().is_some_and(|extension| extension == "deb");
        if package && file.starts_with(&format!("{name}_")) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_spread_evenly() {
        let all: Vec<PathBuf> = (0..10).map(|n| PathBuf::from(n.to_string())).collect();
        assert_eq!(spread(&all, 5), ["0", "2", "4", "6", "8"].map(PathBuf::from));
        assert_eq!(spread(&all, 20).len(), 10);
    }

    #[test]
    fn names_and_differences() {
        assert_eq!(patch_name(Path::new("fs/btrfs/tree-log.c")), "fs_btrfs_tree_log");
        let root = tempfile::tempdir().unwrap();
        for (side, text) in [("o", "a\nb\n"), ("n", "a\nc\n")] {
            fs_err::create_dir_all(root.path().join(side).join("fs")).unwrap();
            fs_err::write(root.path().join(side).join("fs/x.c"), text).unwrap();
        }
        let text = difference(&root.path().join("o"), &root.path().join("n"), Path::new("fs/x.c")).unwrap();
        assert_eq!(text, "--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    }
}
