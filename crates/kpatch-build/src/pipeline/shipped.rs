//! The shipped kernel as later phases read it: vmlinux and the modules that are patched, with their symbol
//! tables, the exports, and what its debug information says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kbuild::mapped::Mapped;
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kernel_artifacts::Kernel;
use kpatch_elf::klp::VMLINUX;
use object::Endianness;
use object::read::Object as _;
use object::read::elf::ElfFile64;

use super::prove::ShippedFiles;
use super::resolve::{self, forward, kernel_error};
use super::unit::Unit;
use crate::error::Error;
use crate::events::Events;
use crate::phase::Phase;

/// The files of the shipped kernel, mapped or in memory. Symbol tables borrow from them, see [`Tables`].
pub struct ShippedBytes {
    vmlinux: Mapped,
    modules: BTreeMap<String, Vec<u8>>,
    /// The exported symbols.
    pub exports: Symvers,
}

/// Unpacks vmlinux.
pub fn vmlinux(kernel: &Kernel, events: Events<'_>) -> Result<PathBuf, Error> {
    kernel.vmlinux(&forward(events)).map_err(kernel_error)
}

impl ShippedBytes {
    /// Reads the modules that the units belong to, and the exports.
    pub fn read(
        kernel: &Kernel,
        vmlinux: &Path,
        units: &[Unit],
        events: Events<'_>,
    ) -> Result<ShippedBytes, Vec<Error>> {
        let owners: BTreeSet<&str> = units.iter().flat_map(Unit::owners).filter(|o| *o != VMLINUX).collect();
        let mut errors = Vec::new();
        let modules =
            modules(kernel, owners, events).map_err(|mut e| errors.append(&mut e)).unwrap_or_default();
        let vmlinux = Mapped::open(vmlinux)
            .map_err(|e| errors.push(Error::io(Phase::Resolve, "read", vmlinux)(e)))
            .ok();
        let exports = exports(kernel, events).map_err(|error| errors.push(error)).unwrap_or_default();
        match vmlinux {
            Some(vmlinux) if errors.is_empty() => Ok(ShippedBytes { vmlinux, modules, exports }),
            _ => Err(errors),
        }
    }

    /// vmlinux.
    pub fn vmlinux(&self) -> &[u8] {
        &self.vmlinux
    }

    /// The build-id of vmlinux, hexadecimal.
    pub fn build_id(&self) -> Option<String> {
        build_id(self.vmlinux())
    }

    /// The build-ids of the modules that have one, hexadecimal.
    pub fn module_build_ids(&self) -> BTreeMap<String, String> {
        let ids = self.modules.iter().filter_map(|(name, bytes)| Some((name.clone(), build_id(bytes)?)));
        ids.collect()
    }

    /// What tells this vmlinux from every other: its build-id, or else a hash of its bytes.
    pub fn identity(&self) -> String {
        self.build_id().unwrap_or_else(|| blake3::hash(self.vmlinux()).to_hex().to_string())
    }

    /// The symbol tables of everything that was read.
    pub fn tables(&self) -> Result<Tables<'_>, Vec<Error>> {
        let mut tables = Tables { bytes: BTreeMap::new(), tables: BTreeMap::new() };
        let mut errors = Vec::new();
        let all = std::iter::once((VMLINUX, self.vmlinux()))
            .chain(self.modules.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        for (name, bytes) in all {
            match SymbolTable::from_elf(bytes) {
                Ok(table) => {
                    tables.bytes.insert(name, bytes);
                    tables.tables.insert(name.to_owned(), table);
                }
                Err(error) => errors.push(
                    Error::new(
                        Phase::Resolve,
                        "shipped-symbols",
                        format!("the shipped {name} has no usable symbol table"),
                    )
                    .cause(error)
                    .remedy("name the unstripped vmlinux with -v"),
                ),
            }
        }
        if errors.is_empty() { Ok(tables) } else { Err(errors) }
    }
}

fn build_id(file: &[u8]) -> Option<String> {
    let id = ElfFile64::<Endianness, &[u8]>::parse(file).ok()?.build_id().ok()??;
    Some(id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

fn exports(kernel: &Kernel, events: Events<'_>) -> Result<Symvers, Error> {
    let path = resolve::symvers(kernel, events)?;
    let text = fs_err::read(&path).map_err(Error::io(Phase::Resolve, "read", &path))?;
    Symvers::parse(&text).map_err(|error| {
        Error::new(Phase::Resolve, "symvers", "Module.symvers cannot be read").file(&path).cause(error)
    })
}

/// Symbol tables of the shipped kernel, by object.
pub struct Tables<'a> {
    bytes: BTreeMap<&'a str, &'a [u8]>,
    tables: BTreeMap<String, SymbolTable<'a>>,
}

impl<'a> Tables<'a> {
    /// Bytes and symbols by object, for the proof.
    pub fn files(&'a self) -> ShippedFiles<'a> {
        self.bytes
            .iter()
            .filter_map(|(name, bytes)| Some((*name, (*bytes, self.tables.get(*name)?))))
            .collect()
    }

    /// The symbols of an object that was read.
    pub fn get(&self, object: &str) -> Option<&SymbolTable<'a>> {
        self.tables.get(object)
    }

    /// The bytes of an object that was read.
    pub fn bytes(&self, object: &str) -> Option<&'a [u8]> {
        self.bytes.get(object).copied()
    }

    /// All symbol tables.
    pub fn all(&self) -> &BTreeMap<String, SymbolTable<'a>> {
        &self.tables
    }
}

/// Reads shipped modules by name.
pub fn modules<'n>(
    kernel: &Kernel,
    names: impl IntoIterator<Item = &'n str>,
    events: Events<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, Vec<Error>> {
    let mut modules = BTreeMap::new();
    let mut errors = Vec::new();
    for name in names {
        let bytes = kernel
            .module(name, &forward(events))
            .map_err(kernel_error)
            .and_then(|path| fs_err::read(&path).map_err(Error::io(Phase::Resolve, "read", &path)));
        match bytes {
            Ok(bytes) => {
                modules.insert(name.to_owned(), bytes);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(modules) } else { Err(errors) }
}
