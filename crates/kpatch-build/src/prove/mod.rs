//! Proof that a compiled original is what the kernel ships.
//!
//! The original is compiled exactly as the kernel was, without `-ffunction-sections`, and each of its
//! functions is compared with the shipped vmlinux or module: instruction bytes outside relocated fields,
//! and what each relocated field refers to. Equality answers the question that compiler version strings
//! only hint at: was this kernel made from this source, configuration and compiler?
//!
//! Pure: bytes in, values out. What cannot be decided is counted apart and never called proven.

mod compare;
mod sections;
mod shipped;
mod sites;

pub use compare::prove;
pub use shipped::{Shipped, ShippedError};

/// What the comparison of one unit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// One verdict a function, in the order of the object's symbol table.
    pub functions: Vec<FunctionProof>,
}

/// The verdict on one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionProof {
    /// Its name.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found about one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All bytes and all references are equal.
    Equal,
    /// All bytes are equal, but what this many references point to could not be decided.
    Undecided {
        /// How many.
        references: u32,
    },
    /// A weak definition that another unit of the kernel overrides; it is not in the shipped object.
    Overridden,
    /// The shipped object has no such function.
    Absent,
    /// The function differs.
    Differs(Difference),
}

/// The first difference of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Offset in the function, bytes.
    pub offset: u64,
    /// What differs, a fragment of a sentence.
    pub what: String,
    /// The compiled instruction, disassembled.
    pub compiled: String,
    /// The shipped instruction, disassembled.
    pub shipped: String,
}

impl Proof {
    /// Functions whose verdict is [`Verdict::Equal`].
    pub fn equal(&self) -> usize {
        self.functions.iter().filter(|f| f.verdict == Verdict::Equal).count()
    }

    /// Functions with undecided references.
    pub fn undecided(&self) -> usize {
        self.functions.iter().filter(|f| matches!(f.verdict, Verdict::Undecided { .. })).count()
    }

    /// Functions that differ, with what differs.
    pub fn differences(&self) -> impl Iterator<Item = (&str, &Difference)> {
        self.functions.iter().filter_map(|f| match &f.verdict {
            Verdict::Differs(difference) => Some((f.name.as_str(), difference)),
            _ => None,
        })
    }

    /// Functions that the shipped object does not have and that no other unit overrides.
    pub fn absent(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().filter(|f| f.verdict == Verdict::Absent).map(|f| f.name.as_str())
    }

    /// The verdict on a function.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.functions.iter().find(|f| f.name == name).map(|f| &f.verdict)
    }
}
