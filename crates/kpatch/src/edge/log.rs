//! The kernel's log, which wakes those who wait: sysfs sends no event at the end of a transition, but the
//! livepatch core logs a line.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};

use super::root::Root;

/// The longest record that the kernel returns, with room.
const RECORD: usize = 16 * 1024;

/// A reader of the log that begins with what is logged after it was opened.
#[derive(Debug)]
pub struct KernelLog {
    file: Option<File>,
}

impl KernelLog {
    /// Opens the log. Without access to it, waiting is by the clock alone.
    pub fn open(root: &Root) -> KernelLog {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(root.path("/dev/kmsg"), flags, Mode::empty()).ok().map(File::from);
        // SEEK_END of this device means behind the last record (Documentation/ABI/testing/dev-kmsg).
        let file = file.filter(|file| seek(file, SeekFrom::End(0)).is_ok());
        KernelLog { file }
    }

    /// Waits until something is logged, for that long at most.
    pub fn wait(&self, limit: Duration) {
        let Some(file) = &self.file else { return std::thread::sleep(limit) };
        let mut files = [PollFd::new(file, PollFlags::IN)];
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // A signal ends the wait early, which does no harm.
        let _ = poll(&mut files, Some(&limit));
    }

    /// The texts of all records since the last call, or since opening.
    pub fn news(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(file) = &mut self.file else { return lines };
        let mut record = vec![0; RECORD];
        loop {
            match file.read(&mut record) {
                Ok(0) => return lines,
                Ok(size) => lines.extend(text(&String::from_utf8_lossy(&record[..size]))),
                // Records were overwritten before they were read; the next read goes on with what is left.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return lines,
            }
        }
    }
}

/// The text of one record: `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`, then lines of properties that begin with a
/// blank.
fn text(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    text.lines().next().map(|line| line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_kernel() {
        let record = "5,1234,5678901,-;livepatch: 'x': patching complete\n SUBSYSTEM=x\n";
        assert_eq!(text(record).unwrap(), "livepatch: 'x': patching complete");
        assert_eq!(text("no record"), None);
    }

    #[test]
    fn without_a_log_the_clock_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = KernelLog::open(&Root::new(directory.path()));
        let start = std::time::Instant::now();
        log.wait(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(log.news().is_empty());
    }
}
