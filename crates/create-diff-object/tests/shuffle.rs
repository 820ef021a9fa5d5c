//! The result does not depend on the order of sections and symbols, nor on the numbers that compilers put
//! into names.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use create_diff_object::{Entry, EntrySizes, Input, Options, Outcome, Report, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::{
    Contents, Info, Link, Object, Place, SectionId, Symbol, SymbolId, section_flags, symbol_kind,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// A small generator, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            let j = self.below(i + 1);
            list.swap(i, j);
        }
    }
}

/// The same object with its sections and symbols in another order. Symbols stay behind their file symbol,
/// which is what the order means.
fn reorder<'d>(object: &Object<'d>, dice: &mut Dice) -> Object<'d> {
    let mut sections: Vec<usize> = (0..object.sections.len()).collect();
    // Entries of joined sections stay in their order, as unwind tables run in parallel.
    dice.shuffle(&mut sections);
    let mut section_ids = vec![SectionId(0); sections.len()];
    for (new, &old) in sections.iter().enumerate() {
        section_ids[old] = SectionId(new as u32);
    }
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new()];
    for (index, symbol) in object.symbols.iter().enumerate() {
        if symbol.kind == symbol_kind::FILE {
            blocks.push(vec![index]);
        } else if let Some(block) = blocks.last_mut() {
            block.push(index);
        }
    }
    for block in &mut blocks {
        let named = block.first().is_some_and(|&i| object.symbols[i].kind == symbol_kind::FILE);
        dice.shuffle(&mut block[usize::from(named)..]);
    }
    if blocks.len() > 2 {
        // The last block holds the global symbols, too; they are of no file.
        blocks[1..].reverse();
    }
    let symbols: Vec<usize> = blocks.concat();
    let mut symbol_ids = vec![SymbolId(0); symbols.len()];
    for (new, &old) in symbols.iter().enumerate() {
        symbol_ids[old] = SymbolId(new as u32);
    }
    let mut out = Object::empty_like(object);
    for &old in &sections {
        let mut section = object.sections[old].clone();
        if let Link::Section(id) = section.link {
            section.link = Link::Section(section_ids[id.index()]);
        }
        section.info = match section.info {
            Info::Section(id) => Info::Section(section_ids[id.index()]),
            Info::Symbol(id) => Info::Symbol(symbol_ids[id.index()]),
            raw @ Info::Raw(_) => raw,
        };
        if let Contents::Group { members, .. } = &mut section.contents {
            for member in members {
                *member = section_ids[member.index()];
            }
        }
        for relocation in section.relocations.to_mut() {
            relocation.symbol = relocation.symbol.map(|s| symbol_ids[s.index()]);
        }
        out.add_section(section);
    }
    for &old in &symbols {
        let mut symbol = object.symbols[old].clone();
        if let Place::Section(id) = symbol.place {
            symbol.place = Place::Section(section_ids[id.index()]);
        }
        out.add_symbol(symbol);
    }
    out
}

/// Gives the numbers in the names of local symbols to each other, within each base name. Returns new names
/// by old ones.
fn renumber(object: &mut Object<'_>, dice: &mut Dice) -> BTreeMap<String, String> {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut bases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for symbol in object.symbols.iter().filter(|s| is_numbered_static(s)) {
        let name = symbol.name.to_string();
        if let Some((base, number)) = name.rsplit_once('.')
            && is_number(&number)
        {
            bases.entry(base.to_owned()).or_default().insert(number.to_owned());
        }
    }
    let mut names = BTreeMap::new();
    for (base, numbers) in bases {
        let before: Vec<String> = numbers.into_iter().collect();
        let mut after: Vec<usize> = (0..before.len()).map(|i| 10_000 + 7 * i).collect();
        dice.shuffle(&mut after);
        for (number, new) in before.iter().zip(after) {
            names.insert(format!("{base}.{number}"), format!("{base}.{new}"));
        }
    }
    for symbol in &mut object.symbols {
        if let Some(new) = names.get(&symbol.name.to_string()) {
            symbol.name = Cow::Owned(new.as_str().into());
        }
    }
    for section in &mut object.sections {
        let name = section.name.to_string();
        let renamed = [".data.", ".bss.", ".rodata.", ".text."]
            .iter()
            .find_map(|prefix| Some(format!("{prefix}{}", names.get(name.strip_prefix(prefix)?)?)));
        if let Some(renamed) = renamed {
            section.name = Cow::Owned(renamed.into());
        }
    }
    names
}

/// Static locals, and no clones: those of several numbers in one name belong together.
fn is_numbered_static(symbol: &Symbol<'_>) -> bool {
    symbol.is_local() && symbol.is_object() && symbol.name.split(|b| *b == b'.').count() == 2
}

fn compare(original: &[u8], patched: &[u8], sizes: &EntrySizes) -> (u8, Report) {
    let table = SymbolTable::from_elf(original).unwrap();
    let exports = Symvers::default();
    let input = Input {
        options: Options { make_entry_table: true, ..Options::default() },
        ..Input::new([original, patched], &table, &exports, sizes)
    };
    match diff(&input) {
        Ok(Outcome::Unchanged(report)) => (3, report),
        Ok(Outcome::Extract(extract)) => (0, extract.report),
        Err(failure) => (failure.exit_status(), failure.report),
    }
}

/// What must not depend on order: everything but the names that were changed.
fn essence(status: u8, report: &Report, names: &BTreeMap<String, String>) -> Vec<String> {
    let new = |name: &String| names.get(name).unwrap_or(name).clone();
    let set = |list: &[String]| list.iter().map(new).collect::<BTreeSet<String>>();
    // Sections of joined entries keep their sizes; sections of renamed data have new names.
    let special = |name: &&String| name.starts_with("__") || name.starts_with(".altinstr");
    vec![
        format!("status {status}"),
        format!("changed {:?}", set(&report.changed)),
        format!("new {:?}", set(&report.new)),
        format!("callbacks {:?}", set(&report.callbacks)),
        format!("functions {:?}", set(&report.functions)),
        format!("line_only {:?}", set(&report.line_only)),
        format!("klp {:?}", report.klp_symbols.iter().collect::<BTreeSet<_>>()),
        format!("undefined {:?}", report.undefined.iter().collect::<BTreeSet<_>>()),
        format!(
            "sections {:?}",
            report.sections.iter().filter(|(name, _)| special(name)).collect::<Vec<_>>()
        ),
    ]
}

fn sizes(case: &Path) -> EntrySizes {
    let text = std::fs::read(case.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mut sizes = EntrySizes::default();
    for entry in Entry::ALL {
        let size = expected.get("struct_sizes").and_then(|s| s.get(entry.variable()));
        if let Some(size) = size.and_then(serde_json::Value::as_u64) {
            sizes.set(entry, size as u32);
        }
    }
    sizes
}

/// All pairs of the corpus.
fn cases() -> Vec<PathBuf> {
    let mut cases = Vec::new();
    for machine in ["x86_64", "aarch64", "s390x", "ppc64le", "loongarch64"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/objdiff").join(machine);
        cases.extend(std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()));
    }
    cases.sort();
    cases
}

/// Shuffling a unit's original symbols would change which shipped file they are of, so the patched version is
/// shuffled and the original is renumbered by nobody.
#[test]
fn order_and_numbers_mean_nothing() {
    let mut pairs = 0;
    for case in cases() {
        let original = std::fs::read(case.join("original.o")).unwrap();
        let patched = std::fs::read(case.join("patched.o")).unwrap();
        if original.len() + patched.len() > 600_000 {
            continue;
        }
        pairs += 1;
        let sizes = sizes(&case);
        let (status, report) = compare(&original, &patched, &sizes);
        let mut runner = TestRunner::new(Config {
            cases: 5,
            rng_seed: RngSeed::Fixed(20_261_121),
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&(1..u64::MAX), |seed| {
                let mut dice = Dice(seed);
                let object = Object::read(&patched).unwrap();
                let mut shuffled = reorder(&object, &mut dice);
                let names = renumber(&mut shuffled, &mut dice);
                let bytes = shuffled.write().unwrap();
                let (other_status, other) = compare(&original, &bytes, &sizes);
                let none = BTreeMap::new();
                let (want, got) = (essence(status, &report, &names), essence(other_status, &other, &none));
                for (want, got) in want.into_iter().zip(got) {
                    prop_assert_eq!(want, got, "{}", case.display());
                }
                Ok(())
            })
            .unwrap();
    }
    assert!(pairs > 40, "{pairs} pairs were tried");
}

/// Functions that have nothing to do with the change are new, and change nothing else.
#[test]
fn unrelated_functions_are_new_and_no_more() {
    let mut pairs = 0;
    for case in cases() {
        let original = std::fs::read(case.join("original.o")).unwrap();
        let patched = std::fs::read(case.join("patched.o")).unwrap();
        if original.len() + patched.len() > 300_000 {
            continue;
        }
        let sizes = sizes(&case);
        let (status, report) = compare(&original, &patched, &sizes);
        if status != 0 {
            continue;
        }
        pairs += 1;
        let mut object = Object::read(&patched).unwrap();
        let strangers: Vec<String> = (0..3).map(|number| format!("stranger_{number}")).collect();
        for name in &strangers {
            add_function(&mut object, name);
        }
        let (other_status, other) = compare(&original, &object.write().unwrap(), &sizes);
        assert_eq!((status, &report.changed), (other_status, &other.changed), "{}", case.display());
        let with: BTreeSet<&String> = report.new.iter().chain(&strangers).collect();
        assert_eq!(with, other.new.iter().collect(), "{}", case.display());
        assert_eq!(report.klp_symbols, other.klp_symbols, "{}", case.display());
    }
    assert!(pairs > 30, "{pairs} pairs were tried");
}

fn add_function(object: &mut Object<'_>, name: &str) {
    let code = vec![0; 16];
    let flags = section_flags::ALLOC | section_flags::EXECINSTR;
    let kind = kpatch_elf::section_type::PROGBITS;
    let section =
        object.add_section(kpatch_elf::Section::new(format!(".text.{name}"), kind, flags, 16, code));
    object.add_symbol(Symbol {
        name: Cow::Owned(name.into()),
        value: 0,
        size: 16,
        kind: symbol_kind::FUNC,
        binding: kpatch_elf::binding::GLOBAL,
        other: 0,
        place: Place::Section(section),
    });
}
