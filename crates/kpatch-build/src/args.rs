//! The command line, defined once: parsing, help, man page and completions all come from [`Args`].
//!
//! Options of the predecessor keep their letters, names and meanings. One that this tool does not have yet is
//! unknown rather than ignored.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use manual::Generated;

/// Formats of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PackageFormat {
    /// Debian's.
    Deb,
    /// That of rpm.
    Rpm,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

const AFTER_HELP: &str = "\
Environment:
  CACHEDIR             Cache of kernels and objects, and work files [default: ~/.kpatch]
  CC                   Compiler with a wrapper before it, as in `ccache gcc`
  CFLAGS_MODULE        More compiler flags for the patch module
  KBUILD_EXTRA_SYMBOLS Further Module.symvers files for the patch module

Files:
  kpatch-build.toml    Settings, looked for in the current directory, ~/.config and /etc

Exit status is 0 if the module was made, else 1.";

// Switches of a command line are independent of each other.
#[allow(clippy::struct_excessive_bools)]
/// Turn kernel source patches into a livepatch module, without building the kernel
///
/// Only what the patches touch is compiled, with the command lines of the kernel's own build. Each compiled
/// original is proven equal to the shipped kernel before anything is made of it.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "kpatch-build",
    version,
    disable_version_flag = true,
    infer_long_args = true,
    max_term_width = 100,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// Something else than making a module.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Patch files, applied in this order
    #[arg(value_name = "PATCH", value_hint = ValueHint::FilePath, required_unless_present_any = ["version", "generate"])]
    pub patches: Vec<PathBuf>,

    /// Kernel release to patch, as `uname -r` prints it [default: the running kernel]
    #[arg(short, long, value_name = "RELEASE", help_heading = "Kernel")]
    pub archversion: Option<String>,

    /// Source tree of your own; it is only read
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Kernel")]
    pub sourcedir: Option<PathBuf>,

    /// Directory in which that tree was built, where it is another (`make O=DIR`)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "sourcedir", help_heading = "Kernel")]
    pub build_dir: Option<PathBuf>,

    /// Kernel configuration [default: of the release, or DIR/.config]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Kernel")]
    pub config: Option<PathBuf>,

    /// The running kernel's vmlinux with debug information [default: of the release, or DIR/vmlinux]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Kernel")]
    pub vmlinux: Option<PathBuf>,

    /// Suite to look for the release in, besides the host's own (repeatable)
    #[arg(long, value_name = "SUITE", help_heading = "Kernel")]
    pub suite: Vec<String>,

    /// Look the release up again, although an earlier run found it
    #[arg(long, help_heading = "Kernel")]
    pub refresh: bool,

    /// Where compilers run: on the host or in a root file system with the kernel's own compiler
    ///
    /// `auto` uses the host if it has that compiler, else a root file system made for it in the cache;
    /// `none` always uses the host; DIR is a root file system of your own.
    #[arg(long, value_name = "auto|none|DIR", value_hint = ValueHint::DirPath, help_heading = "Kernel")]
    pub build_root: Option<String>,

    /// Patch only this: `vmlinux`, `modules`, a module as in `fs/xfs/xfs.ko`, or a directory as in `fs/xfs/`
    /// (repeatable) [default: vmlinux and modules]
    #[arg(short, long, value_name = "TARGET", help_heading = "Module")]
    pub target: Vec<String>,

    /// Name of the module [default: `livepatch-` and the name of the patch file]
    #[arg(short, long, value_name = "NAME", help_heading = "Module")]
    pub name: Option<String>,

    /// Directory for the module [default: the current directory]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Module")]
    pub output: Option<PathBuf>,

    /// Do not replace live patches that are loaded already
    #[arg(short = 'R', long, help_heading = "Module")]
    pub non_replace: bool,

    /// Also make a package of the module, `kpatch-patch-RELEASE`
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = "Module")]
    pub package: Option<PackageFormat>,

    /// Version of the package: number of the cumulative patch, and of its packaging [default: 1-1]
    #[arg(long, value_name = "VERSION-RELEASE", requires = "package", help_heading = "Module")]
    pub package_version: Option<String>,

    /// Sign the module with this private key, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign_cert", help_heading = "Module")]
    pub sign_key: Option<PathBuf>,

    /// The certificate of that key, which the kernel must trust
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign_key", help_heading = "Module")]
    pub sign_cert: Option<PathBuf>,

    /// Lines of context that may differ where a patch is applied
    #[arg(long, value_name = "LINES", default_value_t = 0, help_heading = "Build")]
    pub fuzz: usize,

    /// Go on where a compiled original is not proven equal to the kernel, or the compiler differs
    #[arg(long, alias = "skip-gcc-check", help_heading = "Build")]
    pub skip_compiler_check: bool,

    /// Leave out changes of code and data that the kernel frees after start, which have no effect any more
    #[arg(long, help_heading = "Build")]
    pub skip_init_changes: bool,

    /// Leave out changes of the initial values of these data; the running kernel keeps the old ones (repeatable)
    #[arg(long, value_name = "SYMBOL", value_delimiter = ',', help_heading = "Build")]
    pub skip_data_changes: Vec<String>,

    /// Compile only units that the patches touch; others that read a touched header keep the old one
    ///
    /// For a header's change that means nothing to its other readers, or that they cannot be compiled with. Nobody
    /// checks that old and new code agree about structures.
    #[arg(long, help_heading = "Build")]
    pub only_touched_units: bool,

    /// Preprocess every unit that may read a touched header, whatever its text mentions
    ///
    /// As a rule, units whose text has none of the names that a header's change can reach are left alone. This takes a
    /// third of a second for each of them, and must lead to the same module.
    #[arg(long, help_heading = "Build")]
    pub all_readers: bool,

    /// Find the units to compile by building the original and the patched tree completely
    ///
    /// The first build of a kernel takes as long as the kernel does; it is kept, and patched trees are built on it.
    /// For a kernel without packages, or where the search by included files is not trusted.
    #[arg(long, help_heading = "Build")]
    pub whole_tree: bool,

    /// Where the patches are refused, say which of their hunks could be built alone
    ///
    /// Files, halves of files and in the end single hunks are built one after the other. No module is kept.
    #[arg(long, help_heading = "Build")]
    pub split: bool,

    /// Accept that the patches change the layout of this structure (repeatable)
    #[arg(long, value_name = "STRUCT", help_heading = "Build")]
    pub allow_layout_change: Vec<String>,

    /// Command to run compilers by, such as ccache, sccache or distcc [default: the words of CC before the compiler]
    #[arg(long, value_name = "COMMAND", help_heading = "Build")]
    pub cc_launcher: Option<String>,

    /// Most bytes of compiled objects to keep in the cache, as in 500M or 4G [default: 2G]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Build")]
    pub cache_size: Option<u64>,

    /// Number of commands to run at once [default: number of processors]
    #[arg(short, long, value_name = "N", help_heading = "Build")]
    pub jobs: Option<NonZeroUsize>,

    /// Print more, keep the work files; twice: also every command
    #[arg(short, long, action = ArgAction::Count, help_heading = "Build")]
    pub debug: u8,

    /// Keep the work files
    #[arg(long, help_heading = "Build")]
    pub skip_cleanup: bool,

    /// Print errors and warnings only
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,

    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, help_heading = "Output")]
    pub color: Color,

    /// Print how long each phase took
    #[arg(long, help_heading = "Output")]
    pub time: bool,

    /// Write a report of the run, successful or not; `-` is the standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub json: Option<PathBuf>,

    /// Print the version
    #[arg(long, help_heading = "Output")]
    pub version: bool,

    /// Print a file that is generated from this command line's definition
    #[arg(long, value_enum, hide = true)]
    pub generate: Option<Generated>,
}

/// What kpatch-build does besides making modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Look after the cache of kernels and compiled objects
    Cache {
        /// What to do with it.
        #[command(subcommand)]
        action: CacheAction,
    },
}

/// What can be done with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum CacheAction {
    /// Tell what it holds, and how much room that takes
    List,
    /// Remove the objects that were not used for longest, and what killed runs left
    Prune {
        /// Most bytes of objects to keep, as in 500M or 4G [default: 2G]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        cache_size: Option<u64>,
    },
    /// Check every compiled object, and remove those that are damaged
    Verify,
}

/// A number of bytes, with a letter for a power of 1024 where it is large.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        Some((at, 'T')) => (&text[..at], 1 << 40),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| "not a size such as 500M or 4G".to_owned())
}

impl Args {
    /// Parses a command line, program name first.
    pub fn parse_from_words<I, W>(words: I) -> Result<Args, clap::Error>
    where
        I: IntoIterator<Item = W>,
        W: Into<OsString> + Clone,
    {
        Args::try_parse_from(words)
    }

    /// The definition, for help, man page and completions.
    pub fn definition() -> clap::Command {
        Args::command()
    }
}

/// Section of the man page: commands of users.
pub const SECTION: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::parse_from_words(std::iter::once("kpatch-build").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Args::definition().debug_assert();
    }

    #[test]
    fn options_of_the_predecessor_are_understood() {
        let args = parse(
            "-a 6.1.0-56-cloud-amd64 -s . -c f -v vmlinux -j 3 -t vmlinux one.patch -t modules -n x -o . -d -dd -R \
             --skip-cleanup --skip-gcc-check two.patch",
        )
        .unwrap();
        assert_eq!(args.patches, [PathBuf::from("one.patch"), PathBuf::from("two.patch")]);
        assert_eq!(args.target, ["vmlinux", "modules"]);
        assert_eq!((args.debug, args.jobs), (3, NonZeroUsize::new(3)));
        assert!(args.non_replace && args.skip_cleanup && args.skip_compiler_check);
        assert!(parse("--archversion 1 --sourcedir . --config c --vmlinux v --jobs 1 --target t --name n --output o --debug --non-replace x").is_ok());
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for line in ["", "-j 0 x", "-j many x", "-r k.src.rpm x", "--oot-module m.ko x", "--color pink x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_cache_is_looked_after_by_commands_of_their_own() {
        let action = |line: &str| match parse(line).unwrap().command {
            Some(Command::Cache { action }) => action,
            None => panic!("{line}"),
        };
        assert_eq!(action("cache list"), CacheAction::List);
        assert_eq!(action("cache verify"), CacheAction::Verify);
        assert_eq!(action("cache prune"), CacheAction::Prune { cache_size: None });
        assert_eq!(action("cache prune --cache-size 3M"), CacheAction::Prune { cache_size: Some(3 << 20) });
        assert_eq!(parse("--cache-size 4G x").unwrap().cache_size, Some(4 << 30));
        for line in
            ["cache", "cache prune --cache-size -1", "cache prune --cache-size 99999999T", "--cache-size x y"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn long_options_may_be_shortened() {
        assert_eq!(
            parse("--skip-data-changes a,b --skip-data-changes c x").unwrap().skip_data_changes.len(),
            3
        );
        assert!(parse("--skip-clean --skip-comp x").unwrap().skip_cleanup);
    }
}
