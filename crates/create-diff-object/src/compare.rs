//! Tells same from changed, and says where the first difference is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use bstr::{BStr, ByteSlice};
use foldhash::{HashMap, HashMapExt};
use kpatch_elf::section_flags;

use crate::correlate::Twins;
use crate::names::{self, Special};
use crate::tables::{self, TableKind};
use crate::unit::{Element, ElementId, Kind, Reference, Target, Unit};

/// Constants that refer to constants are followed so far; what lies deeper counts as different.
const DEPTH: u32 = 100;

/// What the first difference is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// In words.
    pub(crate) what: String,
    /// Offsets from the elements' origins.
    pub(crate) original: i64,
    pub(crate) patched: i64,
}

/// Compares elements of two versions.
pub(crate) struct Comparer<'a, 'd> {
    original: &'a Unit<'d>,
    patched: &'a Unit<'d>,
    twins: &'a Twins,
    /// Places in elements without names that something refers to: where one constant ends and the next
    /// begins.
    original_places: Places<'a, 'd>,
    patched_places: Places<'a, 'd>,
    /// Pairs that are being compared or were found equal; recursion stops there.
    equal: RefCell<HashMap<(ElementId, i64, ElementId, i64), bool>>,
    /// How deep the comparison is in constants that refer to constants.
    depth: Cell<u32>,
}

impl<'a, 'd> Comparer<'a, 'd> {
    pub(crate) fn new(original: &'a Unit<'d>, patched: &'a Unit<'d>, twins: &'a Twins) -> Self {
        Comparer {
            original_places: Places::of(original),
            patched_places: Places::of(patched),
            original,
            patched,
            twins,
            equal: RefCell::new(HashMap::new()),
            depth: Cell::new(0),
        }
    }

    /// The first difference between an element and its original, entries of special sections included.
    pub(crate) fn difference(&self, o: ElementId, p: ElementId) -> Option<Difference> {
        self.own_difference(o, p).or_else(|| self.entries_difference(o, p))
    }

    /// The same without special sections.
    pub(crate) fn own_difference(&self, o: ElementId, p: ElementId) -> Option<Difference> {
        let (a, b) = (self.original.element(o), self.patched.element(p));
        let (end_a, end_b) = (self.original.extent(o), self.patched.extent(p));
        let rest = |e: &Element| e.origin as i64 - e.start as i64;
        if a.kind == Kind::Function && rest(a) != rest(b) {
            return Some(Difference { what: "bytes before the entry".into(), original: 0, patched: 0 });
        }
        let found = self.bytes_difference(
            &Slice { unit: self.original, id: o, start: a.start, end: end_a },
            &Slice { unit: self.patched, id: p, start: b.start, end: end_b },
        );
        if found.is_none() && end_a - a.start != end_b - b.start {
            let at = (end_a - a.start).min(end_b - b.start);
            return Some(Difference {
                what: format!("size {} became {}", end_a - a.start, end_b - b.start),
                original: (a.start + at) as i64 - a.origin as i64,
                patched: (b.start + at) as i64 - b.origin as i64,
            });
        }
        found
    }

    fn bytes_difference(&self, a: &Slice<'_, 'd>, b: &Slice<'_, 'd>) -> Option<Difference> {
        let (one, other) = (a.bytes(), b.bytes());
        let (refs_a, refs_b) = (a.references(), b.references());
        let length = one.len().min(other.len());
        let byte = first_mismatch(&one[..length], &other[..length]).map(|at| at as u64);
        let mut reference = None;
        // Code elsewhere that jumps back differs as soon as the function does: that is a consequence, unless
        // nothing else differs.
        let mut detached = None;
        for index in 0..refs_a.len().max(refs_b.len()) {
            let what = match (refs_a.get(index), refs_b.get(index)) {
                (Some(x), Some(y)) => {
                    let (at_x, at_y) = (x.offset - a.start, y.offset - b.start);
                    if at_x != at_y || !self.same_kind(x.kind, y.kind) {
                        Some((at_x.min(at_y), "another reference".to_owned()))
                    } else {
                        self.reference_difference(x, y).map(|what| (at_x, what))
                    }
                }
                (Some(x), None) => Some((x.offset - a.start, "a reference is gone".to_owned())),
                (None, Some(y)) => Some((y.offset - b.start, "a new reference".to_owned())),
                (None, None) => None,
            };
            let aside = refs_a.get(index).is_some_and(|x| match x.target {
                Target::Element(target, _) => self.original.element(target).kind == Kind::Detached,
                _ => false,
            });
            if what.is_some() && aside {
                detached = detached.or(what);
            } else if what.is_some() {
                reference = what;
                break;
            }
        }
        let reference = reference.or_else(|| detached.filter(|_| byte.is_none()));
        let (at, what) = match (byte, reference) {
            (None, None) => return None,
            (Some(at), Some((place, what))) if place <= at => (place, what),
            (None, Some((place, what))) => (place, what),
            (Some(at), _) => (at, "other bytes".to_owned()),
        };
        let origin = |s: &Slice<'_, 'd>| s.unit.element(s.id).origin as i64;
        Some(Difference {
            what,
            original: (a.start + at) as i64 - origin(a),
            patched: (b.start + at) as i64 - origin(b),
        })
    }

    /// Whether two relocation types mean the same: a call has another one if its target is local.
    pub(crate) fn same_kind(&self, one: u32, other: u32) -> bool {
        let arch = self.patched.object.machine.arch();
        arch.plain(one) == arch.plain(other)
    }

    /// How two references differ, nothing if they mean the same.
    pub(crate) fn reference_difference(&self, x: &Reference, y: &Reference) -> Option<String> {
        let same = match (x.target, y.target) {
            (Target::Number(a), Target::Number(b)) => a == b,
            (Target::External(a, da), Target::External(b, db)) => {
                da == db && self.original.object.display_name(a) == self.patched.object.display_name(b)
            }
            (Target::String(sa, a, da), Target::String(sb, b, db)) => {
                match (self.original.string(sa, a, 0), self.patched.string(sb, b, 0)) {
                    // Behind a string's end, loops over it stop.
                    (Some(one), Some(other)) => {
                        one == other && da == db || {
                            let inside = |text: &[u8], delta: i64| (0..text.len() as i64).contains(&delta);
                            inside(one, da)
                                && inside(other, db)
                                && one.get(da as usize..) == other.get(db as usize..)
                        }
                    }
                    _ => false,
                }
            }
            (Target::Constant(sa, a, da), Target::Constant(sb, b, db)) => {
                da == db
                    && self.original.constant(sa, a).is_some()
                    && self.original.constant(sa, a) == self.patched.constant(sb, b)
            }
            (Target::Element(a, da), Target::Element(b, db)) => self.same_place(a, da, b, db),
            _ => false,
        };
        if same {
            return None;
        }
        Some(format!(
            "reference to {} became {}",
            describe(self.original, x.target),
            describe(self.patched, y.target)
        ))
    }

    /// Whether two places in elements mean the same.
    fn same_place(&self, a: ElementId, da: i64, b: ElementId, db: i64) -> bool {
        match (self.twins.of_original[a.index()], self.twins.of_patched[b.index()]) {
            (Some(twin), Some(_)) => return twin == b && da == db,
            (None, None) => {}
            _ => return false,
        }
        let (x, y) = (self.original.element(a), self.patched.element(b));
        let (section_x, section_y) = (self.original.section(a), self.patched.section(b));
        match (x.kind, y.kind) {
            (Kind::Special(Special::Site), Kind::Special(Special::Site)) => {
                let base = |unit: &Unit<'_>, id| unit.symbol_name(id).map(names::base);
                // Descriptors of dynamic debug hold their line.
                da == db
                    && x.size() == y.size()
                    && base(self.original, a) == base(self.patched, b)
                    && (section_x.name == section_y.name || own_section(section_x.name.as_ref()))
                    && (sites_hold_lines(section_x.name.as_ref())
                        || is_printk_entry(self.original, a)
                        || self.same_contents(a, b))
            }
            // Same-named constants that nothing tells apart have no counterparts. As long as they hold the same, it makes
            // no difference which is meant; code that is taken and refers to one is refused. Variables that began
            // alike have gone their own ways.
            (Kind::Datum, Kind::Datum) if self.twins.ambiguous.contains_key(&b) => {
                let base = |unit: &Unit<'_>, id| unit.symbol_name(id).map(names::base);
                da == db
                    && tables::is_constant(section_x)
                    && base(self.original, a) == base(self.patched, b)
                    && section_x.name == section_y.name
                    && self.same_contents(a, b)
            }
            (Kind::Special(Special::Constant), Kind::Special(Special::Constant)) => {
                da == db && self.same_contents(a, b)
            }
            (Kind::Unnamed, Kind::Unnamed) => {
                let (one, other): (&BStr, &BStr) = (section_x.name.as_ref(), section_y.name.as_ref());
                if names::is_sanitizer_data(one) && names::is_sanitizer_data(other) {
                    // Locations and type names; what they are about shows in the code.
                    return da == db && without_digits(one) == without_digits(other);
                }
                if section_x.has(section_flags::WRITE) != section_y.has(section_flags::WRITE) {
                    return false;
                }
                let place = |unit: &Unit<'_>, id| unit.places_of_sanitizer.binary_search(&id).is_ok();
                if da == 0 && db == 0 && place(self.original, a) && place(self.patched, b) {
                    return self.same_sanitizer_data(a, b);
                }
                self.same_region(a, da, b, db)
            }
            (Kind::Detached, Kind::Detached) => {
                section_x.name == section_y.name && self.same_region(a, da, b, db)
            }
            (Kind::Entry(one), Kind::Entry(other)) => one == other,
            _ => false,
        }
    }

    /// Whether data of the undefined-behaviour sanitizer are the same but for the place that they name.
    fn same_sanitizer_data(&self, a: ElementId, b: ElementId) -> bool {
        // struct source_location: const char *file_name; u32 line; u32 column (lib/ubsan.h).
        const LINE_AND_COLUMN: std::ops::Range<usize> = 8..16;
        let (one, other) = (self.original.bytes(a), self.patched.bytes(b));
        let same_bytes = one.len() == other.len()
            && one.iter().zip(other).enumerate().all(|(at, (x, y))| x == y || LINE_AND_COLUMN.contains(&at));
        let (refs_a, refs_b) = (self.original.references(a), self.patched.references(b));
        let (start_a, start_b) = (self.original.element(a).start, self.patched.element(b).start);
        same_bytes
            && refs_a.len() == refs_b.len()
            && refs_a.iter().zip(refs_b).all(|(x, y)| {
                x.offset - start_a == y.offset - start_b
                    && self.same_kind(x.kind, y.kind)
                    && self.reference_difference(x, y).is_none()
            })
    }

    fn same_contents(&self, a: ElementId, b: ElementId) -> bool {
        let (x, y) = (self.original.element(a), self.patched.element(b));
        x.size() == y.size()
            && self.same_region(a, x.start as i64 - x.origin as i64, b, y.start as i64 - y.origin as i64)
    }

    /// Compares elements without names from a place on, up to the next place that anything refers to.
    fn same_region(&self, a: ElementId, da: i64, b: ElementId, db: i64) -> bool {
        let key = (a, da, b, db);
        if let Some(&known) = self.equal.borrow().get(&key) {
            return known;
        }
        if self.depth.get() >= DEPTH {
            return false;
        }
        // Two that refer to each other are equal unless something else says no.
        self.equal.borrow_mut().insert(key, true);
        self.depth.set(self.depth.get() + 1);
        let result = self.same_contents_from(a, da, b, db);
        self.depth.set(self.depth.get() - 1);
        self.equal.borrow_mut().insert(key, result);
        result
    }

    fn same_contents_from(&self, a: ElementId, da: i64, b: ElementId, db: i64) -> bool {
        let (x, y) = (self.original.element(a), self.patched.element(b));
        let (next_x, next_y) = (self.original_places.behind(a, da), self.patched_places.behind(b, db));
        let Some((start_x, end_x)) = region(x, da, next_x) else { return da == db };
        let Some((start_y, end_y)) = region(y, db, next_y) else { return false };
        // Code that is the same looks at the same bytes: what is behind the shorter stretch is padding, or
        // belongs to others (gcc's section anchors reach whole blocks of constants from one place).
        let length = (end_x - start_x).min(end_y - start_y);
        let one = Slice { unit: self.original, id: a, start: start_x, end: start_x + length };
        let other = Slice { unit: self.patched, id: b, start: start_y, end: start_y + length };
        self.bytes_difference(&one, &other).is_none()
    }

    /// Whether entries of special sections about a function differ.
    pub(crate) fn entries_differ(&self, o: ElementId, p: ElementId) -> bool {
        self.entries_difference(o, p).is_some()
    }

    /// Compares the entries of special sections about a function that its code does not show.
    fn entries_difference(&self, o: ElementId, p: ElementId) -> Option<Difference> {
        // By kind, site and number; the kind is told as a number to be sorted by.
        let relevant = |unit: &Unit<'d>, id: ElementId| -> Vec<(u8, i64, ElementId, TableKind)> {
            let mut list: Vec<_> = unit.entries_of[id.index()]
                .iter()
                .filter_map(|&entry| match unit.element(entry).kind {
                    Kind::Entry(
                        kind @ (TableKind::Bugs
                        | TableKind::Exceptions
                        | TableKind::Jumps
                        | TableKind::Alternatives),
                    ) => Some((kind as u8, Self::site(unit, entry, id), entry, kind)),
                    _ => None,
                })
                .collect();
            list.sort_unstable_by_key(|&(kind, site, entry, _)| (kind, site, entry));
            list
        };
        if self.original.entries_of[o.index()].is_empty() && self.patched.entries_of[p.index()].is_empty() {
            return None;
        }
        let (one, other) = (relevant(self.original, o), relevant(self.patched, p));
        for index in 0..one.len().max(other.len()) {
            let same = match (one.get(index), other.get(index)) {
                (Some(&(.., a, ka)), Some(&(.., b, kb))) => ka == kb && self.same_entry(ka, a, b),
                _ => false,
            };
            if !same {
                let table = one
                    .get(index)
                    .map(|(.., e, _)| self.original.section(*e).name.to_string())
                    .or_else(|| other.get(index).map(|(.., e, _)| self.patched.section(*e).name.to_string()))
                    .unwrap_or_default();
                return Some(Difference {
                    what: format!("its entry in {table}"),
                    original: one.get(index).map_or(0, |&(_, site, ..)| site),
                    patched: other.get(index).map_or(0, |&(_, site, ..)| site),
                });
            }
        }
        None
    }

    /// Where in a function an entry points to.
    fn site(unit: &Unit<'_>, entry: ElementId, function: ElementId) -> i64 {
        unit.references(entry)
            .iter()
            .find_map(|r| match r.target {
                Target::Element(target, delta) if target == function => Some(delta),
                _ => None,
            })
            .unwrap_or(0)
    }

    fn same_entry(&self, kind: TableKind, a: ElementId, b: ElementId) -> bool {
        let (x, y) = (self.original.element(a), self.patched.element(b));
        if x.size() != y.size() {
            return false;
        }
        let (one, other) = (self.original.bytes(a), self.patched.bytes(b));
        let line = if kind == TableKind::Bugs { tables::bug_line(x.size()) } else { None };
        let same = match line {
            Some(line) => {
                one.get(..line.start) == other.get(..line.start)
                    && one.get(line.end..) == other.get(line.end..)
            }
            None => one == other,
        };
        if !same {
            return false;
        }
        let (refs_a, refs_b) = (self.original.references(a), self.patched.references(b));
        refs_a.len() == refs_b.len()
            && refs_a.iter().zip(refs_b).all(|(r, s)| {
                let (at_r, at_s) = (r.offset - x.start, s.offset - y.start);
                let nothing =
                    self.original.is_empty_replacement(a, r) && self.patched.is_empty_replacement(b, s);
                // What begins where a replacement ends is another's.
                let end = kind == TableKind::Alternatives
                    && tables::alternative_end(self.patched.object.machine, x.size()) == Some(at_r);
                let length = |of: Option<&Reference>, to: &Reference| match (of?.target, to.target) {
                    (Target::Element(from, a), Target::Element(to, b)) if from == to => {
                        Some(b.wrapping_sub(a))
                    }
                    _ => None,
                };
                let same_length = end
                    && length(refs_a.iter().rev().nth(1), r).is_some()
                    && length(refs_a.iter().rev().nth(1), r) == length(refs_b.iter().rev().nth(1), s);
                at_r == at_s
                    && self.same_kind(r.kind, s.kind)
                    && (nothing || same_length || self.reference_difference(r, s).is_none())
            })
    }
}

/// A part of an element.
struct Slice<'a, 'd> {
    unit: &'a Unit<'d>,
    id: ElementId,
    start: u64,
    end: u64,
}

impl<'a> Slice<'a, '_> {
    fn bytes(&self) -> &'a [u8] {
        self.unit.section(self.id).bytes().get(self.start as usize..self.end as usize).unwrap_or(&[])
    }

    fn references(&self) -> &'a [Reference] {
        let all = self.unit.references(self.id);
        let from = all.partition_point(|r| r.offset < self.start);
        let to = all.partition_point(|r| r.offset < self.end);
        &all[from..to]
    }
}

/// The stretch from a place of an element to the next place that is referred to.
fn region(element: &Element, delta: i64, next: Option<i64>) -> Option<(u64, u64)> {
    let start = u64::try_from((element.origin as i64).wrapping_add(delta)).ok()?;
    if start < element.start || start >= element.end {
        return None;
    }
    let end =
        next.and_then(|p| u64::try_from((element.origin as i64).wrapping_add(p)).ok()).unwrap_or(element.end);
    Some((start, end.clamp(start, element.end)))
}

/// Where references point to in elements without names.
struct Places<'a, 'd> {
    unit: &'a Unit<'d>,
    /// Those of elements with many references, sorted.
    known: RefCell<HashMap<ElementId, Vec<i64>>>,
}

impl<'a, 'd> Places<'a, 'd> {
    fn of(unit: &'a Unit<'d>) -> Places<'a, 'd> {
        Places { unit, known: RefCell::new(HashMap::new()) }
    }

    /// The next place of an element behind one.
    fn behind(&self, id: ElementId, delta: i64) -> Option<i64> {
        const FEW: usize = 8;
        if self.unit.element(id).kind != Kind::Unnamed {
            return None;
        }
        let referrers = &self.unit.referrers[id.index()];
        let places =
            referrers.iter().filter_map(|&(_, index)| match self.unit.references[index as usize].target {
                Target::Element(target, place) if target == id => Some(place),
                _ => None,
            });
        if referrers.len() <= FEW {
            return places.filter(|&place| place > delta).min();
        }
        let mut known = self.known.borrow_mut();
        let sorted = known.entry(id).or_insert_with(|| {
            let mut sorted: Vec<i64> = places.collect();
            sorted.sort_unstable();
            sorted
        });
        sorted.get(sorted.partition_point(|&place| place <= delta)).copied()
    }
}

fn first_mismatch(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(x, y)| x != y) }
}

fn own_section(section: &BStr) -> bool {
    [&b".data."[..], b".bss.", b".rodata."].iter().any(|prefix| section.starts_with(prefix))
}

fn sites_hold_lines(section: &BStr) -> bool {
    matches!(section.as_bytes(), b"__verbose" | b"__dyndbg")
}

/// Descriptors of printk's index hold their line.
fn is_printk_entry(unit: &Unit<'_>, id: ElementId) -> bool {
    unit.symbol_name(id).is_some_and(|n| n.split(|&b| b == b'.').any(|part| part == b"_entry"))
}

fn without_digits(name: &BStr) -> Vec<u8> {
    name.iter().copied().filter(|b| !b.is_ascii_digit()).collect()
}

/// What a reference means, for people.
pub(crate) fn describe(unit: &Unit<'_>, target: Target) -> String {
    let with = |name: String, delta: i64| match delta {
        0 => name,
        d if d > 0 => format!("{name}+{d:#x}"),
        d => format!("{name}-{:#x}", d.unsigned_abs()),
    };
    match target {
        Target::Element(id, delta) => with(unit.name(id), delta),
        Target::String(section, start, delta) => {
            let text = unit.string(section, start, delta).unwrap_or_default();
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            let short = if text.len() > 40 { &text[..40] } else { text };
            format!("{:?}", short.as_bstr())
        }
        Target::Constant(section, start, delta) => {
            let bytes = unit.constant(section, start).unwrap_or_default();
            let text: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            with(format!("constant {}", text.join(" ")), delta)
        }
        Target::External(symbol, delta) => with(unit.object.display_name(symbol).to_string(), delta),
        Target::Number(value) => format!("{value:#x}"),
    }
}

/// The functions that are referred to by an element, once each.
pub(crate) fn referenced(unit: &Unit<'_>, id: ElementId) -> BTreeSet<ElementId> {
    unit.references(id)
        .iter()
        .filter_map(|r| match r.target {
            Target::Element(target, _) => Some(target),
            _ => None,
        })
        .collect()
}
