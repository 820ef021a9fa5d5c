//! Damaged objects are errors or differences: never a panic, a hang, or more memory than 8 times the input's
//! size plus 16 MiB.
//!
//! `cargo xtask test` tries a part of the points, the same every time; all of them are tried where
//! `KPATCH_TEST_FULL` is set, as `cargo xtask test --full` does.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use create_diff_object::{Entry, EntrySizes, Input, Options, Outcome, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::Endian;
use kpatch_elf::arch::Machine;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process, so that only one test may run at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// No comparison of an object of the corpus takes a processor so long, in the slowest build.
const LONGEST: Duration = Duration::from_secs(20);

/// Time that this process has had a processor: on a busy machine a clock on the wall says little.
fn processor_time() -> Duration {
    // `utime` and `stime` of proc(5), in hundredths of a second (`USER_HZ`), are 12th and 13th behind the program's name.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

#[test]
fn processor_time_goes_on() {
    let _alone = ALONE.lock();
    let start = processor_time();
    while processor_time() == start {}
}

const MACHINES: [(&str, Machine); 5] = [
    ("x86_64", Machine::X86_64),
    ("aarch64", Machine::Aarch64),
    ("ppc64le", Machine::Ppc64le),
    ("s390x", Machine::S390x),
    ("loongarch64", Machine::LoongArch64),
];

struct Pair {
    case: PathBuf,
    machine: Machine,
    original: Vec<u8>,
    patched: Vec<u8>,
}

/// The pairs of each machine, smallest first.
fn pairs() -> Vec<Vec<Pair>> {
    let mut out = Vec::new();
    for (name, machine) in MACHINES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff").join(name);
        let mut list: Vec<Pair> = std::fs::read_dir(directory)
            .unwrap()
            .flatten()
            .map(|case| {
                let read = |name| std::fs::read(case.path().join(name)).unwrap();
                Pair { case: case.path(), machine, original: read("original.o"), patched: read("patched.o") }
            })
            .collect();
        list.sort_by_key(|pair| (pair.original.len() + pair.patched.len(), pair.case.clone()));
        assert!(!list.is_empty(), "no pairs of {name}");
        out.push(list);
    }
    out
}

fn all_points() -> bool {
    std::env::var_os("KPATCH_TEST_FULL").is_some()
}

/// Compares, looks at every result, and holds it to its limits. True if there was no error.
fn run(pair: &Pair, what: &str, original: &[u8], patched: &[u8]) -> bool {
    let table = SymbolTable::from_elf(&pair.original).unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = processor_time();
    let good = {
        let (exports, sizes) = (Symvers::default(), EntrySizes::builtin(pair.machine));
        let input = Input {
            options: Options { make_entry_table: true, instructions: true, ..Options::default() },
            ..Input::new([original, patched], &table, &exports, &sizes)
        };
        match diff(&input) {
            Ok(Outcome::Unchanged(_)) => true,
            Ok(Outcome::Extract(extract)) => {
                kpatch_elf::Object::read(&extract.bytes)
                    .unwrap_or_else(|error| panic!("{} {what}: extract: {error}", pair.case.display()));
                true
            }
            Err(failure) => {
                assert!(!failure.errors.is_empty());
                for error in &failure.errors {
                    assert!(!error.to_string().is_empty() && !error.error.code().is_empty());
                }
                false
            }
        }
    };
    let (time, used) = (processor_time().saturating_sub(start), MEMORY.peak_usage().saturating_sub(before));
    let limit = 8 * (original.len() + patched.len()) + (16 << 20);
    assert!(used <= limit, "{} {what}: {used} bytes of memory, {limit} allowed", pair.case.display());
    assert!(time < LONGEST, "{} {what}: {time:?}", pair.case.display());
    good
}

/// A small generator, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Where the tables and sections of an object begin and end, and the entries of its section table.
fn boundaries(object: &[u8]) -> Vec<usize> {
    let endian = if object[5] == 2 { Endian::Big } else { Endian::Little };
    let headers = endian.u64(object, 0x28).unwrap() as usize;
    let count = usize::from(endian.u16(object, 0x3c).unwrap());
    let mut out = vec![0, 64, headers];
    for index in 0..count {
        let header = headers + index * 64;
        out.push(header + 64);
        let offset = endian.u64(object, header + 24).unwrap() as usize;
        out.push(offset);
        out.push(offset + endian.u64(object, header + 32).unwrap() as usize);
    }
    // Right before and right behind as well.
    let mut out: Vec<usize> = out.iter().flat_map(|&at| [at.saturating_sub(1), at, at + 1]).collect();
    out.retain(|&at| at < object.len());
    out.sort_unstable();
    out.dedup();
    out
}

/// Cuts both versions, the other being whole. Bytes behind everything that counts may be missing.
fn truncate(pair: &Pair, length: usize) {
    let what = format!("first {length} bytes");
    let needed = |object: &[u8]| boundaries(object).last().map_or(0, |last| last.saturating_sub(8));
    if length < pair.patched.len() {
        let good = run(pair, &what, &pair.original, &pair.patched[..length]);
        assert!(!good || length >= needed(&pair.patched), "{} {what}: accepted", pair.case.display());
    }
    if length < pair.original.len() {
        let good = run(pair, &what, &pair.original[..length], &pair.patched);
        assert!(!good || length >= needed(&pair.original), "{} {what}: accepted", pair.case.display());
    }
}

#[test]
fn truncated_objects_are_refused() {
    let _alone = ALONE.lock();
    let mut dice = Dice(0x0dd0_b0d1_e500_0001);
    for machine in pairs() {
        for (index, pair) in machine.iter().enumerate() {
            run(pair, "whole", &pair.original, &pair.patched);
            if index == 0 {
                let step = if all_points() { 1 } else { 13 };
                (0..pair.patched.len()).step_by(step).for_each(|length| truncate(pair, length));
                continue;
            }
            let places = boundaries(&pair.patched);
            let step = if all_points() { 1 } else { 1 + places.len() / 60 };
            places.into_iter().step_by(step).for_each(|length| truncate(pair, length));
            for _ in 0..if all_points() { 2000 } else { 20 } {
                truncate(pair, dice.below(pair.patched.len()));
            }
        }
    }
}

/// Every pair of all machines or, in the short run, those that a slow build compares quickly; and how many
/// damaged versions of each.
fn damaged(most: usize, few: usize) -> Vec<(Pair, usize)> {
    let whole = all_points();
    pairs()
        .into_iter()
        .flat_map(|list| list.into_iter().enumerate())
        .filter(|(index, pair)| whole || *index < 2 || pair.patched.len() < 20_000)
        .map(|(_, pair)| (pair, if whole { most } else { few }))
        .collect()
}

#[test]
fn flipped_bits_do_no_harm() {
    let _alone = ALONE.lock();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for (pair, points) in damaged(2000, 60) {
        for round in 0..points {
            let mut object = if round % 4 == 0 { pair.original.clone() } else { pair.patched.clone() };
            for _ in 0..=dice.below(4) {
                let place = dice.below(object.len());
                object[place] ^= 1 << dice.below(8);
            }
            let what = format!("flipped bits {round}");
            if round % 4 == 0 {
                run(&pair, &what, &object, &pair.patched);
            } else {
                run(&pair, &what, &pair.original, &object);
            }
        }
    }
}

#[test]
fn damaged_tables_do_no_harm() {
    let _alone = ALONE.lock();
    // Words in section headers, symbols and relocations: large, small, negative.
    let words = [0u64, 1, 7, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX, i64::MAX as u64];
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for (pair, points) in damaged(500, 60) {
        let endian = if pair.patched[5] == 2 { Endian::Big } else { Endian::Little };
        let headers = endian.u64(&pair.patched, 0x28).unwrap() as usize;
        for round in 0..points {
            let mut object = pair.patched.clone();
            // Half of them in the section headers, which rule everything else.
            let from = if round % 2 == 0 { headers } else { 0 };
            let place = (from + dice.below(object.len() - from)) & !7;
            let word = words[dice.below(words.len())];
            let bytes = if endian == Endian::Big { word.to_be_bytes() } else { word.to_le_bytes() };
            if let Some(field) = object.get_mut(place..place + 8) {
                field.copy_from_slice(&bytes);
            }
            let what = format!("word {word:#x} at {place:#x}");
            run(&pair, &what, &pair.original, &object);
            run(&pair, &what, &object, &pair.patched);
        }
    }
}

#[test]
fn sizes_have_names_in_c_and_in_the_environment() {
    let names: std::collections::BTreeSet<&str> = Entry::ALL.iter().map(|e| e.variable()).collect();
    assert_eq!(names.len(), Entry::ALL.len());
    assert!(Entry::ALL.iter().all(|e| !e.structure().is_empty()));
}
