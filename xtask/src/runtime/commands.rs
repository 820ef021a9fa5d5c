//! Every command against the real sysfs: each script of `test-patches/kpatch`, as many as possible in one boot.

use super::altered::altered;
use super::control;
use super::enrolled;
use super::keys::{Keys, Scheme};
use super::script::{self, Script};
use super::{Bench, Judged, module, run_tool};
use crate::error::{Error, Result};
use crate::guest::{Case, Options};
use crate::kernels;
use crate::modules::Modules;
use crate::programs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The modules: name, patches, further arguments of kpatch-build.
const MODULES: [(&str, &[&str], &[&str]); 8] = [
    ("lp_one", &["one"], &["-R"]),
    ("lp_two", &["two"], &["-R"]),
    ("lp_v1", &["one"], &[]),
    ("lp_v2", &["one", "two"], &[]),
    ("lp_sleep", &["sleep"], &["-R"]),
    ("lp_calls", &["calls"], &[]),
    ("lp_hook", &["hook"], &["-R"]),
    ("lp_module", &["module"], &[]),
];

/// A module of the kernel that is no live patch; one of the patches is of it.
const ORDINARY: &str = "dummy";

/// What the names of these cases begin with.
pub(super) const PREFIX: &str = "kpatch:";

/// What a line of a script begins with that is told.
const FIGURE: &str = "figure: ";

/// Virtual processors.
const PROCESSORS: u32 = 2;

/// What the cases are run with.
#[derive(Debug)]
pub(super) struct Prepared {
    keys: Keys,
    /// What the scripts find in `/shared`.
    shared: Vec<(String, Vec<u8>)>,
}

/// Builds everything.
pub(super) fn prepare(bench: &Bench<'_>) -> Result<Prepared> {
    let scheme = Scheme::of(&kernels::config(bench.resolved)?);
    let keys = Keys::make(bench.work, "ours", scheme)?;
    let shared = shared(bench, &keys, scheme)?;
    Ok(Prepared { keys, shared })
}

/// Runs it: the boot of most cases beside the others, one after the other. They wait for the kernel most of the time.
pub(super) fn run(
    bench: &Bench<'_>,
    prepared: &Prepared,
    only: &[String],
    full: bool,
) -> Result<Vec<Judged>> {
    // 200 rounds under the emulator take minutes.
    let cycles = if full { 200 } else { 10 };
    let mut options = Options::new(PathBuf::new());
    options.processors = PROCESSORS;
    options.test_limit = Duration::from_mins(if full { 40 } else { 10 });
    options.shared.clone_from(&prepared.shared);
    let boots = boots(cycles, only)?;
    let run = |number: usize| one(bench, prepared, options.clone(), number, &boots[number]);
    std::thread::scope(|scope| {
        let first = (!boots.is_empty()).then(|| scope.spawn(move || run(0)));
        let rest: Result<Vec<_>> = (1..boots.len()).map(run).collect();
        let mut judged = match first.map(std::thread::ScopedJoinHandle::join) {
            None => Vec::new(),
            Some(Ok(judged)) => judged?,
            Some(Err(_)) => return Err(Error::Failed("a thread panicked".to_owned())),
        };
        judged.extend(rest?.into_iter().flatten());
        Ok(judged)
    })
}

/// One boot.
fn one(
    bench: &Bench<'_>,
    prepared: &Prepared,
    mut options: Options,
    number: usize,
    boot: &Boot,
) -> Result<Vec<Judged>> {
    options.logs = bench.work.join(format!("logs-{number}"));
    options.append.clone_from(&boot.append);
    let mut kernel = bench.kernel.clone();
    if boot.enrolled {
        kernel.vmlinuz = bench.work.join("vmlinux");
        let vmlinux = kernels::vmlinux(bench.resolved)?;
        if let Err(error) = enrolled::enroll(&vmlinux, &prepared.keys.certificate, &kernel.vmlinuz) {
            // The other boots do without that kernel.
            let failed = |case: &Case| (case.name.clone(), vec![error.to_string()]);
            return Ok(boot.cases.iter().map(failed).collect());
        }
    }
    let mut judged = Vec::new();
    for outcome in control::run(&kernel, &boot.cases, &options)? {
        for figure in outcome.output.iter().filter_map(|line| line.strip_prefix(FIGURE)) {
            println!("  {}: {figure}", outcome.name);
        }
        judged.push((outcome.name.clone(), script::failures(&outcome)));
    }
    Ok(judged)
}

/// What the scripts find in `/shared`.
fn shared(bench: &Bench<'_>, keys: &Keys, scheme: Scheme) -> Result<Vec<(String, Vec<u8>)>> {
    let mut shared = vec![("kpatch".to_owned(), fs_err::read(programs::kpatch()?)?)];
    let mut make = |name: &str, patches: &[&str], arguments: &[&str]| {
        let path = module(bench, name, patches, &[&["-n", name], arguments].concat())?;
        shared.push((format!("{name}.ko"), fs_err::read(path)?));
        Ok::<_, Error>(())
    };
    for (name, patches, arguments) in MODULES {
        make(name, patches, arguments)?;
    }
    make("lp_signed", &["one"], &keys.arguments())?;
    make("lp_stranger", &["one"], &Keys::make(bench.work, "stranger", scheme)?.arguments())?;
    shared.push(("kill-at".to_owned(), kill_at(bench.work)?));
    let one = shared[1].1.clone();
    shared.push(("lp_foreign.ko".to_owned(), altered(&one, &format!("vermagic={}", bench.kernel.release))?));
    shared.push(("lp_other_build.ko".to_owned(), altered(&one, "kpatch_target_build_id=")?));
    let patched = shared.iter().find(|(name, _)| name == "lp_module.ko").map(|(_, bytes)| bytes.clone());
    let other = altered(&patched.unwrap_or_default(), &format!("\"modules\":{{\"{ORDINARY}\":\""))?;
    shared.push(("lp_other_module.ko".to_owned(), other));
    let ordinary = Modules::open(&bench.kernel.modules)?.with_dependencies(ORDINARY)?;
    let ordinary = ordinary.into_iter().next_back().ok_or_else(|| Error::KernelModule {
        name: ORDINARY.to_owned(),
        reason: "it is built into the kernel".to_owned(),
    })?;
    shared.push(("ordinary.ko".to_owned(), ordinary.content));
    Ok(shared)
}

/// Compiles what kills a program at a system call.
fn kill_at(work: &Path) -> Result<Vec<u8>> {
    let (source, program) = (work.join("kill-at.c"), work.join("kill-at"));
    fs_err::write(&source, include_str!("kill-at.c"))?;
    run_tool(&duct::cmd!("gcc", "-O1", "-static", "-o", &program, &source))?;
    Ok(fs_err::read(&program)?)
}

/// Cases that share a boot.
#[derive(Debug, Default)]
struct Boot {
    /// Words on the kernel's command line.
    append: String,
    /// The kernel trusts the tests' key.
    enrolled: bool,
    cases: Vec<Case>,
}

/// The cases by boot: those that want none of their own, then those that want the same.
fn boots(cycles: u32, only: &[String]) -> Result<Vec<Boot>> {
    let library = script::library()?;
    let begin = fs_err::read_to_string(script::directory().join("begin.sh"))?;
    let wanted = |script: &Script| {
        let name = format!("{PREFIX}{}", script.name);
        only.is_empty() || only.contains(&name) || only.iter().any(|name| name == PREFIX)
    };
    let mut boots = vec![Boot::default()];
    for script in script::read_all(&script::directory())?.into_iter().filter(wanted) {
        let case = Case {
            name: format!("{PREFIX}{}", script.name),
            test: Some(format!("{library}\n{begin}\nCYCLES={cycles}\n{}", script.text)),
            ..Case::default()
        };
        match script.boot {
            None => boots[0].cases.push(case),
            Some(append) => {
                match boots[1..].iter_mut().find(|b| b.append == append && b.enrolled == script.enrolled) {
                    Some(boot) => boot.cases.push(case),
                    None => boots.push(Boot { append, enrolled: script.enrolled, cases: vec![case] }),
                }
            }
        }
    }
    boots.retain(|boot| !boot.cases.is_empty());
    Ok(boots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_run_once() {
        let all = boots(1, &[]).unwrap();
        let count: usize = all.iter().map(|boot| boot.cases.len()).sum();
        assert_eq!(count, script::read_all(&script::directory()).unwrap().len());
        assert!(all[0].append.is_empty() && all[0].cases.len() >= 10);
        let enrolled: Vec<&Boot> = all.iter().filter(|boot| boot.enrolled).collect();
        assert!(enrolled.len() == 1 && enrolled[0].cases.len() == 2, "{enrolled:?}");
        assert_eq!(boots(1, &["kpatch:stall".to_owned()]).unwrap()[0].cases.len(), 1);
        assert!(boots(1, &["system:".to_owned()]).unwrap().is_empty());
    }
}
