//! Preprocessed C as tokens.

use std::collections::HashMap;

/// A token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    start: u32,
    end: u32,
    /// What it is.
    pub(crate) kind: Kind,
}

/// Kinds of tokens, as far as they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword, by its number.
    Word(u32),
    /// A string; the number of the identifier that it spells, if it does.
    String(Option<u32>),
    /// One byte; operators of several are several tokens.
    Punctuation(u8),
    /// A number or a character.
    Constant,
    /// A line that begins with `#` and is no line marker: a pragma. Also `_Pragma`.
    Directive,
}

impl Token {
    /// True for what can be part of an operator of several bytes.
    pub(crate) fn is_operator(&self) -> bool {
        matches!(self.kind, Kind::Punctuation(byte) if !b"()[]{};,".contains(&byte))
    }

    /// True if nothing stands between the two, and the next can be part of an operator with this.
    pub(crate) fn touches(&self, next: &Token) -> bool {
        self.adjoins(next) && next.is_operator()
    }

    /// True if nothing stands between the two.
    pub(crate) fn adjoins(&self, next: &Token) -> bool {
        self.end == next.start
    }
}

/// A text with its tokens.
pub(crate) struct Lexed<'t> {
    text: &'t [u8],
    /// The tokens in their order.
    pub(crate) tokens: Vec<Token>,
    /// A unit has some hundred thousand words; the standard library's hasher would take longer than the rest.
    names: HashMap<&'t [u8], u32, foldhash::fast::RandomState>,
    /// The identifiers by their numbers.
    words: Vec<&'t [u8]>,
    /// A line begins with `#` and is neither a line marker nor a pragma that only says how what follows it is compiled.
    pub(crate) strange_directive: bool,
}

impl<'t> Lexed<'t> {
    /// Cuts a text of less than 4 GB into tokens; what is beyond is left out.
    pub(crate) fn of(text: &'t [u8]) -> Lexed<'t> {
        let text = &text[..text.len().min(u32::MAX as usize)];
        let mut lexed = Lexed {
            text,
            tokens: Vec::with_capacity(text.len() / 8),
            names: HashMap::default(),
            words: Vec::new(),
            strange_directive: false,
        };
        let mut at = 0;
        let mut line_start = true;
        while let Some(&byte) = text.get(at) {
            let start = at;
            let kind = match byte {
                b'\n' => {
                    line_start = true;
                    at += 1;
                    continue;
                }
                byte if byte.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                b'#' if line_start => {
                    at = find(text, at, |byte| byte == b'\n');
                    if is_line_marker(&text[start..at]) {
                        continue;
                    }
                    lexed.strange_directive |= !acts_where_it_stands(&text[start..at]);
                    Kind::Directive
                }
                b'"' => {
                    at = after_quoted(text, at);
                    let inner = text.get(start + 1..at - 1).filter(|inner| is_identifier(inner));
                    Kind::String(inner.map(|inner| lexed.intern(inner)))
                }
                b'\'' => {
                    at = after_quoted(text, at);
                    Kind::Constant
                }
                byte if is_word_byte(byte) && !byte.is_ascii_digit() => {
                    at = find(text, at, |byte| !is_word_byte(byte));
                    match &text[start..at] {
                        b"_Pragma" | b"__pragma" => Kind::Directive,
                        word => Kind::Word(lexed.intern(word)),
                    }
                }
                byte if byte.is_ascii_digit() => {
                    at = find(text, at, |byte| !is_word_byte(byte) && byte != b'.');
                    Kind::Constant
                }
                byte => {
                    at += 1;
                    Kind::Punctuation(byte)
                }
            };
            line_start = false;
            lexed.tokens.push(Token { start: start as u32, end: at as u32, kind });
        }
        lexed
    }

    /// A token's text.
    pub(crate) fn text(&self, token: &Token) -> &'t [u8] {
        &self.text[token.start as usize..token.end as usize]
    }

    /// The number of an identifier, if the text has it.
    pub(crate) fn name(&self, identifier: &[u8]) -> Option<u32> {
        self.names.get(identifier).copied()
    }

    /// The identifier of a number.
    pub(crate) fn word(&self, number: u32) -> &'t [u8] {
        self.words.get(number as usize).copied().unwrap_or_default()
    }

    /// True if that token is this byte.
    pub(crate) fn is_punctuation(&self, at: usize, byte: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Punctuation(byte))
    }

    /// How many different identifiers there are.
    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    fn intern(&mut self, identifier: &'t [u8]) -> u32 {
        let next = self.names.len() as u32;
        let number = *self.names.entry(identifier).or_insert(next);
        if number == next {
            self.words.push(identifier);
        }
        number
    }
}

/// `# 12 "file.h" 2`
fn is_line_marker(line: &[u8]) -> bool {
    line.strip_prefix(b"# ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

/// True for pragmas whose place in the text is all that they depend on. Others, `weak` and `redefine_extname`, act on
/// names that stand anywhere.
fn acts_where_it_stands(line: &[u8]) -> bool {
    const KINDS: [&[u8]; 6] = [b"GCC", b"clang", b"STDC", b"pack", b"push_macro", b"pop_macro"];
    let Some(pragma) = line[1..].trim_ascii_start().strip_prefix(b"pragma") else { return false };
    let pragma = pragma.trim_ascii_start();
    let word = &pragma[..find(pragma, 0, |byte| !is_word_byte(byte))];
    KINDS.contains(&word)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn is_identifier(text: &[u8]) -> bool {
    text.iter().all(|&byte| is_word_byte(byte)) && text.first().is_some_and(|byte| !byte.is_ascii_digit())
}

fn find(text: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    text[from..].iter().position(|&byte| wanted(byte)).map_or(text.len(), |found| from + found)
}

/// The position after a string or character that begins at `start`. One that is not closed ends with its line.
fn after_quoted(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\n' => return at,
            byte if byte == text[start] => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        let text = b"# 1 \"a.h\" 2\n#pragma once\nint _a1 = 0x1p-3 + 'x' + '\\''; \"b\" \"c d\" \"\\\"\" $ \"open\n;";
        let lexed = Lexed::of(text);
        let texts: Vec<String> =
            lexed.tokens.iter().map(|token| String::from_utf8(lexed.text(token).to_vec()).unwrap()).collect();
        assert_eq!(
            texts,
            [
                "#pragma once",
                "int",
                "_a1",
                "=",
                "0x1p",
                "-",
                "3",
                "+",
                "'x'",
                "+",
                "'\\''",
                ";",
                "\"b\"",
                "\"c d\"",
                "\"\\\"\"",
                "$",
                "\"open",
                ";"
            ]
        );
        let b = lexed.name(b"b");
        assert!(b.is_some() && lexed.tokens.iter().any(|token| token.kind == Kind::String(b)));
        assert_eq!(lexed.tokens[0].kind, Kind::Directive);
        assert_eq!(lexed.name(b"open"), None);
    }
}
