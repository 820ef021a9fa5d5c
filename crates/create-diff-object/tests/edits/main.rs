//! Random edits of random programs, compiled by every toolchain: the differ must find the functions whose
//! assembler text changed, and no others.
//!
//! `EDITS=N` in the environment tries N programs with each toolchain, `EDITS_SEED=S` begins with seed S.

mod oracle;
mod program;
#[path = "../toolchains/mod.rs"]
#[expect(dead_code, reason = "shared with the fixtures")]
mod toolchains;

use std::collections::BTreeSet;
use std::path::Path;

use create_diff_object::{EntrySizes, Input, Outcome, diff};
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use libtest_mimic::{Arguments, Failed, Trial};
use program::{Program, Random};
use toolchains::{TOOLCHAINS, Toolchain};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments = Arguments::from_args();
    let trials = TOOLCHAINS.iter().map(|t| Trial::test(t.name, move || check(t))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(toolchain: &Toolchain) -> Result<(), Failed> {
    let (count, first) = (number("EDITS", 2), number("EDITS_SEED", 1));
    let mut wrong = Vec::new();
    for seed in first..first + count {
        if let Err(error) = try_one(toolchain, seed) {
            wrong.push(format!("seed {seed}: {error}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The object of a program, and what the oracle reads.
fn build(
    toolchain: &Toolchain,
    directory: &Path,
    text: &str,
) -> Result<(Vec<u8>, oracle::Functions), String> {
    let at = |name: &str| directory.join(name);
    let io = |error: std::io::Error| error.to_string();
    std::fs::write(at("unit.c"), text).map_err(io)?;
    let flags = |flags: &[&str]| -> Vec<String> { flags.iter().map(|&f| f.to_owned()).collect() };
    toolchain.compile(&at("unit.c"), &flags(&["-c", "-w"]), &at("unit.o"))?;
    // Each constant under a name of its own, even where the object reaches several from one: no change must be missed.
    let mut listing = flags(&["-S", "-w", "-DNO_LINES"]);
    if toolchain.has_anchors() {
        listing.push("-fno-section-anchors".to_owned());
    }
    toolchain.compile(&at("unit.c"), &listing, &at("unit.s"))?;
    let assembler = std::fs::read_to_string(at("unit.s")).map_err(io)?;
    Ok((std::fs::read(at("unit.o")).map_err(io)?, oracle::functions(&assembler)))
}

fn try_one(toolchain: &Toolchain, seed: u64) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut random = Random(seed);
    let mut program = Program::new(&mut random);
    let before_text = program.text();
    let (original, before) = build(toolchain, directory.path(), &before_text)?;
    for step in 0..3 {
        let what = program.edit(&mut random);
        let text = program.text();
        let (patched, after) = build(toolchain, directory.path(), &text)?;
        let expected = oracle::changed(&before, &after);
        compare(&original, &patched, &expected, toolchain.has_anchors()).map_err(|error| {
            if let Some(keep) = std::env::var_os("EDITS_KEEP") {
                let _ = std::fs::write(
                    Path::new(&keep).join(format!("{seed}-{}-a.c", toolchain.name)),
                    &before_text,
                );
                let _ =
                    std::fs::write(Path::new(&keep).join(format!("{seed}-{}-b.c", toolchain.name)), &text);
            }
            let text: Vec<String> =
                expected.iter().filter_map(|name| oracle::first_difference(&before, &after, name)).collect();
            format!("step {step}, {what}: {error}\n{}", text.join("\n"))
        })?;
    }
    Ok(())
}

fn compare(original: &[u8], patched: &[u8], expected: &BTreeSet<String>, more: bool) -> Result<(), String> {
    let shipped = SymbolTable::from_elf(original).map_err(|error| error.to_string())?;
    let exports = Symvers::parse(b"").map_err(|error| error.to_string())?;
    let sizes = EntrySizes::default();
    let report = match diff(&Input::new([original, patched], &shipped, &exports, &sizes)) {
        Ok(Outcome::Unchanged(report)) => report,
        Ok(Outcome::Extract(extract)) => extract.report,
        Err(failure) => {
            let errors: Vec<String> = failure.errors.iter().map(ToString::to_string).collect();
            return Err(format!("refused: {}; expected {expected:?}", errors.join("; ")));
        }
    };
    let found: BTreeSet<String> =
        report.changed.iter().chain(&report.new).map(|name| oracle::root(name).to_owned()).collect();
    if found == *expected || more && found.is_superset(expected) {
        Ok(())
    } else {
        Err(format!("found {found:?} for {expected:?}"))
    }
}
