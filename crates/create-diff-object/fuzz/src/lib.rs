//! What the targets share: changing objects where it hurts, and two objects in one input.
//!
//! Blind changes of bytes hit code and strings, which nobody reads closely. Half of the changes made here go to
//! the fields of headers, symbols and relocations instead, found by the file's own tables.

use libfuzzer_sys::fuzzer_mutate;

/// A small generator, the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts it.
    pub fn new(seed: u32) -> Dice {
        Dice(u64::from(seed) << 1 | 1 | 1 << 40)
    }

    /// The next number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit.max(1) as u64) as usize
    }
}

/// Puts two objects into one input: the length of the first (32 bits, little-endian), then both.
pub fn join(original: &[u8], patched: &[u8]) -> Vec<u8> {
    let length = u32::try_from(original.len()).expect("inputs of the fuzzer are small");
    [&length.to_le_bytes(), original, patched].concat()
}

/// The other way.
pub fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<4>() else { return (&[], &[]) };
    let length = u32::from_le_bytes(*length) as usize;
    rest.split_at(length.min(rest.len()))
}

/// Changes an object a little; it grows to at most `most` bytes.
pub fn mutate(object: &mut Vec<u8>, most: usize, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let done = dice.below(2) == 0 && change_field(object, dice).is_some();
        if !done {
            let size = object.len();
            object.resize(most.max(size), 0);
            let new = fuzzer_mutate(object, size, most.max(size));
            object.truncate(new);
        }
    }
}

/// Offset and width of the fields of a section header, a symbol and a relocation (ELF-64).
const HEADER: [(usize, usize); 9] =
    [(0, 4), (4, 4), (8, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8)];
const SYMBOL: [(usize, usize); 6] = [(0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8)];
const RELOCATION: [(usize, usize); 4] = [(0, 8), (8, 4), (12, 4), (16, 8)];

/// Changes a field of a table of the object; nothing if it has none that can be found.
fn change_field(object: &mut [u8], dice: &mut Dice) -> Option<()> {
    let big = *object.get(5)? == 2;
    let headers = usize::try_from(word(object, 0x28, 8, big)?).ok()?;
    let count = word(object, 0x3c, 2, big)? as usize;
    let section = headers.checked_add(dice.below(count) * 64)?;
    let field = |at: usize, width: usize| word(object, section.checked_add(at)?, width, big);
    let kind = field(4, 4)?;
    let (from, size) = (usize::try_from(field(24, 8)?).ok()?, usize::try_from(field(32, 8)?).ok()?);
    let (start, entries, size, fields) = match kind {
        _ if dice.below(3) == 0 => (headers, count, 64, &HEADER[..]),
        2 => (from, size / 24, 24, &SYMBOL[..]),
        4 => (from, size / 24, 24, &RELOCATION[..]),
        _ => (from, size / 4, 4, &[(0, 4)][..]),
    };
    if entries == 0 {
        return None;
    }
    let (at, width) = fields[dice.below(fields.len())];
    let place = |entry: usize| Some(start.checked_add(entry.checked_mul(size)?)?.checked_add(at)?);
    let target = place(dice.below(entries))?;
    let old = word(object, target, width, big)?;
    let new = match dice.below(6) {
        0 => [0, 1, 2, 0xff, 0xfff1, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63][dice.below(10)],
        1 => old.wrapping_add(dice.below(17) as u64).wrapping_sub(8),
        2 => old ^ 1 << dice.below(width * 8),
        3 => dice.below(count.max(1)) as u64,
        // What another entry has there.
        _ => word(object, place(dice.below(entries))?, width, big)?,
    };
    let bytes = if big { new.to_be_bytes() } else { new.to_le_bytes() };
    let bytes = if big { &bytes[8 - width..] } else { &bytes[..width] };
    object.get_mut(target..target.checked_add(width)?)?.copy_from_slice(bytes);
    Some(())
}

fn word(object: &[u8], at: usize, width: usize, big: bool) -> Option<u64> {
    let bytes = object.get(at..at.checked_add(width)?)?;
    let value = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    Some(if big { bytes.iter().fold(0, value) } else { bytes.iter().rev().fold(0, value) })
}
