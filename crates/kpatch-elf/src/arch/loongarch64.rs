//! 64-bit LoongArch: ELF for the LoongArch Architecture.

use super::{Arch, Distance, Field, Flow, Immediate, Instruction, clear_word, signed, text, word_holding};

pub(super) struct LoongArch64;

impl Arch for LoongArch64 {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_LARCH_NONE",
            1 => "R_LARCH_32",
            2 => "R_LARCH_64",
            47 => "R_LARCH_ADD8",
            48 => "R_LARCH_ADD16",
            50 => "R_LARCH_ADD32",
            51 => "R_LARCH_ADD64",
            52 => "R_LARCH_SUB8",
            53 => "R_LARCH_SUB16",
            55 => "R_LARCH_SUB32",
            56 => "R_LARCH_SUB64",
            64 => "R_LARCH_B16",
            65 => "R_LARCH_B21",
            66 => "R_LARCH_B26",
            71 => "R_LARCH_PCALA_HI20",
            72 => "R_LARCH_PCALA_LO12",
            75 => "R_LARCH_GOT_PC_HI20",
            76 => "R_LARCH_GOT_PC_LO12",
            99 => "R_LARCH_32_PCREL",
            100 => "R_LARCH_RELAX",
            102 => "R_LARCH_ALIGN",
            109 => "R_LARCH_64_PCREL",
            _ => return None,
        })
    }

    fn field(&self, kind: u32) -> Option<Field> {
        Some(match kind {
            0 | 100 | 102 => Field::new(0, false, true),
            47 | 52 => Field::new(1, false, true),
            48 | 53 => Field::new(2, false, true),
            1 | 50 | 55 => Field::new(4, false, true),
            2 | 51 | 56 => Field::new(8, false, true),
            64..=66 | 71 | 75 => Field::new(4, true, false),
            72 | 76 => Field::new(4, false, false),
            99 => Field::new(4, true, true),
            109 => Field::new(8, true, true),
            _ => return None,
        })
    }

    fn absolute64(&self) -> u32 {
        2
    }

    fn flow(&self, kind: u32, decoded: Flow) -> Flow {
        match kind {
            // The instruction tells call from jump; R_LARCH_CALL36 is a pair that ends in one or the other.
            110 => Flow::Call,
            64..=66 if decoded == Flow::Next => Flow::Jump,
            _ => decoded,
        }
    }

    fn branch(&self, code: &[u8]) -> Option<(Flow, Distance)> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        let low = word >> 10 & 0xffff;
        let (flow, kind, distance) = match word >> 26 {
            // BL, B: the high bits stand below the low ones.
            0x15 => (Flow::Call, 66, signed((word & 0x3ff) << 16 | low, 26)),
            0x14 => (Flow::Jump, 66, signed((word & 0x3ff) << 16 | low, 26)),
            // BEQZ, BNEZ, and those of the floating-point flags.
            0x10..=0x12 => (Flow::Jump, 65, signed((word & 0x1f) << 16 | low, 21)),
            // BEQ, BNE, BLT, BGE, BLTU, BGEU.
            0x16..=0x1b => (Flow::Jump, 64, signed(low, 16)),
            _ => return None,
        };
        Some((flow, Distance { target: distance * 4, at: 0, kind }))
    }

    fn clear(&self, kind: u32, field: &mut [u8]) {
        match kind {
            66 => clear_word(field, 0x03ff_ffff),
            65 => clear_word(field, 0x03ff_fc1f),
            64 => clear_word(field, 0x03ff_fc00),
            _ => {}
        }
    }

    fn is_short(&self, kind: u32) -> bool {
        matches!(kind, 64 | 65)
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        let (source, constant) = (word >> 5 & 31, word >> 10 & 0xfff);
        // `addi.w rd, $zero, constant` and `ori`, alone or for the low bits behind `lu12i.w`.
        let load = word & 0xffc0_0000 == 0x0280_0000 && source == 0;
        let low = word & 0xffc0_0000 == 0x0380_0000 && (source == 0 || source == word & 31);
        (load || low)
            .then_some(Immediate { value: u64::from(constant), rest: u64::from(word & !(0xfff << 10)) })
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
        Some(text::loongarch64::instruction(code, address).unwrap_or_else(|| text::bytes(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_hold_distances() {
        // `bl 8`, `b -4`, `beqz $a0, 16`, `bne $a0, $a1, -8`, `nop`.
        for (word, expected) in [
            (0x5400_0800_u32, Some((Flow::Call, 66, 8))),
            (0x53ff_ffff, Some((Flow::Jump, 66, -4))),
            (0x4000_1080, Some((Flow::Jump, 65, 16))),
            (0x5fff_f885, Some((Flow::Jump, 64, -8))),
            (0x0340_0000, None),
        ] {
            let found = LoongArch64.branch(&word.to_le_bytes()).map(|(flow, d)| (flow, d.kind, d.target));
            assert_eq!(found, expected, "{word:#x}");
            let mut cleared = word.to_le_bytes();
            if let Some((_, kind, _)) = expected {
                LoongArch64.clear(kind, &mut cleared);
                let zero = LoongArch64.branch(&cleared).map(|(_, d)| d.target);
                assert_eq!(zero, Some(0), "{word:#x}");
            }
        }
    }
}
