//! The macros of all files, by name. Which definition holds where is not asked: all do.

use std::collections::BTreeSet;

use super::chunks;
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
    body: Vec<Piece>,
    /// The directive.
    pub(super) text: Vec<u8>,
}

impl Definition {
    /// Reads a `#define` without its `#`, cut into tokens.
    fn of(lexed: &Lexed<'_>) -> Option<(u64, Definition)> {
        let Parts { name, parameters, variadic, body } = parts(lexed)?;
        let body = pieces(lexed, body, &parameters, variadic);
        let count = is_function_like(lexed).then_some(parameters.len() as u32);
        Some((hash(name), Definition { parameters: count, variadic, body, text: Vec::new() }))
    }

    /// True if the macro takes arguments.
    pub(super) fn takes_arguments(&self) -> bool {
        self.parameters.is_some()
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

/// What a macro can come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A pragma.
    Pragma,
    /// A tag, perhaps with a body.
    Tag,
    /// An attribute that makes a declaration count unasked.
    Keeping,
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
    /// For each macro that takes arguments, which of them may be pasted to something: a bit for each of the first 31,
    /// the last bit for all others.
    pasting: WordMap<u32>,
    /// For each macro, a bit for each [`Target`] that it leads to.
    leading: WordMap<u8>,
}

/// Every argument.
const ALL: u32 = u32::MAX;

fn bit(argument: u32) -> u32 {
    1 << argument.min(31)
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
            self.by_name.entry(name).or_default().push(definition);
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

    /// Finds out what macros come to, once all are known.
    pub(super) fn follow(&mut self) {
        self.follow_arguments();
        self.follow_names();
    }

    /// Finds out which arguments are pasted: those that stand beside `##`, and those
    /// handed on as such arguments.
    fn follow_arguments(&mut self) {
        let mut names: Vec<u64> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        loop {
            let mut changed = false;
            for name in &names {
                let mut mask = self.pasting.get(name).copied().unwrap_or_default();
                let before = mask;
                for definition in &self.by_name[name] {
                    let last = definition.parameters.filter(|_| definition.variadic).map(|count| count - 1);
                    self.pasted(&definition.body, |piece| {
                        if let Piece::Parameter(position) = piece {
                            mask |=
                                if Some(position) == last { ALL << position.min(31) } else { bit(position) };
                        }
                    });
                }
                if mask != before {
                    self.pasting.insert(*name, mask);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Which arguments a name pastes if it stands before `(`; `None` if it is no macro.
    fn callee(&self, name: u64, depth: u32) -> Option<u32> {
        let mut mask = None;
        for definition in self.definitions(name) {
            let of_this = if definition.parameters.is_some() {
                self.pasting.get(&name).copied().unwrap_or_default()
            } else {
                // Another name, perhaps that of a macro.
                match definition.body.last() {
                    Some(Piece::Word(other)) if *other == name => continue,
                    Some(Piece::Word(other)) if depth < 8 => self.callee(*other, depth + 1).unwrap_or(0),
                    _ => ALL,
                }
            };
            mask = Some(mask.unwrap_or(0) | of_this);
        }
        mask
    }

    /// Calls `found` with each word, number and parameter that is pasted or handed to a macro that does.
    pub(super) fn pasted(&self, tokens: &[Piece], mut found: impl FnMut(Piece)) {
        struct Call {
            pasting: u32,
            argument: u32,
            /// It stands in such an argument itself.
            within: bool,
            is_macro: bool,
        }
        let mut calls: Vec<Call> = Vec::new();
        let mut after_macro = false;
        for (at, &token) in tokens.iter().enumerate() {
            let before = |count: usize| at.checked_sub(count).and_then(|before| tokens.get(before));
            let in_argument =
                calls.last().is_some_and(|call| call.within || call.pasting & bit(call.argument) != 0);
            match token {
                Piece::Open => {
                    let callee = match before(1) {
                        // What is pasted, or made by a macro, may be the name of any.
                        _ if before(2) == Some(&Piece::Paste) => Some(ALL),
                        Some(Piece::Word(name)) => self.callee(*name, 0),
                        Some(Piece::Parameter(_)) => Some(ALL),
                        Some(Piece::Close) if after_macro => Some(ALL),
                        _ => None,
                    };
                    calls.push(Call {
                        pasting: callee.unwrap_or(0),
                        argument: 0,
                        within: in_argument,
                        is_macro: callee.is_some(),
                    });
                }
                Piece::Close => after_macro = calls.pop().is_some_and(|call| call.is_macro),
                Piece::Comma => {
                    if let Some(call) = calls.last_mut() {
                        call.argument += 1;
                    }
                }
                Piece::Word(_) | Piece::Number(_) | Piece::Parameter(_) => {
                    // `, ## arguments` pastes nothing: it takes the comma away.
                    let left = before(1) == Some(&Piece::Paste) && before(2) != Some(&Piece::Comma);
                    if left || tokens.get(at + 1) == Some(&Piece::Paste) || in_argument {
                        found(token);
                    }
                }
                Piece::Paste | Piece::Other => {}
            }
        }
    }

    /// The pieces of names that a definition brings along, see [`Macros::pasted`].
    pub(super) fn pieces_of(&self, directive: &[u8], pieces: &mut BTreeSet<u64>) {
        let lexed = Lexed::of(directive);
        if let Some((_, definition)) = Definition::of(&lexed) {
            self.collect(&definition.body, pieces);
        }
    }

    /// The same of any other tokens.
    pub(super) fn collect(&self, tokens: &[Piece], pieces: &mut BTreeSet<u64>) {
        self.pasted(tokens, |piece| {
            if let Piece::Word(piece) | Piece::Number(piece) = piece {
                pieces.insert(piece);
            }
        });
    }

    /// Adds what macros among the pieces stand for.
    pub(super) fn expand(&self, pieces: &mut BTreeSet<u64>) {
        let mut open: Vec<u64> = pieces.iter().copied().collect();
        while let Some(piece) = open.pop() {
            for definition in self.definitions(piece) {
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
    fn follow_names(&mut self) {
        let mut users: WordMap<Vec<u64>> = WordMap::default();
        for (name, definitions) in &self.by_name {
            for piece in definitions.iter().flat_map(|definition| &definition.body) {
                if let Piece::Word(word) = piece {
                    users.entry(*word).or_default().push(*name);
                }
            }
        }
        for (target, words) in Target::all() {
            let mut open: Vec<u64> = words.iter().map(|word| hash(word)).collect();
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

    /// The words of all definitions of a macro.
    pub(super) fn words_of(&self, name: u64, mut found: impl FnMut(&[u8])) {
        for definition in self.definitions(name) {
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

    /// Which of these words a text hands to macros that paste.
    fn pasted(definitions: &[&str], text: &str, words: &[&str]) -> Vec<String> {
        let mut macros = Macros::default();
        for definition in definitions {
            macros.add(definition.as_bytes());
        }
        macros.follow();
        let lexed = Lexed::of(text.as_bytes());
        let mut found = BTreeSet::new();
        macros.collect(&pieces(&lexed, &lexed.tokens, &[], false), &mut found);
        macros.expand(&mut found);
        let is_found = |word: &&&str| found.contains(&hash(word.as_bytes()));
        words.iter().filter(is_found).map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_are_followed_to_where_they_are_pasted() {
        let definitions = [
            "define cat_(a, b) a##b",
            "define cat(a, b) cat_(a, b)",
            "define second(a, b, ...) cat(x_, b) + a",
            "define rest(a, ...) second(a, __VA_ARGS__)",
            "define print(f, args...) printk(f, ##args)",
            "define list(m) m(one) m(two)",
            "define alias cat",
            "define value thing",
            "define plain(a) (a)",
        ];
        let words = ["a", "b", "c", "d", "thing", "8"];
        for (text, expected) in [
            ("cat(a, b) c", &["a", "b"][..]),
            ("second(a, b, c)", &["b"]),
            ("rest(a, b, c)", &["b", "c"]),
            ("print(a, b)", &[]),
            ("list(a)", &[]),
            ("alias(a, 8)", &["a", "8"]),
            ("cat(value, plain(c))", &["c", "thing"]),
            ("plain(a) function(b)", &[]),
            ("plain(a)(b)", &["b"]),
            ("cat((a, b), c", &["a", "b", "c"]),
        ] {
            assert_eq!(pasted(&definitions, text, &words), expected, "{text}");
        }
    }

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
