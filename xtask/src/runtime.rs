//! Tests of `kpatch` on stock kernels under QEMU.

mod altered;
mod commands;
mod enrolled;
mod keys;
mod script;
mod system;

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::guest;
use std::path::{Path, PathBuf};

/// What is tested on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    /// Makes the modules.
    pub(crate) builder: &'a Builder,
    /// The kernel.
    pub(crate) kernel: &'a guest::Kernel,
    /// The same uncompressed, with symbols.
    pub(crate) vmlinux: &'a Path,
    /// The package that the kernel is from.
    pub(crate) image: &'a Path,
    /// Where files go.
    pub(crate) work: &'a Path,
    /// The long run.
    pub(crate) full: bool,
}

/// A case with what failed in it.
pub(crate) type Judged = (String, Vec<String>);

/// What `--only` begins with where it names a case, and how many cases there are besides those that are named.
const PREFIXES: [&str; 2] = [commands::PREFIX, system::PREFIX];

/// Runs what is asked for: all, or the cases whose names begin with a prefix.
pub(crate) fn run(bench: Bench<'_>, only: &[String]) -> Result<Vec<Judged>> {
    let named = |prefix: &str| only.iter().any(|name| name.starts_with(prefix));
    fs_err::create_dir_all(bench.work)?;
    let mut judged = Vec::new();
    if only.is_empty() || named(commands::PREFIX) {
        judged.extend(commands::run(bench, only)?);
    }
    if (only.is_empty() && bench.full) || named(system::PREFIX) {
        judged.extend(system::run(bench)?);
    }
    Ok(judged)
}

/// Whether anything here is asked for.
pub(crate) fn is_wanted(only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The file of a module made of patches of this directory. `name` is that of its directory.
fn module(bench: Bench<'_>, name: &str, patches: &[&str], arguments: &[&str]) -> Result<PathBuf> {
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
