//! What there is to know and to decide, as values: nothing here does input or output.

pub mod delta;
pub mod entry;
pub mod ftrace;
pub mod module;
pub mod plan;
pub mod record;
pub mod state;
pub mod symbols;
pub mod tasks;
pub mod x86_64;
