//! A top-level declaration: what it declares, and whether a compiler makes something of it unasked.

use std::ops::Range;

use super::lexer::{Kind, Lexed, Token};

/// What a declaration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// The names that it gives a meaning to: functions, variables, types, tags, enumeration constants. Perhaps
    /// some more.
    pub(crate) names: Vec<u32>,
    /// Code or data comes of it even if nothing mentions it.
    pub(crate) emits: bool,
}

/// What the words of a declaration outside of all brackets say.
// They are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Default)]
struct Words {
    is_static: bool,
    is_extern: bool,
    is_typedef: bool,
    gnu_inline: bool,
    /// An attribute that keeps a definition whether or not it is used.
    kept: bool,
    /// An attribute that makes a declaration a definition.
    alias: bool,
}

/// Attributes that keep a definition whether or not it is used.
pub(crate) const KEEPING: [&[u8]; 6] =
    [b"used", b"retain", b"constructor", b"destructor", b"section", b"externally_visible"];

/// Attributes that make a declaration a definition.
pub(crate) const ALIASING: [&[u8]; 4] = [b"alias", b"ifunc", b"weakref", b"symver"];

/// How the names of a declaration are found, one declarator after another.
#[derive(Default)]
struct Declarators {
    /// The word before whatever comes next.
    last: Option<u32>,
    /// The current declarator has its name.
    named: bool,
    /// A declarator that is no function's.
    variable: bool,
    initialised: bool,
}

impl Declaration {
    pub(crate) fn of(lexed: &Lexed<'_>, item: Range<usize>) -> Declaration {
        let tokens = &lexed.tokens[item.clone()];
        let Some(first) = tokens.first() else { return Declaration::default() };
        let root = |names| Declaration { names, emits: true };
        let body = body(tokens);
        match first.kind {
            Kind::Word(_) => match lexed.text(first) {
                b"asm" | b"__asm__" | b"__asm" | b"_Static_assert" | b"static_assert" => {
                    return root(Vec::new());
                }
                _ => {}
            },
            // An empty declaration.
            Kind::Punctuation(b';') => return Declaration::default(),
            Kind::Punctuation(b'(') => {}
            _ => return root(Vec::new()),
        }
        if tokens.last().is_none_or(|last| !matches!(last.kind, Kind::Punctuation(b';' | b'}'))) {
            // The text ends in the middle of it.
            return root(all_words(tokens));
        }
        let mut names = tags(lexed, tokens);
        let mut words = Words::default();
        let declarators = declarators(lexed, tokens, body, &mut words, &mut names);
        let emits = if body.is_some() {
            !(words.is_static || words.is_extern && words.gnu_inline)
        } else {
            let defines = declarators.variable && !words.is_extern || declarators.initialised;
            !words.is_typedef && defines && !words.is_static
        };
        let defines = body.is_some() || declarators.initialised || declarators.variable && !words.is_extern;
        let kept = words.kept && defines && !words.is_typedef;
        // `int` in the parameters of a name in brackets.
        names.retain(|&name| !is_keyword(lexed.word(name)));
        // A pragma within acts on all that follows.
        let directive = tokens.iter().any(|token| token.kind == Kind::Directive);
        Declaration { names, emits: emits || kept || words.alias || directive }
    }
}

/// True if a brace after these tokens begins the body of a function: what stands before it, attributes aside, is a
/// list of parameters, and nothing is initialised.
pub(crate) fn begins_body(lexed: &Lexed<'_>, tokens: &[Token]) -> bool {
    let mut last = None;
    let mut depth = 0usize;
    let mut attribute = false;
    for token in tokens {
        match token.kind {
            Kind::Word(_) if depth == 0 && is_attribute(lexed.text(token)) => attribute = true,
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(byte @ (b')' | b']' | b'}')) => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    if !attribute {
                        last = Some(byte);
                    }
                    attribute = false;
                }
            }
            Kind::Punctuation(b'=') if depth == 0 => return false,
            Kind::Directive => {}
            _ if depth == 0 => last = None,
            _ => {}
        }
    }
    last == Some(b')')
}

/// The position of the body's brace in the tokens of a function's definition: it ends with its body, and nothing
/// else does.
fn body(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0usize;
    let closed = matches!(tokens.last()?.kind, Kind::Punctuation(b'}'));
    let opens = |token: &Token| match token.kind {
        Kind::Punctuation(b'}') => {
            depth += 1;
            false
        }
        Kind::Punctuation(b'{') => {
            depth = depth.saturating_sub(1);
            depth == 0
        }
        _ => false,
    };
    if closed { tokens.iter().rposition(opens) } else { None }
}

pub(crate) fn is_attribute(word: &[u8]) -> bool {
    matches!(word, b"__attribute__" | b"__attribute" | b"asm" | b"__asm__" | b"__asm" | b"_Alignas")
}

/// Words that are never the name of a declarator.
pub(crate) fn is_keyword(word: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 34] = [
        b"struct",
        b"union",
        b"enum",
        b"const",
        b"volatile",
        b"static",
        b"extern",
        b"inline",
        b"__inline",
        b"__inline__",
        b"int",
        b"char",
        b"short",
        b"long",
        b"unsigned",
        b"signed",
        b"void",
        b"_Bool",
        b"float",
        b"double",
        b"register",
        b"restrict",
        b"__restrict",
        b"__restrict__",
        b"__const",
        b"__volatile__",
        b"__volatile",
        b"__signed__",
        b"__int128",
        b"__extension__",
        b"_Noreturn",
        b"typedef",
        b"__thread",
        b"_Thread_local",
    ];
    KEYWORDS.contains(&word)
}

fn all_words(tokens: &[Token]) -> Vec<u32> {
    let word = |token: &Token| match token.kind {
        Kind::Word(name) => Some(name),
        _ => None,
    };
    tokens.iter().filter_map(word).collect()
}

/// The position after the bracket that closes the one at `open`.
pub(crate) fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(b')' | b']' | b'}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Tags of structures and unions that have a body here, at any depth; tags and constants of enumerations.
fn tags(lexed: &Lexed<'_>, tokens: &[Token]) -> Vec<u32> {
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Kind::Word(_) = token.kind else { continue };
        let keyword = lexed.text(token);
        if !matches!(keyword, b"struct" | b"union" | b"enum") {
            continue;
        }
        let mut next = at + 1;
        let mut tag = None;
        while let Some(token) = tokens.get(next) {
            match token.kind {
                Kind::Word(_) if is_attribute(lexed.text(token)) => next = after_group(tokens, next + 1),
                Kind::Word(name) if tag.is_none() => {
                    tag = Some(name);
                    next += 1;
                }
                _ => break,
            }
        }
        if matches!(tokens.get(next).map(|token| token.kind), Some(Kind::Punctuation(b'{'))) {
            names.extend(tag);
            if keyword == b"enum" {
                names.extend(all_words(&tokens[next..after_group(tokens, next)]));
            }
        }
    }
    names
}

/// Collects the names of declarators, and what stands beside them.
fn declarators(
    lexed: &Lexed<'_>,
    tokens: &[Token],
    body: Option<usize>,
    words: &mut Words,
    names: &mut Vec<u32>,
) -> Declarators {
    let mut state = Declarators::default();
    let mut is_tag = false;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let mut next = at + 1;
        match token.kind {
            Kind::Word(name) => {
                let word = lexed.text(token);
                if is_attribute(word) {
                    next = after_group(tokens, at + 1);
                    attribute(lexed, &tokens[at..next], words);
                } else {
                    match word {
                        b"static" => words.is_static = true,
                        b"extern" => words.is_extern = true,
                        b"typedef" => words.is_typedef = true,
                        _ => {}
                    }
                    if is_tag {
                        // Not the name of a declarator; alone it declares nothing that has a size.
                        state.last = None;
                    } else if !is_keyword(word) {
                        if state.named {
                            // `_Atomic(int) v`: what was taken for a name was none.
                            names.push(name);
                            state.variable = true;
                        }
                        state.last = Some(name);
                    }
                    is_tag = matches!(word, b"struct" | b"union" | b"enum");
                }
            }
            Kind::Punctuation(b'(') => {
                next = after_group(tokens, at);
                let is_typeof = at > 0
                    && matches!(
                        lexed.text(&tokens[at - 1]),
                        b"typeof" | b"__typeof__" | b"__typeof" | b"typeof_unqual" | b"__auto_type"
                    );
                let starts_name = matches!(
                    tokens.get(at + 1).map(|token| token.kind),
                    Some(Kind::Punctuation(b'*' | b'(' | b'^'))
                );
                if is_typeof {
                    state.last = None;
                } else if starts_name && !state.named {
                    // A name in brackets, as of a pointer to a function; its parameters come along.
                    names.extend(all_words(&tokens[at..next]));
                    names.extend(state.last);
                    state.named = true;
                    state.variable = true;
                } else {
                    // Where brackets may hold the declarator's name, `u32 (f)(void)`, they count as if they did.
                    let inner = &tokens[at + 1..next.saturating_sub(1).max(at + 1)];
                    let again = matches!(tokens.get(next).map(|t| t.kind), Some(Kind::Punctuation(b'(')));
                    let first = !state.named && (state.last.is_none() || again);
                    if first || matches!(inner, [one] if matches!(one.kind, Kind::Word(_))) {
                        names.extend(all_words(inner));
                    }
                    if !state.named {
                        names.extend(state.last);
                        state.named = true;
                        // In brackets without a star, or a macro's remains: not known to be a function.
                        state.variable |= state.last.is_none();
                    }
                }
            }
            Kind::Punctuation(b'{') => {
                next = after_group(tokens, at);
                if body == Some(at) {
                    return state;
                }
                // Members; the tag is none of the declarators.
                state.last = None;
                is_tag = false;
            }
            Kind::Punctuation(byte @ (b'[' | b'=' | b',' | b';' | b':')) => {
                if !state.named
                    && let Some(name) = state.last
                {
                    names.push(name);
                    state.named = true;
                    state.variable = true;
                }
                match byte {
                    b'[' => next = after_group(tokens, at),
                    b'=' => {
                        state.initialised = true;
                        next = after_initialiser(tokens, next);
                    }
                    b',' => {
                        state.named = false;
                        state.last = None;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        at = next;
    }
    state
}

/// The position of the comma or semicolon that ends an initialiser.
fn after_initialiser(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punctuation(b'(' | b'[' | b'{') => at = after_group(tokens, at),
            Kind::Punctuation(b',' | b';') => return at,
            _ => at += 1,
        }
    }
    at
}

fn attribute(lexed: &Lexed<'_>, tokens: &[Token], words: &mut Words) {
    for token in tokens.iter().filter(|token| matches!(token.kind, Kind::Word(_))) {
        let word = lexed.text(token);
        let bare = word.strip_prefix(b"__").and_then(|word| word.strip_suffix(b"__")).unwrap_or(word);
        words.gnu_inline |= bare == b"gnu_inline";
        words.kept |= KEEPING.contains(&bare);
        words.alias |= ALIASING.contains(&bare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names it declares, sorted, and whether it emits something.
    fn declared(text: &str) -> (Vec<String>, bool) {
        let lexed = Lexed::of(text.as_bytes());
        let declaration = Declaration::of(&lexed, 0..lexed.tokens.len());
        let mut names: Vec<String> = lexed
            .tokens
            .iter()
            .filter(|token| matches!(token.kind, Kind::Word(name) if declaration.names.contains(&name)))
            .map(|token| String::from_utf8(lexed.text(token).to_vec()).unwrap())
            .collect();
        names.sort();
        names.dedup();
        (names, declaration.emits)
    }

    #[test]
    fn names_and_definitions_are_found() {
        for (text, names, emits) in [
            ("int f(u32 a) { return a; }", &["f"][..], true),
            ("static inline struct s *f(void) { return 0; }", &["f"], false),
            ("struct s { int a; };", &["s"], false),
            ("struct s { struct t { int a; } b; } v;", &["s", "t", "v"], true),
            ("static struct s { int a; } v = { 1 }, *w;", &["s", "v", "w"], false),
            ("typedef struct { int a; } t, *u;", &["t", "u"], false),
            ("typedef int (*fn_t)(struct x *);", &["fn_t"], false),
            ("extern u32 v;", &["v"], false),
            ("u32 v;", &["v"], true),
            ("u32 v[N], w = 3;", &["v", "w"], true),
            ("extern u32 v = 3;", &["v"], true),
            ("u32 f(u32 a), g(void);", &["f", "g"], false),
            ("u32 (*p)(int);", &["p", "u32"], true),
            ("enum e { A, B = C };", &["A", "B", "C", "e"], false),
            ("struct s;", &[], false),
            ("struct __attribute__((packed)) s { int a; };", &["s"], false),
            ("struct s *v;", &["v"], true),
            ("extern __typeof__(struct s *) v __attribute__((section(\".x\")));", &["v"], false),
            ("static __attribute__((section(\".x\"))) int v;", &["v"], true),
            ("static int f(void) __attribute__((alias(\"g\")));", &["f"], true),
            ("int f(void) __asm__(\"g\");", &["f"], false),
            ("u32 (f)(void);", &["f", "u32"], false),
            ("extern u32 (v);", &["u32", "v"], false),
            ("static int (f)(u32 a) { return a; }", &["f"], false),
            ("typedef int (name);", &["name"], false),
            ("static _Atomic(int) v;", &["_Atomic", "v"], false),
            ("static int f(void) {\n#pragma pack(1)\n return 1; }", &["f"], true),
            ("static int f(void) { _Pragma(\"pack(1)\") return 1; }", &["f"], true),
            (";", &[], false),
            ("asm(\"nop\");", &[], true),
        ] {
            let (found, found_emits) = declared(text);
            assert_eq!(found_emits, emits, "{text}");
            assert_eq!(found, names, "{text}");
        }
    }
}
