//! The programs of this checkout, compiled as they are shipped.

use crate::error::{Error, Result};
use crate::tools;
use std::path::PathBuf;

/// Compiles kpatch-build and create-diff-object, and gives their directory. Both at once, even where one is wanted: alone,
/// each has its dependencies with other features, and half of them would be compiled twice.
pub(crate) fn compile() -> Result<PathBuf> {
    cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "kpatch-build",
        "--package",
        "create-diff-object",
    ])?;
    Ok(crate::target_directory().join("release"))
}

/// Compiles kpatch so that it runs without libraries.
pub(crate) fn kpatch() -> Result<PathBuf> {
    let words = ["rustc", "--quiet", "--release", "--package", "kpatch", "--bin", "kpatch", "--"];
    cargo(&[&words[..], &["-C", "target-feature=+crt-static", "-C", "strip=symbols"]].concat())?;
    let program = crate::target_directory().join("release/kpatch");
    if tools::is_static(&program) {
        return Ok(program);
    }
    Err(Error::Missing {
        what: "a C library to link statically with".to_owned(),
        remedy: "install the package libc6-dev".to_owned(),
    })
}

fn cargo(words: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = duct::cmd(cargo, words).dir(crate::workspace_root()).run();
    let failed = |error: std::io::Error| Error::Command {
        command: format!("cargo {}", words.join(" ")),
        reason: error.to_string(),
    };
    run.map(drop).map_err(failed)
}
