//! Commands that kbuild only prints (`make -n`).
//!
//! The recipe of a compiled object hands its command to `fixdep`, quoted as it is to be saved:
//! `scripts/basic/fixdep DEPENDENCY_FILE TARGET 'COMMAND' > …`. The line around it is shell code of many parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::shell;

/// The commands that would be saved, by target, from everything that make printed.
pub(crate) fn saved_commands(output: &str) -> BTreeMap<PathBuf, String> {
    let mut commands = BTreeMap::new();
    let mut objtool = BTreeMap::new();
    for line in output.lines() {
        if let Some((_, rest)) = line.split_once("scripts/basic/fixdep ") {
            if let Ok([_, target, command]) = shell::leading_words(rest, 3).as_deref() {
                commands.insert(PathBuf::from(target), command.clone());
            }
        } else if let Some(position) = line.find("tools/objtool/objtool ") {
            // Before 5.13 a recipe line of its own, which is not saved; its last word is the object.
            let start = line[..position].rfind([' ', ';']).map_or(0, |blank| blank + 1);
            let command = line[start..].trim_end().trim_end_matches(';').trim_end();
            if let Some(target) = command.split_ascii_whitespace().next_back() {
                objtool.insert(PathBuf::from(target), command.to_owned());
            }
        }
    }
    for (target, step) in objtool {
        if let Some(command) = commands.get_mut(&target)
            && !command.contains("/objtool ")
        {
            command.push_str(" ; ");
            command.push_str(&step);
        }
    }
    commands
}

/// The content of the file that kbuild would save, as far as it is known before the compiler ran.
pub(crate) fn file(target: &Path, command: &str) -> String {
    format!("savedcmd_{} := {command}\n", target.display())
}

/// The files of a rule that the compiler wrote (`-MD`): `unit: a.c b.h \`, with make's quoting.
pub fn listed_files(rule: &str) -> Vec<String> {
    let rule = rule.split_once(':').map_or("", |(_, files)| files);
    let mut files = Vec::new();
    let mut file = String::new();
    let mut chars = rule.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some(' ' | '#')) => file.extend(chars.next()),
            '\\' if chars.peek() == Some(&'\n') => {}
            '$' if chars.peek() == Some(&'$') => file.extend(chars.next()),
            c if c.is_whitespace() => {
                if !file.is_empty() {
                    files.push(std::mem::take(&mut file));
                }
            }
            c => file.push(c),
        }
    }
    if !file.is_empty() {
        files.push(file);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::SavedCommand;

    #[test]
    fn the_quoted_command_is_found_in_the_recipe() {
        let output = "make -f x obj=fs\nset -e;  echo '  CC      fs/a.o'; trap 'rm -f fs/a.o; kill $$' INT; gcc \
                      -DN='\"a\"' -c -o fs/a.o /s/fs/a.c ; ./tools/objtool/objtool --orc fs/a.o; \
                      scripts/basic/fixdep fs/.a.o.d fs/a.o 'gcc -DN='\\''\"a$(pound)\"'\\'' -c -o fs/a.o /s/fs/a.c ; \
                      ./tools/objtool/objtool --orc fs/a.o' > fs/.a.o.cmd; rm -f fs/.a.o.d\n\
                      set -e; ./scripts/basic/fixdep fs/.b.o.d fs/b.o 'gcc -c -o fs/b.o /s/fs/b.c' > fs/.b.o.cmd\n\
                      set -e; ./tools/objtool/objtool orc generate --no-fp fs/b.o;\n";
        let commands = saved_commands(output);
        assert_eq!(
            commands[Path::new("fs/a.o")],
            "gcc -DN='\"a$(pound)\"' -c -o fs/a.o /s/fs/a.c ; ./tools/objtool/objtool --orc fs/a.o"
        );
        assert_eq!(
            commands[Path::new("fs/b.o")],
            "gcc -c -o fs/b.o /s/fs/b.c ; ./tools/objtool/objtool orc generate --no-fp fs/b.o"
        );
        assert!(saved_commands("scripts/basic/fixdep a 'b\nfixdep\n").is_empty());
    }

    #[test]
    fn the_file_reads_back() {
        let text = file(Path::new("a.o"), "gcc -c -o a.o /s/a.c");
        let saved = SavedCommand::parse(text.as_bytes()).unwrap();
        assert_eq!(saved.target, Path::new("a.o"));
        assert_eq!(saved.compile().unwrap().source(), Path::new("/s/a.c"));
    }

    #[test]
    fn rules_are_read_with_their_quoting() {
        let rule = "unit.o: /s/a.c /s/include/x\\ y.h \\\n include/generated/z.h c$$d.h\n";
        assert_eq!(listed_files(rule), ["/s/a.c", "/s/include/x y.h", "include/generated/z.h", "c$d.h"]);
        assert!(listed_files("").is_empty() && listed_files("no rule").is_empty());
    }
}
