//! `cargo xtask bench headers`: what patches of headers cost, in the processor's time and by the clock, beside what
//! cannot be had cheaper.
//!
//! The floor is the compiler's own time: preprocessing as often as kpatch-build had it done, and compiling what was
//! compiled three times (original, patched, and for the proof). One run of each is measured on some of the compiled
//! units and taken for the mean of all: a header's readers are mostly of one subsystem and read the same headers.

use super::{median, run_quietly, saved_command};
use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::{kernels, series, tools};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Units of which the compiler's time is measured.
const SAMPLE: usize = 8;

/// Compilations of each unit: original, patched, and as the kernel was compiled.
const VARIANTS: u32 = 3;

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Patches that touch headers.
    #[arg(required = true, value_name = "PATCH")]
    patches: Vec<PathBuf>,
    /// Kernel series whose newest stock kernel is patched.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Another release than the newest.
    #[arg(long)]
    release: Option<String>,
    /// Measure this kpatch-build instead of the one of the checkout.
    #[arg(long, value_name = "FILE")]
    kpatch_build: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Report {
    searched: Option<Searched>,
    units: Vec<super::Unit>,
}

#[derive(Debug, Deserialize)]
struct Searched {
    considered: u32,
    named: u32,
    preprocessed: u32,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let series = series::read(&crate::workspace_root().join("test-patches"), &arguments.series)?;
    let release = match &arguments.release {
        Some(release) => release.clone(),
        None => kernels::newest(&series)?.release.clone(),
    };
    let mut builder = match &arguments.kpatch_build {
        Some(program) => Builder::existing(program, &release)?,
        None => Builder::compile(&release)?,
    };
    builder.suites.clone_from(&series.suites);
    let scratch = tempfile::Builder::new().prefix("kpatch-bench-").tempdir_in(crate::target_directory())?;
    println!("kernel {release}; seconds of the processor, and by the clock");
    println!(
        "{:32} {:>10} {:>6} {:>12} {:>8} {:>8} {:>8} {:>8} {:>6}",
        "patch", "considered", "named", "preprocessed", "compiled", "clock", "cpu", "floor", "ratio"
    );
    for patch in &arguments.patches {
        let json = scratch.path().join("report.json");
        let words = ["--json".to_owned(), json.display().to_string()];
        let before = children_seconds()?;
        let built =
            builder.build("bench", &[std::path::absolute(patch)?], &words, &scratch.path().join("out"))?;
        let cpu = children_seconds()? - before;
        if !json.exists() {
            return Err(Error::Failed(format!("{}:\n{}", patch.display(), built.tail(15).join("\n"))));
        }
        let report: Report = serde_json::from_slice(&fs_err::read(&json)?)
            .map_err(|error| Error::Failed(format!("{}: {error}", json.display())))?;
        let compiled = u32::try_from(report.units.len()).unwrap_or(u32::MAX);
        let searched = report.searched.as_ref();
        let (considered, named, preprocessed) =
            searched.map_or((0, 0, compiled), |s| (s.considered, s.named, s.preprocessed));
        let once = Once::measure(&builder.cache.join("kernels").join(&release), &report.units)?;
        let floor = f64::from(preprocessed) * once.preprocess
            + f64::from(VARIANTS) * f64::from(compiled) * once.compile;
        let name = patch.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        println!(
            "{name:32} {considered:>10} {named:>6} {preprocessed:>12} {compiled:>8} {:>8.1} {cpu:>8.1} {floor:>8.1} {:>6.2}",
            built.time.as_secs_f64(),
            cpu / floor
        );
        if !built.succeeded() {
            println!("  refused: {}", built.tail(3).join(" "));
        }
    }
    Ok(())
}

/// Seconds of the processor for one run of the compiler.
struct Once {
    preprocess: f64,
    compile: f64,
}

impl Once {
    /// The medians over some of the units.
    fn measure(kernel: &Path, units: &[super::Unit]) -> Result<Once> {
        let step = units.len().div_ceil(SAMPLE).max(1);
        let (mut preprocess, mut compile) = (Vec::new(), Vec::new());
        for unit in units.iter().step_by(step) {
            // A new unit has no command of its own.
            let Ok((tree, command)) = saved_command(kernel, &unit.unit) else { continue };
            let object = tempfile::NamedTempFile::new()?;
            let command = command.without_dependency_file().without_debug_information();
            preprocess.push(cpu(&command.preprocessing_words(), &tree)?);
            let command = command.with_last(["-ffunction-sections", "-fdata-sections", "-g"]);
            compile.push(cpu(&command.with_output(object.path()).words(), &tree)?);
        }
        if compile.is_empty() {
            return Err(Error::Failed("no compiled unit has a saved command: there is no floor".to_owned()));
        }
        Ok(Once { preprocess: median(&preprocess), compile: median(&compile) })
    }
}

fn cpu(words: &[String], directory: &Path) -> Result<f64> {
    let (program, rest) = words.split_first().ok_or_else(|| Error::Failed("an empty command".to_owned()))?;
    let before = children_seconds()?;
    run_quietly(&duct::cmd(program, rest).dir(directory), program)?;
    Ok(children_seconds()? - before)
}

/// Seconds of the processor that children of this process, and theirs, have taken in all: proc(5), stat, the fields
/// `cutime` and `cstime`.
fn children_seconds() -> Result<f64> {
    let stat = fs_err::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: Vec<f64> = fields.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    // Of 52 fields two stand before the bracket, and the state is no number: cutime is field 16.
    match (ticks.get(12), ticks.get(13)) {
        (Some(user), Some(system)) => Ok((user + system) / f64::from(TICKS_PER_SECOND)),
        _ => Err(Error::Failed("/proc/self/stat is not understood".to_owned())),
    }
}

/// `USER_HZ`, the same on every machine that Linux offers it on.
const TICKS_PER_SECOND: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_children_is_seen() {
        let before = children_seconds().unwrap();
        let words = ["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"].map(str::to_owned);
        let taken = cpu(&words, Path::new("/")).unwrap();
        assert!(taken > 0.05 && taken < 30.0, "{taken}");
        assert!(children_seconds().unwrap() >= before + taken);
    }
}
