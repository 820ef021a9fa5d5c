//! Runs that are ended from outside, at a moment when a program works for them.
//!
//! The run is this test binary itself, started again with a pipeline that never ends by itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kbuild::root::{Root, RunError};
use kpatch_build::cli;
use kpatch_build::error::Error;
use kpatch_build::events::Events;
use kpatch_build::options::Options;
use kpatch_build::phase::Phase;
use kpatch_build::pipeline::overlay::{Overlay, PatchedFiles};
use kpatch_build::workspace::Workspace;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Tells the child process of a test what to be.
const ROLE: &str = "KPATCH_BUILD_TEST_ROLE";

/// Starts a program that starts another, tells their ids, and waits for them.
fn endless(options: &Options, _events: Events<'_>) -> Result<PathBuf, Vec<Error>> {
    let workspace = Workspace::create(&options.cache, options.keep).unwrap();
    let pids = options.output.join("pids");
    let script = "sleep 300 & echo $$ $! > \"$1.new\"; mv \"$1.new\" \"$1\"; wait";
    let output = Root::Host.command("sh").args(["-c", script, "sh"]).arg(&pids).output();
    assert!(matches!(output, Err(RunError::Interrupted)), "{output:?}");
    drop(workspace);
    Err(vec![Error::interrupted(Phase::Compile)])
}

/// Does not notice that it is to end, as a phase that computes for long.
fn deaf(options: &Options, _events: Events<'_>) -> Result<PathBuf, Vec<Error>> {
    let _workspace = Workspace::create(&options.cache, options.keep).unwrap();
    std::fs::write(options.output.join("pids"), std::process::id().to_string()).unwrap();
    std::thread::sleep(Duration::from_mins(5));
    unreachable!("the run was not ended");
}

/// Lays patched sources over a tree when the run has been ended.
fn late(options: &Options, _events: Events<'_>) -> Result<PathBuf, Vec<Error>> {
    let patched = PatchedFiles::from([(PathBuf::from("fs/a.c"), Some(Vec::new()))]);
    let lay = |name: &str| Overlay::create(&options.output.join(name), Path::new("/"), &patched, []);
    assert!(lay("before").is_ok());
    kbuild::root::interrupt();
    assert_eq!(lay("after").unwrap_err().kind(), std::io::ErrorKind::Interrupted);
    Err(vec![Error::interrupted(Phase::Compile)])
}

/// Not a test: the run that the tests end.
#[test]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let directory = std::env::var_os("TEST_DIRECTORY").unwrap();
    let patch = Path::new(&directory).join("a.patch");
    let words: Vec<OsString> =
        ["kpatch-build".into(), "-o".into(), directory.clone(), patch.into()].into_iter().collect();
    let pipeline: cli::Pipeline<'_> = match role.to_str() {
        Some("deaf") => &deaf,
        Some("late") => &late,
        _ => &endless,
    };
    std::process::exit(i32::from(cli::run(words, pipeline)));
}

struct Run {
    directory: tempfile::TempDir,
    child: Child,
    pids: Vec<Pid>,
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawn(role: &str, directory: &Path) -> Child {
    std::fs::write(directory.join("a.patch"), "").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .env("TEST_DIRECTORY", directory)
        .env("CACHEDIR", directory.join("cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Run {
    fn start(role: &str, directory: tempfile::TempDir) -> Run {
        let child = spawn(role, directory.path());
        let file = directory.path().join("pids");
        let text = wait_for("the program", || std::fs::read_to_string(&file).ok().filter(|t| !t.is_empty()));
        std::fs::remove_file(file).unwrap();
        let pids = text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
        let run = Run { directory, child, pids };
        assert_eq!(run.work_directories(), 1);
        run
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn work_directories(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path().join("cache/tmp")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }

    /// The run's standard error, once it has ended with status 1.
    fn end(mut self) -> (String, tempfile::TempDir) {
        let status = wait_for("the end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1), "{status}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut text).unwrap();
        assert_eq!(self.work_directories(), 0);
        (text, self.directory)
    }
}

fn new_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_signal_ends_the_run_with_all_it_started_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let run = Run::start("endless", new_directory());
        let pids = run.pids.clone();
        run.signal(signal);
        let (text, _directory) = run.end();
        assert!(text.contains("ERROR: interrupted"), "{text}");
        for pid in pids {
            // Orphans are zombies until somebody collects them; only a living one would go on working.
            let is_gone = || {
                let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
                let dead = status.map_or(true, |text| text.contains(") Z "));
                (dead || test_kill_process(pid).is_err()).then_some(())
            };
            wait_for("the end of a program", is_gone);
        }
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let run = Run::start("deaf", new_directory());
    let start = Instant::now();
    run.signal(Signal::INT);
    // Two signals of a kind that arrive together count as one.
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    run.end();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_run_that_does_not_end_is_ended() {
    let run = Run::start("deaf", new_directory());
    run.signal(Signal::TERM);
    run.end();
}

#[test]
fn nothing_is_laid_over_a_tree_after_the_end() {
    let directory = new_directory();
    let output = spawn("late", directory.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("ERROR: interrupted"), "{text}");
}

#[test]
fn what_a_killed_run_left_goes_with_the_next() {
    let mut killed = Run::start("endless", new_directory());
    killed.signal(Signal::KILL);
    assert_eq!(killed.child.wait().unwrap().signal(), Some(9));
    assert_eq!(killed.work_directories(), 1, "nobody was there to remove it");
    for pid in &killed.pids {
        let _ = kill_process(*pid, Signal::KILL);
    }
    let next = Run::start("endless", killed.directory);
    next.signal(Signal::INT);
    next.end();
}
