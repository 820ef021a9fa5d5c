//! LoongArch instructions as text: those of the base set that compilers make of kernel code (LoongArch Reference
//! Manual, volume 1). No maintained crate knows this machine.

const REGISTERS: [&str; 32] = [
    "zero", "ra", "tp", "sp", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t0", "t1", "t2", "t3", "t4",
    "t5", "t6", "t7", "t8", "r21", "fp", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8",
];

/// Two registers and 12 bits, from operation 0x08 of the upper ten bits on.
const IMMEDIATE: [&str; 8] = ["slti", "sltui", "addi.w", "addi.d", "lu52i.d", "andi", "ori", "xori"];
/// Two registers and 12 bits, from operation 0xa0 of the upper ten bits on.
const MEMORY: [&str; 11] =
    ["ld.b", "ld.h", "ld.w", "ld.d", "st.b", "st.h", "st.w", "st.d", "ld.bu", "ld.hu", "ld.wu"];
/// Two registers and 14 bits, from operation 0x20 of the upper eight bits on.
const POINTER: [&str; 8] = ["ll.w", "sc.w", "ll.d", "sc.d", "ldptr.w", "stptr.w", "ldptr.d", "stptr.d"];
/// A register and 20 bits, from operation 0x0a of the upper seven bits on.
const UPPER: [&str; 6] = ["lu12i.w", "lu32i.d", "pcaddi", "pcalau12i", "pcaddu12i", "pcaddu18i"];
/// Two registers and a distance, from operation 0x16 of the upper six bits on.
const COMPARE: [&str; 6] = ["beq", "bne", "blt", "bge", "bltu", "bgeu"];
/// Three registers, from operation 0x20 of the upper 17 bits on.
const THREE: [&str; 40] = [
    "add.w",
    "add.d",
    "sub.w",
    "sub.d",
    "slt",
    "sltu",
    "maskeqz",
    "masknez",
    "nor",
    "and",
    "or",
    "xor",
    "orn",
    "andn",
    "sll.w",
    "srl.w",
    "sra.w",
    "sll.d",
    "srl.d",
    "sra.d",
    "",
    "",
    "rotr.w",
    "rotr.d",
    "mul.w",
    "mulh.w",
    "mulh.wu",
    "mul.d",
    "mulh.d",
    "mulh.du",
    "mulw.d.w",
    "mulw.d.wu",
    "div.w",
    "mod.w",
    "div.wu",
    "mod.wu",
    "div.d",
    "mod.d",
    "div.du",
    "mod.du",
];
/// Register-indexed memory, every eighth operation of the upper 17 bits from 0x7000 on.
const INDEXED: [&str; 11] =
    ["ldx.b", "ldx.h", "ldx.w", "ldx.d", "stx.b", "stx.h", "stx.w", "stx.d", "ldx.bu", "ldx.hu", "ldx.wu"];
/// Atomic operations, from 0x70c0 of the upper 17 bits on; with a barrier from 0x70d2 on.
const ATOMIC: [&str; 18] = [
    "amswap.w", "amswap.d", "amadd.w", "amadd.d", "amand.w", "amand.d", "amor.w", "amor.d", "amxor.w",
    "amxor.d", "ammax.w", "ammax.d", "ammin.w", "ammin.d", "ammax.wu", "ammax.du", "ammin.wu", "ammin.du",
];

/// The instruction at the start of `code`; `None` for one that is not among these.
pub(in crate::arch) fn instruction(code: &[u8], address: u64) -> Option<String> {
    let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
    let register = |at: u32| REGISTERS[(word >> at & 31) as usize];
    let (rd, rj, rk) = (register(0), register(5), register(10));
    let signed = |at: u32, bits: u32| super::super::signed(word >> at, bits);
    let place = |distance: i64| format!("{:#x}", address.wrapping_add_signed(distance * 4));
    let pick = |names: &[&'static str], index: u32| {
        names.get(index as usize).copied().filter(|name| !name.is_empty())
    };
    match word {
        0x0340_0000 => return Some("nop".to_owned()),
        0x4c00_0020 => return Some("ret".to_owned()),
        _ => {}
    }
    if word >> 15 == 0x2a && rk == "zero" {
        return Some(format!("move {rd}, {rj}"));
    }
    if let Some(name) = (word >> 25).checked_sub(0x0a).and_then(|i| pick(&UPPER, i)) {
        return Some(format!("{name} {rd}, {}", signed(5, 20)));
    }
    if let Some(name) = (word >> 22).checked_sub(0x08).and_then(|i| pick(&IMMEDIATE, i)) {
        let logical = matches!(name, "andi" | "ori" | "xori");
        let value = if logical { i64::from(word >> 10 & 0xfff) } else { signed(10, 12) };
        return Some(format!("{name} {rd}, {rj}, {value}"));
    }
    if let Some(name) = (word >> 22).checked_sub(0xa0).and_then(|i| pick(&MEMORY, i)) {
        return Some(format!("{name} {rd}, {rj}, {}", signed(10, 12)));
    }
    if let Some(name) = (word >> 24).checked_sub(0x20).and_then(|i| pick(&POINTER, i)) {
        return Some(format!("{name} {rd}, {rj}, {}", signed(10, 14) * 4));
    }
    if let Some(name) = (word >> 26).checked_sub(0x16).and_then(|i| pick(&COMPARE, i)) {
        return Some(format!("{name} {rj}, {rd}, {}", place(signed(10, 16))));
    }
    if let Some(name) = (word >> 15).checked_sub(0x20).and_then(|i| pick(&THREE, i)) {
        return Some(format!("{name} {rd}, {rj}, {rk}"));
    }
    if (word >> 15).is_multiple_of(8)
        && let Some(name) = (word >> 18).checked_sub(0xe00).and_then(|i| pick(&INDEXED, i))
    {
        return Some(format!("{name} {rd}, {rj}, {rk}"));
    }
    let atomic = (word >> 15).checked_sub(0x70c0);
    if let Some(name) = atomic.and_then(|i| pick(&ATOMIC, i)) {
        return Some(format!("{name} {rd}, {rk}, {rj}"));
    }
    if let Some(name) = atomic.and_then(|i| i.checked_sub(0x12)).and_then(|i| pick(&ATOMIC, i)) {
        let (name, size) = name.split_once('.')?;
        return Some(format!("{name}_db.{size} {rd}, {rk}, {rj}"));
    }
    other(word, rd, rj, rk, place)
}

/// Branches, shifts, bit fields, and what stands alone.
fn other(word: u32, rd: &str, rj: &str, rk: &str, place: impl Fn(i64) -> String) -> Option<String> {
    let low = word >> 10 & 0xffff;
    let far = super::super::signed((word & 0x3ff) << 16 | low, 26);
    let near = super::super::signed((word & 31) << 16 | low, 21);
    match word >> 26 {
        0x10 => return Some(format!("beqz {rj}, {}", place(near))),
        0x11 => return Some(format!("bnez {rj}, {}", place(near))),
        0x13 => return Some(format!("jirl {rd}, {rj}, {}", super::super::signed(low, 16) * 4)),
        0x14 => return Some(format!("b {}", place(far))),
        0x15 => return Some(format!("bl {}", place(far))),
        0x04 => return Some(format!("addu16i.d {rd}, {rj}, {}", super::super::signed(low, 16))),
        _ => {}
    }
    let amount = word >> 10 & 63;
    let shift = match word >> 16 {
        0x40 if amount & 32 == 32 => Some(("slli.w", amount & 31)),
        0x44 if amount & 32 == 32 => Some(("srli.w", amount & 31)),
        0x48 if amount & 32 == 32 => Some(("srai.w", amount & 31)),
        0x41 => Some(("slli.d", amount)),
        0x45 => Some(("srli.d", amount)),
        0x49 => Some(("srai.d", amount)),
        _ => None,
    };
    if let Some((name, amount)) = shift {
        return Some(format!("{name} {rd}, {rj}, {amount}"));
    }
    let (high, bottom) = (word >> 16 & 63, word >> 10 & 63);
    match word >> 22 {
        0x02 => return Some(format!("bstrins.d {rd}, {rj}, {high}, {bottom}")),
        0x03 => return Some(format!("bstrpick.d {rd}, {rj}, {high}, {bottom}")),
        0x01 if word & 1 << 21 != 0 => {
            let name = if word & 1 << 15 == 0 { "bstrins.w" } else { "bstrpick.w" };
            return Some(format!("{name} {rd}, {rj}, {}, {}", high & 31, bottom & 31));
        }
        _ => {}
    }
    let sum = match word >> 17 {
        0x02 => Some("alsl.w"),
        0x03 => Some("alsl.wu"),
        0x16 => Some("alsl.d"),
        _ => None,
    };
    if let Some(name) = sum {
        return Some(format!("{name} {rd}, {rj}, {rk}, {}", (word >> 15 & 3) + 1));
    }
    if word >> 24 == 0x04 {
        let number = word >> 10 & 0x3fff;
        return Some(match word >> 5 & 31 {
            0 => format!("csrrd {rd}, {number:#x}"),
            1 => format!("csrwr {rd}, {number:#x}"),
            _ => format!("csrxchg {rd}, {rj}, {number:#x}"),
        });
    }
    let code = word & 0x7fff;
    match (word >> 15, word >> 10) {
        (0x54, _) => Some(format!("break {code}")),
        (0x56, _) => Some(format!("syscall {code}")),
        (0x70e4, _) => Some(format!("dbar {code}")),
        (0x70e5, _) => Some(format!("ibar {code}")),
        (_, 0x16) => Some(format!("ext.w.h {rd}, {rj}")),
        (_, 0x17) => Some(format!("ext.w.b {rd}, {rj}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_read_as_other_tools_write_them() {
        for (word, expected) in [
            (0x0340_0000_u32, "nop"),
            (0x4c00_0020, "ret"),
            (0x02ff_8063, "addi.d sp, sp, -32"),
            (0x0280_0404, "addi.w a0, zero, 1"),
            (0x29c0_6061, "st.d ra, sp, 24"),
            (0x2880_0084, "ld.w a0, a0, 0"),
            (0x1a00_0004, "pcalau12i a0, 0"),
            (0x0015_0085, "move a1, a0"),
            (0x0010_1484, "add.w a0, a0, a1"),
            (0x5400_0800, "bl 0x1008"),
            (0x53ff_ffff, "b 0xffc"),
            (0x4000_1080, "beqz a0, 0x1010"),
            (0x5fff_f885, "bne a0, a1, 0xff8"),
            (0x0040_8884, "slli.w a0, a0, 2"),
            (0x0041_0884, "slli.d a0, a0, 2"),
            (0x002d_1484, "alsl.d a0, a0, a1, 3"),
            (0x00df_0084, "bstrpick.d a0, a0, 31, 0"),
            (0x380c_1484, "ldx.d a0, a0, a1"),
        ] {
            let found = instruction(&word.to_le_bytes(), 0x1000);
            assert_eq!(found.as_deref(), Some(expected), "{word:#010x}");
        }
    }
}
