//! What can go wrong between a release's name and its files.

use std::path::PathBuf;

use kbuild::store::StoreError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant names what was looked for; [`Error::remedy`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A program that is needed could not be started.
    #[error("cannot run {tool}, which is needed to {purpose}")]
    MissingTool {
        /// Name of the program.
        tool: String,
        /// What it is needed for.
        purpose: String,
        /// The package that has it.
        package: String,
        /// Why it could not be started.
        #[source]
        source: std::io::Error,
    },
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// A program reported failure.
    #[error("{purpose} failed: {command}: {status}{}", indented(output))]
    Command {
        /// What it was run for.
        purpose: String,
        /// The command line.
        command: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// No mirror is configured that could offer the suite.
    #[error(
        "no mirror known for suite {suite}: none of the package sources in {looked_in} is a Debian archive"
    )]
    NoMirror {
        /// The suite.
        suite: String,
        /// Files that were read.
        looked_in: String,
    },
    /// A suite's name cannot be one.
    #[error("`{suite}` is no name of a suite")]
    BadSuite {
        /// What was given.
        suite: String,
    },
    /// The index of a suite could not be fetched and none is in the cache.
    #[error("the package index of suite {suite} cannot be fetched from {mirror}{}", indented(output))]
    NoIndex {
        /// The suite.
        suite: String,
        /// The mirror asked.
        mirror: String,
        /// What apt said.
        output: String,
    },
    /// No suite offers the release.
    #[error("kernel release {release} is not offered by {}{}", list("suite", suites), offered_text(offered))]
    ReleaseNotFound {
        /// The release asked for.
        release: String,
        /// The suites searched.
        suites: Vec<String>,
        /// Complete releases of the same series and flavour.
        offered: Vec<String>,
    },
    /// The release is offered, but not everything that belongs to it.
    #[error("kernel release {release} ({version}) is offered by {} without {}{}", list("suite", suites), missing.join(", "), offered_text(offered))]
    Incomplete {
        /// The release asked for.
        release: String,
        /// The package version looked at.
        version: String,
        /// The suites searched.
        suites: Vec<String>,
        /// Packages that are missing.
        missing: Vec<String>,
        /// Complete releases of the same series and flavour.
        offered: Vec<String>,
    },
    /// No release of the series is offered completely.
    #[error(
        "no complete kernel of series {series} and flavour {flavour} is offered by {}{}",
        list("suite", suites),
        offered_text(offered)
    )]
    SeriesNotFound {
        /// The series asked for.
        series: String,
        /// The flavour asked for.
        flavour: String,
        /// The suites searched.
        suites: Vec<String>,
        /// Complete releases of any series in that flavour.
        offered: Vec<String>,
    },
    /// Something would have to be fetched, which was forbidden.
    #[error("{what} is not in the cache and fetching is turned off")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// A package cannot be fetched.
    #[error("{file} cannot be fetched from suite {suite}{}", indented(output))]
    NotFetched {
        /// File name of the package.
        file: String,
        /// The suite.
        suite: String,
        /// What apt said.
        output: String,
    },
    /// A package was fetched but is not what the index says, twice.
    #[error("{file} from suite {suite} is not what the index says: {reason}")]
    BadPackage {
        /// File name of the package.
        file: String,
        /// Where it came from.
        suite: String,
        /// The difference.
        reason: String,
    },
    /// A package lacks a file that packages of its kind have.
    #[error("package {package} holds no {file}")]
    MissingFile {
        /// Package file name.
        package: String,
        /// What was looked for.
        file: String,
    },
    /// A file of the cache cannot be used.
    #[error("{} in the cache cannot be used: {reason}", path.display())]
    DamagedCache {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kernel has no module of that name.
    #[error("kernel release {release} has no module {module}")]
    NoModule {
        /// The release.
        release: String,
        /// Name of the module.
        module: String,
    },
    /// The release is no release name.
    #[error("`{release}` is no kernel release")]
    BadRelease {
        /// What was given.
        release: String,
    },
    /// The configuration does not name its compiler.
    #[error("{} does not name the kernel's compiler (CONFIG_CC_VERSION_TEXT)", config.display())]
    NoCompilerText {
        /// The configuration.
        config: PathBuf,
    },
    /// The kernel's compiler was found neither on the host nor in a build root.
    #[error("the kernel was built with `{wanted}`, but {found}")]
    CompilerNotFound {
        /// CONFIG_CC_VERSION_TEXT.
        wanted: String,
        /// What there is instead.
        found: String,
    },
    /// A build root cannot be made or used.
    #[error("build root {}: {reason}", path.display())]
    BuildRoot {
        /// Where it is or would be.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The cache directory cannot be made or used.
    #[error("{} cannot serve as cache directory: {reason}", path.display())]
    NoCache {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file given by the user cannot serve.
    #[error("{}: {reason}", path.display())]
    BadInput {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { action, path, source } => {
                Error::DamagedCache { path, reason: format!("cannot {action} it: {source}") }
            }
            StoreError::Interrupted => Error::Interrupted,
        }
    }
}

impl Error {
    /// What the user can do.
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Error::MissingTool { package, .. } => format!("install it: apt install {package}"),
            Error::NoMirror { .. } => "name a mirror in kpatch-build.toml (`mirror = \"http://…/debian\"`)".into(),
            Error::BadSuite { .. } => "name a suite as in bookworm-backports".into(),
            Error::NoIndex { .. } => "check the network, the mirror and the suite's name".into(),
            Error::ReleaseNotFound { .. } | Error::SeriesNotFound { .. } => {
                "name a release with -a, add its suite with --suite or in kpatch-build.toml, or use files of your own with -s, -c and -v".into()
            }
            Error::Incomplete { .. } => {
                "use a release that is offered completely, or add the suite that has the rest with --suite".into()
            }
            Error::NotFetched { .. } => {
                "check the network; if the suite no longer offers this version, resolve the release anew with --refresh".into()
            }
            Error::Offline { .. } => "run once with network access".into(),
            Error::BadPackage { .. } => "try again with --refresh; the mirror may be in the middle of an update".into(),
            Error::DamagedCache { path, .. } => format!("remove it; it is fetched or made again: rm -rf {}", path.display()),
            Error::NoCache { .. } => "name a directory of your own with CACHEDIR".into(),
            Error::CompilerNotFound { .. } => {
                "install that compiler, allow a build root (--build-root auto), or go on with another one by --skip-compiler-check".into()
            }
            Error::BuildRoot { .. } => "name a directory with a suitable root file system (--build-root DIR)".into(),
            Error::NoCompilerText { .. } => "give the configuration that the kernel was built with".into(),
            Error::BadRelease { .. } => "name a release as `uname -r` prints it".into(),
            _ => return None,
        };
        Some(text)
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "\n    " + line)
}

fn list(noun: &str, items: &[String]) -> String {
    match items {
        [] => format!("no {noun}"),
        [one] => format!("{noun} {one}"),
        many => format!("{noun}s {}", many.join(", ")),
    }
}

fn offered_text(offered: &[String]) -> String {
    if offered.is_empty() { String::new() } else { format!("; offered are {}", offered.join(", ")) }
}
