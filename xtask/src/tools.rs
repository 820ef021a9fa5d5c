//! Installs what a chore needs and the machine lacks.

use crate::error::{Error, Result};
use std::path::Path;

/// Something that a package provides.
#[derive(Debug)]
struct Tool {
    /// Program, or path of a file.
    provides: &'static str,
    package: &'static str,
    /// What it is for.
    why: &'static str,
}

const fn tool(provides: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { provides, package, why }
}

/// What kpatch-build and the chores run. The kernel's own programs are built of its kbuild package.
const TOOLS: [Tool; 19] = [
    tool("gcc", "gcc", "compiles kernel code and the kernel's build tools"),
    tool("g++", "g++", "the fuzzer's run time is compiled with it"),
    tool("gcc-12", "gcc-12", "compiled the kernels of Debian 12"),
    tool("make", "make", "runs kbuild"),
    tool("flex", "flex", "kbuild's tools are built with it"),
    tool("bison", "bison", "kbuild's tools are built with it"),
    tool("bc", "bc", "kbuild calls it"),
    tool("perl", "perl", "kbuild calls it"),
    tool("/usr/include/libelf.h", "libelf-dev", "objtool is built with it"),
    tool("/usr/include/openssl/opensslv.h", "libssl-dev", "kbuild's tools are built with it"),
    tool("pahole", "dwarves", "kbuild of kernels from 6.12 on calls it"),
    tool("dpkg-deb", "dpkg", "unpacks kernel packages"),
    tool("xz", "xz-utils", "unpacks kernel sources and modules"),
    tool("zstd", "zstd", "unpacks kernel modules"),
    tool("cpio", "cpio", "a test reads initramfs archives with it"),
    tool("valgrind", "valgrind", "counts instructions"),
    tool("qemu-system-x86_64", "qemu-system-x86", "boots the kernels"),
    tool("busybox", "busybox-static", "is the user space of the guests"),
    tool("mmdebstrap", "mmdebstrap", "makes build roots for kernels of other suites"),
];

/// What the differ's fixtures are compiled with, and its extracts read with, beyond [`TOOLS`].
const FIXTURE_TOOLS: [Tool; 16] = [
    tool("ccache", "ccache", "runs compilers in a test"),
    tool("distccd", "distcc", "runs compilers in a test"),
    tool("openssl", "openssl", "makes keys that sign modules"),
    tool("dpkg-scanpackages", "dpkg-dev", "makes a repository of packages"),
    tool("/usr/sbin/mke2fs", "e2fsprogs", "makes the disks of a whole system"),
    tool("gcc-11", "gcc-11", "compiles fixtures of the differ"),
    tool("clang-14", "clang-14", "compiles fixtures of the differ"),
    tool("clang-16", "clang-16", "compiles fixtures of the differ"),
    tool("clang-19", "clang-19", "compiles fixtures of the differ, for loongarch64 too"),
    tool("ld.lld-19", "lld-19", "links objects for loongarch64, and reads extracts"),
    tool("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu", "reads extracts of its machine in a test"),
    tool(
        "powerpc64le-linux-gnu-ld",
        "binutils-powerpc64le-linux-gnu",
        "reads extracts of its machine in a test",
    ),
    tool("s390x-linux-gnu-ld", "binutils-s390x-linux-gnu", "reads extracts of its machine in a test"),
    tool("aarch64-linux-gnu-gcc-12", "gcc-12-aarch64-linux-gnu", "compiles fixtures of the differ"),
    tool("powerpc64le-linux-gnu-gcc-12", "gcc-12-powerpc64le-linux-gnu", "compiles fixtures of the differ"),
    tool("s390x-linux-gnu-gcc-12", "gcc-12-s390x-linux-gnu", "compiles fixtures of the differ"),
];

impl Tool {
    fn is_there(&self) -> bool {
        if self.provides.starts_with('/') {
            // Multi-arch packages put headers into a directory of the machine.
            let plain = Path::new(self.provides);
            let machine = self.provides.replacen("/usr/include/", "/usr/include/x86_64-linux-gnu/", 1);
            return plain.exists() || Path::new(&machine).exists();
        }
        match which::which(self.provides) {
            // The guest has no libraries; Debian's other busybox needs some.
            Ok(path) if self.provides == "busybox" => is_static(&path),
            found => found.is_ok(),
        }
    }
}

/// Whether a program runs without a dynamic linker.
pub(crate) fn is_static(program: &Path) -> bool {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let Ok(data) = fs_err::read(program) else { return false };
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(data.as_slice()) else {
        return false;
    };
    let Ok(endian) = header.endian() else { return false };
    header
        .program_headers(endian, data.as_slice())
        .is_ok_and(|headers| headers.iter().all(|header| header.p_type(endian) != object::elf::PT_INTERP))
}

/// Installs every missing tool with apt; an error if one cannot be had.
pub(crate) fn install_missing() -> Result<()> {
    install(&TOOLS.iter().collect::<Vec<_>>())
}

/// The same with what only the workspace's tests need.
pub(crate) fn install_missing_for_tests() -> Result<()> {
    install(&TOOLS.iter().chain(&FIXTURE_TOOLS).collect::<Vec<_>>())
}

fn install(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().copied().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    for tool in &missing {
        println!("installing {}: {}", tool.package, tool.why);
    }
    let remedy = format!("install by hand: apt-get install {}", packages.join(" "));
    let missing_error = |what: String| Error::Missing { what, remedy: remedy.clone() };
    if which::which("apt-get").is_err() {
        return Err(missing_error(format!("{} and apt-get, which would install them", packages.join(", "))));
    }
    run_as_root(&["apt-get", "update", "-qq"])?;
    let mut words = vec!["apt-get", "install", "-qq", "--yes", "--no-install-recommends"];
    words.extend(&packages);
    run_as_root(&words)?;
    match missing.iter().find(|tool| !tool.is_there()) {
        Some(tool) => {
            Err(missing_error(format!("{}, although {} is installed", tool.provides, tool.package)))
        }
        None => Ok(()),
    }
}

fn run_as_root(words: &[&str]) -> Result<()> {
    let sudo = !rustix::process::geteuid().is_root() && which::which("sudo").is_ok();
    let mut words: Vec<&str> = words.to_vec();
    if sudo {
        words.insert(0, "sudo");
    }
    duct::cmd(words[0], &words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout_to_stderr()
        .run()
        .map(drop)
        .map_err(|error| Error::Command { command: words.join(" "), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_headers_are_found() {
        assert!(tool("sh", "dash", "").is_there());
        assert!(!tool("no-such-program-here", "x", "").is_there());
        assert!(!tool("/usr/include/no-such-header.h", "x", "").is_there());
    }

    #[test]
    fn dynamic_programs_are_told_from_static_ones() {
        assert!(is_static(&which::which("busybox").unwrap()));
        assert!(!is_static(&std::env::current_exe().unwrap()));
        assert!(!is_static(Path::new("/proc/version")));
    }

    #[test]
    fn every_package_is_named_once() {
        let packages: std::collections::BTreeSet<&str> =
            TOOLS.iter().chain(&FIXTURE_TOOLS).map(|tool| tool.package).collect();
        assert_eq!(packages.len(), TOOLS.len() + FIXTURE_TOOLS.len());
    }
}
