//! kpatch: loads, keeps and lists livepatch modules.
//!
//! * [`model`]: what there is to know and to decide, as values, without input or output;
//! * [`edge`]: files below a root directory, the kernel's system calls, its log, locks;
//! * [`command`]: one file for each command, from the one to the other;
//! * [`args`] and [`cli`]: the command line.

pub mod args;
pub mod cli;
pub mod command;
pub mod edge;
pub mod error;
pub mod model;
