//! What x86_64 code says at run time.

/// `endbr64`, which may stand before the place that ftrace rewrites.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// `call rel32`.
const CALL: u8 = 0xe8;

/// Bytes that must be read at a function's address for [`entry_calls`].
pub const ENTRY: usize = 5 + ENDBR64.len();

/// Does a function begin with the call that ftrace puts there while something hooks it? Else it has a no-op.
pub fn entry_calls(code: &[u8]) -> bool {
    code.strip_prefix(&ENDBR64).unwrap_or(code).first() == Some(&CALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_no_ops() {
        assert!(entry_calls(&[0xe8, 1, 2, 3, 4]));
        assert!(entry_calls(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe8]));
        assert!(!entry_calls(&[0x0f, 0x1f, 0x44, 0, 0]));
        assert!(!entry_calls(&[]));
    }
}
