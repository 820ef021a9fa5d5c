//! Which units the kernel really compiles, and into which of its objects.

mod dwarf;

pub use dwarf::{DwarfError, UnitList};
