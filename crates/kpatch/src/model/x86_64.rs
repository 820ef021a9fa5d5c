//! What x86_64 code says at run time.

/// `call rel32`.
const CALL: u8 = 0xe8;

/// `jmp rel32`.
const JMP: u8 = 0xe9;

/// `ret`.
const RET: u8 = 0xc3;

/// The no-op and `xor %eax, %eax` of five bytes that stand for calls of nothing (`x86_nops`, `xor5rax` of
/// `arch/x86/kernel/static_call.c`).
const NO_CALLS: [[u8; 5]; 2] = [[0x0f, 0x1f, 0x44, 0, 0], [0x2e, 0x2e, 0x2e, 0x31, 0xc0]];

/// Where trampolines of static calls lead that have no function: a `ret` that is a thunk, or what returns 0.
pub const NO_FUNCTION: [&str; 2] = ["__x86_return_thunk", "__static_call_return0"];

/// Bytes to be read for [`static_call_site`], from two before the field on.
pub const CALL_WINDOW: usize = 6;

/// Bytes to be read for [`trampoline`].
pub const TRAMPOLINE: usize = 5;

/// Where a static call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To this address.
    To(u64),
    /// Nowhere: it has no function.
    Nothing,
}

impl std::fmt::Display for Call {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Call::To(address) => write!(out, "{address:#x}"),
            Call::Nothing => out.write_str("nothing"),
        }
    }
}

/// Where the code around the field at an address goes: `call`, `jmp` or a conditional jump, with what the kernel puts
/// there instead where there is no function. `window` begins two bytes before the field.
pub fn static_call_site(window: &[u8], field: u64) -> Option<Call> {
    let window: &[u8; CALL_WINDOW] = window.try_into().ok()?;
    let [first, opcode, rel @ ..] = *window;
    // Conditional jumps are two bytes, 0f 8x.
    if matches!(opcode, CALL | JMP) || (first == 0x0f && opcode & 0xf0 == 0x80) {
        return Some(Call::To(target(rel, field)));
    }
    let nothing = opcode == RET || NO_CALLS.iter().any(|code| window[1..] == code[..]);
    nothing.then_some(Call::Nothing)
}

/// Where a trampoline at an address leads.
pub fn trampoline(code: &[u8], address: u64) -> Option<Call> {
    let [opcode, rel @ ..] = *<&[u8; TRAMPOLINE]>::try_from(code).ok()?;
    match opcode {
        JMP => Some(Call::To(target(rel, address.wrapping_add(1)))),
        RET => Some(Call::Nothing),
        _ => None,
    }
}

/// What a relative field of four bytes leads to.
fn target(rel: [u8; 4], field: u64) -> u64 {
    field.wrapping_add(4).wrapping_add_signed(i64::from(i32::from_le_bytes(rel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_calls() {
        for before in [[0x90, 0xe8], [0x90, 0xe9], [0x0f, 0x85]] {
            let window = [&before[..], &(-4i32).to_le_bytes()].concat();
            assert_eq!(static_call_site(&window, 0x1000), Some(Call::To(0x1000)));
        }
        for code in [[0x0f, 0x1f, 0x44, 0, 0], [0x2e, 0x2e, 0x2e, 0x31, 0xc0], [0xc3, 0xcc, 0xcc, 0xcc, 0xcc]]
        {
            assert_eq!(static_call_site(&[&[0x90], &code[..]].concat(), 0), Some(Call::Nothing));
        }
        assert_eq!(static_call_site(&[0x90; 6], 0), None);
        assert_eq!(static_call_site(&[0xe8; 5], 0), None);
        assert_eq!(trampoline(&[0xe9, 0xfb, 0xff, 0xff, 0xff], 0x2000), Some(Call::To(0x2000)));
        assert_eq!(trampoline(&[0xc3, 0xcc, 0xcc, 0xcc, 0xcc], 0), Some(Call::Nothing));
        assert_eq!(trampoline(&[0x90; 5], 0), None);
    }
}
