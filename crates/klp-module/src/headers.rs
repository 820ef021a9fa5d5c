//! The headers that source patches may include, to be written to a directory of the include path.

/// Macros for callbacks, exceptions and the like.
pub const MACROS: &str = include_str!("../include/kpatch-macros.h");

/// System calls.
pub const SYSCALL: &str = include_str!("../include/kpatch-syscall.h");

/// Static branches that read their keys; not for authors, but for units with static keys of a module.
pub const STATIC_KEYS: (&str, &str) =
    ("kpatch-static-keys.h", include_str!("../include/kpatch-static-keys.h"));

/// All headers: file name and text.
pub const ALL: [(&str, &str); 3] = [("kpatch-macros.h", MACROS), ("kpatch-syscall.h", SYSCALL), STATIC_KEYS];
