//! One kernel: built for on this machine, and booted.

use super::room::Room;
use super::{Arguments, Row};
use crate::builder::{self, Builder};
use crate::error::Result;
use crate::guest::{self, Outcome};
use crate::series::{Case, Machine, Series};
use crate::{kallsyms, kernels, qemu, runtime, selfcheck};
use kernel_artifacts::Kernel;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Name of the row for [`interrupted`].
const INTERRUPTED: &str = "(stopped half-way)";
/// Name of the row for [`reproducible`].
const AGAIN: &str = "(the same again)";

/// A kernel with all that was built for it.
pub(super) struct Built {
    series: String,
    kernel: Kernel,
    bootable: guest::Kernel,
    builder: Builder,
    directory: PathBuf,
    rows: Vec<Row>,
    guests: Vec<guest::Case>,
    symbols: Option<kallsyms::Expected>,
    options: guest::Options,
    /// The guest's own checks are the same for every kernel: the first series has them.
    selfcheck: bool,
    /// What the tests of kpatch are run with, and where.
    runtime: Option<(PathBuf, runtime::Prepared)>,
}

/// Builds all cases for the newest kernel of a series, and judges what kpatch-build did.
pub(super) fn build(series: &Series, arguments: &Arguments, room: Room) -> Result<Built> {
    let only = &arguments.only;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    // Another machine changes nothing of what is built, or refused.
    let usual = series.machine == Machine::default();
    let fits = |case: &&Case| wanted(&case.name) && (usual || !case.must_be_refused());
    let cases: Vec<&Case> = series.cases.iter().filter(fits).collect();
    let kernel = kernels::newest(series)?;
    let release = kernel.release.clone();
    println!("\nseries {}: kernel {release}", series.name);
    let mut builder = match &arguments.kpatch_build {
        Some(program) => Builder::existing(program, &release)?,
        None => Builder::compile(&release)?,
    };
    builder.suites.clone_from(&series.suites);
    let directory = crate::target_directory().join("test").join(&series.name);

    let builds = build_all(&builder, &cases, &directory)?;
    let mut rows: Vec<Row> = cases.iter().map(|case| judge_build(case, builds.of(case))).collect();
    if usual && wanted(INTERRUPTED) {
        rows.push(interrupted(&builder, &cases, &builds, &directory)?);
    }
    if usual && wanted(AGAIN) {
        rows.push(reproducible(series, &kernel, &builder, &cases, &builds, &directory)?);
    }

    let mut guests = Vec::new();
    for case in &cases {
        if let Some(module) = builds.of(case).modules.first()
            && !case.must_be_refused()
        {
            guests.push(guest_case(case, module)?);
        }
    }
    let mut symbols = None;
    if wanted(kallsyms::CASE) {
        let expected = kallsyms::expected(&kernels::vmlinux(&kernel)?)?;
        guests.push(kallsyms::case(&expected));
        rows.push(Row::of_host(kallsyms::CASE, Vec::new(), "same order"));
        println!("  {} names occur more than once in vmlinux", kallsyms::size(&expected));
        symbols = Some(expected);
    }
    // In the gate on one kernel, in the long run on all.
    let first = series.inherits.is_none() && !series.full;
    let asked_for = !only.is_empty() && arguments.series.contains(&series.name);
    let mut built = Built {
        series: series.name.clone(),
        bootable: kernels::bootable(&kernel)?,
        options: guest::Options::new(directory.join("logs"))
            .machine(series.machine.cpu.as_deref(), &series.machine.append),
        selfcheck: only.is_empty() && series.inherits.is_none(),
        kernel,
        builder,
        directory,
        rows,
        guests,
        symbols,
        runtime: None,
    };
    if (first || arguments.full || asked_for) && runtime::is_wanted(only) {
        let work = built.directory.join("kpatch");
        let prepared = runtime::prepare(&built.bench(&work), only, arguments.full && first)?;
        built.runtime = Some((work, prepared));
    }
    if room == Room::Scarce {
        kernels::forget_sources(&built.kernel, &built.builder.cache)?;
    }
    Ok(built)
}

impl Built {
    fn bench<'a>(&'a self, work: &'a Path) -> runtime::Bench<'a> {
        runtime::Bench { builder: &self.builder, resolved: &self.kernel, kernel: &self.bootable, work }
    }

    /// Boots the kernel, and judges what the cases did there. Gives its release, too.
    pub(super) fn boot(mut self, arguments: &Arguments) -> Result<(String, Vec<Row>)> {
        let mut rows = std::mem::take(&mut self.rows);
        let run = guest::run(&self.bootable, &self.guests, &self.options)?;
        for path in &run.kept_logs {
            println!("logs of a boot with failures of series {}: {}", self.series, path.display());
        }
        for outcome in &run.outcomes {
            let Some(row) = rows.iter_mut().find(|row| row.case == outcome.name) else { continue };
            judge_outcome(row, outcome);
            if let Some(expected) = self.symbols.as_ref().filter(|_| outcome.name == kallsyms::CASE) {
                row.failures.extend(kallsyms::compare(expected, outcome).into_iter().take(10));
            }
        }
        if self.selfcheck {
            for (name, failures) in selfcheck::run(&self.kernel, &self.bootable, &self.directory)? {
                rows.push(Row::of_host(&name, failures, "noticed"));
            }
        }
        if let Some((work, prepared)) = &self.runtime {
            for (name, failures) in runtime::run(&self.bench(work), prepared, &arguments.only)? {
                rows.push(Row::of_host(&name, failures, "works"));
            }
        }
        Ok((self.kernel.release, rows))
    }
}

/// Builds by what determines them: cases that differ in their tests only share one.
struct Builds(BTreeMap<(Vec<PathBuf>, Vec<String>), builder::Built>);

fn key(case: &Case) -> (Vec<PathBuf>, Vec<String>) {
    (case.patches.clone(), case.says.arguments.clone())
}

impl Builds {
    fn of(&self, case: &Case) -> &builder::Built {
        &self.0[&key(case)]
    }
}

fn build_all(builder: &Builder, cases: &[&Case], directory: &Path) -> Result<Builds> {
    let mut jobs: BTreeMap<_, &Case> = BTreeMap::new();
    for case in cases {
        jobs.entry(key(case)).or_insert(case);
    }
    let build = |case: &Case| {
        let built = builder.build(
            &format!("test-{}", case.name),
            &case.patches,
            &case.says.arguments,
            &directory.join(&case.name),
        );
        if let Ok(built) = &built {
            println!("  {}: {:.1} s", case.name, built.time.as_secs_f64());
        }
        built
    };
    let jobs: Vec<_> = jobs.into_iter().collect();
    let done = Mutex::new(BTreeMap::new());
    // The first run unpacks the kernel; the others would only wait for it.
    let Some(((first_key, first), rest)) = jobs.split_first() else { return Ok(Builds(BTreeMap::new())) };
    done.lock().unwrap_or_else(PoisonError::into_inner).insert(first_key.clone(), build(first)?);
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let errors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((key, case)) = rest.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match build(case) {
                        Ok(built) => {
                            done.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), built);
                        }
                        Err(error) => {
                            errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = errors.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        return Err(error);
    }
    Ok(Builds(done.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Whether kpatch-build did what the case says.
fn judge_build(case: &Case, built: &builder::Built) -> Row {
    let mut failures = Vec::new();
    let tail = || built.tail(15).join("\n    ");
    if built.output.contains("panicked at") {
        failures.push(format!("kpatch-build panicked:\n    {}", tail()));
    }
    if let Some(refused) = &case.says.refused {
        if built.status != Some(1) {
            failures.push(format!("exit status {:?}, not 1:\n    {}", built.status, tail()));
        }
        if !built.modules.is_empty() {
            failures.push("a module was made".to_owned());
        }
        let missing: Vec<&String> =
            refused.says.iter().filter(|text| !built.output.contains(*text)).collect();
        if !missing.is_empty() {
            failures.push(format!("the error does not say {missing:?}:\n    {}", tail()));
        }
        return Row {
            case: case.name.clone(),
            build: Some(built.time),
            transition: None,
            failures,
            good: "refused",
        };
    }
    if built.succeeded() {
        failures.extend(deviations(case, built));
    } else {
        failures.push(format!("no module, exit status {:?}:\n    {}", built.status, tail()));
    }
    Row { case: case.name.clone(), build: Some(built.time), transition: None, failures, good: "works" }
}

/// Where what kpatch-build said differs from what the case says.
fn deviations(case: &Case, built: &builder::Built) -> Vec<String> {
    let said = built.said();
    let mut found = Vec::new();
    let mut objects = case.says.objects.clone();
    objects.sort();
    if !objects.is_empty() && said.objects != objects {
        found.push(format!("patched objects are {:?}, not {objects:?}", said.objects));
    }
    if !case.says.changed.is_empty() && said.changed != case.says.changed {
        found.push(format!("changed functions are {:?}, not {:?}", said.changed, case.says.changed));
    }
    for (file, functions) in &case.says.new {
        if said.new.get(file) != Some(functions) {
            found.push(format!("new functions of {file} are {:?}, not {functions:?}", said.new.get(file)));
        }
    }
    found
}

/// A run that is stopped at any moment must leave no module. (That later runs work shows in [`reproducible`].)
fn interrupted(builder: &Builder, cases: &[&Case], builds: &Builds, directory: &Path) -> Result<Row> {
    let mut row = Row::of_host(INTERRUPTED, Vec::new(), "nothing left");
    let Some(case) = cases.iter().find(|case| !case.must_be_refused() && builds.of(case).succeeded()) else {
        row.failures.push("no case gave a module".to_owned());
        return Ok(row);
    };
    let output = directory.join("stopped");
    let whole = builder.build("stopped", &case.patches, &case.says.arguments, &output)?.time;
    for (share, signal) in [(0.1, Signal::KILL), (0.3, Signal::INT), (0.5, Signal::KILL), (0.6, Signal::TERM)]
    {
        // This machine is never equally fast, least of all while another kernel boots beside.
        let mut after = whole.mul_f64(share);
        let left = loop {
            match builder.interrupt(&case.patches, &output, after, signal)? {
                Some(left) => break left,
                None => after /= 2,
            }
        };
        if !left.is_empty() {
            row.failures.push(format!("{signal:?} after {share} of the time leaves {left:?}"));
        }
    }
    Ok(row)
}

/// The same inputs must give the same module, byte by byte: in another directory, by another number of compilers and, in
/// the long run, out of a cache that is elsewhere.
fn reproducible(
    series: &Series,
    kernel: &Kernel,
    builder: &Builder,
    cases: &[&Case],
    builds: &Builds,
    directory: &Path,
) -> Result<Row> {
    let mut row = Row::of_host(AGAIN, Vec::new(), "identical");
    let built = cases.iter().filter(|case| !case.must_be_refused() && builds.of(case).succeeded());
    let size = |case: &&&Case| std::fs::metadata(&builds.of(case).modules[0]).map_or(0, |file| file.len());
    // The largest holds most that could differ.
    let Some(case) = built.max_by_key(size) else {
        row.failures.push("no case gave a module".to_owned());
        return Ok(row);
    };
    let first = builds.of(case);
    let name =
        first.modules[0].file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let elsewhere = directory.join("again");
    let cache = elsewhere.join("cache");
    let mut another = builder.clone();
    if series.full {
        kernels::copy_packages(kernel, &builder.cache, &cache)?;
        another.cache.clone_from(&cache);
    }
    let arguments = [case.says.arguments.as_slice(), &["-j1".to_owned()]].concat();
    let again = another.build(&name, &case.patches, &arguments, &elsewhere.join(&case.name))?;
    row.build = Some(again.time);
    if !again.succeeded() {
        row.failures.push(format!("no module:\n    {}", again.tail(15).join("\n    ")));
    } else if fs_err::read(&first.modules[0])? != fs_err::read(&again.modules[0])? {
        row.failures.push(format!(
            "{} and {} differ",
            first.modules[0].display(),
            again.modules[0].display()
        ));
    }
    if series.full {
        fs_err::remove_dir_all(&cache)?;
    }
    Ok(row)
}

fn guest_case(case: &Case, module: &Path) -> Result<guest::Case> {
    Ok(guest::Case {
        name: case.name.clone(),
        patch: Some(qemu::patch_module(module)?),
        files: Vec::new(),
        test: case.test.as_ref().map(fs_err::read_to_string).transpose()?,
        before: case.says.modules.before.clone(),
        after: case.says.modules.after.clone(),
        absent_objects: case.says.absent_objects,
        log: case.says.log.clone(),
        warnings: case.says.warnings.clone(),
    })
}

fn judge_outcome(row: &mut Row, outcome: &Outcome) {
    row.transition = outcome.transition;
    row.failures.extend(outcome.failures.iter().map(ToString::to_string));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Description, Refused};
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn case(says: Description) -> Case {
        Case { name: "c".into(), patches: Vec::new(), test: None, says }
    }

    fn built(status: i32, output: &str, modules: usize) -> builder::Built {
        builder::Built {
            status: Some(status),
            output: output.to_owned(),
            modules: vec![PathBuf::from("m.ko"); modules],
            time: Duration::ZERO,
            stopped: false,
        }
    }

    #[test]
    fn refusals_need_status_text_and_no_module() {
        let says = Description {
            refused: Some(Refused { says: vec!["meminfo.c".into()] }),
            ..Description::default()
        };
        let case = case(says);
        assert!(judge_build(&case, &built(1, "ERROR: fs/proc/meminfo.c: no", 0)).failures.is_empty());
        assert_eq!(judge_build(&case, &built(2, "ERROR: fs/proc/meminfo.c: no", 0)).failures.len(), 1);
        assert_eq!(judge_build(&case, &built(1, "ERROR: fs/proc/meminfo.c: no", 1)).failures.len(), 1);
        assert_eq!(judge_build(&case, &built(1, "ERROR", 0)).failures.len(), 1);
        assert_eq!(judge_build(&case, &built(1, "thread panicked at meminfo.c", 0)).failures.len(), 1);
    }

    #[test]
    fn what_is_said_must_be_what_is_expected() {
        let good = "a.o: changed function: f\na.o: new function: g\nPatched objects: vmlinux\n";
        let says = Description {
            objects: vec!["vmlinux".into()],
            changed: BTreeMap::from([("a.o".to_owned(), BTreeSet::from(["f".to_owned()]))]),
            new: BTreeMap::from([("a.o".to_owned(), BTreeSet::from(["g".to_owned()]))]),
            ..Description::default()
        };
        let case = case(says);
        assert!(judge_build(&case, &built(0, good, 1)).failures.is_empty());
        assert_eq!(judge_build(&case, &built(0, good, 0)).failures.len(), 1);
        assert_eq!(judge_build(&case, &built(1, good, 1)).failures.len(), 1);
        for (from, to) in [("vmlinux", "xfs"), ("function: f", "function: e"), ("function: g", "function: h")]
        {
            assert_eq!(judge_build(&case, &built(0, &good.replace(from, to), 1)).failures.len(), 1, "{from}");
        }
    }
}
