//! Debug information does not change code, so that the objects that are compared may have more or less of it
//! than the kernel's.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::process::Command;

use kpatch_elf::Object;

const SOURCE: &str = r#"
struct item { int key; struct item *next; };
extern int printk(const char *fmt, ...);
extern void sink(struct item *);
static int count;
static const char *const names[] = { "zero", "one", "two" };
static inline int twice(int x) { return x * 2 + __LINE__; }
int find(struct item *item, int key)
{
    for (; item; item = item->next) {
        if (item->key == twice(key))
            return printk("%s %d\n", names[key % 3], ++count);
        if (__builtin_expect(item->key < 0, 0))
            sink(item);
    }
    switch (key) { case 1: return 7; case 2: return 9; case 3: return 23; case 4: return count; case 5: return 1; }
    return -1;
}
"#;

/// Name, bytes and relocations of every section that is loaded.
type Loaded = Vec<(String, Vec<u8>, Vec<(u64, u32, i64, String)>)>;

fn loaded(dir: &std::path::Path, option: &str) -> Loaded {
    let output = dir.join(format!("unit{option}.o"));
    let status = Command::new("gcc-12")
        .args([
            "-O2",
            "-ffreestanding",
            "-fno-pie",
            "-mcmodel=kernel",
            "-ffunction-sections",
            "-fdata-sections",
        ])
        .args(["-gz=none", option, "-c", "-o"])
        .arg(&output)
        .arg(dir.join("unit.c"))
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(output).unwrap();
    let object = Object::read(&bytes).unwrap();
    let sections = object.sections.iter().filter(|section| section.is_alloc());
    sections
        .map(|section| {
            let relocations = section.relocations.iter().map(|r| {
                let symbol = r.symbol.map(|id| object.display_name(id).to_string()).unwrap_or_default();
                (r.offset, r.kind, r.addend, symbol)
            });
            (section.name.to_string(), section.bytes().to_vec(), relocations.collect())
        })
        .collect()
}

#[test]
fn debug_information_changes_no_code() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("unit.c"), SOURCE).unwrap();
    let without = loaded(dir.path(), "-g0");
    assert!(without.iter().any(|(name, bytes, _)| name == ".text.find" && bytes.len() > 64));
    for option in ["-g1", "-g", "-g3"] {
        assert_eq!(loaded(dir.path(), option), without, "{option}");
    }
    // The comparison can fail: another option does change code.
    assert_ne!(loaded(dir.path(), "-fcf-protection=branch"), without);
}
