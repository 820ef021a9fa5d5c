//! Facts about the machines, one file each behind [`Arch`].

mod aarch64;
mod loongarch64;
mod ppc64le;
mod s390x;
mod text;
mod x86_64;

use crate::endian::Endian;

/// The machines that Linux can live-patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 64-bit PowerPC, little-endian, ELF ABI v2.
    Ppc64le,
    /// IBM Z, big-endian.
    S390x,
    /// 64-bit LoongArch.
    LoongArch64,
}

impl Machine {
    /// The machine of an ELF header.
    pub fn from_elf(e_machine: u16, endian: Endian) -> Option<Machine> {
        match (e_machine, endian) {
            (62, Endian::Little) => Some(Self::X86_64),
            (183, Endian::Little) => Some(Self::Aarch64),
            (21, Endian::Little) => Some(Self::Ppc64le),
            (22, Endian::Big) => Some(Self::S390x),
            (258, Endian::Little) => Some(Self::LoongArch64),
            _ => None,
        }
    }

    /// `e_machine`.
    pub fn to_elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
            Self::Ppc64le => 21,
            Self::S390x => 22,
            Self::LoongArch64 => 258,
        }
    }

    /// The name that `uname -m` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::LoongArch64 => "loongarch64",
        }
    }

    /// The facts about this machine.
    pub fn arch(self) -> &'static dyn Arch {
        match self {
            Self::X86_64 => &x86_64::X86_64,
            Self::Aarch64 => &aarch64::Aarch64,
            Self::Ppc64le => &ppc64le::Ppc64le,
            Self::S390x => &s390x::S390x,
            Self::LoongArch64 => &loongarch64::LoongArch64,
        }
    }
}

/// The shape of a relocated field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Width in bytes of the bytes that the relocation writes; 0 for `R_*_NONE`.
    pub width: u8,
    /// The field holds a distance from its own address.
    pub pc_relative: bool,
    /// The field is a whole word: all bits of `width` bytes belong to the value, so that the value can be
    /// read back from a linked file.
    pub whole: bool,
}

impl Field {
    pub(crate) const fn new(width: u8, pc_relative: bool, whole: bool) -> Field {
        Field { width, pc_relative, whole }
    }
}

/// Where an instruction sends control, as far as the differ asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// To the next instruction, or somewhere that no relocation tells.
    Next,
    /// A direct call.
    Call,
    /// A direct jump, conditional or not.
    Jump,
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Offset in the decoded code, bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u8,
    /// Where it sends control.
    pub flow: Flow,
    /// The distance to another place that it holds if no relocation changes its bytes.
    pub distance: Option<Distance>,
}

impl Instruction {
    /// The same, so many bytes further on.
    #[must_use]
    pub fn behind(self, bytes: u64) -> Instruction {
        let distance = self.distance.map(|d| Distance { target: d.target.wrapping_add(bytes as i64), ..d });
        Instruction { offset: self.offset + bytes, distance, ..self }
    }
}

/// A field of an instruction that holds the distance to a place in the same section, as the assembler
/// fills in where it need not leave that to the linker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance {
    /// The place: offset in the decoded code.
    pub target: i64,
    /// Offset of the field from the instruction's start, where a relocation would point to.
    pub at: u8,
    /// The relocation type that writes such a field.
    pub kind: u32,
}

/// An instruction that loads a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Immediate {
    /// The constant.
    pub value: u64,
    /// Everything else about the instruction, the register above all: equal for instructions that differ in
    /// the constant only.
    pub rest: u64,
}

/// The signed value of the lowest `bits` bits of a word.
const fn signed(word: u32, bits: u32) -> i64 {
    (((word << (32 - bits)) as i32) >> (32 - bits)) as i64
}

/// [`Arch::holding`] of machines whose instructions are words of four bytes.
fn word_holding(arch: &dyn Arch, code: &[u8], place: u64) -> Option<Instruction> {
    let start = place & !3;
    let word = code.get(usize::try_from(start).ok()?..)?;
    (place < code.len() as u64).then(|| arch.instruction(word).behind(start))
}

/// Clears bits of a little-endian instruction word.
fn clear_word(field: &mut [u8], bits: u32) {
    if let Some(word) = field.first_chunk_mut::<4>() {
        *word = (u32::from_le_bytes(*word) & !bits).to_le_bytes();
    }
}

/// What the rest of the tool asks about a machine.
pub trait Arch: Sync {
    /// The instruction at the start of `code`. Bytes that cannot be decoded are passed over in the smallest step of the
    /// machine.
    ///
    /// The default asks [`Arch::branch`].
    fn instruction(&self, code: &[u8]) -> Instruction {
        let length = self.instruction_length(code).unwrap_or(1).max(1);
        let (flow, distance) = self.branch(code).map_or((Flow::Next, None), |(flow, d)| (flow, Some(d)));
        Instruction { offset: 0, length: length as u8, flow, distance }
    }

    /// All instructions of a piece of code in order.
    fn instructions(&self, code: &[u8]) -> Vec<Instruction> {
        let mut out = Vec::with_capacity(code.len() / 4);
        let mut at = 0;
        while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
            let instruction = self.instruction(rest).behind(at as u64);
            at += usize::from(instruction.length);
            out.push(instruction);
        }
        out
    }

    /// The instruction that the byte at `place` belongs to; nothing behind the end. `from` is where an instruction
    /// in front of it begins, or 0.
    ///
    /// The default reads one instruction after the other from there on. Machines whose instructions have one length, or
    /// whose relocated fields have one place, need not.
    fn holding(&self, code: &[u8], from: u64, place: u64) -> Option<Instruction> {
        if place >= code.len() as u64 {
            return None;
        }
        let mut at = from;
        loop {
            let instruction = self.instruction(code.get(usize::try_from(at).ok()?..)?).behind(at);
            at += u64::from(instruction.length);
            if at > place {
                return Some(instruction);
            }
        }
    }

    /// [`Arch::holding`] for a field that a relocation of this type writes; nothing where that would say no more than the
    /// type does.
    fn relocated(&self, kind: u32, code: &[u8], from: u64, field: u64) -> Option<Instruction> {
        let _ = kind;
        self.holding(code, from, field)
    }

    /// What to add to the addend of a relocation of this type to get the place it means, as distance from
    /// its symbol. `to_end` is the distance from the relocated field to the end of its instruction; `None`
    /// outside code.
    fn addend_bias(&self, kind: u32, to_end: Option<u64>) -> i64 {
        let _ = (kind, to_end);
        0
    }

    /// Where a relocated instruction sends control; `decoded` is what its bytes tell.
    fn flow(&self, kind: u32, decoded: Flow) -> Flow {
        let _ = kind;
        decoded
    }

    /// Flow and distance of the instruction at the start of `code`, if it is a direct branch or makes an
    /// address in the same section.
    fn branch(&self, code: &[u8]) -> Option<(Flow, Distance)> {
        let _ = code;
        None
    }

    /// Sets the bits of a relocated field to zero that a relocation of this type writes.
    fn clear(&self, kind: u32, field: &mut [u8]) {
        let width = self.field(kind).map_or(0, |f| usize::from(f.width));
        if let Some(bytes) = field.get_mut(..width) {
            bytes.fill(0);
        }
    }

    /// The type that stands for a relocation type and those that differ from it only in how the linker may
    /// reach the target: by way of a linkage table, or directly.
    fn plain(&self, kind: u32) -> u32 {
        kind
    }

    /// True for relocation types of branches that reach neighbours only, not from a module to the kernel.
    fn is_short(&self, kind: u32) -> bool;

    /// The instruction at the start of `code`, if all it does is to load a constant into a register. Used to
    /// find line numbers that the compiler passes to functions.
    fn immediate(&self, code: &[u8]) -> Option<Immediate> {
        let _ = code;
        None
    }

    /// `R_X86_64_PLT32` for 4; `None` for an unknown type.
    fn relocation_name(&self, kind: u32) -> Option<&'static str>;

    /// The shape of the field that a relocation of this type writes, `None` for an unknown type.
    fn field(&self, kind: u32) -> Option<Field>;

    /// The relocation type of a pointer-sized absolute address.
    fn absolute64(&self) -> u32;

    /// Length in bytes of the instruction at the start of `code`, `None` where it cannot be decoded.
    fn instruction_length(&self, code: &[u8]) -> Option<usize>;

    /// The instruction at the start of `code` as text, with `address` as its address, for people.
    fn disassemble(&self, code: &[u8], address: u64) -> Option<String>;
}
