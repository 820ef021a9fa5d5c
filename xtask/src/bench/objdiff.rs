//! `cargo xtask bench objdiff`: what comparing objects costs, beside the C tool.
//!
//! Instructions are counted by callgrind, as time says little on a busy machine; those of a run that only prints its help
//! are subtracted. Both tools get the same symbol table (the text of `readelf -s`) and the same sizes.
#![expect(clippy::cast_precision_loss, reason = "ratios for people")]

use super::grow::{self, Base, Grown};
use super::predecessor::Predecessor;
use crate::error::{Error, Result};
use crate::{programs, tools};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Without the C tool.
    #[arg(long)]
    alone: bool,
    /// Only these pairs of fixtures/objdiff (`MACHINE/CASE`); none where it is empty.
    #[arg(long, value_name = "PAIR")]
    only: Option<Vec<String>>,
    /// Functions of the grown objects.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000, 20_000, 60_000])]
    functions: Vec<usize>,
    /// The C tool compares grown objects of up to so many functions; its time grows faster than their size.
    #[arg(long, default_value_t = 1000)]
    predecessor_functions: usize,
}

/// Above this size of an object, bytes, the C tool has to be beaten by [`AIM`].
const LARGE: u64 = 50_000;

/// So many times fewer instructions.
const AIM: f64 = 5.0;

/// A 60,000-function object is to be compared in this time, with so many times its size in memory: that of one object for
/// what the tool allocates, that of both for all that it touches, as the inputs are mapped and count there, too.
const LONGEST: Duration = Duration::from_secs(2);

/// Instructions of a run that took no more than the start.
const NOTHING: u64 = 1;
const MOST_MEMORY: f64 = 4.0;

/// One of the two tools.
struct Tool {
    command: Vec<OsString>,
    /// Instructions of a run that does nothing.
    start_up: u64,
}

/// What is compared: the pair, and the sizes of table entries.
struct Job<'a> {
    original: &'a Path,
    patched: &'a Path,
    sizes: &'a BTreeMap<String, u32>,
    /// Text of `readelf -s`.
    table: PathBuf,
    directory: &'a Path,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    struct_sizes: BTreeMap<String, u32>,
    status: u8,
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let ours = Tool::new(vec![programs::compile()?.join("create-diff-object").into()], "-h")?;
    let theirs =
        if arguments.alone { None } else { Some(Tool::new(Predecessor::get()?.command(), "--help")?) };
    let scratch = tempfile::Builder::new().prefix("objdiff-").tempdir_in(crate::target_directory())?;
    let mut missed = Vec::new();
    corpus(arguments, &ours, theirs.as_ref(), scratch.path(), &mut missed)?;
    grown(arguments, &ours, theirs.as_ref(), scratch.path(), &mut missed)?;
    for text in &missed {
        println!("missed: {text}");
    }
    if missed.is_empty() { Ok(()) } else { Err(Error::Failed(format!("{} aims missed", missed.len()))) }
}

/// The pairs of the corpus, all machines.
fn corpus(
    arguments: &Arguments,
    ours: &Tool,
    theirs: Option<&Tool>,
    scratch: &Path,
    missed: &mut Vec<String>,
) -> Result<()> {
    println!("{:48} {:>8} {:>10} {:>10} {:>7}", "pair", "KB", "10^6 instr", "C tool", "ratio");
    for case in cases()? {
        let name = format!("{}/{}", file_name(case.parent().unwrap_or(&case)), file_name(&case));
        if arguments.only.as_ref().is_some_and(|only| !only.contains(&name)) {
            continue;
        }
        let expected = expected(&case)?;
        let (original, patched) = (case.join("original.o"), case.join("patched.o"));
        let job = Job::new(&original, &patched, &expected.struct_sizes, scratch)?;
        let bytes = fs_err::metadata(&patched)?.len();
        let count = ours.instructions(&job)?;
        // On a machine that it does not know (loongarch64 in 0.9.11) the C tool ends before it begins.
        let other = theirs.map(|tool| tool.instructions(&job)).transpose()?.filter(|&count| count > NOTHING);
        let ratio = other.map(|other| other as f64 / count as f64);
        println!(
            "{name:48} {:>8.0} {:>10.1} {:>10} {:>7}",
            bytes as f64 / 1e3,
            count as f64 / 1e6,
            other.map_or_else(|| "-".to_owned(), |n| format!("{:.1}", n as f64 / 1e6)),
            ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.1}")),
        );
        let aim = if bytes > LARGE { AIM } else { 1.0 };
        if ratio.is_some_and(|ratio| ratio < aim) {
            missed.push(format!("{name}: ratio {:.1}, aim {aim}", ratio.unwrap_or_default()));
        }
    }
    Ok(())
}

/// Objects of growing size.
fn grown(
    arguments: &Arguments,
    ours: &Tool,
    theirs: Option<&Tool>,
    scratch: &Path,
    missed: &mut Vec<String>,
) -> Result<()> {
    let (bases, sizes) = bases()?;
    println!(
        "\n{:>9} {:>8} {:>10} {:>12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>7}",
        "functions",
        "MB",
        "10^6 instr",
        "per function",
        "seconds",
        "own MB",
        "of one",
        "all MB",
        "of both",
        "C tool",
        "ratio"
    );
    let mut costs: Vec<f64> = Vec::new();
    for &functions in &arguments.functions {
        let Grown { original, patched, functions } =
            grow::grow(&bases, functions, &scratch.join(functions.to_string()))?;
        let job = Job::new(&original, &patched, &sizes, scratch)?;
        let bytes = fs_err::metadata(&patched)?.len();
        let count = ours.instructions(&job)?;
        let (time, memory) = ours.time_and_memory(&job)?;
        let other = theirs.filter(|_| functions <= arguments.predecessor_functions.saturating_mul(3) / 2);
        let other = other.map(|tool| tool.instructions(&job)).transpose()?;
        let both = bytes + fs_err::metadata(&original)?.len();
        let (of_one, of_both) = (memory.own as f64 / bytes as f64, memory.all as f64 / both as f64);
        costs.push(count as f64 / functions as f64);
        println!(
            "{functions:>9} {:>8.1} {:>10.1} {:>12.0} {:>8.2} {:>8.1} {of_one:>8.2} {:>8.1} {of_both:>8.2} {:>10} {:>7}",
            bytes as f64 / 1e6,
            count as f64 / 1e6,
            count as f64 / functions as f64,
            time.as_secs_f64(),
            memory.own as f64 / 1e6,
            memory.all as f64 / 1e6,
            other.map_or_else(|| "-".to_owned(), |n| format!("{:.1}", n as f64 / 1e6)),
            other.map_or_else(|| "-".to_owned(), |n| format!("{:.1}", n as f64 / count as f64)),
        );
        if functions >= 60_000 && time > LONGEST {
            missed.push(format!("{functions} functions: {:.2} s", time.as_secs_f64()));
        }
        if functions >= 60_000 && of_one.max(of_both) > MOST_MEMORY {
            missed.push(format!(
                "{functions} functions: {of_one:.1} times an object's size allocated, {of_both:.1} times that of both touched"
            ));
        }
    }
    // Sorting costs a little more for each function the more there are.
    let (least, most) = costs.iter().fold((f64::MAX, 0.0_f64), |(a, b), &c| (a.min(c), b.max(c)));
    if most > 1.35 * least {
        missed.push(format!("cost per function grows from {least:.0} to {most:.0} instructions"));
    }
    Ok(())
}

/// The directories of all pairs, sorted.
fn cases() -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let root = crate::workspace_root().join("fixtures/objdiff");
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::from)?;
        if entry.file_name() == "expected.json" {
            out.extend(entry.path().parent().map(Path::to_owned));
        }
    }
    Ok(out)
}

fn expected(case: &Path) -> Result<Expected> {
    let path = case.join("expected.json");
    serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

/// What large objects are made of: pairs that can be linked with each other, as their tables have entries of the same
/// sizes. Unwind tables are in order of address, which a link of parts does not keep.
fn bases() -> Result<(Vec<Base>, BTreeMap<String, u32>)> {
    let mut groups: BTreeMap<String, (Vec<Base>, BTreeMap<String, u32>)> = BTreeMap::new();
    for case in cases()?.into_iter().filter(|case| case.parent().is_some_and(|m| m.ends_with("x86_64"))) {
        let expected = expected(&case)?;
        let object = fs_err::read(case.join("original.o"))?;
        let has = |name: &[u8]| object.windows(name.len()).any(|window| window == name);
        if expected.status != 0 || has(b".orc_unwind\0") {
            continue;
        }
        if let Some(base) = Base::of(&case)? {
            let group = groups.entry(format!("{:?}", expected.struct_sizes)).or_default();
            group.0.push(base);
            group.1 = expected.struct_sizes;
        }
    }
    groups
        .into_values()
        .max_by_key(|(bases, _)| bases.len())
        .ok_or_else(|| Error::Usage("no pairs to grow objects from".to_owned()))
}

impl<'a> Job<'a> {
    fn new(
        original: &'a Path,
        patched: &'a Path,
        sizes: &'a BTreeMap<String, u32>,
        directory: &'a Path,
    ) -> Result<Job<'a>> {
        let table = directory.join("symtab");
        let failed = |error: std::io::Error| Error::Command {
            command: "readelf -s".to_owned(),
            reason: error.to_string(),
        };
        let text = duct::cmd!("readelf", "-s", "--wide", original).read().map_err(failed)?;
        // readelf of ppc64le puts notes behind the visibility.
        fs_err::write(&table, text.replace("[<localentry>: 8]", ""))?;
        fs_err::write(directory.join("symvers"), "")?;
        Ok(Job { original, patched, sizes, table, directory })
    }
}

impl Tool {
    fn new(command: Vec<OsString>, help: &str) -> Result<Tool> {
        let mut tool = Tool { command, start_up: 0 };
        tool.start_up = count(&tool.words(&[help.into()]), &BTreeMap::new())?;
        Ok(tool)
    }

    fn words(&self, arguments: &[OsString]) -> Vec<OsString> {
        [&self.command[..], arguments].concat()
    }

    fn arguments(job: &Job<'_>) -> Vec<OsString> {
        vec![
            job.original.into(),
            job.patched.into(),
            "vmlinux".into(),
            job.table.clone().into(),
            job.directory.join("symvers").into(),
            "patch".into(),
            job.directory.join("output.o").into(),
        ]
    }

    /// Instructions of a comparison beyond those of the start.
    fn instructions(&self, job: &Job<'_>) -> Result<u64> {
        let all = count(&self.words(&Self::arguments(job)), job.sizes)?;
        Ok(all.saturating_sub(self.start_up).max(NOTHING))
    }

    /// The shortest of three runs, and the most memory that any of them took.
    fn time_and_memory(&self, job: &Job<'_>) -> Result<(Duration, Memory)> {
        let (mut best, mut most) = (Duration::MAX, Memory::default());
        for _ in 0..3 {
            let words = self.words(&Self::arguments(job));
            let mut command = std::process::Command::new(&words[0]);
            command.args(&words[1..]).envs(variables(job.sizes)).stdout(std::process::Stdio::null());
            let start = Instant::now();
            let mut child = command.spawn()?;
            let status = PathBuf::from(format!("/proc/{}/status", child.id()));
            while child.try_wait()?.is_none() {
                let now = memory(&status).unwrap_or_default();
                most = Memory { all: most.all.max(now.all), own: most.own.max(now.own) };
                std::thread::sleep(Duration::from_millis(1));
            }
            best = best.min(start.elapsed());
        }
        Ok((best, most))
    }
}

/// Memory of a process, bytes.
#[derive(Clone, Copy, Default)]
struct Memory {
    /// The most that it had so far, mapped files included.
    all: u64,
    /// What it has now without files.
    own: u64,
}

fn memory(status: &Path) -> Option<Memory> {
    let text = fs_err::read_to_string(status).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    Some(Memory { all: value("VmHWM:")?, own: value("RssAnon:")? })
}

fn variables(sizes: &BTreeMap<String, u32>) -> impl Iterator<Item = (String, String)> + '_ {
    sizes.iter().map(|(name, size)| (format!("{name}_STRUCT_SIZE"), size.to_string()))
}

/// Instructions of a whole run, whatever its exit status.
fn count(words: &[OsString], sizes: &BTreeMap<String, u32>) -> Result<u64> {
    let mut all: Vec<OsString> =
        ["--tool=callgrind", "--callgrind-out-file=/dev/null"].map(Into::into).into();
    all.extend_from_slice(words);
    let mut command = duct::cmd("valgrind", &all).stdin_null().stdout_null().stderr_capture().unchecked();
    for (name, value) in variables(sizes) {
        command = command.env(name, value);
    }
    let failed = |reason: String| Error::Command { command: "valgrind".to_owned(), reason };
    let output = command.run().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).ok_or_else(|| failed(said.into_owned()))
}

/// The number that callgrind prints at the end.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_from_callgrind() {
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 289626\n"), Some(289_626));
        assert_eq!(collected("==1== nothing"), None);
    }

    #[test]
    fn there_are_objects_to_grow_from() {
        let (bases, sizes) = bases().unwrap();
        assert!(bases.len() > 3 && sizes.contains_key("JUMP"), "{bases:?}");
    }
}
