//! The program as a user meets it, as far as that needs no kernel.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::Command;

/// What the program left.
struct Seen {
    status: Option<i32>,
    out: String,
    err: String,
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs the program in the directory, which also is its home.
    fn run(&self, words: &[&str]) -> Seen {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kpatch-build"));
        command.args(words).current_dir(self.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path());
        let output = command.output().expect("the program runs");
        // The directory's real name differs in every run.
        let real = std::fs::canonicalize(self.path()).unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&*real.to_string_lossy(), "DIR").replace(&*self.path().to_string_lossy(), "DIR")
        };
        Seen { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs the program, which must fail.
    fn fail(&self, words: &[&str]) -> String {
        let seen = self.run(words);
        assert_eq!(seen.status, Some(1), "{}{}", seen.out, seen.err);
        let modules = std::fs::read_dir(self.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "ko")
        });
        assert_eq!(modules.count(), 0);
        seen.err
    }
}

/// A patch to one line of each file.
fn patch(files: &[&str]) -> String {
    let one =
        |file: &&str| format!("--- a/{file}\n+++ b/{file}\n@@ -1,3 +1,3 @@\n one\n-two\n+changed\n three\n");
    files.iter().map(one).collect()
}

#[test]
fn help_and_version_are_no_failures() {
    let place = Place::new();
    let seen = place.run(&["--help"]);
    assert_eq!((seen.status, seen.err.as_str()), (Some(0), ""));
    insta::assert_snapshot!("help", seen.out);
    let seen = place.run(&["-h"]);
    assert_eq!(seen.status, Some(0));
    insta::assert_snapshot!("short_help", seen.out);
    let seen = place.run(&["--version"]);
    assert_eq!(seen.status, Some(0));
    assert_eq!(seen.out, format!("Version : {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_refused_with_status_1() {
    let place = Place::new();
    assert!(place.fail(&[]).contains("PATCH"));
    assert!(place.fail(&["-r", "kernel.src.rpm", "a.patch"]).contains("-r"));
    assert!(place.fail(&["--oot-module", "a.ko", "a.patch"]).contains("--oot-module"));
}

#[test]
fn all_that_is_wrong_with_the_arguments_is_told_together() {
    let place = Place::new();
    place.write("one.patch", patch(&["fs/a.c"]));
    let seen = place.fail(&["-s", "nosuch", "-t", "everything", "-o", "one.patch", "two.patch"]);
    insta::assert_snapshot!("wrong_arguments", seen);
}

#[test]
fn patches_that_reach_out_of_the_tree_are_refused() {
    let place = Place::new();
    place.write("up.patch", patch(&["../../etc/passwd.c"]));
    place.write("root.patch", patch(&["/etc/passwd.c"]).replace("a//", "//").replace("b//", "//"));
    insta::assert_snapshot!("outside", place.fail(&["up.patch", "root.patch"]));
}

#[test]
fn every_kind_of_file_that_cannot_be_patched_is_named() {
    let place = Place::new();
    let files = ["arch/x86/entry/entry_64.S", "fs/Kconfig", "scripts/Makefile.build", "rust/kernel/lib.rs"];
    place.write("a.patch", patch(&files));
    insta::assert_snapshot!("kinds", place.fail(&["a.patch"]));
}

#[test]
fn a_damaged_patch_is_refused() {
    let place = Place::new();
    place.write("short.patch", "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,9 +1,9 @@\n one\n-two\n+three\n");
    place.write("none.patch", "nothing of a patch\n");
    place.write(
        "binary.patch",
        "diff --git a/fs/a.c b/fs/a.c\nindex 1..2 100644\nBinary files a/fs/a.c and b/fs/a.c differ\n",
    );
    insta::assert_snapshot!("damaged", place.fail(&["short.patch", "none.patch", "binary.patch"]));
}

#[test]
fn settings_are_checked() {
    let place = Place::new();
    place.write("a.patch", patch(&["fs/a.S"]));
    place.write("kpatch-build.toml", "job = 3\n");
    assert!(place.fail(&["a.patch"]).contains("WARNING: DIR/kpatch-build.toml:1: unknown setting `job`"));
    place.write("kpatch-build.toml", "# processors\njobs = \"many\"\n");
    insta::assert_snapshot!("settings", place.fail(&["a.patch"]));
}

#[test]
fn a_cache_that_cannot_be_used_is_named() {
    let place = Place::new();
    place.write("a.patch", patch(&["fs/a.c"]));
    place.write(".kpatch", "in the way");
    let err = place.fail(&["-a", "6.1.0-1-amd64", "a.patch"]);
    assert!(err.contains("DIR/.kpatch") && err.contains("help:"), "{err}");
}

#[test]
fn quiet_and_the_report_for_programs() {
    let place = Place::new();
    place.write("a.patch", patch(&["fs/a.S"]));
    let seen = place.run(&["--quiet", "--json", "r.json", "a.patch"]);
    assert_eq!((seen.status, seen.out.as_str()), (Some(1), ""));
    let text = std::fs::read_to_string(place.path().join("r.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["success"], false);
    assert_eq!(report["errors"][0]["code"], "unsupported-file");
    let seen = place.run(&["--json", "-", "a.patch"]);
    let report: serde_json::Value =
        serde_json::from_str(&seen.out).expect("nothing else on the standard output");
    assert_eq!(report["module"], serde_json::Value::Null);
    place.fail(&["--json", "nosuch/r.json/x", "a.patch"]);
}

#[test]
fn colours_are_for_terminals_or_on_demand() {
    let place = Place::new();
    place.write("a.patch", patch(&["fs/a.S"]));
    for (color, expected) in [("auto", false), ("never", false), ("always", true)] {
        assert_eq!(place.fail(&["--color", color, "a.patch"]).contains('\u{1b}'), expected, "{color}");
    }
}

#[test]
fn phases_are_timed() {
    let place = Place::new();
    place.write("a.patch", patch(&["fs/a.S"]));
    let err = place.fail(&["--time", "a.patch"]);
    assert!(err.lines().any(|line| line.starts_with("total ")), "{err}");
}
