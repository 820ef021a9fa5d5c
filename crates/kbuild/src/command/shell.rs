//! The part of the shell's grammar that kbuild's commands use: words, quotes and command separators.

use thiserror::Error;

/// Text that is not a plain list of commands.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ShellError {
    /// A quote without its end.
    #[error("a quote is not closed")]
    OpenQuote,
    /// A backslash at the very end.
    #[error("a backslash at the end")]
    OpenEscape,
    /// Something that the shell would compute: expansion, substitution, redirection, grouping, patterns.
    #[error("`{0}` needs a shell")]
    NeedsShell(char),
}

/// Splits a command line into commands and their words. Commands end at `;`, `&&` and newlines.
pub(super) fn commands(text: &str) -> Result<Vec<Vec<String>>, ShellError> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => end_word(&mut commands, &mut word),
            ';' | '\n' => end_command(&mut commands, &mut word),
            '&' if chars.peek() == Some(&'&') => {
                chars.next();
                end_command(&mut commands, &mut word);
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(ShellError::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(ShellError::OpenQuote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(ShellError::OpenQuote)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c @ ('$' | '`') => return Err(ShellError::NeedsShell(c)),
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next().ok_or(ShellError::OpenEscape)? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            '#' if word.is_none() => while chars.next_if(|&c| c != '\n').is_some() {},
            '$' | '`' | '|' | '&' | '<' | '>' | '(' | ')' | '*' | '?' | '[' => {
                return Err(ShellError::NeedsShell(c));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    end_command(&mut commands, &mut word);
    commands.retain(|command| !command.is_empty());
    Ok(commands)
}

fn end_word(commands: &mut [Vec<String>], word: &mut Option<String>) {
    if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
        command.push(word);
    }
}

fn end_command(commands: &mut Vec<Vec<String>>, word: &mut Option<String>) {
    end_word(commands, word);
    commands.push(Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_join_words_and_separators_split_commands() {
        let split = commands(r#"gcc -DA='"x y"' "-DB=\"q\"" a\ b '' ; objtool a.o&&true"#).unwrap();
        assert_eq!(
            split,
            [vec!["gcc", "-DA=\"x y\"", "-DB=\"q\"", "a b", ""], vec!["objtool", "a.o"], vec!["true"]]
        );
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused() {
        for (text, error) in [
            ("a $b", ShellError::NeedsShell('$')),
            ("a \"$b\"", ShellError::NeedsShell('$')),
            ("a | b", ShellError::NeedsShell('|')),
            ("a > b", ShellError::NeedsShell('>')),
            ("a & b", ShellError::NeedsShell('&')),
            ("a 'b", ShellError::OpenQuote),
            ("a \"b\\", ShellError::OpenQuote),
            ("a \\", ShellError::OpenEscape),
        ] {
            assert_eq!(commands(text), Err(error), "{text}");
        }
    }
}
