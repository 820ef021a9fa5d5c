//! Commands that can write only below certain directories, by the kernel's Landlock (since 5.13).
//!
//! Makefiles and compilers run code and follow paths of a source tree that may be anybody's. What they have to write
//! is known; everything else is closed to them, whoever runs them. They may read what they like.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use landlock::{ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus};

/// The newest version of Landlock whose rules are used; older kernels enforce what they know.
const VERSION: ABI = ABI::V5;

/// Devices that shell scripts write to.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/tty"];

/// True if this kernel can confine commands.
pub fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    // Tried out in a thread that ends with its restrictions.
    let is_enforced = || restrict(&[]).is_ok_and(|status| status != RulesetStatus::NotEnforced);
    *POSSIBLE.get_or_init(|| std::thread::spawn(is_enforced).join().unwrap_or(false))
}

/// Starts a command that can write below these directories only. On a kernel without Landlock it is not confined.
pub(crate) fn spawn(command: &mut Command, writable: &[PathBuf]) -> io::Result<Child> {
    // A thread's restrictions hold for what it starts, and end with it.
    std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            restrict(writable)?;
            command.spawn()
        });
        confined
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that confines a command has ended")))
    })
}

/// Restricts this thread for good.
fn restrict(writable: &[PathBuf]) -> io::Result<RulesetStatus> {
    let write = AccessFs::from_write(VERSION);
    let rules = Ruleset::default().handle_access(write).and_then(Ruleset::create);
    let mut rules = rules.map_err(io::Error::other)?;
    for directory in writable {
        let opened = PathFd::new(directory).map_err(io::Error::other)?;
        rules = rules.add_rule(PathBeneath::new(opened, write)).map_err(io::Error::other)?;
    }
    for device in DEVICES.map(Path::new) {
        if let Ok(opened) = PathFd::new(device) {
            let write = write & AccessFs::from_file(VERSION);
            rules = rules.add_rule(PathBeneath::new(opened, write)).map_err(io::Error::other)?;
        }
    }
    Ok(rules.restrict_self().map_err(io::Error::other)?.ruleset)
}
