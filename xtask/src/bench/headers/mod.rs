//! `cargo xtask bench headers`: what patches of headers cost, in the processor's time and by the clock, beside what
//! cannot be had cheaper, see [`floor`]. Without patches it builds those of `test-patches/bench`.
//!
//! There are two floors. The wide one preprocesses every unit that may read a touched header, the narrow one only as many as
//! kpatch-build did; both compile what it compiled, and have kbuild make a small module where one was made. In the first run of an entry nothing is known of the originals.

mod floor;
mod set;

use super::{kbuild_alone, saved_commands};
use crate::builder::{self, Builder, Built};
use crate::error::{Error, Result};
use crate::{kernels, series, tools};
use floor::{Once, Runs, children_seconds, spread};
use serde::Deserialize;
use set::Entry;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Patches that touch headers, each built once in the cache as it is; without any, the default set is built in a cache of its own.
    #[arg(value_name = "PATCH")]
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
    /// Only entries of the default set whose names contain this.
    #[arg(long, value_name = "TEXT", conflicts_with = "patches")]
    only: Option<String>,
    /// Build the default set in the cache as it is: the first run finds what earlier ones left.
    #[arg(long)]
    known: bool,
    /// Build each entry of the default set no more often than this.
    #[arg(long, value_name = "COUNT")]
    runs: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Report {
    searched: Option<Searched>,
    units: Vec<Compiled>,
}

#[derive(Debug, Deserialize)]
struct Searched {
    considered: u32,
    named: u32,
    preprocessed: u32,
}

#[derive(Debug, Deserialize)]
struct Compiled {
    unit: PathBuf,
    /// Its original was found compiled.
    #[serde(default)]
    cached: bool,
    /// Functions that were compared with the kernel's.
    #[serde(default)]
    proven: Option<u64>,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let root = crate::workspace_root().join("test-patches");
    let series = series::read(&root, &arguments.series)?;
    let kernel = kernels::newest(&series)?;
    let release = arguments.release.clone().unwrap_or_else(|| kernel.release.clone());
    let mut builder = match &arguments.kpatch_build {
        Some(program) => Builder::existing(program, &release)?,
        None => Builder::compile(&release)?,
    };
    builder.suites.clone_from(&series.suites);
    let scratch = tempfile::Builder::new().prefix("kpatch-bench-").tempdir_in(crate::target_directory())?;
    let entries = if arguments.patches.is_empty() {
        set::read(&root.join("bench"), arguments.only.as_deref())?
    } else {
        arguments.patches.iter().map(|patch| Entry::of(patch)).collect()
    };
    let own_cache = arguments.patches.is_empty() && !arguments.known;
    if own_cache {
        if release != kernel.release {
            return Err(Error::Usage("the default set is built for the newest release".to_owned()));
        }
        builder.cache = scratch.path().join("cache");
        kernels::copy_packages(&kernel, &builder::cache_directory(), &builder.cache)?;
    }
    let before = children_seconds()?;
    kbuild_alone(&kernels::headers(&kernel)?, scratch.path())?;
    let module = children_seconds()? - before;
    let chore = Chore { arguments, builder, scratch: scratch.path(), own_cache, module };
    if own_cache {
        chore.unpack(&entries)?;
    }
    chore.run(&entries)
}

/// Everything that entries are built with.
struct Chore<'a> {
    arguments: &'a Arguments,
    builder: Builder,
    scratch: &'a Path,
    /// The cache is nobody else's.
    own_cache: bool,
    /// Seconds of the processor that kbuild takes for a small module.
    module: f64,
}

/// The largest ratio to the narrow floor says what an estimate has to be multiplied with.
#[derive(Debug, Default)]
struct Worst {
    units: usize,
    ratio: f64,
}

impl Chore<'_> {
    /// A build that nobody measures leaves the kernel unpacked.
    fn unpack(&self, entries: &[Entry]) -> Result<()> {
        let patches = entries.iter().flat_map(|entry| &entry.patches).take(1).cloned().collect::<Vec<_>>();
        println!("unpacking the kernel");
        self.build(&patches, &[]).map(|_| ())
    }

    fn run(&self, entries: &[Entry]) -> Result<()> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        println!(
            "kernel {}; seconds of the processor, and by the clock on {processors}",
            self.builder.release
        );
        println!(
            "floor: preprocessing all that may read it, compiling what was compiled, kbuild for a small module; narrow: preprocessing as often as it was done"
        );
        println!(
            "{:24} {:>3} {:>10} {:>6} {:>12} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8} {:>6}",
            "patch",
            "run",
            "considered",
            "named",
            "preprocessed",
            "compiled",
            "clock",
            "cpu",
            "floor",
            "ratio",
            "narrow",
            "ratio"
        );
        let mut worst = Worst::default();
        for entry in entries {
            if let Some(sample) = entry.sample {
                self.estimate(entry, sample, &worst)?;
                continue;
            }
            if self.own_cache {
                self.forget()?;
            }
            let runs = self.arguments.runs.map_or(entry.runs, |most| entry.runs.min(most));
            for run in 1..=runs {
                self.one(entry, run, &mut worst)?;
            }
        }
        Ok(())
    }

    fn one(&self, entry: &Entry, run: usize, worst: &mut Worst) -> Result<()> {
        let before = children_seconds()?;
        let (built, report) = self.build(&entry.patches, &[])?;
        let cpu = children_seconds()? - before;
        let runs = report.runs();
        let (considered, named) = report.searched.as_ref().map_or((0, 0), |s| (s.considered, s.named));
        let units: Vec<PathBuf> = report.units.iter().map(|unit| unit.unit.clone()).collect();
        let once = Once::measure(&self.kernel(), &units)?;
        let module = if built.succeeded() { self.module } else { 0.0 };
        let narrow = once.times(runs) + module;
        let wide = once.times(Runs { preprocessed: runs.preprocessed.max(considered), ..runs }) + module;
        println!(
            "{:24} {run:>3} {considered:>10} {named:>6} {:>12} {:>8} {:>8.1} {cpu:>8.1} {wide:>8.1} {:>6.2} {narrow:>8.1} {:>6.2}",
            entry.name,
            runs.preprocessed,
            units.len(),
            built.time.as_secs_f64(),
            cpu / wide,
            cpu / narrow
        );
        if !built.succeeded() {
            println!("  refused: {}", built.tail(3).join(" "));
        }
        if units.len() >= worst.units {
            *worst = Worst { units: units.len(), ratio: cpu / narrow };
        }
        if self.arguments.check {
            let before = children_seconds()?;
            let (_, all) = self.build(&entry.patches, &["--all-readers"])?;
            let cpu = children_seconds()? - before;
            report.same_units_as(&all).map_err(|why| Error::Failed(format!("{}: {why}", entry.name)))?;
            let preprocessed = all.searched.as_ref().map_or(0, |searched| searched.preprocessed);
            println!(
                "  the same units as with all readers: {preprocessed} preprocessed, {cpu:.1} s of the processor"
            );
        }
        Ok(())
    }

    /// What it would cost if a patch changed something in all units that kbuild has been asked for: all readers of a common
    /// header, once a patch of one was built.
    fn estimate(&self, entry: &Entry, sample: usize, worst: &Worst) -> Result<()> {
        let all = saved_commands(&self.kernel());
        let once = Once::of_sample(&self.kernel(), &spread(&all, sample))?;
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let changed = Runs { preprocessed: 2 * count, compared: 2 * count, proven: count };
        let same_code = Runs { proven: 0, ..changed };
        println!(
            "{:24} not built; a sample of {} of {count} units: {:.2} s to preprocess one, {:.2} s to compile it, {:.2} s for the proof",
            entry.name,
            sample.min(all.len()),
            once.preprocess,
            once.compare,
            once.prove
        );
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u32::try_from(processors).map_or(1.0, f64::from);
        for (what, runs) in [("the code of all changes", changed), ("no code changes", same_code)] {
            let floor = once.times(runs);
            println!(
                "  if {what}: floor {floor:.0} s of the processor, {:.0} min by the clock; at the ratio of {} units, {:.2}: {:.0} s, {:.0} min",
                floor / processors / 60.0,
                worst.units,
                worst.ratio,
                floor * worst.ratio,
                floor * worst.ratio / processors / 60.0
            );
        }
        Ok(())
    }

    /// What is known about originals goes.
    fn forget(&self) -> Result<()> {
        let objects = self.builder.cache.join("objects");
        if objects.exists() {
            fs_err::remove_dir_all(objects)?;
        }
        for entry in walkdir::WalkDir::new(self.kernel()).max_depth(2) {
            let entry = entry.map_err(|error| Error::Failed(error.to_string()))?;
            if entry.file_type().is_file() && entry.file_name().to_string_lossy().starts_with("originals") {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn kernel(&self) -> PathBuf {
        self.builder.cache.join("kernels").join(&self.builder.release)
    }

    /// One run; a refusal has a report as well.
    fn build(&self, patches: &[PathBuf], words: &[&str]) -> Result<(Built, Report)> {
        let json = self.scratch.join("report.json");
        if json.exists() {
            fs_err::remove_file(&json)?;
        }
        let mut arguments = vec!["--json".to_owned(), json.display().to_string()];
        arguments.extend(words.iter().map(|&word| word.to_owned()));
        let patches = patches.iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>()?;
        let built = self.builder.build("bench", &patches, &arguments, &self.scratch.join("out"))?;
        if !json.exists() {
            return Err(Error::Failed(built.tail(15).join("\n")));
        }
        let report = serde_json::from_slice(&fs_err::read(&json)?)
            .map_err(|error| Error::Failed(format!("{}: {error}", json.display())))?;
        Ok((built, report))
    }
}

impl Report {
    /// How often the compiler ran. Originals that were found compiled are not compiled again.
    fn runs(&self) -> Runs {
        let count = |wanted: &dyn Fn(&Compiled) -> bool| {
            u32::try_from(self.units.iter().filter(|unit| wanted(unit)).count()).unwrap_or(u32::MAX)
        };
        let (all, new) = (count(&|_| true), count(&|unit| !unit.cached));
        Runs {
            preprocessed: self.searched.as_ref().map_or(0, |searched| searched.preprocessed),
            compared: all + new,
            proven: count(&|unit| !unit.cached && unit.proven.is_some()),
        }
    }

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
    fn runs_of_the_compiler_are_counted() {
        let report: Report = serde_json::from_value(serde_json::json!({
            "searched": { "considered": 90, "named": 9, "preprocessed": 5 },
            "units": [
                { "unit": "a.o", "cached": true, "proven": 3 },
                { "unit": "b.o", "cached": false, "proven": 3 },
                { "unit": "c.o", "cached": false, "proven": null },
            ],
        }))
        .unwrap();
        assert_eq!(report.runs(), Runs { preprocessed: 5, compared: 5, proven: 1 });
    }
}
