//! The driver: turns a kernel source patch into a livepatch module, without building the kernel.

pub mod error;
pub mod events;
pub mod prove;
