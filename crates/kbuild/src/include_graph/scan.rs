//! What a source file says about others: its `#include` directives and the macros that such directives use.

use bstr::ByteSlice;

/// The target of an `#include`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Include {
    /// `"x.h"`: searched beside the including file first.
    Quoted(String),
    /// `<x.h>`.
    Angled(String),
}

impl Include {
    /// The path that is searched for.
    pub(super) fn path(&self) -> &str {
        match self {
            Include::Quoted(path) | Include::Angled(path) => path,
        }
    }
}

/// A file's directives, conditions ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    /// What it includes.
    pub(super) includes: Vec<Include>,
    /// Macros that stand for a file in an `#include`, here or elsewhere: `#define HEADER <x.h>`.
    pub(super) defined: Vec<Include>,
    /// The value of `TRACE_INCLUDE_FILE`, by which trace headers have themselves included again.
    pub(super) trace_file: Option<String>,
    /// The value of `TRACE_INCLUDE_PATH`.
    pub(super) trace_path: Option<String>,
}

/// Reads all directives of a file. Comments and conditions are not understood, so it finds too much, never too
/// little.
pub(super) fn scan(text: &[u8]) -> Directives {
    let mut directives = Directives::default();
    let mut rest = text;
    while let Some(position) = rest.find_byte(b'#') {
        let (before, after) = (&rest[..position], &rest[position + 1..]);
        rest = after;
        // A directive is the first thing on its line, but for blanks and the end of a comment.
        let line_start = before.rfind_byte(b'\n').map_or(0, |newline| newline + 1);
        let lead = &before[line_start..];
        if !lead.iter().all(|b| matches!(b, b' ' | b'\t' | 0x0b | 0x0c))
            && !lead.trim_ascii_end().ends_with(b"*/")
        {
            continue;
        }
        directive(trim_start(after), &mut directives);
    }
    directives
}

fn directive(text: &[u8], directives: &mut Directives) {
    if let Some(rest) = text.strip_prefix(b"include") {
        let rest = rest.strip_prefix(b"_next").unwrap_or(rest);
        directives.includes.extend(target(trim_start(rest)));
    } else if let Some(rest) = text.strip_prefix(b"define") {
        let rest = trim_start(rest);
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(rest.len());
        let (name, value) = rest.split_at(end);
        let value = trim_start(value);
        match name {
            b"TRACE_INCLUDE_FILE" => directives.trace_file = word(value),
            b"TRACE_INCLUDE_PATH" => directives.trace_path = word(value),
            _ => directives.defined.extend(target(value).filter(|target| {
                // A string that names no file is no file's name.
                [".h", ".c", ".inc", ".def"].iter().any(|suffix| target.path().ends_with(suffix))
            })),
        }
    }
}

/// `"x.h"` or `<x.h>` at the start of a text.
fn target(text: &[u8]) -> Option<Include> {
    let (open, rest) = text.split_first()?;
    let close = match open {
        b'"' => b'"',
        b'<' => b'>',
        _ => return None,
    };
    let end = rest.iter().position(|&b| b == close || b == b'\n')?;
    let path = std::str::from_utf8(&rest[..end]).ok()?;
    if rest[end] != close || path.is_empty() {
        return None;
    }
    Some(if close == b'"' { Include::Quoted(path.to_owned()) } else { Include::Angled(path.to_owned()) })
}

/// The text up to the next blank.
fn word(text: &[u8]) -> Option<String> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let word = std::str::from_utf8(&text[..end]).ok()?;
    (!word.is_empty()).then(|| word.to_owned())
}

/// Skips blanks, comments and joined lines.
fn trim_start(mut text: &[u8]) -> &[u8] {
    loop {
        match text {
            [b' ' | b'\t' | 0x0b | 0x0c, rest @ ..] | [b'\\', b'\n', rest @ ..] => text = rest,
            [b'/', b'*', rest @ ..] => match rest.find(b"*/") {
                Some(end) => text = &rest[end + 2..],
                None => return rest,
            },
            _ => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_form_of_directive() {
        let text = b"#include <linux/a.h>\n  # include \"b.h\" // c\n#include_next <next.h>\n\
                     /* x */ #include \"after.h\"\n# /* y */ include/**/<glued.h>\n#\\\ninclude <joined.h>\n\
                     #include MACRO\n#include <broken\nint a; # not this\n#define HEADER \"h.h\"\n\
                     #define NAME \"text\"\n#undef TRACE_INCLUDE_FILE\n#define TRACE_INCLUDE_FILE sched\n\
                     #define TRACE_INCLUDE_PATH ../../fs/x\n#if 0\n#include <off.h>\n#endif";
        let found = scan(text);
        let includes: Vec<&str> = found.includes.iter().map(Include::path).collect();
        assert_eq!(includes, ["linux/a.h", "b.h", "next.h", "after.h", "glued.h", "joined.h", "off.h"]);
        assert_eq!(found.includes[1], Include::Quoted("b.h".into()));
        assert_eq!(found.defined, [Include::Quoted("h.h".into())]);
        assert_eq!(found.trace_file.as_deref(), Some("sched"));
        assert_eq!(found.trace_path.as_deref(), Some("../../fs/x"));
    }

    #[test]
    fn cut_and_hostile_text_is_no_danger() {
        let text = b"#include \"a\n#include <\n#include\n#define\n#\n/*#include <x.h>\n# /*";
        for length in 0..=text.len() {
            let _ = scan(&text[..length]);
        }
        assert!(scan(b"#include \"\xff.h\"\n").includes.is_empty());
    }
}
