//! The command lines of units, from one run of kbuild for all that are not known yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::{ObjectTree, TreeError, prepare};
use crate::command::{SavedCommand, dry_run};
use crate::paths;
use crate::root::RunError;
use crate::store::{self, StoreError};

/// Where commands that a finished run of kbuild told are kept, in the object tree.
const KEPT: &str = ".unit-commands";

/// What is tried.
const ASK: &str = "ask kbuild for command lines";

/// What is tried where files are missing.
const GENERATE: &str = "have kbuild make the files that units read";

/// What kbuild does for one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitCommand {
    /// It compiles it by this command.
    Known(Box<SavedCommand>),
    /// It has no rule for it in this configuration.
    NotBuilt,
    /// Its compiler fails.
    Failed {
        /// It would have been part of a module.
        module: bool,
        /// What the compiler says.
        diagnostics: String,
    },
}

/// What one run of kbuild told.
#[derive(Debug, Default)]
struct Answer {
    commands: BTreeMap<PathBuf, UnitCommand>,
    /// Units that it did not answer for.
    open: BTreeSet<PathBuf>,
}

impl ObjectTree {
    /// The command of each unit (the path of a source file below the source tree, with the detours that the
    /// makefiles take). kbuild runs once for all that no earlier run asked for, and not at all if there are none.
    /// It only prints what it would do; units that this does not answer for, kbuild compiles. What a unit reads is
    /// not known yet, and files that kbuild generates for it may be missing, see [`ObjectTree::generate`].
    pub fn commands(&self, units: &[PathBuf]) -> Result<BTreeMap<PathBuf, UnitCommand>, TreeError> {
        let mut commands = BTreeMap::new();
        let missing = self.take_known(units, &mut commands)?;
        if missing.is_empty() {
            return Ok(commands);
        }
        let _lock = self.item.lock()?;
        // Another run may have asked for them meanwhile.
        let missing = self.take_known(&missing.into_iter().collect::<Vec<_>>(), &mut commands)?;
        if missing.is_empty() {
            return Ok(commands);
        }
        // Each portion has a make of its own, which prints only.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let answers: Vec<Answer> = portions(missing, processors)
            .into_par_iter()
            .map(|portion| self.ask(portion))
            .collect::<Result<_, TreeError>>()?;
        let mut open = BTreeSet::new();
        for mut answer in answers {
            commands.append(&mut answer.commands);
            open.append(&mut answer.open);
        }
        for portion in portions(open, 1) {
            self.compile(portion, &mut commands)?;
        }
        Ok(commands)
    }

    /// Has kbuild compile units, for the sake of the files that it generates on the way. The commands of those that
    /// compile, or why they do not.
    pub fn generate(&self, units: &[PathBuf]) -> Result<BTreeMap<PathBuf, UnitCommand>, TreeError> {
        let mut commands = BTreeMap::new();
        if !units.is_empty() {
            let _lock = self.item.lock()?;
            for portion in portions(units.iter().cloned().collect(), 1) {
                self.compile(portion, &mut commands)?;
            }
        }
        Ok(commands)
    }

    /// Has kbuild print what it would do for the missing units.
    fn ask(&self, missing: BTreeSet<PathBuf>) -> Result<Answer, TreeError> {
        let mut answer = Answer::default();
        // Lines longer than a pipe's buffer would mix if several makes printed at once.
        let output = self
            .make()
            .args(["-n", "-k", "-j1"])
            .args(missing.iter().map(|unit| unit.with_extension("o")))
            .output()
            .map_err(|source| TreeError::Run { what: ASK, source })?;
        let printed = dry_run::saved_commands(&String::from_utf8_lossy(&output.stdout));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        for unit in missing {
            let object = unit.with_extension("o");
            if let Some(command) = printed.get(&object) {
                let kept = self.kept(&unit);
                let content = dry_run::file(&object, command);
                let saved = parse(&kept, content.as_bytes())?;
                store::write(&kept, content.as_bytes())?;
                answer.commands.insert(unit, UnitCommand::Known(Box::new(saved)));
            } else if has_no_rule(&errors, &unit) {
                answer.commands.insert(unit, UnitCommand::NotBuilt);
            } else {
                answer.open.insert(unit);
            }
        }
        Ok(answer)
    }

    /// Has kbuild compile the units.
    fn compile(
        &self,
        missing: BTreeSet<PathBuf>,
        commands: &mut BTreeMap<PathBuf, UnitCommand>,
    ) -> Result<(), TreeError> {
        for unit in &missing {
            // What a killed run left must not pass for kbuild's answer.
            store::remove(&self.path().join(command_file(unit)))?;
            store::remove(&self.path().join(unit.with_extension("o")))?;
        }
        let output = self
            .make()
            .arg("-k")
            .args(missing.iter().map(|unit| unit.with_extension("o")))
            .output()
            .map_err(|source| TreeError::Run { what: GENERATE, source })?;
        prepare::restore_identity(self)?;
        let text = output.text();
        for unit in missing {
            let saved = self.path().join(command_file(&unit));
            let command = if saved.exists() && self.path().join(unit.with_extension("o")).exists() {
                let content = std::fs::read(&saved).map_err(StoreError::io("read", &saved))?;
                let command = parse(&saved, &content)?;
                store::write(&self.kept(&unit), &content)?;
                UnitCommand::Known(Box::new(command))
            } else if let Some(line) = announcement(&text, &unit) {
                UnitCommand::Failed { module: line.contains("[M]"), diagnostics: diagnostics(&text) }
            } else if has_no_rule(&text, &unit) || output.status.success() {
                UnitCommand::NotBuilt
            } else {
                let source = RunError::Failed {
                    program: "make".to_owned(),
                    status: output.status,
                    output: text.clone(),
                };
                return Err(TreeError::Run { what: GENERATE, source });
            };
            commands.insert(unit, command);
        }
        Ok(())
    }

    /// Moves what is known into `commands` and returns the rest.
    fn take_known(
        &self,
        units: &[PathBuf],
        commands: &mut BTreeMap<PathBuf, UnitCommand>,
    ) -> Result<BTreeSet<PathBuf>, TreeError> {
        let mut missing = BTreeSet::new();
        for unit in units {
            if !paths::is_below(unit) || unit.to_str().is_none() {
                return Err(TreeError::NoUnit { path: unit.clone() });
            }
            let kept = self.kept(unit);
            match std::fs::read(&kept) {
                Ok(content) => {
                    let command = parse(&kept, &content)?;
                    commands.insert(unit.clone(), UnitCommand::Known(Box::new(command)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    missing.insert(unit.clone());
                }
                Err(error) => return Err(StoreError::io("read", &kept)(error).into()),
            }
        }
        Ok(missing)
    }

    fn kept(&self, unit: &Path) -> PathBuf {
        let mut path = self.path().join(KEPT);
        for part in unit.components() {
            match part {
                Component::ParentDir => path.push("@up"),
                part => path.push(part),
            }
        }
        let mut path = path.into_os_string();
        path.push(".cmd");
        path.into()
    }
}

/// Most bytes of goals for one run of make. kbuild hands them all on as one word of a shell's command, which Linux limits
/// to 128 KiB (`MAX_ARG_STRLEN`); the readers of a common header have more.
const MOST_GOALS: usize = 48 << 10;

/// Bytes of goals below which they stay together.
const FEWEST_GOALS: usize = 4 << 10;

/// Units in portions that one run of make takes, as many as run side by side if there are enough of them.
fn portions(units: BTreeSet<PathBuf>, side_by_side: usize) -> Vec<BTreeSet<PathBuf>> {
    let all: usize = units.iter().map(|unit| unit.as_os_str().len() + 1).sum();
    // A run has its own price, which a few units do not pay.
    let most = all.div_ceil(side_by_side.max(1)).clamp(FEWEST_GOALS, MOST_GOALS);
    let mut portions = Vec::new();
    let (mut portion, mut bytes) = (BTreeSet::new(), 0);
    for unit in units {
        let length = unit.as_os_str().len() + 1;
        if bytes + length > most && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            bytes = 0;
        }
        bytes += length;
        portion.insert(unit);
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

/// Path of the file in which kbuild saves a unit's command.
fn command_file(unit: &Path) -> PathBuf {
    let stem = unit.file_stem().unwrap_or_default().to_string_lossy();
    unit.with_file_name(format!(".{stem}.o.cmd"))
}

fn parse(path: &Path, content: &[u8]) -> Result<SavedCommand, TreeError> {
    SavedCommand::parse(content).map_err(|source| TreeError::Command { path: path.to_owned(), source })
}

/// The line by which kbuild announces the command of a unit: `  CC [M]  fs/xfs/xfs_log.o`.
fn announcement<'o>(output: &'o str, unit: &Path) -> Option<&'o str> {
    let object = unit.with_extension("o");
    output.lines().find(|line| {
        line.starts_with("  ")
            && line.split_ascii_whitespace().next_back().is_some_and(|word| Path::new(word) == object)
    })
}

/// The output without what make and kbuild say about their own work.
fn diagnostics(output: &str) -> String {
    let own = |line: &&str| !line.starts_with("make") && !is_announcement(line);
    output.lines().filter(own).collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn is_announcement(line: &str) -> bool {
    let tool = line.strip_prefix("  ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    !tool.is_empty() && tool.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// make says so in several ways: no rule for the object, or for the directory it is in.
fn has_no_rule(output: &str, unit: &Path) -> bool {
    let object = unit.with_extension("o");
    let quoted = format!("'{}'", object.display());
    output.lines().any(|line| line.contains("No rule to make target") && line.contains(&quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_portioned() {
        let units: BTreeSet<PathBuf> =
            (0..6000).map(|n| PathBuf::from(format!("drivers/net/ethernet/unit{n}.c"))).collect();
        let portions = portions(units.clone(), 1);
        assert!(portions.len() > 1);
        for portion in &portions {
            let bytes: usize = portion.iter().map(|unit| unit.as_os_str().len() + 1).sum();
            assert!(!portion.is_empty() && bytes <= MOST_GOALS);
        }
        assert_eq!(portions.into_iter().flatten().collect::<BTreeSet<_>>(), units);
        let long = BTreeSet::from([PathBuf::from("x".repeat(MOST_GOALS + 1)), PathBuf::from("y")]);
        assert_eq!(super::portions(long, 1).len(), 2);
        assert_eq!(super::portions(BTreeSet::new(), 1), Vec::new());
        let few: BTreeSet<PathBuf> = units.iter().take(100).cloned().collect();
        assert_eq!(super::portions(few, 4).len(), 1);
        let some: BTreeSet<PathBuf> = units.into_iter().take(1000).collect();
        assert!((4..=5).contains(&super::portions(some, 4).len()));
    }

    #[test]
    fn kbuild_output_tells_what_was_tried() {
        let output = "  CC      fs/exec.o\n  CC [M]  drivers/net/dummy.o\nfs/exec.c:3: error: no\n\
                      make[3]: *** No rule to make target 'fs/none.o'.\n";
        let line = |unit: &str| announcement(output, Path::new(unit));
        assert_eq!(line("fs/exec.c"), Some("  CC      fs/exec.o"));
        assert_eq!(line("drivers/net/dummy.c"), Some("  CC [M]  drivers/net/dummy.o"));
        assert_eq!((line("exec.c"), line("fs/none.c")), (None, None));
        assert_eq!(diagnostics(output), "fs/exec.c:3: error: no");
        assert!(has_no_rule(output, Path::new("fs/none.c")));
        assert!(!has_no_rule(output, Path::new("none.c")));
    }

    #[test]
    fn the_command_file_stands_beside_the_object() {
        assert_eq!(command_file(Path::new("fs/a.b.c")), Path::new("fs/.a.b.o.cmd"));
    }
}
