//! IBM Z: ELF Application Binary Interface s390x Supplement.

use super::{Arch, Field, Flow, Immediate};

pub(super) struct S390x;

impl Arch for S390x {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_390_NONE",
            4 => "R_390_32",
            5 => "R_390_PC32",
            16 => "R_390_PC16DBL",
            17 => "R_390_PLT16DBL",
            19 => "R_390_PC32DBL",
            20 => "R_390_PLT32DBL",
            22 => "R_390_64",
            23 => "R_390_PC64",
            26 => "R_390_GOTENT",
            _ => return None,
        })
    }

    fn field(&self, kind: u32) -> Option<Field> {
        Some(match kind {
            0 => Field::new(0, false, true),
            4 => Field::new(4, false, true),
            5 => Field::new(4, true, true),
            16 | 17 => Field::new(2, true, false),
            19 | 20 | 26 => Field::new(4, true, false),
            22 => Field::new(8, false, true),
            23 => Field::new(8, true, true),
            _ => return None,
        })
    }

    fn absolute64(&self) -> u32 {
        22
    }

    fn addend_bias(&self, kind: u32, to_end: Option<u64>) -> i64 {
        // Instructions count from their own start; the field lies two bytes behind it.
        if to_end.is_some() && matches!(kind, 16 | 17 | 19 | 20 | 26) { -2 } else { 0 }
    }

    fn flow(&self, kind: u32, decoded: Flow) -> Flow {
        if matches!(kind, 17 | 20) { Flow::Call } else { decoded }
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let word = u32::from_be_bytes(*code.first_chunk::<4>()?);
        // LHI and LGHI.
        matches!(word >> 16 & 0xff0f, 0xa708 | 0xa709)
            .then_some(Immediate { value: u64::from(word & 0xffff), rest: u64::from(word >> 16) })
    }

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        // The two highest bits of the first byte tell the length (z/Architecture Principles of Operation).
        let length = match code.first()? >> 6 {
            0 => 2,
            1 | 2 => 4,
            _ => 6,
        };
        (code.len() >= length).then_some(length)
    }

    fn disassemble(&self, code: &[u8], _address: u64) -> Option<String> {
        let length = self.instruction_length(code)?;
        Some(code.get(..length)?.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
    }
}
