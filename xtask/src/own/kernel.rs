//! Small kernels, built as their owners would build them.

use crate::error::{Error, Result};
use crate::{guest, small};
use std::path::{Path, PathBuf};

/// What a kernel must have beside the smallest configuration: live patching, and what the guest runs on.
const OPTIONS: [&str; 49] = [
    "64BIT",
    "PRINTK",
    "BUG",
    "TTY",
    "SERIAL_8250",
    "SERIAL_8250_CONSOLE",
    "SERIAL_EARLYCON=n",
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
    "KERNEL_GZIP",
    "INPUT=n",
    "VT=n",
    "HID=n",
    "UNIX98_PTYS=n",
    "LEGACY_PTYS=n",
    "MODULES",
    "MODULE_UNLOAD",
    "MODVERSIONS",
    "PROC_FS",
    "PROC_PAGE_MONITOR=n",
    "SYSFS",
    "DEVTMPFS",
    "KALLSYMS",
    "KALLSYMS_ALL",
    "FTRACE",
    "FUNCTION_TRACER",
    "FUNCTION_GRAPH_TRACER=n",
    "UPROBE_EVENTS=n",
    "LIVEPATCH",
    "UNWINDER_ORC",
    "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT",
    "COMPACTION=n",
    "SECRETMEM=n",
    // Of processors, the one that QEMU emulates.
    "PROCESSOR_SELECT",
    "CPU_SUP_INTEL=n",
    "CPU_SUP_HYGON=n",
    "CPU_SUP_CENTAUR=n",
    "CPU_SUP_ZHAOXIN=n",
    "CONFIGFS_FS=m",
    "LOCALVERSION_AUTO=n",
    "LOCALVERSION=\"-small\"",
];

/// What a kernel has more that takes signed modules only.
const SIGNED: [&str; 9] = [
    // kbuild makes a key, and `modules_install` signs with it.
    "MODULE_SIG",
    "MODULE_SIG_FORCE",
    "MODULE_SIG_SHA256",
    "FUTEX",
    "SHMEM",
    "TMPFS",
    "POSIX_TIMERS",
    // The state of the tree becomes part of the release.
    "LOCALVERSION_AUTO",
    "LOCALVERSION=\"-own\"",
];

/// Most units that they may have, so that building one stays a matter of minutes. Fewer are not to be had: of 6.1, the
/// smallest 64-bit configuration has 428, and 487 with live patching.
const MOST_UNITS: usize = 545;
const MOST_UNITS_SIGNED: usize = 640;

/// A kernel that was built here.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Where it was built.
    pub(super) tree: PathBuf,
    /// Where its modules are installed, and what QEMU boots.
    installed: PathBuf,
    /// What `uname -r` prints.
    pub(super) release: String,
}

impl Kernel {
    /// Builds one that enforces signatures below `work`, once: in a tree under git, in which something has changed since.
    /// The sources of `pristine` stay as they are.
    pub(super) fn signed(pristine: &Path, work: &Path) -> Result<Self> {
        let options = [&OPTIONS[..], &SIGNED].concat();
        let kernel = Self::at(work, "tree");
        let tree = &kernel.tree;
        once(work, pristine, &options, || {
            // Links are enough: kbuild writes beside sources, never into them.
            let [from, to] = [pristine, tree].map(|path| path.display().to_string());
            let copied = tool("cp", &["-al", &from, &to], work);
            // Links do not reach another file system.
            copied.or_else(|_| tool("cp", &["-a", "--no-preserve=links", &from, &to], work))?;
            add_own_files(tree)?;
            commit(tree, "The state that is built")?;
            kernel.make(tree, &options)?;
            // Life goes on: neither this commit nor what is not committed is in the kernel.
            replace(&tree.join("README"), "Changed and committed.\n")?;
            commit(tree, "Another state")?;
            replace(&tree.join("README"), "Changed.\n")
        })?;
        let kernel = kernel.checked(MOST_UNITS_SIGNED)?;
        if !kernel.release.contains("-own-g") || kernel.release.contains("dirty") {
            let reason = format!("the tree's state is not part of the release {}", kernel.release);
            return Err(Error::Failed(reason));
        }
        Ok(kernel)
    }

    /// Builds one of as few units as possible below `work`, once, by `make O=` from the sources of `pristine`.
    pub(super) fn small(pristine: &Path, work: &Path) -> Result<Self> {
        let kernel = Self::at(work, "output");
        once(work, pristine, &OPTIONS, || {
            fs_err::create_dir_all(&kernel.tree)?;
            kernel.make(pristine, &OPTIONS)
        })?;
        kernel.checked(MOST_UNITS)
    }

    fn at(work: &Path, tree: &str) -> Self {
        Self { tree: work.join(tree), installed: work.join("installed"), release: String::new() }
    }

    /// Has kbuild make it of `source`.
    fn make(&self, source: &Path, options: &[&str]) -> Result<()> {
        println!("building a kernel in {}", self.tree.display());
        let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
        let place = format!("INSTALL_MOD_PATH={}", self.installed.display());
        let output = format!("O={}", self.tree.display());
        let within = if source == self.tree { &[][..] } else { &[output.as_str()][..] };
        small::configure(source, &self.tree, options)?;
        small::make(source, &[within, &["-s", &jobs, "vmlinux", "modules", "bzImage"]].concat())?;
        small::make(source, &[within, &["-s", "modules_install", &place, "DEPMOD=true"]].concat())?;
        fs_err::copy(self.tree.join("arch/x86/boot/bzImage"), self.installed.join("bzImage"))?;
        Ok(())
    }

    /// What is built, with its release.
    fn checked(mut self, most_units: usize) -> Result<Self> {
        fs_err::read_to_string(self.tree.join("include/config/kernel.release"))?
            .trim()
            .clone_into(&mut self.release);
        let units = self.units()?;
        println!("own kernel {}: {units} units", self.release);
        if units > most_units {
            return Err(Error::Failed(format!("more than {most_units} units")));
        }
        Ok(self)
    }

    /// A file of the build.
    pub(super) fn file(&self, name: &str) -> String {
        self.tree.join(name).display().to_string()
    }

    /// What kpatch-build is called with, so that the kernel takes the module; nothing if it takes any.
    pub(super) fn signing(&self) -> Option<[String; 4]> {
        let [key, certificate] = ["pem", "x509"].map(|end| self.file(&format!("certs/signing_key.{end}")));
        let signed = Path::new(&key).exists();
        signed.then(|| ["--sign-key".to_owned(), key, "--sign-cert".to_owned(), certificate])
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
            // kbuild names the source of each object beside it.
            let name = entry.file_name().to_string_lossy();
            if of_host || !name.ends_with(".o.cmd") {
                continue;
            }
            let text = fs_err::read_to_string(entry.path())?;
            let source = text.lines().find(|line| line.starts_with("source_")).unwrap_or_default();
            let is_c = Path::new(source).extension().is_some_and(|extension| extension == "c");
            count += usize::from(is_c && !source.ends_with(".mod.c"));
        }
        Ok(count)
    }
}

/// Builds what is wanted in `work`, which is emptied first, unless that was done before for the same sources and options.
fn once(work: &Path, pristine: &Path, options: &[&str], build: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = work.join("done");
    let state = format!("{}\n{}\n", pristine.display(), options.join("\n"));
    if fs_err::read_to_string(&stamp).ok().as_deref() == Some(&state) {
        return Ok(());
    }
    if work.exists() {
        fs_err::remove_dir_all(work)?;
    }
    fs_err::create_dir_all(work)?;
    build()?;
    Ok(fs_err::write(&stamp, state)?)
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
