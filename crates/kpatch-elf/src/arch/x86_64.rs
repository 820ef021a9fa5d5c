//! x86-64: System V psABI AMD64 supplement, and the relocations that the kernel's loader knows
//! (`arch/x86/kernel/module.c`).

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter, Mnemonic, OpKind};

use super::{Arch, Field, Flow, Immediate, Instruction};

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

    fn instructions(&self, code: &[u8]) -> Vec<Instruction> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut out = Vec::with_capacity(code.len() / 4);
        let mut instruction = iced_x86::Instruction::default();
        while decoder.can_decode() {
            let offset = decoder.position();
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                out.push(Instruction { offset: offset as u64, length: 1, flow: Flow::Next, target: None });
                if decoder.set_position(offset + 1).is_err() {
                    break;
                }
                decoder.set_ip(offset as u64 + 1);
                continue;
            }
            let near = instruction.op_count() > 0
                && matches!(
                    instruction.op0_kind(),
                    OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
                );
            let flow = match (near, instruction.mnemonic()) {
                (false, _) => Flow::Next,
                (true, Mnemonic::Call) => Flow::Call,
                (true, _) => Flow::Jump,
            };
            let target = near.then(|| instruction.near_branch_target() as i64);
            out.push(Instruction { offset: offset as u64, length: instruction.len() as u8, flow, target });
        }
        out
    }

    fn addend_bias(&self, kind: u32, to_end: Option<u64>) -> i64 {
        match self.field(kind) {
            // The processor counts from the end of the instruction, the linker from the field.
            Some(field) if field.pc_relative || kind == 0 => to_end.map_or(0, |end| end as i64),
            _ => 0,
        }
    }

    fn branch32(&self) -> Option<u32> {
        Some(2)
    }

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let constant = (0..instruction.op_count()).find(|&i| {
            matches!(
                instruction.op_kind(i),
                OpKind::Immediate8
                    | OpKind::Immediate16
                    | OpKind::Immediate32
                    | OpKind::Immediate64
                    | OpKind::Immediate8to32
                    | OpKind::Immediate8to64
                    | OpKind::Immediate32to64
            )
        })?;
        (instruction.mnemonic() == Mnemonic::Mov && instruction.op0_kind() == OpKind::Register).then(|| {
            let register = instruction.op0_register() as u64;
            Immediate {
                value: instruction.immediate(constant),
                rest: register << 8 | instruction.len() as u64,
            }
        })
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
