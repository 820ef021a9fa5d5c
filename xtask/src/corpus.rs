//! `cargo xtask corpus`: what becomes of many real patches.
//!
//! Each patch of a directory is built; every module is loaded into the stock kernel, many in a boot. What is known about a
//! patch already is not done again: results are kept under a hash of the patch and of kpatch-build itself.

mod attempt;
mod compare;
mod kernel;
mod make;
mod report;

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::guest::{self, Case, Outcome};
use crate::{kernels, qemu, tools};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    set: Set,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make patches of the differences between two versions of a source package.
    Make(make::Arguments),
    /// Tell which patches end otherwise than in an earlier report.
    Compare(compare::Arguments),
}

/// A set of patches and what to do with it.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Set {
    /// Directory with patches, or with a directory `patches` of them and `facts.json` of what another tool made of each.
    #[arg(required = true)]
    directory: Option<PathBuf>,
    /// The kernel, as `uname -r` prints it.
    #[arg(long, required = true)]
    release: Option<String>,
    /// Suite to look for the kernel in, besides the host's own.
    #[arg(long)]
    suite: Vec<String>,
    /// Only these patches.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Use this kpatch-build instead of the one of the checkout.
    #[arg(long, value_name = "FILE")]
    kpatch_build: Option<PathBuf>,
    /// Take results of other versions of kpatch-build as well.
    #[arg(long)]
    reuse: bool,
    /// Do not load modules; the report has what is known of earlier runs.
    #[arg(long)]
    no_boot: bool,
    /// Patches to build at once [default: number of processors].
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Seconds that a patch may take with all readers of its headers; then what it touches is built alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// Build each patch once with default options, whatever remedies its refusal names.
    #[arg(long)]
    as_is: bool,
    /// What the report is called [default: the name of the directory].
    #[arg(long)]
    name: Option<String>,
    /// Keep the report in docs/, too.
    #[arg(long)]
    docs: bool,
}

/// How a patch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum End {
    /// A module was made.
    Module,
    /// There is nothing to patch.
    NoChange,
    /// Refused, with the codes of the errors.
    Refused { codes: Vec<String> },
    /// It was stopped when its time was over.
    Stopped,
    /// kpatch-build itself failed: no report, a panic, a signal.
    Crash,
}

/// What is known about one patch after the build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Hash of everything that decides about the result.
    key: String,
    pub(crate) end: End,
    pub(crate) module: Option<PathBuf>,
    pub(crate) objects: Vec<String>,
    pub(crate) units: Vec<UnitReport>,
    #[serde(default)]
    pub(crate) searched: Option<Searched>,
    pub(crate) seconds: f64,
    /// The errors, as a person reads them.
    pub(crate) errors: Vec<String>,
    /// The patch as a whole came to no end for these reasons; this is what became of the units that it touches alone.
    #[serde(default)]
    pub(crate) whole: Vec<String>,
    /// Why the patch was refused until `allowed` was followed: what it does to the layouts of structures.
    #[serde(default)]
    pub(crate) layouts: Vec<String>,
    /// Structures whose layout was allowed to change.
    #[serde(default)]
    pub(crate) allowed: Vec<String>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// What the kernel did with the module.
    #[serde(default)]
    pub(crate) loaded: Option<Loaded>,
}

/// What the kernel did with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Loaded {
    /// Loaded, all objects patched, transition over, unloaded, log clean.
    Works,
    /// The same, without the object that cannot be there in plain QEMU.
    WithoutObject { reason: String },
    /// Something was wrong.
    Fails { failures: Vec<String> },
}

/// Another tool's result for the same patch.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Facts {
    name: String,
    /// The source of the unit that it compared.
    pub(crate) unit: String,
    pub(crate) c_tool: OtherTool,
}

/// See [`Facts`].
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct OtherTool {
    pub(crate) status: i32,
    #[serde(default)]
    pub(crate) changed: BTreeSet<String>,
    #[serde(default)]
    pub(crate) new: BTreeSet<String>,
}

/// The part of kpatch-build's report that matters here.
#[derive(Debug, Deserialize)]
struct BuildReport {
    success: bool,
    #[serde(default)]
    objects: Vec<String>,
    #[serde(default)]
    units: Vec<UnitReport>,
    #[serde(default)]
    searched: Option<Searched>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    errors: Vec<ErrorReport>,
}

/// What became of a unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UnitReport {
    /// Its object file.
    pub(crate) unit: String,
    #[serde(default)]
    pub(crate) changes: Vec<ChangeReport>,
    #[serde(default)]
    pub(crate) skipped: Vec<SkippedReport>,
}

/// A function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChangeReport {
    change: String,
    name: String,
}

/// A change that was left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SkippedReport {
    pub(crate) name: String,
    pub(crate) section: String,
    pub(crate) why: String,
}

/// How the units that see a changed header were found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Searched {
    pub(crate) considered: usize,
    /// Not told by runs before the text was looked at.
    #[serde(default)]
    pub(crate) named: usize,
    pub(crate) preprocessed: usize,
    pub(crate) changed: usize,
}

#[derive(Debug, Deserialize)]
struct ErrorReport {
    code: String,
    file: Option<String>,
    line: Option<u32>,
    message: String,
    cause: Option<String>,
    remedy: Option<String>,
}

impl UnitReport {
    /// The functions of one kind: `changed-function`, `new-function`, `lines-only`.
    pub(crate) fn functions(&self, kind: &str) -> BTreeSet<&str> {
        self.changes.iter().filter(|c| c.change == kind).map(|c| c.name.as_str()).collect()
    }
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Some(Action::Compare(arguments)) => compare::run(arguments),
        Some(Action::Make(arguments)) => {
            tools::install_missing()?;
            make::run(arguments)
        }
        None => {
            tools::install_missing()?;
            try_all(&arguments.set)
        }
    }
}

fn try_all(arguments: &Set) -> Result<()> {
    let missing = |what: &str| Error::Usage(format!("{what} is missing"));
    let directory = arguments.directory.as_ref().ok_or_else(|| missing("a directory"))?;
    let release = arguments.release.as_ref().ok_or_else(|| missing("--release"))?;
    let (patches, facts) = read(directory)?;
    let patches: Vec<&(String, PathBuf)> = patches
        .iter()
        .filter(|(name, _)| arguments.only.is_empty() || arguments.only.contains(name))
        .collect();
    if patches.is_empty() {
        return Err(Error::Usage(format!("{}: no patches", directory.display())));
    }
    let chosen = kernel::choose(release, &arguments.suite)?;
    let release = &chosen.release;
    let mut builder = match &arguments.kpatch_build {
        Some(program) => Builder::existing(program, release)?,
        None => Builder::compile(release)?,
    };
    builder.suites.clone_from(&arguments.suite);
    let of_directory = || directory.file_name().map(|name| name.to_string_lossy().into_owned());
    let set = arguments.name.clone().or_else(of_directory).unwrap_or_default();
    let output = crate::target_directory().join("corpus").join(&set).join(release);
    fs_err::create_dir_all(&output)?;

    let limit = Duration::from_secs(arguments.limit);
    let attempts = attempt::Attempts::new(&builder, limit, arguments.reuse, arguments.as_is)?;
    let workers = arguments.jobs.or_else(|| std::thread::available_parallelism().ok());
    let mut entries = build_all(&attempts, &patches, &output, workers.map_or(1, NonZeroUsize::get))?;
    // A patch made for another release says nothing about this one where it does not apply.
    let left_out = if chosen.instead_of.is_some() { take_inapplicable(&mut entries) } else { Vec::new() };
    for entry in &mut entries {
        entry.loaded = known_load(entry)?;
    }
    if !arguments.no_boot {
        load_all(&kernels::bootable(&chosen.kernel)?, &mut entries, &output)?;
    }

    // The report is the same wherever the checkout is.
    for entry in &mut entries {
        entry.module = entry.module.take().map(|path| match path.strip_prefix(&output) {
            Ok(relative) => relative.to_owned(),
            Err(_) => path,
        });
    }
    let json = serde_json::to_vec_pretty(&entries).map_err(|error| Error::Failed(error.to_string()))?;
    let text = report::markdown(&set, release, &chosen.told(&left_out), &entries, &facts);
    let mut places = vec![output.join("report")];
    if arguments.docs {
        places.push(crate::workspace_root().join("docs").join(format!("yield-{set}")));
    }
    for place in places {
        fs_err::write(place.with_added_extension("json"), &json)?;
        fs_err::write(place.with_added_extension("md"), &text)?;
        println!("{}", place.with_added_extension("md").display());
    }
    print!("{}", report::summary(&entries));
    let wrong = entries.iter().filter(|entry| entry.is_wrong()).count();
    if wrong > 0 {
        return Err(Error::Failed(format!("{wrong} patches ended as none may")));
    }
    Ok(())
}

impl Entry {
    /// A patch that ended in this way; all else is unknown.
    fn new(name: &str, end: End) -> Entry {
        Entry {
            name: name.to_owned(),
            key: String::new(),
            end,
            module: None,
            objects: Vec::new(),
            units: Vec::new(),
            searched: None,
            seconds: 0.0,
            errors: Vec::new(),
            whole: Vec::new(),
            layouts: Vec::new(),
            allowed: Vec::new(),
            warnings: Vec::new(),
            loaded: None,
        }
    }

    /// Ends that are faults of this project.
    pub(crate) fn is_wrong(&self) -> bool {
        self.end == End::Crash || matches!(self.loaded, Some(Loaded::Fails { .. }))
    }
}

/// The patches by name, and the facts by name.
#[expect(clippy::type_complexity, reason = "used once")]
fn read(directory: &Path) -> Result<(Vec<(String, PathBuf)>, BTreeMap<String, Facts>)> {
    let inner = directory.join("patches");
    let place = if inner.is_dir() { inner } else { directory.to_owned() };
    let mut patches = Vec::new();
    for entry in fs_err::read_dir(&place)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch")
            && let Some(stem) = path.file_stem()
        {
            patches.push((stem.to_string_lossy().into_owned(), fs_err::canonicalize(&path)?));
        }
    }
    patches.sort();
    let file = directory.join("facts.json");
    let mut facts = BTreeMap::new();
    if file.exists() {
        // Facts of another shape are of no use, but no obstacle either.
        let list: Vec<Facts> = serde_json::from_slice(&fs_err::read(&file)?).unwrap_or_else(|error| {
            eprintln!("warning: {}: {error}", file.display());
            Vec::new()
        });
        facts = list.into_iter().map(|fact| (fact.name.clone(), fact)).collect();
    }
    Ok((patches, facts))
}

fn build_all(
    attempts: &attempt::Attempts<'_>,
    patches: &[&(String, PathBuf)],
    output: &Path,
    workers: usize,
) -> Result<Vec<Entry>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let result: Result<()> = std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, patch)) = patches.get(index) else { return Ok(()) };
                let entry = attempts.entry(name, patch, &output.join(name))?;
                println!("[{}/{}] {name}: {}", index + 1, patches.len(), report::end_of(&entry));
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, entry);
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| Error::Failed("a worker panicked".to_owned()))??;
        }
        Ok(())
    });
    result?;
    Ok(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect())
}

/// Removes the patches that do not apply to the kernel's source; their names.
fn take_inapplicable(entries: &mut Vec<Entry>) -> Vec<String> {
    let inapplicable = |entry: &Entry| {
        let codes = ["not-applicable", "no-such-file", "file-exists"];
        matches!(&entry.end, End::Refused { codes: found } if found.iter().all(|c| codes.contains(&c.as_str())))
    };
    entries.extract_if(.., |entry| inapplicable(entry)).map(|entry| entry.name).collect()
}

impl std::fmt::Display for ErrorReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(out, "{file}:")?;
            if let Some(line) = self.line {
                write!(out, "{line}:")?;
            }
            write!(out, " ")?;
        }
        write!(out, "{} [{}]", self.message, self.code)?;
        for (what, text) in [("why", &self.cause), ("help", &self.remedy)] {
            // A compiler has much to say; the line of its first error is enough here.
            let lines = || text.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty());
            if let Some(line) = lines().find(|line| line.contains("error: ")).or_else(|| lines().next()) {
                write!(out, "\n  {what}: {}", line.trim())?;
            }
        }
        Ok(())
    }
}

/// Loads every module of which nothing good is known, objects first; those whose object cannot be loaded get a second chance
/// without it.
fn load_all(kernel: &guest::Kernel, entries: &mut [Entry], output: &Path) -> Result<()> {
    let options = guest::Options::new(output.join("logs"));
    let open = |entry: &Entry| matches!(entry.loaded, None | Some(Loaded::Fails { .. }));
    let first = cases(entries, open, false)?;
    let mut without = BTreeMap::new();
    for outcome in guest::run(kernel, &first, &options)?.outcomes {
        match unloadable(&outcome) {
            Some(reason) => {
                without.insert(outcome.name.clone(), reason);
            }
            None => set(entries, &outcome.name, loaded(&outcome)),
        }
    }
    let second = cases(entries, |entry| without.contains_key(&entry.name), true)?;
    for outcome in guest::run(kernel, &second, &options)?.outcomes {
        let reason = without.get(&outcome.name).cloned().unwrap_or_default();
        let result = match loaded(&outcome) {
            Loaded::Works => Loaded::WithoutObject { reason },
            other => other,
        };
        set(entries, &outcome.name, result);
    }
    entries.iter().try_for_each(keep_load)
}

/// What a kernel did with a module, as it is kept beside the module.
#[derive(Debug, Serialize, Deserialize)]
struct LoadRecord {
    /// Hash of the module.
    module: String,
    loaded: Loaded,
}

/// The module's hash, and the file for what became of it.
fn load_record(entry: &Entry) -> Result<Option<(String, PathBuf)>> {
    let Some(module) = &entry.module else { return Ok(None) };
    let hash = blake3::hash(&fs_err::read(module)?).to_hex().to_string();
    Ok(Some((hash, module.with_file_name("loaded.json"))))
}

fn known_load(entry: &Entry) -> Result<Option<Loaded>> {
    let Some((hash, file)) = load_record(entry)? else { return Ok(None) };
    let known = fs_err::read(file).ok().and_then(|bytes| serde_json::from_slice::<LoadRecord>(&bytes).ok());
    Ok(known.filter(|record| record.module == hash).map(|record| record.loaded))
}

fn keep_load(entry: &Entry) -> Result<()> {
    let Some(((module, file), loaded)) = load_record(entry)?.zip(entry.loaded.clone()) else { return Ok(()) };
    let text = serde_json::to_vec_pretty(&LoadRecord { module, loaded })
        .map_err(|error| Error::Failed(error.to_string()))?;
    Ok(fs_err::write(file, text)?)
}

fn set(entries: &mut [Entry], name: &str, loaded: Loaded) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) {
        entry.loaded = Some(loaded);
    }
}

fn cases(entries: &[Entry], wanted: impl Fn(&Entry) -> bool, without_objects: bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in entries.iter().filter(|entry| wanted(entry)) {
        let Some(module) = &entry.module else { continue };
        let objects = entry.objects.iter().filter(|object| *object != "vmlinux").cloned().collect();
        cases.push(Case {
            name: entry.name.clone(),
            patch: Some(qemu::patch_module(module)?),
            before: if without_objects { Vec::new() } else { objects },
            absent_objects: without_objects,
            ..Case::default()
        });
    }
    Ok(cases)
}

/// Why the object could not be loaded, if that is what went wrong.
fn unloadable(outcome: &Outcome) -> Option<String> {
    let failure = outcome.failures.iter().find(|failure| failure.step == "load-before")?;
    Some(
        std::iter::once(failure.reason.as_str())
            .chain(failure.output.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(": "),
    )
}

fn loaded(outcome: &Outcome) -> Loaded {
    if outcome.passed() {
        return Loaded::Works;
    }
    Loaded::Fails { failures: outcome.failures.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_did_is_kept_by_module() {
        let root = tempfile::tempdir().unwrap();
        let module = root.path().join("m.ko");
        fs_err::write(&module, "one").unwrap();
        let mut entry = Entry { module: Some(module.clone()), ..Entry::new("m", End::Module) };
        assert_eq!(known_load(&entry).unwrap(), None);
        entry.loaded = Some(Loaded::Works);
        keep_load(&entry).unwrap();
        assert_eq!(known_load(&entry).unwrap(), Some(Loaded::Works));
        fs_err::write(&module, "two").unwrap();
        assert_eq!(known_load(&entry).unwrap(), None);
    }

    #[test]
    fn of_what_a_compiler_says_the_error_is_told() {
        let report = |cause: &str| ErrorReport {
            code: "c".to_owned(),
            file: None,
            line: None,
            message: "m".to_owned(),
            cause: Some(cause.to_owned()),
            remedy: None,
        };
        let text = report("In file included from a.h:7,\n\n  a.c:3: error: no 'x'\nmore").to_string();
        assert_eq!(text, "m [c]\n  why: a.c:3: error: no 'x'");
        assert_eq!(report("\none\ntwo").to_string(), "m [c]\n  why: one");
    }

    #[test]
    fn patches_that_do_not_apply_are_told_apart() {
        let entry = |name: &str, codes: &[&str]| {
            let codes = codes.iter().map(|&code| code.to_owned()).collect();
            Entry::new(name, End::Refused { codes })
        };
        let mut entries = vec![
            entry("a", &["not-applicable"]),
            entry("b", &["no-entry", "not-applicable"]),
            entry("c", &["no-such-file"]),
        ];
        assert_eq!(take_inapplicable(&mut entries), ["a", "c"]);
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn patches_and_facts_are_read() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir(root.path().join("patches")).unwrap();
        for name in ["b.patch", "a.patch", "c.txt"] {
            fs_err::write(root.path().join("patches").join(name), "").unwrap();
        }
        fs_err::write(
            root.path().join("facts.json"),
            r#"[{"name": "a", "unit": "fs/a.c", "c_tool": {"status": 0, "changed": ["f"]}, "more": 1}]"#,
        )
        .unwrap();
        let (patches, facts) = read(root.path()).unwrap();
        let names: Vec<&str> = patches.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(facts["a"].c_tool.status, 0);
    }
}
