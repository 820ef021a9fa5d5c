//! The prover against small "kernels" that gcc and ld make: equal code is proven, every kind of
//! difference is seen.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::Command;

use kbuild::symtab::SymbolTable;
use kpatch_build::prove::{Proof, Shipped, Verdict, prove};
use kpatch_elf::Object;

/// The unit under test; `@…@` marks what tests change.
const UNIT: &str = r#"
extern int printk(const char *fmt, ...);
extern int other(int);
extern const int limits[];
static int count = @1@, spare = 7;
static const int table[8] = { 3, 1, 4, 1, 5, 9, 2, 6 };
int __attribute__((weak)) overridden(int x) { return x + 1; }
static int __attribute__((noinline)) helper(int x) { spare += x; return table[x & 7] * 3; }
int pick(int x)
{
    switch (x) {
    case 0: return other(1);
    case 1: return helper(2) + limits[1];
    case 2: return printk("two %d\n", count);
    case 3: return helper(4);
    case 4: return printk("@four@\n");
    case 5: return count++ + spare;
    }
    return @-1@;
}
int __attribute__((cold)) rare(int x) { return printk("rare %d\n", x) + @other@(x); }
"#;

const REST: &str = r"
int printk(const char *fmt, ...) { return fmt[0]; }
int other(int x) { return x * 5; }
int another(int x) { return x * 5; }
int overridden(int x) { return x + 2; }
static int __attribute__((noinline)) helper(int x) { return x * 77; }
const int limits[2] = { 10, 20 };
int entry(int x) { return helper(x); }
";

fn unit(changes: &[(&str, &str)]) -> String {
    let mut text = UNIT.to_owned();
    for (marker, value) in changes {
        assert!(text.contains(&format!("@{marker}@")), "no marker {marker}");
        text = text.replace(&format!("@{marker}@"), value);
    }
    text.replace('@', "")
}

fn run(command: &mut Command) {
    let output = command.output().expect("the compiler runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn compile(dir: &Path, name: &str, source: &str) {
    std::fs::write(dir.join(format!("{name}.c")), source).unwrap();
    run(Command::new("gcc-12")
        .current_dir(dir)
        .args([
            "-O2",
            "-ffreestanding",
            "-fno-pie",
            "-mcmodel=kernel",
            "-fno-asynchronous-unwind-tables",
            "-fno-stack-protector",
            "-fno-ipa-icf",
            "-mno-sse",
            "-c",
        ])
        .arg(format!("{name}.c")));
}

struct Kernel {
    dir: tempfile::TempDir,
}

impl Kernel {
    fn new(unit_source: &str) -> Kernel {
        let dir = tempfile::tempdir().unwrap();
        compile(dir.path(), "unit", unit_source);
        compile(dir.path(), "rest", REST);
        run(Command::new("ld").current_dir(dir.path()).args([
            "-Ttext=0xffffffff81000000",
            "-e",
            "entry",
            "-o",
            "vmlinux",
            "rest.o",
            "unit.o",
        ]));
        run(Command::new("ld").current_dir(dir.path()).args(["-r", "-o", "module.ko", "rest.o", "unit.o"]));
        Kernel { dir }
    }

    fn prove(&self, file: &str, compiled: &str) -> Proof {
        compile(self.dir.path(), "unit", compiled);
        let object = std::fs::read(self.dir.path().join("unit.o")).unwrap();
        let object = Object::read(&object).unwrap();
        let bytes = std::fs::read(self.dir.path().join(file)).unwrap();
        let symbols = SymbolTable::from_elf(&bytes).unwrap();
        let shipped = if file == "vmlinux" {
            Shipped::vmlinux(&bytes, &symbols).unwrap()
        } else {
            Shipped::module(&bytes, &symbols).unwrap()
        };
        prove(&object, &shipped, "unit.c")
    }
}

fn differing(proof: &Proof) -> Vec<String> {
    proof.differences().map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_same_source_is_proven() {
    let kernel = Kernel::new(&unit(&[]));
    for file in ["vmlinux", "module.ko"] {
        let proof = kernel.prove(file, &unit(&[]));
        assert_eq!(differing(&proof), [""; 0], "{file}");
        assert_eq!((proof.equal(), proof.undecided()), (4, 0), "{file}: {proof:?}");
        assert_eq!(proof.verdict("overridden"), Some(&Verdict::Overridden), "{file}");
    }
}

#[test]
fn every_kind_of_difference_is_seen() {
    let kernel = Kernel::new(&unit(&[]));
    for file in ["vmlinux", "module.ko"] {
        // An immediate, a string, a callee with an equal body.
        for (marker, value, function) in
            [("-1", "-2", "pick"), ("four", "FOUR", "pick"), ("other", "another", "rare")]
        {
            let proof = kernel.prove(file, &unit(&[(marker, value)]));
            assert_eq!(differing(&proof), [function], "{file} with {marker} changed to {value}");
        }
    }
}

#[test]
fn an_address_behind_a_string_belongs_to_that_string() {
    // Loops over a string compare with an address behind it, where the linker puts whatever it likes.
    let past = |text: &str| {
        let unit = unit(&[]);
        format!(
            "{unit}\nvoid *past(void) {{ void *p; asm volatile(\"mov $%c1, %0\" : \"=r\"(p) : \"i\"(\"{text}\" + 12)); return p; }}"
        )
    };
    let kernel = Kernel::new(&past("window"));
    for file in ["vmlinux", "module.ko"] {
        let proof = kernel.prove(file, &past("window"));
        assert_eq!(proof.verdict("past"), Some(&Verdict::Equal), "{file}: {proof:?}");
        assert_eq!(differing(&kernel.prove(file, &past("widow"))), ["past"], "{file}");
    }
}

#[test]
fn swapped_data_is_seen() {
    let kernel = Kernel::new(&unit(&[]));
    let swapped = unit(&[]).replace("spare += x", "count += x").replace("count++ + spare", "spare++ + count");
    for file in ["vmlinux", "module.ko"] {
        let proof = kernel.prove(file, &swapped);
        assert!(!differing(&proof).is_empty(), "{file}: {proof:?}");
    }
}

#[test]
fn a_function_of_another_size_is_seen() {
    let kernel = Kernel::new(&unit(&[]));
    let longer = unit(&[]).replace("return table[x & 7] * 3;", "return table[x & 7] * 3 + limits[0];");
    let proof = kernel.prove("vmlinux", &longer);
    assert!(differing(&proof).contains(&"helper".to_owned()), "{proof:?}");
}

#[test]
fn another_kernel_has_none_of_it() {
    let kernel = Kernel::new(&unit(&[]));
    let proof = kernel.prove("vmlinux", "int unheard_of(int x) { return x; }");
    assert_eq!(proof.absent().collect::<Vec<_>>(), ["unheard_of"]);
}
