//! Names that macros paste together.

use std::collections::BTreeSet;

use super::text::{WordSet, hash};

/// Pieces of which one name is made at most, and how many of them are a single character. Macros that paste paste two
/// or three; the names of such macros make of it what others began.
const PIECES: usize = 6;
const SINGLE: usize = 2;

/// A piece that a name can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    end: usize,
    hash: u64,
    /// It is there for everybody: macros bring it along, or numbers such as `__LINE__`.
    common: bool,
    /// Digits, such as `__LINE__` stands for.
    number: bool,
}

/// How a name can be pasted.
#[derive(Clone, Debug)]
pub(super) struct Pasting {
    length: usize,
    /// In the order of their starts.
    parts: Vec<Part>,
}

/// What is known about the text up to a position: a bit for each combination of how many pieces it is made of, how
/// many of them are single characters, and whether one of them is a text's own.
type States = u64;

fn state(pieces: usize, single: usize, own: bool) -> States {
    1 << ((pieces * (SINGLE + 1) + single) * 2 + usize::from(own))
}

impl Pasting {
    /// The ways to make a name of these pieces; `None` if there is none.
    pub(super) fn of(name: &[u8], common: &WordSet, own: &WordSet) -> Option<Pasting> {
        let mut parts = Vec::new();
        for start in 0..name.len() {
            for end in start + 1..=name.len() {
                let part = &name[start..end];
                let piece = hash(part);
                let number = part.iter().all(u8::is_ascii_digit);
                let is_common = number || common.contains(&piece);
                if part.len() < name.len() && (is_common || own.contains(&piece)) {
                    parts.push(Part { start, end, hash: piece, common: is_common, number });
                }
            }
        }
        let pasting = Pasting { length: name.len(), parts };
        pasting.made(|part| own.contains(&part.hash), |part| part.common).then_some(pasting)
    }

    /// The hashes of all pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.hash)
    }

    /// The hashes of pieces that can begin it.
    pub(super) fn first(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().filter(|part| part.start == 0).map(|part| part.hash)
    }

    /// True if the name can be made with a piece of `own`.
    pub(super) fn is_possible(&self, own: &BTreeSet<u64>) -> bool {
        self.made(|part| own.contains(&part.hash), |part| part.common)
    }

    /// True if it can be made where these pieces come together, with one of `own` among them.
    pub(super) fn is_possible_of(&self, own: &BTreeSet<u64>, pieces: &WordSet) -> bool {
        self.made(|part| own.contains(&part.hash), |part| part.number || pieces.contains(&part.hash))
    }

    /// True if it can be made of these pieces.
    pub(super) fn is_within(&self, pieces: &WordSet) -> bool {
        let ends = |part: &Part| part.end == self.length && (part.number || pieces.contains(&part.hash));
        // The last in the order of their starts.
        self.parts.iter().rev().any(ends) && self.made(|part| pieces.contains(&part.hash), |part| part.number)
    }

    fn made(&self, is_own: impl Fn(&Part) -> bool, is_there: impl Fn(&Part) -> bool) -> bool {
        let mut made: Vec<States> = vec![0; self.length + 1];
        made[0] = state(0, 0, false);
        for part in &self.parts {
            let before = made[part.start];
            if before == 0 {
                continue;
            }
            let own = is_own(part);
            if !own && !is_there(part) {
                continue;
            }
            let length = usize::from(part.end - part.start == 1);
            for pieces in 0..PIECES {
                for single in 0..=SINGLE - length {
                    for already in [false, true] {
                        if before & state(pieces, single, already) != 0 {
                            made[part.end] |= state(pieces + 1, single + length, already || own);
                        }
                    }
                }
            }
        }
        let complete = (0..=PIECES).flat_map(|pieces| (0..=SINGLE).map(move |single| (pieces, single)));
        complete.into_iter().any(|(pieces, single)| made[self.length] & state(pieces, single, true) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_pieces() {
        let set = |words: &[&str]| words.iter().map(|word| hash(word.as_bytes())).collect::<WordSet>();
        let possible = |name: &str, common: &[&str], own: &[&str]| {
            let own_set = own.iter().map(|word| hash(word.as_bytes())).collect();
            Pasting::of(name.as_bytes(), &set(common), &set(own)).is_some_and(|p| p.is_possible(&own_set))
        };
        assert!(possible("page_lock", &["page_"], &["lock"]));
        assert!(possible("page_lock", &["_"], &["lock", "page"]));
        assert!(possible("read_8", &[], &["read_"]));
        assert!(!possible("page_lock", &["page_", "lock"], &["x"]));
        assert!(!possible("page_lock", &["page_"], &["page_lock"]));
        assert!(!possible("page_lock", &["p", "a", "g", "e"], &["_lock"]));
        assert!(!possible("", &[], &[]));
    }
}
