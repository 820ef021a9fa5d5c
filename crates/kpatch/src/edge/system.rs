//! What kpatch asks of the kernel, as a trait: tests have a kernel of their own.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use super::log::KernelLog;
use super::root::Root;

/// `O_NONBLOCK`, without which `delete_module` waits for users of the module.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// The kernel.
pub trait System {
    /// Loads a module.
    fn insert(&mut self, file: &File) -> io::Result<()>;
    /// Removes a module that has no users.
    fn remove(&mut self, module: &str) -> io::Result<()>;
    /// Writes an attribute of a live patch, `enabled`, `force` or `signal`.
    fn set(&mut self, patch: &str, attribute: &str, value: &str) -> io::Result<()>;
    /// Waits for news of the kernel, for that long at most.
    fn wait(&mut self, limit: Duration);
    /// What the kernel logged since the last call.
    fn log(&mut self) -> Vec<String>;
    /// Time since some moment.
    fn elapsed(&self) -> Duration;
    /// Seconds since 1970.
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }
}

/// The kernel that runs.
#[derive(Debug)]
pub struct Running {
    root: Root,
    log: KernelLog,
    start: Instant,
}

impl Running {
    /// The kernel whose sysfs is below that root.
    pub fn new(root: Root) -> Running {
        Running { log: KernelLog::open(&root), root, start: Instant::now() }
    }
}

impl System for Running {
    fn insert(&mut self, file: &File) -> io::Result<()> {
        Ok(rustix::system::finit_module(file, c"", 0)?)
    }

    fn remove(&mut self, module: &str) -> io::Result<()> {
        let name = CString::new(module)?;
        Ok(rustix::system::delete_module(&name, NONBLOCK)?)
    }

    fn set(&mut self, patch: &str, attribute: &str, value: &str) -> io::Result<()> {
        let path = self.root.path(format!("/sys/kernel/livepatch/{patch}/{attribute}"));
        // Not with fs_err: its text would hide the error number's meaning from the caller.
        std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
    }

    fn wait(&mut self, limit: Duration) {
        self.log.wait(limit);
        // What woke us must not wake us again; errors are told by those who ask for the log right after.
        if !limit.is_zero() {
            self.log.news();
        }
    }

    fn log(&mut self) -> Vec<String> {
        self.log.news()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
