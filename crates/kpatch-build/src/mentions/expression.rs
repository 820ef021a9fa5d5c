//! Macros that stand for an expression or a statement where other configurations have a function:
//! `#define f(x) do { } while (0)` beside `void f(int x);`. Where such a macro holds, the declaration would be no C; so
//! the declaration declares the name itself.

use crate::slice::declaration;
use crate::slice::lexer::{Kind, Lexed, Token};

/// Words that begin a statement or an expression.
const BEGINNINGS: [&[u8]; 8] =
    [b"do", b"while", b"if", b"for", b"switch", b"return", b"sizeof", b"__builtin_constant_p"];

/// True if what a macro stands for can be no declarator and no part of one. False where in doubt.
pub(super) fn is_expression(lexed: &Lexed<'_>, body: &[Token]) -> bool {
    let Some(first) = body.first() else { return false };
    match first.kind {
        Kind::Word(_) => BEGINNINGS.contains(&lexed.text(first)),
        Kind::Constant => true,
        Kind::Punctuation(byte) if is_operator(byte) => true,
        Kind::Punctuation(b'(') => {
            declaration::after_group(body, 0) == body.len() && is_expression_within(lexed, &body[1..])
        }
        _ => false,
    }
}

/// The same for what is in brackets. Attributes and the sizes of arrays, which may have operators in a declarator, have
/// brackets of their own.
fn is_expression_within(lexed: &Lexed<'_>, tokens: &[Token]) -> bool {
    let mut depth = 0u32;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            // A cast: no declarator begins with `(void)`.
            Kind::Punctuation(b'(') if at == 0 => {
                if tokens.get(1).is_some_and(|token| lexed.text(token) == b"void") {
                    return true;
                }
                depth += 1;
            }
            Kind::Punctuation(b'{') | Kind::Constant | Kind::String(_) if depth == 0 => return true,
            Kind::Punctuation(b'(' | b'[' | b'{') => depth += 1,
            Kind::Punctuation(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Kind::Punctuation(byte) if depth == 0 && is_operator(byte) => return true,
            _ => {}
        }
    }
    false
}

/// Neither `*`, which declarators have, nor `#` and `.`, by which macros paste and take arguments.
fn is_operator(byte: u8) -> bool {
    matches!(byte, b'!' | b'&' | b'|' | b'=' | b'?' | b'+' | b'-' | b'/' | b'%' | b'~' | b'<' | b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(body: &str) -> bool {
        let lexed = Lexed::of(body.as_bytes());
        is_expression(&lexed, &lexed.tokens)
    }

    #[test]
    fn what_no_declarator_can_be_is_an_expression() {
        for body in [
            "0",
            "-1",
            "!(x)",
            "do { } while (0)",
            "(0)",
            "(!(x) && y)",
            "((void)(x))",
            "((void)0)",
            "({ x; })",
            "(x + 1)",
            "(a(x) ? 1 : 2)",
            "(\"text\")",
            "(x)->y(z) + 1",
        ] {
            assert_eq!(is_one(body), body != "(x)->y(z) + 1", "{body}");
        }
        for body in [
            "",
            "x",
            "(x)",
            "*x",
            "(*x)",
            "another",
            "another(x)",
            "(x)(void)",
            "x[1]",
            "void x(int)",
            "(x[1 + 2])",
            "(__aligned(1 + 2) x)",
            "(void (*x)(int))",
            "__attribute__((aligned(8)))",
            "x##_y",
            "((x))",
            "{ }",
            "struct { int a; }",
        ] {
            assert!(!is_one(body), "{body}");
        }
    }
}
