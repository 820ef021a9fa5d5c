//! x86-64: System V psABI AMD64 supplement, and the relocations that the kernel's loader knows
//! (`arch/x86/kernel/module.c`).

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter, Mnemonic, OpKind};

use super::{Arch, Distance, Field, Flow, Immediate, Instruction};

pub(super) struct X86_64;

/// Relocation types of distances in branches: `R_X86_64_PC32`, `R_X86_64_PC16`, `R_X86_64_PC8`.
const PC32: u32 = 2;
const PC16: u32 = 13;
const PC8: u32 = 15;

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
                out.push(Instruction { offset: offset as u64, length: 1, flow: Flow::Next, distance: None });
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
            let distance = if near || instruction.is_ip_rel_memory_operand() {
                let fields = decoder.get_constant_offsets(&instruction);
                let (target, at) = if near {
                    (instruction.near_branch_target(), fields.immediate_offset())
                } else {
                    (instruction.ip_rel_memory_address(), fields.displacement_offset())
                };
                let kind = match if near { fields.immediate_size() } else { fields.displacement_size() } {
                    1 => PC8,
                    2 => PC16,
                    _ => PC32,
                };
                Some(Distance { target: target as i64, at: at as u8, kind })
            } else {
                None
            };
            let length = instruction.len() as u8;
            out.push(Instruction { offset: offset as u64, length, flow, distance });
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

    fn plain(&self, kind: u32) -> u32 {
        // R_X86_64_PLT32 is R_X86_64_PC32 for calls of global symbols; R_X86_64_GOTPCRELX and
        // R_X86_64_REX_GOTPCRELX are what newer assemblers write for R_X86_64_GOTPCREL.
        match kind {
            4 => 2,
            41 | 42 => 9,
            _ => kind,
        }
    }

    fn is_short(&self, kind: u32) -> bool {
        matches!(kind, PC8 | PC16)
    }

    fn leaves(&self, code: &[u8]) -> bool {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let instruction = decoder.decode();
        match instruction.mnemonic() {
            Mnemonic::Ret | Mnemonic::Retf | Mnemonic::Iretq | Mnemonic::Sysretq | Mnemonic::Sysexitq => true,
            Mnemonic::Jmp => matches!(instruction.op0_kind(), OpKind::Register | OpKind::Memory),
            _ => false,
        }
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
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_branch_leading_zeros(false);
        options.set_leading_zeros(false);
        formatter.format(&instruction, &mut text);
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

    #[test]
    fn distances_are_found_in_branches_and_addresses() {
        // `call +0`, `je +2`, `lea rax,[rip+16]`, `mov eax,1`.
        let code = [0xe8, 0, 0, 0, 0, 0x74, 2, 0x48, 0x8d, 5, 16, 0, 0, 0, 0xb8, 1, 0, 0, 0];
        let found: Vec<_> = X86_64
            .instructions(&code)
            .into_iter()
            .map(|i| (i.flow, i.distance.map(|d| (d.kind, d.target, d.at))))
            .collect();
        assert_eq!(
            found,
            [
                (Flow::Call, Some((PC32, 5, 1))),
                (Flow::Jump, Some((PC8, 9, 1))),
                (Flow::Next, Some((PC32, 30, 3))),
                (Flow::Next, None),
            ]
        );
    }
}
