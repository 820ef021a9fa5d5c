//! The macros of all files, by name. Which definition holds where is not asked: all do.

use std::collections::BTreeSet;

use super::chunks;
use super::expression;
use super::text::{WordMap, WordSet, hash};
use crate::slice::declaration::{ALIASING, KEEPING};
use crate::slice::lexer::{Kind, Lexed, Token};

/// A token, as far as macros care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// An identifier, by its hash.
    Word(u64),
    /// A number, by its hash: it can be pasted to an identifier.
    Number(u64),
    /// A parameter of the macro, by its position.
    Parameter(u32),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `##`
    Paste,
    /// Anything else.
    Other,
}

/// One definition of a macro.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    /// How many parameters it has; `None` without a list of them.
    parameters: Option<u32>,
    /// The last parameter takes all that is left.
    variadic: bool,
    pub(super) body: Vec<Piece>,
    /// The directive.
    pub(super) text: Vec<u8>,
}

impl Definition {
    /// Reads a `#define` without its `#`, cut into tokens.
    pub(super) fn of(lexed: &Lexed<'_>) -> Option<(u64, Definition)> {
        let Parts { name, parameters, variadic, body } = parts(lexed)?;
        let body = pieces(lexed, body, &parameters, variadic);
        let count = is_function_like(lexed).then_some(parameters.len() as u32);
        Some((hash(name), Definition { parameters: count, variadic, body, text: Vec::new() }))
    }

    /// True if the macro takes arguments.
    pub(super) fn takes_arguments(&self) -> bool {
        self.parameters.is_some()
    }

    /// The parameter that takes all arguments that are left.
    pub(super) fn rest(&self) -> Option<u32> {
        self.parameters.filter(|_| self.variadic)?.checked_sub(1)
    }

    /// True if the macro itself brings a comma outside of brackets.
    fn has_comma(&self) -> bool {
        let mut open = 0u32;
        self.body.iter().any(|piece| {
            match piece {
                Piece::Open => open += 1,
                Piece::Close => open = open.saturating_sub(1),
                _ => {}
            }
            open == 0 && *piece == Piece::Comma
        })
    }
}

fn is_function_like(lexed: &Lexed<'_>) -> bool {
    let follows = |at: usize| lexed.tokens.get(at).zip(lexed.tokens.get(at + 1));
    follows(1).is_some_and(|(name, open)| open.kind == Kind::Punctuation(b'(') && name.adjoins(open))
}

/// A `#define`, taken apart.
pub(super) struct Parts<'l, 't> {
    pub(super) name: &'t [u8],
    pub(super) parameters: Vec<&'t [u8]>,
    /// The last parameter takes all that is left.
    variadic: bool,
    pub(super) body: &'l [Token],
}

/// True if what a macro (a `#define` without its `#`) stands for can be no declarator.
pub(super) fn is_expression(directive: &[u8]) -> bool {
    let lexed = Lexed::of(directive);
    parts(&lexed).is_some_and(|parts| expression::is_expression(&lexed, parts.body))
}

/// Takes `define NAME(parameters) body` apart.
pub(super) fn parts<'l, 't>(lexed: &'l Lexed<'t>) -> Option<Parts<'l, 't>> {
    let name = lexed.tokens.get(1).filter(|token| matches!(token.kind, Kind::Word(_)))?;
    let name = lexed.text(name);
    let mut parameters: Vec<&[u8]> = Vec::new();
    let mut variadic = false;
    if !is_function_like(lexed) {
        return Some(Parts { name, parameters, variadic, body: &lexed.tokens[2..] });
    }
    for (at, token) in lexed.tokens.iter().enumerate().skip(3) {
        match token.kind {
            Kind::Punctuation(b')') => {
                return Some(Parts { name, parameters, variadic, body: &lexed.tokens[at + 1..] });
            }
            Kind::Word(_) => parameters.push(lexed.text(token)),
            // `...`, alone or after a name.
            Kind::Punctuation(b'.') if !variadic => {
                variadic = true;
                if !matches!(lexed.tokens[at - 1].kind, Kind::Word(_)) {
                    parameters.push(b"__VA_ARGS__");
                }
            }
            _ => {}
        }
    }
    None
}

/// Tokens as pieces.
pub(super) fn pieces(
    lexed: &Lexed<'_>,
    tokens: &[Token],
    parameters: &[&[u8]],
    variadic: bool,
) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.next() {
        pieces.push(match token.kind {
            Kind::Word(_) => {
                let word = lexed.text(token);
                match parameters.iter().position(|parameter| *parameter == word) {
                    Some(position) => Piece::Parameter(position as u32),
                    None if variadic && word == b"__VA_OPT__" => Piece::Other,
                    None => Piece::Word(hash(word)),
                }
            }
            Kind::Constant if lexed.text(token).first().is_some_and(u8::is_ascii_digit) => {
                Piece::Number(hash(lexed.text(token)))
            }
            Kind::Directive => Piece::Word(hash(lexed.text(token))),
            Kind::Punctuation(b'(') => Piece::Open,
            Kind::Punctuation(b')') => Piece::Close,
            Kind::Punctuation(b',') => Piece::Comma,
            Kind::Punctuation(b'#')
                if tokens.peek().is_some_and(|t| t.kind == Kind::Punctuation(b'#') && token.touches(t)) =>
            {
                tokens.next();
                Piece::Paste
            }
            _ => Piece::Other,
        });
    }
    pieces
}

/// What macros that command lines define stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Options {
    /// What any unit's says: a header is read by many.
    Any,
    /// They are among the pieces already: a unit has one command line.
    Known,
}

/// What a macro can come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A pragma.
    Pragma,
    /// A tag, perhaps with a body.
    Tag,
    /// An attribute that makes a declaration count unasked.
    Keeping,
    /// `##`
    Paste,
    /// A comma outside of brackets, by which one argument becomes several.
    Comma,
}

impl Target {
    /// Each with the words that it shows by.
    fn all() -> [(Target, Vec<Vec<u8>>); 3] {
        let attributes = KEEPING.iter().chain(&ALIASING);
        let keeping = attributes.flat_map(|word| [word.to_vec(), [b"__", *word, b"__"].concat()]);
        let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
        [
            (Target::Pragma, words(&[b"_Pragma", b"__pragma"])),
            (Target::Tag, words(&[b"struct", b"union", b"enum"])),
            (Target::Keeping, keeping.collect()),
        ]
    }
}

/// All macros.
#[derive(Debug, Default)]
pub(super) struct Macros {
    by_name: WordMap<Vec<Definition>>,
    /// Hashes of definitions that are there already.
    seen: WordSet,
    /// Those that command lines define, for each unit otherwise.
    of_options: WordSet,
    /// The text of names of macros and of words that macros paste.
    spelled: WordMap<Vec<u8>>,
    /// For each macro, a bit for each [`Target`] that it leads to.
    leading: WordMap<u8>,
}

impl Macros {
    /// Adds a definition, a `#define` without its `#`. One without words stands for constants and is left out.
    pub(super) fn add(&mut self, directive: &[u8]) {
        if !self.seen.insert(hash(directive)) {
            return;
        }
        let lexed = Lexed::of(directive);
        if let Some((name, mut definition)) = Definition::of(&lexed) {
            definition.text = directive.to_vec();
            self.spell(&lexed, &definition);
            self.by_name.entry(name).or_default().push(definition);
        }
    }

    fn spell(&mut self, lexed: &Lexed<'_>, definition: &Definition) {
        let Some(Parts { name, body, .. }) = parts(lexed) else { return };
        self.spelled.insert(hash(name), name.to_vec());
        if definition.body.contains(&Piece::Paste) {
            for token in body.iter().filter(|token| matches!(token.kind, Kind::Word(_) | Kind::Constant)) {
                let text = lexed.text(token);
                self.spelled.insert(hash(text), text.to_vec());
            }
        }
    }

    /// True if such a text is worth adding: its body has a word, or it takes arguments.
    pub(super) fn is_worth_adding(lexed: &Lexed<'_>) -> bool {
        let is_word = |token: &Token| matches!(token.kind, Kind::Word(_) | Kind::Directive);
        parts(lexed).is_some_and(|parts| is_function_like(lexed) || parts.body.iter().any(is_word))
    }

    /// The definitions of a macro.
    pub(super) fn definitions(&self, name: u64) -> &[Definition] {
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
    }

    /// The definitions of a macro that is pasted.
    pub(super) fn expansions(&self, name: u64, options: Options) -> &[Definition] {
        if options == Options::Known && self.of_options.contains(&name) {
            &[]
        } else {
            self.definitions(name)
        }
    }

    /// Adds a macro that a unit's command line defines.
    pub(super) fn add_option(&mut self, directive: &[u8]) {
        let lexed = Lexed::of(directive);
        if Macros::is_worth_adding(&lexed)
            && let Some(Parts { name, .. }) = parts(&lexed)
        {
            self.of_options.insert(hash(name));
            self.add(directive);
        }
    }

    /// The names of all macros.
    pub(super) fn names(&self) -> impl Iterator<Item = u64> {
        self.by_name.keys().copied()
    }

    /// The text of a macro's name, or of a word that a macro pastes.
    pub(super) fn spelling(&self, word: u64) -> Option<&[u8]> {
        self.spelled.get(&word).map(Vec::as_slice)
    }

    /// Adds what macros among the pieces stand for.
    pub(super) fn expand(&self, pieces: &mut BTreeSet<u64>, options: Options) {
        let mut open: Vec<u64> = pieces.iter().copied().collect();
        while let Some(piece) = open.pop() {
            for definition in self.expansions(piece, options) {
                for piece in &definition.body {
                    if let Piece::Word(piece) | Piece::Number(piece) = piece
                        && pieces.insert(*piece)
                    {
                        open.push(*piece);
                    }
                }
            }
        }
    }

    /// True if a name is a macro that comes, perhaps by way of others, to what is asked for.
    pub(super) fn leads_to(&self, name: u64, target: Target) -> bool {
        self.leading.get(&name).is_some_and(|targets| targets & (1 << target as u8) != 0)
    }

    /// Finds out which macros come to what, once all are known.
    pub(super) fn follow(&mut self) {
        let mut users: WordMap<Vec<u64>> = WordMap::default();
        for (name, definitions) in &self.by_name {
            for piece in definitions.iter().flat_map(|definition| &definition.body) {
                if let Piece::Word(word) = piece {
                    users.entry(*word).or_default().push(*name);
                }
            }
        }
        let with = |has: &dyn Fn(&Definition) -> bool| -> Vec<u64> {
            let names = self.by_name.iter().filter(|(_, definitions)| definitions.iter().any(has));
            names.map(|(name, _)| *name).collect()
        };
        let pasting = with(&|definition| definition.body.contains(&Piece::Paste));
        let spreading = with(&Definition::has_comma);
        let words =
            Target::all().map(|(target, words)| (target, words.iter().map(|word| hash(word)).collect()));
        let own = [(Target::Paste, pasting), (Target::Comma, spreading)];
        for (target, names) in &own {
            for name in names {
                *self.leading.entry(*name).or_default() |= 1 << *target as u8;
            }
        }
        for (target, words) in words.into_iter().chain(own) {
            let mut open: Vec<u64> = words;
            while let Some(word) = open.pop() {
                for &user in users.get(&word).into_iter().flatten() {
                    let targets = self.leading.entry(user).or_default();
                    if *targets & (1 << target as u8) == 0 {
                        *targets |= 1 << target as u8;
                        open.push(user);
                    }
                }
            }
        }
    }

    /// The words of what a macro can stand for in a declaration.
    pub(super) fn words_of(&self, name: u64, mut found: impl FnMut(&[u8])) {
        let in_declarations =
            |definition: &&Definition| !(definition.takes_arguments() && is_expression(&definition.text));
        for definition in self.definitions(name).iter().filter(in_declarations) {
            let lexed = Lexed::of(&definition.text);
            if let Some(Parts { parameters, body, .. }) = parts(&lexed) {
                chunks::words(&lexed, body, &mut |word| {
                    if !parameters.contains(&word) {
                        found(word);
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read() {
        let read = |text: &str| {
            let lexed = Lexed::of(text.as_bytes());
            parts(&lexed).map(|p| {
                (p.name.len(), p.parameters.len(), p.variadic, p.body.len(), is_function_like(&lexed))
            })
        };
        assert_eq!(read("define name (x)"), Some((4, 0, false, 3, false)));
        assert_eq!(read("define name(x) x"), Some((4, 1, false, 1, true)));
        assert_eq!(read("define name() x"), Some((4, 0, false, 1, true)));
        assert_eq!(read("define name(x, ...) x"), Some((4, 2, true, 1, true)));
        assert_eq!(read("define name(x...)"), Some((4, 1, true, 0, true)));
        for cut in ["define", "define 1", "define name(x", ""] {
            assert_eq!(read(cut), None, "{cut}");
        }
    }
}
