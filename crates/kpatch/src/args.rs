//! The command line, defined once: parsing, help, man page and completions all come from [`Args`].
//!
//! Commands and options of the predecessor keep their names and meanings.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use manual::Generated;

const AFTER_HELP: &str = "\
Files:
  /var/lib/kpatch/RELEASE/  Installed modules, loaded at boot by kpatch.service
  /run/kpatch/              Locks, and since when modules are loaded

`kpatch.enable=0` on the kernel's command line keeps kpatch.service from loading anything.

Exit status is 0 for success, else 1.";

/// Seconds that a transition may take: the predecessor's 15 without and 60 with signals.
pub const DEFAULT_TIMEOUT: u64 = 75;

/// Load, keep and list livepatch modules
///
/// Every module is checked against the running kernel before anything is touched. A transition that does not
/// end in time is undone; nothing is ever forced unless `kpatch force` is called.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kpatch",
    version,
    disable_version_flag = true,
    infer_long_args = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
pub struct Args {
    /// Work on the system below this directory
    #[arg(long, global = true, value_name = "DIR", default_value = "/", value_hint = ValueHint::DirPath)]
    pub root: PathBuf,

    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,

    /// Print a file that is generated from this command line's definition
    #[arg(long, value_enum, hide = true)]
    pub generate: Option<Generated>,

    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Load a patch module, or all installed ones
    Load {
        /// File of the module, or name of an installed one
        #[arg(value_hint = ValueHint::FilePath, required_unless_present = "all", conflicts_with = "all")]
        module: Option<PathBuf>,
        /// All modules installed for the running kernel
        #[arg(short, long)]
        all: bool,
        /// Seconds that a transition may take before it is undone
        #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT)]
        timeout: u64,
        /// Load it although a loaded module holds all its patches and more
        #[arg(long)]
        downgrade: bool,
    },
    /// Disable a patch and remove its module
    Unload {
        /// Name of the module, or its file
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        module: Option<PathBuf>,
        /// All that are loaded
        #[arg(short, long)]
        all: bool,
        /// Seconds that a transition may take before it is undone
        #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT)]
        timeout: u64,
    },
    /// Install a module, to be loaded at boot
    Install {
        /// File of the module
        #[arg(value_hint = ValueHint::FilePath)]
        module: PathBuf,
        /// The kernel release it is for [default: the running kernel]
        #[arg(short, long, value_name = "RELEASE")]
        kernel_version: Option<String>,
    },
    /// Remove an installed module; it stays loaded
    Uninstall {
        /// Name of the module, or of its file
        module: String,
        /// The kernel release it is for [default: the running kernel]
        #[arg(short, long, value_name = "RELEASE")]
        kernel_version: Option<String>,
    },
    /// List loaded and installed modules, and which one provides each patched function
    List,
    /// Show what a module carries
    Info {
        /// File of the module, or name of an installed or loaded one
        #[arg(value_hint = ValueHint::FilePath)]
        module: PathBuf,
    },
    /// Compare two versions of a module
    Diff {
        /// The older one
        #[arg(value_hint = ValueHint::FilePath)]
        old: PathBuf,
        /// The newer one
        #[arg(value_hint = ValueHint::FilePath)]
        new: PathBuf,
    },
    /// Show the fixes in force, with their text
    Show {
        /// Show the fixes that installed modules, or the named ones, would add
        #[arg(long)]
        available: bool,
        /// Modules to look into, with --available
        #[arg(value_hint = ValueHint::FilePath, requires = "available")]
        modules: Vec<PathBuf>,
    },
    /// Print the kernel's release with the live patches in force
    Uname,
    /// Check that loaded patches do what their modules say
    Verify {
        /// Name of a loaded module [default: all]
        module: Option<String>,
    },
    /// Signal the tasks that hold a transition up, where the kernel does not do that by itself
    Signal,
    /// Force the transition under way, although tasks are still in functions that change
    Force,
    /// Print the version
    Version,
}

/// The definition, for help, man page and completions.
pub fn definition() -> clap::Command {
    Args::command()
}

/// Section of the man page: commands of the administrator.
pub const SECTION: &str = "8";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("kpatch").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn commands_of_the_predecessor_are_understood() {
        for line in [
            "install x.ko",
            "install -k 6.1 x.ko",
            "install --kernel-version 6.1 x.ko",
            "uninstall -k 6.1 x",
            "load --all",
            "load x.ko",
            "unload --all",
            "unload x",
            "list",
            "info x",
            "signal",
            "version",
            "-v",
            "--version",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in ["load", "unload", "load --all x", "install", "show x.ko", "lode x", "list x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
