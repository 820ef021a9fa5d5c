//! Root file systems whose mounts stay for as long as this process runs.
//!
//! Landlock closes mounting to whoever it confines, so a confined command must find everything mounted. A shell makes
//! the mounts in a namespace of its own and waits; commands join the namespace, and the shell ends when this process
//! does, however that comes about.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_setfd};

use super::{MOUNT, ROOT_PATH};

/// Namespaces with the mounts of a root file system.
struct Entered {
    /// Words for nsenter.
    namespaces: Vec<String>,
    /// What those words name; commands inherit them.
    _files: Vec<File>,
    /// Ends with its standard input, which is open here.
    _keeper: Child,
}

/// A root's directory and what is visible inside.
type Key = (PathBuf, Vec<PathBuf>);

static ENTERED: Mutex<BTreeMap<Key, Entered>> = Mutex::new(BTreeMap::new());

/// A command that runs the words after it inside, in the directory that is the first of them.
pub(super) fn command(dir: &Path, binds: &[PathBuf]) -> io::Result<Command> {
    let mut command = Command::new(super::found("nsenter".as_ref()));
    command.args(namespaces(dir, binds)?).args(["--", "chroot"]).arg(dir);
    command.args(["/bin/sh", "-c", r#"cd "$1" && shift && exec "$@""#, "sh"]);
    Ok(command)
}

/// The words that name the namespaces to nsenter.
fn namespaces(dir: &Path, binds: &[PathBuf]) -> io::Result<Vec<String>> {
    let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (dir.to_owned(), binds.to_vec());
    if let Some(entered) = entered.get(&key) {
        return Ok(entered.namespaces.clone());
    }
    let new = enter(dir, binds)?;
    let namespaces = new.namespaces.clone();
    entered.insert(key, new);
    Ok(namespaces)
}

fn enter(dir: &Path, binds: &[PathBuf]) -> io::Result<Entered> {
    let script = format!("{MOUNT}\necho mounted\nread -r end || :");
    let mut command = Command::new("unshare");
    // Whoever is not root may mount in a namespace of users, in which he is.
    let own_users = !rustix::process::geteuid().is_root();
    if own_users {
        command.args(["--user", "--map-root-user"]);
    }
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
    let (mut namespaces, mut files) = (Vec::new(), Vec::new());
    if own_users {
        namespaces.push("--preserve-credentials".to_owned());
    }
    for (name, word) in [("user", "user"), ("mnt", "mount")] {
        if name == "user" && !own_users {
            continue;
        }
        // Under Landlock the namespace of another process cannot be opened by its number, hence the open file.
        let file = File::open(format!("/proc/{}/ns/{name}", keeper.id()))?;
        fcntl_setfd(&file, FdFlags::empty())?;
        namespaces.push(format!("--{word}=/proc/self/fd/{}", file.as_raw_fd()));
        files.push(file);
    }
    Ok(Entered { namespaces, _files: files, _keeper: keeper })
}
