//! Any two objects: an extract that can be read again, no change, or errors with code and text.
#![no_main]

use create_diff_object::{EntrySizes, Input, Options, Outcome, diff};
use fuzz::{Dice, join, mutate, split};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::Object;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut dice = Dice::new(seed);
    let (original, patched) = split(&data[..size]);
    let (mut original, mut patched) = (original.to_vec(), patched.to_vec());
    let room = max_size.saturating_sub(size);
    let side = if dice.below(4) == 0 { &mut original } else { &mut patched };
    let most = side.len() + room;
    mutate(side, most, &mut dice);
    let pair = join(&original, &patched);
    let length = pair.len().min(max_size);
    data[..length].copy_from_slice(&pair[..length]);
    length
});

fuzz_target!(|data: &[u8]| {
    let (original, patched) = split(data);
    let Ok(shipped) = SymbolTable::from_elf(original) else { return };
    let Ok(machine) = Object::read(original).map(|object| object.machine) else { return };
    let (exports, sizes) = (Symvers::default(), EntrySizes::builtin(machine));
    let input = Input {
        options: Options { make_entry_table: true, instructions: true, ..Options::default() },
        ..Input::new([original, patched], &shipped, &exports, &sizes)
    };
    match diff(&input) {
        Ok(Outcome::Unchanged(_)) => {}
        Ok(Outcome::Extract(extract)) => {
            Object::read(&extract.bytes).expect("the extract can be read");
        }
        Err(failure) => {
            assert!(!failure.errors.is_empty());
            for error in &failure.errors {
                assert!(!error.to_string().is_empty() && !error.error.code().is_empty());
            }
        }
    }
});
