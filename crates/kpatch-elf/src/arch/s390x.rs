//! IBM Z: ELF Application Binary Interface s390x Supplement.

use capstone::arch::BuildsCapstone;
use capstone::{Capstone, arch};

use super::{Arch, Distance, Field, Flow, Immediate, text};

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
        // The type tells nothing: gcc writes `larl %r1,function@PLT` to get an address.
        let _ = kind;
        decoded
    }

    fn branch(&self, code: &[u8]) -> Option<(Flow, Distance)> {
        let (&first, &second) = (code.first()?, code.get(1)?);
        let long = || Some(i64::from(i32::from_be_bytes(*code.get(2..)?.first_chunk::<4>()?)) * 2);
        let short = || Some(i64::from(i16::from_be_bytes(*code.get(2..)?.first_chunk::<2>()?)) * 2);
        let (flow, kind, distance) = match (first, second & 0xf) {
            // BRASL; BRCL, which with an empty mask is no branch at all; LARL.
            (0xc0, 5) => (Flow::Call, 19, long()?),
            (0xc0, 4) if second & 0xf0 != 0 => (Flow::Jump, 19, long()?),
            (0xc0, 0) => (Flow::Next, 19, long()?),
            // BRAS, which also gets at data behind it; BRC.
            (0xa7, 5) => (Flow::Call, 16, short()?),
            (0xa7, 4) => (Flow::Jump, 16, short()?),
            _ => return None,
        };
        Some((flow, Distance { target: distance, at: 2, kind }))
    }

    fn plain(&self, kind: u32) -> u32 {
        // The DBL types of 16 and 32 bits, through the linkage table or not.
        match kind {
            17 => 16,
            20 => 19,
            _ => kind,
        }
    }

    fn is_short(&self, kind: u32) -> bool {
        matches!(kind, 16 | 17)
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

    fn disassemble(&self, code: &[u8], address: u64) -> Option<String> {
        let length = self.instruction_length(code)?;
        let code = code.get(..length)?;
        let engine = Capstone::new().sysz().mode(arch::sysz::ArchMode::Default).build();
        Some(text::capstone(engine, code, address).unwrap_or_else(|| text::bytes(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_hold_distances() {
        for (code, expected) in [
            // BRASL, BRCL, BRCL that never branches (a patchable entry), LARL, BRC, LGR.
            (&[0xc0, 0xe5, 0, 0, 0, 4][..], Some((Flow::Call, 19, 8))),
            (&[0xc0, 0xf4, 0xff, 0xff, 0xff, 0xfe], Some((Flow::Jump, 19, -4))),
            (&[0xc0, 0x04, 0, 0, 0, 0], None),
            (&[0xc0, 0x10, 0, 0, 0, 8], Some((Flow::Next, 19, 16))),
            (&[0xa7, 0xf4, 0xff, 0xfe], Some((Flow::Jump, 16, -4))),
            (&[0xb9, 0x04, 0, 0x23], None),
        ] {
            let found = S390x.branch(code).map(|(flow, d)| (flow, d.kind, d.target));
            assert_eq!(found, expected, "{code:x?}");
        }
    }

    #[test]
    fn instructions_are_written_out() {
        for (code, expected) in [
            (&[0xa7, 0x29, 0, 3][..], "lghi %r2, 3"),
            (&[0xc0, 0xe5, 0, 0, 0, 4], "brasl %r14, 0x1008"),
            (&[0x00, 0x00], "00 00"),
        ] {
            assert_eq!(S390x.disassemble(code, 0x1000).as_deref(), Some(expected));
        }
    }
}
