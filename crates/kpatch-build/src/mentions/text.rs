//! Source text as the preprocessor sees it before it does anything: comments are blanks, and lines that end in a
//! backslash go on. And words by their hashes.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// A map by the hashes of words.
pub(super) type WordMap<T> = HashMap<u64, T, FixedState>;

/// A set of hashes of words.
pub(super) type WordSet = HashSet<u64, FixedState>;

/// A word's hash. Words are told apart by it alone: where two happen to agree, something is taken for mentioned that
/// is not.
pub(super) fn hash(word: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(word)
}

/// Comments become blanks, continued lines are joined.
pub(super) fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    // The quote of the string or character that this is inside of.
    let mut quote = None;
    while let Some(&byte) = text.get(at) {
        if byte == b'\\' {
            if let Some(next) = after_continuation(text, at) {
                at = next;
                continue;
            }
            if quote.is_some()
                && let Some(&next) = text.get(at + 1)
            {
                out.extend([byte, next]);
                at += 2;
                continue;
            }
        }
        match (byte, quote) {
            (b'\n', _) => quote = None,
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b'/', None) if text.get(at + 1) == Some(&b'*') => {
                let rest = &text[at + 2..];
                let end = rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 2);
                at += 2 + end;
                out.push(b' ');
                continue;
            }
            (b'/', None) if text.get(at + 1) == Some(&b'/') => {
                at = after_line(text, at);
                continue;
            }
            _ => {}
        }
        out.push(byte);
        at += 1;
    }
    out
}

/// The position after a backslash that ends its line, blanks allowed, as gcc does.
fn after_continuation(text: &[u8], backslash: usize) -> Option<usize> {
    let blanks = text[backslash + 1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
    let newline = backslash + 1 + blanks;
    (text.get(newline) == Some(&b'\n')).then_some(newline + 1)
}

/// The position of the newline that ends a `//` comment, which continues like any line.
fn after_line(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\n' => return at,
            b'\\' => at = after_continuation(text, at).unwrap_or(at + 1),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_joined_lines_are_gone() {
        let text = b"a/* b\n c */d // e \\\n f\ng \"/* no */\" '\"' h \"\\\"//\" \\\ni /* open";
        assert_eq!(plain(text), b"a d \ng \"/* no */\" '\"' h \"\\\"//\" i  ");
        // An apostrophe ends with its line.
        assert_eq!(plain(b"#error don't\n/* x */y"), b"#error don't\n y");
        for length in 0..text.len() {
            let _ = plain(&text[..length]);
        }
    }
}
