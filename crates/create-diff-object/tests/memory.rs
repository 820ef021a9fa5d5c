//! A large object is compared in less than four times its size in memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use create_diff_object::{Entry, EntrySizes, Input, Outcome, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::Object;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Enough that what does not grow with the object does not show.
const FUNCTIONS: usize = 4000;

/// Most memory that a comparison allocates at a time, the shipped symbol table included, in sizes of one of the two
/// objects. The objects themselves are mapped by whoever compares.
const MOST: usize = 4;

/// The pairs of real objects that can be linked with each other, as their tables have entries of the same sizes, and
/// these. Unwind tables are in order of address, which a link of parts does not keep.
fn pairs() -> (Vec<PathBuf>, BTreeMap<String, u32>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff/x86_64");
    let mut groups: BTreeMap<String, (Vec<PathBuf>, BTreeMap<String, u32>)> = BTreeMap::new();
    for case in std::fs::read_dir(directory).unwrap() {
        let case = case.unwrap().path();
        let text = std::fs::read(case.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let object = std::fs::read(case.join("original.o")).unwrap();
        let has_orc = Object::read(&object).unwrap().section_named(".orc_unwind").is_some();
        if expected["status"] == 0 && !has_orc {
            let sizes = expected["struct_sizes"].clone();
            let group = groups.entry(sizes.to_string()).or_default();
            group.0.push(case);
            group.1 = serde_json::from_value(sizes).unwrap();
        }
    }
    let (mut cases, sizes) = groups.into_values().max_by_key(|(cases, _)| cases.len()).unwrap();
    cases.sort();
    (cases, sizes)
}

fn run(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// Both versions of an object made of copies of real ones, each with names of its own: the first copy changes. As in a
/// link of a whole kernel, special sections become one, while functions and data keep sections of their own.
fn grow(cases: &[PathBuf], directory: &Path) -> [Vec<u8>; 2] {
    let (mut functions, mut copies) = (0, Vec::new());
    let copy = |case: &Path, version: &str, number: usize| {
        let to = directory.join(format!("{version}-{number}"));
        let prefix = format!("--prefix-symbols=c{number}_");
        run("objcopy", &[Path::new(&prefix), &case.join(version), &to]);
        // What functions are entered by keeps its name.
        let tracer = format!("--redefine-sym=c{number}___fentry__=__fentry__");
        run("objcopy", &[Path::new(&tracer), &to]);
        to
    };
    for (number, case) in cases.iter().cycle().enumerate() {
        let object = std::fs::read(case.join("original.o")).unwrap();
        functions += Object::read(&object).unwrap().symbols.iter().filter(|s| s.is_function()).count();
        copies.push(copy(case, "original.o", number));
        if functions >= FUNCTIONS {
            break;
        }
    }
    let mut link = |first: PathBuf, to: &str| {
        let to = directory.join(to);
        copies[0] = first;
        let flags =
            ["-r", "--unique=.text.*", "--unique=.data.*", "--unique=.bss.*", "--unique=.rodata.*", "-o"];
        let words: Vec<&Path> = flags
            .iter()
            .map(Path::new)
            .chain([to.as_path()])
            .chain(copies.iter().map(PathBuf::as_path))
            .collect();
        run("ld", &words);
        std::fs::read(to).unwrap()
    };
    let original = link(copy(&cases[0], "original.o", 0), "original");
    [original, link(copy(&cases[0], "patched.o", 0), "patched")]
}

#[test]
fn a_large_object_is_compared_in_four_times_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let (cases, known) = pairs();
    let [original, patched] = grow(&cases, directory.path());
    let mut sizes = EntrySizes::default();
    for entry in Entry::ALL {
        known.get(entry.variable()).into_iter().for_each(|&size| sizes.set(entry, size));
    }
    let exports = Symvers::default();

    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let shipped = SymbolTable::from_elf(&original).unwrap();
    let outcome = diff(&Input::new([&original, &patched], &shipped, &exports, &sizes));
    let used = MEMORY.peak_usage() - before;

    match outcome {
        Ok(Outcome::Extract(extract)) => assert!(!extract.report.changed.is_empty()),
        Ok(Outcome::Unchanged(_)) => panic!("no change was found"),
        Err(failure) => panic!("{:?}", failure.errors),
    }
    let size = original.len();
    println!(
        "{used} bytes for objects of {size} bytes: {}.{:02} times",
        used / size,
        used * 100 / size % 100
    );
    assert!(used < MOST * size, "{used} bytes for objects of {size} bytes");
}
