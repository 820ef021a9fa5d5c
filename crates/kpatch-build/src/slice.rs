//! The part of a preprocessed unit that decides its code.
//!
//! A unit declares thousands of things that it never uses: a compiler makes nothing of a static function that nobody
//! calls, of a type that nobody has a value of. What it makes comes from the definitions with external linkage and
//! from whatever these mention, step by step. So when a header changes, a unit whose slice is the same before and
//! after compiles to the same code.
//!
//! Names are matched as plain words: a member or a local variable that happens to be called like a function counts
//! as a mention of it. So a slice holds too much, never too little. Where the text is not understood, it is all of it.

pub(crate) mod declaration;
pub(crate) mod lexer;

use std::ops::Range;

use declaration::Declaration;
use lexer::{Kind, Lexed};

/// Functions that compilers call of their own accord: to copy a structure, to clear an array, in place of another.
pub(crate) const IMPLICIT: [&[u8]; 12] = [
    b"memcpy",
    b"memmove",
    b"memset",
    b"memcmp",
    b"bcmp",
    b"strlen",
    b"strcpy",
    b"stpcpy",
    b"strchr",
    b"abort",
    b"__stack_chk_fail",
    b"__fentry__",
];

/// What `__builtin_memcpy` becomes where the compiler does not know better is a call of `memcpy`.
pub(crate) const BUILTIN: &[u8] = b"__builtin_";

/// A hash of the slice of a preprocessed unit. Line markers and white space do not count.
pub fn hash(text: &[u8]) -> blake3::Hash {
    let lexed = Lexed::of(text);
    let mut slice = Vec::new();
    match items(&lexed).filter(|_| !lexed.strange_directive) {
        Some(items) => {
            for (item, _) in items.iter().zip(reached(&lexed, &items)).filter(|(_, reached)| *reached) {
                push(&mut slice, &lexed, item.clone());
            }
        }
        None => push(&mut slice, &lexed, 0..lexed.tokens.len()),
    }
    blake3::hash(&slice)
}

fn push(slice: &mut Vec<u8>, lexed: &Lexed<'_>, item: Range<usize>) {
    let tokens = &lexed.tokens[item];
    for (at, token) in tokens.iter().enumerate() {
        slice.extend_from_slice(lexed.text(token));
        // `- -a` is not `--a`; between other tokens white space says nothing.
        let joined = tokens.get(at + 1).is_some_and(|next| token.is_operator() && token.touches(next));
        if !joined {
            slice.push(0);
        }
    }
    slice.push(b'\n');
}

/// Cuts the text into top-level declarations; `None` where brackets do not match, or where what begins a declaration
/// is nothing that this understands: parameters declared after their list, attributes in `[[ ]]`.
pub(crate) fn items(lexed: &Lexed<'_>) -> Option<Vec<Range<usize>>> {
    let mut items = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    let mut start = 0;
    let mut function = false;
    for (at, token) in lexed.tokens.iter().enumerate() {
        let mut ends = false;
        match token.kind {
            Kind::Punctuation(byte @ (b'(' | b'[' | b'{')) => {
                if open.is_empty() {
                    let attribute = byte == b'[' && lexed.is_punctuation(at + 1, b'[');
                    if attribute || byte == b'{' && start == at {
                        return None;
                    }
                    function = byte == b'{' && declaration::begins_body(lexed, &lexed.tokens[start..at]);
                }
                open.push(byte);
            }
            Kind::Punctuation(byte @ (b')' | b']' | b'}')) => {
                let opened = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                if open.pop() != Some(opened) {
                    return None;
                }
                ends = byte == b'}' && open.is_empty() && function;
            }
            Kind::Punctuation(b';') => ends = open.is_empty(),
            // In the middle of a declaration it belongs to that.
            Kind::Directive => ends = open.is_empty() && start == at,
            _ => {}
        }
        if ends {
            items.push(start..at + 1);
            start = at + 1;
            function = false;
        }
    }
    if start < lexed.tokens.len() {
        items.push(start..lexed.tokens.len());
    }
    open.is_empty().then_some(items)
}

/// Which items the code comes from.
fn reached(lexed: &Lexed<'_>, items: &[Range<usize>]) -> Vec<bool> {
    let implicit: Vec<u32> = IMPLICIT.iter().filter_map(|name| lexed.name(name)).collect();
    let mut declaring: Vec<(u32, u32)> = Vec::new();
    let mut open = Vec::new();
    for (id, item) in items.iter().enumerate() {
        let declaration = Declaration::of(lexed, item.clone());
        if declaration.emits || declaration.names.iter().any(|name| implicit.contains(name)) {
            open.push(id as u32);
        }
        declaring.extend(declaration.names.into_iter().map(|name| (name, id as u32)));
    }
    declaring.sort_unstable();
    declaring.dedup();
    let mut reached = vec![false; items.len()];
    let mut mentioned = vec![false; lexed.names()];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut reached[id as usize], true) {
            continue;
        }
        for token in &lexed.tokens[items[id as usize].clone()] {
            // A string can name a function too: alias("name").
            let (Kind::Word(name) | Kind::String(Some(name))) = token.kind else { continue };
            if std::mem::replace(&mut mentioned[name as usize], true) {
                continue;
            }
            let called = lexed.word(name).strip_prefix(BUILTIN).and_then(|called| lexed.name(called));
            for name in [Some(name), called].into_iter().flatten() {
                let first = declaring.partition_point(|(declared, _)| *declared < name);
                let of_name = declaring[first..].iter().take_while(|(declared, _)| *declared == name);
                open.extend(of_name.map(|(_, id)| *id));
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = r#"
        typedef unsigned int u32;
        struct unused { int a; };
        struct inner { u32 member; };
        struct outer { struct inner *inner; struct nested { int x; } nested; };
        enum { FIRST, SECOND = 5, };
        static inline __attribute__((__gnu_inline__)) int leaf(struct outer *o) { return o->inner->member; }
        static inline int lonely(struct unused *u) { return u->a + leaf(0); }
        extern inline __attribute__((__gnu_inline__)) int gone(void) { return 1; }
        extern int declared(int x);
        extern __attribute__((section(".data..percpu"))) __typeof__(struct unused *) variable;
        static int (*pointer)(struct nested *);
        static const struct outer table[] = { { .inner = 0 }, };
        int user(struct outer *o) { u32 x = leaf(o) + SECOND; return declared(x) + (pointer ? 1 : 0); }
        static __attribute__((__used__)) int kept(void) { return 3; }
        extern int other(void) __attribute__((alias("user")));
        asm(".globl x");
    "#;

    fn same(from: &str, to: &str) -> bool {
        assert!(UNIT.contains(from), "{from}");
        hash(UNIT.as_bytes()) == hash(UNIT.replace(from, to).as_bytes())
    }

    #[test]
    fn what_nobody_uses_does_not_count() {
        for (from, to) in [
            ("struct unused { int a; }", "struct unused { long b; }"),
            ("u->a + leaf(0)", "u->b * 7"),
            ("return 1;", "return 2;"),
            ("variable;", "renamed;"),
            (".inner = 0", ".inner = (void *)8"),
            ("struct inner {", "struct new { int x; };\n\n   struct   inner\n{"),
            ("typedef unsigned", "# 7 \"x.h\" 3\ntypedef unsigned"),
        ] {
            assert!(same(from, to), "{to}");
        }
    }

    #[test]
    fn what_is_used_counts_however_far_away() {
        for (from, to) in [
            ("typedef unsigned int", "typedef unsigned long"),
            ("u32 member", "int pad; u32 member"),
            ("struct inner *inner;", "int pad; struct inner *inner;"),
            ("int x; } nested", "long x; } nested"),
            ("SECOND = 5", "SECOND = 6"),
            ("FIRST,", "FIRST, MIDDLE,"),
            ("o->inner->member", "o->inner->member + 1"),
            ("declared(int x)", "declared(long x)"),
            ("(*pointer)(struct nested *)", "(*pointer)(void *)"),
            ("return 3;", "return 4;"),
            ("alias(\"user\")", "weak, alias(\"user\")"),
            (".globl x", ".globl y"),
            ("int user(", "#pragma pack(1)\nint user("),
            // In the middle of what nobody uses, too.
            ("struct unused { int a; }", "struct unused {\n#pragma pack(1)\n int a; }"),
            ("return 1;", "\n#pragma GCC optimize(0)\n return 1;"),
            ("return 1;", "_Pragma(\"pack(1)\") return 1;"),
            // `- -x` is something else than `--x`.
            ("return declared(x)", "return declared(- -x)"),
        ] {
            assert!(!same(from, to), "{to}");
        }
        assert_ne!(hash(b"int f(int x) { return --x; }"), hash(b"int f(int x) { return - -x; }"));
    }

    #[test]
    fn directives_keep_their_places() {
        let unit = |text: &str| hash(text.as_bytes());
        let before =
            unit("#pragma pack(1)\nstruct a { int x; }; struct b { int x; };\nstruct b f(struct a x) { }");
        let after =
            unit("struct a { int x; };\n#pragma pack(1)\nstruct b { int x; };\nstruct b f(struct a x) { }");
        assert_ne!(before, after);
        // This one names a function that nothing else mentions.
        let weak = |body: &str| {
            unit(&format!("static int g(void) {{ return {body}; }}\n#pragma weak f = g\nint h(void);"))
        };
        assert_ne!(weak("1"), weak("2"));
    }

    #[test]
    fn builtin_functions_are_mentioned_by_their_other_name() {
        let unit = |label: &str| {
            let text = format!(
                "extern int puts(const char *) __asm__(\"{label}\"); void f(void) {{ __builtin_puts(\"\"); }}"
            );
            hash(text.as_bytes())
        };
        assert_ne!(unit("a"), unit("b"));
    }

    #[test]
    fn text_that_is_not_understood_counts_as_a_whole() {
        let broken = |text: &str| hash(format!("int f(void) {{ return 1; }} ) {text}").as_bytes());
        assert_ne!(broken("struct unused { int a; };"), broken("struct unused { int b; };"));
        assert_eq!(broken("struct  unused { int a; };"), broken("struct unused { int a ; };"));
        for strange in ["int k(a) int a; { return a; }", "[[x]] int f(void) { } struct unused { int a; };"] {
            assert_ne!(
                hash(strange.as_bytes()),
                hash(strange.replace("int a", "long a").as_bytes()),
                "{strange}"
            );
        }
    }

    #[test]
    fn cut_and_hostile_text_is_no_danger() {
        for length in 0..UNIT.len() {
            let _ = hash(&UNIT.as_bytes()[..length]);
            let _ = hash(&UNIT.as_bytes()[length..]);
        }
        for text in [&b"\"\\"[..], b"'", b"L\"", b"/", b"#", b"}{", b"\xff\xfe", b"enum {", b"struct"] {
            let _ = hash(text);
        }
    }
}
