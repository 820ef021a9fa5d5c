//! What the comparison of a unit leaves for the phases after it.

use std::path::PathBuf;

use create_diff_object::Report;

/// What changed in one unit.
pub struct Extract {
    /// The unit's object file.
    pub unit: PathBuf,
    /// The object that this extract patches.
    pub owner: String,
    /// The object, see [`kpatch_elf::extract`].
    pub bytes: Vec<u8>,
    /// What was found and why.
    pub report: Report,
}
