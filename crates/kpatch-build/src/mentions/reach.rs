//! Which pieces of names come together in one place of a text: its own, and those of the macros that its words lead to.

use rayon::prelude::*;

use super::flow::Flows;
use super::macros::{Options, Piece};
use super::pasting::Pasting;
use super::text::{WordMap, WordSet, hash};

/// The macros whose names can be pasted, by the first piece of the name.
#[derive(Debug, Default)]
pub(super) struct Makeable {
    by_first: WordMap<Vec<u32>>,
    /// The hash of each name, and how it is made.
    all: Vec<(u64, Pasting)>,
}

impl Makeable {
    /// The macros whose names can be made of these pieces.
    pub(super) fn of(flows: &Flows, pieces: &WordSet) -> Makeable {
        let mut names: Vec<&[u8]> =
            flows.macros.names().filter_map(|name| flows.macros.spelling(name)).collect();
        names.sort_unstable();
        let made = names.par_iter().filter_map(|name| Some((hash(name), Pasting::of(name, pieces, pieces)?)));
        let all: Vec<(u64, Pasting)> = made.collect();
        let mut by_first: WordMap<Vec<u32>> = WordMap::default();
        for (at, (_, pasting)) in all.iter().enumerate() {
            for piece in pasting.first() {
                by_first.entry(piece).or_default().push(at as u32);
            }
        }
        Makeable { by_first, all }
    }

    /// All pieces that may be pasted where these words stand, of which `own` may be.
    pub(super) fn pieces(
        &self,
        flows: &Flows,
        options: Options,
        words: &WordSet,
        own: impl IntoIterator<Item = u64>,
    ) -> WordSet {
        let mut search = Search {
            flows,
            options,
            pieces: WordSet::default(),
            reached: WordSet::default(),
            open: Vec::new(),
        };
        for &word in words {
            search.reach(word);
        }
        for piece in own {
            search.paste(piece);
        }
        search.follow();
        let mut made = WordSet::default();
        loop {
            let before = made.len();
            let firsts: Vec<u64> = search.pieces.iter().copied().collect();
            for at in firsts.iter().filter_map(|piece| self.by_first.get(piece)).flatten() {
                let (name, pasting) = &self.all[*at as usize];
                if !made.contains(name) && pasting.is_within(&search.pieces) {
                    made.insert(*name);
                    // What it stands for may be pasted again.
                    search.paste(*name);
                }
            }
            search.follow();
            if made.len() == before {
                return search.pieces;
            }
        }
    }
}

struct Search<'m> {
    flows: &'m Flows,
    options: Options,
    pieces: WordSet,
    reached: WordSet,
    open: Vec<u64>,
}

impl Search<'_> {
    fn reach(&mut self, word: u64) {
        if self.reached.insert(word) {
            self.open.push(word);
        }
    }

    /// A piece is pasted as it stands, or as what it stands for.
    fn paste(&mut self, piece: u64) {
        let mut open = vec![piece];
        while let Some(piece) = open.pop() {
            if !self.pieces.insert(piece) {
                continue;
            }
            self.reach(piece);
            for definition in self.flows.macros.expansions(piece, self.options) {
                open.extend(definition.body.iter().filter_map(|piece| match piece {
                    Piece::Word(word) | Piece::Number(word) => Some(*word),
                    _ => None,
                }));
            }
        }
    }

    fn follow(&mut self) {
        let flows = self.flows;
        while let Some(word) = self.open.pop() {
            let definitions = flows.macros.expansions(word, self.options);
            for piece in definitions.iter().flat_map(|definition| &definition.body) {
                if let Piece::Word(word) = piece {
                    self.reach(*word);
                }
            }
            if !definitions.is_empty() {
                for &piece in flows.of_body(word) {
                    self.paste(piece);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mentions::macros::Macros;

    /// Which of the pieces can be pasted where these words stand that hand over `own`.
    fn pieces(definitions: &[&str], words: &[&str], own: &str, wanted: &[&str]) -> Vec<String> {
        let mut macros = Macros::default();
        for definition in definitions {
            macros.add(definition.as_bytes());
        }
        let flows = Flows::of(macros);
        let set = |words: &[&str]| -> WordSet { words.iter().map(|word| hash(word.as_bytes())).collect() };
        let makeable = Makeable::of(&flows, &set(&["pre_", "other_", "deep_", "end", own]));
        let found = makeable.pieces(&flows, Options::Any, &set(words), [hash(own.as_bytes())]);
        let is_found = |word: &&&str| found.contains(&hash(word.as_bytes()));
        wanted.iter().filter(is_found).map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn macros_bring_pieces_where_words_lead_to_them() {
        let definitions = ["define make(a) pre_##a", "define outer(a) make(a)", "define far(a) other_##a"];
        let of = |word: &str| pieces(&definitions, &[word], "x", &["pre_", "other_", "x"]);
        assert_eq!(of("make"), ["pre_", "x"]);
        assert_eq!(of("outer"), ["pre_", "x"]);
        assert_eq!(of("far"), ["other_", "x"]);
        assert_eq!(of("none"), ["x"]);
    }

    #[test]
    fn a_name_that_was_pasted_leads_on() {
        let definitions = [
            "define make(a) pre_##a",
            "define pre_x(b) more(b)",
            "define more(b) deep_##b",
            "define far(a) end##a",
        ];
        assert_eq!(pieces(&definitions, &["make"], "x", &["pre_", "deep_", "end"]), ["pre_", "deep_"]);
        assert_eq!(pieces(&definitions, &["make"], "y", &["pre_", "deep_", "end"]), ["pre_"]);
    }
}
