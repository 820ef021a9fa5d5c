//! What cannot be had cheaper: the compiler's own time, on the processor.
//!
//! Runs of some units are measured, with the options that kpatch-build adds, and taken for the mean of all: a header's
//! readers are mostly of one subsystem and read the same headers.

use super::super::{run_quietly, saved_command};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Units of which the compiler's time is measured after a run.
const SAMPLE: usize = 8;

/// Options of the two compared objects; those of the proof are compiled as the kernel was.
const COMPARED: [&str; 4] = ["-ffunction-sections", "-fdata-sections", "-gz=none", "-g"];

/// Seconds of the processor for one run of the compiler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Once {
    pub(super) preprocess: f64,
    /// For one of the two objects that are compared.
    pub(super) compare: f64,
    /// As the kernel was compiled.
    pub(super) prove: f64,
}

/// How often the compiler ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// Preprocessing.
    pub(super) preprocessed: u32,
    /// Compiling for the comparison.
    pub(super) compared: u32,
    /// Compiling for the proof.
    pub(super) proven: u32,
}

impl Once {
    /// The means over some of the units (their object files).
    pub(super) fn measure(kernel: &Path, units: &[PathBuf]) -> Result<Once> {
        Once::of_sample(kernel, &spread(units, SAMPLE))
    }

    /// The means over these units.
    pub(super) fn of_sample(kernel: &Path, units: &[&PathBuf]) -> Result<Once> {
        let mut once = Once { preprocess: 0.0, compare: 0.0, prove: 0.0 };
        let mut measured = 0u32;
        for unit in units {
            // A new unit has no command of its own.
            let Ok((tree, command)) = saved_command(kernel, unit) else { continue };
            let object = tempfile::NamedTempFile::new()?;
            let command = command.without_dependency_file().without_debug_information();
            once.preprocess += cpu(&command.preprocessing_words(), &tree)?;
            once.prove += cpu(&command.clone().with_output(object.path()).words(), &tree)?;
            once.compare += cpu(&command.with_last(COMPARED).with_output(object.path()).words(), &tree)?;
            measured += 1;
        }
        if measured == 0 {
            return Err(Error::Failed("no unit has a saved command: there is no floor".to_owned()));
        }
        let mean = |sum: f64| sum / f64::from(measured);
        Ok(Once { preprocess: mean(once.preprocess), compare: mean(once.compare), prove: mean(once.prove) })
    }

    /// Seconds for so many runs.
    pub(super) fn times(&self, runs: Runs) -> f64 {
        f64::from(runs.preprocessed) * self.preprocess
            + f64::from(runs.compared) * self.compare
            + f64::from(runs.proven) * self.prove
    }
}

/// So many of all, evenly spread.
pub(super) fn spread<T>(all: &[T], count: usize) -> Vec<&T> {
    let count = count.min(all.len());
    (0..count).map(|at| &all[at * all.len() / count]).collect()
}

fn cpu(words: &[String], directory: &Path) -> Result<f64> {
    let (program, rest) = words.split_first().ok_or_else(|| Error::Failed("an empty command".to_owned()))?;
    let before = children_seconds()?;
    run_quietly(&duct::cmd(program, rest).dir(directory), program)?;
    Ok(children_seconds()? - before)
}

/// Seconds of the processor that children of this process, and theirs, have taken in all: proc(5), stat, the fields
/// `cutime` and `cstime`.
pub(super) fn children_seconds() -> Result<f64> {
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

    #[test]
    fn a_sample_is_spread() {
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(spread(&all, 4), [&0, &2, &5, &7]);
        assert_eq!(spread(&all, 99).len(), 10);
        assert!(spread(&all[..0], 3).is_empty());
    }

    #[test]
    fn runs_are_added_up() {
        let once = Once { preprocess: 0.5, compare: 2.0, prove: 1.0 };
        let runs = Runs { preprocessed: 4, compared: 2, proven: 1 };
        assert!((once.times(runs) - 7.0).abs() < 1e-9);
    }
}
