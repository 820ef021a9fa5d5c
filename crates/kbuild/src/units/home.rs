//! The object of the kernel that a unit's code is in, or why it is in none that can be patched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::UnitList;
use super::makefile::{self, Finding};
use crate::command::SavedCommand;
use crate::object_tree::{ObjectTree, TreeError, UnitCommand};

/// Where a unit's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the kernel proper.
    Vmlinux,
    /// In a module, named as the kernel names it (`_` for `-`), and in more that share the object.
    Modules(String, Vec<String>),
}

/// A unit that the kernel contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Path of its source below the source tree.
    pub path: PathBuf,
    /// The same as kbuild spells it, with the detours of its makefile; `__FILE__` says so too.
    pub spelled: PathBuf,
    /// The object that its code is in.
    pub home: Home,
    /// How it is compiled.
    pub command: SavedCommand,
}

/// Why a unit cannot be patched.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unpatchable {
    /// Livepatch replaces functions of a compiler.
    #[error("it is assembly, which live patching cannot replace")]
    Assembly,
    /// Neither C nor assembly.
    #[error("it is no C source")]
    NotC,
    /// Mapped into processes.
    #[error("it is part of the vDSO, which runs in user space")]
    Vdso,
    /// Runs before the kernel does.
    #[error("it is boot code, which has run when a patch is loaded")]
    Boot,
    /// Runs in real mode.
    #[error("it is real-mode code, which is not part of the kernel's image")]
    RealMode,
    /// Runs between two kernels.
    #[error("it is part of the kexec purgatory, a program of its own")]
    Purgatory,
    /// Runs in the firmware's environment.
    #[error("it is part of the EFI stub, which has run when a patch is loaded")]
    EfiStub,
    /// Runs at another privilege level.
    #[error("it is hypervisor code, which runs outside the kernel")]
    Hypervisor,
    /// Runs on the machine that builds the kernel.
    #[error("it is part of a program that runs while the kernel is built")]
    HostProgram,
    /// Compiled for the values it contains.
    #[error("it only computes constants while the kernel is built")]
    BuildTime,
    /// The kernel does not contain it.
    #[error("it is not compiled in this configuration{}", option.as_ref().map(|o| format!(": CONFIG_{o} is not set")).unwrap_or_default())]
    NotConfigured {
        /// The option that is not set, where the makefiles name one.
        option: Option<String>,
    },
    /// The kernel's packages have no such module.
    #[error("it belongs to module {modules}, which this kernel does not come with", modules = modules.join(", "))]
    NotShipped {
        /// The module.
        modules: Vec<String>,
    },
    /// vmlinux and makefiles contradict each other.
    #[error("the vmlinux was compiled from it, but with this source and configuration {instead}")]
    Contradiction {
        /// What the makefiles say.
        instead: &'static str,
    },
    /// The unchanged unit does not compile.
    #[error("the unpatched source does not compile:\n{diagnostics}")]
    DoesNotCompile {
        /// What the compiler says.
        diagnostics: String,
    },
}

/// Finds where each unit's code is. kbuild runs at most once, for all units whose command is not known yet;
/// `is_shipped` tells whether the kernel comes with a module of that name.
pub fn locate(
    tree: &ObjectTree,
    vmlinux: &UnitList,
    is_shipped: &dyn Fn(&str) -> bool,
    units: &[PathBuf],
) -> Result<BTreeMap<PathBuf, Result<Unit, Unpatchable>>, TreeError> {
    let mut located = BTreeMap::new();
    let mut open = Vec::new();
    for unit in units {
        match kind_of_code(unit, vmlinux.contains(unit)) {
            Some(reason) => {
                located.insert(unit.clone(), Err(reason));
            }
            None => open.push(unit.clone()),
        }
    }
    let config = tree.config()?;
    for (unit, spelled, outcome) in homes(tree, vmlinux, is_shipped, &open)? {
        let outcome = match outcome {
            Ok((home, command)) => Ok(Unit { path: unit.clone(), spelled, home, command }),
            Err(Unpatchable::NotConfigured { .. }) => {
                Err(match makefile::why_left_out(tree.source(), &unit, &config) {
                    Some(Finding::HostProgram) => Unpatchable::HostProgram,
                    Some(Finding::Option(option)) => Unpatchable::NotConfigured { option: Some(option) },
                    None => Unpatchable::NotConfigured { option: None },
                })
            }
            Err(reason) => Err(reason),
        };
        located.insert(unit, outcome);
    }
    Ok(located)
}

/// A unit, the path that kbuild spells, and what came of it.
type Outcome = (PathBuf, PathBuf, Result<(Home, SavedCommand), Unpatchable>);

/// Asks kbuild for the units' commands, by the paths it spells.
fn homes(
    tree: &ObjectTree,
    vmlinux: &UnitList,
    is_shipped: &dyn Fn(&str) -> bool,
    units: &[PathBuf],
) -> Result<Vec<Outcome>, TreeError> {
    let spell = |unit: &PathBuf| (unit.clone(), vmlinux.spelled(unit).unwrap_or(unit).to_owned());
    let mut outcomes = ask(tree, vmlinux, is_shipped, units.iter().map(spell).collect())?;
    // The makefile of a module can lead to it from another directory; kbuild knows, if asked about all modules.
    let unknown = |outcome: &Outcome| matches!(outcome.2, Err(Unpatchable::NotConfigured { .. }));
    if outcomes.iter().any(|outcome| unknown(outcome) && tree.source().join(&outcome.0).is_file())
        && let Some(modules) = tree.module_objects()?
    {
        let (lost, mut found): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(unknown);
        let again = lost.into_iter().map(|(unit, spelled, _)| {
            let spelled = modules.spelled(&unit).unwrap_or(spelled);
            (unit, spelled)
        });
        found.extend(ask(tree, vmlinux, is_shipped, again.collect())?);
        outcomes = found;
    }
    Ok(outcomes)
}

fn ask(
    tree: &ObjectTree,
    vmlinux: &UnitList,
    is_shipped: &dyn Fn(&str) -> bool,
    units: Vec<(PathBuf, PathBuf)>,
) -> Result<Vec<Outcome>, TreeError> {
    let spelled: Vec<PathBuf> = units.iter().map(|(_, spelled)| spelled.clone()).collect();
    let mut commands = tree.commands(&spelled)?;
    Ok(units
        .into_iter()
        .map(|(unit, spelled)| {
            let command = commands.remove(&spelled).unwrap_or(UnitCommand::NotBuilt);
            let outcome = home(vmlinux.contains(&unit), is_shipped, command);
            (unit, spelled, outcome)
        })
        .collect())
}

/// Compares what kbuild does with what the shipped kernel contains.
fn home(
    in_vmlinux: bool,
    is_shipped: &dyn Fn(&str) -> bool,
    command: UnitCommand,
) -> Result<(Home, SavedCommand), Unpatchable> {
    let saved = match command {
        UnitCommand::Known(saved) => *saved,
        UnitCommand::NotBuilt if in_vmlinux => {
            return Err(Unpatchable::Contradiction { instead: "kbuild does not compile it" });
        }
        // kbuild compiles any file that it is asked for, with what options it has at hand.
        UnitCommand::Failed { module: false, .. } if !in_vmlinux => {
            return Err(Unpatchable::NotConfigured { option: None });
        }
        UnitCommand::NotBuilt => return Err(Unpatchable::NotConfigured { option: None }),
        UnitCommand::Failed { diagnostics, .. } => return Err(Unpatchable::DoesNotCompile { diagnostics }),
    };
    let Ok(compile) = saved.compile() else {
        return Err(Unpatchable::NotC);
    };
    match (in_vmlinux, compile.is_module()) {
        (true, false) => Ok((Home::Vmlinux, saved)),
        (true, true) => Err(Unpatchable::Contradiction { instead: "it belongs to a module" }),
        (false, false) => Err(Unpatchable::NotConfigured { option: None }),
        (false, true) => {
            let modules: Vec<String> = compile.modules().map(str::to_owned).collect();
            let (shipped, missing): (Vec<_>, Vec<_>) = modules.into_iter().partition(|m| is_shipped(m));
            let mut shipped = shipped.into_iter();
            match shipped.next() {
                Some(first) => Ok((Home::Modules(first, shipped.collect()), saved)),
                None => Err(Unpatchable::NotShipped { modules: missing }),
            }
        }
    }
}

/// What a path alone tells about code that is no patchable part of the kernel.
fn kind_of_code(unit: &Path, in_vmlinux: bool) -> Option<Unpatchable> {
    match unit.extension().and_then(|e| e.to_str()) {
        Some("c") => {}
        Some("S" | "s") => return Some(Unpatchable::Assembly),
        _ => return Some(Unpatchable::NotC),
    }
    let parts: Vec<&str> = unit.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        // On some machines these two are linked into vmlinux.
        ["drivers", "firmware", "efi", "libstub", ..] => Some(Unpatchable::EfiStub),
        ["arch", "arm64", "kvm", "hyp", "nvhe", ..] => Some(Unpatchable::Hypervisor),
        _ if in_vmlinux => None,
        ["tools" | "scripts" | "usr" | "Documentation", ..] => Some(Unpatchable::HostProgram),
        ["lib", "vdso", ..] => Some(Unpatchable::Vdso),
        ["kernel", "bounds.c"] => Some(Unpatchable::BuildTime),
        ["arch", _, "kernel", file] if file.starts_with("asm-offsets") => Some(Unpatchable::BuildTime),
        ["arch", _, "boot", ..] => Some(Unpatchable::Boot),
        ["arch", _, "realmode", ..] => Some(Unpatchable::RealMode),
        ["arch", _, "purgatory", ..] => Some(Unpatchable::Purgatory),
        ["arch", _, inner @ .., _] if inner.iter().any(|part| part.starts_with("vdso")) => {
            Some(Unpatchable::Vdso)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(line: &str) -> UnitCommand {
        let file = format!("savedcmd_a.o := {line}\n");
        UnitCommand::Known(Box::new(SavedCommand::parse(file.as_bytes()).unwrap()))
    }

    fn failed(module: bool) -> UnitCommand {
        UnitCommand::Failed { module, diagnostics: "a.c:1: error".into() }
    }

    fn outcome(in_vmlinux: bool, command: UnitCommand) -> Result<Home, Unpatchable> {
        home(in_vmlinux, &|module| matches!(module, "xfs" | "xfs_too"), command).map(|(home, _)| home)
    }

    #[test]
    fn the_shipped_kernel_decides() {
        let not_configured = Err(Unpatchable::NotConfigured { option: None });
        let built_in = "gcc -DKBUILD_MODNAME=exec -c -o a.o a.c";
        let module = |name: &str| known(&format!("gcc -DMODULE -DKBUILD_MODNAME={name} -c -o a.o a.c"));
        assert_eq!(outcome(true, known(built_in)), Ok(Home::Vmlinux));
        assert_eq!(outcome(false, known(built_in)), not_configured);
        let xfs = |more: &[&str]| Ok(Home::Modules("xfs".into(), more.iter().map(|&m| m.into()).collect()));
        assert_eq!(outcome(false, module("xfs")), xfs(&[]));
        assert_eq!(outcome(false, module("xfs:zfs")), xfs(&[]));
        assert_eq!(outcome(false, module("xfs:xfs_too:zfs")), xfs(&["xfs_too"]));
        assert_eq!(
            outcome(false, module("zfs")),
            Err(Unpatchable::NotShipped { modules: vec!["zfs".into()] })
        );
        assert!(matches!(outcome(true, module("xfs")), Err(Unpatchable::Contradiction { .. })));
        assert!(matches!(outcome(true, UnitCommand::NotBuilt), Err(Unpatchable::Contradiction { .. })));
        assert_eq!(outcome(false, UnitCommand::NotBuilt), not_configured);
        assert_eq!(outcome(false, failed(false)), not_configured);
        assert!(matches!(outcome(false, failed(true)), Err(Unpatchable::DoesNotCompile { .. })));
        assert!(matches!(outcome(true, failed(false)), Err(Unpatchable::DoesNotCompile { .. })));
    }

    #[test]
    fn paths_tell_code_that_is_not_the_kernel() {
        for (path, reason) in [
            ("arch/x86/kernel/head_64.S", Unpatchable::Assembly),
            ("fs/Kconfig", Unpatchable::NotC),
            ("arch/x86/entry/vdso/vclock_gettime.c", Unpatchable::Vdso),
            ("arch/arm64/kernel/vdso32/note.c", Unpatchable::Vdso),
            ("lib/vdso/gettimeofday.c", Unpatchable::Vdso),
            ("arch/x86/boot/compressed/misc.c", Unpatchable::Boot),
            ("arch/x86/realmode/rm/wakemain.c", Unpatchable::RealMode),
            ("arch/x86/purgatory/purgatory.c", Unpatchable::Purgatory),
            ("drivers/firmware/efi/libstub/file.c", Unpatchable::EfiStub),
            ("tools/objtool/check.c", Unpatchable::HostProgram),
            ("kernel/bounds.c", Unpatchable::BuildTime),
            ("arch/x86/kernel/asm-offsets_64.c", Unpatchable::BuildTime),
        ] {
            assert_eq!(kind_of_code(Path::new(path), false), Some(reason), "{path}");
        }
        for path in ["fs/exec.c", "lib/string.c", "samples/livepatch/livepatch-sample.c"] {
            assert_eq!(kind_of_code(Path::new(path), false), None, "{path}");
        }
        // The part of the vDSO that maps it is kernel code.
        assert_eq!(kind_of_code(Path::new("arch/x86/entry/vdso/vma.c"), true), None);
        assert_eq!(
            kind_of_code(Path::new("drivers/firmware/efi/libstub/file.c"), true),
            Some(Unpatchable::EfiStub)
        );
    }
}
