//! Which units mention what changed, by the text of sources and headers alone.
//!
//! Preprocessing all readers of a header costs a third of a second for each. Most of them do not even have the name of
//! anything that changed in their text. So the names that changed declarations and macros declare are closed over all
//! files that the readers can see: a declaration that mentions one of them adds its own. A unit whose own text
//! mentions none of these names compiles to the same code.
//!
//! Nothing is expanded and no condition is evaluated, so all that a text could come to counts:
//! * a name that macros paste together from pieces is mentioned by whoever has one of the pieces where such a macro
//!   takes it (`flow`), if the macros that the words around it lead to bring the others (`reach`);
//! * a declaration that is not understood, a directive that acts on what follows it, and a definition that makes code
//!   without being mentioned reach everybody who reads their file (`declared`);
//! * so does a file whose brackets do not match, if it has one of the names (`chunks`).

mod chunks;
mod declared;
mod expression;
mod flow;
mod macros;
mod pasting;
mod reach;
mod text;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chunks::{Chunk, Chunks};
use declared::Reach;
use flow::Flows;
use macros::{Macros, Options};
use pasting::Pasting;
use rayon::prelude::*;
use reach::Makeable;
use text::{WordMap, WordSet};

use crate::slice::lexer::{Kind, Lexed};

/// Names that are followed; with more of them, nearly every unit mentions one.
const MOST_NAMES: usize = 6000;

/// What is known of a file before the macros of all are.
#[derive(Debug, Default)]
pub struct Scan {
    /// Hashes of all words, sorted.
    words: Vec<u64>,
    /// Macros that the file defines, and that are not just constants.
    macros: Vec<Vec<u8>>,
    /// Macros that the command line defines.
    options: Vec<Vec<u8>>,
    /// What it includes in the middle of a declaration, or after the first bracket without its twin.
    pub spliced: Vec<Include>,
    /// All that it includes.
    pub includes: Vec<Include>,
}

/// The target of an `#include` as it is written, with its quotes or angles, or a macro.
pub type Include = String;

/// Reads a file; `options` are macros that the command line defines, `NAME=text`.
pub fn scan<'o>(text: &[u8], options: impl IntoIterator<Item = &'o str>) -> Scan {
    let text = text::plain(text);
    let lexed = Lexed::of(&text);
    let cut = chunks::of(&lexed);
    let mut scan = Scan::default();
    chunks::words(&lexed, &lexed.tokens, &mut |word| scan.words.push(text::hash(word)));
    for token in lexed.tokens.iter().filter(|token| token.kind == Kind::Directive) {
        let Some(directive) = lexed.text(token).strip_prefix(b"#") else { continue };
        let (name, rest) = chunks::directive(directive);
        match name {
            b"define" => {
                let directive = directive.trim_ascii();
                if Macros::is_worth_adding(&Lexed::of(directive)) {
                    scan.macros.push(directive.to_vec());
                }
            }
            b"include" | b"include_next" => scan.includes.push(String::from_utf8_lossy(rest).into_owned()),
            _ => {}
        }
    }
    for option in options {
        let define = as_directive(option);
        let lexed = Lexed::of(&define);
        chunks::words(&lexed, &lexed.tokens, &mut |word| scan.words.push(text::hash(word)));
        scan.options.push(define);
    }
    scan.spliced = cut.spliced.iter().map(|target| String::from_utf8_lossy(target).into_owned()).collect();
    scan.words.sort_unstable();
    scan.words.dedup();
    scan
}

/// `-DNAME=text` as the directive that it stands for, without `#`.
fn as_directive(option: &str) -> Vec<u8> {
    let (name, value) = option.split_once('=').unwrap_or((option, "1"));
    format!("define {name} {value}").into_bytes()
}

/// A file that units read.
#[derive(Debug)]
pub struct Header {
    /// What the kernel has.
    pub text: Vec<u8>,
    /// What the patches make of it, if they touch it.
    pub patched: Option<Vec<u8>>,
}

/// What changed declarations reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// For each header, whether something in it mentions a name.
    pub affected: Vec<bool>,
    /// For each header, whether all that read it must be taken for affected.
    pub readers: Vec<bool>,
    /// For each unit, whether it mentions a name.
    pub mentioned: Vec<bool>,
    /// There are too many names to follow: all units may be affected.
    pub everywhere: bool,
}

/// A text with what closing over it needs.
struct Text {
    header: usize,
    plain: Vec<u8>,
    scan: Scan,
}

/// Closes the names over the headers, and looks for them in the units. `unit` gives the text of a unit again.
pub fn reached(
    headers: &[Header],
    units: &[Scan],
    unit: &(dyn Fn(usize) -> Option<(Vec<u8>, Vec<String>)> + Sync),
) -> Reached {
    let texts: Vec<Text> = headers
        .par_iter()
        .enumerate()
        .flat_map_iter(|(header, source)| {
            std::iter::once(&source.text).chain(&source.patched).map(move |text| Text {
                header,
                plain: text::plain(text),
                scan: scan(text, []),
            })
        })
        .collect();
    let mut macros = Macros::default();
    let of_units = units.iter().flat_map(|unit| &unit.macros);
    for directive in texts.iter().flat_map(|text| &text.scan.macros).chain(of_units) {
        macros.add(directive);
    }
    for option in units.iter().flat_map(|unit| &unit.options) {
        macros.add_option(option);
    }
    let flows = Flows::of(macros);
    let own: Vec<Option<BTreeSet<u64>>> = (0..units.len())
        .into_par_iter()
        .map(|at| unit(at).map(|(text, options)| pieces_of_unit(&flows, &text, &options)))
        .collect();
    let of_units: WordSet = own.iter().flatten().flatten().copied().collect();
    let mut closure = Closure::new(&texts, units, &of_units, &flows, headers.len());
    closure.begin(headers);
    closure.close();
    let Closure { names, common, mut found, makeable, .. } = closure;
    found.everywhere = names.list.len() > MOST_NAMES;
    if found.everywhere {
        found.mentioned = vec![true; units.len()];
        return found;
    }
    let pasted: Vec<Pasting> =
        names.list.par_iter().filter_map(|name| Pasting::of(name, &common, &of_units)).collect();
    let mentions = |(at, (scan, own)): (usize, (&Scan, &Option<BTreeSet<u64>>))| {
        let Some(own) = own else { return true };
        scan.words.iter().any(|word| names.hashes.contains(word)) || {
            // Most that have the pieces do not have them together.
            let near: Vec<&Pasting> = pasted.iter().filter(|name| name.is_possible(own)).collect();
            !near.is_empty()
                && unit(at).is_none_or(|(text, options)| {
                    pastes(&flows, &makeable, &text::plain(&text), &options, &near)
                })
        }
    };
    found.mentioned = units.par_iter().zip(&own).enumerate().map(mentions).collect();
    found
}

/// The names found so far.
#[derive(Default)]
struct Names {
    list: Vec<Vec<u8>>,
    hashes: WordSet,
}

impl Names {
    fn insert(&mut self, name: Vec<u8>) {
        if self.hashes.insert(text::hash(&name)) {
            self.list.push(name);
        }
    }
}

/// True if a unit may paste one of these names.
fn pastes(flows: &Flows, makeable: &Makeable, plain: &[u8], options: &[String], names: &[&Pasting]) -> bool {
    let lexed = Lexed::of(plain);
    let Chunks { list, broken, .. } = chunks::of(&lexed);
    let mut given = BTreeSet::new();
    words_of_options(options, &mut given);
    let together: Vec<&[Chunk<'_>]> = if broken { vec![&list] } else { list.chunks(1).collect() };
    together.into_iter().any(|chunks| {
        let mut own = pieces(flows, &lexed, chunks);
        flows.macros.expand(&mut own, Options::Known);
        own.extend(&given);
        let near: Vec<&&Pasting> = names.iter().filter(|name| name.is_possible(&own)).collect();
        if near.is_empty() {
            return false;
        }
        let mut words = WordSet::default();
        for tokens in chunks.iter().flat_map(|chunk| [&chunk.tokens, &chunk.conditions]) {
            chunks::words(&lexed, tokens, &mut |word| {
                words.insert(text::hash(word));
            });
        }
        let all = makeable.pieces(flows, Options::Known, &words, own.iter().copied());
        near.iter().any(|name| name.is_possible_of(&own, &all))
    })
}

/// Adds the words of macros that options define. Which of them stands where it is pasted depends on everything else.
fn words_of_options(options: &[String], found: &mut BTreeSet<u64>) {
    for option in options {
        let directive = as_directive(option);
        let lexed = Lexed::of(&directive);
        chunks::words(&lexed, &lexed.tokens, &mut |word| {
            found.insert(text::hash(word));
        });
    }
}

/// The pieces of names in a unit's text and in the options that define macros.
fn pieces_of_unit(flows: &Flows, text: &[u8], options: &[String]) -> BTreeSet<u64> {
    let text = text::plain(text);
    let lexed = Lexed::of(&text);
    let mut own = pieces(flows, &lexed, &chunks::of(&lexed).list);
    flows.macros.expand(&mut own, Options::Known);
    words_of_options(options, &mut own);
    own
}

/// The pieces that chunks hand to macros which paste.
fn pieces(flows: &Flows, lexed: &Lexed<'_>, chunks: &[Chunk<'_>]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for chunk in chunks {
        flows.collect(&macros::pieces(lexed, &chunk.tokens, &[], false), &mut found);
        for token in chunk.tokens.iter().chain(&chunk.conditions) {
            let Some(directive) = lexed.text(token).strip_prefix(b"#") else { continue };
            if token.kind != Kind::Directive {
                continue;
            }
            let inner = Lexed::of(directive.trim_ascii());
            if chunks::directive(directive).0 == b"define" {
                flows.pieces_of(directive.trim_ascii(), &mut found);
            } else {
                flows.collect(&macros::pieces(&inner, &inner.tokens, &[], false), &mut found);
            }
        }
    }
    found
}

/// A chunk of a header as the closure needs it.
struct Part<'t> {
    chunk: Chunk<'t>,
    words: WordSet,
    /// Pieces of names that it brings, what macros among them stand for included.
    pieces: BTreeSet<u64>,
    /// Those and what macros bring that its words lead to.
    together: Option<WordSet>,
    affected: bool,
}

/// A header's text, cut; made when the first of its words is wanted.
struct Cut<'t> {
    lexed: Lexed<'t>,
    parts: Vec<Part<'t>>,
    broken: bool,
}

impl<'t> Cut<'t> {
    fn of(text: &'t Text, flows: &Flows) -> Cut<'t> {
        let lexed = Lexed::of(&text.plain);
        let Chunks { list, broken, .. } = chunks::of(&lexed);
        let part = |chunk: Chunk<'t>| {
            let mut words = WordSet::default();
            let mut add = |word: &[u8]| {
                words.insert(text::hash(word));
            };
            chunks::words(&lexed, &chunk.tokens, &mut add);
            chunks::words(&lexed, &chunk.conditions, &mut add);
            let mut pieces = pieces(flows, &lexed, std::slice::from_ref(&chunk));
            flows.macros.expand(&mut pieces, Options::Any);
            Part { chunk, words, pieces, together: None, affected: false }
        };
        let parts = list.into_iter().map(part).collect();
        Cut { lexed, parts, broken }
    }
}

/// Names on their way through the headers.
struct Closure<'t> {
    texts: &'t [Text],
    flows: &'t Flows,
    makeable: Arc<Makeable>,
    /// Texts by the words they have.
    words: WordMap<Vec<u32>>,
    /// Texts by the pieces of names they have.
    pieces: WordMap<Vec<u32>>,
    /// Pieces that macros bring along.
    common: WordSet,
    /// Pieces that any text has.
    own: WordSet,
    cuts: HashMap<u32, Cut<'t>>,
    names: Names,
    found: Reached,
}

impl<'t> Closure<'t> {
    /// `of_units` are the pieces of names that units have.
    fn new(
        texts: &'t [Text],
        units: &[Scan],
        of_units: &WordSet,
        flows: &'t Flows,
        headers: usize,
    ) -> Closure<'t> {
        let mut defined = BTreeSet::new();
        for directive in units.iter().flat_map(|unit| unit.macros.iter().chain(&unit.options)) {
            flows.pieces_of(directive, &mut defined);
        }
        let of_texts: Vec<(BTreeSet<u64>, BTreeSet<u64>)> = texts
            .par_iter()
            .map(|text| {
                let mut common = BTreeSet::new();
                for directive in &text.scan.macros {
                    flows.pieces_of(directive, &mut common);
                }
                let lexed = Lexed::of(&text.plain);
                let mut own = pieces(flows, &lexed, &chunks::of(&lexed).list);
                flows.macros.expand(&mut own, Options::Any);
                (common, own)
            })
            .collect();
        let mut common: BTreeSet<u64> =
            of_texts.iter().flat_map(|(common, _)| common).copied().chain(defined).collect();
        flows.macros.expand(&mut common, Options::Any);
        let index = |words: &mut dyn Iterator<Item = (u32, u64)>| {
            let mut index: WordMap<Vec<u32>> = WordMap::default();
            for (text, word) in words {
                index.entry(word).or_default().push(text);
            }
            index
        };
        let words = texts.iter().enumerate();
        let words = index(
            &mut words.flat_map(|(id, text)| text.scan.words.iter().map(move |&word| (id as u32, word))),
        );
        let pieces = of_texts.iter().enumerate();
        let pieces =
            index(&mut pieces.flat_map(|(id, (_, own))| own.iter().map(move |&piece| (id as u32, piece))));
        let found =
            Reached { affected: vec![false; headers], readers: vec![false; headers], ..Reached::default() };
        let common: WordSet = common.into_iter().collect();
        let own: WordSet = of_texts.iter().flat_map(|(_, own)| own).copied().collect();
        let all = common.iter().chain(&own).chain(of_units).copied().collect();
        Closure {
            texts,
            flows,
            makeable: Arc::new(Makeable::of(flows, &all)),
            words,
            pieces,
            common,
            own,
            cuts: HashMap::new(),
            names: Names::default(),
            found,
        }
    }

    /// What the patches themselves change.
    fn begin(&mut self, headers: &[Header]) {
        for pair in 0..self.texts.len().saturating_sub(1) {
            let header = self.texts[pair].header;
            if self.texts[pair + 1].header != header || headers[header].patched.is_none() {
                continue;
            }
            self.found.affected[header] = true;
            let (before, after) = (pair as u32, pair as u32 + 1);
            let identities = |closure: &mut Self, text: u32| -> Option<Vec<u64>> {
                let cut = closure.cut(text);
                let identity = |part: &Part<'_>| chunks::identity(&cut.lexed, &part.chunk);
                (!cut.broken).then(|| cut.parts.iter().map(identity).collect())
            };
            match (identities(self, before), identities(self, after)) {
                (Some(old), Some(new)) => {
                    let (old, new) = differing(&old, &new);
                    for (text, parts) in [(before, old), (after, new)] {
                        for part in parts {
                            self.affect(text, part);
                        }
                    }
                }
                _ => self.found.readers[header] = true,
            }
        }
    }

    /// Follows all names until no new one comes.
    fn close(&mut self) {
        let mut next = 0;
        while let Some(name) = self.names.list.get(next).cloned() {
            next += 1;
            if self.names.list.len() > MOST_NAMES {
                return;
            }
            let hash = text::hash(&name);
            let mut texts: BTreeSet<u32> = self.words.get(&hash).into_iter().flatten().copied().collect();
            let pasting = Pasting::of(&name, &self.common, &self.own);
            for part in pasting.iter().flat_map(Pasting::pieces) {
                texts.extend(self.pieces.get(&part).into_iter().flatten());
            }
            for text in texts {
                self.mention(text, pasting.as_ref(), hash);
            }
        }
    }

    /// Affects what mentions a name.
    fn mention(&mut self, text: u32, pasting: Option<&Pasting>, hash: u64) {
        let header = self.texts[text as usize].header;
        if self.found.readers[header] {
            // All that see a name of this header are taken already.
            return;
        }
        let (flows, makeable) = (self.flows, Arc::clone(&self.makeable));
        let cut = self.cut(text);
        let of_name = |part: &mut Part<'_>| {
            part.words.contains(&hash)
                || pasting.is_some_and(|name| {
                    name.is_possible(&part.pieces) && {
                        let Part { words, pieces, together, .. } = part;
                        let all = together.get_or_insert_with(|| {
                            makeable.pieces(flows, Options::Any, words, pieces.iter().copied())
                        });
                        name.is_possible_of(pieces, all)
                    }
                })
        };
        let parts = cut.parts.iter_mut().enumerate();
        let affected: Vec<usize> =
            parts.filter_map(|(at, part)| (!part.affected && of_name(part)).then_some(at)).collect();
        if cut.broken && !affected.is_empty() {
            self.found.affected[header] = true;
            self.found.readers[header] = true;
        } else {
            for part in affected {
                self.affect(text, part);
            }
        }
    }

    fn affect(&mut self, text: u32, part: usize) {
        let header = self.texts[text as usize].header;
        let flows = self.flows;
        let cut = self.cut(text);
        let part = &mut cut.parts[part];
        part.affected = true;
        let reach = declared::declared(&flows.macros, &cut.lexed, &part.chunk);
        self.found.affected[header] = true;
        match reach {
            Reach::Names(names) => names.into_iter().for_each(|name| self.names.insert(name)),
            Reach::Readers => self.found.readers[header] = true,
        }
    }

    fn cut(&mut self, text: u32) -> &mut Cut<'t> {
        let (texts, flows) = (self.texts, self.flows);
        self.cuts.entry(text).or_insert_with(|| Cut::of(&texts[text as usize], flows))
    }
}

/// The positions of what is not common to two sequences in their order. Not always as few as there could be.
fn differing(old: &[u64], new: &[u64]) -> (Vec<usize>, Vec<usize>) {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[same..], &new[same..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    // What is in both once and in the same order, found greedily, is common.
    let count = |all: &[u64]| {
        let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
        for (at, &one) in all.iter().enumerate() {
            counts.entry(one).and_modify(|(_, count)| *count += 1).or_insert((at, 1));
        }
        counts
    };
    let (in_old, in_new) = (count(old_rest), count(new_rest));
    let mut common_old = HashSet::new();
    let mut common_new = HashSet::new();
    let mut reached = 0;
    for (at, one) in old_rest.iter().enumerate() {
        if let (Some((_, 1)), Some(&(place, 1))) = (in_old.get(one), in_new.get(one))
            && place >= reached
        {
            reached = place + 1;
            common_old.insert(at);
            common_new.insert(place);
        }
    }
    let rest = |length: usize, common: &HashSet<usize>| {
        (0..length).filter(|at| !common.contains(at)).map(|at| same + at).collect()
    };
    (rest(old_rest.len(), &common_old), rest(new_rest.len(), &common_new))
}
