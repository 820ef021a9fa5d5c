//! 64-bit PowerPC, little-endian: 64-bit ELF V2 ABI specification for Power.

use capstone::arch::{BuildsCapstone, BuildsCapstoneEndian};
use capstone::{Capstone, Endian, arch};

use super::{Arch, Distance, Field, Flow, Immediate, Instruction, clear_word, signed, text, word_holding};

pub(super) struct Ppc64le;

impl Arch for Ppc64le {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_PPC64_NONE",
            1 => "R_PPC64_ADDR32",
            10 => "R_PPC64_REL24",
            11 => "R_PPC64_REL14",
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
            10 | 11 | 116 => Field::new(4, true, false),
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
        if matches!(kind, 10 | 11 | 116) && decoded == Flow::Next { Flow::Call } else { decoded }
    }

    fn branch(&self, code: &[u8]) -> Option<(Flow, Distance)> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        // The lowest bit says whether the link register is set, the next one whether the address is
        // absolute.
        let (kind, distance) = match (word >> 26, word & 2) {
            (18, 0) => (10, signed(word & 0x03ff_fffc, 26)),
            (16, 0) => (11, signed(word & 0xfffc, 16)),
            _ => return None,
        };
        let flow = if word & 1 == 1 { Flow::Call } else { Flow::Jump };
        Some((flow, Distance { target: distance, at: 0, kind }))
    }

    fn clear(&self, kind: u32, field: &mut [u8]) {
        match kind {
            10 | 116 => clear_word(field, 0x03ff_fffc),
            11 => clear_word(field, 0xfffc),
            _ => {}
        }
    }

    fn is_short(&self, kind: u32) -> bool {
        matches!(kind, 11)
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
        // `li`, which is `addi` to nothing.
        (word & 0xfc1f_0000 == 0x3800_0000)
            .then_some(Immediate { value: u64::from(word & 0xffff), rest: u64::from(word & 0xffff_0000) })
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
        let engine = Capstone::new().ppc().mode(arch::ppc::ArchMode::Mode64).endian(Endian::Little).build();
        Some(text::capstone(engine, code, address).unwrap_or_else(|| text::bytes(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_hold_distances() {
        // `bl .+8`, `b .-4`, `beq .+16`, `nop`.
        for (word, expected) in [
            (0x4800_0009_u32, Some((Flow::Call, 10, 8))),
            (0x4bff_fffc, Some((Flow::Jump, 10, -4))),
            (0x4182_0010, Some((Flow::Jump, 11, 16))),
            (0x6000_0000, None),
        ] {
            let found = Ppc64le.branch(&word.to_le_bytes()).map(|(flow, d)| (flow, d.kind, d.target));
            assert_eq!(found, expected, "{word:#x}");
            let mut cleared = word.to_le_bytes();
            if let Some((_, kind, _)) = expected {
                Ppc64le.clear(kind, &mut cleared);
                let zero = Ppc64le.branch(&cleared).map(|(_, d)| d.target);
                assert_eq!(zero, Some(0), "{word:#x}");
            }
        }
    }

    #[test]
    fn instructions_are_written_out() {
        for (code, expected) in [
            ([0x03, 0x00, 0x60, 0x38], "li r3, 3"),
            ([0x09, 0x00, 0x00, 0x48], "bl 0x1008"),
            ([0xff, 0xff, 0xff, 0x03], "ff ff ff 03"),
        ] {
            assert_eq!(Ppc64le.disassemble(&code, 0x1000).as_deref(), Some(expected));
        }
    }
}
