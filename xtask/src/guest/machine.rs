//! One boot under QEMU.

use super::{Kernel, Options, report};
use crate::error::{Error, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel's command line. Its own watchdogs would measure how busy the host is; a guest that hangs is noticed
/// from outside.
const APPEND: &str = "console=ttyS0 loglevel=7 printk.devkmsg=on oops=panic nosoftlockup \
                      rcupdate.rcu_cpu_stall_suppress=1";

/// What a machine boots from, besides the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Media<'a> {
    /// An initramfs that is all there is. The machine ends with the first reset.
    Initramfs(&'a [u8]),
    /// Disks, the first with a root file system, and the initramfs of its distribution. The machine may boot several
    /// times.
    Disks {
        /// Images of file systems.
        images: &'a [&'a Path],
        /// The initramfs.
        initrd: &'a Path,
    },
}

/// What a boot left behind.
#[derive(Debug)]
pub(super) struct Boot {
    /// The kernel's log.
    pub(super) console: String,
    /// The facts of `init.sh`.
    pub(super) report: String,
    /// How it ended.
    pub(super) end: End,
}

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// All cases were run.
    Done,
    /// The guest asked for a new boot for the remaining cases.
    Restart,
    /// The kernel panicked; its message.
    Panic(String),
    /// The machine was reset or switched off without anyone having asked for it.
    Reset,
    /// Nothing happened any more.
    Hang,
}

impl End {
    /// The end in words.
    pub(crate) fn describe(&self, options: &Options) -> String {
        match self {
            Self::Done => "the guest is done".to_owned(),
            Self::Restart => "the guest asked for a new boot".to_owned(),
            Self::Panic(message) => format!("the kernel panicked: {message}"),
            Self::Reset => "the machine was reset without a word, as after a triple fault".to_owned(),
            Self::Hang => format!("the guest hangs: no sign of life for {} s", idle_limit(options).as_secs()),
        }
    }
}

/// Longest silence of a healthy guest: the longest wait that `init.sh` may make, with room for a busy host.
fn idle_limit(options: &Options) -> Duration {
    options.test_limit.max(options.transition_limit) + options.slack
}

/// Boots the kernel, with `directory` for files, and waits for the end.
pub(super) fn boot(kernel: &Kernel, media: Media<'_>, directory: &Path, options: &Options) -> Result<Boot> {
    let console = directory.join("console.log");
    let facts = directory.join("report.log");
    let stderr = directory.join("qemu.log");
    let mut append = format!("{APPEND} {}", options.append);

    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", if options.one_thread { "tcg,thread=single" } else { "tcg" }])
        .args(["-cpu", &options.processor])
        .args(["-m", &options.memory.to_string(), "-smp", &options.processors.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"])
        .args([
            "-serial",
            &format!("file:{}", console.display()),
            "-serial",
            &format!("file:{}", facts.display()),
        ])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs_err::File::create(&stderr)?.into_parts().0);
    match media {
        Media::Initramfs(bytes) => {
            let initrd = directory.join("initramfs");
            fs_err::write(&initrd, bytes)?;
            // An oops stops the machine: what a kernel does after one tells nothing.
            append += " panic=-1";
            command.arg("-no-reboot").arg("-initrd").arg(initrd);
        }
        Media::Disks { images, initrd } => {
            // The same: a machine that may be reset would begin anew.
            append += " panic=0 root=/dev/vda rw";
            command.arg("-initrd").arg(initrd);
            for image in images {
                let drive = format!("file={},format=raw,if=virtio,cache=unsafe", image.display());
                command.args(["-drive", &drive]);
            }
        }
    }
    command.args(["-append", &append]);
    let child = command.spawn().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Error::Missing {
                what: "qemu-system-x86_64".to_owned(),
                remedy: "install the package qemu-system-x86".to_owned(),
            }
        } else {
            Error::Qemu(error.to_string())
        }
    })?;
    let mut machine = Machine(child);
    let hangs = machine.wait(&[&console, &facts], idle_limit(options))?.is_none();
    let status = machine.stop()?;

    let read = |path: &Path| fs_err::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (console, report) = (read(&console).unwrap_or_default(), read(&facts).unwrap_or_default());
    let facts = report::parse(&report);
    let end = if facts.done {
        End::Done
    } else if facts.restart {
        End::Restart
    } else if let Some(message) = panic_message(&console) {
        End::Panic(message)
    } else if hangs {
        End::Hang
    } else if !status.success() || console.is_empty() {
        return Err(Error::Qemu(format!("{status}: {}", read(&stderr).unwrap_or_default().trim())));
    } else {
        End::Reset
    };
    if let Some(release) = &facts.release
        && *release != kernel.release
    {
        return Err(Error::Qemu(format!(
            "{} is kernel {release}, not {}",
            kernel.vmlinuz.display(),
            kernel.release
        )));
    }
    Ok(Boot { console, report, end })
}

/// The reason of a panic; the oops that led to it says more than the panic's own line.
fn panic_message(console: &str) -> Option<String> {
    let panic = console.lines().find(|line| line.contains("Kernel panic - not syncing"))?;
    let cause = console.lines().find(|line| {
        ["BUG:", "kernel BUG at", "Oops:", "general protection fault", "int3:", "invalid opcode:"]
            .iter()
            .any(|sign| line.contains(sign))
    });
    Some(cause.unwrap_or(panic).trim().to_owned())
}

/// A running QEMU; killed when dropped, so that no error leaves one behind.
struct Machine(Child);

impl Machine {
    /// Waits for QEMU to end; none when the files stop growing for longer than the limit.
    fn wait(&mut self, files: &[&Path], limit: Duration) -> Result<Option<std::process::ExitStatus>> {
        let mut last_size = 0;
        let mut last_change = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            let size: u64 =
                files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|data| data.len()).sum();
            if size != last_size {
                last_size = size;
                last_change = Instant::now();
            } else if last_change.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) -> Result<std::process::ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        self.0.kill()?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the process may be gone already.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_cause() {
        let log = "x\n[ 1] BUG: kernel NULL pointer dereference\n[ 1] Kernel panic - not syncing: Fatal exception\n";
        assert_eq!(panic_message(log).unwrap(), "[ 1] BUG: kernel NULL pointer dereference");
        let log = "[ 1] Kernel panic - not syncing: No working init found.\n";
        assert!(panic_message(log).unwrap().contains("No working init"));
        assert_eq!(panic_message("[ 1] BUG: a warning only\n"), None);
    }
}
