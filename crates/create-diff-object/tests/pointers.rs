//! Where the address of a function is taken.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use create_diff_object::{EntrySizes, pointers_to};
use kpatch_elf::arch::Machine;

const SOURCE: &str = "\
int known(int);
int called(void) { return known(1) + known(2); }
int take(int (*)(int));
int pointed(void) {
    return take(known) + 1;
}
int (*table[])(int) = { known };
void freeze(void) __attribute__((cold));
int split(int x) {
    if (x) { freeze(); return take(known) + 2; }
    return x + 1;
}
";

#[test]
fn pointers_are_told_from_calls() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("a.c"), SOURCE).unwrap();
    let output = Command::new("gcc-12")
        .args([
            "-O2",
            "-g1",
            "-mcmodel=kernel",
            "-fno-pic",
            "-ffunction-sections",
            "-fdata-sections",
            "-c",
            "-o",
        ])
        .args([at("a.o"), at("a.c")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object = std::fs::read(at("a.o")).unwrap();
    let found = pointers_to(&object, &EntrySizes::builtin(Machine::X86_64), "known");
    let found: Vec<(&str, Option<u64>)> =
        found.iter().map(|p| (p.holder.as_str(), p.source.as_ref().map(|s| s.line))).collect();
    assert_eq!(found, [("pointed", Some(5)), ("split", Some(10)), ("table", None)]);
    assert!(
        kpatch_elf::Object::read(&object).unwrap().symbols.iter().any(|s| s.name.as_ref() == "split.cold")
    );
}
