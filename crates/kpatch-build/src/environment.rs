//! The variables that a run takes from its environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The variables that a run takes from its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CACHEDIR`.
    pub cache: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `CC`, a compiler with words before or after it.
    pub cc: Option<OsString>,
    /// `CFLAGS_MODULE`.
    pub cflags_module: Option<OsString>,
    /// `KBUILD_EXTRA_SYMBOLS`.
    pub extra_symbols: Option<OsString>,
    /// `CCACHE_PREFIX`, a program that ccache runs compilers by.
    pub ccache_prefix: Option<OsString>,
    /// `DISTCC_DIR`.
    pub distcc_dir: Option<PathBuf>,
}

impl Environment {
    /// Reads it. Empty variables count as unset.
    pub fn read() -> Environment {
        let get = |name| env::var_os(name).filter(|value| !value.is_empty());
        Environment {
            cache: get("CACHEDIR").map(PathBuf::from),
            home: get("HOME").map(PathBuf::from),
            config_home: get("XDG_CONFIG_HOME").map(PathBuf::from),
            cc: get("CC"),
            cflags_module: get("CFLAGS_MODULE"),
            extra_symbols: get("KBUILD_EXTRA_SYMBOLS"),
            ccache_prefix: get("CCACHE_PREFIX"),
            distcc_dir: get("DISTCC_DIR").map(PathBuf::from),
        }
    }
}
