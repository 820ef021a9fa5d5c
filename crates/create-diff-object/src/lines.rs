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
    pub(crate) original: &'a SourceMap<'a>,
    pub(crate) patched: &'a SourceMap<'a>,
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
                && comparer.same_kind(before.kind, after.kind)
                && (comparer.reference_difference(before, after).is_none()
                    || self.only_line_in_string(
                        (original, o, before.offset - a.start, before.target),
                        (patched, p, after.offset - b.start, after.target),
                    ))
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

    /// Whether two strings differ only in the line that the kernel's macros put into them (FORTIFY_SOURCE names
    /// the place of each `memcpy`).
    fn only_line_in_string(
        &self,
        (original, o, at, before): (&Unit<'_>, ElementId, u64, Target),
        (patched, p, other_at, after): (&Unit<'_>, ElementId, u64, Target),
    ) -> bool {
        let text = |unit: &Unit<'_>, target| match target {
            Target::String(section, start, 0) => unit.string(section, start, 0).map(<[u8]>::to_vec),
            _ => None,
        };
        let (Some(one), Some(other)) = (text(original, before), text(patched, after)) else { return false };
        let Some((was, is)) = differing_numbers(&one, &other) else { return false };
        self.by_line_table((original, o, at, was), (patched, p, other_at, is)) == Some(true)
    }

    /// What the line tables say; nothing where one version has none for the place.
    fn by_line_table(
        &self,
        (original, o, at, before): (&Unit<'_>, ElementId, u64, u64),
        (patched, p, other_at, after): (&Unit<'_>, ElementId, u64, u64),
    ) -> Option<bool> {
        let line = |map: &SourceMap<'_>, unit: &Unit<'_>, id: ElementId, at: u64| {
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

/// The numbers in two texts that are equal but for one number behind a colon.
fn differing_numbers(one: &[u8], other: &[u8]) -> Option<(u64, u64)> {
    let first = one.iter().zip(other).position(|(a, b)| a != b)?;
    let front = one[..first].iter().rposition(|b| !b.is_ascii_digit())? + 1;
    if one[front - 1] != b':' {
        return None;
    }
    let number = |text: &[u8]| -> Option<(u64, Vec<u8>)> {
        let digits = text[front..].iter().take_while(|b| b.is_ascii_digit()).count();
        let value = std::str::from_utf8(&text[front..front + digits]).ok()?.parse().ok()?;
        Some((value, text[front + digits..].to_vec()))
    };
    let ((was, rest), (is, other_rest)) = (number(one)?, number(other)?);
    (rest == other_rest).then_some((was, is))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_strings_are_told_from_other_differences() {
        assert_eq!(differing_numbers(b"at fs/a.c:99\0", b"at fs/a.c:101\0"), Some((99, 101)));
        assert_eq!(differing_numbers(b"a.c:199: x\0", b"a.c:198: x\0"), Some((199, 198)));
        for (one, other) in [
            (&b"a.c:1 x\0"[..], &b"a.c:2 y\0"[..]),
            (b"size 12\0", b"size 13\0"),
            (b"a.c:x\0", b"a.c:y\0"),
            (b"same\0", b"same\0"),
            (b"1\0", b"2\0"),
        ] {
            assert_eq!(differing_numbers(one, other), None);
        }
    }
}
