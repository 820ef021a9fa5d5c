//! Where the kernel's compiler and kbuild run: on the host where it has them, else in a root file system of the suite that
//! the kernel is from, made with mmdebstrap into the cache.
//!
//! A root is shared by all kernels that need the same packages of the same suite. It holds compilers and libraries only:
//! sources, headers and build directories are the cache's, seen inside at the same path.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;
use kbuild::root::Root;

use crate::compiler::{self, Compiler};
use crate::deb::apt;
use crate::deb::index::Package;
use crate::deb::sources::{HostSources, Suite, base_suite};
use crate::deb::version;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::run::{Program, tail};
use crate::settings::{BuildRootChoice, Settings};
use crate::store::{Store, create_dir_all};

/// Raised when roots made before must not be used any more.
const FORMAT: u32 = 1;

/// What kbuild and the kernel's tools are built and run with, besides the compiler.
const TOOLS: [&str; 14] = [
    "bc",
    "bison",
    "cpio",
    "flex",
    "kmod",
    "libc6-dev",
    "libdw-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "perl",
    "python3-minimal",
    "xz-utils",
    "zlib1g-dev",
];

/// Nothing there takes part in a build, and leaving it out saves a third of the files.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// Chooses the root and the compiler in it. `origin` is the suite the kernel is from and its kbuild package.
pub(crate) fn choose(
    wanted: &str,
    origin: Option<(&str, &Package)>,
    settings: &Settings,
    store: &Store,
    events: Events,
) -> Result<(Root, Compiler)> {
    let chooser = Chooser { wanted, origin, settings, store, events };
    match &settings.build_root {
        BuildRootChoice::None => chooser.accept(Root::Host, "the host"),
        BuildRootChoice::Dir(dir) => {
            let dir = fs::canonicalize(dir)
                .map_err(|error| Error::BuildRoot { path: dir.clone(), reason: error.to_string() })?;
            let place = format!("build root {}", dir.display());
            chooser.accept(Root::in_dir(dir, [store.root().to_owned()]), &place)
        }
        BuildRootChoice::Auto => chooser.automatic(),
    }
}

struct Chooser<'a> {
    wanted: &'a str,
    origin: Option<(&'a str, &'a Package)>,
    settings: &'a Settings,
    store: &'a Store,
    events: Events<'a>,
}

impl Chooser<'_> {
    /// The host if it can do it, else a root of the kernel's suite, else whatever the host has and the user allows.
    fn automatic(&self) -> Result<(Root, Compiler)> {
        if self.host_runs_kbuild() {
            let on_host = compiler::find(self.wanted, &Root::Host);
            if on_host.is_some_and(|compiler| compiler.exact || self.settings.allow_other_compiler) {
                return self.accept(Root::Host, "the host");
            }
        }
        let (Some(package), Some((suite, kbuild))) = (compiler::package(self.wanted), self.origin) else {
            return self.accept(Root::Host, "the host");
        };
        let base = base_suite(suite);
        let dir = self.make(base, &package, kbuild)?;
        self.accept(Root::in_dir(dir, [self.store.root().to_owned()]), &format!("suite {base}"))
    }

    /// The compiler in a root; one of another version only where the user allows it.
    fn accept(&self, root: Root, place: &str) -> Result<(Root, Compiler)> {
        match compiler::find(self.wanted, &root) {
            Some(compiler) if compiler.exact => Ok((root, compiler)),
            Some(compiler) if self.settings.allow_other_compiler => {
                let message = format!(
                    "the kernel was built with `{}`; `{}` is used instead",
                    self.wanted, compiler.version_text
                );
                (self.events)(Event::Warning { message });
                Ok((root, compiler))
            }
            other => Err(Error::CompilerNotFound {
                wanted: self.wanted.to_owned(),
                found: compiler::describe(self.wanted, other.as_ref(), place),
            }),
        }
    }

    /// Whether kbuild's programs, which are in a package of the kernel's suite, find the C library they need.
    fn host_runs_kbuild(&self) -> bool {
        let libc = self.origin.and_then(|(_, kbuild)| kbuild.dependencies().find(|d| d.name == "libc6"));
        let Some((relation, wanted)) = libc.and_then(|libc| libc.constraint.as_ref()) else { return true };
        let query = Program::new("dpkg-query", "dpkg", "learn the version of the C library");
        let Ok(found) = query.args(["-W", "-f", "${Version}\n", "libc6"]).run() else { return true };
        let found = String::from_utf8_lossy(&found);
        found.lines().next().is_some_and(|found| version::satisfies(found, relation, wanted))
    }

    /// The root of a suite with the compiler's package, made if it is not there.
    fn make(&self, base: &str, compiler: &str, kbuild: &Package) -> Result<PathBuf> {
        let packages = packages(compiler, kbuild);
        let source = HostSources::read(Path::new("/")).suite(base, self.settings)?;
        let architecture = crate::deb::architecture(self.settings)?;
        let stamp = format!("build root {FORMAT}\n{base} {architecture}\n{}\n", packages.join(" "));
        let hash = blake3::hash(stamp.as_bytes()).to_hex();
        let entry =
            self.store.path("roots").join(format!("{base}_{architecture}_{compiler}_{}", &hash[..12]));
        self.store.directory(&entry, &stamp, self.events, |new| {
            if self.settings.offline {
                return Err(Error::Offline {
                    what: format!("a build root of suite {base} with {}", self.wanted),
                });
            }
            (self.events)(Event::MakingBuildRoot { suite: base.to_owned(), path: entry.clone() });
            let fail = |reason| Error::BuildRoot { path: entry.clone(), reason };
            bootstrap(&source, &packages, &architecture, new, fail)
        })
    }
}

/// Packages of a root, sorted: tools, compiler, and what kbuild's programs need beyond the libraries that come with the
/// tools, so that kernels of one suite share a root.
fn packages(compiler: &str, kbuild: &Package) -> Vec<String> {
    let mut packages: BTreeSet<String> = TOOLS.iter().map(|&name| name.to_owned()).collect();
    packages.insert(compiler.to_owned());
    if let Some(version) = compiler.strip_prefix("clang-") {
        packages.extend([format!("lld-{version}"), format!("llvm-{version}")]);
    }
    // The first alternative is what Debian builds with; other kernel packages are unpacked into the cache instead.
    let needed = kbuild.depends.iter().filter_map(|group| group.first()).map(|d| d.name.as_str());
    let needed = needed.filter(|name| !name.starts_with("linux-") && !is_library_of_tools(name));
    packages.extend(needed.map(str::to_owned));
    packages.into_iter().collect()
}

/// Whether a package is the library of one of the tools' development packages: `libelf1t64` of `libelf-dev`.
fn is_library_of_tools(package: &str) -> bool {
    let stem = |name: &str| name.split(|c: char| c == '-' || c.is_ascii_digit()).next().map(str::to_owned);
    TOOLS.iter().filter(|tool| tool.ends_with("-dev")).any(|tool| stem(tool) == stem(package))
}

/// Fills a directory with a root file system.
fn bootstrap(
    source: &Suite,
    packages: &[String],
    architecture: &str,
    into: &Path,
    fail: impl Fn(String) -> Error,
) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let mut program =
        Program::new("mmdebstrap", "mmdebstrap", format!("make a build root of suite {}", source.name))
            .args(["--quiet", "--variant=minbase"])
            .arg(if is_root { "--mode=root" } else { "--mode=unshare" })
            .arg(if is_root { "--format=directory" } else { "--format=tar" })
            .arg(format!("--architectures={architecture}"))
            .arg(format!("--include={}", packages.join(",")))
            .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\""]);
    for setting in apt::mirror_access()?.lines() {
        program = program.arg(format!("--aptopt={setting}"));
    }
    for path in LEFT_OUT {
        program = program.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    let signed = source.signed_by.as_ref().map_or(String::new(), |key| format!("[signed-by={key}] "));
    program = program.arg(&source.name);
    program = if is_root { program.arg(into) } else { program.arg("-") };
    program = program.arg(format!("deb {signed}{} {} main", source.uri, source.name));
    if is_root {
        let output = program.output()?;
        if !output.success {
            return Err(fail(format!("mmdebstrap: {}\n{}", output.status, tail(&output.stderr, 12))));
        }
    } else {
        // Files of a root made in a user namespace belong to ids that the user cannot remove; as a tar archive they
        // become the user's own.
        let spread = Program::new("tar", "tar", "unpack the build root")
            .args(["-x", "--no-same-owner", "--exclude=./dev/*", "-C"])
            .arg(into);
        let pipeline = program.expression().pipe(spread.pipe_expression()).stderr_capture().unchecked().run();
        let output = pipeline.map_err(|error| program.start_error(error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(fail(format!("mmdebstrap: {}\n{}", output.status, tail(&said, 12))));
        }
    }
    for dir in ["proc", "dev", "tmp"] {
        create_dir_all(&into.join(dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::index::Dependency;

    fn kbuild(depends: &[&[&str]]) -> Package {
        let depends = depends
            .iter()
            .map(|group| {
                group.iter().map(|&name| Dependency { name: name.into(), constraint: None }).collect()
            })
            .collect();
        Package {
            name: "linux-kbuild-1".into(),
            version: "1".into(),
            architecture: "amd64".into(),
            suite: "s-backports".into(),
            filename: "pool/k.deb".into(),
            size: 1,
            sha256: "0".repeat(64),
            depends,
        }
    }

    fn settings(dir: &Path, choice: BuildRootChoice) -> Settings {
        Settings { build_root: choice, ..Settings::new(dir) }
    }

    #[test]
    fn packages_of_a_root() {
        let depends: [&[&str]; 5] =
            [&["pahole", "dwarves"], &["linux-x"], &["libelf1t64"], &["zlib1g"], &["libzstd1"]];
        let packages = packages("gcc-14", &kbuild(&depends));
        assert!(packages.is_sorted());
        for name in ["gcc-14", "pahole", "libzstd1", "make"] {
            assert!(packages.iter().any(|package| package == name), "{name}");
        }
        for name in ["dwarves", "linux-x", "libelf1t64", "zlib1g"] {
            assert!(!packages.iter().any(|package| package == name), "{name}");
        }
        assert!(super::packages("clang-19", &kbuild(&[])).contains(&"lld-19".to_owned()));
    }

    #[test]
    fn a_root_of_the_users_must_be_there_and_have_the_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let missing = settings(dir.path(), BuildRootChoice::Dir(dir.path().join("none")));
        let error = choose("gcc-14 (x) 14.2.0", None, &missing, &store, &|_| {}).unwrap_err();
        assert!(matches!(error, Error::BuildRoot { .. }), "{error}");
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let empty = settings(dir.path(), BuildRootChoice::Dir(empty));
        let error = choose("gcc-14 (x) 14.2.0", None, &empty, &store, &|_| {}).unwrap_err();
        assert!(matches!(error, Error::CompilerNotFound { .. }), "{error}");
    }

    #[test]
    fn no_root_is_made_where_none_is_wanted_or_the_network_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kbuild = kbuild(&[]);
        let origin = Some(("bookworm-backports", &kbuild));
        let wanted = "no-such-gcc (Debian 99.1.0-1) 99.1.0";
        let none = settings(dir.path(), BuildRootChoice::None);
        let error = choose(wanted, origin, &none, &store, &|_| {}).unwrap_err();
        assert!(error.to_string().contains("the host has none of"), "{error}");
        let mut offline = settings(dir.path(), BuildRootChoice::Auto);
        offline.offline = true;
        offline.mirror = Some("http://mirror.invalid/debian".into());
        let error = choose(wanted, origin, &offline, &store, &|_| {}).unwrap_err();
        assert!(error.to_string().contains("suite bookworm"), "{error}");
    }
}
