//! `cargo xtask dist`: packages of the tools, as deb and rpm, and a proof that they install.

use crate::error::{Error, Result};
use crate::{programs, tools};
use kpatch_package::{Needs, Package, PackageError, Scripts, deb, rpm};
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the packages go.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Install the packages with apt and with rpm in new root file systems of these suites, and run what is installed.
    #[arg(long, value_name = "SUITE", num_args = 0.., default_missing_values = ["bookworm", "trixie"])]
    check: Vec<String>,
}

/// Number of the packaging.
const RELEASE: &str = "1";

/// What kpatch-build calls. The kernel's own programs are built of its kbuild package.
const BUILD_NEEDS: [&str; 15] = [
    "libc6 (>= 2.36)",
    "gcc",
    "make",
    "flex",
    "bison",
    "bc",
    "perl",
    "libelf-dev",
    "libssl-dev",
    "dwarves",
    "dpkg",
    "cpio",
    "xz-utils",
    "zstd",
    "ca-certificates",
];

/// The same in the rpm world.
const BUILD_NEEDS_RPM: [&str; 10] =
    ["gcc", "make", "flex", "bison", "bc", "perl", "elfutils-libelf-devel", "openssl-devel", "dwarves", "xz"];

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.clone().unwrap_or_else(|| crate::target_directory().join("dist"));
    fs_err::create_dir_all(&output)?;
    let (mut debs, mut rpms) = (Vec::new(), Vec::new());
    for package in [kpatch()?, kpatch_build()?] {
        debs.push(write_deb(&package, &output)?);
        rpms.push(write_rpm(&package, &output)?);
    }
    for file in debs.iter().chain(&rpms) {
        println!("{}", file.display());
    }
    for suite in &arguments.check {
        check(suite, &debs, &rpms)?;
        println!("{suite}: apt and rpm install and remove the packages, and the programs run");
    }
    Ok(())
}

/// Writes a package into a directory, as deb.
pub(crate) fn write_deb(package: &Package, directory: &Path) -> Result<PathBuf> {
    let bytes = deb::write(package).map_err(|error| failed(package, &error))?;
    let path = directory.join(deb::file_name(package));
    fs_err::write(&path, bytes)?;
    Ok(path)
}

/// Writes a package into a directory, as rpm.
pub(crate) fn write_rpm(package: &Package, directory: &Path) -> Result<PathBuf> {
    let bytes = rpm::write(package).map_err(|error| failed(package, &error))?;
    let path = directory.join(rpm::file_name(package));
    fs_err::write(&path, bytes)?;
    Ok(path)
}

fn failed(package: &Package, error: &PackageError) -> Error {
    Error::Failed(format!("{}: {error}", package.name))
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Adds a file of the checkout.
fn add(package: &mut Package, from: &str, to: &str) -> Result<()> {
    package.add(to, 0o644, fs_err::read(crate::workspace_root().join(from))?);
    Ok(())
}

fn add_completions(package: &mut Package, program: &str) -> Result<()> {
    for (from, to) in [
        (format!("{program}.bash"), format!("bash-completion/completions/{program}")),
        (format!("_{program}"), format!("zsh/vendor-completions/_{program}")),
        (format!("{program}.fish"), format!("fish/vendor_completions.d/{program}.fish")),
    ] {
        add(package, &format!("tools/completions/{from}"), &format!("/usr/share/{to}"))?;
    }
    Ok(())
}

/// The package that a patched machine has. It needs nothing: kpatch must run before anything else does.
pub(crate) fn kpatch() -> Result<Package> {
    let mut package = Package {
        name: "kpatch".to_owned(),
        version: version().to_owned(),
        release: RELEASE.to_owned(),
        machine: Some("x86_64".to_owned()),
        summary: "Load, keep and list live patches of the kernel".to_owned(),
        description: "kpatch loads livepatch modules into the running kernel, at boot as well, after it has\n\
                      checked that they belong there, and tells what is patched."
            .to_owned(),
        scripts: Scripts {
            installed: Some(
                "if [ -d /run/systemd/system ]; then systemctl daemon-reload || :; fi\n\
                 if command -v systemctl >/dev/null; then systemctl --quiet enable kpatch.service || :; fi\n\
                 exit 0\n"
                    .to_owned(),
            ),
            removing: Some(
                "if command -v systemctl >/dev/null; then systemctl --quiet disable kpatch.service || :; fi\n\
                 exit 0\n"
                    .to_owned(),
            ),
            removed: None,
        },
        ..Package::default()
    };
    package.add("/usr/sbin/kpatch", 0o755, fs_err::read(programs::kpatch()?)?);
    add(&mut package, "tools/systemd/kpatch.service", "/usr/lib/systemd/system/kpatch.service")?;
    add(&mut package, "tools/man/kpatch.8", "/usr/share/man/man8/kpatch.8")?;
    add(&mut package, "docs/kpatch.md", "/usr/share/doc/kpatch/kpatch.md")?;
    add(&mut package, "LICENSE", "/usr/share/doc/kpatch/copyright")?;
    add_completions(&mut package, "kpatch")?;
    Ok(package)
}

fn kpatch_build() -> Result<Package> {
    let directory = programs::compile()?;
    let needs = BUILD_NEEDS.iter().map(|name| Needs::deb(name));
    let needs = needs.chain(BUILD_NEEDS_RPM.iter().map(|name| Needs::rpm(name)));
    let mut package = Package {
        name: "kpatch-build".to_owned(),
        version: version().to_owned(),
        release: RELEASE.to_owned(),
        machine: Some("x86_64".to_owned()),
        summary: "Make live patches of the kernel of source patches".to_owned(),
        description: "kpatch-build turns a source patch into a livepatch module for one kernel release,\n\
                      without building the kernel, and proves that it fits."
            .to_owned(),
        needs: needs.collect(),
        recommends: vec![Needs::deb("mmdebstrap")],
        ..Package::default()
    };
    for name in ["kpatch-build", "create-diff-object"] {
        package.add(format!("/usr/bin/{name}"), 0o755, fs_err::read(directory.join(name))?);
    }
    add(&mut package, "tools/man/kpatch-build.1", "/usr/share/man/man1/kpatch-build.1")?;
    for name in ["errors.md", "patch-author-guide.md"] {
        add(&mut package, &format!("docs/{name}"), &format!("/usr/share/doc/kpatch-build/{name}"))?;
    }
    add(&mut package, "LICENSE", "/usr/share/doc/kpatch-build/copyright")?;
    add_completions(&mut package, "kpatch-build")?;
    Ok(package)
}

fn command(expression: &duct::Expression, name: &str) -> Result<String> {
    let output = expression.stderr_to_stdout().stdout_capture().unchecked().run();
    let failed = |reason: String| Error::Command { command: name.to_owned(), reason };
    let output = output.map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(failed(text)) }
}

/// What is done with the packages in a root file system, in the order of a life: what is installed runs, and goes
/// without a trace. rpm has its own database there, which knows nothing of Debian's packages. Of a script that failed it
/// only warns, so it must not say a word. Its plugin that unshares mounts wants `/` to be one, which a directory that
/// is chrooted into is not (rpm 4.20).
const LIFE: [&str; 16] = [
    "chroot \"$1\" sh -c 'apt-get -qq install --no-install-recommends -y /tmp/*.deb'",
    "chroot \"$1\" kpatch --version",
    "chroot \"$1\" kpatch list",
    "chroot \"$1\" kpatch-build --version",
    "test -e \"$1/usr/lib/systemd/system/kpatch.service\"",
    "chroot \"$1\" dpkg --audit",
    "chroot \"$1\" apt-get -qq purge -y kpatch kpatch-build",
    "test ! -e \"$1/usr/sbin/kpatch\"",
    "chroot \"$1\" apt-get -qq install --no-install-recommends -y rpm",
    "chroot \"$1\" sh -ec 'said=$(rpm --noplugins -i --nodeps /tmp/*.rpm 2>&1); echo \"$said\"; test -z \"$said\"'",
    "chroot \"$1\" rpm -V --nodeps kpatch kpatch-build",
    "chroot \"$1\" kpatch list",
    "chroot \"$1\" kpatch-build --version",
    // Without a change nothing is to be done; the scripts of an upgrade run all the same.
    "chroot \"$1\" sh -ec 'said=$(rpm --noplugins -U --nodeps --replacepkgs /tmp/*.rpm 2>&1); echo \"$said\"; test -z \"$said\"'",
    "chroot \"$1\" rpm --noplugins -e kpatch kpatch-build",
    "test ! -e \"$1/usr/sbin/kpatch\" -a ! -e \"$1/usr/bin/kpatch-build\"",
];

/// Installs packages in a new root file system, runs what is in them, and removes them again.
fn check(suite: &str, debs: &[PathBuf], rpms: &[PathBuf]) -> Result<()> {
    tools::install_missing()?;
    let root = tempfile::Builder::new().prefix("kpatch-dist-").tempdir()?;
    let path = root.path();
    let mut words = vec!["--variant=apt".to_owned(), "--quiet".to_owned()];
    let copies = debs.iter().chain(rpms).map(|file| format!("copy-in {} /tmp", quoted(file)));
    let hooks = copies.chain(LIFE.map(str::to_owned));
    words.extend(hooks.map(|hook| format!("--customize-hook={hook}")));
    words.extend([suite.to_owned(), path.join("root").display().to_string()]);
    command(&duct::cmd("mmdebstrap", words), "mmdebstrap").map(drop)
}

/// A path for mmdebstrap's shell.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_package_is_there() {
        let mut package = Package::default();
        add(&mut package, "tools/systemd/kpatch.service", "/x").unwrap();
        add_completions(&mut package, "kpatch").unwrap();
        add_completions(&mut package, "kpatch-build").unwrap();
        assert_eq!(package.files.len(), 7);
        let unit = String::from_utf8(package.files["/x"].content.clone()).unwrap();
        assert!(unit.contains("ExecStart=/usr/sbin/kpatch load --all\n"));
        assert!(unit.contains("ConditionKernelCommandLine=!kpatch.enable=0\n"));
    }
}
