//! The headers that source patches may include, to be written to a directory of the include path.

/// Macros for callbacks, exceptions and the like.
pub const MACROS: &str = include_str!("../include/kpatch-macros.h");

/// System calls.
pub const SYSCALL: &str = include_str!("../include/kpatch-syscall.h");

/// All headers: file name and text.
pub const ALL: [(&str, &str); 2] = [("kpatch-macros.h", MACROS), ("kpatch-syscall.h", SYSCALL)];
