//! What happens during a run, as values. Reporters turn them into lines, bars and JSON; nobody else prints.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::phase::Phase;
use crate::split::part::Part;

/// Receives events, from any thread.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);

/// A line that kpatch-build has always printed, and that scripts look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The source tree is the user's own.
    UsingSource {
        /// Where it is.
        directory: PathBuf,
    },
    /// The kernel's parts are in the cache already.
    UsingCache {
        /// Where the source is.
        directory: PathBuf,
    },
    /// The kernel is one of this distribution.
    Distribution {
        /// Its name.
        name: String,
    },
    /// The kernel's packages are fetched.
    Downloading {
        /// `uname -r`.
        release: String,
    },
    /// The source is unpacked.
    Unpacking,
    /// The patches are tried.
    TestingPatches,
    /// Sizes of table entries are looked up.
    ReadingSpecialSections,
    /// The units are compiled as they are.
    BuildingOriginal,
    /// The units are compiled with the patches.
    BuildingPatched,
    /// The two versions are compared.
    Extracting,
    /// What the module patches.
    PatchedObjects {
        /// vmlinux and modules.
        objects: Vec<String>,
    },
    /// The module is built.
    BuildingModule {
        /// File name.
        file: String,
    },
    /// The module is there.
    Success,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::UsingSource { directory } => write!(f, "Using source directory at {}", directory.display()),
            Step::UsingCache { directory } => write!(f, "Using cache at {}", directory.display()),
            Step::Distribution { name } => write!(f, "{name} distribution detected"),
            Step::Downloading { release } => write!(f, "Downloading kernel source for {release}"),
            Step::Unpacking => f.write_str("Unpacking kernel source"),
            Step::TestingPatches => f.write_str("Testing patch file(s)"),
            Step::ReadingSpecialSections => f.write_str("Reading special section data"),
            Step::BuildingOriginal => f.write_str("Building original source"),
            Step::BuildingPatched => f.write_str("Building patched source"),
            Step::Extracting => f.write_str("Extracting new and modified ELF sections"),
            Step::PatchedObjects { objects } => write!(f, "Patched objects: {}", objects.join(" ")),
            Step::BuildingModule { file } => write!(f, "Building patch module: {file}"),
            Step::Success => f.write_str("SUCCESS"),
        }
    }
}

/// What became of a function or datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A function of the kernel gets a new body.
    ChangedFunction,
    /// A function that the kernel does not have.
    NewFunction,
    /// A function that differs in line numbers only; the kernel keeps the old one.
    LinesOnly,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::ChangedFunction => "changed function",
            Change::NewFunction => "new function",
            Change::LinesOnly => "only line numbers changed",
        })
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A phase begins.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// A phase is over, with or without errors.
    PhaseFinished {
        /// Which.
        phase: Phase,
        /// How long it took.
        elapsed: Duration,
    },
    /// A line that scripts know.
    Step(Step),
    /// News from fetching and unpacking the kernel's parts.
    Kernel(kernel_artifacts::event::Event),
    /// What was resolved: the release and the packages or files it is made of.
    Resolved {
        /// `uname -r`.
        release: String,
        /// One line each: package and version, or the user's file.
        parts: Vec<String>,
    },
    /// A hunk of a patch applies, but not where it says, or only without some of its context.
    HunkMoved {
        /// The file that is patched.
        file: PathBuf,
        /// Number of the hunk in that file's patch, from 1.
        hunk: usize,
        /// Where it applies, a line of the patched file.
        line: u64,
        /// How far that is from where it should.
        offset: i64,
        /// How many lines of context had to be ignored.
        fuzz: usize,
    },
    /// Untouched units were searched for a change that reaches them.
    Searched {
        /// Units that may read a touched file.
        considered: usize,
        /// Those of them whose text mentions a name that a change reaches.
        named: usize,
        /// Runs of the preprocessor: the patched text of those that read one, and originals not seen before.
        preprocessed: usize,
        /// Units of which the patches change what decides their code.
        changed: usize,
    },
    /// Both whole trees are built (`--whole-tree`).
    WholeTree {
        /// How many objects the second build compiled.
        compiled: usize,
        /// Those that are not the original's (`fs/proc/meminfo.o`).
        changed: Vec<PathBuf>,
    },
    /// What will be compiled.
    Planned {
        /// Units by object, in the plan's order: unit (`fs/proc/meminfo.o`) and object (`vmlinux`).
        units: Vec<(PathBuf, String)>,
    },
    /// Work of a known amount goes on; a bar on a terminal.
    Progress {
        /// In which phase.
        phase: Phase,
        /// Units that are done.
        done: usize,
        /// Of how many.
        total: usize,
        /// The unit that was done last.
        what: String,
    },
    /// An original was taken from the cache.
    CacheHit {
        /// Its unit.
        unit: PathBuf,
    },
    /// The functions of a unit were compared with the shipped kernel.
    Proven {
        /// The unit, `fs/proc/meminfo.o`.
        unit: PathBuf,
        /// The object it is part of.
        object: String,
        /// Functions that are equal in every byte and reference.
        equal: usize,
        /// Functions where something could not be decided.
        undecided: usize,
    },
    /// A function changed or is new.
    Changed {
        /// The unit, `fs/proc/meminfo.o`.
        unit: PathBuf,
        /// What became of it.
        change: Change,
        /// The function.
        name: String,
    },
    /// A change is left out of the module, as it would have no effect.
    Skipped {
        /// The unit.
        unit: PathBuf,
        /// The function or datum.
        name: String,
        /// Its section.
        section: String,
        /// Its place in the patched source.
        place: Option<String>,
        /// Why it would have no effect.
        why: &'static str,
    },
    /// Refused patches were tried in part.
    Part(Part),
    /// A unit compiles to the same code with and without the patches.
    Unchanged {
        /// The unit.
        unit: PathBuf,
    },
    /// Something is not as it should be, but the work goes on.
    Warning {
        /// What, one sentence.
        message: String,
    },
    /// Something a person may like to know.
    Note {
        /// What, one line.
        message: String,
    },
    /// Something only a developer would like to know (`--debug`).
    Debug {
        /// What, one line.
        message: String,
    },
}

impl Event {
    /// A warning.
    pub fn warning(message: impl fmt::Display) -> Event {
        Event::Warning { message: message.to_string() }
    }

    /// A note.
    pub fn note(message: impl fmt::Display) -> Event {
        Event::Note { message: message.to_string() }
    }
}

/// Runs a phase between its two events.
pub fn phase<T>(phase: Phase, events: Events<'_>, work: impl FnOnce() -> T) -> T {
    events(Event::PhaseStarted { phase });
    let start = std::time::Instant::now();
    let result = work();
    events(Event::PhaseFinished { phase, elapsed: start.elapsed() });
    result
}
