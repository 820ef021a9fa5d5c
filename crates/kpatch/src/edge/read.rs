//! Reads the model of [`crate::model`] from sysfs, procfs and tracefs.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kpatch_elf::{Endian, note};

use super::file::ModuleFile;
use super::root::Root;
use crate::error::Result;
use crate::model::ftrace;
use crate::model::module::{PatchModule, read_note};
use crate::model::plan::Surroundings;
use crate::model::record::Record;
use crate::model::state::{LivePatch, PatchedObject, State};
use crate::model::tasks::{Task, parse_stack, parse_stat};

/// The directory of live patches.
pub const LIVEPATCH: &str = "/sys/kernel/livepatch";

/// The directory of kpatch's records, which a reboot empties.
pub const RECORDS: &str = "/run/kpatch";

/// Byte order of the machine that we run on, which is that of its kernel's notes.
pub(crate) const NATIVE: Endian = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };

/// The release that runs.
pub fn release(root: &Root) -> String {
    // Not uname(2): below another root, the file says what is meant there.
    root.maybe("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// The running kernel's live patches.
pub fn state(root: &Root) -> Result<State> {
    let loaded: Vec<String> = root
        .maybe("/proc/modules")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    // The newest stands first in /proc/modules, and a live patch is enabled when its module is loaded.
    let age = |name: &str| loaded.iter().rev().position(|other| other == name).unwrap_or(loaded.len());
    let mut patches = Vec::new();
    for name in root.names(LIVEPATCH)? {
        // It may vanish while it is being read.
        if let Some(patch) = patch(root, &name) {
            let order = root.maybe(format!("{LIVEPATCH}/{name}/stack_order")).and_then(|o| o.parse().ok());
            patches.push((order.unwrap_or_else(|| age(&name)), patch));
        }
    }
    patches.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    let patches: Vec<LivePatch> = patches.into_iter().map(|(_, patch)| patch).collect();
    let leftovers = loaded
        .into_iter()
        .filter(|name| !patches.iter().any(|patch| patch.name == *name))
        .filter(|name| root.maybe(format!("/sys/module/{name}/taint")).is_some_and(|t| t.contains('K')))
        .collect();
    let notes = fs_err::read(root.path("/sys/kernel/notes")).unwrap_or_default();
    Ok(State {
        release: release(root),
        build_id: note::build_id(&notes, NATIVE),
        patches,
        leftovers,
        livepatch: root.path(LIVEPATCH).is_dir(),
    })
}

/// One live patch; none if it is gone.
pub fn patch(root: &Root, name: &str) -> Option<LivePatch> {
    let directory = format!("{LIVEPATCH}/{name}");
    let flag = |attribute: &str| root.maybe(format!("{directory}/{attribute}")).map(|text| text == "1");
    let enabled = flag("enabled")?;
    let note = fs_err::read(root.path(format!("/sys/module/{name}/notes/{}", note::SECTION)));
    let note = note.ok().and_then(|bytes| read_note(&bytes, NATIVE));
    let mut objects = Vec::new();
    for object in root.names(&directory).ok()? {
        let place = format!("{directory}/{object}");
        if !root.path(&place).is_dir() {
            continue;
        }
        let functions = root.names(&place).unwrap_or_default();
        objects.push(PatchedObject {
            patched: flag(&format!("{object}/patched")),
            functions: functions
                .iter()
                .filter_map(|function| {
                    let (name, sympos) = function.rsplit_once(',')?;
                    Some((name.to_owned(), sympos.parse().ok()?))
                })
                .collect(),
            name: object,
        });
    }
    Some(LivePatch {
        name: name.to_owned(),
        enabled,
        transition: flag("transition").unwrap_or(false),
        replace: flag("replace").or(note.as_ref().map(|note| note.replace)),
        objects,
        note,
        since: record(root, name).and_then(|record| record.since(inode(root, name)?)),
    })
}

/// The inode of a live patch's directory.
pub fn inode(root: &Root, name: &str) -> Option<u64> {
    Some(std::fs::metadata(root.path(format!("{LIVEPATCH}/{name}"))).ok()?.ino())
}

/// What is remembered of a module.
pub fn record(root: &Root, name: &str) -> Option<Record> {
    let bytes = fs_err::read(root.path(format!("{RECORDS}/{name}.json"))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The build-id of a loaded module; none if it is not loaded or has none.
pub fn module_build_id(root: &Root, name: &str) -> Option<String> {
    let path = root.path(format!("/sys/module/{name}/notes/.note.gnu.build-id"));
    note::build_id(&fs_err::read(path).ok()?, NATIVE)
}

/// What the system demands and does besides, as far as it matters to a module.
pub fn surroundings(root: &Root, module: &PatchModule) -> Surroundings {
    let lockdown = root.maybe("/sys/kernel/security/lockdown").unwrap_or_default();
    // The level in force stands in brackets: `none [integrity] confidentiality`.
    let level = lockdown.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(l, _)| l);
    let patched = module.module_build_ids().into_iter().flat_map(BTreeMap::keys);
    Surroundings {
        modules: patched.filter_map(|name| Some((name.clone(), module_build_id(root, name)?))).collect(),
        lockdown: level.to_owned(),
        signatures_enforced: root.maybe("/sys/module/module/parameters/sig_enforce").as_deref() == Some("Y"),
        hooks: tracefs(root, "enabled_functions").map(|text| ftrace::parse_enabled_functions(&text)),
        kprobes: root.maybe("/sys/kernel/debug/kprobes/list").unwrap_or_default(),
    }
}

/// A file of tracefs, at its own place or at its old one.
pub fn tracefs(root: &Root, file: &str) -> Option<String> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|place| root.maybe(Path::new(place).join(file)))
}

/// A module's file.
pub fn module(path: &Path) -> Result<PatchModule> {
    Ok(ModuleFile::open(path)?.module)
}

/// The tasks that have not switched to what a transition leads to.
pub fn unswitched(root: &Root, enabling: bool) -> Vec<Task> {
    // -1 outside of transitions, 0 for the unpatched and 1 for the patched state (KLP_TRANSITION_*).
    let wanted = if enabling { "0" } else { "1" };
    let mut tasks = BTreeMap::new();
    for pid in root.names("/proc").unwrap_or_default() {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for tid in root.names(format!("/proc/{pid}/task")).unwrap_or_default() {
            let place = format!("/proc/{pid}/task/{tid}");
            if root.maybe(format!("{place}/patch_state")).as_deref() != Some(wanted) {
                continue;
            }
            let stat = root.maybe(format!("{place}/stat"));
            let Some((comm, state, kernel_thread)) = stat.as_deref().and_then(parse_stat) else { continue };
            let Ok(tid) = tid.parse() else { continue };
            let stack = root.maybe(format!("{place}/stack")).unwrap_or_default();
            tasks.insert(tid, Task { tid, comm, state, kernel_thread, stack: parse_stack(&stack) });
        }
    }
    tasks.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for (path, text) in files {
            let path = root.path(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        (directory, root)
    }

    /// A module that tells of these build-ids.
    fn module_of(modules: &[(&str, &str)]) -> PatchModule {
        let modules: BTreeMap<_, _> = modules.iter().copied().collect();
        let note = serde_json::json!({
            "note": 1, "release": "6.1.0", "build_id": null, "modules": modules, "patches": [],
            "version": "1", "replace": true, "functions": [],
        });
        PatchModule {
            name: "new".into(),
            vermagic: "6.1.0".into(),
            build_id: None,
            note: serde_json::from_value(note).unwrap(),
            replace: None,
            functions: Vec::new(),
            info: Vec::new(),
            signed: false,
            relocations: Vec::new(),
            code: BTreeMap::new(),
        }
    }

    #[test]
    fn live_patches_of_sysfs() {
        let (_directory, root) = tree(&[
            ("/proc/modules", "two 1 0\nleft 1 0\nxfs 1 0\none 1 0\n"),
            ("/proc/sys/kernel/osrelease", "6.1.0\n"),
            ("/sys/kernel/livepatch/one/enabled", "1\n"),
            ("/sys/kernel/livepatch/one/transition", "0\n"),
            ("/sys/kernel/livepatch/one/vmlinux/patched", "1\n"),
            ("/sys/kernel/livepatch/one/vmlinux/f.isra.0,1/x", ""),
            ("/sys/kernel/livepatch/one/xfs/patched", "0\n"),
            ("/sys/kernel/livepatch/two/enabled", "0\n"),
            ("/sys/kernel/livepatch/two/transition", "1\n"),
            ("/sys/module/left/taint", "OK\n"),
            ("/sys/module/xfs/taint", "\n"),
        ]);
        let state = state(&root).unwrap();
        assert!(state.livepatch);
        assert_eq!((state.release.as_str(), state.leftovers), ("6.1.0", vec!["left".to_owned()]));
        let [one, two] = state.patches.as_slice() else { panic!("{:?}", state.patches) };
        assert_eq!((one.name.as_str(), one.enabled, one.transition), ("one", true, false));
        assert_eq!(one.objects[0].functions, [("f.isra.0".to_owned(), 1)]);
        assert_eq!((one.objects[0].patched, one.objects[1].patched), (Some(true), Some(false)));
        assert_eq!((two.name.as_str(), two.enabled, two.transition), ("two", false, true));
    }

    #[test]
    fn the_kernels_own_order_comes_before_ours() {
        let (_directory, root) = tree(&[
            ("/proc/modules", "b 1 0\na 1 0\n"),
            ("/sys/kernel/livepatch/a/enabled", "1"),
            ("/sys/kernel/livepatch/a/stack_order", "2"),
            ("/sys/kernel/livepatch/b/enabled", "1"),
            ("/sys/kernel/livepatch/b/stack_order", "1"),
        ]);
        let names: Vec<_> = state(&root).unwrap().patches.into_iter().map(|patch| patch.name).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn a_record_is_believed_for_the_same_loading_only() {
        let (_directory, root) = tree(&[("/sys/kernel/livepatch/a/enabled", "1")]);
        let inode = inode(&root, "a").unwrap();
        let save = |inode| {
            let record = Record { since: 7, inode, file: "a.ko".into() };
            fs_err::create_dir_all(root.path(RECORDS)).unwrap();
            fs_err::write(root.path("/run/kpatch/a.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        };
        assert_eq!(patch(&root, "a").unwrap().since, None);
        save(inode);
        assert_eq!(patch(&root, "a").unwrap().since, Some(7));
        save(inode + 1);
        assert_eq!(patch(&root, "a").unwrap().since, None);
    }

    #[test]
    fn what_the_system_demands() {
        let (_directory, root) = tree(&[
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("/sys/module/module/parameters/sig_enforce", "Y\n"),
            ("/sys/kernel/debug/tracing/enabled_functions", "f (1) R I\n"),
            ("/sys/module/xfs/notes/.note.gnu.build-id", "\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0AB"),
        ]);
        let module = module_of(&[("xfs", "0a"), ("absent", "0b")]);
        let around = surroundings(&root, &module);
        assert_eq!((around.lockdown.as_str(), around.signatures_enforced), ("integrity", true));
        assert_eq!(around.hooks.unwrap().len(), 1);
        assert_eq!(around.modules, [("xfs".to_owned(), "4142".to_owned())].into());
        let (_directory, empty) = tree(&[]);
        assert_eq!(surroundings(&empty, &module), Surroundings::default());
    }

    #[test]
    fn tasks_that_have_not_switched() {
        let stat = |comm: &str| format!("7 ({comm}) S 1 7 7 0 -1 4194304 0\n");
        let (_directory, root) = tree(&[
            ("/proc/7/task/7/patch_state", "0\n"),
            ("/proc/7/task/7/stat", &stat("sleep")),
            ("/proc/7/task/7/stack", "[<0>] hrtimer_nanosleep+0xc6/0x1b0\n"),
            ("/proc/7/task/8/patch_state", "1\n"),
            ("/proc/7/task/8/stat", &stat("done")),
            ("/proc/sys/patch_state", "0\n"),
        ]);
        let names =
            |enabling| unswitched(&root, enabling).into_iter().map(|task| task.comm).collect::<Vec<_>>();
        assert_eq!(names(true), ["sleep"]);
        assert_eq!(names(false), ["done"]);
    }

    #[test]
    fn files_that_are_no_modules() {
        let (directory, root) = tree(&[("/x.ko", "text"), ("/y.ko", "\x1f\u{8b}")]);
        assert_eq!(module(directory.path()).unwrap_err().code(), "not-a-file");
        assert_eq!(module(&root.path("/x.ko")).unwrap_err().code(), "bad-module");
        assert_eq!(module(&root.path("/z.ko")).unwrap_err().code(), "io");
    }
}
