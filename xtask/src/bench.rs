//! `cargo xtask bench`: how long kpatch-build takes, phase by phase, beside what cannot be had faster.
//!
//! Three situations, measured one after another in a cache of their own, several times:
//! * cold: the packages are on disk, nothing is unpacked, nothing is compiled;
//! * new file: the kernel is known, the patched file is not;
//! * warm: everything but the patched code itself has been seen before.
//!
//! The floor is the compiler's own time for the patched file plus the time of kbuild for a small module.

mod grow;
mod headers;
mod objdiff;
mod predecessor;

use crate::builder::{self, Builder};
use crate::error::{Error, Result};
use crate::series::{self, Case};
use crate::{kernels, tools};
use kbuild::command::{CompileCommand, SavedCommand};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Kernel series whose newest stock kernel is measured.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Case of the series that is built cold and warm; its patch touches one file.
    #[arg(long, default_value = "meminfo-string")]
    case: String,
    /// Case whose file is new to the cache.
    #[arg(long, default_value = "static-local")]
    new_file: String,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Measure the object differ alone, beside that of the C tools.
    Objdiff(objdiff::Arguments),
    /// Measure patches of headers, by the units that read them.
    Headers(headers::Arguments),
}

/// What kpatch-build reports about a run, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Report {
    phases: Vec<Phase>,
    units: Vec<Unit>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    phase: String,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Unit {
    unit: PathBuf,
}

/// All measurements of one situation.
#[derive(Debug, Default)]
struct Series {
    totals: Vec<f64>,
    phases: BTreeMap<String, Vec<f64>>,
    /// The order in which phases came.
    order: Vec<String>,
}

impl Series {
    fn add(&mut self, total: Duration, report: &Report) {
        self.totals.push(total.as_secs_f64());
        for phase in &report.phases {
            if !self.order.contains(&phase.phase) {
                self.order.push(phase.phase.clone());
            }
            self.phases.entry(phase.phase.clone()).or_default().push(phase.seconds);
        }
    }
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.other {
        Some(Other::Objdiff(arguments)) => return objdiff::run(arguments),
        Some(Other::Headers(arguments)) => return headers::run(arguments),
        None => {}
    }
    tools::install_missing()?;
    let root = crate::workspace_root().join("test-patches");
    let series = series::read(&root, &arguments.series)?;
    let find = |name: &String| {
        series
            .cases
            .iter()
            .find(|case| case.name == *name && !case.must_be_refused())
            .ok_or_else(|| Error::Usage(format!("series {} has no case {name}", series.name)))
    };
    let (case, new_file) = (find(&arguments.case)?, find(&arguments.new_file)?);
    let kernel = kernels::newest(&series)?;
    let release = kernel.release.clone();
    if !kernel.build_root.is_host() {
        return Err(Error::Usage(format!(
            "{release} is built in a root file system; the floor cannot be told"
        )));
    }
    let mut builder = Builder::compile(&release)?;
    builder.suites.clone_from(&series.suites);
    println!("kernel {release}, {} processors", std::thread::available_parallelism().map_or(1, usize::from));

    let (mut cold, mut new, mut warm) = (Series::default(), Series::default(), Series::default());
    let mut floor_compile = Vec::new();
    let mut floor_new = Vec::new();
    let mut floor_kbuild = Vec::new();
    for round in 1..=arguments.runs.max(1) {
        let scratch =
            tempfile::Builder::new().prefix("kpatch-bench-").tempdir_in(crate::target_directory())?;
        builder.cache = scratch.path().join("cache");
        kernels::copy_packages(&kernel, &builder::cache_directory(), &builder.cache)?;
        // Nothing about reading the packages from a slow disk is this tool's doing.
        read_through(&builder.cache.join("debs"))?;
        let measure = |case: &Case, into: &mut Series, what: &str| -> Result<Report> {
            let (time, report) = one_run(&builder, case, scratch.path())?;
            println!("round {round}, {what}: {:.2} s", time.as_secs_f64());
            into.add(time, &report);
            Ok(report)
        };
        let report = measure(case, &mut cold, "cold")?;
        let new_report = measure(new_file, &mut new, "new file")?;
        measure(case, &mut warm, "warm")?;

        floor_compile.push(compile_alone(&builder.cache, &report, &kernel, case, scratch.path())?);
        floor_new.push(compile_alone(&builder.cache, &new_report, &kernel, new_file, scratch.path())?);
        floor_kbuild.push(kbuild_alone(&kernels::headers(&kernel)?, scratch.path())?);
    }

    let (compile, compile_new, kbuild) = (median(&floor_compile), median(&floor_new), median(&floor_kbuild));
    println!("\nmedians of {} runs, in seconds", cold.totals.len());
    println!("{:12} {:>9} {:>9} {:>9}", "phase", "cold", "new file", "warm");
    for phase in &cold.order {
        let cell = |series: &Series| {
            series.phases.get(phase).map_or_else(|| "-".to_owned(), |values| format!("{:.2}", median(values)))
        };
        println!("{phase:12} {:>9} {:>9} {:>9}", cell(&cold), cell(&new), cell(&warm));
    }
    let row = |name: &str, values: [f64; 3]| {
        println!("{name:12} {:>9.2} {:>9.2} {:>9.2}", values[0], values[1], values[2]);
    };
    let totals = [median(&cold.totals), median(&new.totals), median(&warm.totals)];
    row("total", totals);
    let floors = [compile + kbuild, compile_new + kbuild, compile + kbuild];
    row("floor", floors);
    row("ratio", [totals[0] / floors[0], totals[1] / floors[1], totals[2] / floors[2]]);
    println!(
        "\nfloor: compiler alone {compile:.2} s ({compile_new:.2} s for the new file), kbuild of a module alone {kbuild:.2} s"
    );
    Ok(())
}

fn one_run(builder: &Builder, case: &Case, scratch: &Path) -> Result<(Duration, Report)> {
    let json = scratch.join("report.json");
    let mut words = case.says.arguments.clone();
    words.extend(["--json".to_owned(), json.display().to_string()]);
    let built = builder.build("bench", &case.patches, &words, &scratch.join("out"))?;
    if !built.succeeded() {
        return Err(Error::Failed(format!("{} is not built:\n{}", case.name, built.tail(15).join("\n"))));
    }
    let report = serde_json::from_slice(&fs_err::read(&json)?)
        .map_err(|error| Error::Failed(format!("{}: {error}", json.display())))?;
    Ok((built.time, report))
}

fn read_through(directory: &Path) -> Result<()> {
    for entry in fs_err::read_dir(directory)? {
        let mut file = fs_err::File::open(entry?.path())?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

/// Time of the compiler for the patched file, with the options that kpatch-build adds.
fn compile_alone(
    cache: &Path,
    report: &Report,
    kernel: &kernel_artifacts::Kernel,
    case: &Case,
    scratch: &Path,
) -> Result<f64> {
    let [unit] = report.units.as_slice() else {
        return Err(Error::Usage(format!(
            "case {} touches {} files, not one",
            case.name,
            report.units.len()
        )));
    };
    let (tree, command) = saved_command(&cache.join("kernels").join(&kernel.release), &unit.unit)?;
    let source = kbuild::command::absolute(&tree, command.source());
    let patched = scratch.join("patched.c");
    let patch =
        case.patches.first().ok_or_else(|| Error::Usage(format!("case {} has no patch", case.name)))?;
    run_quietly(&duct::cmd!("patch", "--silent", "-o", &patched, &source).stdin_path(patch), "patch")?;
    let command = command
        .without_dependency_file()
        .without_debug_information()
        .with_first(["-iquote".to_owned(), source.parent().unwrap_or(&tree).display().to_string()])
        .with_last(["-ffunction-sections", "-fdata-sections", "-g1"])
        .with_last([format!("-I{}", crate::workspace_root().join("crates/klp-module/include").display())])
        .with_source(&patched)
        .with_output(&scratch.join("patched.o"));
    let words = command.words();
    let (program, rest) = words.split_first().ok_or_else(|| Error::Failed("an empty command".to_owned()))?;
    timed(&duct::cmd(program, rest).dir(&tree), program)
}

/// The command that kpatch-build keeps for a unit, and the object tree it runs in.
fn saved_command(kernel: &Path, object: &Path) -> Result<(PathBuf, CompileCommand)> {
    let wrong = |reason: String| Error::Failed(format!("{}: {reason}", object.display()));
    let relative = Path::new(KEPT).join(object.with_extension("c.cmd"));
    let found = walkdir::WalkDir::new(kernel)
        .sort_by_file_name()
        .into_iter()
        .filter_map(std::result::Result::ok)
        .find(|entry| entry.path().ends_with(&relative))
        .ok_or_else(|| wrong(format!("no saved command below {}", kernel.display())))?
        .into_path();
    let depth = relative.components().count();
    let tree = found.ancestors().nth(depth).unwrap_or(kernel).to_owned();
    let command = SavedCommand::parse(&fs_err::read(&found)?)
        .and_then(|saved| saved.compile())
        .map_err(|error| wrong(error.to_string()))?;
    Ok((tree, command))
}

/// The units (their object files) whose commands kpatch-build keeps for a kernel, in the order of their paths.
fn saved_commands(kernel: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(kernel).sort_by_file_name().into_iter();
    let kept = entries.filter_map(std::result::Result::ok).filter_map(|entry| {
        let path = entry.path().to_str()?;
        let (_, unit) = path.split_once(&format!("/{KEPT}/"))?;
        // A detour of a makefile is part of the name.
        unit.strip_suffix(".c.cmd")
            .filter(|unit| !unit.contains('@'))
            .map(|unit| PathBuf::from(format!("{unit}.o")))
    });
    kept.collect()
}

/// Where an object tree keeps command lines.
const KEPT: &str = ".unit-commands";

/// Time of kbuild for a small live patch, as an external module.
fn kbuild_alone(headers: &Path, scratch: &Path) -> Result<f64> {
    let directory = scratch.join("module");
    if directory.exists() {
        fs_err::remove_dir_all(&directory)?;
    }
    fs_err::create_dir_all(&directory)?;
    fs_err::write(directory.join("floor.c"), FLOOR_MODULE)?;
    fs_err::write(directory.join("Makefile"), "obj-m := floor.o\n")?;
    timed(&duct::cmd!("make", "-s", "-C", headers, format!("M={}", directory.display())), "make")
}

const FLOOR_MODULE: &str = r#"// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/livepatch.h>
static int replacement(void *a, void *b) { return 0; }
static struct klp_func funcs[] = { { .old_name = "meminfo_proc_show", .new_func = replacement }, { } };
static struct klp_object objects[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };
static int __init floor_init(void) { return klp_enable_patch(&patch); }
static void __exit floor_exit(void) { }
module_init(floor_init);
module_exit(floor_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"#;

fn timed(command: &duct::Expression, name: &str) -> Result<f64> {
    let start = Instant::now();
    run_quietly(command, name)?;
    Ok(start.elapsed().as_secs_f64())
}

fn run_quietly(command: &duct::Expression, name: &str) -> Result<()> {
    let failed = |reason: String| Error::Command { command: name.to_owned(), reason };
    let output = command
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "values that are exact")]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn saved_commands_are_found_with_their_tree() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("v/object-tree");
        fs_err::create_dir_all(tree.join(".unit-commands/fs/proc")).unwrap();
        fs_err::write(
            tree.join(".unit-commands/fs/proc/a.c.cmd"),
            "savedcmd_fs/proc/a.o := gcc -c -o fs/proc/a.o /s/fs/proc/a.c\n",
        )
        .unwrap();
        let (found, command) = saved_command(root.path(), Path::new("fs/proc/a.o")).unwrap();
        assert_eq!(found, tree);
        assert_eq!(command.source(), Path::new("/s/fs/proc/a.c"));
        assert!(saved_command(root.path(), Path::new("fs/proc/b.o")).is_err());
        assert_eq!(saved_commands(root.path()), [Path::new("fs/proc/a.o")]);
    }
}
