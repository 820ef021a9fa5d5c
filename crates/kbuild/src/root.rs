//! Where commands run: on the host, or inside a root file system that has the kernel's own compiler.
//!
//! Paths are the same on both sides: directories of the host that a command needs are bind-mounted at their own
//! path inside the root, in a mount namespace that ends with the command, so nothing is left mounted whatever
//! happens. Every command is the leader of a process group, so that [`interrupt`] ends it with all it started.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use crate::confine;

mod entered;

/// A command that could not be run, or failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ran and reported failure.
    #[error("{program} failed ({status}){}", tail(output))]
    Failed {
        /// Its name.
        program: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// Everything it wrote, standard output first.
        output: String,
    },
    /// [`interrupt`] was called.
    #[error("interrupted")]
    Interrupted,
}

/// The last lines of a program's output, for a message.
fn tail(output: &str) -> String {
    const LINES: usize = 12;
    // With `-k`, make says this of each of thousands of goals, behind what the error is.
    let says_why = |line: &&str| !line.trim().is_empty() && !line.ends_with("not remade because of errors.");
    let lines: Vec<&str> = output.lines().filter(says_why).collect();
    let skipped = lines.len().saturating_sub(LINES);
    let mut text = String::new();
    for line in &lines[skipped..] {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

/// What a command wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Both streams as text, standard output first.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&self.stderr));
        text
    }
}

/// The place where commands run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// This machine as it is.
    #[default]
    Host,
    /// A root file system in a directory.
    Dir {
        /// Its path.
        dir: PathBuf,
        /// Directories of the host that are visible inside, at the same path.
        binds: Vec<PathBuf>,
    },
}

/// Variables of the caller that a command may see; all others stay out, so that two users get one result.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR"];

/// Prefixes of variables that steer compiler launchers.
const KEPT_PREFIXES: [&str; 3] = ["CCACHE_", "DISTCC_", "SCCACHE_"];

/// Program path inside a root file system.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts what is visible inside: ROOT COUNT BIND...
const MOUNT: &str = r#"set -e
root=$1 count=$2; shift 2
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$count" -gt 0 ]; do
    mount --bind "$1" "$root$1"
    count=$((count - 1)); shift
done"#;

/// Becomes the command, after that: DIRECTORY PROGRAM ARGUMENT...
const BECOME: &str = r#"exec chroot "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$@""#;

impl Root {
    /// A root file system in `dir`, with the given directories of the host visible inside.
    pub fn in_dir(dir: impl Into<PathBuf>, binds: impl IntoIterator<Item = PathBuf>) -> Root {
        Root::Dir { dir: dir.into(), binds: binds.into_iter().collect() }
    }

    /// True for the host itself.
    pub fn is_host(&self) -> bool {
        matches!(self, Root::Host)
    }

    /// Makes another directory or file of the host visible inside; nothing to do on the host.
    pub fn bind(&mut self, path: impl Into<PathBuf>) {
        if let Root::Dir { binds, .. } = self {
            let path = path.into();
            if !binds.iter().any(|bound| path.starts_with(bound)) {
                binds.push(path);
            }
        }
    }

    /// Where the host finds a file that a command here names by its absolute path.
    pub fn on_host(&self, path: &Path) -> PathBuf {
        match self {
            Root::Dir { dir, binds } if !binds.iter().any(|bound| path.starts_with(bound)) => {
                dir.join(path.strip_prefix("/").unwrap_or(path))
            }
            _ => path.to_owned(),
        }
    }

    /// A command to be run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Task<'_> {
        Task {
            root: self,
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            writable: Vec::new(),
        }
    }

    fn prepare(&self, task: &Task<'_>) -> Result<Command, RunError> {
        let mut command = match self {
            Root::Host => {
                let mut command = Command::new(found(&task.program));
                command.arg0(&task.program).args(&task.args);
                if let Some(directory) = &task.directory {
                    command.current_dir(directory);
                }
                command
            }
            Root::Dir { dir, binds } => {
                // The mount points are made here, where an error still has a path.
                for bind in binds {
                    let inside = dir.join(bind.strip_prefix("/").unwrap_or(bind));
                    mount_point(bind, &inside).map_err(|source| RunError::Start {
                        program: format!("{} in {}", task.program.to_string_lossy(), inside.display()),
                        source,
                    })?;
                }
                let mut command = if task.is_confined() {
                    entered::command(dir, binds)
                        .map_err(|source| RunError::Start { program: task.program(), source })?
                } else {
                    let mut command = Command::new(found("unshare".as_ref()));
                    if !rustix::process::geteuid().is_root() {
                        command.args(["--user", "--map-root-user"]);
                    }
                    let script = format!("{MOUNT}\n{BECOME}");
                    command.args([
                        "--mount",
                        "--propagation",
                        "private",
                        "--",
                        "/bin/sh",
                        "-c",
                        &script,
                        "sh",
                    ]);
                    command.arg(dir).arg(binds.len().to_string()).args(binds);
                    command
                };
                command.arg(task.directory.as_deref().unwrap_or(Path::new("/")));
                command.arg(&task.program).args(&task.args);
                command
            }
        };
        command.env_clear();
        for (name, value) in std::env::vars_os() {
            let kept = name.to_str().is_some_and(|name| {
                KEPT_VARIABLES.contains(&name) || KEPT_PREFIXES.iter().any(|p| name.starts_with(p))
            });
            if kept {
                command.env(name, value);
            }
        }
        if !self.is_host() {
            // unshare and mount are found here as well as inside.
            command.env("PATH", ROOT_PATH).env("HOME", "/root").env_remove("TMPDIR");
        }
        if let Some(directory) = task.writable.first() {
            command.env("TMPDIR", directory);
        }
        command.env("LC_ALL", "C").envs(task.env.iter().map(|(name, value)| (name, value)));
        command.process_group(0);
        Ok(command)
    }
}

/// A command to be run in a [`Root`].
#[derive(Debug)]
pub struct Task<'r> {
    root: &'r Root,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    writable: Vec<PathBuf>,
}

impl Task<'_> {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The directory it starts in; it must be visible in the root.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Lets it write below these directories, which exist, and nowhere else; its temporary files go to the first. A
    /// task that this was never said of may write what its user may.
    #[must_use]
    pub fn confined_to(mut self, writable: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.writable.extend(writable.into_iter().map(Into::into));
        self
    }

    fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    fn is_confined(&self) -> bool {
        !self.writable.is_empty() && (self.root.is_host() || confine::is_possible())
    }

    /// Runs it and returns what it wrote, whatever its exit status.
    pub fn output(&self) -> Result<Output, RunError> {
        let program = || self.program();
        let mut command = self.root.prepare(self)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let writable: &[PathBuf] = if self.is_confined() { &self.writable } else { &[] };
        let child = Group::spawn(&mut command, writable).map_err(|error| match error {
            SpawnError::Interrupted => RunError::Interrupted,
            SpawnError::Io(source) => RunError::Start { program: program(), source },
        })?;
        child.wait(program)
    }

    /// Runs it; an exit status other than 0 is an error with everything it wrote.
    pub fn run(&self) -> Result<Output, RunError> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output);
        }
        Err(RunError::Failed { program: self.program(), status: output.status, output: output.text() })
    }
}

/// Process groups that run now, and whether new ones may start.
#[derive(Debug, Default)]
struct Running {
    groups: BTreeSet<i32>,
    interrupted: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: BTreeSet::new(), interrupted: false });

fn running() -> std::sync::MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every command that runs, with all the processes it started, and lets no new one start. For a signal
/// handler's thread.
pub fn interrupt() {
    let mut running = running();
    running.interrupted = true;
    for &group in &running.groups {
        if let Some(pid) = rustix::process::Pid::from_raw(group) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// True once [`interrupt`] was called.
pub fn interrupted() -> bool {
    running().interrupted
}

enum SpawnError {
    Interrupted,
    Io(io::Error),
}

/// A child that leads a process group, known to [`interrupt`] while it runs.
struct Group {
    child: std::process::Child,
    id: i32,
}

impl Group {
    fn spawn(command: &mut Command, writable: &[PathBuf]) -> Result<Group, SpawnError> {
        // The lock is held over the start, so that no child slips past an interrupt.
        let mut running = running();
        if running.interrupted {
            return Err(SpawnError::Interrupted);
        }
        let child = match writable {
            [] => command.spawn(),
            _ => confine::spawn(command, writable),
        };
        let child = child.map_err(SpawnError::Io)?;
        let id = child.id().cast_signed();
        running.groups.insert(id);
        Ok(Group { child, id })
    }

    fn wait(self, program: impl Fn() -> String) -> Result<Output, RunError> {
        let output = self.child.wait_with_output();
        let mut running = running();
        running.groups.remove(&self.id);
        if running.interrupted {
            return Err(RunError::Interrupted);
        }
        match output {
            Ok(output) => Ok(Output { status: output.status, stdout: output.stdout, stderr: output.stderr }),
            Err(source) => Err(RunError::Start { program: program(), source }),
        }
    }
}

/// The file that a program's name means here. Where it is searched for in an environment that was set, as for all
/// tasks, the standard library forks to do so, and a fork of a process with hundreds of megabytes takes longer than
/// some compilers.
fn found(program: &OsStr) -> PathBuf {
    let name = Path::new(program);
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let search = std::env::var_os("PATH").filter(|_| name.components().count() == 1);
    let mut candidates = search.iter().flat_map(std::env::split_paths).map(|directory| directory.join(name));
    candidates.find(|path| path.is_absolute() && is_program(path)).unwrap_or_else(|| name.to_owned())
}

/// Makes the place inside a root that something of the host is mounted on: a file on a file, else a directory.
fn mount_point(bind: &Path, inside: &Path) -> std::io::Result<()> {
    if !bind.is_file() {
        return std::fs::create_dir_all(inside);
    }
    if let Some(directory) = inside.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Not removed where something is in it: then it is a directory of the root's own, and the mount says so.
    let _ = std::fs::remove_dir(inside);
    match std::fs::OpenOptions::new().write(true).create_new(true).open(inside) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_what_make_says_first() {
        let goals: String = (0..20).fold(String::new(), |text, n| {
            text + &format!("make: Target 'fs/{n}.o' not remade because of errors.\n")
        });
        let text = tail(&format!("one\n\nmake: /bin/sh: Argument list too long\n{goals}"));
        assert_eq!(text, "\n  one\n  make: /bin/sh: Argument list too long");
    }

    #[test]
    fn files_are_mounted_on_files() {
        let directory = tempfile::tempdir().unwrap();
        let (file, inside) = (directory.path().join("key"), directory.path().join("root/a/key"));
        std::fs::write(&file, "x").unwrap();
        // What an earlier version made of it.
        std::fs::create_dir_all(&inside).unwrap();
        for _ in 0..2 {
            mount_point(&file, &inside).unwrap();
            assert!(inside.is_file());
        }
        mount_point(directory.path(), &directory.path().join("root/b")).unwrap();
        assert!(directory.path().join("root/b").is_dir());
    }

    #[test]
    fn output_and_status_come_back() {
        let output =
            Root::Host.command("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        let error = Root::Host.command("sh").args(["-c", "echo why >&2; exit 1"]).run().unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn files_of_a_root_are_found_below_it_and_bound_ones_where_they_are() {
        let path = Path::new("/usr/lib/gcc/10/include/stdarg.h");
        assert_eq!(Root::Host.on_host(path), path);
        let root = Root::in_dir("/r", [PathBuf::from("/cache")]);
        assert_eq!(root.on_host(path), Path::new("/r/usr/lib/gcc/10/include/stdarg.h"));
        assert_eq!(root.on_host(Path::new("/cache/source/a.c")), Path::new("/cache/source/a.c"));
        assert_eq!(root.on_host(Path::new("/cache2/a.c")), Path::new("/r/cache2/a.c"));
    }

    #[test]
    fn a_confined_command_writes_only_where_it_may() {
        assert!(confine::is_possible(), "this test needs a kernel with Landlock");
        let directory = tempfile::tempdir().unwrap();
        let (own, other) = (directory.path().join("own"), directory.path().join("other"));
        for path in [&own, &other] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("old"), "old").unwrap();
        }
        // Each way to change something, in one's own directory and beside it.
        for change in [
            "echo new > old",
            ": > old",
            "echo new >> old",
            "echo new > new",
            "rm old",
            "mv old older",
            "ln old link",
            "ln -s old link",
            "mkdir new",
            "mkfifo new",
            "sh -c 'echo new > new'",
            "make -f - <<< 'x:=$(shell echo new > new)\nall:;@test -e new'",
        ] {
            let run = |place: &Path| {
                let script = format!("cd {} && {change}", place.display());
                let task = Root::Host.command("bash").args(["-c", &script]).confined_to([&own]);
                task.output().unwrap().status.success()
            };
            assert!(run(&own), "{change}");
            assert!(!run(&other), "{change}");
            let names: Vec<_> = std::fs::read_dir(&other).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["old"], "{change}");
            assert_eq!(std::fs::read_to_string(other.join("old")).unwrap(), "old", "{change}");
            for entry in std::fs::read_dir(&own).unwrap() {
                crate::store::remove(&entry.unwrap().path()).unwrap();
            }
            std::fs::write(own.join("old"), "old").unwrap();
        }
        // Reading is free, temporary files have a place, and devices take what nobody wants.
        let script = format!("cat {}/old && mktemp && echo x > /dev/null", other.display());
        let task = Root::Host.command("sh").args(["-c", &script]).confined_to([&own]);
        let text = task.run().unwrap().text();
        assert!(text.contains(&own.display().to_string()), "{text}");
        // Whoever is not confined is not.
        assert!(Root::Host.command("sh").args(["-c", "echo x > new"]).directory(&other).run().is_ok());
    }

    #[test]
    fn a_confined_command_in_a_root_writes_only_where_it_may() {
        writes_in_a_root_only_where_it_may();
    }

    /// The same by somebody who is not root: this test, run by another user.
    #[test]
    fn a_confined_command_of_anybody_in_a_root_writes_only_where_it_may() {
        const USER: &str = "65534";
        if !rustix::process::geteuid().is_root() {
            return writes_in_a_root_only_where_it_may();
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), USER.parse().ok(), USER.parse().ok()).unwrap();
        // Where it was built, others may not look.
        let copy = directory.path().join("test");
        // Copied by another process: what this one has open for writing, a command started meanwhile inherits.
        let exe = std::env::current_exe().unwrap();
        assert!(std::process::Command::new("cp").arg(exe).arg(&copy).status().unwrap().success());
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(copy);
        command.args([
            "--exact",
            "root::tests::a_confined_command_of_anybody_in_a_root_writes_only_where_it_may",
        ]);
        let output = command.env("TMPDIR", directory.path()).current_dir("/").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    fn writes_in_a_root_only_where_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let [root, own, other] = ["root", "own", "other"].map(|name| directory.path().join(name));
        for path in [root.join("bin"), root.join("proc"), root.join("dev"), own.clone(), other.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        let busybox = std::process::Command::new("which").arg("busybox").output().unwrap().stdout;
        std::fs::copy(String::from_utf8(busybox).unwrap().trim(), root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        let inside = Root::in_dir(&root, [own.clone(), other.clone()]);
        let run = |script: &str| {
            let task = inside.command("sh").args(["-c", script]).directory(&own).confined_to([&own]);
            task.output().unwrap()
        };
        let output = run("echo x > new && cat new && echo x > /dev/null && pwd");
        assert_eq!(output.text(), format!("x\n{}\n", own.display()));
        for place in [&other, Path::new("/"), Path::new("/bin"), Path::new("/proc/sys/kernel")] {
            assert!(!run(&format!("echo x > {}/new", place.display())).status.success(), "{place:?}");
        }
        let mount = format!("busybox mount -o bind {} {}", own.display(), other.display());
        assert!(!run(&mount).status.success());
        assert!(std::fs::read_dir(&other).unwrap().next().is_none());
        let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
        assert_eq!((names(&own), names(&root.join("bin"))), (1, 2));
        // Nothing is mounted where others see it; whoever is not confined is not.
        assert!(!root.join(own.strip_prefix("/").unwrap()).join("new").exists());
        let script = format!("echo x > {}/new", other.display());
        assert!(inside.command("sh").args(["-c", &script]).output().unwrap().status.success());
        // One command after the other joins the same mounts.
        assert!(run("test -e new").status.success());
        let broken = Root::in_dir(directory.path().join("none"), []);
        let error = broken.command("sh").confined_to([&own]).output().unwrap_err().to_string();
        assert!(error.contains("cannot be entered"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Root::Host.command("no-such-program-here").run().unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn the_environment_is_clean() {
        let output = Root::Host.command("env").env("KEPT", "1").output().unwrap();
        let text = output.text();
        assert!(text.contains("KEPT=1\n") && text.contains("LC_ALL=C\n"), "{text}");
        // Set by cargo for every test.
        assert!(!text.contains("CARGO_MANIFEST_DIR"), "{text}");
    }
}
