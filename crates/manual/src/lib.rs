//! Man pages and shell completions, from the definition of a program's command line.
//!
//! The files stand in `tools`, where packages take them from; a test of each program compares them with its
//! command line ([`stale`]), and `cargo xtask generate` writes them.

mod page;

use std::io::{Result, Write};
use std::path::Path;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// What can be generated.
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
    /// Where the file of `program` stands, below `tools`. `section` is that of the man page.
    pub fn path(self, program: &str, section: &str) -> String {
        match self {
            Generated::Man => format!("man/{program}.{section}"),
            Generated::CompleteBash => format!("completions/{program}.bash"),
            Generated::CompleteZsh => format!("completions/_{program}"),
            Generated::CompleteFish => format!("completions/{program}.fish"),
        }
    }

    /// As `--generate` takes it.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Writes a generated file. `section` is that of the man page.
///
/// # Errors
///
/// Those of the writer.
pub fn generate(what: Generated, definition: Command, section: &str, out: &mut dyn Write) -> Result<()> {
    let mut definition = definition;
    let shell = match what {
        Generated::Man => return page::write(definition, section, out),
        Generated::CompleteBash => Shell::Bash,
        Generated::CompleteZsh => Shell::Zsh,
        Generated::CompleteFish => Shell::Fish,
    };
    // Generated in memory: clap_complete panics where the writer fails.
    let mut text = Vec::new();
    let program = definition.get_name().to_owned();
    clap_complete::generate(shell, &mut definition, program, &mut text);
    out.write_all(&text)
}

/// The files below `tools` that are not those of the definition, by their paths there.
pub fn stale(definition: &Command, section: &str, tools: &Path) -> Vec<String> {
    let differs = |what: &Generated| {
        let path = what.path(definition.get_name(), section);
        let mut expected = Vec::new();
        let made = generate(*what, definition.clone(), section, &mut expected).is_ok();
        let found = std::fs::read(tools.join(&path)).unwrap_or_default();
        (!made || found != expected).then_some(path)
    };
    Generated::value_variants().iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn definition() -> Command {
        let flag = |long: &'static str| Arg::new(long).long(long).help("Does it").action(ArgAction::SetTrue);
        let prune = Command::new("prune").about("Take away what is old").arg(flag("dry-run"));
        let keep = Command::new("keep").about("Look after what is kept").arg(flag("quiet")).subcommand(prune);
        Command::new("tool").about("Does things").arg(flag("verbose")).subcommand(keep)
    }

    #[test]
    fn every_file_names_every_command_and_option() {
        for what in Generated::value_variants() {
            let mut text = Vec::new();
            generate(*what, definition(), "1", &mut text).unwrap();
            let text = String::from_utf8(text).unwrap().replace("\\-", "-");
            for word in ["tool", "keep", "prune", "verbose", "quiet", "dry-run"] {
                assert!(text.contains(word), "{what:?} lacks {word}");
            }
        }
    }

    #[test]
    fn all_commands_stand_on_one_page() {
        let mut text = Vec::new();
        generate(Generated::Man, definition(), "8", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(".TH tool 8") && text.contains(".SS \"tool keep prune"), "{text}");
        assert!(!text.contains("keep(8)"), "{text}");
    }

    #[test]
    fn a_file_that_differs_is_stale() {
        let tools = tempfile::tempdir().unwrap();
        assert_eq!(stale(&definition(), "1", tools.path()).len(), 4);
        for what in Generated::value_variants() {
            let path = tools.path().join(what.path("tool", "1"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            generate(*what, definition(), "1", &mut std::fs::File::create(path).unwrap()).unwrap();
        }
        assert!(stale(&definition(), "1", tools.path()).is_empty());
        std::fs::write(tools.path().join("man/tool.1"), "old").unwrap();
        assert_eq!(stale(&definition(), "1", tools.path()), ["man/tool.1"]);
    }
}
