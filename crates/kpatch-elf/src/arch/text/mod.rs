//! Instructions as text, for people; machines that Capstone knows.

pub(super) mod loongarch64;

use capstone::{Capstone, CsResult};

/// The first instruction of `code` as Capstone writes it; `None` where it knows none.
pub(super) fn capstone(build: CsResult<Capstone>, code: &[u8], address: u64) -> Option<String> {
    let engine = build.ok()?;
    let found = engine.disasm_count(code, address, 1).ok()?;
    let instruction = found.first()?;
    let operands = instruction.op_str().unwrap_or_default();
    Some(format!("{} {operands}", instruction.mnemonic()?).trim_end().to_owned())
}

/// The bytes of an instruction, where nobody can read it.
pub(super) fn bytes(code: &[u8]) -> String {
    code.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}
