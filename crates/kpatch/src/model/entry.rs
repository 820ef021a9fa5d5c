//! How functions begin while ftrace hooks them, on each machine.

use kpatch_elf::arch::Machine;

/// Bytes to be read at a function's address, where kallsyms has it.
pub fn size(machine: Machine) -> usize {
    match machine {
        Machine::X86_64 => 9,
        Machine::S390x => 2,
        Machine::Aarch64 | Machine::LoongArch64 => 12,
        Machine::Ppc64le => 20,
    }
}

/// Does a function begin with the call that ftrace puts there while something hooks it? Where nothing does, it has a
/// no-op there. None: the code has neither.
pub fn leads_to_ftrace(machine: Machine, code: &[u8]) -> Option<bool> {
    match machine {
        Machine::X86_64 => x86_64(code),
        Machine::Aarch64 => aarch64(&words(code)),
        Machine::Ppc64le => ppc64le(&words(code)),
        Machine::S390x => s390x(code),
        Machine::LoongArch64 => loongarch64(&words(code)),
    }
}

/// Little-endian instructions.
fn words(code: &[u8]) -> Vec<u32> {
    code.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

/// `call rel32`, behind `endbr64` where the kernel has IBT.
fn x86_64(code: &[u8]) -> Option<bool> {
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    code.strip_prefix(&ENDBR64).unwrap_or(code).first().map(|&opcode| opcode == 0xe8)
}

/// `mov x9, x30; bl`, behind `bti c` where the kernel has BTI (`arch/arm64/kernel/ftrace.c`). Before ftrace's start both
/// are no-ops.
fn aarch64(code: &[u32]) -> Option<bool> {
    const BTI_C: u32 = 0xd503_245f;
    const NOP: u32 = 0xd503_201f;
    const MOV_X9_X30: u32 = 0xaa1e_03e9;
    match *code.strip_prefix(&[BTI_C]).unwrap_or(code) {
        [MOV_X9_X30, bl, ..] if bl >> 26 == 0b10_0101 => Some(true),
        [MOV_X9_X30 | NOP, NOP, ..] => Some(false),
        _ => None,
    }
}

/// `mflr r0; bl`, the older ABI with `std r0,16(r1)` between them (`-mprofile-kernel`,
/// `arch/powerpc/kernel/trace/ftrace.c`). The symbol is the global entry: r2 may be set up first.
fn ppc64le(code: &[u32]) -> Option<bool> {
    const MFLR_R0: u32 = 0x7c08_02a6;
    const STD_R0: u32 = 0xf801_0010;
    const NOP: u32 = 0x6000_0000;
    let high = |word: u32| word >> 16;
    let local = match code {
        // addis r2,r12 or lis r2, then addi r2,r2.
        [first, second, rest @ ..] if matches!(high(*first), 0x3c4c | 0x3c40) && high(*second) == 0x3842 => {
            rest
        }
        _ => code,
    };
    let after = local.strip_prefix(&[MFLR_R0])?;
    match *after.strip_prefix(&[STD_R0]).unwrap_or(after) {
        [bl, ..] if bl & 0xfc00_0003 == 0x4800_0001 => Some(true),
        [NOP, ..] => Some(false),
        _ => None,
    }
}

/// `brcl`, of which the kernel writes the mask only: always or never; before 5.15 `brasl %r0` where it is hooked
/// (`arch/s390/kernel/ftrace.c`).
fn s390x(code: &[u8]) -> Option<bool> {
    match *code {
        [0xc0, 0xf4 | 0x05, ..] => Some(true),
        [0xc0, 0x04, ..] => Some(false),
        _ => None,
    }
}

/// `move $t0, $ra; bl` (`arch/loongarch/kernel/ftrace_dyn.c`). Before the first hook both are no-ops.
fn loongarch64(code: &[u32]) -> Option<bool> {
    const NOP: u32 = 0x0340_0000;
    const MOVE_T0_RA: u32 = 0x0015_002c;
    match *code {
        [MOVE_T0_RA, bl, ..] if bl >> 26 == 0b01_0101 => Some(true),
        [MOVE_T0_RA | NOP, NOP, ..] => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as an assembler lists them.
    fn judge(machine: Machine, code: &str) -> Option<bool> {
        let digits: Vec<u8> = code.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes: Vec<u8> = digits
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        leads_to_ftrace(machine, &bytes[..bytes.len().min(size(machine))])
    }

    #[test]
    fn x86_64_calls() {
        let judge = |code| judge(Machine::X86_64, code);
        assert_eq!(judge("e8 01 02 03 04 55 48 89 e5"), Some(true));
        assert_eq!(judge("f3 0f 1e fa e8 01 02 03 04"), Some(true));
        assert_eq!(judge("0f 1f 44 00 00 55 48 89 e5"), Some(false));
        assert_eq!(judge("f3 0f 1e fa 0f 1f 44 00 00"), Some(false));
        assert_eq!(judge(""), None);
    }

    #[test]
    fn aarch64_calls() {
        let judge = |code| judge(Machine::Aarch64, code);
        assert_eq!(judge("e9031eaa 0a000094 3f2303d5"), Some(true));
        assert_eq!(judge("5f2403d5 e9031eaa 0a000094"), Some(true));
        assert_eq!(judge("5f2403d5 e9031eaa 1f2003d5"), Some(false));
        assert_eq!(judge("1f2003d5 1f2003d5 3f2303d5"), Some(false));
        assert_eq!(judge("3f2303d5 fd7bbfa9 fd030091"), None);
        // b, not bl.
        assert_eq!(judge("e9031eaa 0a000014 3f2303d5"), None);
    }

    #[test]
    fn ppc64le_calls() {
        let judge = |code| judge(Machine::Ppc64le, code);
        assert_eq!(judge("0200 4c3c 0080 4238 a602087c 01000048 a602087c"), Some(true));
        assert_eq!(judge("a602087c 01000048 a602087c"), Some(true));
        assert_eq!(judge("0200 4c3c 0080 4238 a602087c 100001f8 0d040048"), Some(true));
        assert_eq!(judge("0200 4c3c 0080 4238 a602087c 00000060"), Some(false));
        assert_eq!(judge("0200 4c3c 0080 4238 a602087c 100001f8 00000060"), Some(false));
        assert_eq!(judge("a602087c 00000048"), None);
        assert_eq!(judge("78 63 7c 7c"), None);
    }

    #[test]
    fn s390x_calls() {
        let judge = |code| judge(Machine::S390x, code);
        assert_eq!(judge("c0f4 0000 0102"), Some(true));
        assert_eq!(judge("c005 0000 0102"), Some(true));
        assert_eq!(judge("c004 0000 0102"), Some(false));
        assert_eq!(judge("eb6f f048 0024"), None);
    }

    #[test]
    fn loongarch64_calls() {
        let judge = |code| judge(Machine::LoongArch64, code);
        assert_eq!(judge("2c001500 00040054 6380ff02"), Some(true));
        assert_eq!(judge("2c001500 00004003 6380ff02"), Some(false));
        assert_eq!(judge("00004003 00004003 6380ff02"), Some(false));
        assert_eq!(judge("6380ff02 00004003 00004003"), None);
    }
}
