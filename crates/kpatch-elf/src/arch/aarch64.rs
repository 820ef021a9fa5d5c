//! 64-bit ARM: ELF for the Arm 64-bit Architecture (AAELF64).

use capstone::arch::BuildsCapstone;
use capstone::{Capstone, arch};

use super::{Arch, Distance, Field, Flow, Immediate, Instruction, clear_word, signed, text, word_holding};

pub(super) struct Aarch64;

impl Arch for Aarch64 {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_AARCH64_NONE",
            257 => "R_AARCH64_ABS64",
            258 => "R_AARCH64_ABS32",
            260 => "R_AARCH64_PREL64",
            261 => "R_AARCH64_PREL32",
            275 => "R_AARCH64_ADR_PREL_PG_HI21",
            277 => "R_AARCH64_ADD_ABS_LO12_NC",
            278 => "R_AARCH64_LDST8_ABS_LO12_NC",
            279 => "R_AARCH64_TSTBR14",
            280 => "R_AARCH64_CONDBR19",
            282 => "R_AARCH64_JUMP26",
            283 => "R_AARCH64_CALL26",
            284 => "R_AARCH64_LDST16_ABS_LO12_NC",
            285 => "R_AARCH64_LDST32_ABS_LO12_NC",
            286 => "R_AARCH64_LDST64_ABS_LO12_NC",
            299 => "R_AARCH64_LDST128_ABS_LO12_NC",
            _ => return None,
        })
    }

    fn field(&self, kind: u32) -> Option<Field> {
        Some(match kind {
            0 => Field::new(0, false, true),
            257 => Field::new(8, false, true),
            258 => Field::new(4, false, true),
            260 => Field::new(8, true, true),
            261 => Field::new(4, true, true),
            275 | 279 | 280 | 282 | 283 => Field::new(4, true, false),
            277 | 278 | 284 | 285 | 286 | 299 => Field::new(4, false, false),
            _ => return None,
        })
    }

    fn absolute64(&self) -> u32 {
        257
    }

    fn flow(&self, kind: u32, decoded: Flow) -> Flow {
        match kind {
            283 => Flow::Call,
            279 | 280 | 282 => Flow::Jump,
            _ => decoded,
        }
    }

    fn branch(&self, code: &[u8]) -> Option<(Flow, Distance)> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        let (flow, kind, distance) = if word & 0xfc00_0000 == 0x9400_0000 {
            (Flow::Call, 283, signed(word, 26))
        } else if word & 0xfc00_0000 == 0x1400_0000 {
            (Flow::Jump, 282, signed(word, 26))
        } else if word & 0xff00_0000 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
            // B.cond, CBZ, CBNZ.
            (Flow::Jump, 280, signed(word >> 5, 19))
        } else if word & 0x7e00_0000 == 0x3600_0000 {
            // TBZ, TBNZ.
            (Flow::Jump, 279, signed(word >> 5, 14))
        } else {
            return None;
        };
        Some((flow, Distance { target: distance * 4, at: 0, kind }))
    }

    fn clear(&self, kind: u32, field: &mut [u8]) {
        match kind {
            282 | 283 => clear_word(field, 0x03ff_ffff),
            280 => clear_word(field, 0x00ff_ffe0),
            279 => clear_word(field, 0x0007_ffe0),
            _ => {}
        }
    }

    fn is_short(&self, kind: u32) -> bool {
        matches!(kind, 279 | 280)
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        // MOVZ, 32 bits, no shift.
        (word & 0xffe0_0000 == 0x5280_0000).then_some(Immediate {
            value: u64::from(word >> 5 & 0xffff),
            rest: u64::from(word & !(0xffff << 5)),
        })
    }

    fn holding(&self, code: &[u8], _from: u64, place: u64) -> Option<Instruction> {
        word_holding(self, code, place)
    }

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        (code.len() >= 4).then_some(4)
    }

    fn disassemble(&self, code: &[u8], address: u64) -> Option<String> {
        let length = self.instruction_length(code)?;
        let code = code.get(..length)?;
        let engine = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm).build();
        Some(text::capstone(engine, code, address).unwrap_or_else(|| text::bytes(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_hold_distances() {
        // B.EQ +8, CBZ -4, TBNZ +16, B -4, BL +4, ADD.
        for (word, expected) in [
            (0x5400_0040_u32, Some((Flow::Jump, 280, 8))),
            (0xb4ff_ffe0, Some((Flow::Jump, 280, -4))),
            (0x3700_0080, Some((Flow::Jump, 279, 16))),
            (0x17ff_ffff, Some((Flow::Jump, 282, -4))),
            (0x9400_0001, Some((Flow::Call, 283, 4))),
            (0x9100_0000, None),
        ] {
            let found = Aarch64.branch(&word.to_le_bytes()).map(|(flow, d)| (flow, d.kind, d.target));
            assert_eq!(found, expected, "{word:#x}");
            let mut cleared = word.to_le_bytes();
            if let Some((_, kind, _)) = expected {
                Aarch64.clear(kind, &mut cleared);
                let zero = Aarch64.branch(&cleared).map(|(_, d)| d.target);
                assert_eq!(zero, Some(0), "{word:#x}");
            }
        }
    }

    #[test]
    fn instructions_are_written_out() {
        for (code, expected) in [
            ([0x00, 0x00, 0x80, 0x52], "mov w0, #0"),
            ([0x01, 0x00, 0x00, 0x94], "bl #0x1004"),
            ([0xff, 0xff, 0xff, 0xff], "ff ff ff ff"),
        ] {
            assert_eq!(Aarch64.disassemble(&code, 0x1000).as_deref(), Some(expected));
        }
    }
}
