//! Runs live patches on an unmodified kernel under QEMU, many in one boot.
//!
//! Each case goes through the same steps (the guest's side of them is `init.sh`): its test must fail, the module is
//! loaded and its transition must end, every object must be patched, the test must succeed, the patch is disabled and
//! the module removed, and the test must fail again. Meanwhile the kernel log must stay clean.
//!
//! When the guest dies in the middle of a case, that case has failed and the remaining ones get a new boot.

mod initramfs;
mod log;
mod machine;
mod report;

pub(crate) use machine::End;
pub(crate) use report::ObjectState;

use crate::error::{Error, Result};
use crate::modules::Modules;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An installable kernel: what a machine needs to boot it.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What `uname -r` prints.
    pub(crate) release: String,
    /// The compressed image.
    pub(crate) vmlinuz: PathBuf,
    /// The directory `lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Finds the parts below `root`, laid out as a distribution installs them.
    pub(crate) fn below(root: &Path, release: &str) -> Result<Self> {
        let find = |what: &str, candidates: [String; 3]| {
            candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists()).ok_or_else(
                || Error::NotInImage {
                    what: what.to_owned(),
                    release: release.to_owned(),
                    root: root.to_owned(),
                },
            )
        };
        Ok(Self {
            release: release.to_owned(),
            vmlinuz: find(
                "vmlinuz",
                [
                    format!("boot/vmlinuz-{release}"),
                    format!("usr/lib/modules/{release}/vmlinuz"),
                    format!("lib/modules/{release}/vmlinuz"),
                ],
            )?,
            modules: find(
                "modules directory",
                [
                    format!("lib/modules/{release}/kernel"),
                    format!("usr/lib/modules/{release}/kernel"),
                    format!("{release}/kernel"),
                ],
            )?
            .parent()
            .unwrap_or(root)
            .to_owned(),
        })
    }
}

/// A module with a live patch.
#[derive(Debug, Clone)]
pub(crate) struct PatchModule {
    /// Its name as the kernel spells it.
    pub(crate) name: String,
    /// The file.
    pub(crate) content: Vec<u8>,
}

/// One live patch to be shown to work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Case {
    /// How results call it.
    pub(crate) name: String,
    /// The patch; without one, the test is run once and must succeed.
    pub(crate) patch: Option<PatchModule>,
    /// Shell script that succeeds exactly while the patch is active; none checks loading and unloading only.
    pub(crate) test: Option<String>,
    /// Files that the test finds in the directory `$FILES`.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Modules of the image that are loaded before the patch.
    pub(crate) before: Vec<String>,
    /// Modules of the image that are loaded while the patch is active.
    pub(crate) after: Vec<String>,
    /// Accept objects that are not loaded, hence not patched.
    pub(crate) absent_objects: bool,
    /// Texts that the kernel log must contain, in this order.
    pub(crate) log: Vec<String>,
    /// Texts in the first line of warnings that must appear in the kernel log; other warnings fail the case.
    pub(crate) warnings: Vec<String>,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The case's name.
    pub(crate) name: String,
    /// Everything that was not as it should be; empty when the case passed.
    pub(crate) failures: Vec<Failure>,
    /// The objects of the live patch as sysfs showed them.
    pub(crate) objects: Vec<ObjectState>,
    /// From loading the module to the end of the transition, in the guest's time.
    pub(crate) transition: Option<Duration>,
    /// What the kernel logged during the case.
    pub(crate) log: String,
    /// What the test printed, of a case without a patch.
    pub(crate) output: Vec<String>,
}

impl Outcome {
    /// Whether everything was as it should be.
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether the machine died, or hung, in the middle of it.
    pub(crate) fn died(&self) -> bool {
        self.failures.iter().any(Failure::is_death)
    }
}

/// What [`Failure::step`] is where the machine died.
const DEATH: &str = "guest";

/// One thing that was not as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The step of the case, as `init.sh` calls it, or `kernel`, `kernel log`, `guest`.
    pub(crate) step: String,
    /// What happened.
    pub(crate) reason: String,
    /// Output of the program that failed, or the lines of the kernel log.
    pub(crate) output: Vec<String>,
}

impl Failure {
    /// Whether it is that the machine died, or hung.
    pub(crate) fn is_death(&self) -> bool {
        self.step == DEATH
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.step, self.reason)?;
        for line in &self.output {
            write!(out, "\n    {line}")?;
        }
        Ok(())
    }
}

/// How cases are run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Virtual processors.
    pub(crate) processors: u32,
    /// One thread of the host for all of them: slower, and no processor sees what another has half written.
    pub(crate) one_thread: bool,
    /// What QEMU calls their model.
    pub(crate) processor: String,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// How long one run of a test may take.
    pub(crate) test_limit: Duration,
    /// How long a transition may take.
    pub(crate) transition_limit: Duration,
    /// How much longer than these the guest may be silent.
    pub(crate) slack: Duration,
    /// Where the logs of boots with failures are kept.
    pub(crate) logs: PathBuf,
    /// Programs and files that all cases find in the directory `/shared`.
    pub(crate) shared: Vec<(String, Vec<u8>)>,
    /// More for the kernel's command line.
    pub(crate) append: String,
}

impl Options {
    /// On another machine than the usual one.
    pub(crate) fn machine(mut self, cpu: Option<&str>, append: &str) -> Self {
        if let Some(cpu) = cpu {
            cpu.clone_into(&mut self.processor);
        }
        append.clone_into(&mut self.append);
        self
    }

    /// Usual limits; logs go below `logs`.
    pub(crate) fn new(logs: PathBuf) -> Self {
        Self {
            processors: 1,
            one_thread: false,
            // Without cx16: TCG's emulation of an unlocked cmpxchg16b lets 6.12 die at random.
            processor: "max,-cx16".to_owned(),
            memory: 1024,
            test_limit: Duration::from_mins(1),
            transition_limit: Duration::from_secs(90),
            slack: Duration::from_mins(1),
            logs,
            shared: Vec::new(),
            append: String::new(),
        }
    }
}

/// What all boots gave.
#[derive(Debug)]
pub(crate) struct Run {
    /// One per case, in the order of the cases.
    pub(crate) outcomes: Vec<Outcome>,
    /// How many boots were needed.
    pub(crate) boots: u32,
    /// Logs of boots in which something failed.
    pub(crate) kept_logs: Vec<PathBuf>,
}

/// Runs the cases on the kernel. An error means that nothing can be said about the cases: QEMU or the boot failed.
pub(crate) fn run(kernel: &Kernel, cases: &[Case], options: &Options) -> Result<Run> {
    let modules = Modules::open(&kernel.modules)?;
    let mut run = Run { outcomes: Vec::new(), boots: 0, kept_logs: Vec::new() };
    while run.outcomes.len() < cases.len() {
        let rest = &cases[run.outcomes.len()..];
        let directory = tempfile::Builder::new().prefix("kpatch-guest-").tempdir()?;
        let initramfs = initramfs::build(rest, &modules, options)?;
        run.boots += 1;
        let boot = machine::boot(kernel, machine::Media::Initramfs(&initramfs), directory.path(), options)?;
        run.take(kernel, rest, &boot, options)?;
    }
    Ok(run)
}

/// Runs a root file system, with other disks beside it, that reports as `init.sh` does, over as many boots as it wants. Cases that it did not come to
/// have failed.
pub(crate) fn run_disks(
    kernel: &Kernel,
    images: &[&Path],
    initrd: &Path,
    cases: &[Case],
    options: &Options,
) -> Result<Run> {
    let mut run = Run { outcomes: Vec::new(), boots: 1, kept_logs: Vec::new() };
    let directory = tempfile::Builder::new().prefix("kpatch-guest-").tempdir()?;
    let media = machine::Media::Disks { images, initrd };
    let boot = machine::boot(kernel, media, directory.path(), options)?;
    run.take(kernel, cases, &boot, options)?;
    for case in &cases[run.outcomes.len().min(cases.len())..] {
        let failure = Failure {
            step: DEATH.to_owned(),
            reason: format!("never begun: {}", boot.end.describe(options)),
            output: Vec::new(),
        };
        run.outcomes.push(Outcome {
            name: case.name.clone(),
            failures: vec![failure],
            objects: Vec::new(),
            transition: None,
            log: String::new(),
            output: Vec::new(),
        });
    }
    Ok(run)
}

impl Run {
    /// Judges a boot, and keeps its logs where something failed.
    fn take(
        &mut self,
        kernel: &Kernel,
        cases: &[Case],
        boot: &machine::Boot,
        options: &Options,
    ) -> Result<()> {
        let outcomes = judge(cases, boot, options);
        if outcomes.as_ref().map_or(true, |outcomes| !outcomes.iter().all(Outcome::passed)) {
            let kept = options.logs.join(format!("{}-boot-{}", kernel.release, self.boots));
            fs_err::create_dir_all(&kept)?;
            fs_err::write(kept.join("console.log"), &boot.console)?;
            fs_err::write(kept.join("report.log"), &boot.report)?;
            self.kept_logs.push(kept);
        }
        match outcomes {
            Ok(outcomes) => self.outcomes.extend(outcomes),
            Err(reason) => {
                let logs = self.kept_logs.last().map_or_else(String::new, |path| path.display().to_string());
                return Err(Error::Failed(format!(
                    "kernel {} does not come up: {reason}; logs are in {logs}",
                    kernel.release
                )));
            }
        }
        Ok(())
    }
}

/// The outcomes of the cases that a boot reached, at least one; an error when it reached none.
fn judge(
    cases: &[Case],
    boot: &machine::Boot,
    options: &Options,
) -> std::result::Result<Vec<Outcome>, String> {
    let report = report::parse(&boot.report);
    let segments = log::split(&boot.console);
    if let Some(trouble) = log::scan(&segments.boot, &[]).into_iter().next() {
        return Err(format!("{}\n{}", trouble.head(), trouble.lines.join("\n")));
    }
    if report.cases.is_empty() {
        return Err(boot.end.describe(options));
    }
    let mut outcomes: Vec<Outcome> = report
        .cases
        .iter()
        .zip(cases)
        .map(|(reported, case)| {
            let log = segments.of_case(reported.index).to_owned();
            let mut failures = reported.failures.clone();
            failures.extend(log::check(&log, &case.log, &case.warnings));
            if !reported.finished {
                failures.push(Failure {
                    step: DEATH.to_owned(),
                    reason: boot.end.describe(options),
                    output: Vec::new(),
                });
            }
            Outcome {
                name: case.name.clone(),
                failures,
                objects: reported.objects.clone(),
                transition: reported.transition,
                log,
                output: reported.output.clone(),
            }
        })
        .collect();
    // Dying between two cases is the doing of the one before.
    let over = matches!(boot.end, End::Done | End::Restart);
    if !over
        && report.cases.last().is_some_and(|last| last.finished)
        && let Some(last) = outcomes.last_mut()
    {
        last.failures.push(Failure {
            step: DEATH.to_owned(),
            reason: format!("after the case: {}", boot.end.describe(options)),
            output: Vec::new(),
        });
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests;
