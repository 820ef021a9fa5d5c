//! Saved command lines: the `.NAME.o.cmd` files that kbuild leaves beside every object.
//!
//! `scripts/Kbuild.include` writes the command with make's quoting, `scripts/basic/fixdep` adds the source and
//! what it depends on. The command is a list of shell commands: the compiler, then on kernels with early objtool
//! that tool, seldom others.

mod compile;
pub(crate) mod dry_run;
mod shell;

use std::path::PathBuf;

use bstr::ByteSlice;
use thiserror::Error;

pub use compile::{Argument, CompileCommand, CompileError, absolute};
pub use dry_run::listed_files;
pub use shell::ShellError;

/// A file that is no saved command.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// Not text.
    #[error("not valid UTF-8")]
    NotText,
    /// Neither `savedcmd_` nor `cmd_` anywhere.
    #[error("no saved command line")]
    NoCommand,
    /// A reference to a make variable that only kbuild could expand.
    #[error("the command refers to a make variable: {0}")]
    MakeVariable(String),
    /// Not the simple shell commands that kbuild writes.
    #[error("the command line cannot be split: {0}")]
    Shell(#[from] ShellError),
    /// No compiler command.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Something that an object was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// A file; relative paths start at the object tree.
    File(PathBuf),
    /// The value of an option, named without `CONFIG_`.
    Config(String),
}

/// A saved command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedCommand {
    /// What it makes, relative to the object tree.
    pub target: PathBuf,
    /// Its shell commands, each split into words.
    pub steps: Vec<Vec<String>>,
    /// The source file, where kbuild names one.
    pub source: Option<PathBuf>,
    /// All other files that the target depends on, in the file's order; options too where kbuild itself wrote it.
    pub dependencies: Vec<Dependency>,
}

impl SavedCommand {
    /// Parses the file's bytes.
    pub fn parse(file: &[u8]) -> Result<SavedCommand, CommandError> {
        let text = file.to_str().map_err(|_| CommandError::NotText)?;
        let mut found: Option<(PathBuf, Vec<Vec<String>>)> = None;
        let mut source = None;
        let mut dependencies = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some((name, value)) = line.split_once(":=") else { continue };
            let (name, value) = (name.trim(), value.trim());
            // Kernels before 6.3 say cmd_, later ones savedcmd_.
            let target = name.strip_prefix("savedcmd_").or_else(|| name.strip_prefix("cmd_"));
            if let Some(target) = target {
                found = Some((target.into(), shell::commands(&from_make(value)?)?));
            } else if name.starts_with("source_") {
                source = Some(PathBuf::from(value));
            } else if name.starts_with("deps_") {
                let mut more = value.ends_with('\\');
                while more {
                    let Some(line) = lines.next() else { break };
                    let entry = line.trim();
                    more = entry.ends_with('\\');
                    dependencies.extend(dependency(entry.trim_end_matches('\\').trim_end()));
                }
            }
        }
        let (target, steps) = found.ok_or(CommandError::NoCommand)?;
        Ok(SavedCommand { target, steps, source, dependencies })
    }

    /// The compiler's command.
    pub fn compile(&self) -> Result<CompileCommand, CommandError> {
        let words = self.steps.first().ok_or(CommandError::NoCommand)?;
        Ok(CompileCommand::from_words(words)?)
    }

    /// The objtool command that followed the compiler, on kernels where it sees every object; the object's path
    /// is its last word.
    pub fn objtool(&self) -> Option<&[String]> {
        let is_objtool =
            |words: &&Vec<String>| words.first().is_some_and(|w| w.rsplit('/').next() == Some("objtool"));
        self.steps.iter().skip(1).find(is_objtool).map(Vec::as_slice)
    }

    /// The files that the target depends on, the source first.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.source.iter().chain(self.dependencies.iter().filter_map(|dependency| match dependency {
            Dependency::File(path) => Some(path),
            Dependency::Config(_) => None,
        }))
    }
}

/// Undoes make's quoting: `$(pound)` and `$$`.
fn from_make(value: &str) -> Result<String, CommandError> {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(position) = rest.find('$') {
        text.push_str(&rest[..position]);
        rest = &rest[position..];
        if let Some(after) = rest.strip_prefix("$(pound)") {
            text.push('#');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("$$") {
            text.push('$');
            rest = after;
        } else {
            return Err(CommandError::MakeVariable(rest.chars().take(40).collect()));
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// One line of a `deps_` list.
fn dependency(entry: &str) -> Option<Dependency> {
    if entry.is_empty() {
        return None;
    }
    let Some(option) = entry.strip_prefix("$(wildcard include/config/").and_then(|e| e.strip_suffix(')'))
    else {
        return Some(Dependency::File(entry.into()));
    };
    // Before 5.14 the option CC_HAS_X was the file cc/has/x.h.
    let option = option.strip_suffix(".h").unwrap_or(option);
    Some(Dependency::Config(option.replace('/', "_").to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MEMINFO: &str = r#"cmd_fs/proc/meminfo.o := gcc-12 -Wp,-MMD,fs/proc/.meminfo.o.d -nostdinc -I/s/include -include /s/include/linux/kconfig.h -DKBUILD_MODFILE='"fs/proc/proc"' -DKBUILD_BASENAME='"meminfo"' -DX='a$(pound)b$$c' -c -o fs/proc/meminfo.o /s/fs/proc/meminfo.c   ; ./tools/objtool/objtool --orc --retpoline   fs/proc/meminfo.o

source_fs/proc/meminfo.o := /s/fs/proc/meminfo.c

deps_fs/proc/meminfo.o := \
    $(wildcard include/config/CMA) \
    $(wildcard include/config/cc/has/asm.h) \
  /s/include/linux/kconfig.h \
  include/generated/autoconf.h \

fs/proc/meminfo.o: $(deps_fs/proc/meminfo.o)

$(deps_fs/proc/meminfo.o):
"#;

    #[test]
    fn reads_command_source_and_dependencies() {
        let saved = SavedCommand::parse(MEMINFO.as_bytes()).unwrap();
        assert_eq!(saved.target, Path::new("fs/proc/meminfo.o"));
        assert_eq!(saved.source.as_deref(), Some(Path::new("/s/fs/proc/meminfo.c")));
        assert_eq!(
            saved.dependencies,
            [
                Dependency::Config("CMA".into()),
                Dependency::Config("CC_HAS_ASM".into()),
                Dependency::File("/s/include/linux/kconfig.h".into()),
                Dependency::File("include/generated/autoconf.h".into()),
            ]
        );
        assert_eq!(saved.files().count(), 3);
        assert_eq!(
            saved.objtool().unwrap(),
            ["./tools/objtool/objtool", "--orc", "--retpoline", "fs/proc/meminfo.o"]
        );
        let compile = saved.compile().unwrap();
        assert_eq!(compile.define("X"), Some("a#b$c"));
        assert_eq!(compile.define("KBUILD_MODFILE"), Some("\"fs/proc/proc\""));
    }

    #[test]
    fn new_kernels_say_savedcmd_and_late_objtool_has_no_step() {
        let saved = SavedCommand::parse(b"savedcmd_a.o := gcc -c -o a.o a.c\n").unwrap();
        assert_eq!(saved.steps.len(), 1);
        assert!(saved.objtool().is_none() && saved.source.is_none());
    }

    #[test]
    fn what_is_no_saved_command_is_an_error() {
        assert_eq!(SavedCommand::parse(b"").unwrap_err(), CommandError::NoCommand);
        assert_eq!(SavedCommand::parse(b"\xff").unwrap_err(), CommandError::NotText);
        let error = SavedCommand::parse(b"cmd_a.o := gcc $(CFLAGS) -c a.c\n").unwrap_err();
        assert!(matches!(error, CommandError::MakeVariable(_)), "{error}");
        let error = SavedCommand::parse(b"cmd_a.o := gcc 'a\n").unwrap_err();
        assert!(matches!(error, CommandError::Shell(_)), "{error}");
        let linked = SavedCommand::parse(b"cmd_a.o := ld -r -o a.o b.o c.o\n").unwrap();
        assert!(matches!(linked.compile(), Err(CommandError::Compile(_))));
    }

    #[test]
    fn a_cut_file_neither_panics_nor_loops() {
        for length in 0..MEMINFO.len() {
            let _ = SavedCommand::parse(&MEMINFO.as_bytes()[..length]).and_then(|saved| saved.compile());
        }
    }
}
