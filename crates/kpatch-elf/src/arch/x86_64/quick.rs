//! Length and distance of common instructions from a table, without decoding the rest.
//!
//! A full decoder spends hundreds of instructions on each; all code of both versions is read only to find where
//! instructions end. What is not certain here (rare operations, prefixes that change what is valid) is left to it.

use super::{Distance, Flow, Instruction, PC8, PC32};

/// What follows the opcode.
mod rest {
    /// How many bytes of constant there are; [`WORD`] and [`FULL`] have more with prefixes.
    pub(super) const CONSTANT: u16 = 7;
    /// A constant of one byte.
    pub(super) const BYTE: u16 = 1;
    /// A constant of four bytes, two with the operand-size prefix.
    pub(super) const WORD: u16 = 4;
    /// A constant of the operand's size, up to eight bytes.
    pub(super) const FULL: u16 = 4 | 8;
    /// A ModR/M byte, and what that asks for.
    pub(super) const MODRM: u16 = 0x10;
    /// The constant is a distance.
    pub(super) const BRANCH: u16 = 0x20;
    /// The operation is known to be valid with any ModR/M byte, or checked by [`super::is_valid`].
    pub(super) const KNOWN: u16 = 0x40;
    /// The ModR/M byte says more about the operation.
    pub(super) const GROUP: u16 = 0x80;
    /// A constant follows for some values of the ModR/M byte only (TEST among NOT, NEG, MUL ...).
    pub(super) const TEST: u16 = 0x100;
    /// Operand size, or a segment, which does not matter here.
    pub(super) const PREFIX: u16 = 0x200;
    /// A REX prefix: the opcode follows.
    pub(super) const REX: u16 = 0x400;
    /// The opcode is in the other table.
    pub(super) const ESCAPE: u16 = 0x800;
}

use rest::{BRANCH, BYTE, CONSTANT, ESCAPE, FULL, GROUP, KNOWN, MODRM, PREFIX, REX, TEST, WORD};

/// What a ModR/M byte asks for.
mod operand {
    /// Bytes of displacement.
    pub(super) const DISPLACEMENT: u8 = 7;
    /// A SIB byte, which has a displacement of its own where there is none else.
    pub(super) const SIB: u8 = 8;
    /// The displacement is one from the instruction's end.
    pub(super) const RELATIVE: u8 = 0x10;
}

/// For each ModR/M byte, what it asks for (table 2-2).
const OPERAND: [u8; 256] = {
    let mut table = [0; 256];
    let mut modrm = 0;
    while modrm < 0xc0 {
        table[modrm] = match modrm >> 6 {
            0 if modrm & 7 == 5 => operand::RELATIVE | 4,
            0 => 0,
            1 => 1,
            _ => 4,
        };
        if modrm & 7 == 4 {
            table[modrm] |= operand::SIB;
        }
        modrm += 1;
    }
    table
};

/// Sets the entries of a range of opcodes.
const fn set(mut table: [u16; 256], from: usize, to: usize, what: u16) -> [u16; 256] {
    let mut at = from;
    while at <= to {
        table[at] = if what & (PREFIX | REX | ESCAPE) == 0 { what | KNOWN } else { what };
        at += 1;
    }
    table
}

/// Opcodes of one byte (Intel SDM, volume 2, table A-2), in 64-bit mode.
const ONE: [u16; 256] = {
    let mut table = [0; 256];
    // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP.
    let mut row = 0;
    while row < 0x40 {
        table = set(table, row, row + 3, MODRM);
        table = set(table, row + 4, row + 4, BYTE);
        table = set(table, row + 5, row + 5, WORD);
        row += 8;
    }
    table = set(table, 0x0f, 0x0f, ESCAPE);
    table = set(table, 0x2e, 0x2e, PREFIX);
    table = set(table, 0x3e, 0x3e, PREFIX);
    table = set(table, 0x40, 0x4f, REX);
    table = set(table, 0x50, 0x5f, 0);
    table = set(table, 0x64, 0x66, PREFIX);
    table = set(table, 0x63, 0x63, MODRM);
    table = set(table, 0x68, 0x68, WORD);
    table = set(table, 0x69, 0x69, MODRM | WORD);
    table = set(table, 0x6a, 0x6a, BYTE);
    table = set(table, 0x6b, 0x6b, MODRM | BYTE);
    table = set(table, 0x70, 0x7f, BYTE | BRANCH);
    table = set(table, 0x80, 0x80, MODRM | BYTE);
    table = set(table, 0x81, 0x81, MODRM | WORD);
    table = set(table, 0x83, 0x83, MODRM | BYTE);
    table = set(table, 0x84, 0x8b, MODRM);
    table = set(table, 0x8d, 0x8d, MODRM | GROUP);
    table = set(table, 0x90, 0x90, 0);
    table = set(table, 0x98, 0x99, 0);
    table = set(table, 0xa8, 0xa8, BYTE);
    table = set(table, 0xa9, 0xa9, WORD);
    table = set(table, 0xb0, 0xb7, BYTE);
    table = set(table, 0xb8, 0xbf, FULL);
    table = set(table, 0xc0, 0xc1, MODRM | BYTE);
    table = set(table, 0xc3, 0xc3, 0);
    table = set(table, 0xc6, 0xc6, MODRM | BYTE | GROUP);
    table = set(table, 0xc7, 0xc7, MODRM | WORD | GROUP);
    table = set(table, 0xc9, 0xc9, 0);
    table = set(table, 0xcc, 0xcc, 0);
    table = set(table, 0xd0, 0xd3, MODRM);
    table = set(table, 0xe8, 0xe9, WORD | BRANCH);
    table = set(table, 0xeb, 0xeb, BYTE | BRANCH);
    table = set(table, 0xf6, 0xf6, MODRM | BYTE | GROUP | TEST);
    table = set(table, 0xf7, 0xf7, MODRM | WORD | GROUP | TEST);
    table = set(table, 0xfe, 0xff, MODRM | GROUP);
    table
};

/// Opcodes behind 0f (table A-3).
const TWO: [u16; 256] = {
    let mut table = [0; 256];
    table = set(table, 0x0b, 0x0b, 0);
    table = set(table, 0x1f, 0x1f, MODRM);
    table = set(table, 0x40, 0x4f, MODRM);
    table = set(table, 0x80, 0x8f, WORD | BRANCH);
    table = set(table, 0x90, 0x9f, MODRM);
    table = set(table, 0xa3, 0xa3, MODRM);
    table = set(table, 0xa4, 0xa4, MODRM | BYTE);
    table = set(table, 0xa5, 0xa5, MODRM);
    table = set(table, 0xab, 0xab, MODRM);
    table = set(table, 0xac, 0xac, MODRM | BYTE);
    table = set(table, 0xad, 0xad, MODRM);
    table = set(table, 0xaf, 0xaf, MODRM);
    table = set(table, 0xb0, 0xb1, MODRM);
    table = set(table, 0xb3, 0xb3, MODRM);
    table = set(table, 0xb6, 0xb7, MODRM);
    table = set(table, 0xba, 0xba, MODRM | BYTE | GROUP);
    table = set(table, 0xbb, 0xbf, MODRM);
    table = set(table, 0xc0, 0xc1, MODRM);
    table = set(table, 0xc8, 0xcf, 0);
    table
};

/// Whether an operation that its ModR/M byte says more about is certain.
fn is_valid(two: bool, opcode: u8, modrm: u8) -> bool {
    let (register, memory) = (modrm >> 3 & 7, modrm < 0xc0);
    match (two, opcode) {
        // LEA.
        (false, 0x8d) => memory,
        // MOV; XBEGIN and XABORT are among the others.
        (false, 0xc6 | 0xc7) => register == 0,
        // TEST, NOT, NEG, MUL, IMUL, DIV, IDIV.
        (false, 0xf6 | 0xf7) => register != 1,
        // INC, DEC.
        (false, 0xfe) => register < 2,
        // INC, DEC, near calls and jumps, PUSH.
        (false, 0xff) => matches!(register, 0 | 1 | 2 | 4 | 6),
        // BT and others with a constant.
        (true, 0xba) => register >= 4,
        _ => false,
    }
}

/// What an instruction looks like.
struct Shape {
    /// Bytes.
    length: usize,
    /// Where the constant begins.
    constant: usize,
    /// Where a displacement from the instruction's end begins; 0 without one.
    displacement: usize,
    /// The table's word.
    what: u16,
    is_call: bool,
}

/// As many bytes as an instruction may have, and one.
const WINDOW: usize = super::LONGEST + 1;

/// The shape of the instruction at the start of `code`; nothing where the full decoder has to look.
#[inline(always)]
#[expect(clippy::inline_always, reason = "whoever asks for the length only need not pay for the rest")]
fn shape(code: &[u8]) -> Option<Shape> {
    if let Some(window) = code.first_chunk() {
        return shape_of(window, super::LONGEST);
    }
    let mut window = [0; WINDOW];
    window[..code.len()].copy_from_slice(code);
    shape_of(&window, code.len())
}

/// The same of a window, of which `most` bytes are code.
#[inline(always)]
fn shape_of(window: &[u8; WINDOW], most: usize) -> Option<Shape> {
    // Prefixes and opcode take twelve bytes at most, what follows them four more, so that all of it is in the window.
    const LAST: usize = WINDOW - 1;
    let mut at = 0;
    let mut what = ONE[usize::from(window[0])];
    let (mut narrow, mut wide) = (false, false);
    while what & PREFIX != 0 {
        narrow |= window[at & LAST] == 0x66;
        at += 1;
        if at == 8 {
            return None;
        }
        what = ONE[usize::from(window[at & LAST])];
    }
    if what & REX != 0 {
        wide = window[at & LAST] & 8 != 0;
        at += 1;
        what = ONE[usize::from(window[at & LAST])];
    }
    let two = what & ESCAPE != 0;
    if two {
        at += 1;
        what = TWO[usize::from(window[at & LAST])];
    }
    if what & KNOWN == 0 {
        return None;
    }
    let opcode = window[at & LAST];
    at += 1;
    let mut constant = usize::from(what & CONSTANT);
    let mut displacement = 0;
    if what & MODRM != 0 {
        let modrm = window[at & LAST];
        at += 1;
        if what & GROUP != 0 {
            if !is_valid(two, opcode, modrm) || narrow && opcode == 0xff {
                return None;
            }
            if what & TEST != 0 && modrm >> 3 & 7 != 0 {
                constant = 0;
            }
        }
        let operand = OPERAND[usize::from(modrm)];
        if operand & operand::SIB != 0 {
            if modrm < 0x40 && window[at & LAST] & 7 == 5 {
                at += 4;
            }
            at += 1;
        } else if operand & operand::RELATIVE != 0 {
            displacement = at;
        }
        at += usize::from(operand & operand::DISPLACEMENT);
    }
    if narrow || wide {
        // The operand size changes the size of a branch's distance on some processors only; a REX prefix does nothing.
        if narrow && what & BRANCH != 0 {
            return None;
        }
        if constant == 4 && narrow && !wide {
            constant = 2;
        } else if wide && what & FULL == FULL {
            constant = 8;
        }
    }
    let length = at + constant;
    (length <= most).then_some(Shape {
        length,
        constant: at,
        displacement,
        what,
        is_call: opcode == 0xe8 && !two,
    })
}

/// The length of the instruction at the start of `code`, bytes.
#[inline]
pub(super) fn length(code: &[u8]) -> Option<usize> {
    shape(code).map(|shape| shape.length)
}

/// The instruction at the start of `code`.
#[inline]
pub(super) fn instruction(code: &[u8]) -> Option<Instruction> {
    let shape = shape(code)?;
    let end = shape.length as i64;
    let long = |at: usize| {
        let relative = i32::from_le_bytes(*code.get(at..)?.first_chunk::<4>()?);
        Some(Distance { target: end + i64::from(relative), at: at as u8, kind: PC32 })
    };
    let distance = match shape.what & (BRANCH | BYTE) {
        _ if shape.displacement != 0 => long(shape.displacement),
        what if what & BRANCH == 0 => None,
        BRANCH => long(shape.constant),
        _ => {
            let relative = *code.get(shape.constant)? as i8;
            Some(Distance { target: end + i64::from(relative), at: shape.constant as u8, kind: PC8 })
        }
    };
    let flow = match shape.what & BRANCH {
        0 => Flow::Next,
        _ if shape.is_call => Flow::Call,
        _ => Flow::Jump,
    };
    Some(Instruction { offset: 0, length: shape.length as u8, flow, distance })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that begin like code: prefixes and opcodes of both tables are drawn more often than chance would.
    fn code() -> impl Strategy<Value = Vec<u8>> {
        let prefixes =
            prop::collection::vec(prop::sample::select(vec![0x66_u8, 0x2e, 0x3e, 0x64, 0x65]), 0..3);
        let rex = prop::option::of(0x40_u8..0x50);
        let escape = prop::option::of(Just(0x0f_u8));
        let rest = prop::collection::vec(any::<u8>(), 1..15);
        (prefixes, rex, escape, rest).prop_map(|(prefixes, rex, escape, rest)| {
            prefixes.into_iter().chain(rex).chain(escape).chain(rest).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200_000))]

        #[test]
        fn what_is_found_quickly_is_what_the_decoder_finds(code in code()) {
            if let Some(found) = instruction(&code) {
                prop_assert_eq!(found, super::super::decoded(&code), "{:02x?}", code);
                prop_assert_eq!(length(&code), Some(usize::from(found.length)));
            }
        }
    }
}
