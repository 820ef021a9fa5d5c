//! Facts about the machines, one file each behind [`Arch`].

mod aarch64;
mod loongarch64;
mod ppc64le;
mod s390x;
mod x86_64;

use crate::object::Endian;

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

/// What the rest of the tool asks about a machine.
pub trait Arch: Sync {
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
