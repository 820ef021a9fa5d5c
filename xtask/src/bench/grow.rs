//! Objects of any size, made of real ones.
//!
//! Real kernel objects are taken again and again, each copy with its own names, and linked with `ld -r` so that every
//! function and datum keeps its own section while special sections become one, as in a link of a whole kernel.

use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Sections of functions and data stay apart.
const UNIQUE: [&str; 4] = ["--unique=.text.*", "--unique=.data.*", "--unique=.bss.*", "--unique=.rodata.*"];

/// A pair that copies are made of.
#[derive(Debug)]
pub(super) struct Base {
    original: PathBuf,
    patched: PathBuf,
    functions: usize,
}

impl Base {
    /// Takes a pair; nothing if its object is too small to be worth a copy.
    pub(super) fn of(case: &Path) -> Result<Option<Base>> {
        let original = case.join("original.o");
        let functions = names(&original, |kind| kind == object::elf::STT_FUNC)?.len();
        Ok((functions >= 20).then(|| Base { original, patched: case.join("patched.o"), functions }))
    }
}

/// A large pair: one copy is changed, all others are the same.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) original: PathBuf,
    pub(super) patched: PathBuf,
    pub(super) functions: usize,
}

/// Makes a pair of at least so many functions in `directory`.
pub(super) fn grow(bases: &[Base], functions: usize, directory: &Path) -> Result<Grown> {
    fs_err::create_dir_all(directory)?;
    let mut copies = Vec::new();
    let mut total = 0;
    for (number, base) in bases.iter().cycle().enumerate() {
        if total >= functions {
            break;
        }
        let copy = directory.join(format!("copy-{number}.o"));
        rename(&base.original, &copy, number)?;
        copies.push(copy);
        total += base.functions;
    }
    let Some((base, first)) = bases.first().zip(copies.first().cloned()) else {
        return Err(Error::Usage("no objects to grow from".to_owned()));
    };
    let changed = directory.join("changed.o");
    rename(&base.patched, &changed, 0)?;
    let grown = Grown {
        original: directory.join("original.o"),
        patched: directory.join("patched.o"),
        functions: total,
    };
    link(&copies, &grown.original)?;
    copies[0].clone_from(&changed);
    link(&copies, &grown.patched)?;
    for copy in copies.iter().chain([&first]) {
        fs_err::remove_file(copy)?;
    }
    Ok(grown)
}

/// Gives everything that an object defines names of its own.
fn rename(from: &Path, to: &Path, number: usize) -> Result<()> {
    let list = to.with_extension("names");
    let mut text = String::new();
    for name in names(from, |kind| kind != object::elf::STT_SECTION)? {
        // In front of the first dot, so that what compilers put behind it stays what it is.
        let (head, rest) = name.find('.').map_or((name.as_str(), ""), |at| name.split_at(at));
        if !head.is_empty() {
            let _ = writeln!(text, "{name} {head}_c{number}{rest}");
        }
    }
    fs_err::write(&list, text)?;
    run(&duct::cmd!("objcopy", format!("--redefine-syms={}", list.display()), from, to), "objcopy")?;
    Ok(fs_err::remove_file(&list)?)
}

fn link(objects: &[PathBuf], to: &Path) -> Result<()> {
    let words: Vec<std::ffi::OsString> = ["-r", "-o"]
        .into_iter()
        .map(Into::into)
        .chain([to.into()])
        .chain(UNIQUE.map(Into::into))
        .chain(objects.iter().map(Into::into))
        .collect();
    run(&duct::cmd("ld", words), "ld")
}

fn run(command: &duct::Expression, name: &str) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::Command { command: name.to_owned(), reason: error.to_string() };
    command.run().map(drop).map_err(failed)
}

/// Names of the symbols that an object defines, of the types that are wanted.
fn names(path: &Path, wanted: impl Fn(object::elf::SymbolType) -> bool) -> Result<BTreeSet<String>> {
    use object::read::elf::{FileHeader as _, Sym as _};
    let data = fs_err::read(path)?;
    let read = || -> object::read::Result<BTreeSet<String>> {
        let header = object::elf::FileHeader64::<object::Endianness>::parse(data.as_slice())?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data.as_slice())?;
        let symbols = sections.symbols(endian, data.as_slice(), object::elf::SHT_SYMTAB)?;
        let defined =
            symbols.iter().filter(|symbol| !symbol.is_undefined(endian) && wanted(symbol.st_type()));
        defined
            .map(|symbol| Ok(String::from_utf8_lossy(symbols.symbol_name(endian, symbol)?).into_owned()))
            .collect()
    };
    read().map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
