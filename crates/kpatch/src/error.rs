//! What can go wrong, with what helps. `docs/kpatch.md` explains the codes.

use std::path::PathBuf;

use thiserror::Error;

use crate::model::module::ModuleError;
use crate::model::tasks::Task;

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that went wrong.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be read or written; the message names it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No such file, and no installed module of that name.
    #[error("no module {0}: neither a file nor an installed module")]
    NoSuchModule(String),
    /// A directory or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The name of the file does not end in `.ko`.
    #[error("{} does not end in .ko", .0.display())]
    NotKo(PathBuf),
    /// A path where a name is wanted.
    #[error("{0} is a path; an installed module is named without one")]
    PathGiven(String),
    /// The file cannot be used.
    #[error("{}: {reason}", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: ModuleError,
    },
    /// The kernel has no livepatch core.
    #[error("the running kernel {0} has no live patching")]
    NoLivepatch(String),
    /// The module is for another release.
    #[error("{module} is for kernel {wanted}, not for {running}")]
    Release {
        /// The module.
        module: String,
        /// Release that it is for.
        wanted: String,
        /// Release that it was to be used with.
        running: String,
    },
    /// The module is for another build of the release.
    #[error("{module} is for another build of kernel {release}")]
    BuildId {
        /// The module.
        module: String,
        /// The release of both.
        release: String,
        /// Build-id in the module.
        wanted: String,
        /// Build-id of the running kernel.
        running: String,
    },
    /// A module that would be patched is of another build.
    #[error("{module} patches {object}, but is made for another build of it than is loaded")]
    ModuleBuildId {
        /// The patch module.
        module: String,
        /// The module that would be patched.
        object: String,
        /// What it was made for.
        wanted: String,
        /// What is loaded.
        running: String,
    },
    /// The file was written to while it was looked at.
    #[error("{0} changed after it was checked; nothing was loaded")]
    FileChanged(PathBuf),
    /// The kernel demands a signature.
    #[error("{module} is not signed, and {why}")]
    Unsigned {
        /// The module.
        module: String,
        /// What demands it.
        why: String,
    },
    /// A loaded patch has all that this one has, and more.
    #[error("{loaded}, which is loaded, holds all patches of {module} and more")]
    Older {
        /// The module.
        module: String,
        /// The loaded one.
        loaded: String,
        /// Subjects of the patches that would be taken back.
        lost: Vec<String>,
    },
    /// Another module of that name is loaded.
    #[error("another {0} with other patches is loaded")]
    OtherOfThatName(String),
    /// A hook that may redirect a function, of which the kernel allows one.
    #[error("{function} is hooked by something else that redirects it")]
    Hooked {
        /// The function.
        function: String,
        /// What is known of the hook.
        hook: String,
    },
    /// Another patch is on its way.
    #[error("the transition of {0} is under way")]
    OtherTransition(String),
    /// The kernel refuses the module.
    #[error("the kernel refuses {module}: {reason}")]
    Refused {
        /// The module.
        module: String,
        /// What the error number means.
        reason: String,
        /// What the kernel said of it.
        log: Vec<String>,
    },
    /// The kernel refuses to change a patch.
    #[error("the kernel refuses to {action} {module}: {reason}")]
    Attribute {
        /// `enable` or `disable`.
        action: &'static str,
        /// The module.
        module: String,
        /// The error.
        reason: std::io::Error,
    },
    /// A transition did not end in time.
    #[error("the transition of {module} did not end within {seconds} s; {undone}")]
    Stalled {
        /// The module.
        module: String,
        /// The limit.
        seconds: u64,
        /// What was done about it.
        undone: String,
        /// The tasks that held it up.
        tasks: Vec<Task>,
        /// Why each did.
        why: Vec<String>,
    },
    /// The transition ended elsewhere, because somebody turned it round.
    #[error("{module} is {found} and not {wanted}: something else changed it meanwhile")]
    Changed {
        /// The module.
        module: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The module cannot be removed.
    #[error("{module} is disabled, but its module cannot be removed: {reason}")]
    Remove {
        /// The module.
        module: String,
        /// Why.
        reason: String,
    },
    /// No such live patch.
    #[error("{0} is not loaded")]
    NotLoaded(String),
    /// No transition that could be signalled or forced.
    #[error("no transition is under way")]
    NoTransition,
    /// The module is installed already.
    #[error("{0} is installed already")]
    AlreadyInstalled(String),
    /// No such installed module.
    #[error("{module} is not installed for kernel {release}")]
    NotInstalled {
        /// The name given.
        module: String,
        /// The release.
        release: String,
    },
    /// Only the running kernel can be patched.
    #[error("only the running system's kernel can be patched, not one below --root")]
    ForeignRoot,
    /// No release is known for a directory given with `--root`.
    #[error("no release is named")]
    NoRelease,
    /// Something was found wrong by `verify`, and has been said.
    #[error("{0}")]
    Verify(String),
    /// A program failed.
    #[error("{command} failed: {reason}")]
    Command {
        /// The program.
        command: String,
        /// How.
        reason: String,
    },
    /// Several modules were asked for and some failed, which has been said.
    #[error("{failed} of {all} modules failed")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

impl Error {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Io(_) => "io",
            Error::NoSuchModule(_) => "no-such-module",
            Error::NotAFile(_) => "not-a-file",
            Error::NotKo(_) => "not-ko",
            Error::PathGiven(_) => "path-given",
            Error::Module { .. } => "bad-module",
            Error::NoLivepatch(_) => "no-livepatch",
            Error::Release { .. } => "release",
            Error::BuildId { .. } | Error::ModuleBuildId { .. } => "build-id",
            Error::FileChanged(_) => "file-changed",
            Error::Unsigned { .. } => "unsigned",
            Error::Older { .. } => "older",
            Error::OtherOfThatName(_) => "name-taken",
            Error::Hooked { .. } => "hooked",
            Error::OtherTransition(_) => "other-transition",
            Error::Refused { .. } => "refused",
            Error::Attribute { .. } => "attribute",
            Error::Stalled { .. } => "stalled",
            Error::Changed { .. } => "changed",
            Error::Remove { .. } => "not-removed",
            Error::NotLoaded(_) => "not-loaded",
            Error::NoTransition => "no-transition",
            Error::AlreadyInstalled(_) => "already-installed",
            Error::NotInstalled { .. } => "not-installed",
            Error::ForeignRoot => "foreign-root",
            Error::NoRelease => "no-release",
            Error::Verify(_) => "verify",
            Error::Command { .. } => "command",
            Error::Some { .. } => "some-failed",
        }
    }

    /// Why, line by line.
    pub fn cause(&self) -> Vec<String> {
        match self {
            Error::BuildId { wanted, running, .. } => {
                vec![format!("build-id {wanted} in the module, {running} of the running kernel")]
            }
            Error::ModuleBuildId { object, wanted, running, .. } => {
                vec![format!("build-id {wanted} is wanted, {running} is that of the loaded {object}")]
            }
            Error::Older { lost, .. } => {
                lost.iter().map(|subject| format!("would be taken back: {subject}")).collect()
            }
            Error::Hooked { hook, .. } => vec![hook.clone()],
            Error::Refused { log, .. } => log.iter().map(|line| format!("kernel: {line}")).collect(),
            Error::Stalled { tasks, why, .. } => stalled(tasks, why),
            _ => Vec::new(),
        }
    }

    /// What helps.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Error::NoSuchModule(_) => "kpatch list shows what is installed".to_owned(),
            Error::NotAFile(_) | Error::NotKo(_) => "name the .ko file that kpatch-build wrote".to_owned(),
            Error::PathGiven(_) | Error::NotInstalled { .. } => {
                "kpatch list shows the names of installed modules".to_owned()
            }
            Error::Module { .. } => "make it again with kpatch-build, or copy it again".to_owned(),
            Error::NoLivepatch(_) => "boot a kernel with CONFIG_LIVEPATCH".to_owned(),
            Error::Release { wanted, running, .. } => {
                format!("boot {wanted}, or make the module with kpatch-build -a {running}")
            }
            Error::BuildId { release, .. } => {
                format!("make the module for the build of {release} that runs, or install and boot the other")
            }
            Error::ModuleBuildId { object, .. } => {
                format!(
                    "load the {object} that the kernel's package holds, or make the module for the other one"
                )
            }
            Error::FileChanged(_) => "try again when nobody writes to it any more".to_owned(),
            Error::Unsigned { .. } => {
                "sign it with a key that this kernel trusts: kpatch-build --sign-key, or scripts/sign-file of the \
                 kernel's headers"
                    .to_owned()
            }
            Error::Older { .. } => {
                "load the newer module; --downgrade loads this one all the same".to_owned()
            }
            Error::OtherOfThatName(name) => {
                format!("kpatch unload {name} first, or give the new module another name (kpatch-build -n)")
            }
            Error::Hooked { .. } => {
                "remove the kprobe, the error injection or the tracing program, and load again".to_owned()
            }
            Error::OtherTransition(name) => {
                format!(
                    "wait for it, or undo it with kpatch unload {name}; kpatch list shows what holds it up"
                )
            }
            Error::Stalled { .. } => {
                "end or wake those tasks and try again; --timeout gives them longer".to_owned()
            }
            Error::Remove { .. } => {
                "a patch that was forced stays in memory until the next boot; else try again later".to_owned()
            }
            Error::AlreadyInstalled(name) => format!("kpatch uninstall {name} first"),
            Error::NoRelease => "name it with -k".to_owned(),
            _ => return None,
        })
    }
}

/// Tasks that hold a transition up, with their stacks.
pub fn stalled(tasks: &[Task], why: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for (task, why) in tasks.iter().zip(why) {
        lines.push(format!("{} {}: {why}", task.tid, task.comm));
        lines.extend(task.stack.iter().map(|frame| format!("    {frame}")));
    }
    lines
}
