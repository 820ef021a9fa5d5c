use kpatch_elf::note::{PatchFile, Provenance};

use super::*;
use crate::model::state::PatchedObject;

fn function(name: &str) -> NotedFunction {
    NotedFunction { object: "vmlinux".into(), name: name.into(), sympos: 0 }
}

fn note(patches: &[&str]) -> Note {
    let patch = |name: &&str| PatchFile {
        subject: format!("fix {name}"),
        blake3: (*name).to_owned(),
        description: String::new(),
    };
    Note {
        note: 1,
        provenance: Provenance {
            release: "6.1.0".into(),
            build_id: Some("aa".into()),
            modules: [("xfs".to_owned(), "bb".to_owned())].into(),
            level: None,
            patches: patches.iter().map(patch).collect(),
            skipped: Vec::new(),
            version: "1".into(),
        },
        replace: true,
        functions: vec![function("f")],
    }
}

fn module(patches: &[&str]) -> PatchModule {
    PatchModule {
        name: "new".into(),
        vermagic: "6.1.0 SMP mod_unload ".into(),
        build_id: Some("aa".into()),
        note: Some(note(patches)),
        replace: Some(true),
        functions: vec![function("f")],
        info: Vec::new(),
        signed: false,
        relocations: Vec::new(),
        code: std::collections::BTreeMap::new(),
    }
}

fn loaded(name: &str, patches: &[&str]) -> LivePatch {
    LivePatch {
        name: name.into(),
        enabled: true,
        objects: vec![PatchedObject {
            name: "vmlinux".into(),
            patched: Some(true),
            functions: vec![("f".into(), 1)],
        }],
        note: Some(note(patches)),
        ..LivePatch::default()
    }
}

fn state(patches: Vec<LivePatch>) -> State {
    State {
        release: "6.1.0".into(),
        build_id: Some("aa".into()),
        patches,
        leftovers: vec!["left".into()],
        livepatch: true,
    }
}

fn refusal(module: &PatchModule, state: &State, around: &Surroundings) -> &'static str {
    load(module, state, around, false).unwrap_err().code()
}

#[test]
fn nothing_in_the_way() {
    let plan = load(&module(&["a"]), &state(vec![]), &Surroundings::default(), false).unwrap();
    assert_eq!(plan, Load { start: Start::Insert, remarks: vec![] });
    let left = PatchModule { name: "left".into(), ..module(&["a"]) };
    assert_eq!(load(&left, &state(vec![]), &Surroundings::default(), false).unwrap().start, Start::Reinsert);
}

#[test]
fn the_kernel_must_be_the_one() {
    let around = Surroundings::default();
    let none = State { livepatch: false, ..state(vec![]) };
    assert_eq!(refusal(&module(&["a"]), &none, &around), "no-livepatch");
    let other = PatchModule { vermagic: "6.1.1 SMP".into(), ..module(&["a"]) };
    assert_eq!(refusal(&other, &state(vec![]), &around), "release");
    let other = PatchModule { build_id: Some("bb".into()), ..module(&["a"]) };
    assert_eq!(refusal(&other, &state(vec![]), &around), "build-id");
    let silent = PatchModule { build_id: None, ..module(&["a"]) };
    assert!(load(&silent, &state(vec![]), &around, false).is_ok());
}

#[test]
fn patched_modules_must_be_the_ones() {
    let with = |id: &str| Surroundings {
        modules: [("xfs".to_owned(), id.to_owned())].into(),
        ..Surroundings::default()
    };
    assert_eq!(refusal(&module(&["a"]), &state(vec![]), &with("cc")), "build-id");
    // It may come later.
    for around in [with("bb"), Surroundings::default()] {
        assert!(load(&module(&["a"]), &state(vec![]), &around, false).is_ok());
    }
}

#[test]
fn signatures_where_the_kernel_wants_them() {
    for around in [
        Surroundings { lockdown: "integrity".into(), ..Surroundings::default() },
        Surroundings { signatures_enforced: true, ..Surroundings::default() },
    ] {
        assert_eq!(refusal(&module(&["a"]), &state(vec![]), &around), "unsigned");
        let signed = PatchModule { signed: true, ..module(&["a"]) };
        assert!(load(&signed, &state(vec![]), &around, false).is_ok());
    }
}

#[test]
fn older_patches_do_not_displace_newer_ones() {
    let around = Surroundings::default();
    let state = state(vec![loaded("big", &["a", "b"])]);
    let error = load(&module(&["a"]), &state, &around, false).unwrap_err();
    assert_eq!((error.code(), error.cause().join("")), ("older", "would be taken back: fix b".to_owned()));
    assert!(load(&module(&["a"]), &state, &around, true).is_ok());
    for patches in [&["a", "b"][..], &["a", "b", "c"], &["c"]] {
        let plan = load(&module(patches), &state, &around, false).unwrap();
        assert_eq!(plan.remarks, ["new replaces big"]);
    }
}

#[test]
fn a_patch_of_the_same_name() {
    let around = Surroundings::default();
    let with = |enabled, transition| state(vec![LivePatch { enabled, transition, ..loaded("new", &["a"]) }]);
    let start = |state: &State| load(&module(&["a"]), state, &around, false).unwrap().start;
    assert_eq!(start(&with(true, false)), Start::Nothing);
    assert_eq!(start(&with(true, true)), Start::Wait);
    assert_eq!(start(&with(false, true)), Start::Enable);
    assert_eq!(refusal(&module(&["b"]), &with(true, false), &around), "name-taken");
}

#[test]
fn one_transition_at_a_time() {
    let moving = state(vec![LivePatch { transition: true, ..loaded("other", &["x"]) }]);
    assert_eq!(refusal(&module(&["a"]), &moving, &Surroundings::default()), "other-transition");
    assert_eq!(unload("new", &moving).unwrap_err().code(), "not-loaded");
    assert_eq!(unload("other", &moving).unwrap(), Unload::Disable);
    assert_eq!(unload("left", &moving).unwrap(), Unload::Remove);
    let two = state(vec![loaded("one", &[]), LivePatch { transition: true, ..loaded("other", &[]) }]);
    assert_eq!(unload("one", &two).unwrap_err().code(), "other-transition");
    let going = state(vec![LivePatch { transition: true, enabled: false, ..loaded("one", &[]) }]);
    assert_eq!(unload("one", &going).unwrap(), Unload::Wait);
}

#[test]
fn redirecting_hooks_are_in_the_way_unless_they_are_livepatches_own() {
    let hook = |text: &str| Surroundings {
        hooks: Some(super::super::ftrace::parse_enabled_functions(text)),
        kprobes: "ffff k f+0x0 [FTRACE]\n".into(),
        ..Surroundings::default()
    };
    let foreign = hook("f (1) R I \ttramp: 0xff (kprobe_ftrace_handler+0x0)\n");
    let error = load(&module(&["a"]), &state(vec![]), &foreign, false).unwrap_err();
    assert_eq!(error.code(), "hooked");
    assert!(error.cause()[0].contains("[FTRACE]"));
    // Two hooks are not told apart, but one of them is livepatch's where the function is patched.
    let shared = hook("f (2) R I \ttramp: ERROR!\n");
    assert!(load(&module(&["a"]), &state(vec![loaded("other", &["x"])]), &shared, false).is_ok());
    for harmless in ["f (1) R \ttramp: x\n", "f [xfs] (1) R I \n", "g (1) R I\n"] {
        assert!(load(&module(&["a"]), &state(vec![]), &hook(harmless), false).is_ok(), "{harmless}");
    }
}

#[test]
fn what_stacks_is_remarked() {
    let stacking = PatchModule { replace: Some(false), ..module(&["c"]) };
    let plan = load(&stacking, &state(vec![loaded("one", &["a"])]), &Surroundings::default(), false).unwrap();
    assert_eq!(plan.remarks, ["f is patched by one already; new takes its place"]);
}
