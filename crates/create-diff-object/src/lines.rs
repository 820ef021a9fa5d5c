//! Line numbers in code: a change that only moves lines is none.
//!
//! The kernel's assertions pass `__LINE__` to functions, so that a line added at the top of a file changes
//! the constants in dozens of functions. A constant that differs is a line number if the line tables of both
//! versions say so for its instruction; without line tables, if it is handed to one of the functions that
//! are known to take a line.

use kpatch_elf::arch::Arch;

use crate::compare::Comparer;
use crate::source::SourceMap;
use crate::unit::{ElementId, Target, Unit};

/// How far a macro's `__LINE__` may be from the line that the table has for the instruction: the lines of a
/// call that is spread over several.
const SPREAD: u64 = 16;

/// More lines than any source has.
const MOST_LINES: u64 = 1 << 17;

/// Functions that take a line number as argument.
const TAKES_LINE: [&[u8]; 12] = [
    b"__warn_printk",
    b"warn_slowpath_null",
    b"warn_slowpath_fmt",
    b"warn_slowpath_fmt_taint",
    b"__might_sleep",
    b"___might_sleep",
    b"__might_resched",
    b"__might_fault",
    b"lockdep_rcu_suspicious",
    b"__btrfs_abort_transaction",
    b"__btrfs_handle_fs_error",
    b"__btrfs_panic",
];

/// Print functions take a line only if the text has a place for it.
const PRINTS: [&[u8]; 2] = [b"printk", b"_printk"];

/// Decides whether differing constants are line numbers.
pub(crate) struct LineNumbers<'a> {
    pub(crate) original: &'a SourceMap,
    pub(crate) patched: &'a SourceMap,
}

impl LineNumbers<'_> {
    /// True if two functions differ in line numbers only.
    pub(crate) fn only_lines_differ(
        &self,
        original: &Unit<'_>,
        patched: &Unit<'_>,
        comparer: &Comparer<'_, '_>,
        o: ElementId,
        p: ElementId,
    ) -> bool {
        let (a, b) = (original.element(o), patched.element(p));
        let (refs_a, refs_b) = (original.references(o), patched.references(p));
        let length = original.extent(o) - a.start;
        if length != patched.extent(p) - b.start || refs_a.len() != refs_b.len() {
            return false;
        }
        let same_references = refs_a.iter().zip(refs_b).all(|(before, after)| {
            before.offset - a.start == after.offset - b.start
                && before.kind == after.kind
                && comparer.reference_difference(before, after).is_none()
        });
        if !same_references || comparer.entries_differ(o, p) {
            return false;
        }
        let arch = patched.object.machine.arch();
        let (one, other) = (original.bytes(o), patched.bytes(p));
        let (Some(one), Some(other)) = (one.get(..length as usize), other.get(..length as usize)) else {
            return false;
        };
        let instructions = arch.instructions(one);
        for (position, instruction) in instructions.iter().enumerate() {
            let range =
                instruction.offset as usize..instruction.offset as usize + instruction.length as usize;
            let (Some(old), Some(new)) = (one.get(range.clone()), other.get(range)) else { return false };
            if old == new {
                continue;
            }
            let Some((before, after)) = constants(arch, old, new) else { return false };
            let dwarf = self.by_line_table(
                (original, o, instruction.offset, before),
                (patched, p, instruction.offset, after),
            );
            let known = match dwarf {
                Some(known) => known,
                None => {
                    before < MOST_LINES
                        && after < MOST_LINES
                        && instructions.get(position + 1).is_some()
                        && passed_as_line(patched, p, b.start + instruction.offset)
                }
            };
            if !known {
                return false;
            }
        }
        true
    }

    /// What the line tables say; nothing where one version has none for the place.
    fn by_line_table(
        &self,
        (original, o, at, before): (&Unit<'_>, ElementId, u64, u64),
        (patched, p, other_at, after): (&Unit<'_>, ElementId, u64, u64),
    ) -> Option<bool> {
        let line = |map: &SourceMap, unit: &Unit<'_>, id: ElementId, at: u64| {
            let element = unit.element(id);
            map.at(element.section, element.start + at).map(|s| s.line)
        };
        let (was, is) = (line(self.original, original, o, at)?, line(self.patched, patched, p, other_at)?);
        Some(
            before.wrapping_sub(was) == after.wrapping_sub(is)
                && (before.abs_diff(was) <= SPREAD)
                && (after.abs_diff(is) <= SPREAD),
        )
    }
}

/// The constants of two instructions that differ in nothing else.
fn constants(arch: &dyn Arch, x: &[u8], y: &[u8]) -> Option<(u64, u64)> {
    let (before, after) = (arch.immediate(x)?, arch.immediate(y)?);
    (before.rest == after.rest).then_some((before.value, after.value))
}

/// Whether the next call behind a place is to a function that takes a line.
fn passed_as_line(unit: &Unit<'_>, id: ElementId, place: u64) -> bool {
    let mut text = None;
    let before = unit.references(id).iter().rev().find(|r| r.offset < place);
    if let Some(Target::String(section, start, delta)) = before.map(|r| r.target) {
        text = unit.string(section, start, delta);
    }
    for reference in unit.references(id).iter().filter(|r| r.offset > place) {
        match reference.target {
            Target::String(section, start, delta) => {
                let string = unit.string(section, start, delta);
                if string.is_some_and(|s| s.contains(&b'%')) || text.is_none() {
                    text = string;
                }
            }
            Target::Constant(..) | Target::Number(_) => {}
            // Once flags and function names stand between the arguments.
            Target::Element(target, _) if unit.element(target).kind != crate::unit::Kind::Function => {}
            Target::Element(..) => return false,
            Target::External(symbol, _) => {
                let name = unit.object.symbol(symbol).name.to_vec();
                if TAKES_LINE.contains(&name.as_slice()) {
                    return true;
                }
                return PRINTS.contains(&name.as_slice())
                    && text.is_some_and(|t| t.windows(2).any(|w| w == b"%d" || w == b"%i" || w == b"%u"));
            }
        }
    }
    false
}
