//! 64-bit LoongArch: ELF for the LoongArch Architecture.

use super::{Arch, Field, Flow, Immediate};

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
            66 => Flow::Call,
            64 | 65 => Flow::Jump,
            _ => decoded,
        }
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

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        (code.len() >= 4).then_some(4)
    }

    fn disassemble(&self, code: &[u8], _address: u64) -> Option<String> {
        let length = self.instruction_length(code)?;
        Some(code.get(..length)?.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
    }
}
