//! What can go wrong in a chore.

use std::path::PathBuf;

/// An error of a chore, said so that the developer knows what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be read or written; the message names it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A program failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status or what kept it from starting.
        reason: String,
    },
    /// Something the chore needs is not on this machine and could not be installed.
    #[error("missing: {what}; {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What the developer can do.
        remedy: String,
    },
    /// The image of a kernel lacks a file.
    #[error("no {what} of kernel {release} below {}", root.display())]
    NotInImage {
        /// What was looked for.
        what: String,
        /// The kernel.
        release: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// The modules of an image cannot be used.
    #[error("kernel module {name}: {reason}")]
    KernelModule {
        /// The module or its file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A patch series or one of its descriptions is wrong.
    #[error("{}: {reason}", path.display())]
    Series {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// QEMU itself failed, before or apart from the guest.
    #[error("QEMU failed: {0}")]
    Qemu(String),
    /// The kernel's packages are not offered, or not all.
    #[error("kernel packages: {message}")]
    Gone {
        /// What is missing, and where it was looked for.
        message: String,
        /// Complete releases of the same series and flavour.
        offered: Vec<String>,
    },
    /// The kernel's packages could not be had.
    #[error("kernel packages: {0}")]
    Artifacts(String),
    /// The disk is too full.
    #[error(
        "{} needs {needed} MB more, and its disk has {free} MB free; free some, or set CACHEDIR to a directory of another disk",
        directory.display()
    )]
    Room {
        /// What will grow.
        directory: PathBuf,
        /// Room on its disk, in MB.
        free: u64,
        /// What the tests will put there.
        needed: u64,
    },
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The chore ran, and what it checked is not as it should be. Everything has been said already.
    #[error("{0}")]
    Failed(String),
}

/// Result of a chore.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
