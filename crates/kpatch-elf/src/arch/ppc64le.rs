//! 64-bit PowerPC, little-endian: 64-bit ELF V2 ABI specification for Power.

use super::{Arch, Field, Flow, Immediate};

pub(super) struct Ppc64le;

impl Arch for Ppc64le {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_PPC64_NONE",
            1 => "R_PPC64_ADDR32",
            10 => "R_PPC64_REL24",
            26 => "R_PPC64_REL32",
            38 => "R_PPC64_ADDR64",
            44 => "R_PPC64_REL64",
            50 => "R_PPC64_TOC16_HA",
            47 => "R_PPC64_TOC16",
            48 => "R_PPC64_TOC16_LO",
            51 => "R_PPC64_TOC",
            63 => "R_PPC64_TOC16_DS",
            64 => "R_PPC64_TOC16_LO_DS",
            116 => "R_PPC64_REL24_NOTOC",
            118 => "R_PPC64_ENTRY",
            250 => "R_PPC64_REL16_LO",
            252 => "R_PPC64_REL16_HA",
            _ => return None,
        })
    }

    fn field(&self, kind: u32) -> Option<Field> {
        Some(match kind {
            0 | 118 => Field::new(0, false, true),
            1 => Field::new(4, false, true),
            10 | 116 => Field::new(4, true, false),
            26 => Field::new(4, true, true),
            38 | 51 => Field::new(8, false, true),
            44 => Field::new(8, true, true),
            47 | 48 | 50 | 63 | 64 => Field::new(2, false, false),
            250 | 252 => Field::new(2, true, false),
            _ => return None,
        })
    }

    fn absolute64(&self) -> u32 {
        38
    }

    fn flow(&self, kind: u32, decoded: Flow) -> Flow {
        if matches!(kind, 10 | 116) { Flow::Call } else { decoded }
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        // `li`, which is `addi` to nothing.
        (word & 0xfc1f_0000 == 0x3800_0000)
            .then_some(Immediate { value: u64::from(word & 0xffff), rest: u64::from(word & 0xffff_0000) })
    }

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        (code.len() >= 4).then_some(4)
    }

    fn disassemble(&self, code: &[u8], _address: u64) -> Option<String> {
        let length = self.instruction_length(code)?;
        Some(code.get(..length)?.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
    }
}
