//! Commands against a kernel of the tests' own.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::Context;
use super::fake::{Fake, RELEASE, Said};
use super::*;
use crate::model::state::Phase;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn load(fake: &mut Fake, module: &Path) -> (Result<()>, Said) {
    let options = load::Options { limit: SECONDS(75), downgrade: false };
    fake.run(false, |cx| super::load::one(cx, module, options))
}

fn unload(fake: &mut Fake, module: &str) -> (Result<()>, Said) {
    fake.run(false, |cx| super::unload::one(cx, Path::new(module), SECONDS(75)))
}

fn loaded(fake: &Fake) -> Vec<(String, Phase)> {
    let state = read::state(&fake.root).unwrap();
    state.patches.iter().map(|patch| (patch.name.clone(), patch.phase())).collect()
}

fn enabled(names: &[&str]) -> Vec<(String, Phase)> {
    names.iter().map(|name| ((*name).to_owned(), Phase::Enabled)).collect()
}

#[test]
fn a_module_comes_and_goes() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    let (result, said) = load(&mut fake, &module);
    result.unwrap();
    assert!(said.out.contains("loading patch module: "), "{said:?}");
    assert_eq!(loaded(&fake), enabled(&["one"]));
    assert!(read::state(&fake.root).unwrap().patches[0].since.is_some());

    // Once more changes nothing.
    let calls = fake.calls.len();
    load(&mut fake, &module).0.unwrap();
    assert_eq!(fake.calls.len(), calls);

    fake.references = SECONDS(2);
    unload(&mut fake, "one").0.unwrap();
    assert!(loaded(&fake).is_empty());
    assert_eq!(fake.root.text("/proc/modules").unwrap(), "");
    assert_eq!(unload(&mut fake, "one").0.unwrap_err().code(), "not-loaded");
}

#[test]
fn what_is_loaded_is_what_was_checked() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    fake.written = Some(module.clone());
    assert_eq!(load(&mut fake, &module).0.unwrap_err().code(), "file-changed");
    assert!(!fake.calls.iter().any(|call| call == "insert"));
    assert!(loaded(&fake).is_empty());
}

#[test]
fn a_stalled_load_is_told_and_undone() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    fake.transition = SECONDS(1000);
    fake.sleeper('S', "0", "f");
    let (result, said) = load(&mut fake, &module);
    let error = result.unwrap_err();
    assert_eq!(error.code(), "stalled");
    assert!(error.to_string().contains("it was undone and the module removed"), "{error}");
    assert!(error.cause()[0].contains("7 sleeper: sleeps in f, which the patch changes"), "{error:?}");
    assert!(said.out.contains("patch transition has stalled!"), "{said:?}");
    assert!(said.out.contains("every 15 seconds by itself"), "{said:?}");
    assert!(loaded(&fake).is_empty());
    assert_eq!(fake.root.text("/proc/modules").unwrap(), "");
    assert!(!fake.calls.iter().any(|call| call.contains("force")));
    assert!((75..80).contains(&fake.elapsed().as_secs()), "{:?}", fake.elapsed());
}

#[test]
fn a_stalled_unload_leaves_the_patch_in_force() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    load(&mut fake, &module).0.unwrap();
    fake.transition = SECONDS(1000);
    fake.sleeper('D', "1", "f");
    let error = unload(&mut fake, "one").0.unwrap_err();
    assert_eq!(error.code(), "stalled");
    assert!(error.cause()[0].contains("no signal reaches it"), "{error:?}");
    assert_eq!(loaded(&fake), enabled(&["one"]));
}

#[test]
fn a_slow_transition_is_waited_for() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    fake.transition = SECONDS(31);
    fake.sleeper('S', "0", "g");
    let (result, said) = load(&mut fake, &module);
    result.unwrap();
    assert_eq!(said.out.matches("Stalled processes:").count(), 1, "the same tasks are told once: {said:?}");
    assert!(said.out.contains("transition complete (31 seconds)"), "{said:?}");
}

#[test]
fn the_next_command_understands_what_an_interrupted_one_left() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    // Killed after finit_module: the transition goes on.
    fake.transition = SECONDS(3);
    fake.insert(&std::fs::File::open(&module).unwrap()).unwrap();
    assert_eq!(loaded(&fake), [("one".to_owned(), Phase::Enabling)]);
    load(&mut fake, &module).0.unwrap();
    assert_eq!(loaded(&fake), enabled(&["one"]));
    // Killed while disabling.
    fake.set("one", "enabled", "0").unwrap();
    load(&mut fake, &module).0.unwrap();
    assert_eq!(loaded(&fake), enabled(&["one"]));
    // Killed between the end of the transition and rmmod.
    fake.transition = Duration::ZERO;
    fake.set("one", "enabled", "0").unwrap();
    assert_eq!(read::state(&fake.root).unwrap().leftovers, ["one"]);
    load(&mut fake, &module).0.unwrap();
    assert_eq!(loaded(&fake), enabled(&["one"]));
    fake.set("one", "enabled", "0").unwrap();
    unload(&mut fake, "one").0.unwrap();
    assert_eq!(fake.root.text("/proc/modules").unwrap(), "");
}

#[test]
fn an_upgrade_replaces_and_removes_the_old_module() {
    let mut fake = Fake::new();
    let old = fake.module("v1", &["a"], &["f"], true);
    let new = fake.module("v2", &["a", "b"], &["f", "g"], true);
    load(&mut fake, &old).0.unwrap();
    let (result, said) = load(&mut fake, &new);
    result.unwrap();
    assert!(said.out.contains("note: v2 replaces v1"), "{said:?}");
    assert_eq!(loaded(&fake), enabled(&["v2"]));
    assert!(!fake.root.text("/proc/modules").unwrap().contains("v1"));
    assert_eq!(load(&mut fake, &old).0.unwrap_err().code(), "older");
    let downgrade = load::Options { limit: SECONDS(75), downgrade: true };
    fake.run(false, |cx| super::load::one(cx, &old, downgrade)).0.unwrap();
    assert_eq!(loaded(&fake), enabled(&["v1"]));

    let (_, said) = fake.run(false, |cx| diff::run(cx, &old, &new));
    let expected = "+ patch     fix b\n+ function  vmlinux g\n~ function  vmlinux f\n";
    assert_eq!(said.out, expected);
    let (_, said) = fake.run(false, |cx| diff::run(cx, &old, &old));
    assert_eq!(said.out, "= function  vmlinux f\n");
}

#[test]
fn a_busy_kernel_is_tried_again_and_its_words_are_passed_on() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    fake.refusals = vec![Errno::BUSY; 2];
    load(&mut fake, &module).0.unwrap();
    assert_eq!(fake.calls.iter().filter(|call| *call == "insert").count(), 3);
    unload(&mut fake, "one").0.unwrap();
    for errno in [Errno::BUSY, Errno::NOEXEC] {
        fake.refusals = vec![errno; 5];
        let error = load(&mut fake, &module).0.unwrap_err();
        assert_eq!(error.code(), "refused");
        assert_eq!(error.cause().last().unwrap(), "kernel: livepatch: the reason");
        fake.refusals.clear();
    }
    assert!(loaded(&fake).is_empty());
}

#[test]
fn others_transitions_are_waited_for() {
    let mut fake = Fake::new();
    let (one, two) = (fake.module("one", &["a"], &["f"], false), fake.module("two", &["b"], &["g"], false));
    fake.transition = SECONDS(5);
    fake.insert(&std::fs::File::open(&one).unwrap()).unwrap();
    load(&mut fake, &two).0.unwrap();
    assert_eq!(loaded(&fake), enabled(&["one", "two"]));
    fake.transition = SECONDS(500);
    fake.set("two", "enabled", "0").unwrap();
    assert_eq!(unload(&mut fake, "one").0.unwrap_err().code(), "other-transition");
}

#[test]
fn all_goes_on_after_failures() {
    let mut fake = Fake::new();
    let place = format!("/var/lib/kpatch/{RELEASE}");
    for name in ["b", "d"] {
        let module = fake.module(name, &[name], &[name], false);
        fake.write(&format!("{place}/{name}.ko"), fs_err::read(module).unwrap());
    }
    fake.write(&format!("{place}/a.ko"), "corrupt");
    let foreign = fake.module_for("5.4.0", "foreign", &["x"], &["f"], false);
    fake.write(&format!("{place}/c.ko"), fs_err::read(foreign).unwrap());
    let options = load::Options { limit: SECONDS(75), downgrade: false };
    let (result, said) = fake.run(false, |cx| super::load::all(cx, options));
    assert_eq!(result.unwrap_err().to_string(), "2 of 4 modules failed");
    assert!(said.err.contains("bad-module") && said.err.contains("for kernel 5.4.0"), "{said:?}");
    assert_eq!(loaded(&fake), enabled(&["b", "d"]));
    let (result, _) = fake.run(false, |cx| super::unload::all(cx, SECONDS(75)));
    result.unwrap();
    assert!(loaded(&fake).is_empty());
    let removed: Vec<&String> = fake.calls.iter().filter(|call| call.starts_with("remove")).collect();
    assert_eq!(removed, ["remove d", "remove b"], "the topmost goes first");
}

#[test]
fn installing() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["CVE-2026-0001"], &["f"], true);
    let install = |fake: &mut Fake, path: &Path, release: Option<&str>| {
        fake.run(false, |cx| super::install::run(cx, path, release)).0
    };
    install(&mut fake, &module, None).unwrap();
    assert_eq!(install(&mut fake, &module, None).unwrap_err().code(), "already-installed");
    assert_eq!(install(&mut fake, &module, Some("5.4.0")).unwrap_err().code(), "release");
    assert_eq!(install(&mut fake, &module.with_extension("c"), None).unwrap_err().code(), "not-ko");
    load(&mut fake, Path::new("one")).0.unwrap();
    let (_, said) = fake.run(false, list::run);
    assert!(said.out.contains("one [enabled] since "), "{said:?}");
    assert!(said.out.contains(&format!("\nInstalled patch modules:\none ({RELEASE})\n")), "{said:?}");
    assert!(said.out.contains("vmlinux  f         one\n"), "{said:?}");
    let (_, said) = fake.run(false, uname::run);
    assert_eq!(said.out, format!("{RELEASE}+one\n"));
    let (_, said) = fake.run(false, |cx| info::run(cx, Path::new("one")));
    assert!(said.out.contains("fixes:          CVE-2026-0001\n"), "{said:?}");
    let uninstall =
        |fake: &mut Fake, name: &str| fake.run(false, |cx| super::uninstall::run(cx, name, None)).0;
    assert_eq!(uninstall(&mut fake, "/x/one.ko").unwrap_err().code(), "path-given");
    assert_eq!(uninstall(&mut fake, "two").unwrap_err().code(), "not-installed");
    uninstall(&mut fake, "one").unwrap();
    assert_eq!(load(&mut fake, Path::new("one")).0.unwrap_err().code(), "no-such-module");
    // What is loaded still tells what it is.
    let (result, said) = fake.run(false, |cx| info::run(cx, Path::new("one")));
    result.unwrap();
    assert!(said.out.contains("loaded, not installed"), "{said:?}");
}

#[test]
fn what_has_nothing_to_do_leaves_nothing() {
    let mut fake = Fake::new();
    let look = |cx: &mut Context<'_>| {
        let error = super::uninstall::run(cx, "two", None).unwrap_err();
        assert_eq!(error.code(), "not-installed");
        assert!(!cx.root.path("/var/lib/kpatch").exists());
        Ok(())
    };
    fake.run(false, look).0.unwrap();
}

#[test]
fn fixes_in_force_and_available() {
    let mut fake = Fake::new();
    let old = fake.module("v1", &["a"], &["f"], true);
    let new = fake.module("v2", &["a", "b"], &["f"], true);
    load(&mut fake, &old).0.unwrap();
    let (_, said) = fake.run(false, show::in_force);
    assert_eq!(said.out, "fix a (v1)\n");
    let (_, said) = fake.run(false, |cx| show::available(cx, std::slice::from_ref(&new)));
    assert_eq!(said.out, "fix b (v2)\n");
    let (_, said) = fake.run(false, |cx| show::available(cx, &[]));
    assert_eq!(said.out, "no further fixes are available\n");
}

#[test]
fn force_only_what_is_under_way() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    assert_eq!(fake.run(false, force::run).0.unwrap_err().code(), "no-transition");
    fake.transition = SECONDS(500);
    fake.insert(&std::fs::File::open(&module).unwrap()).unwrap();
    fs_err::write(fake.root.path("/sys/kernel/livepatch/one/force"), "0").unwrap();
    fake.sleeper('S', "0", "f");
    let (_, said) = fake.run(false, signal::run);
    assert!(said.err.contains("by itself"), "{said:?}");
    let (result, said) = fake.run(false, force::run);
    result.unwrap();
    assert!(said.out.contains("7 sleeper"), "{said:?}");
    assert_eq!(loaded(&fake), enabled(&["one"]));
}

#[test]
fn json_is_one_value() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    let options = load::Options { limit: SECONDS(75), downgrade: false };
    let (_, said) = fake.run(true, |cx| super::load::one(cx, &module, options));
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["module"], "one");
    let (_, said) = fake.run(true, list::run);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["loaded"][0]["state"], "enabled");
    assert_eq!(value["functions"][0]["by"][0], "one");
}

#[test]
fn what_is_no_patch_module() {
    let mut fake = Fake::new();
    let good = fake.module("good", &["a"], &["f"], true);
    let bytes = fs_err::read(&good).unwrap();
    let info = |text: &str| {
        format!("static const char i[] __attribute__((used, section(\".modinfo\"))) = \"{text}\";")
    };
    let plain = fake.compile("plain", "int x;");
    let ordinary = fake.compile("ordinary", &info("name=ordinary\\0vermagic=6.1.0-test SMP"));
    let named = fake.compile("named", &info("name=../x\\0livepatch=Y\\0vermagic=6.1.0-test SMP"));
    for (file, says) in [(plain, "no kernel module"), (ordinary, "is no live patch"), (named, "../x")] {
        let error = load(&mut fake, &file).0.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    for size in (0..bytes.len()).step_by(97) {
        fake.write("/short.ko", &bytes[..size]);
        let short = fake.root.path("/short.ko");
        assert_eq!(load(&mut fake, &short).0.unwrap_err().code(), "bad-module", "{size}");
    }
    assert!(fake.calls.is_empty(), "nothing is touched: {:?}", fake.calls);
}

#[test]
fn verify_never_takes_the_unreadable_for_right() {
    let mut fake = Fake::new();
    let module = fake.module("one", &["a"], &["f"], true);
    load(&mut fake, &module).0.unwrap();
    let verify = |fake: &mut Fake| {
        let (result, said) = fake.run(false, |cx| verify::run(cx, None));
        (result.map_err(|error| error.to_string()), said.out)
    };
    let (result, out) = verify(&mut fake);
    assert_eq!(result.unwrap_err(), "1 of 4 checks could not be made on this system");
    assert!(out.contains("unknown vmlinux f: tracefs"), "{out}");
    fake.write("/sys/kernel/tracing/enabled_functions", "g (1) R I\n");
    let (result, out) = verify(&mut fake);
    assert_eq!(result.unwrap_err(), "1 of 4 checks failed");
    assert!(out.contains("WRONG   vmlinux f: ftrace does not redirect it"), "{out}");
    fake.write("/sys/kernel/tracing/enabled_functions", "f (1) R I\n");
    fake.write("/proc/kallsyms", "0000000000000000 t f\n");
    assert!(verify(&mut fake).1.contains("hides addresses"));
    fake.write("/proc/kallsyms", "0000000000001000 t f\n");
    assert!(verify(&mut fake).1.contains("unknown vmlinux f: /proc/kcore"));
    // One segment that holds the function's code.
    let core = |code: [u8; 9]| {
        let mut core = vec![0; 64 + 56];
        (core[32], core[54], core[56], core[64], core[72], core[81], core[96]) = (64, 56, 1, 1, 120, 0x10, 9);
        core.extend(code);
        core
    };
    fake.write("/proc/kcore", core([0x0f, 0x1f, 0x44, 0, 0, 0, 0, 0, 0]));
    assert!(verify(&mut fake).1.contains("which is no call"));
    fake.write("/proc/kcore", core([0xe8, 0, 0, 0, 0, 0, 0, 0, 0]));
    let (result, out) = verify(&mut fake);
    assert_eq!(result, Ok(()), "{out}");
    fs_err::remove_file(&module).unwrap();
    assert!(verify(&mut fake).1.contains("unknown references: the file"));
}
