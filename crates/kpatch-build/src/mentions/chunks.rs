//! A source file cut into declarations and directives without preprocessing it: all branches of conditions are read.

use super::text;
use crate::slice::BUILTIN;
use crate::slice::declaration;
use crate::slice::lexer::{Kind, Lexed, Token};

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is<'t> {
    /// `#define` or `#undef` of that macro.
    Macro(&'t [u8]),
    /// `#include`.
    Include,
    /// Any other directive that is no condition: a pragma.
    Directive,
    /// A declaration or a definition, several where the text does not tell them apart.
    Declaration,
}

/// Something at the top level of a file.
#[derive(Clone, Debug)]
pub(super) struct Chunk<'t> {
    /// What it is.
    pub(super) is: Is<'t>,
    /// Its tokens; a directive is one.
    pub(super) tokens: Vec<Token>,
    /// The directives of the conditions that it stands in, and of those within it.
    pub(super) conditions: Vec<Token>,
}

/// A file's chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks<'t> {
    /// In their order.
    pub(super) list: Vec<Chunk<'t>>,
    /// Brackets do not match, or not in all branches of a condition: the chunks mean nothing.
    pub(super) broken: bool,
    /// The targets of `#include` in the middle of a declaration, and of those after the place that breaks the file.
    pub(super) spliced: Vec<&'t [u8]>,
}

/// `#name rest`.
pub(super) fn directive(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.strip_prefix(b"#").unwrap_or(text).trim_ascii();
    let end = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    (name, rest.trim_ascii())
}

/// The identifier at the start of a text.
pub(super) fn identifier(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_' && *byte != b'$');
    &text[..end.unwrap_or(text.len())]
}

/// A condition that is open.
struct Condition {
    /// Its directives so far: `#if`, `#elif`, `#else`.
    directives: Vec<Token>,
    /// The brackets that were open before it.
    before: Vec<u8>,
    /// The brackets that were open at the end of its first branch.
    after: Option<Vec<u8>>,
    /// It has an `#else`.
    complete: bool,
    /// C++: nobody reads it.
    foreign: bool,
}

/// Cuts a text, see [`text::plain`], that was cut into tokens.
pub(super) fn of<'t>(lexed: &Lexed<'t>) -> Chunks<'t> {
    let mut cut = Cut { chunks: Chunks::default(), conditions: Vec::new(), open: Vec::new() };
    let mut current = cut.begin();
    let mut function = false;
    for &token in &lexed.tokens {
        if cut.conditions.iter().any(|condition| condition.foreign) && token.kind != Kind::Directive {
            continue;
        }
        match token.kind {
            // `_Pragma` is a token of a declaration.
            Kind::Directive if lexed.text(&token).first() == Some(&b'#') => {
                let (name, rest) = directive(lexed.text(&token));
                match name {
                    b"if" | b"ifdef" | b"ifndef" | b"elif" | b"elifdef" | b"elifndef" | b"else"
                    | b"endif" => {
                        cut.condition(name, rest, token);
                        if current.tokens.is_empty() {
                            current = cut.begin();
                        } else {
                            current.conditions.push(token);
                        }
                    }
                    b"define" | b"undef" => {
                        let is = Is::Macro(identifier(rest));
                        cut.chunks.list.push(Chunk { is, tokens: vec![token], ..cut.begin() });
                    }
                    b"include" | b"include_next" => {
                        // What stands before the first bracket without its twin is as it looks.
                        if !is_calls(&current.tokens) || !cut.open.is_empty() || cut.chunks.broken {
                            cut.chunks.spliced.push(rest);
                        }
                        cut.chunks.list.push(Chunk { is: Is::Include, tokens: vec![token], ..cut.begin() });
                    }
                    // They say nothing to who compiles without errors.
                    b"error" | b"warning" | b"" => {}
                    _ => {
                        cut.chunks.list.push(Chunk { is: Is::Directive, tokens: vec![token], ..cut.begin() });
                        if !current.tokens.is_empty() {
                            current.tokens.push(token);
                        }
                    }
                }
                continue;
            }
            Kind::Punctuation(byte @ (b'(' | b'[' | b'{')) => {
                if cut.open.is_empty() {
                    function = byte == b'{' && declaration::begins_body(lexed, &current.tokens);
                }
                cut.open.push(byte);
            }
            Kind::Punctuation(byte @ (b')' | b']' | b'}')) => {
                let opened = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                cut.chunks.broken |= cut.open.pop() != Some(opened);
            }
            _ => {}
        }
        current.tokens.push(token);
        let ends = match token.kind {
            Kind::Punctuation(b';') => true,
            Kind::Punctuation(b'}') => function,
            _ => false,
        };
        if ends && cut.open.is_empty() {
            let next = cut.begin();
            cut.chunks.list.push(std::mem::replace(&mut current, next));
            function = false;
        }
    }
    if !current.tokens.is_empty() {
        cut.chunks.list.push(current);
    }
    let mut chunks = cut.chunks;
    chunks.broken |= !cut.open.is_empty() || !cut.conditions.is_empty();
    chunks
}

/// True for nothing but `NAME(...)`, which macros that bring their own semicolon look like: what follows them stands
/// for itself.
fn is_calls(tokens: &[Token]) -> bool {
    let (mut open, mut named) = (0u32, false);
    tokens.iter().all(|token| match token.kind {
        Kind::Punctuation(b'(') => {
            open += 1;
            open > 1 || std::mem::take(&mut named)
        }
        Kind::Punctuation(b')') => {
            open = open.saturating_sub(1);
            true
        }
        _ if open > 0 => true,
        Kind::Word(_) => !std::mem::replace(&mut named, true),
        _ => false,
    }) && !named
}

struct Cut<'t> {
    chunks: Chunks<'t>,
    conditions: Vec<Condition>,
    /// Open brackets.
    open: Vec<u8>,
}

impl<'t> Cut<'t> {
    /// An empty declaration in the conditions that hold here.
    fn begin(&self) -> Chunk<'t> {
        let conditions = self.conditions.iter().flat_map(|condition| condition.directives.iter().copied());
        Chunk { is: Is::Declaration, tokens: Vec::new(), conditions: conditions.collect() }
    }

    fn condition(&mut self, name: &[u8], rest: &[u8], token: Token) {
        match name {
            b"if" | b"ifdef" | b"ifndef" => self.conditions.push(Condition {
                directives: vec![token],
                before: self.open.clone(),
                after: None,
                complete: false,
                foreign: name == b"ifdef" && identifier(rest) == b"__cplusplus"
                    || name == b"if" && rest == b"defined(__cplusplus)",
            }),
            b"endif" => {
                let Some(condition) = self.conditions.pop() else {
                    self.chunks.broken = true;
                    return;
                };
                let first = condition.after.as_ref().unwrap_or(&self.open);
                let agree = *first == self.open && (condition.complete || *first == condition.before);
                self.chunks.broken |= !agree;
            }
            _ => {
                let Some(condition) = self.conditions.last_mut() else {
                    self.chunks.broken = true;
                    return;
                };
                condition.directives.push(token);
                condition.complete |= name == b"else";
                condition.foreign = false;
                let open = std::mem::replace(&mut self.open, condition.before.clone());
                match &condition.after {
                    Some(after) => self.chunks.broken |= *after != open,
                    None => condition.after = Some(open),
                }
            }
        }
    }
}

/// Calls `found` with each word of some tokens, those in directives included, and by the other name of what the
/// compiler has built in.
pub(super) fn words<'t>(lexed: &Lexed<'t>, tokens: &[Token], found: &mut impl FnMut(&'t [u8])) {
    for token in tokens {
        match token.kind {
            Kind::Word(name) | Kind::String(Some(name)) => {
                let word = lexed.word(name);
                found(word);
                if let Some(called) = word.strip_prefix(BUILTIN) {
                    found(called);
                }
            }
            Kind::Directive => {
                let text = lexed.text(token);
                // The `#` would begin a directive again; `_Pragma` would never end.
                if let Some(text) = text.strip_prefix(b"#")
                    && !names_file(text)
                {
                    let inner = Lexed::of(text);
                    words(&inner, &inner.tokens, found);
                }
            }
            _ => {}
        }
    }
}

/// True for an `#include` whose target is no macro: the name of a file mentions nothing.
fn names_file(text: &[u8]) -> bool {
    let (name, rest) = directive(text);
    matches!(name, b"include" | b"include_next") && matches!(rest.first(), Some(b'<' | b'"'))
}

/// What tells a chunk from others: its text and its conditions.
pub(super) fn identity(lexed: &Lexed<'_>, chunk: &Chunk<'_>) -> u64 {
    let mut all = Vec::new();
    for tokens in [&chunk.tokens, &chunk.conditions] {
        for token in tokens {
            all.extend_from_slice(lexed.text(token).trim_ascii());
            // White space within a directive counts, which does no harm.
            all.push(0);
        }
        all.push(1);
    }
    text::hash(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the chunks are, each with the words of its tokens and of its conditions.
    fn cut(text: &str) -> (Vec<String>, bool, usize) {
        let plain = text::plain(text.as_bytes());
        let lexed = Lexed::of(&plain);
        let chunks = of(&lexed);
        let shown = |tokens: &[Token]| {
            let words: Vec<_> = tokens.iter().map(|t| String::from_utf8_lossy(lexed.text(t))).collect();
            words.join(" ")
        };
        let list = chunks.list.iter().map(|chunk| {
            let conditions = shown(&chunk.conditions);
            let text = shown(&chunk.tokens);
            if conditions.is_empty() { text } else { format!("{text} | {conditions}") }
        });
        (list.collect(), chunks.broken, chunks.spliced.len())
    }

    #[test]
    fn declarations_and_directives_are_chunks() {
        let text = "#define A \\\n 1\nstatic int f(int x) /* ; */ { if (x) { return 1; } return 2; }\n\
                    struct s {\n#ifdef B\n int a;\n#else\n int b;\n#endif\n#define C c\n};\n\
                    #if D\n#include <x.h>\nint v;\n#elif E\nint w;\n#endif\n#pragma pack(1)\n";
        let (chunks, broken, spliced) = cut(text);
        assert_eq!(
            chunks,
            [
                "#define A  1",
                "static int f ( int x ) { if ( x ) { return 1 ; } return 2 ; }",
                "#define C c",
                "struct s { int a ; int b ; } ; | #ifdef B #else #endif",
                "#include <x.h> | #if D",
                "int v ; | #if D",
                "int w ; | #if D #elif E",
                "#pragma pack(1)",
            ]
        );
        assert!(!broken && spliced == 0);
    }

    #[test]
    fn the_name_of_a_file_has_no_words() {
        let text = "#include <linux/a.h>\n#include \"b.h\"\n# include C(d)\n#include_next <e.h>\n";
        let lexed = Lexed::of(text.as_bytes());
        let mut found = Vec::new();
        words(&lexed, &lexed.tokens, &mut |word| found.push(String::from_utf8_lossy(word).into_owned()));
        assert_eq!(found, ["include", "C", "d"]);
    }

    #[test]
    fn branches_have_the_same_brackets_or_mean_nothing() {
        assert!(!cut("#if A\nint f(int x) {\n#else\nint g(void) {\n#endif\n}\n").1);
        assert!(!cut("#ifdef __cplusplus\nextern \"C\" {\n#endif\nint a;\n").1);
        for broken in [
            "#if A\nint f(int x) {\n#endif\n}\n",
            "#if A\n{\n#else\n#endif\n}\n",
            "int f(;",
            "int f);",
            "#if A\n",
            "#endif\n",
            "#else\n",
        ] {
            assert!(cut(broken).1, "{broken}");
        }
        assert_eq!(cut("#include <a.h>\nint f {\n#include <b.h>\n").2, 1);
        assert_eq!(cut("#include <a.h>\n#if A\n{\n#endif\n#include <b.h>\n").2, 1);
        assert_eq!(cut("#include <a.h>\n}\n#include <b.h>\n").2, 1);
        assert_eq!(cut("DECLARE(a)\nOTHER(b, (c))\n#include <a.h>\nint v;\n").2, 0);
        assert_eq!(cut("struct __packed(4)\n#include <a.h>\nint v;\n").2, 1);
        assert_eq!(cut("extern\n#include <a.h>\nint v;\n").2, 1);
        assert_eq!(cut("int t[] = {\n#include \"a.h\"\n};\n#include <b.h>\n").2, 1);
    }
}
