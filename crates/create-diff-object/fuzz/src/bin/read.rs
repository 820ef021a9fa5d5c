//! Any bytes: the reader gives a model or an error, and what it gives survives being written.
#![no_main]

use fuzz::{Dice, mutate};
use kbuild::symtab::SymbolTable;
use kpatch_elf::Object;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut object = data[..size].to_vec();
    mutate(&mut object, max_size, &mut Dice::new(seed));
    data[..object.len()].copy_from_slice(&object);
    object.len()
});

fuzz_target!(|data: &[u8]| {
    let _ = SymbolTable::from_elf(data).map(|table| table.symbols().len());
    let Ok(first) = Object::read(data) else { return };
    let Ok(written) = first.write() else { return };
    let second = Object::read(&written).expect("what was written can be read");
    assert_eq!(first.sections.len(), second.sections.len());
    assert_eq!(first.symbols.len(), second.symbols.len());
    let relocations = |object: &Object<'_>| object.sections.iter().map(|s| s.relocations.len()).sum::<usize>();
    assert_eq!(relocations(&first), relocations(&second));
    assert_eq!(second.write().expect("what was read can be written"), written, "writing is stable");
});
