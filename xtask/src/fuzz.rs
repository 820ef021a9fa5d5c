//! `cargo xtask fuzz`: the fuzz targets of `crates/create-diff-object/fuzz`, on objects mutated from the fixtures.

use crate::error::{Error, Result};
use crate::tools;
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs, in seconds; all run at the same time.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Where the fuzzer's random numbers start.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Only these targets.
    #[arg(value_name = "TARGET", value_parser = ["read", "diff"])]
    targets: Vec<String>,
}

/// What the gate runs.
pub(crate) const GATE: Arguments = Arguments { seconds: 60, seed: 1, targets: Vec::new() };

/// Inputs are at most so long, bytes: what is larger teaches nothing that is not learned faster from less.
const LARGEST: u64 = 64 << 10;

/// An input may take so much memory and time.
const LIMITS: [&str; 3] = ["-rss_limit_mb=1024", "-malloc_limit_mb=512", "-timeout=10"];

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let source = crate::workspace_root().join("crates/create-diff-object/fuzz");
    let programs = compile(&source)?;
    let targets: Vec<&str> = ["read", "diff"]
        .into_iter()
        .filter(|name| arguments.targets.is_empty() || arguments.targets.iter().any(|t| t == name))
        .collect();
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            targets.iter().map(|target| scope.spawn(|| one(target, &programs, arguments))).collect();
        runs.into_iter().map(|run| run.join().unwrap_or_else(|_| Err(failed("it panicked")))).collect()
    });
    results.into_iter().collect()
}

fn failed(reason: impl Into<String>) -> Error {
    Error::Command { command: "fuzz target".to_owned(), reason: reason.into() }
}

/// Compiles the targets with coverage counters, and gives their directory.
fn compile(source: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = crate::target_directory().join("fuzz");
    // The flags stand in the directory's own .cargo/config.toml, which only counts where cargo is started there.
    duct::cmd!(cargo, "build", "--quiet", "--release", "--target-dir", &target)
        .dir(source)
        .env_remove("RUSTFLAGS")
        .run()
        .map_err(|error| failed(format!("cannot be compiled: {error}")))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release"))
}

/// Runs one target on fresh copies of the fixtures.
fn one(target: &str, programs: &Path, arguments: &Arguments) -> Result<()> {
    let work = crate::target_directory().join("fuzz").join(target);
    let (inputs, findings) = (work.join("inputs"), work.join("findings"));
    for directory in [&inputs, &findings] {
        if directory.exists() {
            fs_err::remove_dir_all(directory)?;
        }
        fs_err::create_dir_all(directory)?;
    }
    let seeds = seeds(target, &inputs)?;
    let log = work.join("log");
    let output = duct::cmd!(
        programs.join(target),
        format!("-seed={}", arguments.seed),
        format!("-max_total_time={}", arguments.seconds),
        LIMITS[0],
        LIMITS[1],
        LIMITS[2],
        "-print_final_stats=1",
        format!("-artifact_prefix={}/", findings.display()),
        &inputs
    )
    .stderr_to_stdout()
    .stdout_path(&log)
    .unchecked()
    .run()
    .map_err(|error| failed(format!("{target}: {error}")))?;
    let text = fs_err::read(&log)?;
    let text = String::from_utf8_lossy(&text);
    let found: Vec<PathBuf> =
        fs_err::read_dir(&findings)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    if !output.status.success() || !found.is_empty() {
        let tail: Vec<&str> = text.lines().rev().take(25).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return Err(failed(format!(
            "{target}: inputs that break it: {found:?}; log {}\n{}",
            log.display(),
            tail.join("\n")
        )));
    }
    println!("fuzz {target}: {seeds} seeds, {}", summary(&text));
    Ok(())
}

/// Executions and covered edges, as libFuzzer says at the end.
fn summary(log: &str) -> String {
    let value = |mark: &str| {
        let line = log.lines().rev().find(|line| line.contains(mark))?;
        line.split(mark).nth(1)?.split_whitespace().next()
    };
    let of = |value: Option<&str>| value.unwrap_or("?").to_owned();
    let edges = log.lines().find_map(|line| line.split("inline 8-bit counters): ").nth(1)?.split(' ').next());
    format!(
        "{} executions, {} of {} edges, nothing found",
        of(value("number_of_executed_units:")),
        of(value("cov: ")),
        of(edges)
    )
}

/// Writes the small ones of the object pairs as inputs; for `diff` both objects in one, the first behind its
/// length (32 bits, little-endian). Gives their number.
fn seeds(target: &str, into: &Path) -> Result<usize> {
    let mut count = 0;
    let fixtures = crate::workspace_root().join("fixtures");
    for corpus in ["objdiff", "objdiff-before-objtool"] {
        for entry in walkdir::WalkDir::new(fixtures.join(corpus)).sort_by_file_name() {
            let entry = entry.map_err(std::io::Error::from)?;
            if entry.file_name() != "patched.o" {
                continue;
            }
            let patched = fs_err::read(entry.path())?;
            let input = if target == "read" {
                patched
            } else {
                let original = fs_err::read(entry.path().with_file_name("original.o"))?;
                let length = u32::try_from(original.len()).unwrap_or(u32::MAX);
                [&length.to_le_bytes()[..], &original, &patched].concat()
            };
            if input.len() as u64 <= LARGEST {
                fs_err::write(into.join(format!("{count:03}")), input)?;
                count += 1;
            }
        }
    }
    if count == 0 {
        return Err(failed("no object pairs below fixtures"));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_summed_up() {
        let log = "INFO: Loaded 1 modules   (3245 inline 8-bit counters): 3245 [0x5, 0x6),\n\
                   #9 NEW    cov: 77 ft: 2\n#12 DONE   cov: 112 ft: 3\nstat::number_of_executed_units: 12\n";
        assert_eq!(summary(log), "12 executions, 112 of 3245 edges, nothing found");
        assert_eq!(summary(""), "? executions, ? of ? edges, nothing found");
    }

    #[test]
    fn every_machine_gives_inputs() {
        let directory = tempfile::tempdir().unwrap();
        for target in ["read", "diff"] {
            assert!(seeds(target, directory.path()).unwrap() > 20, "{target}");
        }
    }
}
