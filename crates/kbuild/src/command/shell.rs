//! The part of the shell's grammar that kbuild's commands use: words, quotes and command separators.

use std::iter::Peekable;
use std::str::Chars;

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
    let mut commands = Vec::new();
    let mut command = Vec::new();
    let mut tokens = Tokens { chars: text.chars().peekable() };
    while let Some(token) = tokens.next()? {
        match token {
            Token::Word(word) => command.push(word),
            Token::End => commands.push(std::mem::take(&mut command)),
        }
    }
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    Ok(commands)
}

/// The first words of a command line, at most `count` of its first command; what follows may be anything.
pub(super) fn leading_words(text: &str, count: usize) -> Result<Vec<String>, ShellError> {
    let mut words = Vec::new();
    let mut tokens = Tokens { chars: text.chars().peekable() };
    while words.len() < count {
        match tokens.next()? {
            Some(Token::Word(word)) => words.push(word),
            Some(Token::End) | None => break,
        }
    }
    Ok(words)
}

enum Token {
    Word(String),
    /// The end of a command.
    End,
}

struct Tokens<'t> {
    chars: Peekable<Chars<'t>>,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, ShellError> {
        let mut word: Option<String> = None;
        while let Some(&c) = self.chars.peek() {
            if word.is_some() && matches!(c, ' ' | '\t' | ';' | '\n' | '&') {
                break;
            }
            self.chars.next();
            match c {
                ' ' | '\t' => {}
                ';' | '\n' => return Ok(Some(Token::End)),
                '&' if self.chars.next_if_eq(&'&').is_some() => return Ok(Some(Token::End)),
                '\'' => self.single_quoted(word.get_or_insert_default())?,
                '"' => self.double_quoted(word.get_or_insert_default())?,
                '\\' => match self.chars.next().ok_or(ShellError::OpenEscape)? {
                    '\n' => {}
                    c => word.get_or_insert_default().push(c),
                },
                '#' if word.is_none() => while self.chars.next_if(|&c| c != '\n').is_some() {},
                '$' | '`' | '|' | '&' | '<' | '>' | '(' | ')' | '*' | '?' | '[' => {
                    return Err(ShellError::NeedsShell(c));
                }
                c => word.get_or_insert_default().push(c),
            }
        }
        Ok(word.map(Token::Word))
    }

    fn single_quoted(&mut self, word: &mut String) -> Result<(), ShellError> {
        loop {
            match self.chars.next().ok_or(ShellError::OpenQuote)? {
                '\'' => return Ok(()),
                c => word.push(c),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut String) -> Result<(), ShellError> {
        loop {
            match self.chars.next().ok_or(ShellError::OpenQuote)? {
                '"' => return Ok(()),
                '\\' => match self.chars.next().ok_or(ShellError::OpenQuote)? {
                    c @ ('"' | '\\' | '$' | '`') => word.push(c),
                    '\n' => {}
                    c => word.extend(['\\', c]),
                },
                c @ ('$' | '`') => return Err(ShellError::NeedsShell(c)),
                c => word.push(c),
            }
        }
    }
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
    fn leading_words_do_not_care_what_follows() {
        let words = leading_words("a.d a.o 'gcc '\\''-DX=\"1\"'\\'' -c' > .a.o.cmd; rm $x", 3).unwrap();
        assert_eq!(words, ["a.d", "a.o", "gcc '-DX=\"1\"' -c"]);
        assert_eq!(leading_words("a; b c", 3).unwrap(), ["a"]);
        assert_eq!(leading_words("a 'b", 1).unwrap(), ["a"]);
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
