//! The running kernel's live patches, as sysfs shows them.

use kpatch_elf::note::{Note, NotedFunction};
use serde::Serialize;

/// The running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What `uname -r` prints.
    pub release: String,
    /// Build-id of `/sys/kernel/notes`, hexadecimal.
    pub build_id: Option<String>,
    /// Loaded live patches, lowest of the stack first.
    pub patches: Vec<LivePatch>,
    /// Modules with the taint of live patches that have no live patch any more: disabled or replaced.
    pub leftovers: Vec<String>,
    /// The kernel has the livepatch core.
    pub livepatch: bool,
}

/// A live patch in `/sys/kernel/livepatch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePatch {
    /// Name of its module.
    pub name: String,
    /// Where it is, or is going.
    pub enabled: bool,
    /// On its way there.
    pub transition: bool,
    /// Does it replace all earlier ones? Kernels before 6.12 do not tell; then what the module's note says.
    pub replace: Option<bool>,
    /// What it patches.
    pub objects: Vec<PatchedObject>,
    /// The note of kpatch-build, if it made the module.
    pub note: Option<Note>,
    /// When it was loaded, seconds since 1970, where kpatch did it.
    pub since: Option<u64>,
}

/// An object that a live patch patches, or would once it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchedObject {
    /// `vmlinux` or a module.
    pub name: String,
    /// The object is loaded and patched. Kernels before 6.1 do not tell.
    pub patched: Option<bool>,
    /// The functions with their positions among same-named ones.
    pub functions: Vec<(String, u32)>,
}

/// Where a live patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All tasks use the patched functions.
    Enabled,
    /// No task uses them.
    Disabled,
    /// Some tasks do not use them yet.
    Enabling,
    /// Some tasks still use them.
    Disabling,
}

impl Phase {
    /// The word in lists, which is the predecessor's.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Enabled => "enabled",
            Phase::Disabled => "disabled",
            Phase::Enabling => "enabling...",
            Phase::Disabling => "disabling...",
        }
    }
}

impl LivePatch {
    /// Where it is.
    pub fn phase(&self) -> Phase {
        match (self.enabled, self.transition) {
            (true, false) => Phase::Enabled,
            (false, false) => Phase::Disabled,
            (true, true) => Phase::Enabling,
            (false, true) => Phase::Disabling,
        }
    }

    /// All functions, in the order of objects and names.
    pub fn functions(&self) -> impl Iterator<Item = NotedFunction> {
        self.objects.iter().flat_map(|object| {
            object.functions.iter().map(|(name, sympos)| NotedFunction {
                object: object.name.clone(),
                name: name.clone(),
                sympos: *sympos,
            })
        })
    }

    /// Does it patch that function?
    pub fn has(&self, function: &NotedFunction) -> bool {
        self.functions().any(|own| same_function(&own, function))
    }
}

/// The kernel takes positions 0 and 1 for the same, and sysfs always shows 1.
pub fn same_function(a: &NotedFunction, b: &NotedFunction) -> bool {
    a.object == b.object && a.name == b.name && a.sympos.max(1) == b.sympos.max(1)
}

/// Who provides a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provided {
    /// `vmlinux` or a module.
    pub object: String,
    /// The function.
    pub function: String,
    /// Its position among the same-named functions of the object, from 1.
    pub sympos: u32,
    /// The live patches that patch it, the one in force first.
    pub by: Vec<String>,
    /// The one in force is on its way.
    pub transition: bool,
}

impl State {
    /// The live patch of that name.
    pub fn patch(&self, name: &str) -> Option<&LivePatch> {
        self.patches.iter().find(|patch| patch.name == name)
    }

    /// The live patch on its way; the kernel has one at most.
    pub fn in_transition(&self) -> Option<&LivePatch> {
        self.patches.iter().find(|patch| patch.transition)
    }

    /// Every patched function with its providers, sorted by object and name.
    pub fn provided(&self) -> Vec<Provided> {
        let mut table: Vec<(NotedFunction, usize)> = Vec::new();
        for (level, patch) in self.patches.iter().enumerate() {
            table.extend(patch.functions().map(|f| (NotedFunction { sympos: f.sympos.max(1), ..f }, level)));
        }
        table.sort();
        let mut out: Vec<Provided> = Vec::new();
        for (function, level) in table {
            let patch = &self.patches[level];
            match out.last_mut().filter(|last| {
                last.object == function.object
                    && last.function == function.name
                    && last.sympos == function.sympos
            }) {
                // Levels come in ascending order, so that the last is in force.
                Some(last) => {
                    last.by.insert(0, patch.name.clone());
                    last.transition = patch.transition;
                }
                None => out.push(Provided {
                    object: function.object,
                    function: function.name,
                    sympos: function.sympos,
                    by: vec![patch.name.clone()],
                    transition: patch.transition,
                }),
            }
        }
        // vmlinux first, as everywhere.
        out.sort_by_key(|entry| entry.object != kpatch_elf::klp::VMLINUX);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(name: &str, functions: &[(&str, u32)]) -> LivePatch {
        LivePatch {
            name: name.into(),
            enabled: true,
            objects: vec![PatchedObject {
                name: "vmlinux".into(),
                patched: Some(true),
                functions: functions.iter().map(|(name, sympos)| ((*name).to_owned(), *sympos)).collect(),
            }],
            ..LivePatch::default()
        }
    }

    #[test]
    fn the_topmost_patch_is_in_force() {
        let state = State {
            patches: vec![patch("one", &[("f", 1), ("g", 1)]), patch("two", &[("f", 0), ("f", 2)])],
            ..State::default()
        };
        let by: Vec<_> = state
            .provided()
            .into_iter()
            .map(|entry| (format!("{},{}", entry.function, entry.sympos), entry.by.join(" ")))
            .collect();
        let expected = [("f,1", "two one"), ("f,2", "two"), ("g,1", "one")];
        assert_eq!(by, expected.map(|(f, by)| (f.to_owned(), by.to_owned())));
    }

    #[test]
    fn phases_are_the_words_of_the_predecessor() {
        let words: Vec<_> = [(true, false), (false, false), (true, true), (false, true)]
            .map(|(enabled, transition)| LivePatch { enabled, transition, ..LivePatch::default() })
            .iter()
            .map(|patch| patch.phase().word())
            .collect();
        assert_eq!(words, ["enabled", "disabled", "enabling...", "disabling..."]);
    }
}
