//! Finds for each function and datum its original.
//!
//! A name that the source gave is proof; a name that the compiler numbered says only to which group an
//! element belongs. Within a group elements are told apart by what they contain and by who refers to them,
//! never by their order or number.

mod evidence;

use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, BString};
use foldhash::{HashMap, HashMapExt, HashSet};
use kpatch_elf::{section_flags, symbol_kind};

use crate::names;
use crate::unit::{ElementId, Kind, Unit};

use evidence::Note;

/// Which element is whose counterpart.
#[derive(Clone, Debug)]
pub(crate) struct Twins {
    /// For each original element, its patched version.
    pub(crate) of_original: Vec<Option<ElementId>>,
    /// For each patched element, its original.
    pub(crate) of_patched: Vec<Option<ElementId>>,
    /// Patched elements that have originals to choose from that nothing tells apart, and how many.
    pub(crate) ambiguous: BTreeMap<ElementId, usize>,
}

impl Twins {
    fn pair(&mut self, original: ElementId, patched: ElementId) {
        self.of_original[original.index()] = Some(patched);
        self.of_patched[patched.index()] = Some(original);
    }

    /// Makes a pair two unrelated elements.
    pub(crate) fn separate(&mut self, original: ElementId, patched: ElementId) {
        self.of_original[original.index()] = None;
        self.of_patched[patched.index()] = None;
    }
}

/// Function or datum, and base name.
type Group = (bool, BString);

/// Elements that have something in common: of the original, of the patched version.
type Members = (Vec<ElementId>, Vec<ElementId>);

/// Pairs the elements of two versions.
pub(crate) fn correlate(original: &Unit<'_>, patched: &Unit<'_>) -> Twins {
    let mut twins = Twins {
        of_original: vec![None; original.elements.len()],
        of_patched: vec![None; patched.elements.len()],
        ambiguous: BTreeMap::new(),
    };
    by_name(original, patched, &mut twins);
    let mut groups: BTreeMap<Group, Members> = BTreeMap::new();
    for (unit, twin, first) in [(original, &twins.of_original, true), (patched, &twins.of_patched, false)] {
        for id in unit.ids().filter(|id| twin[id.index()].is_none()) {
            if let Some(group) = group_of(unit, id) {
                let members = groups.entry(group).or_default();
                if first { members.0.push(id) } else { members.1.push(id) }
            }
        }
    }
    groups.retain(|_, (o, p)| !o.is_empty() && !p.is_empty());
    let several: Vec<bool> = groups.values().map(|(o, p)| o.len().max(p.len()) > 1).collect();
    let mut groups: BTreeMap<Group, (Members, bool)> = groups
        .into_iter()
        .zip(several)
        .map(|((group, members), several)| (group, (members, several)))
        .collect();
    // Each pair found may tell others apart, as it is somebody's referrer or content.
    let mut progress = true;
    while progress && !groups.is_empty() {
        progress = false;
        for level in LEVELS {
            for ((function, _), ((o, p), several)) in &mut groups {
                let what = Refined { original, patched, function: *function, several: *several };
                progress |= what.refine(&mut twins, o, p, level);
            }
            if progress {
                break;
            }
        }
        groups.retain(|_, ((o, p), _)| !o.is_empty() && !p.is_empty());
    }
    for ((o, p), _) in groups.values() {
        for id in p {
            twins.ambiguous.insert(*id, o.len());
        }
    }
    twins
}

fn correlated(kind: Kind) -> bool {
    matches!(kind, Kind::Function | Kind::Datum)
}

fn group_of(unit: &Unit<'_>, id: ElementId) -> Option<Group> {
    let kind = unit.element(id).kind;
    if !correlated(kind) {
        return None;
    }
    let name = unit.symbol_name(id)?;
    Some((kind == Kind::Function, names::base(name)))
}

/// Whether it is a function, a name, and the number of the source file of its symbol in [`Files`].
type NameKey<'a> = (bool, u32, &'a BStr);

/// Names of source files as numbers, in alphabetical order and the same in both versions; 0 for global symbols.
struct Files<'a>(HashMap<&'a BStr, u32>);

impl<'a> Files<'a> {
    fn of(units: [&'a Unit<'_>; 2]) -> Files<'a> {
        let symbols = units.into_iter().flat_map(|unit| &unit.object.symbols);
        let names: BTreeSet<&BStr> =
            symbols.filter(|s| s.kind == symbol_kind::FILE).map(|s| s.name.as_ref()).collect();
        Files(names.into_iter().zip(1..).collect())
    }

    /// The file of a local symbol.
    fn number(&self, unit: &Unit<'_>, id: ElementId) -> u32 {
        let file = unit.element(id).main.and_then(|main| unit.file_of[main.index()]);
        file.and_then(|file| self.0.get(unit.object.symbol(file).name.as_ref()).copied()).unwrap_or_default()
    }
}

/// Who has a name in one version: an element, nobody or several.
#[derive(Clone, Copy)]
struct Bearer(u32);

impl Bearer {
    const NOBODY: u32 = u32::MAX;
    const SEVERAL: u32 = u32::MAX - 1;

    fn add(&mut self, id: ElementId) {
        self.0 = if self.0 == Self::NOBODY { id.0 } else { Self::SEVERAL };
    }

    fn only(self) -> Option<ElementId> {
        (self.0 < Self::SEVERAL).then_some(ElementId(self.0))
    }
}

impl Default for Bearer {
    fn default() -> Bearer {
        Bearer(Self::NOBODY)
    }
}

/// Pairs elements whose names the source gave and that occur once on each side.
fn by_name(original: &Unit<'_>, patched: &Unit<'_>, twins: &mut Twins) {
    let numbered = numbered_bases(original, patched);
    for files in [None, Some(Files::of([original, patched]))] {
        let left = |unit, twin| -> Vec<ElementId> {
            let (unit, twin): (&Unit<'_>, &[Option<ElementId>]) = (unit, twin);
            unit.ids().filter(|id| twin[id.index()].is_none() && correlated(unit.element(*id).kind)).collect()
        };
        let sides =
            [(original, left(original, &twins.of_original)), (patched, left(patched, &twins.of_patched))];
        // Only asked, never iterated over: its order means nothing.
        let mut bearers: HashMap<NameKey<'_>, [Bearer; 2]> = HashMap::with_capacity(sides[0].1.len());
        for (side, (unit, ids)) in sides.iter().enumerate() {
            for &id in ids {
                for key in name_keys(unit, id, files.as_ref(), &numbered) {
                    bearers.entry(key).or_default()[side].add(id);
                }
            }
        }
        let found = |&id: &ElementId| {
            name_keys(original, id, files.as_ref(), &numbered).filter_map(|key| {
                let &[one, other] = bearers.get(&key)?;
                Some((key, one.only()?, other.only()?))
            })
        };
        let originals = &sides[0].1;
        let mut pairs: Vec<Pair> = originals.iter().flat_map(found).map(|(_, o, p)| (o, p)).collect();
        // Where aliases lead to several counterparts, the first name decides, not the order of the symbols.
        if !is_one_to_one(&pairs, original.elements.len(), patched.elements.len()) {
            let mut named: Vec<(NameKey<'_>, ElementId, ElementId)> =
                originals.iter().flat_map(found).collect();
            named.sort_unstable_by_key(|&((function, file, name), ..)| (function, name, file));
            pairs = named.into_iter().map(|(_, o, p)| (o, p)).collect();
        }
        for (o, p) in pairs {
            if twins.of_original[o.index()].is_none() && twins.of_patched[p.index()].is_none() {
                twins.pair(o, p);
            }
        }
    }
}

/// An element of the original and one of the patched version.
type Pair = (ElementId, ElementId);

/// Whether all pairs of an element are with the same counterpart.
fn is_one_to_one(pairs: &[Pair], originals: usize, patched: usize) -> bool {
    let (mut of_original, mut of_patched) = (vec![None; originals], vec![None; patched]);
    pairs.iter().all(|&(o, p)| {
        *of_original[o.index()].get_or_insert(p) == p && *of_patched[p.index()].get_or_insert(o) == o
    })
}

/// What is left of numbered names with several parts. clang gives no number to the first of a function's static locals
/// of one name (`f.state`, `f.state.1`): which one that is may have changed.
fn numbered_bases(original: &Unit<'_>, patched: &Unit<'_>) -> HashSet<BString> {
    let names = |unit| {
        let unit: &Unit<'_> = unit;
        unit.ids().filter(|id| correlated(unit.element(*id).kind)).filter_map(|id| unit.symbol_name(id))
    };
    names(original)
        .chain(names(patched))
        .filter(|name| names::is_numbered(name))
        .map(names::base)
        .filter(|base| base.contains(&b'.'))
        .collect()
}

/// What an element is known by; any name in common makes a pair, as versions may differ in their aliases.
fn name_keys<'a>(
    unit: &'a Unit<'_>,
    id: ElementId,
    files: Option<&Files<'_>>,
    numbered: &'a HashSet<BString>,
) -> impl Iterator<Item = NameKey<'a>> + use<'a> {
    let kind = unit.element(id).kind;
    let file = files.map_or(0, |files| files.number(unit, id));
    let names = correlated(kind).then(|| unit.names(id)).into_iter().flatten();
    names
        .filter(|name| !names::is_numbered(name))
        .filter(|name| !(name.contains(&b'.') && numbered.contains(*name)))
        .map(move |name| (kind == Kind::Function, file, name))
}

/// What elements of a group are told apart by, most telling first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Contents and referrers.
    Both,
    Referrers,
    Content,
    /// Referrers, and what these refer to around it.
    Surroundings,
    /// What stands beside it in its referrers, on either side.
    Neighbours,
    /// Referrers, each with the same number of members, and the order in which they refer to them; clones
    /// that are equal in everything are interchangeable.
    Order,
    /// A single referrer with such an order.
    OneReferrer,
}

const LEVELS: [Level; 7] = [
    Level::Both,
    Level::Referrers,
    Level::Content,
    Level::Surroundings,
    Level::Neighbours,
    Level::Order,
    Level::OneReferrer,
];

/// A group of elements that have no counterparts yet.
struct Refined<'a, 'd> {
    original: &'a Unit<'d>,
    patched: &'a Unit<'d>,
    function: bool,
    /// There were several of one version at first.
    several: bool,
}

impl Refined<'_, '_> {
    /// Pairs what a level tells apart; true if it did.
    fn refine(
        &self,
        twins: &mut Twins,
        o: &mut Vec<ElementId>,
        p: &mut Vec<ElementId>,
        level: Level,
    ) -> bool {
        let Refined { original, patched, function, several } = *self;
        if o.is_empty() || p.is_empty() {
            return false;
        }
        // The only ones of their name: the number says nothing. State must not wander from one function's
        // static local to another's, though.
        if let ([one], [other]) = (o.as_slice(), p.as_slice()) {
            let (one, other) = (*one, *other);
            let state = several && original.section(one).has(section_flags::WRITE);
            if state && !evidence::keeps_order(original, patched, &twins.of_original, one, other) {
                return false;
            }
            if function || may_be_same_datum(original, patched, one, other) {
                twins.pair(one, other);
            }
            o.clear();
            p.clear();
            return true;
        }
        if level == Level::Neighbours || level == Level::Surroundings && !function && o.len() != p.len() {
            return !function && self.by_neighbours(twins, o, p);
        }
        let mut keys: BTreeMap<Vec<u8>, Members> = BTreeMap::new();
        for (id, key) in keys_of(original, &twins.of_original, true, o, level) {
            keys.entry(key).or_default().0.push(id);
        }
        for (id, key) in keys_of(patched, &twins.of_patched, false, p, level) {
            keys.entry(key).or_default().1.push(id);
        }
        // An order is no proof against what stands beside a datum: it may be new, and another's place taken by it.
        let by_order = matches!(level, Level::Order | Level::OneReferrer) && !function;
        let votes = if by_order { self.votes(twins, o, p) } else { BTreeSet::new() };
        let mut found = false;
        for (ones, others) in keys.values() {
            if let ([one], [other]) = (ones.as_slice(), others.as_slice()) {
                // At the last level an element has several keys.
                let free =
                    twins.of_original[one.index()].is_none() && twins.of_patched[other.index()].is_none();
                let against = |&(a, b): &(ElementId, ElementId)| (a == *one) != (b == *other);
                if free
                    && !votes.iter().any(against)
                    && (function || may_be_same_datum(original, patched, *one, *other))
                {
                    twins.pair(*one, *other);
                    found = true;
                }
            } else if level == Level::Order && ones.len() == others.len() && function {
                let content = |unit: &Unit<'_>, twin: &[Option<ElementId>], first, id| {
                    let mut out = Vec::new();
                    evidence::content(unit, twin, first, id, &mut out);
                    out
                };
                let first = content(original, &twins.of_original, true, ones[0]);
                let alike = ones.iter().all(|id| content(original, &twins.of_original, true, *id) == first)
                    && others.iter().all(|id| content(patched, &twins.of_patched, false, *id) == first);
                if alike {
                    for (one, other) in ones.iter().zip(others) {
                        twins.pair(*one, *other);
                    }
                    found = true;
                }
            }
        }
        o.retain(|id| twins.of_original[id.index()].is_none());
        p.retain(|id| twins.of_patched[id.index()].is_none());
        found
    }

    /// Which data are beside the same thing, before or behind, in referrers that are each other's versions. That an
    /// element is a referrer's first or last is no sign.
    fn votes(&self, twins: &Twins, o: &[ElementId], p: &[ElementId]) -> BTreeSet<Pair> {
        let mut votes = BTreeSet::new();
        for note in [Note::Before, Note::After] {
            let mut keys: BTreeMap<BTreeSet<Vec<u8>>, Members> = BTreeMap::new();
            for (id, key) in evidence::uses(self.original, &twins.of_original, true, o, note) {
                keys.entry(key).or_default().0.push(id);
            }
            for (id, key) in evidence::uses(self.patched, &twins.of_patched, false, p, note) {
                keys.entry(key).or_default().1.push(id);
            }
            for (key, members) in &keys {
                if let ([one], [other]) = (members.0.as_slice(), members.1.as_slice())
                    && !key.is_empty()
                {
                    votes.insert((*one, *other));
                }
            }
        }
        votes
    }

    /// Pairs data by one of their neighbours: what came or went changes what stands beside it, so that either neighbour
    /// tells them apart unless the other contradicts.
    fn by_neighbours(&self, twins: &mut Twins, o: &mut Vec<ElementId>, p: &mut Vec<ElementId>) -> bool {
        let votes = self.votes(twins, o, p);
        let mut wanted: [HashMap<ElementId, u32>; 2] = Default::default();
        for &(one, other) in &votes {
            *wanted[0].entry(one).or_default() += 1;
            *wanted[1].entry(other).or_default() += 1;
        }
        let pairs: Vec<Pair> = votes
            .into_iter()
            .filter(|(one, other)| wanted[0][one] == 1 && wanted[1][other] == 1)
            .filter(|&(one, other)| may_be_same_datum(self.original, self.patched, one, other))
            .collect();
        for &(one, other) in &pairs {
            twins.pair(one, other);
        }
        o.retain(|id| twins.of_original[id.index()].is_none());
        p.retain(|id| twins.of_patched[id.index()].is_none());
        !pairs.is_empty()
    }
}

/// The keys of elements at a level: equal keys of both versions make a pair if nobody else has them.
fn keys_of(
    unit: &Unit<'_>,
    twin: &[Option<ElementId>],
    first: bool,
    members: &[ElementId],
    level: Level,
) -> Vec<(ElementId, Vec<u8>)> {
    let uses = match level {
        Level::Surroundings => evidence::uses(unit, twin, first, members, Note::Surroundings),
        Level::Order | Level::OneReferrer => evidence::uses(unit, twin, first, members, Note::Order),
        _ => evidence::Uses::default(),
    };
    if level == Level::OneReferrer {
        return uses.into_iter().flat_map(|(id, keys)| keys.into_iter().map(move |key| (id, key))).collect();
    }
    let mut out = Vec::with_capacity(members.len());
    for &id in members {
        let mut key = Vec::new();
        if matches!(level, Level::Both | Level::Content) {
            evidence::content(unit, twin, first, id, &mut key);
        }
        if matches!(level, Level::Both | Level::Referrers | Level::Order | Level::Surroundings) {
            for root in evidence::roots(unit, id) {
                key.extend_from_slice(&root);
                key.push(0);
            }
        }
        for part in uses.get(&id).into_iter().flatten() {
            key.push(2);
            key.extend_from_slice(part);
        }
        out.push((id, key));
    }
    out
}

fn may_be_same_datum(original: &Unit<'_>, patched: &Unit<'_>, one: ElementId, other: ElementId) -> bool {
    let (before, after) = (evidence::roots(original, one), evidence::roots(patched, other));
    if before.is_empty() || after.is_empty() || before.intersection(&after).next().is_some() {
        return true;
    }
    // No function in common: the owner was inlined elsewhere if it is gone on the other side.
    let exists = |unit: &Unit<'_>, roots: &BTreeSet<BString>| {
        unit.ids()
            .filter(|id| unit.element(*id).kind == Kind::Function)
            .filter_map(|id| unit.symbol_name(id))
            .any(|name| roots.iter().any(|root| names::root(name) == *root))
    };
    !exists(patched, &before) || !exists(original, &after)
}
