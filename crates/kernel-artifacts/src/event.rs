//! Progress, told to whoever watches.

use std::path::PathBuf;

/// Receives events; this crate prints nothing.
pub type Events<'a> = &'a dyn Fn(Event);

/// Something that takes time begins, or something worth knowing happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another run holds a lock of the cache.
    Waiting {
        /// What the other run is working on.
        what: String,
    },
    /// The package index of a suite is fetched.
    UpdatingIndex {
        /// The suite.
        suite: String,
    },
    /// The release was found in the index (not said when the lock file already knew it).
    Resolved {
        /// The release.
        release: String,
        /// Package version.
        version: String,
    },
    /// A package is downloaded.
    Fetching {
        /// File name.
        file: String,
        /// Bytes.
        size: u64,
    },
    /// A package, or a part of it, is unpacked.
    Unpacking {
        /// What.
        what: String,
    },
    /// A build root is made.
    MakingBuildRoot {
        /// The suite it is made of.
        suite: String,
        /// Where.
        path: PathBuf,
    },
    /// Something is not as it should be, but the work goes on.
    Warning {
        /// What.
        message: String,
    },
}
