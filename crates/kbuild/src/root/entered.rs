//! Root file systems whose mounts stay for as long as this process runs.
//!
//! Landlock closes mounting to whoever it confines, so a confined command must find everything mounted. A shell makes
//! the mounts in a namespace of its own and waits; commands join the namespace, and the shell ends when this process
//! does, however that comes about.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_setfd};

use super::{MOUNT, ROOT_PATH};

/// A namespace with the mounts of a root file system.
struct Entered {
    namespace: File,
    /// Ends with its standard input, which is open here.
    _keeper: Child,
}

/// A root's directory and what is visible inside.
type Key = (PathBuf, Vec<PathBuf>);

static ENTERED: Mutex<BTreeMap<Key, Entered>> = Mutex::new(BTreeMap::new());

/// A command that runs the words after it inside, in the directory that is the first of them.
pub(super) fn command(dir: &Path, binds: &[PathBuf]) -> io::Result<Command> {
    let namespace = namespace(dir, binds)?;
    let mut command = Command::new("nsenter");
    // Under Landlock the namespace of another process cannot be opened by its number, hence the open file.
    command.arg(format!("--mount=/proc/self/fd/{namespace}")).args(["--", "chroot"]).arg(dir);
    command.args(["/bin/sh", "-c", r#"cd "$1" && shift && exec "$@""#, "sh"]);
    Ok(command)
}

/// The namespace, as a file that commands inherit.
fn namespace(dir: &Path, binds: &[PathBuf]) -> io::Result<RawFd> {
    let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (dir.to_owned(), binds.to_vec());
    if let Some(entered) = entered.get(&key) {
        return Ok(entered.namespace.as_raw_fd());
    }
    let new = enter(dir, binds)?;
    let namespace = new.namespace.as_raw_fd();
    entered.insert(key, new);
    Ok(namespace)
}

fn enter(dir: &Path, binds: &[PathBuf]) -> io::Result<Entered> {
    let script = format!("{MOUNT}\necho mounted\nread -r end || :");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", &script, "sh"]);
    command.arg(dir).arg(binds.len().to_string()).args(binds);
    command.env_clear().env("PATH", ROOT_PATH).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut keeper = command.spawn()?;
    let mut line = String::new();
    if let Some(output) = keeper.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line != "mounted\n" {
        let mut why = String::new();
        if let Some(mut errors) = keeper.stderr.take() {
            errors.read_to_string(&mut why)?;
        }
        keeper.wait()?;
        return Err(io::Error::other(format!("the root file system cannot be entered: {}", why.trim())));
    }
    let namespace = File::open(format!("/proc/{}/ns/mnt", keeper.id()))?;
    fcntl_setfd(&namespace, FdFlags::empty())?;
    Ok(Entered { namespace, _keeper: keeper })
}
