//! Objects with more sections than the ELF header can count (`SHN_LORESERVE`, 65,280): the numbers stand elsewhere, in the
//! first section header and in `SHT_SYMTAB_SHNDX`.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use create_diff_object::{EntrySizes, Input, Outcome, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::Object;

/// Functions, each with a section for its code and one for its relocations.
const FUNCTIONS: usize = 35_000;

/// An object of many functions, the last of which returns something.
fn object(directory: &Path, last: usize) -> Vec<u8> {
    let mut text = String::new();
    for number in 0..FUNCTIONS {
        let value = if number + 1 == FUNCTIONS { last } else { number };
        let _ = write!(
            text,
            ".section .text.f{number},\"ax\",@progbits\n.globl f{number}\n.type f{number},@function\n\
             f{number}:\ncall __fentry__\nmov ${value}, %eax\nret\n.size f{number}, .-f{number}\n"
        );
    }
    let (source, output) = (directory.join("unit.s"), directory.join("unit.o"));
    std::fs::write(&source, text).unwrap();
    let made = Command::new("as").arg("-o").arg(&output).arg(&source).status().unwrap();
    assert!(made.success());
    std::fs::read(&output).unwrap()
}

#[test]
fn sections_beyond_the_header_s_count_are_read_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let (original, patched) = (object(directory.path(), 1), object(directory.path(), 2));
    assert_eq!(original[60..62], [0, 0], "the header's count of sections");

    let shipped = SymbolTable::from_elf(&original).unwrap();
    let exports = Symvers::parse(b"").unwrap();
    let sizes = EntrySizes::default();
    let input = Input::new([&original, &patched], &shipped, &exports, &sizes);
    let Ok(Outcome::Extract(extract)) = diff(&input) else { panic!("no extract") };
    assert_eq!(extract.report.changed, [format!("f{}", FUNCTIONS - 1)]);
    assert!(extract.report.new.is_empty());

    let model = Object::read(&original).unwrap();
    let written = model.write().unwrap();
    assert_eq!(written[60..62], [0, 0]);
    let again = Object::read(&written).unwrap();
    assert_eq!(model.sections.len(), again.sections.len());
    let place = |object: &Object<'_>, name: &str| {
        let symbol = object.symbols.iter().find(|s| s.name.as_ref() == name).unwrap();
        object.section(symbol.section().unwrap()).name.to_string()
    };
    let last = format!("f{}", FUNCTIONS - 1);
    assert_eq!(place(&again, &last), format!(".text.{last}"));
    let path = directory.path().join("written.o");
    std::fs::write(&path, &written).unwrap();
    let said = Command::new("readelf").args(["-h", "-S", "-s", "-W"]).arg(&path).output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty());
}
