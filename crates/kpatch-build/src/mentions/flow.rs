//! Which arguments of macros come to stand beside `##`, by way of whatever macros they are handed to.
//!
//! A macro may call what it is handed (`op(nr, addr)` with `op` a parameter), or what it pastes (`const##op(nr)`). Who
//! is called then shows where the macro is used; where even that does not tell, all arguments count.

use std::collections::{BTreeMap, BTreeSet};

use super::macros::{Definition, Macros, Piece, Target};
use super::text::WordMap;
use crate::slice::lexer::Lexed;

/// Arguments by a bit for each of the first 31; the last bit stands for all others.
type Arguments = u32;

/// Every argument.
const ALL: Arguments = u32::MAX;

/// How far names that stand for names, and macros that end in macros, are followed.
const DEPTH: u32 = 8;

fn bit(argument: u32) -> Arguments {
    1 << argument.min(31)
}

/// A macro calls its parameter `callee`, and hands its parameters `from` to it as argument `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Handed {
    callee: u32,
    to: u32,
    from: Arguments,
}

/// What becomes of the arguments of a macro.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Flow {
    /// They are pasted to something.
    pasted: Arguments,
    /// They are handed to a parameter.
    handed: BTreeSet<Handed>,
}

impl Flow {
    const EVERYTHING: Flow = Flow { pasted: ALL, handed: BTreeSet::new() };

    fn join(&mut self, other: &Flow) {
        self.pasted |= other.pasted;
        self.handed.extend(&other.handed);
    }

    /// All arguments that may be pasted, whatever the others are.
    fn at_worst(&self) -> Arguments {
        let handed = self.handed.iter().fold(0, |all, one| all | one.from | bit(one.callee));
        self.pasted | handed
    }

    fn is_nothing(&self) -> bool {
        *self == Flow::default()
    }
}

/// What becomes of the arguments of all macros that paste.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// The macros.
    pub(super) macros: Macros,
    by_name: WordMap<Flow>,
    /// Macros that do anything with their arguments, by their names, and by these from the end.
    spelled: BTreeMap<Vec<u8>, u64>,
    spelled_back: BTreeMap<Vec<u8>, u64>,
    /// Words and numbers of macros' bodies that may be pasted.
    of_bodies: WordMap<Vec<u64>>,
}

/// A bracket that is open.
struct Call {
    flow: Flow,
    /// The parameter that is called.
    parameter: Option<u32>,
    argument: u32,
    /// One of its arguments may come to several, so that those from here on may be any later ones.
    spread: bool,
    /// It may lead to a macro that pastes.
    pastes: bool,
    /// What the macro does with arguments that follow the call.
    ending: Flow,
}

impl Call {
    /// Which arguments what stands here may come to be.
    fn arguments(&self) -> Arguments {
        if self.spread { ALL << self.argument.min(31) } else { bit(self.argument) }
    }
}

/// What was found in a text.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// A word, number or parameter that may be pasted.
    Pasted(Piece),
    /// A parameter that is handed on to another.
    Handed { callee: u32, to: u32, parameter: u32 },
}

impl Flows {
    /// Follows the arguments of all macros.
    pub(super) fn of(mut macros: Macros) -> Flows {
        macros.follow();
        let mut names: Vec<u64> = macros.names().collect();
        names.sort_unstable();
        let mut flows = Flows { macros, ..Flows::default() };
        loop {
            let mut changed = false;
            for &name in &names {
                let known = flows.by_name.get(&name).cloned().unwrap_or_default();
                // What was found before holds, however the rest is understood now.
                let mut flow = known.clone();
                for definition in flows.macros.definitions(name) {
                    flow.join(&flows.of_definition(definition));
                }
                if flow == known {
                    continue;
                }
                flows.by_name.insert(name, flow);
                if let Some(spelled) = flows.macros.spelling(name).map(<[u8]>::to_vec) {
                    flows.spelled.insert(spelled.clone(), name);
                    flows.spelled_back.insert(spelled.iter().rev().copied().collect(), name);
                }
                changed = true;
            }
            if !changed {
                break;
            }
        }
        for name in names {
            let mut pieces = BTreeSet::new();
            for definition in flows.macros.definitions(name) {
                flows.collect(&definition.body, &mut pieces);
            }
            flows.of_bodies.insert(name, pieces.into_iter().collect());
        }
        flows
    }

    /// Words and numbers of a macro's bodies that may be pasted.
    pub(super) fn of_body(&self, name: u64) -> &[u64] {
        self.of_bodies.get(&name).map_or(&[], Vec::as_slice)
    }

    /// The pieces of names that a definition brings along.
    pub(super) fn pieces_of(&self, directive: &[u8], pieces: &mut BTreeSet<u64>) {
        let lexed = Lexed::of(directive);
        if let Some((_, definition)) = Definition::of(&lexed) {
            self.collect(&definition.body, pieces);
        }
    }

    /// The words and numbers that are pasted or handed to a macro that does.
    pub(super) fn collect(&self, tokens: &[Piece], pieces: &mut BTreeSet<u64>) {
        self.search(tokens, None, |found| {
            if let Found::Pasted(Piece::Word(piece) | Piece::Number(piece)) = found {
                pieces.insert(piece);
            }
        });
    }

    fn of_definition(&self, definition: &Definition) -> Flow {
        let mut flow = Flow::default();
        let last = definition.rest();
        // The last parameter of a variadic macro takes all arguments from there on.
        let arguments = |position: u32| {
            if Some(position) == last { ALL << position.min(31) } else { bit(position) }
        };
        self.search(&definition.body, last, |found| match found {
            Found::Pasted(Piece::Parameter(position)) => flow.pasted |= arguments(position),
            Found::Pasted(_) => {}
            Found::Handed { callee, to, parameter } => {
                if Some(callee) == last {
                    flow.pasted |= arguments(parameter);
                } else {
                    flow.handed.insert(Handed { callee, to, from: arguments(parameter) });
                }
            }
        });
        flow
    }

    /// `rest` is the parameter that takes all arguments that are left.
    fn search(&self, tokens: &[Piece], rest: Option<u32>, mut found: impl FnMut(Found)) {
        let mut calls: Vec<Call> = Vec::new();
        // What the macro that was called last may end in.
        let mut ended = Flow::default();
        for (at, &token) in tokens.iter().enumerate() {
            let before = |count: usize| at.checked_sub(count).and_then(|before| tokens.get(before));
            match token {
                Piece::Open => {
                    let mut call = Call {
                        flow: Flow::default(),
                        parameter: None,
                        argument: 0,
                        spread: false,
                        pastes: true,
                        ending: Flow::default(),
                    };
                    match before(1) {
                        _ if before(2) == Some(&Piece::Paste) => {
                            call.flow = self.made(&tokens[..at]);
                            call.ending = Flow::EVERYTHING;
                        }
                        Some(Piece::Word(name)) => {
                            call.flow = self.callee(*name, 0);
                            call.ending = self.ending(*name, 0);
                            call.pastes = self.macros.leads_to(*name, Target::Paste);
                        }
                        Some(Piece::Close) => {
                            call.flow = std::mem::take(&mut ended);
                            call.ending =
                                if call.flow.is_nothing() { Flow::default() } else { Flow::EVERYTHING };
                        }
                        Some(Piece::Parameter(_)) => call.ending = Flow::EVERYTHING,
                        _ => call.pastes = false,
                    }
                    if let Some(Piece::Parameter(position)) = before(1) {
                        call.parameter = Some(*position);
                    }
                    if !call.flow.handed.is_empty() {
                        self.resolve(&mut call.flow, &arguments(&tokens[at + 1..]), rest, &mut found);
                    }
                    calls.push(call);
                }
                Piece::Close => ended = calls.pop().map(|call| call.ending).unwrap_or_default(),
                Piece::Comma => {
                    if let Some(call) = calls.last_mut() {
                        call.argument += 1;
                    }
                }
                Piece::Word(_) | Piece::Number(_) | Piece::Parameter(_) => {
                    // `, ## arguments` pastes nothing: it takes the comma away.
                    let left = before(1) == Some(&Piece::Paste) && before(2) != Some(&Piece::Comma);
                    let spreads = match token {
                        Piece::Word(name) => self.macros.leads_to(name, Target::Comma),
                        Piece::Parameter(position) => Some(position) == rest,
                        _ => false,
                    };
                    if spreads && let Some(call) = calls.last_mut() {
                        call.spread = true;
                    }
                    let several =
                        spreads && matches!(token, Piece::Word(_)) && calls.iter().any(|call| call.pastes);
                    let handed = several || calls.iter().any(|call| call.flow.pasted & call.arguments() != 0);
                    if left || tokens.get(at + 1) == Some(&Piece::Paste) || handed {
                        found(Found::Pasted(token));
                        continue;
                    }
                    for call in &calls {
                        match (call.parameter, token) {
                            (Some(callee), Piece::Parameter(parameter)) if !call.spread => {
                                found(Found::Handed { callee, to: call.argument, parameter });
                            }
                            (Some(_), _) => found(Found::Pasted(token)),
                            (None, _) => {}
                        }
                    }
                }
                Piece::Paste | Piece::Other => {}
            }
        }
    }

    /// Settles what a call hands to a macro among its own arguments.
    fn resolve(
        &self,
        flow: &mut Flow,
        arguments: &[&[Piece]],
        rest: Option<u32>,
        found: &mut impl FnMut(Found),
    ) {
        let spreads = |piece: &Piece| match piece {
            Piece::Word(name) => self.macros.leads_to(*name, Target::Comma),
            Piece::Parameter(position) => Some(*position) == rest,
            _ => false,
        };
        if arguments.iter().any(|argument| argument.iter().any(spreads)) {
            flow.pasted |= flow.at_worst();
            flow.handed.clear();
            return;
        }
        for handed in std::mem::take(&mut flow.handed) {
            match arguments.get(handed.callee as usize).copied().unwrap_or_default() {
                [Piece::Word(name)] => {
                    if self.callee(*name, 0).at_worst() & bit(handed.to) != 0 {
                        flow.pasted |= handed.from;
                    }
                }
                // Not called with anything that is a macro.
                [] | [Piece::Number(_)] => {}
                [Piece::Parameter(callee)] => {
                    for (at, argument) in arguments.iter().enumerate() {
                        if handed.from & bit(at as u32) == 0 {
                            continue;
                        }
                        for &piece in *argument {
                            match piece {
                                Piece::Parameter(parameter) => {
                                    found(Found::Handed { callee: *callee, to: handed.to, parameter });
                                }
                                Piece::Word(_) | Piece::Number(_) => found(Found::Pasted(piece)),
                                _ => {}
                            }
                        }
                    }
                }
                _ => flow.pasted |= handed.from,
            }
        }
    }

    /// What a name does with arguments if it stands before `(`.
    fn callee(&self, name: u64, depth: u32) -> Flow {
        let mut flow = Flow::default();
        for definition in self.macros.definitions(name) {
            if definition.takes_arguments() {
                flow.join(self.by_name.get(&name).unwrap_or(&Flow::default()));
                continue;
            }
            // Another name, perhaps that of a macro.
            match definition.body.last() {
                Some(Piece::Word(other)) if *other == name => {}
                Some(Piece::Word(other)) if depth < DEPTH && !is_pasted(&definition.body) => {
                    flow.join(&self.callee(*other, depth + 1));
                }
                Some(Piece::Close) if depth < DEPTH => flow.join(&self.at_end(definition, depth)),
                Some(Piece::Number(_) | Piece::Other) => {}
                _ => flow.join(&Flow::EVERYTHING),
            }
        }
        flow
    }

    /// What a call of a macro does with arguments that follow it: `name(...)(arguments)`.
    fn ending(&self, name: u64, depth: u32) -> Flow {
        let mut flow = Flow::default();
        for definition in
            self.macros.definitions(name).iter().filter(|definition| definition.takes_arguments())
        {
            match definition.body.last() {
                Some(Piece::Word(other)) if depth < DEPTH && !is_pasted(&definition.body) => {
                    flow.join(&self.callee(*other, depth + 1));
                }
                Some(Piece::Close) if depth < DEPTH && definition.rest().is_none() => {
                    flow.join(&self.at_end(definition, depth));
                }
                Some(Piece::Number(_) | Piece::Other) => {}
                // What stands before it would be called then, or what it is handed.
                _ => flow.join(&Flow::EVERYTHING),
            }
        }
        flow
    }

    /// What the call at the end of a definition leaves to be called.
    fn at_end(&self, definition: &Definition, depth: u32) -> Flow {
        let body = &definition.body;
        let mut open = 0usize;
        for (at, piece) in body.iter().enumerate().rev() {
            match piece {
                Piece::Close => open += 1,
                Piece::Open => open = open.saturating_sub(1),
                _ => {}
            }
            if open > 0 {
                continue;
            }
            let before = |count: usize| at.checked_sub(count).and_then(|before| body.get(before));
            return match before(1) {
                _ if before(2) == Some(&Piece::Paste) => Flow::EVERYTHING,
                Some(Piece::Word(name)) => self.ending(*name, depth + 1),
                Some(Piece::Parameter(_) | Piece::Close) => Flow::EVERYTHING,
                _ => Flow::default(),
            };
        }
        Flow::EVERYTHING
    }

    /// What a name that is pasted does with arguments; `tokens` end in it. Where its last piece is a parameter, and more
    /// than one token comes for that, only the first of them is pasted: that parameter is called, too.
    fn made(&self, tokens: &[Piece]) -> Flow {
        let spelling = |piece: &Piece| match piece {
            Piece::Word(hash) | Piece::Number(hash) => self.macros.spelling(*hash),
            _ => None,
        };
        let [chain @ .., first, Piece::Paste, last] = tokens else { return Flow::EVERYTHING };
        let mut flow = Flow::default();
        if let Some(suffix) = spelling(last) {
            let suffix: Vec<u8> = suffix.iter().rev().copied().collect();
            self.join_spelled(&self.spelled_back, &suffix, &mut flow);
        } else if let (Some(prefix), Piece::Parameter(_)) = (spelling(first), last)
            && chain.last() != Some(&Piece::Paste)
        {
            self.join_spelled(&self.spelled, prefix, &mut flow);
        } else {
            return Flow::EVERYTHING;
        }
        flow
    }

    fn join_spelled(&self, spelled: &BTreeMap<Vec<u8>, u64>, prefix: &[u8], flow: &mut Flow) {
        let from = spelled.range(prefix.to_vec()..);
        for (_, name) in from.take_while(|(spelled, _)| spelled.starts_with(prefix)) {
            flow.join(self.by_name.get(name).unwrap_or(&Flow::default()));
        }
    }
}

/// True if the last token of a body is pasted to what stands before it.
fn is_pasted(body: &[Piece]) -> bool {
    matches!(body, [.., Piece::Paste, _])
}

/// The arguments of a call, of the tokens after its bracket.
fn arguments(tokens: &[Piece]) -> Vec<&[Piece]> {
    let (mut all, mut start, mut open) = (Vec::new(), 0, 0u32);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Piece::Open => open += 1,
            Piece::Close if open == 0 => {
                all.push(&tokens[start..at]);
                return all;
            }
            Piece::Close => open -= 1,
            Piece::Comma if open == 0 => {
                all.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(&tokens[start..]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mentions::macros::{Options, pieces};
    use crate::mentions::text::hash;

    /// Which of these words a text hands to macros that paste.
    fn pasted(definitions: &[&str], text: &str, words: &[&str]) -> Vec<String> {
        let mut macros = Macros::default();
        for definition in definitions {
            macros.add(definition.as_bytes());
        }
        let flows = Flows::of(macros);
        let lexed = Lexed::of(text.as_bytes());
        let mut found = BTreeSet::new();
        flows.collect(&pieces(&lexed, &lexed.tokens, &[], false), &mut found);
        flows.macros.expand(&mut found, Options::Any);
        let is_found = |word: &&&str| found.contains(&hash(word.as_bytes()));
        words.iter().filter(is_found).map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_are_followed_to_where_they_are_pasted() {
        let definitions = [
            "define cat_(a, b) a##b",
            "define cat(a, b) cat_(a, b)",
            "define second(a, b, ...) cat(x_, b) + a",
            "define rest(a, ...) second(a, __VA_ARGS__)",
            "define print(f, args...) printk(f, ##args)",
            "define list(m) m(one) m(two)",
            "define alias cat",
            "define value thing",
            "define plain(a) (a)",
            "define bare(a) a",
            "define one(x) x_##x",
            "define none(x) x_ x",
            "define call(op, x) op(x)",
            "define call_again(op, x) call(op, x)",
            "define made(op, x) on##op(x)",
            "define late(x, op) made(op, x) + 1",
            "define third(x, y, z) x_##z",
            "define many(x, ...) third(x, __VA_ARGS__)",
            "define two a, b",
            "define through(x) cat(x_, x)",
            "define result(x) one",
            "define again(x) result(x)",
        ];
        let words = ["a", "b", "c", "d", "thing", "8"];
        for (text, expected) in [
            ("cat(a, b) c", &["a", "b"][..]),
            ("second(a, b, c)", &["b"]),
            ("rest(a, b, c)", &["b", "c"]),
            ("print(a, b)", &[]),
            ("list(a)", &[]),
            ("alias(a, 8)", &["a", "8"]),
            ("cat(value, plain(c))", &["c", "thing"]),
            ("plain(a) function(b)", &[]),
            ("plain(a)(b)", &[]),
            ("bare(a)(b)", &["b"]),
            ("again(a)(b)", &["b"]),
            ("call(one, a)", &["a"]),
            ("call_again(one, a)", &["a"]),
            ("call_again(none, a)", &[]),
            ("call_again(value one, a)", &["a"]),
            ("call_again(two, a)", &["a", "b"]),
            ("made(e, a)", &["a"]),
            ("late(a, e)", &["a"]),
            ("made(value one, a)", &["a", "thing"]),
            ("many(a, b, c)", &["b", "c"]),
            ("through(two)", &["a", "b"]),
            ("cat((a, b), c", &["a", "b", "c"]),
        ] {
            assert_eq!(pasted(&definitions, text, &words), expected, "{text}");
        }
    }
}
