//! The directory in which a run works, and what happens to it when the run is ended from outside.
//!
//! Every run has a directory of its own under `tmp` in the cache directory, locked for as long as the run
//! lives. A run removes its directory at the end, also when it fails or gets a signal. A run that was killed
//! cannot; but its lock is gone, and the next run removes what has no lock.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fs_err as fs;
use kbuild::store::{Lock, StoreError};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;

/// Begins the name of every run's directory.
const PREFIX: &str = "run-";

/// In a directory that the user wanted to keep.
const KEPT: &str = "kept";

/// In every directory, held while its run lives.
const LOCK: &str = "lock";

/// How long a run may take to end by itself after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// There is no place to work in.
#[derive(Debug, Error)]
pub enum WorkspaceError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A lock cannot be had.
    #[error(transparent)]
    Lock(#[from] StoreError),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WorkspaceError {
    let path = path.to_owned();
    move |source| WorkspaceError::Io { action, path, source }
}

/// Directories of this process that a signal has to remove if nobody else gets to it.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A run's directory. Dropping it removes it with all it holds, unless it is to be kept.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    keep: bool,
    _lock: Lock,
}

impl Workspace {
    /// Makes a directory under `tmp` in the cache directory, after removing what killed runs left there.
    ///
    /// With `keep` it stays after the run, until the user removes it.
    pub fn create(cache_dir: &Path, keep: bool) -> Result<Workspace, WorkspaceError> {
        let parent = cache_dir.join("tmp");
        fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
        let parent = fs::canonicalize(&parent).map_err(io_error("find", &parent))?;
        // Held until the new directory has its own lock: without one it looks like a killed run's.
        let _all = Lock::exclusive(&parent.join(LOCK))?;
        sweep(&parent)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .map_err(io_error("create a directory in", &parent))?
            .keep();
        let lock = Lock::exclusive(&path.join(LOCK))?;
        if keep {
            File::create(path.join(KEPT)).map_err(io_error("write", &path))?;
        } else {
            live().push(path.clone());
        }
        Ok(Workspace { path, keep, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if it stays after the run.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// A new directory in it, with the directories above it.
    pub fn directory(&self, name: impl AsRef<Path>) -> Result<PathBuf, WorkspaceError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now, the next run removes.
            let _ = fs::remove_dir_all(&self.path);
            live().retain(|path| *path != self.path);
        }
    }
}

fn live() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the directories of runs that are no more. The lock of `parent` must be held.
fn sweep(parent: &Path) -> Result<(), WorkspaceError> {
    for entry in fs::read_dir(parent).map_err(io_error("read", parent))? {
        let entry = entry.map_err(io_error("read", parent))?;
        let path = entry.path();
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !ours || !path.is_dir() || path.join(KEPT).exists() {
            continue;
        }
        // A run that just removes its directory may have removed the lock already, and the directory is gone or is not
        // empty when its turn comes. What cannot be removed now, the next run removes.
        if let Ok(Some(_lock)) = Lock::try_exclusive(&path.join(LOCK)) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// Makes SIGINT, SIGTERM and SIGHUP end the run in order: programs that run are killed with all they started,
/// no new one starts, every phase stops with an error, and the run's directory goes. A second signal, or a run
/// that does not end within a few seconds, ends the process at once, its directory removed all the same.
pub fn handle_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut caught = signals.forever();
        if caught.next().is_none() {
            return;
        }
        end_programs();
        // The grace time must not keep this thread from seeing a second signal.
        let _ = std::thread::Builder::new().name("grace".to_owned()).spawn(|| {
            std::thread::sleep(GRACE);
            leave();
        });
        if caught.next().is_some() {
            leave();
        }
    })?;
    Ok(())
}

/// Ends the programs that run, and keeps new ones from starting.
fn end_programs() {
    kbuild::root::interrupt();
    // Those that were not started there, such as downloads, get the chance to remove their own files.
    for child in children() {
        let _ = kill_process(child, Signal::TERM);
    }
}

/// Processes that this one started and that still run.
fn children() -> Vec<Pid> {
    let mut children = Vec::new();
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return children };
    for thread in threads.flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    children
}

/// Ends the process without waiting for anybody.
fn leave() -> ! {
    let _ = writeln!(io::stderr(), "interrupted");
    end_programs();
    for path in live().drain(..) {
        let _ = fs::remove_dir_all(path);
    }
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir.join("tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn runs_that_end_and_begin_at_once_do_not_mind_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let work = Workspace::create(dir.path(), false).unwrap();
                        fs::write(work.directory("objects/fs").unwrap().join("a.o"), "object").unwrap();
                    }
                });
            }
        });
        drop(Workspace::create(dir.path(), false).unwrap());
        let left: Vec<_> = fs::read_dir(dir.path().join("tmp")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [dir.path().join("tmp").join(LOCK)]);
    }

    #[test]
    fn a_run_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(dir.path(), false).unwrap();
        let inner = workspace.directory("a/b").unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        assert_eq!(entries(dir.path()).len(), 1);
        drop(workspace);
        assert_eq!(entries(dir.path()), [""; 0]);
        assert!(live().iter().all(|path| !path.starts_with(dir.path())));
    }

    #[test]
    fn living_and_kept_directories_stay_and_dead_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let living = Workspace::create(dir.path(), false).unwrap();
        let kept = Workspace::create(dir.path(), true).unwrap();
        let kept_path = kept.path().to_owned();
        assert!(kept.is_kept());
        drop(kept);
        // As killed runs leave it: before and after they took the lock.
        for dead in ["run-dead1/sub", "run-dead2"] {
            fs::create_dir_all(dir.path().join("tmp").join(dead)).unwrap();
        }
        fs::write(dir.path().join("tmp/run-dead2/lock"), "").unwrap();
        let next = Workspace::create(dir.path(), false).unwrap();
        let mut expected: Vec<String> = [living.path(), &kept_path, next.path()]
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .into();
        expected.sort();
        assert_eq!(entries(dir.path()), expected);
    }

    #[test]
    fn what_cannot_be_removed_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        // No lock can be taken of it, as of one that vanishes at this moment.
        fs::create_dir_all(dir.path().join("tmp/run-odd/lock")).unwrap();
        let next = Workspace::create(dir.path(), false).unwrap();
        drop(next);
        assert_eq!(entries(dir.path()), ["run-odd"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Workspace::create(&file, false).unwrap_err().to_string();
        assert!(error.contains("file/tmp"), "{error}");
    }

    #[test]
    fn children_are_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let found = children().contains(&pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
