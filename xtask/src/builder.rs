//! Runs the kpatch-build of this checkout, as a user does, and reads what it prints.

use crate::error::{Error, Result};
use crate::programs;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The program and how it is called.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    program: PathBuf,
    /// Where it keeps kernels.
    pub(crate) cache: PathBuf,
    /// The kernel.
    pub(crate) release: String,
    /// Suites to look for the kernel in, beside the host's.
    pub(crate) suites: Vec<String>,
    /// Further variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// What one run gave.
#[derive(Debug)]
pub(crate) struct Built {
    /// Exit status; none when it was killed.
    pub(crate) status: Option<i32>,
    /// Everything it printed.
    pub(crate) output: String,
    /// The modules in the output directory.
    pub(crate) modules: Vec<PathBuf>,
    /// How long it took.
    pub(crate) time: Duration,
    /// It was stopped when its time was over.
    pub(crate) stopped: bool,
}

/// Where chores keep kernels: `CACHEDIR` as for kpatch-build itself, else the target directory.
pub(crate) fn cache_directory() -> PathBuf {
    std::env::var_os("CACHEDIR").map_or_else(|| crate::target_directory().join("cache"), PathBuf::from)
}

impl Builder {
    /// Compiles kpatch-build.
    pub(crate) fn compile(release: &str) -> Result<Self> {
        Ok(Self {
            program: programs::compile()?.join("kpatch-build"),
            cache: cache_directory(),
            release: release.to_owned(),
            suites: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The command, with the arguments that every run has.
    fn command(&self, arguments: &[OsString], output: &Path) -> duct::Expression {
        let mut words: Vec<OsString> = vec!["-a".into(), (&self.release).into(), "-o".into(), output.into()];
        for suite in &self.suites {
            words.extend(["--suite".into(), suite.into()]);
        }
        words.extend_from_slice(arguments);
        let command = duct::cmd(&self.program, &words).env("CACHEDIR", &self.cache).dir(output).stdin_null();
        self.environment.iter().fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Takes a kpatch-build that exists already.
    pub(crate) fn existing(program: &Path, release: &str) -> Result<Self> {
        Ok(Self {
            program: fs_err::canonicalize(program)?,
            cache: cache_directory(),
            release: release.to_owned(),
            suites: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// Makes a module of patches to vmlinux, while the developer watches.
    pub(crate) fn watch(&self, patches: &[PathBuf], output: &Path) -> Result<PathBuf> {
        empty_directory(output)?;
        let mut words: Vec<OsString> = vec!["-t".into(), "vmlinux".into()];
        words.extend(patches.iter().map(|path| path.clone().into_os_string()));
        let shown: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        println!("kpatch-build -a {} {}", self.release, shown.join(" "));
        let failed = |reason: String| Error::Command { command: "kpatch-build".to_owned(), reason };
        self.command(&words, output).run().map_err(|error| failed(error.to_string()))?;
        modules_in(output)?.pop().ok_or_else(|| failed("it left no module".to_owned()))
    }

    /// Starts a build and stops it with a signal after a while. What it left in `output` must be nothing. None: it was over
    /// before.
    pub(crate) fn interrupt(
        &self,
        patches: &[PathBuf],
        output: &Path,
        after: Duration,
        signal: Signal,
    ) -> Result<Option<Vec<PathBuf>>> {
        empty_directory(output)?;
        let words: Vec<OsString> = patches.iter().map(|path| path.clone().into_os_string()).collect();
        let failed = |reason: String| Error::Command { command: "kpatch-build".to_owned(), reason };
        let handle = self
            .command(&words, output)
            .stdout_null()
            .stderr_null()
            .unchecked()
            .start()
            .map_err(|error| failed(error.to_string()))?;
        std::thread::sleep(after);
        self::signal(&handle, signal);
        let run = handle.wait().map_err(|error| failed(error.to_string()))?;
        if run.status.success() { Ok(None) } else { modules_in(output).map(Some) }
    }

    /// Makes a module of the patches in `output`, which is emptied first.
    pub(crate) fn build(
        &self,
        name: &str,
        patches: &[PathBuf],
        arguments: &[String],
        output: &Path,
    ) -> Result<Built> {
        self.build_within(None, name, patches, arguments, output)
    }

    /// The same, but stopped as by a user when it takes too long.
    pub(crate) fn build_within(
        &self,
        limit: Option<Duration>,
        name: &str,
        patches: &[PathBuf],
        arguments: &[String],
        output: &Path,
    ) -> Result<Built> {
        let named = [&["-n".to_owned(), name.to_owned()], arguments].concat();
        self.run(limit, patches, &named, output)
    }

    /// The same with the name that kpatch-build chooses.
    pub(crate) fn build_unnamed(
        &self,
        patches: &[PathBuf],
        arguments: &[String],
        output: &Path,
    ) -> Result<Built> {
        self.run(None, patches, arguments, output)
    }

    fn run(
        &self,
        limit: Option<Duration>,
        patches: &[PathBuf],
        arguments: &[String],
        output: &Path,
    ) -> Result<Built> {
        empty_directory(output)?;
        let mut words: Vec<OsString> = arguments.iter().map(Into::into).collect();
        words.extend(patches.iter().map(|path| path.clone().into_os_string()));
        let failed = |error: std::io::Error| Error::Command {
            command: self.program.display().to_string(),
            reason: error.to_string(),
        };
        let start = Instant::now();
        let handle = self
            .command(&words, output)
            .stderr_to_stdout()
            .stdout_capture()
            .unchecked()
            .start()
            .map_err(failed)?;
        let over = match limit {
            Some(limit) => handle.wait_timeout(limit).map_err(failed)?.is_none(),
            None => false,
        };
        if over {
            signal(&handle, Signal::TERM);
        }
        let run = handle.wait().map_err(failed)?;
        let time = start.elapsed();
        let output_text = String::from_utf8_lossy(&run.stdout).into_owned();
        fs_err::write(output.join("output.log"), &output_text)?;
        let modules = modules_in(output)?;
        // It may have come to its end in the last moment.
        let stopped = over && modules.is_empty();
        Ok(Built { status: run.status.code(), output: output_text, modules, time, stopped })
    }
}

/// Sends a signal to what was started. It may be over already; then the signal finds nobody, which is fine.
fn signal(handle: &duct::Handle, signal: Signal) {
    for pid in handle.pids() {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, signal));
    }
}

fn empty_directory(path: &Path) -> Result<()> {
    if path.exists() {
        fs_err::remove_dir_all(path)?;
    }
    Ok(fs_err::create_dir_all(path)?)
}

fn modules_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut modules = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            modules.push(path);
        }
    }
    modules.sort();
    Ok(modules)
}

/// What kpatch-build says that it made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// `Patched objects:`, sorted.
    pub(crate) objects: Vec<String>,
    /// Changed functions by object file.
    pub(crate) changed: BTreeMap<String, BTreeSet<String>>,
    /// New functions by object file.
    pub(crate) new: BTreeMap<String, BTreeSet<String>>,
}

impl Built {
    /// What an earlier run left in its output directory.
    pub(crate) fn kept(output: &Path) -> Result<Self> {
        let modules = modules_in(output)?;
        let text = fs_err::read_to_string(output.join("output.log")).unwrap_or_default();
        let status = Some(i32::from(modules.is_empty()));
        Ok(Self { status, output: text, modules, time: Duration::ZERO, stopped: false })
    }

    /// Whether a module was made.
    pub(crate) fn succeeded(&self) -> bool {
        self.status == Some(0) && self.modules.len() == 1
    }

    /// The last lines of the output, for a report of a failure.
    pub(crate) fn tail(&self, lines: usize) -> Vec<String> {
        let all: Vec<&str> = self.output.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Understands the output.
    pub(crate) fn said(&self) -> Said {
        let mut said = Said::default();
        for line in self.output.lines() {
            if let Some(objects) = line.strip_prefix("Patched objects: ") {
                said.objects = objects.split_whitespace().map(str::to_owned).collect();
                said.objects.sort();
            } else if let Some((file, rest)) = line.split_once(": ") {
                let (map, function) = if let Some(function) = rest.strip_prefix("changed function: ") {
                    (&mut said.changed, function)
                } else if let Some(function) = rest.strip_prefix("new function: ") {
                    (&mut said.new, function)
                } else {
                    continue;
                };
                map.entry(file.to_owned()).or_default().insert(function.trim().to_owned());
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_understood() {
        let built = Built {
            status: Some(0),
            output: "Testing patch file(s)\na/b.o: changed function: f\na/b.o: changed function: e\n\
                     a/b.o: new function: g\nnote: something: else\nPatched objects: xfs vmlinux\nSUCCESS\n"
                .to_owned(),
            modules: Vec::new(),
            time: Duration::ZERO,
            stopped: false,
        };
        let said = built.said();
        assert_eq!(said.objects, ["vmlinux", "xfs"]);
        assert_eq!(said.changed["a/b.o"], BTreeSet::from(["e".to_owned(), "f".to_owned()]));
        assert_eq!(said.new["a/b.o"], BTreeSet::from(["g".to_owned()]));
        assert!(!built.succeeded());
        assert_eq!(built.tail(1), ["SUCCESS"]);
    }
}
