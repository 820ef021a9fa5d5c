//! `cargo xtask corpus make`: patches from the differences between two versions of a source package.
//!
//! One patch folds all that changed in one file between the versions. It applies to the first version; with the newer
//! one first, the patches take fixes back, which serves as well to see what becomes of them.
//!
//! A unit may use what the same release added to a header. A patch takes such headers in by what its new lines say: where
//! they name something that the unit did not name before, and that a header gained.

use crate::error::{Error, Result};
use crate::{builder, kernels};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Leave out files of which this directory has patches already.
    #[arg(long, value_name = "DIR")]
    unlike: Option<PathBuf>,
    /// Where to put them.
    output: PathBuf,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (from, to) = (tree(&arguments.package, &arguments.from)?, tree(&arguments.package, &arguments.to)?);
    let mut settings = kernels::settings();
    settings.suites.extend(arguments.suite.iter().cloned());
    let compiled = Compiled::of(&kernels::resolve(&arguments.release, &settings)?)?;
    let known = |path: &Path| {
        let file = format!("{}.patch", patch_name(path));
        arguments.unlike.as_ref().is_some_and(|directory| directory.join(&file).exists())
    };
    let (mut changed, mut headers) = (Vec::new(), Vec::new());
    for entry in walkdir::WalkDir::new(&to).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::Failed(error.to_string()))?;
        let Ok(path) = entry.path().strip_prefix(&to) else { continue };
        let old = from.join(path);
        let is = |suffix: &str| path.extension().is_some_and(|extension| extension == suffix);
        if !old.is_file() || !(is("h") || is("c") && compiled.has(path) && !known(path)) {
            continue;
        }
        if fs_err::read(&old)? != fs_err::read(entry.path())? {
            if is("h") {
                headers.push((path.to_owned(), gained(&from, &to, path)?));
            } else {
                changed.push(path.to_owned());
            }
        }
    }
    let directory = arguments.output.join("patches");
    fs_err::create_dir_all(&directory)?;
    let chosen = spread(&changed, arguments.count);
    for path in &chosen {
        let mut text = difference(&from, &to, path)?;
        for header in needed(path, &gained(&from, &to, path)?, &headers) {
            text.push_str(&difference(&from, &to, header)?);
        }
        fs_err::write(directory.join(format!("{}.patch", patch_name(path))), text)?;
    }
    println!("{} of {} changed units: {}", chosen.len(), changed.len(), directory.display());
    Ok(())
}

/// The names that a file has in its new version only.
fn gained(from: &Path, to: &Path, path: &Path) -> Result<BTreeSet<String>> {
    let names = |side: &Path| -> Result<BTreeSet<String>> {
        let text = fs_err::read(side.join(path))?;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let words =
            text.split(|byte| !is_part(byte)).filter(|word| word.len() > 2 && !word[0].is_ascii_digit());
        Ok(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    };
    let old = names(from)?;
    Ok(names(to)?.into_iter().filter(|name| !old.contains(name)).collect())
}

/// The headers that gained something that a source gained, too; those of other architectures and of other drivers do not
/// count. What such a header needs of others is left to chance: following that would lead to half of all headers.
fn needed<'h>(
    source: &Path,
    gained: &BTreeSet<String>,
    headers: &'h [(PathBuf, BTreeSet<String>)],
) -> Vec<&'h PathBuf> {
    let directory = source.parent().unwrap_or(Path::new(""));
    let in_reach = |header: &Path| {
        let near = header
            .parent()
            .is_some_and(|parent| directory.starts_with(parent) || parent.starts_with(directory));
        header.starts_with("include") || header.starts_with("arch/x86/include") || near
    };
    let of_use =
        |(header, names): &&(PathBuf, BTreeSet<String>)| in_reach(header) && !names.is_disjoint(gained);
    headers.iter().filter(of_use).map(|(header, _)| header).collect()
}

/// Sources that this kernel compiles, as far as its files tell.
struct Compiled {
    vmlinux: BTreeSet<PathBuf>,
    /// Names of source files, by the directory of the source tree that the module of which they are part is from.
    modules: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl Compiled {
    fn of(kernel: &kernel_artifacts::Kernel) -> Result<Compiled> {
        let vmlinux = fs_err::read(kernels::vmlinux(kernel)?)?;
        let units =
            kbuild::units::UnitList::from_elf(&vmlinux).map_err(|error| Error::Failed(error.to_string()))?;
        let bootable = kernels::bootable(kernel)?;
        let root = bootable.modules.join("kernel");
        let mut modules: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for module in kernels::modules(kernel)? {
            if let Some(directory) = module.parent().and_then(|parent| parent.strip_prefix(&root).ok()) {
                modules.entry(directory.to_owned()).or_default().extend(file_symbols(&module)?);
            }
        }
        Ok(Compiled { vmlinux: units.iter().map(PathBuf::from).collect(), modules })
    }

    fn has(&self, source: &Path) -> bool {
        let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let in_module = |place: &Path| self.modules.get(place).is_some_and(|names| names.contains(&name));
        self.vmlinux.contains(source) || source.ancestors().skip(1).any(in_module)
    }
}

/// The source files that a module's symbol table names.
fn file_symbols(module: &Path) -> Result<Vec<String>> {
    use object::{Object as _, ObjectSymbol as _};
    let bytes = fs_err::read(module)?;
    let file = object::File::parse(&*bytes).map_err(|error| Error::KernelModule {
        name: module.display().to_string(),
        reason: error.to_string(),
    })?;
    let files = file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::File);
    Ok(files.filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect())
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

/// The sources of a version: those that kpatch-build unpacked, else C files and headers from the package.
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
                  tar -xJ --strip-components=1 --wildcards '*.c' '*.h' '*/Makefile'";
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
    fn headers_that_gained_what_a_source_uses_are_needed() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<String>>();
        let headers = [
            (PathBuf::from("include/linux/a.h"), names(&["new_helper", "struct_of_b"])),
            (PathBuf::from("include/linux/b.h"), names(&["struct_of_b"])),
            (PathBuf::from("include/linux/c.h"), names(&["other"])),
            (PathBuf::from("arch/arm/include/asm/d.h"), names(&["new_helper"])),
            (PathBuf::from("fs/x/x.h"), names(&["mine"])),
        ];
        let of = |source: &str, gained: &[&str]| -> Vec<String> {
            let found = needed(Path::new(source), &names(gained), &headers);
            found.into_iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(of("fs/x/f.c", &["new_helper"]), ["include/linux/a.h"]);
        assert_eq!(of("fs/x/f.c", &["mine"]), ["fs/x/x.h"]);
        assert_eq!(of("fs/y/f.c", &["mine"]), [""; 0]);
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
