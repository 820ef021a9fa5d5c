//! Where kpatch meets the system: files below a root directory, system calls, the kernel's log, locks.

pub mod file;
pub mod lock;
pub mod log;
pub mod memory;
pub mod read;
pub mod root;
pub mod store;
pub mod system;
