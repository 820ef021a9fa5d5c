//! `cargo xtask bench headers`: what patches of headers cost, in the processor's time and by the clock, beside what
//! cannot be had cheaper.
//!
//! The floor is the compiler's own time: preprocessing as often as kpatch-build had it done, and compiling what was
//! compiled three times (original, patched, and for the proof). One run of each is measured on some of the compiled
//! units and taken for the mean of all: a header's readers are mostly of one subsystem and read the same headers.

use super::{median, run_quietly, saved_command};
use crate::builder::{Builder, Built};
use crate::error::{Error, Result};
use crate::{kernels, series, tools};
use serde::Deserialize;
use std::collections::BTreeSet;
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
    /// Build each patch with `--all-readers`, too, and fail if that compiles other units.
    #[arg(long)]
    check: bool,
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
        let before = children_seconds()?;
        let (built, report) = build(&builder, patch, &[], scratch.path())?;
        let cpu = children_seconds()? - before;
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
        if arguments.check {
            let before = children_seconds()?;
            let (_, all) = build(&builder, patch, &["--all-readers"], scratch.path())?;
            let cpu = children_seconds()? - before;
            report.same_units_as(&all).map_err(|why| Error::Failed(format!("{}: {why}", patch.display())))?;
            let preprocessed = all.searched.as_ref().map_or(0, |searched| searched.preprocessed);
            println!(
                "  the same units as with all readers: {preprocessed} preprocessed, {cpu:.1} s of the processor"
            );
        }
    }
    Ok(())
}

/// One run; a refusal has a report as well.
fn build(builder: &Builder, patch: &Path, words: &[&str], scratch: &Path) -> Result<(Built, Report)> {
    let json = scratch.join("report.json");
    if json.exists() {
        fs_err::remove_file(&json)?;
    }
    let mut arguments = vec!["--json".to_owned(), json.display().to_string()];
    arguments.extend(words.iter().map(|&word| word.to_owned()));
    let built = builder.build("bench", &[std::path::absolute(patch)?], &arguments, &scratch.join("out"))?;
    if !json.exists() {
        return Err(Error::Failed(format!("{}:\n{}", patch.display(), built.tail(15).join("\n"))));
    }
    let report = serde_json::from_slice(&fs_err::read(&json)?)
        .map_err(|error| Error::Failed(format!("{}: {error}", json.display())))?;
    Ok((built, report))
}

impl Report {
    /// Units that a search by text left out must be such that preprocessing leaves out.
    fn same_units_as(&self, all: &Report) -> std::result::Result<(), String> {
        let names = |report: &Report| -> BTreeSet<PathBuf> {
            report.units.iter().map(|unit| unit.unit.clone()).collect()
        };
        let (found, all) = (names(self), names(all));
        let list = |units: &mut dyn Iterator<Item = &PathBuf>| {
            units.map(|unit| unit.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        match (list(&mut all.difference(&found)), list(&mut found.difference(&all))) {
            (missed, more) if missed.is_empty() && more.is_empty() => Ok(()),
            (missed, more) => Err(format!("missed: {missed}; without a reason: {more}")),
        }
    }
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
    fn a_unit_that_was_missed_is_named() {
        let report = |units: &[&str]| -> Report {
            let units: Vec<_> = units.iter().map(|unit| serde_json::json!({ "unit": unit })).collect();
            serde_json::from_value(serde_json::json!({ "searched": null, "units": units })).unwrap()
        };
        assert_eq!(report(&["a.o", "b.o"]).same_units_as(&report(&["b.o", "a.o"])), Ok(()));
        let missed = report(&["a.o"]).same_units_as(&report(&["a.o", "b.o"])).unwrap_err();
        assert_eq!(missed, "missed: b.o; without a reason: ");
    }

    #[test]
    fn time_of_children_is_seen() {
        let before = children_seconds().unwrap();
        let words = ["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"].map(str::to_owned);
        let taken = cpu(&words, Path::new("/")).unwrap();
        assert!(taken > 0.05 && taken < 30.0, "{taken}");
        assert!(children_seconds().unwrap() >= before + taken);
    }
}
