//! The phases of a run.

use std::fmt;

use serde::Serialize;

/// A stretch of the way from patch to module. The order is that of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Command line and settings.
    Arguments,
    /// Reading the patch files and applying them.
    Parse,
    /// Finding the kernel's parts.
    Resolve,
    /// Finding units, objects and command lines.
    Plan,
    /// Compiling originals and patched versions.
    Compile,
    /// Comparing originals with the shipped kernel.
    Prove,
    /// Comparing and extracting.
    Diff,
    /// Linking the extracts.
    Link,
    /// The target kernel's own build of the module.
    Kbuild,
    /// Bringing the module into its final form.
    Convert,
    /// Checking the module.
    Check,
    /// Putting the module in its place.
    Publish,
}

impl Phase {
    /// Its name, one word.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Arguments => "arguments",
            Phase::Parse => "parse",
            Phase::Resolve => "resolve",
            Phase::Plan => "plan",
            Phase::Compile => "compile",
            Phase::Prove => "prove",
            Phase::Diff => "diff",
            Phase::Link => "link",
            Phase::Kbuild => "kbuild",
            Phase::Convert => "convert",
            Phase::Check => "check",
            Phase::Publish => "publish",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
