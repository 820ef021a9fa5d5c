//! What a run tells about itself. Phases emit events; reporters turn them into lines, bars and JSON.

use std::path::PathBuf;
use std::time::Duration;

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The command line and the settings.
    Arguments,
    /// Patch files to touched files.
    Parse,
    /// Release to kernel artefacts.
    Resolve,
    /// Touched files to units.
    Plan,
    /// Units to object pairs.
    Compile,
    /// Originals against the shipped kernel.
    Prove,
    /// Object pairs to extracts.
    Diff,
    /// Extracts to one object.
    Link,
    /// That object to a module, by the target's kbuild.
    Kbuild,
    /// Livepatch form.
    Convert,
    /// The finished module against the shipped symbol tables.
    Check,
    /// Into the output directory.
    Publish,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 12] = [
        Phase::Arguments,
        Phase::Parse,
        Phase::Resolve,
        Phase::Plan,
        Phase::Compile,
        Phase::Prove,
        Phase::Diff,
        Phase::Link,
        Phase::Kbuild,
        Phase::Convert,
        Phase::Check,
        Phase::Publish,
    ];

    /// The phase's name in tables and error codes.
    pub fn name(self) -> &'static str {
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

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A line of the predecessor's output, with its text, which scripts read.
    Line(String),
    /// A line of this tool's own, for people.
    Note(String),
    /// Something the user should know that does not stop the run.
    Warning(String),
    /// A phase begins.
    PhaseStarted(Phase),
    /// A phase ended well.
    PhaseFinished {
        /// Which.
        phase: Phase,
        /// Its wall time.
        took: Duration,
    },
    /// Work whose amount is known begins.
    WorkStarted {
        /// What is done, `compiling`.
        what: String,
        /// How many steps.
        steps: u64,
    },
    /// One step is done.
    WorkStep {
        /// What was worked on.
        item: String,
    },
    /// The work is done.
    WorkFinished,
    /// The module is in the output directory.
    Published(PathBuf),
}

/// Where events go.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);
