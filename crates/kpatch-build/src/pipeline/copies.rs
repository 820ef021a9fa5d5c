//! Functions without patchable entry that other units call.
//!
//! ftrace cannot redirect such a function (`notrace`, or of a directory that is compiled without `-pg`, such as `lib/`).
//! Where all that can reach it is known and calls it, its callers are patched instead: their units are compiled, too, and
//! they call the copy of the function in the module. A caller without an entry of its own is such a function again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use kbuild::symtab::{ShippedBinding, ShippedId, ShippedKind, SymbolTable};
use kpatch_elf::klp::VMLINUX;

use super::compile::{self, Objects};
use super::diff::{self, Choices, Differences, Refused, WithoutEntry};
use super::job::Variant;
use super::plan;
use super::unit::{self, Kernel, Unit};
use super::{Compiler, prove};
use crate::callers::{self, Users};
use crate::error::Error;
use crate::events::{Event, phase};
use crate::phase::Phase;

/// Functions whose callers are looked for. With more, the change is one of half the kernel.
const MOST: usize = 64;

/// What is known about the kernel.
pub struct Known<'a> {
    /// Where units are.
    pub kernel: &'a Kernel<'a>,
    /// Symbols, files and sizes.
    pub shipped: &'a diff::Shipped<'a>,
}

/// Compares all units, to which those of callers are added where they are needed.
pub(super) fn run(
    compiler: &Compiler<'_>,
    known: &Known<'_>,
    units: &mut Vec<Unit>,
    objects: &mut Objects,
) -> Result<Differences, Vec<Error>> {
    let (options, events) = (compiler.options, compiler.events);
    let mut copied: Vec<String> = Vec::new();
    loop {
        let choices = Choices { skip: &options.skip, copied: &copied };
        let found = phase(Phase::Diff, events, || {
            diff::run(compiler.context, units, objects, known.shipped, choices, events)
        });
        let refused = match found {
            Ok(differences) => return Ok(differences),
            Err(refused) => refused,
        };
        let Refused { errors, without_entry, told } = refused;
        let is_new = |without: &WithoutEntry| !copied.contains(&without.function);
        let may_go_on = copied.len() + without_entry.len() <= MOST && without_entry.iter().all(is_new);
        let sources = if may_go_on { sources(known, &without_entry, errors) } else { Err(errors) };
        let sources = match sources {
            Ok(sources) => sources,
            Err(errors) => {
                told.into_iter().for_each(events);
                return Err(errors);
            }
        };
        let more: Vec<PathBuf> =
            sources.into_iter().filter(|s| units.iter().all(|unit| unit.source != *s)).collect();
        let new = join(compiler, known, &more, objects)?;
        copied.extend(without_entry.into_iter().map(|without| without.function));
        events(Event::note(format!(
            "{} cannot be replaced, so their callers are, in {}",
            copied.join(", "),
            match more.as_slice() {
                [] => "the units of the patch".to_owned(),
                files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
            }
        )));
        units.extend(new);
        units.sort_by(|a, b| a.source.cmp(&b.source));
    }
}

/// The sources of all that calls the functions. The errors are these where there are none, or not all callers are
/// known; then they say why.
fn sources(
    known: &Known<'_>,
    functions: &[WithoutEntry],
    errors: Vec<Error>,
) -> Result<BTreeSet<PathBuf>, Vec<Error>> {
    if functions.is_empty() {
        return Err(errors);
    }
    let found: Vec<_> = functions.iter().map(|function| callers(known, function)).collect();
    if found.iter().all(Result::is_ok) {
        return Ok(found.into_iter().flatten().flatten().collect());
    }
    let explained = errors.into_iter().zip(found).map(|(error, found)| {
        let cause = error.cause.clone().map(|cause| format!("{cause}; ")).unwrap_or_default();
        match found {
            Err(reason) if !reason.is_empty() => error.cause(format!("{cause}{reason}")),
            _ => error,
        }
    });
    Err(explained.collect())
}

/// The sources of all that calls a function, or why they cannot be told.
fn callers(known: &Known<'_>, without: &WithoutEntry) -> Result<BTreeSet<PathBuf>, String> {
    let WithoutEntry { function, owner } = without;
    if owner != VMLINUX {
        return Err("callers in other units are looked for in vmlinux only".to_owned());
    }
    let symbols = known.shipped.tables.get(VMLINUX).ok_or("vmlinux has no symbols")?;
    let id = only(symbols, function)?;
    if known.shipped.files.exports.get(function.as_bytes().as_bstr()).is_some() {
        // The cause says so already.
        return Err(String::new());
    }
    let address = symbols.symbol(id).value;
    let Some(Users { calls, others }) =
        callers::users(known.shipped.files.vmlinux(), symbols, function, address)
    else {
        return Err("who else refers to it is known on x86-64 only".to_owned());
    };
    if !others.is_empty() {
        return Err(format!("its address is in {}, through which it can be called", callers::some(&others)));
    }
    let addresses: Vec<u64> = calls.iter().map(|caller| caller.address).collect();
    let places = known.kernel.vmlinux.at(known.shipped.files.vmlinux(), &addresses);
    let places = places.map_err(|error| format!("where its callers are compiled is not known: {error}"))?;
    calls
        .iter()
        .zip(places)
        .map(|(caller, place)| {
            let is_c = |path: &&Path| path.extension().is_some_and(|extension| extension == "c");
            place
                .filter(is_c)
                .map(Path::to_owned)
                .ok_or_else(|| format!("{} is not of a C unit", caller.name))
        })
        .collect()
}

/// The symbol of a global function that goes by one name only.
fn only(symbols: &SymbolTable<'_>, function: &str) -> Result<ShippedId, String> {
    let name = function.as_bytes().as_bstr();
    let is_function = |id: &ShippedId| {
        let symbol = symbols.symbol(*id);
        symbol.defined && symbol.kind == ShippedKind::Function
    };
    let named: Vec<ShippedId> = symbols.named(name).filter(is_function).collect();
    let [id] = named[..] else { return Err(format!("vmlinux has {} functions of that name", named.len())) };
    let symbol = symbols.symbol(id);
    if symbol.binding != ShippedBinding::Global {
        return Err("it is not global, and its own unit has more than calls of it".to_owned());
    }
    let other = symbols.symbols().iter().find(|other| {
        other.kind == ShippedKind::Function && other.value == symbol.value && other.name != symbol.name
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

/// Compiles and proves the units of callers.
fn join(
    compiler: &Compiler<'_>,
    known: &Known<'_>,
    sources: &[PathBuf],
    objects: &mut Objects,
) -> Result<Vec<Unit>, Vec<Error>> {
    let events = compiler.events;
    let mut new = Vec::new();
    let mut errors = Vec::new();
    for (source, located) in unit::locate(known.kernel, sources).map_err(super::one)? {
        let unit = located.map_err(|reason| unit::unpatchable(&source, &reason));
        match unit.and_then(|unit| unit::planned(&source, &unit, true)) {
            Ok(unit) => new.push(unit),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    plan::confirm(compiler.options, &new, events)?;
    phase(Phase::Compile, events, || {
        compiler.pairs(&new, objects)?;
        objects.extend(compile::run(compiler.context, &compile::jobs(&new, &[Variant::Shipped]), events)?);
        Ok::<_, Vec<Error>>(())
    })?;
    phase(Phase::Prove, events, || {
        let lenient = compiler.options.skip_compiler_check;
        prove::run(&new, objects, &known.shipped.tables.files(), lenient, events)
    })?;
    Ok(new)
}
