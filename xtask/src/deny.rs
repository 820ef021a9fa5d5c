//! `cargo xtask deny`: licences, sources and advisories of all dependencies, with cargo-deny.
//!
//! A chore of its own, and part of `cargo xtask test --full`: cargo-deny takes minutes to compile.

use crate::error::{Error, Result};
use std::path::PathBuf;

/// What is installed where it is missing.
const VERSION: &str = "0.20.2";

/// Runs the chore.
pub(crate) fn run() -> Result<()> {
    let program = program()?;
    let check = |what: &[&str]| {
        duct::cmd(&program, [&["--log-level", "error", "check"], what].concat())
            .dir(crate::workspace_root())
            .unchecked()
            .stderr_capture()
            .run()
    };
    let output = check(&["licenses", "bans", "sources"])?;
    if !output.status.success() {
        return Err(Error::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    println!("licences, bans and sources of all dependencies are as deny.toml wants them");
    let output = check(&["advisories"])?;
    if output.status.success() {
        println!("no advisory is about any dependency");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("failed to fetch advisory database") {
        println!("advisories were NOT checked: their database on github.com cannot be reached");
        return Ok(());
    }
    Err(Error::Failed(text.into_owned()))
}

/// cargo-deny of this machine, or one that is compiled below the target directory.
fn program() -> Result<PathBuf> {
    if let Ok(found) = which::which("cargo-deny") {
        return Ok(found);
    }
    let root = crate::target_directory().join("tools");
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        println!("installing cargo-deny {VERSION}: checks licences and advisories");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        duct::cmd!(
            cargo,
            "install",
            "--quiet",
            "--locked",
            "cargo-deny",
            "--version",
            VERSION,
            "--root",
            &root
        )
        .run()
        .map_err(|error| Error::Missing {
            what: format!("cargo-deny ({error})"),
            remedy: "put one into the PATH".to_owned(),
        })?;
    }
    Ok(program)
}
