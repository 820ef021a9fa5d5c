//! The command line, defined once: parsing, help, man page and completions all come from [`Args`].
//!
//! Commands and options of the predecessor keep their names and meanings.

use std::io::Write;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

/// What can be generated from the definition of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// The man page.
    Man,
    /// Completions for bash.
    CompleteBash,
    /// Completions for zsh.
    CompleteZsh,
    /// Completions for fish.
    CompleteFish,
}

impl Generated {
    /// Where the file stands, below the directory of what is installed beside the program.
    pub fn path(self) -> &'static str {
        match self {
            Generated::Man => "man/kpatch.8",
            Generated::CompleteBash => "completions/kpatch.bash",
            Generated::CompleteZsh => "completions/_kpatch",
            Generated::CompleteFish => "completions/kpatch.fish",
        }
    }
}

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

/// Writes a generated file.
pub fn generate(what: Generated, out: &mut dyn Write) -> std::io::Result<()> {
    use clap_complete::Shell;
    let mut definition = definition();
    let shell = match what {
        Generated::Man => return man(definition, out),
        Generated::CompleteBash => Shell::Bash,
        Generated::CompleteZsh => Shell::Zsh,
        Generated::CompleteFish => Shell::Fish,
    };
    // Generated in memory: clap_complete panics where the writer fails.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut definition, "kpatch", &mut text);
    out.write_all(&text)
}

/// One page for all commands: clap_mangen would make a page of each.
fn man(definition: clap::Command, out: &mut dyn Write) -> std::io::Result<()> {
    let mut definition = definition.disable_help_subcommand(true);
    definition.build();
    let page = clap_mangen::Man::new(definition.clone()).section("8");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    writeln!(out, ".SH COMMANDS")?;
    for command in definition.get_subcommands() {
        let usage = command.clone().render_usage().to_string().replace("Usage: ", "");
        writeln!(out, ".SS \"{}\"", roff(usage.trim()))?;
        writeln!(out, "{}.", roff(&command.get_about().map(ToString::to_string).unwrap_or_default()))?;
        for argument in command.get_arguments().filter(|a| !a.is_global_set() && a.get_id() != "help") {
            let names = [
                argument.get_short().map(|short| format!("-{short}")),
                argument.get_long().map(|long| format!("--{long}")),
            ];
            let mut name = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
            if name.is_empty() {
                name = format!("[{}]", argument.get_id().as_str().to_uppercase());
            }
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(&name), roff(&help))?;
        }
    }
    page.render_extra_section(out)?;
    page.render_version_section(out)
}

/// Text as roff takes it.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

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

    #[test]
    fn every_generated_file_names_every_command_and_option() {
        for what in Generated::value_variants() {
            let mut text = Vec::new();
            generate(*what, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap().replace("\\-", "-");
            for command in definition().get_subcommands() {
                assert!(text.contains(command.get_name()), "{what:?} lacks {}", command.get_name());
                for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(text.contains(long), "{what:?} lacks {long}");
                }
            }
        }
    }
}
