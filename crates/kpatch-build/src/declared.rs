//! Where a text declares a structure, a typedef, a function: for messages about what patches change.
//!
//! Brackets are counted and no macro is expanded, which is enough to name a line.

use bstr::ByteSlice as _;

/// The lines, from 1, of the declaration of a name: `struct NAME { … }`, `enum`, `union`, or any declaration outside of
/// brackets that has the name, such as a typedef or a prototype. `keyword` is `struct`, `union` or `enum` for the former.
pub(crate) fn lines(text: &[u8], keyword: Option<&str>, name: &str) -> Option<(u32, u32)> {
    let words = words(text);
    let mut first = None;
    let mut depth = 0usize;
    let (mut found, mut is_function) = (false, false);
    for (at, word) in words.iter().enumerate() {
        // A declaration begins behind the end of another.
        let start = *first.get_or_insert(word.line);
        match word.text {
            b"{" | b"(" | b"[" => {
                if depth == 0 {
                    is_function =
                        word.text == b"{" && at.checked_sub(1).is_some_and(|at| words[at].text == b")");
                }
                depth += 1;
            }
            b"}" | b")" | b"]" => depth = depth.saturating_sub(1),
            text if text == name.as_bytes() => {
                let before = at.checked_sub(1).and_then(|at| words.get(at)).map(|word| word.text);
                let opens = words.get(at + 1).is_some_and(|next| next.text == b"{");
                found |= match keyword {
                    Some(keyword) => before == Some(keyword.as_bytes()) && opens,
                    None => depth == 0,
                };
            }
            _ => {}
        }
        if depth == 0 && (word.text == b";" || word.text == b"}" && is_function) {
            if found {
                return Some((start, word.line));
            }
            first = None;
        }
    }
    None
}

struct Word<'t> {
    text: &'t [u8],
    line: u32,
}

/// The words and other bytes of C without comments, literals and directives.
fn words(text: &[u8]) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1u32);
    let mut begins_line = true;
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        let ends = |end: &[u8]| {
            rest.windows(end.len())
                .skip(1)
                .position(|window| window == end)
                .map(|found| found + 1 + end.len())
        };
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = match byte {
            b'/' if rest.starts_with(b"/*") => ends(b"*/").unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"//") => ends(b"\n").map_or(rest.len(), |end| end - 1),
            b'#' if begins_line => directive(rest),
            b'"' | b'\'' => literal(rest),
            _ if is_word(&byte) => rest.iter().take_while(|byte| is_word(byte)).count(),
            _ => 1,
        };
        let piece = &rest[..length];
        let is_blank = byte.is_ascii_whitespace();
        let is_aside = length > 1 && !is_word(&byte) || matches!(byte, b'"' | b'\'');
        if !is_blank && !is_aside {
            found.push(Word { text: piece, line });
        }
        begins_line = byte == b'\n' || begins_line && is_blank;
        line += piece.find_iter(b"\n").count() as u32;
        at += length;
    }
    found
}

/// The length of a directive with the lines that it goes on over, without the last line's end.
fn directive(text: &[u8]) -> usize {
    let mut before = b'\n';
    for (at, &byte) in text.iter().enumerate() {
        if byte == b'\n' && before != b'\\' {
            return at;
        }
        before = byte;
    }
    text.len()
}

/// The length of a string or character; one that its line does not end ends with it.
fn literal(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'\n' => return at,
            byte if Some(&byte) == text.first() => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#define struct_foo \\\n  struct foo { int no; };\n/* struct foo {\n */\nstruct foo;\n\
        static struct foo *get(char c); // struct foo {\nstruct bar {\n\tint a; /* ; */\n\tstruct foo *f;\n};\n\
        struct foo\n{\n\tconst char *s;\n\tint b;\n} __packed;\n\
        typedef struct {\n\tint x;\n} plain;\ntypedef struct foo\n\t*handle;\nint use(handle h)\n{\n\treturn h->b + ';';\n}\nextern int use2(int,\n\tint);\n";

    #[test]
    fn declarations_are_found() {
        let lines = |keyword, name| lines(TEXT.as_bytes(), keyword, name);
        assert_eq!(lines(Some("struct"), "foo"), Some((11, 15)));
        assert_eq!(lines(Some("struct"), "bar"), Some((7, 10)));
        assert_eq!(lines(None, "handle"), Some((19, 20)));
        assert_eq!(lines(None, "plain"), Some((16, 18)));
        assert_eq!(lines(None, "use"), Some((21, 24)));
        assert_eq!(lines(None, "use2"), Some((25, 26)));
        assert_eq!(lines(None, "get"), Some((6, 6)));
        assert_eq!(lines(None, "none"), None);
        assert_eq!(lines(Some("union"), "foo"), None);
    }

    #[test]
    fn no_text_is_too_strange() {
        for end in 0..TEXT.len() {
            for start in [0, end / 2] {
                let _ = lines(&TEXT.as_bytes()[start..end], Some("struct"), "foo");
            }
        }
    }
}
