//! Names of source files in the sanitizer's data must not tell where the sources were.

#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::process::Command;

use create_diff_object::{EntrySizes, Input, Options, Outcome, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::arch::Machine;

const HEADER: &str =
    "extern int table[4];\n__attribute__((noinline)) static int get(int i) { return table[i]; }\n";
const UNIT: &str = "#include \"get.h\"\nint before(int i) { return get(i) + table[i + 1]; }\n";
const PATCHED: &str =
    "#include \"get.h\"\nint before(int i) { return get(i + 1) + table[i + 2] + table[i + 3]; }\n";

/// Compiles a unit as kpatch-build does: by its absolute path.
fn compile(tree: &Path, text: &str) -> Vec<u8> {
    let directory = tree.join("net");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("get.h"), HEADER).unwrap();
    std::fs::write(directory.join("unit.c"), text).unwrap();
    let object = tree.join("unit.o");
    let output = Command::new("gcc-12")
        .args([
            "-O2",
            "-ffreestanding",
            "-mcmodel=kernel",
            "-fno-pic",
            "-pg",
            "-mfentry",
            "-fsanitize=bounds",
        ])
        .args(["-ffunction-sections", "-fdata-sections", "-c", "-o"])
        .arg(&object)
        .arg(format!("-fmacro-prefix-map={}/=", tree.display()))
        .arg(directory.join("unit.c"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(object).unwrap()
}

/// The extract made of sources in two trees, if there is a change.
fn extract(original_tree: &Path, patched_tree: &Path, patched: &str) -> Option<Vec<u8>> {
    let (original, patched) = (compile(original_tree, UNIT), compile(patched_tree, patched));
    let table = SymbolTable::from_elf(&original).unwrap();
    let trees = [original_tree, patched_tree].map(|tree| format!("{}/", tree.display()));
    let (exports, sizes) = (Symvers::default(), EntrySizes::builtin(Machine::X86_64));
    let input = Input {
        source_trees: &trees.each_ref().map(String::as_str),
        options: Options { make_entry_table: true, ..Options::default() },
        ..Input::new([&original, &patched], &table, &exports, &sizes)
    };
    match diff(&input).unwrap() {
        Outcome::Extract(extract) => Some(extract.bytes),
        Outcome::Unchanged(_) => None,
    }
}

#[test]
fn the_extract_does_not_depend_on_where_the_sources_are() {
    let place = tempfile::Builder::new().prefix("t").tempdir_in("/tmp").unwrap();
    // gcc puts strings of 31 bytes and more elsewhere than shorter ones.
    let far = place.path().join("a-directory-with-a-name-of-some-length");
    let near = place.path().join("n");
    let one = extract(&far.join("original"), &far.join("patched"), PATCHED).unwrap();
    let other = extract(&near, &place.path().join("p"), PATCHED).unwrap();
    let named = |bytes: &[u8], name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(named(&one, b"net/unit.c\0") && !named(&one, b"/net/unit.c"));
    assert_eq!(one, other);
}

#[test]
fn a_unit_in_another_tree_is_no_change() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(extract(&place.path().join("original"), &place.path().join("p"), UNIT), None);
}
