//! Small configurations of a kernel: the smallest there is, and what a chore needs beside it.

use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::Path;

/// Runs make in a source tree, without showing what it prints.
pub(crate) fn make(source: &Path, words: &[&str]) -> Result<()> {
    duct::cmd("make", words).dir(source).stdout_null().run().map(drop).map_err(|error| Error::Command {
        command: format!("make {}", words.join(" ")),
        reason: error.to_string(),
    })
}

/// Writes the configuration into `output`, which is the source tree or another directory. Options are named without
/// `CONFIG_`; `NAME=m` is possible, `NAME=n` switches off.
pub(crate) fn configure(source: &Path, output: &Path, options: &[&str]) -> Result<()> {
    let here = format!("O={}", output.display());
    let within = if source == output { Vec::new() } else { vec![here.as_str()] };
    let goal = |goal: &str| make(source, &[&["-s", goal], within.as_slice()].concat());
    goal("tinyconfig")?;
    let file = output.join(".config");
    let mut configuration = fs_err::read_to_string(&file)?;
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, "y"));
        let _ = writeln!(configuration, "CONFIG_{name}={value}");
    }
    fs_err::write(&file, configuration)?;
    goal("olddefconfig")
}
