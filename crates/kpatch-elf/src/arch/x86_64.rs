//! x86-64: System V psABI AMD64 supplement, and the relocations that the kernel's loader knows
//! (`arch/x86/kernel/module.c`).

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::{Arch, Field};

pub(super) struct X86_64;

impl Arch for X86_64 {
    fn relocation_name(&self, kind: u32) -> Option<&'static str> {
        Some(match kind {
            0 => "R_X86_64_NONE",
            1 => "R_X86_64_64",
            2 => "R_X86_64_PC32",
            4 => "R_X86_64_PLT32",
            9 => "R_X86_64_GOTPCREL",
            10 => "R_X86_64_32",
            11 => "R_X86_64_32S",
            12 => "R_X86_64_16",
            13 => "R_X86_64_PC16",
            14 => "R_X86_64_8",
            15 => "R_X86_64_PC8",
            24 => "R_X86_64_PC64",
            41 => "R_X86_64_GOTPCRELX",
            42 => "R_X86_64_REX_GOTPCRELX",
            _ => return None,
        })
    }

    fn field(&self, kind: u32) -> Option<Field> {
        Some(match kind {
            0 => Field::new(0, false, true),
            1 => Field::new(8, false, true),
            2 | 4 | 9 | 41 | 42 => Field::new(4, true, true),
            10 | 11 => Field::new(4, false, true),
            12 => Field::new(2, false, true),
            13 => Field::new(2, true, true),
            14 => Field::new(1, false, true),
            15 => Field::new(1, true, true),
            24 => Field::new(8, true, true),
            _ => return None,
        })
    }

    fn absolute64(&self) -> u32 {
        1
    }

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then(|| instruction.len())
    }

    fn disassemble(&self, code: &[u8], address: u64) -> Option<String> {
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let mut text = String::new();
        IntelFormatter::new().format(&instruction, &mut text);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_lengths() {
        assert_eq!(X86_64.instruction_length(&[0xe8, 0, 0, 0, 0]), Some(5));
        assert_eq!(X86_64.instruction_length(&[0xf3, 0x0f, 0x1e, 0xfa, 0x90]), Some(4));
        assert_eq!(X86_64.instruction_length(&[0xe8, 0]), None);
        assert_eq!(X86_64.instruction_length(&[]), None);
    }
}
