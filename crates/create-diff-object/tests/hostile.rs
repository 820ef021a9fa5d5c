#![allow(clippy::unwrap_used)]
//! Damaged objects are errors or differences, never a panic.

use std::collections::BTreeMap;
use std::path::Path;

use create_diff_object::{Entry, EntrySizes, Input, Options, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::arch::Machine;

/// Original and patched.
type Pair = (Vec<u8>, Vec<u8>);

/// The machines and for each its smallest pairs.
fn pairs() -> BTreeMap<&'static str, Vec<Pair>> {
    let mut out = BTreeMap::new();
    for machine in ["x86_64", "aarch64", "ppc64le", "s390x", "loongarch64"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff").join(machine);
        let mut list: Vec<Pair> = std::fs::read_dir(directory)
            .unwrap()
            .flatten()
            .map(|case| {
                let read = |name| std::fs::read(case.path().join(name)).unwrap();
                (read("original.o"), read("patched.o"))
            })
            .collect();
        list.sort_by_key(|(original, patched)| original.len() + patched.len());
        list.truncate(2);
        assert!(!list.is_empty(), "no pairs of {machine}");
        out.insert(machine, list);
    }
    out
}

fn sizes(machine: &str) -> EntrySizes {
    let machine = match machine {
        "x86_64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        "ppc64le" => Machine::Ppc64le,
        "s390x" => Machine::S390x,
        _ => Machine::LoongArch64,
    };
    EntrySizes::builtin(machine)
}

/// Compares, and looks at every result.
fn run(machine: &str, original: &[u8], patched: &[u8], table: &SymbolTable<'_>) -> bool {
    let input = Input {
        original,
        patched,
        unit: "unit.o",
        object: "vmlinux",
        shipped: table,
        exports: &Symvers::default(),
        sizes: &sizes(machine),
        source_trees: &[],
        options: Options { make_entry_table: true, ..Options::default() },
    };
    match diff(&input) {
        Ok(_) => true,
        Err(failure) => {
            assert!(!failure.errors.is_empty());
            for error in &failure.errors {
                assert!(!error.to_string().is_empty() && !error.error.code().is_empty());
            }
            false
        }
    }
}

/// A small generator, the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn truncated_objects_are_refused() {
    for (machine, list) in pairs() {
        let (original, patched) = &list[0];
        let table = SymbolTable::from_elf(original).unwrap();
        assert!(run(machine, original, patched, &table), "{machine}: the whole pair is fine");
        // Every byte of the file header, then on a grid that no structure has.
        let places = (0..64).chain((64..patched.len()).step_by(61));
        for place in places {
            assert!(!run(machine, original, &patched[..place], &table), "{machine}: first {place} bytes");
        }
    }
}

#[test]
fn flipped_bytes_do_not_panic() {
    for (machine, list) in pairs() {
        for (original, patched) in &list {
            let table = SymbolTable::from_elf(original).unwrap();
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
            for _ in 0..150 {
                let mut damaged = patched.clone();
                for _ in 0..=dice.next() % 4 {
                    let place = (dice.next() % damaged.len() as u64) as usize;
                    damaged[place] ^= 1 << (dice.next() % 8);
                }
                run(machine, original, &damaged, &table);
                run(machine, &damaged, patched, &table);
            }
        }
    }
}

#[test]
fn damaged_tables_do_not_panic() {
    // Words in section headers, symbols and relocations: large, small, negative.
    let words = [0u64, 1, 7, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX, i64::MAX as u64];
    for (machine, list) in pairs() {
        let (original, patched) = &list[0];
        let table = SymbolTable::from_elf(original).unwrap();
        let mut dice = Dice(0x1234_5678_9abc_def1);
        let big = patched[5] == 2;
        let headers = {
            let field: [u8; 8] = patched[0x28..0x30].try_into().unwrap();
            (if big { u64::from_be_bytes(field) } else { u64::from_le_bytes(field) }) as usize
        };
        for round in 0..300 {
            let mut damaged = patched.clone();
            // Half of them in the section headers, which rule everything else.
            let place = if round % 2 == 0 {
                headers + (dice.next() as usize) % (damaged.len() - headers)
            } else {
                (dice.next() as usize) % damaged.len()
            } & !7;
            let word = words[(dice.next() as usize) % words.len()];
            let bytes = if big { word.to_be_bytes() } else { word.to_le_bytes() };
            if let Some(field) = damaged.get_mut(place..place + 8) {
                field.copy_from_slice(&bytes);
            }
            run(machine, original, &damaged, &table);
            run(machine, &damaged, patched, &table);
        }
    }
}

#[test]
fn sizes_have_names_in_c_and_in_the_environment() {
    let names: std::collections::BTreeSet<&str> = Entry::ALL.iter().map(|e| e.variable()).collect();
    assert_eq!(names.len(), Entry::ALL.len());
    assert!(Entry::ALL.iter().all(|e| !e.structure().is_empty()));
}
