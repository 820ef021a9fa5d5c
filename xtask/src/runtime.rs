//! Tests of `kpatch` on stock kernels under QEMU.

mod altered;
mod commands;
mod control;
mod enrolled;
mod keys;
mod script;
mod system;

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::guest;
use kernel_artifacts::Kernel;
use std::path::{Path, PathBuf};

/// What is tested on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    /// Makes the modules.
    pub(crate) builder: &'a Builder,
    /// The kernel with its packages.
    pub(crate) resolved: &'a Kernel,
    /// What is booted.
    pub(crate) kernel: &'a guest::Kernel,
    /// Where files go.
    pub(crate) work: &'a Path,
}

/// A case with what failed in it.
pub(crate) type Judged = (String, Vec<String>);

/// What `--only` begins with where it names a case.
const PREFIXES: [&str; 2] = [commands::PREFIX, system::PREFIX];

/// What the tests are run with.
#[derive(Debug)]
pub(crate) struct Prepared {
    commands: Option<commands::Prepared>,
    system: bool,
    full: bool,
}

/// Builds what is asked for: all, or the cases whose names begin with a prefix.
pub(crate) fn prepare(bench: &Bench<'_>, only: &[String], full: bool) -> Result<Prepared> {
    let named = |prefix: &str| only.iter().any(|name| name.starts_with(prefix));
    fs_err::create_dir_all(bench.work)?;
    let commands = (only.is_empty() || named(commands::PREFIX)).then(|| commands::prepare(bench));
    Ok(Prepared {
        commands: commands.transpose()?,
        system: (only.is_empty() && full) || named(system::PREFIX),
        full,
    })
}

/// Runs it.
pub(crate) fn run(bench: &Bench<'_>, prepared: &Prepared, only: &[String]) -> Result<Vec<Judged>> {
    let mut judged = Vec::new();
    if let Some(commands) = &prepared.commands {
        judged.extend(commands::run(bench, commands, only, prepared.full)?);
    }
    if prepared.system {
        judged.extend(system::run(bench)?);
    }
    Ok(judged)
}

/// Whether anything here is asked for.
pub(crate) fn is_wanted(only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The file of a module made of patches of this directory. `name` is that of its directory.
fn module(bench: &Bench<'_>, name: &str, patches: &[&str], arguments: &[&str]) -> Result<PathBuf> {
    let patches: Vec<PathBuf> =
        patches.iter().map(|patch| script::directory().join(format!("{patch}.patch"))).collect();
    let words: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let built = bench.builder.build_unnamed(&patches, &words, &bench.work.join(name))?;
    match built.modules.first().filter(|_| built.succeeded()) {
        Some(module) => Ok(module.clone()),
        None => Err(Error::Failed(format!("{name} was not made:\n{}", built.tail(15).join("\n")))),
    }
}

/// Runs a program; its output, or an error with all that it said.
fn run_tool(expression: &duct::Expression) -> Result<String> {
    let name = format!("{expression:?}");
    let failed = |reason: String| Error::Command { command: name.clone(), reason };
    let output = expression.stdout_capture().stderr_capture().unchecked().run();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
}
