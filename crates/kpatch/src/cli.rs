//! From the words of a command line to an exit status.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;

use crate::args::{self, Args, Command};
use crate::command::{
    Context, diff, force, info, install, list, load, show, signal, uname, uninstall, unload, verify,
};
use crate::edge::root::Root;
use crate::edge::system::Running;
use crate::error::{Error, Result};

/// Runs a command line, program name first. The exit status is 0 for success, else 1.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            // Help is no failure. All else has the one exit status of failures, as the predecessor has.
            let status = u8::from(error.use_stderr());
            return if error.print().is_ok() { status } else { 1 };
        }
    };
    if let Some(what) = args.generate {
        let made = manual::generate(what, args::definition(), args::SECTION, &mut std::io::stdout().lock());
        return u8::from(made.is_err());
    }
    let root = Root::new(&args.root);
    let mut system = Running::new(root.clone());
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut cx = Context { root, system: &mut system, json: args.json, out: &mut out, err: &mut err };
    let command = if args.version { Some(Command::Version) } else { args.command };
    let Some(command) = command else {
        let _ = args::definition().write_help(&mut err);
        return 1;
    };
    match dispatch(&mut cx, command) {
        Ok(()) => 0,
        // A reader that wants no more is none of our failures.
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            cx.tell(&error);
            1
        }
    }
}

/// Calls the command.
fn dispatch(cx: &mut Context<'_>, command: Command) -> Result<()> {
    // Files below another root are not those of the kernel that would be changed.
    let changes = matches!(
        command,
        Command::Load { .. }
            | Command::Unload { .. }
            | Command::Signal
            | Command::Force
            | Command::Verify { .. }
    );
    if changes && !cx.root.is_running_system() {
        return Err(Error::ForeignRoot);
    }
    let seconds = Duration::from_secs;
    match command {
        Command::Load { all: true, timeout, downgrade, .. } => {
            load::all(cx, load::Options { limit: seconds(timeout), downgrade })
        }
        Command::Load { module, timeout, downgrade, .. } => {
            let options = load::Options { limit: seconds(timeout), downgrade };
            load::one(cx, &module.unwrap_or_default(), options)
        }
        Command::Unload { all: true, timeout, .. } => unload::all(cx, seconds(timeout)),
        Command::Unload { module, timeout, .. } => {
            unload::one(cx, &module.unwrap_or_default(), seconds(timeout))
        }
        Command::Install { module, kernel_version } => install::run(cx, &module, kernel_version.as_deref()),
        Command::Uninstall { module, kernel_version } => {
            uninstall::run(cx, &module, kernel_version.as_deref())
        }
        Command::List => list::run(cx),
        Command::Info { module } => info::run(cx, &module),
        Command::Diff { old, new } => diff::run(cx, &old, &new),
        Command::Show { available: true, modules } => show::available(cx, &modules),
        Command::Show { .. } => show::in_force(cx),
        Command::Uname => uname::run(cx),
        Command::Verify { module } => verify::run(cx, module.as_deref()),
        Command::Signal => signal::run(cx),
        Command::Force => force::run(cx),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            cx.print(&version, &format!("{version}\n"))
        }
    }
}
