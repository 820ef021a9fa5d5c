//! A small kernel, built as its owner would build it.

use crate::error::{Error, Result};
use crate::{guest, small};
use std::path::{Path, PathBuf};

/// What the kernel must have beside the smallest configuration: live patching, signatures, and what the guest runs on.
const OPTIONS: [&str; 43] = [
    "64BIT",
    "PRINTK",
    "BUG",
    "TTY",
    "SERIAL_8250",
    "SERIAL_8250_CONSOLE",
    "BINFMT_ELF",
    "BINFMT_SCRIPT",
    "BLK_DEV_INITRD",
    "RD_GZIP=n",
    "RD_BZIP2=n",
    "RD_LZMA=n",
    "RD_XZ=n",
    "RD_LZO=n",
    "RD_LZ4=n",
    "RD_ZSTD=n",
    "INPUT=n",
    "VT=n",
    "HID=n",
    "UNIX98_PTYS=n",
    "MODULES",
    "MODULE_UNLOAD",
    "MODVERSIONS",
    // kbuild makes a key, and `modules_install` signs with it.
    "MODULE_SIG",
    "MODULE_SIG_FORCE",
    "MODULE_SIG_SHA256",
    "PROC_FS",
    "SYSFS",
    "DEVTMPFS",
    "KALLSYMS",
    "KALLSYMS_ALL",
    "FTRACE",
    "FUNCTION_TRACER",
    "LIVEPATCH",
    "UNWINDER_ORC",
    "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT",
    "FUTEX",
    "SHMEM",
    "TMPFS",
    "POSIX_TIMERS",
    "CONFIGFS_FS=m",
    // The state of the tree becomes part of the release.
    "LOCALVERSION_AUTO",
    "LOCALVERSION=\"-own\"",
];

/// Most units that it may have, so that building it stays a matter of minutes.
const MOST_UNITS: usize = 700;

/// A kernel that was built here.
#[derive(Debug)]
pub(super) struct Kernel {
    /// A tree under git, in which it was built, and in which something has changed since.
    pub(super) tree: PathBuf,
    /// Where its modules are installed, signed, and what QEMU boots.
    installed: PathBuf,
    /// What `uname -r` prints.
    pub(super) release: String,
}

impl Kernel {
    /// Builds it below `work`, once, of the sources of `pristine`, which stay as they are.
    pub(super) fn build(pristine: &Path, work: &Path) -> Result<Self> {
        let tree = work.join("tree");
        let installed = work.join("installed");
        let stamp = work.join("done");
        let state = format!("{}\n{}\n", pristine.display(), OPTIONS.join("\n"));
        if fs_err::read_to_string(&stamp).ok().as_deref() != Some(&state) {
            if work.exists() {
                fs_err::remove_dir_all(work)?;
            }
            fs_err::create_dir_all(work)?;
            // Links are enough: kbuild writes beside sources, never into them.
            let [from, to] = [pristine, &tree].map(|path| path.display().to_string());
            let copied = tool("cp", &["-al", &from, &to], work);
            // Links do not reach another file system.
            copied.or_else(|_| tool("cp", &["-a", "--no-preserve=links", &from, &to], work))?;
            add_own_files(&tree)?;
            commit(&tree, "The state that is built")?;
            small::configure(&tree, &tree, &OPTIONS)?;
            println!("building a kernel in {}", tree.display());
            let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
            small::make(&tree, &["-s", &jobs, "vmlinux", "modules", "bzImage"])?;
            let place = format!("INSTALL_MOD_PATH={}", installed.display());
            small::make(&tree, &["-s", "modules_install", &place, "DEPMOD=true"])?;
            fs_err::copy(tree.join("arch/x86/boot/bzImage"), installed.join("bzImage"))?;
            // Life goes on: neither this commit nor what is not committed is in the kernel.
            replace(&tree.join("README"), "Changed and committed.\n")?;
            commit(&tree, "Another state")?;
            replace(&tree.join("README"), "Changed.\n")?;
            fs_err::write(&stamp, state)?;
        }
        let release = fs_err::read_to_string(tree.join("include/config/kernel.release"))?.trim().to_owned();
        if !release.contains("-own-g") || release.contains("dirty") {
            return Err(Error::Failed(format!("the tree's state is not part of the release {release}")));
        }
        let kernel = Self { tree, installed, release };
        let units = kernel.units()?;
        println!("own kernel {}: {units} units", kernel.release);
        if units > MOST_UNITS {
            return Err(Error::Failed(format!("more than {MOST_UNITS} units")));
        }
        Ok(kernel)
    }

    /// A file of the build.
    pub(super) fn file(&self, name: &str) -> String {
        self.tree.join(name).display().to_string()
    }

    /// What kpatch-build is called with, so that the kernel takes the module.
    pub(super) fn signing(&self) -> [String; 4] {
        let [key, certificate] = ["pem", "x509"].map(|end| self.file(&format!("certs/signing_key.{end}")));
        ["--sign-key".to_owned(), key, "--sign-cert".to_owned(), certificate]
    }

    /// What QEMU boots.
    pub(super) fn bootable(&self) -> guest::Kernel {
        guest::Kernel {
            release: self.release.clone(),
            vmlinuz: self.installed.join("bzImage"),
            modules: self.installed.join("lib/modules").join(&self.release),
        }
    }

    /// When something was last written in the tree.
    pub(super) fn written(&self) -> Result<std::time::SystemTime> {
        let mut last = std::time::SystemTime::UNIX_EPOCH;
        for entry in walkdir::WalkDir::new(&self.tree) {
            let meta = entry.and_then(|entry| entry.metadata()).map_err(std::io::Error::from)?;
            last = last.max(meta.modified()?);
        }
        Ok(last)
    }

    /// How many units of C are compiled for its vmlinux and modules.
    fn units(&self) -> Result<usize> {
        let mut count = 0;
        for entry in walkdir::WalkDir::new(&self.tree) {
            let entry = entry.map_err(std::io::Error::from)?;
            let below = entry.path().strip_prefix(&self.tree).unwrap_or(entry.path());
            let of_host = ["scripts", "tools", "usr", "arch/x86/boot", "arch/x86/tools"];
            let of_host = of_host.iter().any(|directory| below.starts_with(directory));
            let is_object = below.extension().is_some_and(|extension| extension == "o");
            count += usize::from(is_object && !of_host && entry.path().with_extension("c").exists());
        }
        Ok(count)
    }
}

/// Adds the files of `test-patches/own/tree`, which are the owner's: modules that share a source.
fn add_own_files(tree: &Path) -> Result<()> {
    let own = super::patches().join("tree");
    for entry in walkdir::WalkDir::new(&own) {
        let entry = entry.map_err(std::io::Error::from)?;
        let place = tree.join(entry.path().strip_prefix(&own).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(place)?;
        } else {
            fs_err::copy(entry.path(), place)?;
        }
    }
    let makefile = tree.join("lib/Makefile");
    replace(&makefile, &(fs_err::read_to_string(&makefile)? + "obj-m += pair/\n"))
}

/// A commit of one file: the version of a tree needs no more, and reading 80,000 of them takes long.
fn commit(tree: &Path, message: &str) -> Result<()> {
    tool("git", &["init", "--quiet"], tree)?;
    tool("git", &["add", "--force", "README"], tree)?;
    let author = ["-c", "user.name=own", "-c", "user.email=own@example.invalid"];
    tool("git", &[&author[..], &["commit", "--quiet", "-m", message]].concat(), tree)
}

/// Replaces a file whose content another name may share.
fn replace(path: &Path, text: &str) -> Result<()> {
    fs_err::remove_file(path)?;
    Ok(fs_err::write(path, text)?)
}

fn tool(program: &str, words: &[&str], directory: &Path) -> Result<()> {
    duct::cmd(program, words).dir(directory).stdout_null().stderr_capture().run().map(drop).map_err(|error| {
        Error::Command { command: format!("{program} {}", words.join(" ")), reason: error.to_string() }
    })
}
