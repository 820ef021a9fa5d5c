//! The slice of a unit against the compiler: where a change leaves the slice as it is, it leaves the object as it is.
//!
//! Units are put together at random from what kernel headers are made of, and changed at random.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::Command;

use kpatch_build::slice;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// One declaration. `@` is its own number, `%` that of an earlier declaration of any form, `?` what a change changes.
const FORMS: [&str; 24] = [
    "typedef unsigned int t@;",
    "struct s@ { int a[? + 1]; long b; };",
    "struct s@ { char c; int a[? + 1]; long b; } __attribute__((packed));",
    "enum { E@ = ? };",
    "static inline int f@(int x) { return x * ?; }",
    "static inline __attribute__((__always_inline__)) int f@(int x) { return f%(x) + ?; }",
    "extern inline __attribute__((__gnu_inline__)) int f@(int x) { return x + ?; }",
    "static int (f@)(int x) { return f%(x) - ?; }",
    "extern int f@(int x) __attribute__((__const__));",
    "extern int f@(int x) __asm__(\"label?\");",
    "static int v@ = ?;",
    "static const int v@[] = { ?, 1 };",
    "extern int v@[? + 1];",
    "static struct s% *v@;",
    "static inline int f@(int x) { struct s% s = { .b = x }; return g(&s) + sizeof(s); }",
    "static inline int f@(int x) { return E% + x; }",
    "static __typeof__(E%) v@ = ?;",
    "static __attribute__((__used__)) int f@(int x) { return x - ?; }",
    "int f@(int x) { return x ^ ?; }",
    "static int w@(int x) { return x | ?; }\nextern int f@(int x) __attribute__((__alias__(\"w@\")));",
    "__asm__(\".globl label@_?\");",
    "_Static_assert(? >= 0, \"\");",
    "#pragma pack(push, 2)\nstruct s@ { char a[? + 1]; long b; };\n#pragma pack(pop)",
    "static inline int f@(int x) {\n#pragma pack(?)\n return x * 3; }",
];

/// What of the header the unit itself uses.
const USES: [&str; 5] = [
    "int u@(int x) { return f%(x); }",
    "int u@(int x) { struct s% s = { .b = x }; return g(&s); }",
    "int u@(void) { return E%; }",
    "long u@(int x) { return (long)&v% + x; }",
    "unsigned long u@(void) { return sizeof(struct s%); }",
];

/// A unit before and after a change of one number in it.
fn unit(forms: &[(usize, usize)], uses: &[(usize, usize)], changed: usize) -> [String; 2] {
    // Each kind of name has a first bearer, so that any of them can be mentioned.
    let first = "extern int g(void *); static inline int f0(int x) { return x; } struct s0 { char a; long b; };\n\
                 enum { E0 = 7 }; static int v0;\n";
    [0u8, 1].map(|version| {
        let mut text = first.to_owned();
        let mut bearers = [vec![0], vec![0], vec![0], vec![0]];
        let kinds = ["f", "s", "E", "v"];
        for (at, &(form, earlier)) in forms.iter().chain(uses).enumerate() {
            let number = at + 1;
            let form = if at < forms.len() { FORMS[form % FORMS.len()] } else { USES[form % USES.len()] };
            let mut line = form.replace('?', if at == changed && version == 1 { "3" } else { "2" });
            for (kind, bearers) in kinds.iter().zip(&bearers) {
                let bearer = bearers[earlier % bearers.len()];
                line = line.replace(&format!("{kind}%"), &format!("{kind}{bearer}"));
            }
            text.push_str(&line.replace('@', &number.to_string()));
            text.push('\n');
            for (kind, bearers) in kinds.iter().zip(&mut bearers) {
                // Not every one that is mentioned by `f%` can be mentioned before it is complete.
                if form.contains(&format!("{kind}@")) {
                    bearers.push(number);
                }
            }
        }
        text
    })
}

/// The object, or nothing where the text is no C.
fn compile(directory: &Path, text: &str) -> Option<Vec<u8>> {
    let (source, object) = (directory.join("unit.i"), directory.join("unit.o"));
    std::fs::write(&source, text).unwrap();
    let output = Command::new("gcc")
        .args(["-O2", "-std=gnu11", "-ffunction-sections", "-fdata-sections", "-w", "-c", "-o"])
        .args([&object, &source])
        .output()
        .unwrap();
    output.status.success().then(|| std::fs::read(&object).unwrap())
}

#[test]
fn what_the_slice_leaves_out_the_compiler_makes_nothing_of() {
    let directory = tempfile::tempdir().unwrap();
    let cases = if std::env::var_os("KPATCH_TEST_FULL").is_some() { 4000 } else { 250 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let pick = || (0..1000usize, 0..1000usize);
    let input = (prop::collection::vec(pick(), 6..20), prop::collection::vec(pick(), 1..4), 0..20usize);
    let (same, different, refused) = (Counter::default(), Counter::default(), Counter::default());
    runner
        .run(&input, |(forms, uses, changed)| {
            let [before, after] = unit(&forms, &uses, changed % forms.len());
            if before == after {
                return Ok(());
            }
            let equal = slice::hash(before.as_bytes()) == slice::hash(after.as_bytes());
            if !equal {
                different.count();
                return Ok(());
            }
            match (compile(directory.path(), &before), compile(directory.path(), &after)) {
                (Some(one), Some(other)) => {
                    same.count();
                    prop_assert!(one == other, "the objects differ:\n{}\n--- and ---\n{}", before, after);
                }
                _ => refused.count(),
            }
            Ok(())
        })
        .unwrap();
    let (same, different, refused) = (same.value(), different.value(), refused.value());
    assert!(
        same * 4 > cases && different * 4 > cases,
        "{same} the same, {different} different: says nothing"
    );
    assert!(refused * 10 < same, "{refused} texts are no C, {same} are");
}

#[derive(Default)]
struct Counter(std::cell::Cell<u32>);

impl Counter {
    fn count(&self) {
        self.0.set(self.0.get() + 1);
    }

    fn value(&self) -> u32 {
        self.0.get()
    }
}
