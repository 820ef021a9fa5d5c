//! The driver: turns a kernel source patch into a livepatch module, without building the kernel.

pub mod args;
pub mod cache;
pub mod callers;
pub mod cli;
mod declared;
pub mod environment;
pub mod error;
pub mod events;
pub mod launcher;
pub mod layout;
mod loaded;
pub mod maintenance;
pub mod mentions;
pub mod options;
pub mod originals;
pub mod patch;
pub mod phase;
pub mod pipeline;
pub mod prove;
pub mod report;
pub mod settings;
pub mod slice;
pub mod split;
pub mod workspace;
