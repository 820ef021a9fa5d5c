//! x86-64: System V psABI AMD64 supplement, and the relocations that the kernel's loader knows
//! (`arch/x86/kernel/module.c`).

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::{InstDecoder, Opcode, Operand, RegSpec};

use super::{Arch, Distance, Field, Flow, Immediate, Instruction};

mod quick;

pub(super) struct X86_64;

/// Relocation types of distances in branches: `R_X86_64_PC32`, `R_X86_64_PC16`, `R_X86_64_PC8`.
const PC32: u32 = 2;
const PC16: u32 = 13;
const PC8: u32 = 15;

/// The length of the longest instruction, bytes.
const LONGEST: usize = 15;

/// The length of `movabs`, the only move of a constant with eight bytes of it.
const MOVABS: usize = 10;

/// The instruction at the start of `bytes`, by a decoder whose tables are constants: iced's are made at the first use,
/// which costs more than comparing a small object.
fn decoded(bytes: &[u8]) -> Instruction {
    let Ok(decoded) = InstDecoder::default().decode_slice(&bytes[..bytes.len().min(LONGEST)]) else {
        return Instruction { offset: 0, length: 1, flow: Flow::Next, distance: None };
    };
    let length = (decoded.len().to_const() as usize).max(1);
    let flow = branch(decoded.opcode());
    let (mut immediate, mut relative, mut relative_address) = (0, None, false);
    for index in 0..decoded.operand_count() {
        match decoded.operand(index) {
            Operand::ImmediateI8 { imm } => (immediate, relative) = (1, Some(i64::from(imm))),
            Operand::ImmediateI16 { imm } => (immediate, relative) = (2, Some(i64::from(imm))),
            Operand::ImmediateI32 { imm } => (immediate, relative) = (4, Some(i64::from(imm))),
            Operand::ImmediateU8 { .. } => immediate = 1,
            Operand::ImmediateU16 { .. } => immediate = 2,
            // Four bytes with their sign extended, beside an operand in memory.
            Operand::ImmediateU32 { .. } | Operand::ImmediateI64 { .. } | Operand::ImmediateU64 { .. } => {
                immediate = 4;
            }
            // Without displacement if that is zero.
            Operand::Disp { base, .. } | Operand::MemDeref { base } => {
                relative_address |= base == RegSpec::rip();
            }
            _ => {}
        }
    }
    let end = length as i64;
    let distance = match (flow, relative_address, relative) {
        (Some(_), false, Some(relative)) if immediate > 0 => Some(Distance {
            target: end.wrapping_add(relative),
            at: (length - immediate) as u8,
            kind: match immediate {
                1 => PC8,
                2 => PC16,
                _ => PC32,
            },
        }),
        _ => None,
    };
    let flow = flow.filter(|_| distance.is_some());
    // A shift by one has that as an operand, but not in its bytes.
    let address = || rip(bytes, length, immediate, end).or_else(|| rip(bytes, length, 0, end));
    let distance = distance.or_else(|| if relative_address { address() } else { None });
    Instruction { offset: 0, length: length as u8, flow: flow.unwrap_or(Flow::Next), distance }
}

/// The distance in a memory operand relative to the instruction's end: in front of an immediate value, behind the byte
/// that says so.
fn rip(bytes: &[u8], length: usize, immediate: usize, end: i64) -> Option<Distance> {
    let field = length.checked_sub(4 + immediate)?;
    let mode = *bytes.get(field.checked_sub(1)?)?;
    let relative = i32::from_le_bytes(*bytes.get(field..)?.first_chunk::<4>()?);
    (mode & 0xc7 == 5).then(|| Distance {
        target: end.wrapping_add(i64::from(relative)),
        at: field as u8,
        kind: PC32,
    })
}

/// Calls and jumps, conditional ones included.
fn branch(opcode: Opcode) -> Option<Flow> {
    use Opcode as O;
    match opcode {
        O::CALL => Some(Flow::Call),
        O::JMP
        | O::JO
        | O::JNO
        | O::JB
        | O::JNB
        | O::JZ
        | O::JNZ
        | O::JA
        | O::JNA
        | O::JS
        | O::JNS
        | O::JP
        | O::JNP
        | O::JL
        | O::JGE
        | O::JLE
        | O::JG
        | O::JRCXZ
        | O::JECXZ
        | O::LOOP
        | O::LOOPZ
        | O::LOOPNZ
        | O::XBEGIN => Some(Flow::Jump),
        _ => None,
    }
}

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

    fn instruction(&self, code: &[u8]) -> Instruction {
        quick::instruction(code).unwrap_or_else(|| decoded(code))
    }

    fn holding(&self, code: &[u8], from: u64, place: u64) -> Option<Instruction> {
        let (mut at, place) = (usize::try_from(from).ok()?, usize::try_from(place).ok()?);
        if place >= code.len() {
            return None;
        }
        loop {
            let rest = code.get(at..)?;
            let length = quick::length(rest).unwrap_or_else(|| usize::from(decoded(rest).length));
            if at + length > place {
                return Some(self.instruction(rest).behind(at as u64));
            }
            at += length;
        }
    }

    fn relocated(&self, kind: u32, code: &[u8], from: u64, field: u64) -> Option<Instruction> {
        match self.field(kind) {
            // An address, whatever the instruction does with it.
            Some(shape) if !shape.pc_relative && shape.width > 0 => return None,
            // In front of a field for distances stands a ModR/M byte or the opcode of a branch; those of CALL and JMP are no
            // such ModR/M bytes.
            Some(shape) if shape.pc_relative && shape.width == 4 => {
                let opcode = usize::try_from(field).ok()?.checked_sub(1)?;
                if let Some(rest @ [0xe8 | 0xe9, ..]) = code.get(opcode..) {
                    return Some(self.instruction(rest).behind(opcode as u64));
                }
            }
            _ => {}
        }
        self.holding(code, from, field)
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

    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let decoded = InstDecoder::default().decode_slice(code).ok()?;
        let registers =
            decoded.opcode() == Opcode::MOV && matches!(decoded.operand(0), Operand::Register { .. });
        let (value, width) = match decoded.operand(1) {
            _ if !registers => return None,
            Operand::ImmediateI8 { imm } => (u64::from(imm as u8), 1),
            Operand::ImmediateU8 { imm } => (u64::from(imm), 1),
            Operand::ImmediateI16 { imm } => (u64::from(imm as u16), 2),
            Operand::ImmediateU16 { imm } => (u64::from(imm), 2),
            Operand::ImmediateI32 { imm } => (u64::from(imm as u32), 4),
            Operand::ImmediateU32 { imm } => (u64::from(imm), 4),
            Operand::ImmediateI64 { imm } => (imm as u64, 4),
            Operand::ImmediateU64 { imm } => (imm, 4),
            _ => return None,
        };
        // Prefixes, operation and register: all bytes in front of the constant, which the last of them ends.
        let length = decoded.len().to_const() as usize;
        let width = if length >= MOVABS { 8 } else { width };
        let front = code.get(..length.checked_sub(width)?)?;
        let rest = front.iter().take(7).fold(length as u64, |rest, &byte| rest << 8 | u64::from(byte));
        Some(Immediate { value, rest })
    }

    fn instruction_length(&self, code: &[u8]) -> Option<usize> {
        let decoded = InstDecoder::default().decode_slice(code).ok()?;
        Some(decoded.len().to_const() as usize)
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
    use iced_x86::{Mnemonic, OpKind};

    use super::*;

    /// What iced says of code.
    fn by_iced(code: &[u8]) -> Vec<Instruction> {
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut out = Vec::new();
        while decoder.can_decode() {
            let offset = decoder.position();
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                out.push(Instruction { offset: offset as u64, length: 1, flow: Flow::Next, distance: None });
                decoder.set_position(offset + 1).unwrap();
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
            let fields = decoder.get_constant_offsets(&instruction);
            let distance = if near {
                let kind = if fields.immediate_size() == 1 { PC8 } else { PC32 };
                let target = instruction.near_branch_target() as i64;
                Some(Distance { target, at: fields.immediate_offset() as u8, kind })
            } else if instruction.is_ip_rel_memory_operand() {
                let target = instruction.ip_rel_memory_address() as i64;
                Some(Distance { target, at: fields.displacement_offset() as u8, kind: PC32 })
            } else {
                None
            };
            out.push(Instruction { offset: offset as u64, length: instruction.len() as u8, flow, distance });
        }
        out
    }

    #[test]
    fn two_decoders_agree_on_the_code_of_real_kernels() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff/x86_64");
        let mut count = 0;
        for case in std::fs::read_dir(root).unwrap() {
            let bytes = std::fs::read(case.unwrap().path().join("patched.o")).unwrap();
            let object = crate::Object::read(&bytes).unwrap();
            for section in object.sections.iter().filter(|s| s.is_text()) {
                let (found, expected) = (X86_64.instructions(section.bytes()), by_iced(section.bytes()));
                for (one, other) in found.iter().zip(&expected) {
                    let at = other.offset as usize;
                    let code = &section.bytes()[at..(at + 15).min(section.bytes().len())];
                    assert_eq!(one, other, "{}: {code:02x?}", section.name);
                }
                assert_eq!(found.len(), expected.len(), "{}", section.name);
                count += found.len();
            }
        }
        assert!(count > 100_000, "{count}");
    }

    #[test]
    fn decodes_lengths() {
        assert_eq!(X86_64.instruction_length(&[0xe8, 0, 0, 0, 0]), Some(5));
        assert_eq!(X86_64.instruction_length(&[0xf3, 0x0f, 0x1e, 0xfa, 0x90]), Some(4));
        assert_eq!(X86_64.instruction_length(&[0xe8, 0]), None);
        assert_eq!(X86_64.instruction_length(&[]), None);
    }

    #[test]
    fn a_shift_by_one_has_its_address_at_the_end() {
        // `shr byte ptr [rip+16],1`
        let found = decoded(&[0xd0, 0x2d, 16, 0, 0, 0]);
        assert_eq!(found.distance, Some(Distance { target: 22, at: 2, kind: PC32 }));
    }

    #[test]
    fn fields_of_calls_and_addresses_belong_to_their_instructions() {
        // `xor eax,eax`, `call +0`, `mov dword ptr [rip],5`, `mov eax,offset 0`
        let code = [0x31, 0xc0, 0xe8, 0, 0, 0, 0, 0xc7, 5, 0, 0, 0, 0, 5, 0, 0, 0, 0xb8, 0, 0, 0, 0];
        let found =
            |kind, field| X86_64.relocated(kind, &code, 0, field).map(|i| (i.offset, i.length, i.flow));
        assert_eq!(found(4, 3), Some((2, 5, Flow::Call)));
        assert_eq!(found(2, 9), Some((7, 10, Flow::Next)));
        assert_eq!(found(10, 18), None, "an address has no distance");
        assert_eq!(found(2, 22), None, "behind the end");
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
