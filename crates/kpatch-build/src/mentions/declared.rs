//! What a chunk declares, as far as its text tells without preprocessing.
//!
//! Macros stand in declarations in many ways. Those that come to attributes, qualifiers and the like are written out.
//! Where any other could declare something, or hide where a declaration ends, the chunk is not understood.

use std::collections::BTreeSet;

use super::chunks::{Chunk, Is};
use super::macros::{self, Macros, Target};
use super::text::hash;
use crate::slice;
use crate::slice::declaration::{self, Declaration};
use crate::slice::lexer::{Kind, Lexed, Token};

/// What a change of a chunk reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Who mentions one of these names.
    Names(BTreeSet<Vec<u8>>),
    /// Whoever reads the file.
    Readers,
}

/// How many definitions of one macro are tried.
const ALTERNATIVES: usize = 6;

/// How deep macros are written out.
const DEPTH: usize = 12;

/// What a chunk declares.
pub(super) fn declared(macros: &Macros, lexed: &Lexed<'_>, chunk: &Chunk<'_>) -> Reach {
    match chunk.is {
        Is::Macro(name) => return Reach::Names(BTreeSet::from([name.to_vec()])),
        Is::Include | Is::Directive => return Reach::Readers,
        Is::Declaration => {}
    }
    let mut names = BTreeSet::new();
    let mut hidden = BTreeSet::new();
    let mut tried = BTreeSet::new();
    let mut nameless = false;
    for alternative in 0..ALTERNATIVES {
        let mut writer = Writer { macros, lexed, alternative, hidden: &mut hidden };
        let Some(text) = writer.write(&chunk.tokens) else { return Reach::Readers };
        if !tried.insert(text.clone()) {
            continue;
        }
        if alternative + 1 == ALTERNATIVES {
            return Reach::Readers;
        }
        match add_declared(&text, &mut names) {
            Some(Named::All) => {}
            Some(Named::Some) => nameless = true,
            None => return Reach::Readers,
        }
    }
    if nameless {
        names.append(&mut hidden);
    }
    with_other_names(macros, &mut names);
    if names.iter().any(|name| slice::IMPLICIT.contains(&name.as_slice())) {
        return Reach::Readers;
    }
    Reach::Names(names)
}

/// Whether the declarations of a text have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    All,
    Some,
}

/// Adds the names that a text declares; `None` if code or data comes of it that nobody needs to mention.
fn add_declared(text: &[u8], names: &mut BTreeSet<Vec<u8>>) -> Option<Named> {
    let lexed = Lexed::of(text);
    let items = slice::items(&lexed).filter(|_| !lexed.strange_directive)?;
    let mut named = Named::All;
    for item in items {
        let declaration = Declaration::of(&lexed, item);
        if declaration.emits {
            return None;
        }
        if declaration.names.is_empty() {
            named = Named::Some;
        }
        names.extend(declaration.names.iter().map(|&name| lexed.word(name).to_vec()));
    }
    Some(named)
}

/// A name that is a macro, too, stands for others.
fn with_other_names(macros: &Macros, names: &mut BTreeSet<Vec<u8>>) {
    let mut open: Vec<Vec<u8>> = names.iter().cloned().collect();
    while let Some(name) = open.pop() {
        macros.words_of(hash(&name), |other| {
            if !declaration::is_keyword(other) && names.insert(other.to_vec()) {
                open.push(other.to_vec());
            }
        });
    }
}

/// Writes declarations out.
struct Writer<'a, 't> {
    macros: &'a Macros,
    lexed: &'a Lexed<'t>,
    /// Which definition of each macro is taken; the last where it has fewer.
    alternative: usize,
    /// Macros that were written out where the name of what is declared may stand: in the configuration that has the
    /// declaration, it is no macro.
    hidden: &'a mut BTreeSet<Vec<u8>>,
}

/// What brackets hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Constants of an enumeration.
    Enumeration,
    /// Members, parameters, sizes, values.
    Other,
}

impl Writer<'_, '_> {
    /// The text of a chunk; `None` where it is not understood. The bodies of functions are left empty.
    fn write(&mut self, tokens: &[Token]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        // Where in `out` the current declaration began.
        let mut start = 0;
        let mut inside: Vec<Inside> = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let mut next = at + 1;
            match token.kind {
                Kind::Word(_) => match inside.last() {
                    None => next = self.outside(tokens, at, &mut out)?,
                    Some(inside) => {
                        if !self.is_harmless_within(tokens, at, *inside) {
                            return None;
                        }
                        push(&mut out, self.lexed.text(token));
                    }
                },
                // A pragma acts on all that follows.
                Kind::Directive => return None,
                Kind::Punctuation(byte) => {
                    match byte {
                        b'{' if inside.is_empty() && begins_body(&out[start..]) => {
                            next = declaration::after_group(tokens, at);
                            if !self.is_harmless_body(&tokens[at..next]) {
                                return None;
                            }
                            push(&mut out, b"{ }");
                            start = out.len();
                            at = next;
                            continue;
                        }
                        b'{' if self.is_enumeration(&tokens[..at]) => inside.push(Inside::Enumeration),
                        b'(' | b'[' | b'{' => inside.push(Inside::Other),
                        b')' | b']' | b'}' => {
                            inside.pop()?;
                        }
                        _ => {}
                    }
                    push(&mut out, &[byte]);
                    if byte == b';' && inside.is_empty() {
                        start = out.len();
                    }
                }
                Kind::String(_) | Kind::Constant => push(&mut out, self.lexed.text(token)),
            }
            at = next;
        }
        Some(out)
    }

    /// Writes a word outside of all brackets, and its arguments if it is a macro that takes some.
    fn outside(&mut self, tokens: &[Token], at: usize, out: &mut Vec<u8>) -> Option<usize> {
        let word = self.lexed.text(&tokens[at]);
        if declaration::is_attribute(word) || is_typeof(word) {
            let next = declaration::after_group(tokens, at + 1);
            for token in &tokens[at..next] {
                if token.kind != tokens[at].kind && self.may_keep(token) {
                    return None;
                }
                push(out, self.lexed.text(token));
            }
            return Some(next);
        }
        let definitions = self.macros.definitions(hash(word));
        let Some(definition) = definitions.get(self.alternative).or(definitions.last()) else {
            push(out, word);
            return Some(at + 1);
        };
        let called = is_open(tokens.get(at + 1));
        let text = &definition.text;
        if definition.takes_arguments() && !called {
            // Not called, it is no macro here.
            push(out, word);
            return Some(at + 1);
        }
        if definition.takes_arguments() && self.is_declarator(tokens, at) {
            if macros::is_expression(text) {
                push(out, word);
                return Some(at + 1);
            }
            self.hidden.insert(word.to_vec());
        }
        self.plain(text, out, DEPTH)?;
        Some(if definition.takes_arguments() { declaration::after_group(tokens, at + 1) } else { at + 1 })
    }

    /// True if a word can be the name of what is declared: a type stands before it.
    fn is_declarator(&self, tokens: &[Token], at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        before.is_some_and(|token| match token.kind {
            Kind::Word(_) => !is_tag_keyword(self.lexed.text(token)),
            kind => kind == Kind::Punctuation(b'*'),
        })
    }

    /// Writes out a macro that comes to attributes, keywords and names of types.
    fn plain(&self, directive: &[u8], out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let lexed = Lexed::of(directive);
        let macros::Parts { name, parameters, body, .. } = macros::parts(&lexed)?;
        let mut at = 0;
        while let Some(token) = body.get(at) {
            let text = lexed.text(token);
            let mut next = at + 1;
            match token.kind {
                Kind::Word(_) if parameters.contains(&text) => return None,
                Kind::Word(_) if declaration::is_attribute(text) || is_typeof(text) => {
                    next = declaration::after_group(body, at + 1);
                    for token in &body[at..next] {
                        let inner = lexed.text(token);
                        let is_word = matches!(token.kind, Kind::Word(_)) && !parameters.contains(&inner);
                        if is_word && inner != text && self.leads_to_kept(inner) {
                            return None;
                        }
                        push(out, inner);
                    }
                }
                Kind::Word(_) => {
                    let definitions = self.macros.definitions(hash(text));
                    match definitions.get(self.alternative).or(definitions.last()) {
                        Some(definition) if text != name => {
                            let called = is_open(body.get(at + 1));
                            match (definition.takes_arguments(), called) {
                                (true, true) => next = declaration::after_group(body, at + 1),
                                (false, false) => {}
                                _ => return None,
                            }
                            self.plain(&definition.text, out, depth)?;
                        }
                        _ => push(out, text),
                    }
                }
                Kind::Punctuation(b'*') => push(out, text),
                _ => return None,
            }
            at = next;
        }
        Some(())
    }

    /// True if a word in brackets can be no macro that declares something beyond them.
    fn is_harmless_within(&self, tokens: &[Token], at: usize, inside: Inside) -> bool {
        let name = hash(self.lexed.text(&tokens[at]));
        let definitions = self.macros.definitions(name);
        if definitions.is_empty() {
            return true;
        }
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let called = is_open(tokens.get(at + 1));
        let takes = called && definitions.iter().any(macros::Definition::takes_arguments);
        let is_tag = before.is_some_and(|t| is_tag_keyword(self.lexed.text(t)));
        let begins = before.is_some_and(|t| matches!(t.kind, Kind::Punctuation(b'{' | b',')));
        if takes && (is_tag || inside == Inside::Enumeration && begins) {
            return false;
        }
        // A structure with a body in a macro gives its tag, and a pragma acts beyond the declaration.
        !self.macros.leads_to(name, Target::Tag) && !self.macros.leads_to(name, Target::Pragma)
    }

    /// True if no macro in a function's body brings a pragma along.
    fn is_harmless_body(&self, tokens: &[Token]) -> bool {
        tokens.iter().all(|token| match token.kind {
            Kind::Directive => false,
            Kind::Word(_) => !self.macros.leads_to(hash(self.lexed.text(token)), Target::Pragma),
            _ => true,
        })
    }

    /// True if a brace after these tokens holds constants of an enumeration.
    fn is_enumeration(&self, tokens: &[Token]) -> bool {
        let near = tokens.iter().rev().take(4);
        let near =
            near.take_while(|t| !matches!(t.kind, Kind::Punctuation(b';' | b'{' | b'}' | b'=' | b',')));
        near.into_iter().any(|token| self.lexed.text(token) == b"enum")
    }

    fn may_keep(&self, token: &Token) -> bool {
        matches!(token.kind, Kind::Word(_)) && self.leads_to_kept(self.lexed.text(token))
    }

    /// True if a word is a macro for an attribute that makes a declaration count unasked.
    fn leads_to_kept(&self, word: &[u8]) -> bool {
        self.macros.leads_to(hash(word), Target::Keeping)
    }
}

fn begins_body(text: &[u8]) -> bool {
    let lexed = Lexed::of(text);
    declaration::begins_body(&lexed, &lexed.tokens)
}

fn is_open(token: Option<&Token>) -> bool {
    token.is_some_and(|token| token.kind == Kind::Punctuation(b'('))
}

fn is_typeof(word: &[u8]) -> bool {
    matches!(word, b"typeof" | b"__typeof__" | b"__typeof")
}

fn is_tag_keyword(word: &[u8]) -> bool {
    matches!(word, b"struct" | b"union" | b"enum")
}

/// Appends a token and a blank.
fn push(out: &mut Vec<u8>, token: &[u8]) {
    out.extend_from_slice(token);
    out.push(b' ');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mentions::{chunks, text};

    const MACROS: [&str; 19] = [
        "define nothing",
        "define always inline __attribute__((__always_inline__))",
        "define inline inline __attribute__((__gnu_inline__))",
        "define __printf(a, b) __attribute__((__format__(printf, a, b)))",
        "define __init __section(\".init.text\") cold",
        "define __section(s) __attribute__((__section__(s)))",
        "define DECLARE(n) extern int n##_v;",
        "define WITH_PRAGMA(x) ({ _Pragma(\"pack(1)\") x; })",
        "define BITS(n) (1 << (n))",
        "define GROUP(t) struct t { int a; }",
        "define other another",
        "define quiet",
        "define quiet __attribute__((__used__))",
        // What other configurations have instead of a function.
        "define silent(x)",
        "define never(x) (!(x) && another)",
        "define waits(x) do { } while (0)",
        "define zero(x) ((void)(x))",
        "define wrapped(x) (x)",
        "define void_of(x) void (x)",
    ];

    /// The names that a declaration declares; `None` if it reaches all readers.
    fn names(text: &str) -> Option<Vec<String>> {
        let mut macros = Macros::default();
        for text in MACROS {
            macros.add(text.as_bytes());
        }
        macros.follow();
        let plain = text::plain(text.as_bytes());
        let lexed = Lexed::of(&plain);
        let cut = chunks::of(&lexed);
        match declared(&macros, &lexed, &cut.list[0]) {
            Reach::Names(names) => {
                Some(names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect())
            }
            Reach::Readers => None,
        }
    }

    #[test]
    fn macros_in_declarations_are_written_out() {
        for (text, declares) in [
            ("#define M(x) x", &["M"][..]),
            ("static inline int f(int x) { return BITS(x); }", &["f"]),
            ("static always struct s *f(void) nothing { return 0; }", &["f"]),
            ("__printf(1, 2) void f(const char *, ...);", &["f"]),
            ("extern __printf(1, 2) void f(const char *, ...), g(void);", &["f", "g"]),
            ("struct s { int a[BITS(3)]; struct { int b; } __init c; };", &["s"]),
            ("enum e { A = BITS(1), B };", &["A", "B", "BITS", "e"]),
            ("extern int other;", &["another"]),
            ("typedef int t;", &["t"]),
            ("extern int silent(int x);", &["silent"]),
            ("static inline int silent(int x) { return 1; }", &["silent"]),
            ("extern void never(int x);", &["never"]),
            ("static inline void *waits(int x) { return 0; }", &["waits"]),
            ("static inline void zero(int x) always { }", &["zero"]),
        ] {
            let expected: Vec<String> = declares.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(names(text).as_ref(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_reaches_all_readers() {
        for text in [
            "#include <a.h>",
            "#pragma pack(1)",
            "DECLARE(a)",
            "DECLARE(a) static inline int f(void) { return 1; }",
            "int v;",
            "int f(void) { return 1; }",
            "static quiet int v;",
            "static int __init f(void) { return 1; }",
            "static inline int f(int x) { return WITH_PRAGMA(x); }",
            "struct s { GROUP(t) a; };",
            "enum e { A, BITS(B) };",
            "asm(\"nop\");",
            "extern void *memcpy(void *, const void *, unsigned long);",
            "int a",
            "static inline int wrapped(int x) { return 1; }",
            "never(a) void f(void);",
            "extern void_of(a);",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }
}
