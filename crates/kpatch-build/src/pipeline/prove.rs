//! Originals against the shipped kernel: the prover, fed from files.

use std::collections::BTreeMap;

use kbuild::symtab::SymbolTable;
use kpatch_elf::Object;

use super::compile::Objects;
use super::job::Variant;
use super::unit::{Unit, by_owner};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::phase::Phase;
use crate::prove::{Proof, Shipped, Verdict, prove};

/// The shipped file of each object that is patched, with its symbols, by object name.
pub type ShippedFiles<'a> = BTreeMap<&'a str, (&'a [u8], &'a SymbolTable<'a>)>;

/// Proves every unit's original for each object that it is part of; `Ok` are the proofs in the order of `units`, new ones
/// left out.
///
/// With `lenient` (`--skip-compiler-check`) differences are warnings.
pub fn run(
    units: &[Unit],
    objects: &Objects,
    shipped: &ShippedFiles<'_>,
    lenient: bool,
    events: Events<'_>,
) -> Result<Vec<Proof>, Vec<Error>> {
    let mut proofs = Vec::with_capacity(units.len());
    let mut errors = Vec::new();
    // The kernel has nothing to compare a new unit with.
    for unit in by_owner(units).iter().filter(|unit| !unit.created) {
        let proof = prove_unit(unit, objects, shipped).map_err(|error| vec![error])?;
        report(unit, &proof, events);
        let found = failures(unit, &proof);
        if lenient {
            for error in &found {
                events(Event::warning(error));
            }
        } else {
            errors.extend(found);
        }
        proofs.push(proof);
    }
    if errors.is_empty() { Ok(proofs) } else { Err(errors) }
}

fn prove_unit(unit: &Unit, objects: &Objects, shipped: &ShippedFiles<'_>) -> Result<Proof, Error> {
    let error = |code, message: &str| Error::new(Phase::Prove, code, message).file(&unit.source);
    let Some(path) = objects.get(&(unit.object.clone(), Variant::Shipped)) else {
        return Err(error("no-object", "the unit was not compiled for the proof"));
    };
    let bytes =
        fs_err::read(path).map_err(|e| error("io", "the compiled original cannot be read").cause(e))?;
    let object = Object::read(&bytes).map_err(|e| {
        error("unreadable-object", "the compiled original is not understood")
            .cause(e)
            .remedy("check that the kernel's own compiler is used")
    })?;
    let Some((data, symbols)) = shipped.get(unit.owner.as_str()) else {
        return Err(error("no-shipped-object", "the shipped object is missing").function(&unit.owner));
    };
    let image =
        if symbols.is_module() { Shipped::module(data, symbols) } else { Shipped::vmlinux(data, symbols) };
    let image = image.map_err(|e| {
        error("unreadable-shipped", &format!("the shipped {} is not understood", unit.owner)).cause(e)
    })?;
    let file = unit.source.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(prove(&object, &image, &file))
}

fn report(unit: &Unit, proof: &Proof, events: Events<'_>) {
    events(Event::Proven {
        unit: unit.object.clone(),
        object: unit.owner.clone(),
        equal: proof.equal(),
        undecided: proof.undecided(),
    });
    for name in proof.functions.iter().filter(|f| f.verdict == Verdict::Overridden).map(|f| &f.name) {
        let unit = unit.object.display();
        events(Event::Debug { message: format!("{unit}: weak {name} is overridden by another unit") });
    }
}

/// What is wrong with a unit's proof.
fn failures(unit: &Unit, proof: &Proof) -> Vec<Error> {
    let remedy = "source, configuration and compiler must be those of the shipped kernel; \
                  --skip-compiler-check turns this into a warning";
    let mut errors: Vec<Error> = proof
        .differences()
        .map(|(function, difference)| {
            Error::new(
                Phase::Prove,
                "differs",
                format!(
                    "the compiled original differs from the shipped {} at offset {:#x}",
                    unit.owner, difference.offset
                ),
            )
            .file(&unit.source)
            .function(function)
            .cause(format!(
                "{}\n  compiled: {}\n  shipped:  {}",
                difference.what, difference.compiled, difference.shipped
            ))
            .remedy(remedy)
        })
        .collect();
    let absent: Vec<&str> = proof.absent().collect();
    // A function that is nowhere is suspicious only together with others: the linker discards sections such
    // as .exit.text of built-in code.
    if proof.equal() + proof.undecided() == 0 && !absent.is_empty() {
        errors.push(
            Error::new(
                Phase::Prove,
                "absent",
                format!("none of the unit's {} functions is in the shipped {}", absent.len(), unit.owner),
            )
            .file(&unit.source)
            .cause(format!("looked for {}", absent.join(", ")))
            .remedy(remedy),
        );
    }
    errors
}
