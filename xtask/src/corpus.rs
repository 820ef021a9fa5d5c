//! `cargo xtask corpus`: what becomes of many real patches.
//!
//! Each patch of a directory is built; every module is loaded into the stock kernel, many in a boot. What is known about a
//! patch already is not done again: results are kept under a hash of the patch and of kpatch-build itself.

mod make;
mod report;

use crate::builder::{Builder, Built};
use crate::error::{Error, Result};
use crate::guest::{self, Case, Outcome};
use crate::{kernels, qemu, tools};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}

/// A set of patches and what to do with it.
#[derive(Debug, clap::Args)]
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
    /// Do not load the modules.
    #[arg(long)]
    no_boot: bool,
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
    /// The patch as a whole was refused for these reasons; this is what became of the units that it touches alone.
    #[serde(default)]
    pub(crate) whole: Vec<String>,
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

const NO_CHANGE: &str = "no-change";
const INTERRUPTED: &str = "interrupted";
const COMPILER_ERROR: &str = "compiler-error";

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    match &arguments.action {
        Some(Action::Make(arguments)) => make::run(arguments),
        None => try_all(&arguments.set),
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
    let mut builder = match &arguments.kpatch_build {
        Some(program) => Builder::existing(program, release)?,
        None => Builder::compile(release)?,
    };
    builder.suites.clone_from(&arguments.suite);
    let set = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let output = crate::target_directory().join("corpus").join(&set).join(release);
    fs_err::create_dir_all(&output)?;

    let mut entries = build_all(&builder, &patches, &output, arguments.reuse)?;
    if !arguments.no_boot {
        let mut settings = kernels::settings();
        settings.suites.extend(arguments.suite.iter().cloned());
        let kernel = kernels::bootable(&kernels::resolve(release, &settings)?)?;
        load_all(&kernel, &mut entries, &output)?;
    }

    // The report is the same wherever the checkout is.
    for entry in &mut entries {
        entry.module = entry.module.take().map(|path| match path.strip_prefix(&output) {
            Ok(relative) => relative.to_owned(),
            Err(_) => path,
        });
    }
    let json = serde_json::to_vec_pretty(&entries).map_err(|error| Error::Failed(error.to_string()))?;
    let text = report::markdown(&set, release, &entries, &facts);
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
    builder: &Builder,
    patches: &[&(String, PathBuf)],
    output: &Path,
    reuse: bool,
) -> Result<Vec<Entry>> {
    let tool = blake3::hash(&fs_err::read(builder.program())?);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let result: Result<()> = std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, patch)) = patches.get(index) else { return Ok(()) };
                let entry = one(builder, tool, name, patch, &output.join(name), reuse)?;
                println!("[{}/{}] {name}: {}", index + 1, patches.len(), report::end(&entry.end));
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

/// What is kept of a build beside kpatch-build's own report.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Hash of kpatch-build, release and patch.
    key: String,
    /// Hash of release and patch.
    #[serde(default)]
    input: String,
    seconds: f64,
}

/// Builds one patch. Where the header that it touches fits no other unit, what it touches is built alone as well.
fn one(
    builder: &Builder,
    tool: blake3::Hash,
    name: &str,
    patch: &Path,
    output: &Path,
    reuse: bool,
) -> Result<Entry> {
    let whole = attempt(builder, tool, name, patch, output, &[], reuse)?;
    let header = matches!(&whole.end, End::Refused { codes } if codes.iter().any(|c| c == COMPILER_ERROR));
    if !header {
        return Ok(whole);
    }
    let alone = output.with_file_name(format!("{name}.alone"));
    let alone = attempt(builder, tool, name, patch, &alone, &["--only-touched-units"], reuse)?;
    let compiles = !matches!(&alone.end, End::Refused { codes } if codes.iter().any(|c| c == COMPILER_ERROR));
    Ok(if compiles { Entry { whole: whole.errors, ..alone } } else { whole })
}

/// Builds one patch in one way, unless the result is known.
fn attempt(
    builder: &Builder,
    tool: blake3::Hash,
    name: &str,
    patch: &Path,
    output: &Path,
    options: &[&str],
    reuse: bool,
) -> Result<Entry> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(builder.release.as_bytes()).update(b"\0").update(&fs_err::read(patch)?);
    let input = hasher.finalize().to_hex().to_string();
    let key = hasher.update(tool.as_bytes()).finalize().to_hex().to_string();
    let record = output.join("record.json");
    let json = output.join("report.json");
    if let Some(known) = fs_err::read(&record).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok())
        && (known.key == key || reuse && known.input == input)
    {
        let built = Built::kept(output)?;
        let entry = entry(name, known.key, &json, &built, known.seconds);
        if entry.end != End::Crash {
            return Ok(entry);
        }
    }
    let mut words = vec!["--json".to_owned(), json.display().to_string()];
    words.extend(options.iter().map(|&option| option.to_owned()));
    let built = builder.build(&module_stem(name), &[patch.to_owned()], &words, output)?;
    let seconds = built.time.as_secs_f64();
    let entry = entry(name, key.clone(), &json, &built, seconds);
    // A run that somebody stopped says nothing about its patch.
    if matches!(&entry.end, End::Refused { codes } if codes.iter().any(|code| code == INTERRUPTED)) {
        return Err(Error::Failed(format!("the build of {name} was interrupted")));
    }
    let text = serde_json::to_vec_pretty(&Record { key, input, seconds })
        .map_err(|error| Error::Failed(error.to_string()))?;
    fs_err::write(&record, text)?;
    Ok(entry)
}

/// What a build came to.
fn entry(name: &str, key: String, json: &Path, built: &Built, seconds: f64) -> Entry {
    let report: Option<BuildReport> =
        fs_err::read(json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut entry = Entry {
        name: name.to_owned(),
        key,
        end: End::Crash,
        module: None,
        objects: Vec::new(),
        units: Vec::new(),
        searched: None,
        seconds,
        errors: Vec::new(),
        whole: Vec::new(),
        warnings: Vec::new(),
        loaded: None,
    };
    match report {
        Some(report) if !built.output.contains("panicked at") => {
            entry.end = end_of(&report, built.modules.len() == 1);
            entry.module = built.modules.first().cloned();
            entry.units = report.units;
            entry.searched = report.searched;
            entry.objects = report.objects;
            entry.warnings = report.warnings;
            entry.errors = report.errors.iter().map(ToString::to_string).collect();
        }
        _ => entry.errors = built.tail(20),
    }
    entry
}

/// A module's name: kpatch-build shortens long ones, which could make two the same; only one is loaded at a time.
fn module_stem(name: &str) -> String {
    format!("c-{name}")
}

fn end_of(report: &BuildReport, made: bool) -> End {
    if made && report.success {
        return End::Module;
    }
    let codes: BTreeSet<String> = report.errors.iter().map(|error| error.code.clone()).collect();
    match codes.first() {
        None => End::Crash,
        Some(code) if codes.len() == 1 && code.ends_with(NO_CHANGE) => End::NoChange,
        Some(_) => End::Refused { codes: codes.into_iter().collect() },
    }
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
            // A compiler has much to say; its first line is enough here.
            if let Some(line) =
                text.as_ref().and_then(|text| text.lines().find(|line| !line.trim().is_empty()))
            {
                write!(out, "\n  {what}: {}", line.trim())?;
            }
        }
        Ok(())
    }
}

/// Loads every module, objects first; those whose object cannot be loaded get a second chance without it.
fn load_all(kernel: &guest::Kernel, entries: &mut [Entry], output: &Path) -> Result<()> {
    let options = guest::Options::new(output.join("logs"));
    let first = cases(entries, |_| true, false)?;
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
    Ok(())
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

    fn report(json: &str) -> BuildReport {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn ends() {
        let good = report(r#"{"success": true, "objects": ["vmlinux"]}"#);
        assert_eq!(end_of(&good, true), End::Module);
        assert_eq!(end_of(&good, false), End::Crash);
        let none = report(r#"{"success": false, "errors": [{"code": "diff::no-change", "message": "m"}]}"#);
        assert_eq!(end_of(&none, false), End::NoChange);
        let refused = report(
            r#"{"success": false, "errors": [{"code": "b", "message": "m"}, {"code": "a", "message": "m"}, {"code": "a", "message": "n"}]}"#,
        );
        assert_eq!(end_of(&refused, false), End::Refused { codes: vec!["a".into(), "b".into()] });
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
