//! The sources of the callers of functions: of vmlinux by its debug information, of a module by its list of objects and by
//! what its sources say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use kbuild::symtab::{ShippedBinding, ShippedId, ShippedKind, SymbolTable};
use kpatch_elf::klp::VMLINUX;

use super::Known;
use crate::callers::users::{self, Users};
use crate::callers::{self, Caller};
use crate::pipeline::compile::Objects;
use crate::pipeline::diff::WithoutEntry;
use crate::pipeline::job::Variant;
use crate::pipeline::unit::Unit;

/// The callers of a function.
#[derive(Debug)]
pub(super) struct Found {
    /// The object that function and callers are part of.
    pub(super) owner: String,
    /// The sources that they are in.
    pub(super) sources: BTreeSet<PathBuf>,
    /// The names of each; a function may have several.
    pub(super) callers: Vec<BTreeSet<String>>,
}

/// The callers of each function, or why they cannot be told.
pub(super) fn find(known: &Known<'_>, functions: &[WithoutEntry]) -> Vec<Result<Found, String>> {
    let mut found: Vec<Result<Found, String>> = Vec::with_capacity(functions.len());
    let mut by_owner: BTreeMap<&str, Vec<Sought<'_>>> = BTreeMap::new();
    for (index, WithoutEntry { function, owner }) in functions.iter().enumerate() {
        match sought(known, function, owner) {
            Ok(sought) => by_owner.entry(owner).or_default().push(Sought { index, ..sought }),
            Err(reason) => {
                found.push(Err(reason));
                continue;
            }
        }
        found.push(Err(String::new()));
    }
    for (owner, functions) in by_owner {
        let users = users(known, owner, &functions);
        for (at, sought) in functions.iter().enumerate() {
            let of_one = users.as_ref().map(|users| &users[at]).map_err(Clone::clone);
            found[sought.index] = of_one.and_then(|users| callers_only(known, owner, users, sought.is_local));
        }
    }
    found
}

/// A function whose callers are looked for.
struct Sought<'n> {
    /// Its place in the list.
    index: usize,
    name: &'n str,
    /// Where it begins.
    address: u64,
    /// It is static: its unit's calls have been dealt with, so something else must refer to it.
    is_local: bool,
}

const LOCAL: &str = "it is not global, and its own unit has more than calls of it";

/// A function that is known by its name alone.
fn sought<'n>(known: &Known<'_>, function: &'n str, owner: &str) -> Result<Sought<'n>, String> {
    let symbols = known.shipped.tables.get(owner).ok_or_else(|| format!("{owner} has no symbols"))?;
    let id = only(symbols, owner, function)?;
    let is_local = symbols.symbol(id).binding == ShippedBinding::Local;
    if is_local && symbols.is_module() {
        return Err(LOCAL.to_owned());
    }
    let sought = Sought { index: 0, name: function, address: symbols.symbol(id).value, is_local };
    if is_local {
        return Ok(sought);
    }
    if known.shipped.files.exports.get(function.as_bytes().as_bstr()).is_some() {
        // The cause says so already.
        return Err(String::new());
    }
    let name = function.as_bytes().as_bstr();
    let others = known.shipped.tables.all().iter().filter(|(other, _)| *other != owner);
    // Whoever refers to one of them is taken for a caller.
    if let Some((other, _)) = others.into_iter().find(|(_, symbols)| symbols.global(name).is_some()) {
        return Err(format!("{other} has a function of that name, too"));
    }
    Ok(sought)
}

/// All that refers to functions of an object.
fn users(known: &Known<'_>, owner: &str, functions: &[Sought<'_>]) -> Result<Vec<Users>, String> {
    let tables = known.shipped.tables;
    let (bytes, symbols) =
        tables.bytes(owner).zip(tables.get(owner)).ok_or_else(|| format!("{owner} has no symbols"))?;
    let users = if symbols.is_module() {
        let names: Vec<&str> = functions.iter().map(|sought| sought.name).collect();
        users::of_module(bytes, symbols, &names)
    } else {
        let functions: Vec<(&str, u64)> =
            functions.iter().map(|sought| (sought.name, sought.address)).collect();
        users::of_vmlinux(bytes, symbols, &functions)
    };
    users.ok_or_else(|| "who else refers to it is known on x86-64 only".to_owned())
}

/// The sources of the callers, if there is nothing else.
fn callers_only(known: &Known<'_>, owner: &str, users: &Users, is_local: bool) -> Result<Found, String> {
    let Users { calls, passing, others } = users;
    if !others.is_empty() {
        return Err(format!("its address is in {}, through which it can be called", callers::some(others)));
    }
    if !passing.is_empty() {
        return Err(format!(
            "{} of {owner} calls it, which runs when the module is loaded or unloaded and cannot be replaced",
            callers::some(passing)
        ));
    }
    if is_local {
        return Err(LOCAL.to_owned());
    }
    if owner == VMLINUX { of_vmlinux(known, calls) } else { of_module(known, owner, calls) }
}

fn of_vmlinux(known: &Known<'_>, calls: &BTreeSet<Caller>) -> Result<Found, String> {
    let addresses: Vec<u64> = calls.iter().map(|caller| caller.address).collect();
    let places = known.kernel.vmlinux.at(known.shipped.files.vmlinux(), &addresses);
    let places = places.map_err(|error| format!("where its callers are compiled is not known: {error}"))?;
    let is_c = |path: &&Path| path.extension().is_some_and(|extension| extension == "c");
    let source = |(caller, place): (&Caller, Option<&Path>)| {
        let source = place.filter(is_c).map(Path::to_owned);
        source.ok_or_else(|| format!("{} is not of a C unit", caller.name))
    };
    let sources: Result<BTreeSet<PathBuf>, String> = calls.iter().zip(places).map(source).collect();
    let symbols = known.shipped.tables.get(VMLINUX).ok_or("vmlinux has no symbols")?;
    let callers = calls.iter().map(|caller| names(symbols, caller)).collect();
    Ok(Found { owner: VMLINUX.to_owned(), sources: sources?, callers })
}

/// A module's file tells the names of its sources, and which of them a static function is in. A global function is in one
/// of those that mention it.
fn of_module(known: &Known<'_>, owner: &str, calls: &BTreeSet<Caller>) -> Result<Found, String> {
    let unknown = || format!("which sources {owner} is made of is not known");
    let objects =
        known.kernel.tree.module_objects().map_err(|error| error.to_string())?.ok_or_else(unknown)?;
    let all: BTreeSet<PathBuf> = objects
        .sources_of(owner)
        .into_iter()
        .filter(|s| known.kernel.tree.source().join(s).is_file())
        .collect();
    let symbols = known.shipped.tables.get(owner).ok_or_else(unknown)?;
    let mut found = Found { owner: owner.to_owned(), sources: BTreeSet::new(), callers: Vec::new() };
    let mut texts = BTreeMap::new();
    for caller in calls {
        // A part that the compiler split off (`.cold`, `.part.0`) is local, whatever its function is.
        let name = caller.name.split('.').next().unwrap_or_default();
        let function = symbols.global(name.into());
        let file =
            named(symbols, caller).filter(|_| function.is_none()).and_then(|id| symbols.symbol(id).file);
        let is_source: &dyn Fn(&Path) -> bool = if let Some(file) = file {
            let file = symbols.symbol(file).name.to_str_lossy().into_owned();
            &move |source: &Path| source.file_name().is_some_and(|name| name.to_string_lossy() == file)
        } else {
            if texts.is_empty() {
                let text = |source: &PathBuf| fs_err::read(known.kernel.tree.source().join(source));
                texts.extend(all.iter().filter_map(|source| Some((source.clone(), text(source).ok()?))));
            }
            &|source: &Path| texts.get(source).is_some_and(|text: &Vec<u8>| mentions(text, name))
        };
        let sources: Vec<&PathBuf> = all.iter().filter(|source| is_source(source)).collect();
        if sources.is_empty() {
            return Err(format!("the source of {} is not found", caller.name));
        }
        found.sources.extend(sources.into_iter().cloned());
        found.callers.push(names(symbols, caller));
    }
    Ok(found)
}

/// The symbol of a caller.
fn named(symbols: &SymbolTable<'_>, caller: &Caller) -> Option<ShippedId> {
    let of_name = symbols.named(caller.name.as_bytes().as_bstr());
    of_name.into_iter().find(|id| symbols.symbol(*id).value == caller.address)
}

/// All names of a caller.
fn names(symbols: &SymbolTable<'_>, caller: &Caller) -> BTreeSet<String> {
    let mut names = BTreeSet::from([caller.name.clone()]);
    if let Some(id) = named(symbols, caller) {
        let same = symbols.at(symbols.symbol(id).section, caller.address).map(|id| symbols.symbol(id));
        let functions = same.filter(|symbol| symbol.kind == ShippedKind::Function);
        names.extend(functions.map(|symbol| symbol.name.to_string()));
    }
    names
}

/// Whether a text has that word.
fn mentions(text: &[u8], word: &str) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.find_iter(word).any(|at| {
        let (before, behind) = (text[..at].last(), text.get(at + word.len()));
        !before.is_some_and(is_part) && !behind.is_some_and(is_part)
    })
}

/// A caller that none of the compiled units has.
pub(super) fn lost(
    found: &Found,
    units: &mut dyn Iterator<Item = &Unit>,
    objects: &Objects,
) -> Option<String> {
    let mut lost: Vec<&BTreeSet<String>> = found.callers.iter().collect();
    for unit in units {
        if lost.is_empty() {
            break;
        }
        let object = objects.get(&(unit.object.clone(), Variant::Original));
        let Some(bytes) = object.and_then(|path| fs_err::read(path).ok()) else { continue };
        let Ok(symbols) = SymbolTable::from_elf(&bytes) else { continue };
        let is_there = |name: &String| {
            let mut of_name = symbols.named(name.as_bytes().as_bstr()).map(|id| symbols.symbol(id));
            of_name.any(|symbol| symbol.defined && symbol.kind == ShippedKind::Function)
        };
        lost.retain(|names| !names.iter().any(is_there));
    }
    lost.first()?.first().cloned()
}

/// The symbol of a function that goes by one name only.
fn only(symbols: &SymbolTable<'_>, owner: &str, function: &str) -> Result<ShippedId, String> {
    let name = function.as_bytes().as_bstr();
    let is_function = |id: &ShippedId| {
        let symbol = symbols.symbol(*id);
        symbol.defined && symbol.kind == ShippedKind::Function
    };
    let named: Vec<ShippedId> = symbols.named(name).filter(is_function).collect();
    let [id] = named[..] else {
        let is_local = |id: &ShippedId| symbols.symbol(*id).binding == ShippedBinding::Local;
        return Err(if named.iter().all(is_local) {
            LOCAL.to_owned()
        } else {
            format!("{owner} has {} functions of that name", named.len())
        });
    };
    let symbol = symbols.symbol(id);
    if symbol.binding == ShippedBinding::Weak {
        return Err("it is weak".to_owned());
    }
    let other = symbols.symbols().iter().find(|other| {
        other.kind == ShippedKind::Function
            && other.value == symbol.value
            && other.section == symbol.section
            && other.name != symbol.name
    });
    if let Some(other) = other {
        return Err(format!("it is called by the name {}, too", other.name));
    }
    // `BTF_ID(func, ...)`: programs of BPF may call it.
    let id_of_btf = format!("__BTF_ID__func__{function}__");
    if symbols.symbols().iter().any(|symbol| symbol.name.starts_with(id_of_btf.as_bytes())) {
        return Err("BPF programs may call it".to_owned());
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole() {
        assert!(mentions(b"int f(void)", "f"));
        assert!(mentions(b"f", "f"));
        for text in [&b"if (a)"[..], b"f2()", b"_f()", b"", b"x_f_y"] {
            assert!(!mentions(text, "f"), "{text:?}");
        }
    }
}
