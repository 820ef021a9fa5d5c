//! The object pairs of `fixtures/objdiff`: what the binary finds in each must be what is known about it.
//!
//! Each pair is a test, and each original against itself. Where a better answer differs from the recorded
//! one (observed on the C tool), the difference has to follow from one of [`DEVIATIONS`]; how often each is
//! used is printed. What `--explain` prints for each pair is kept below `snapshots/corpus`, and extracts must
//! be understood by goblin, by readelf and by a linker of their machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

/// General rules by which results differ from the recorded ones.
const DEVIATIONS: [(&str, &str); 3] = [
    (
        "by-reference",
        "replacement code, fix-up code, read-only data, the table of contents and descriptors of dynamic debug \
         are taken piece by piece as they are referred to, not whole, so that unrelated symbols are not \
         dragged in",
    ),
    (
        "entry-size",
        "where the recorded entry size joins several entries, which the relocations show, each is taken for \
         itself",
    ),
    ("sympos", "a symbol whose name is unique has position 0, whatever its binding, as the kernel counts"),
];

static USED: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());

#[derive(Deserialize)]
struct Expected {
    status: u8,
    #[serde(default)]
    struct_sizes: BTreeMap<String, u32>,
    #[serde(default)]
    changed: BTreeSet<String>,
    #[serde(default)]
    new: BTreeSet<String>,
    #[serde(default)]
    callbacks: BTreeSet<String>,
    functions: Option<BTreeSet<String>>,
    sections: Option<BTreeMap<String, u64>>,
    klp_symbols: Option<BTreeSet<String>>,
    #[serde(default)]
    klp_relocations: Vec<(String, u64, u32, i64, String, String)>,
}

#[derive(Deserialize)]
struct Found {
    status: u8,
    #[serde(flatten)]
    report: FoundReport,
}

#[derive(Deserialize)]
struct FoundReport {
    changed: BTreeSet<String>,
    new: BTreeSet<String>,
    callbacks: BTreeSet<String>,
    functions: BTreeSet<String>,
    sections: BTreeMap<String, u64>,
    klp_symbols: BTreeSet<String>,
    warnings: Vec<String>,
}

fn main() {
    let arguments = Arguments::from_args();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut trials = Vec::new();
    for corpus in ["objdiff", "objdiff-before-objtool"] {
        for machine in MACHINES {
            let Ok(cases) = std::fs::read_dir(fixtures.join(corpus).join(machine)) else { continue };
            let mut cases: Vec<PathBuf> = cases.flatten().map(|e| e.path()).collect();
            cases.sort();
            for case in cases {
                let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let pair = case.clone();
                let test = format!("{corpus}/{machine}/{name}");
                trials.push(Trial::test(test.clone(), move || check(machine, &test, &pair)));
                trials.push(Trial::test(format!("{corpus}/{machine}/{name}/itself"), move || itself(&case)));
            }
        }
    }
    if trials.is_empty() {
        trials.push(Trial::test("fixtures", || Err("no object pairs found".into())));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let used = USED.lock().map(|u| u.clone()).unwrap_or_default();
    println!("deviations from the recorded results:");
    for (name, reason) in DEVIATIONS {
        println!("{:5} {name}: {reason}", used.get(name).copied().unwrap_or(0));
    }
    conclusion.exit();
}

/// Machines whose pairs have to pass.
const MACHINES: [&str; 5] = ["x86_64", "aarch64", "ppc64le", "s390x", "loongarch64"];

fn deviation(name: &'static str) {
    if let Ok(mut used) = USED.lock() {
        *used.entry(name).or_default() += 1;
    }
}

struct Run {
    found: Found,
    output: PathBuf,
    /// What it printed: the report, then errors.
    text: String,
    _directory: tempfile::TempDir,
}

fn run(case: &Path, original: &str, patched: &str, sizes: &BTreeMap<String, u32>) -> Result<Run, Failed> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let table = Command::new("readelf").args(["-s", "--wide"]).arg(case.join(original)).output()?;
    std::fs::write(at("symtab"), without_local_entries(&table.stdout))?;
    std::fs::write(at("symvers"), b"")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_create-diff-object"));
    // Paths are relative, so that messages are the same wherever the checkout is.
    command.current_dir(case).arg("--explain").arg("--json").arg(at("json"));
    command
        .args([original, patched])
        .arg("vmlinux")
        .arg(at("symtab"))
        .arg(at("symvers"))
        .arg("patch")
        .arg(at("output.o"));
    for (name, size) in sizes {
        command.env(format!("{name}_STRUCT_SIZE"), size.to_string());
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let json = std::fs::read(at("json")).map_err(|error| format!("no JSON ({error}): {text}"))?;
    let found: Found = serde_json::from_slice(&json)?;
    if output.status.code() != Some(i32::from(found.status)) {
        return Err(format!("exit status {:?}, but JSON says {}", output.status, found.status).into());
    }
    Ok(Run { found, output: at("output.o"), text, _directory: directory })
}

/// `readelf` of ppc64le puts notes behind the visibility.
fn without_local_entries(table: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(table).replace("[<localentry>: 8]", "").into_bytes()
}

fn check(machine: &str, test: &str, case: &Path) -> Result<(), Failed> {
    let expected: Expected = serde_json::from_slice(&std::fs::read(case.join("expected.json"))?)?;
    let run = run(case, "original.o", "patched.o", &expected.struct_sizes)?;
    let found = &run.found.report;
    let mut wrong = Vec::new();
    if run.found.status != expected.status {
        wrong.push(format!("status {} for {}: {}", run.found.status, expected.status, run.text));
    }
    for (what, got, want) in [
        ("changed", &found.changed, &expected.changed),
        ("new", &found.new, &expected.new),
        ("callbacks", &found.callbacks, &expected.callbacks),
    ] {
        if got != want {
            wrong.push(format!("{what}: {got:?} for {want:?}"));
        }
    }
    if expected.status == 0 && run.found.status == 0 {
        if let Some(want) = &expected.functions
            && &found.functions != want
        {
            wrong.push(format!("functions: {:?} for {want:?}", found.functions));
        }
        let trimmed = check_sections(&expected, found, &mut wrong);
        check_klp_symbols(&expected, found, &trimmed, &mut wrong);
        readable(machine, &run.output, &mut wrong)?;
    }
    insta::with_settings!({
        snapshot_path => "snapshots/corpus",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(test.replace('/', "_"), run.text);
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Sections of which the extract may hold less.
fn by_reference(section: &str) -> bool {
    section.starts_with(".rodata")
        || [".altinstr_replacement", ".altinstr_aux", ".fixup", ".toc", "__dyndbg"].contains(&section)
}

/// Special sections are those that are neither code nor data of the unit's own.
fn is_special(section: &str) -> bool {
    const PLAIN: [&str; 5] = [".text", ".data", ".bss", ".rodata", ".modinfo"];
    !PLAIN.iter().any(|plain| section.starts_with(plain)) && !section.starts_with(".discard")
}

/// The relocations showed smaller entries than the recorded size.
fn joined(found: &FoundReport, section: &str) -> bool {
    let remark = format!("{section}: its relocations show entries of");
    found.warnings.iter().any(|w| w.starts_with(&remark))
}

fn check_sections(expected: &Expected, found: &FoundReport, wrong: &mut Vec<String>) -> BTreeSet<String> {
    let mut trimmed = BTreeSet::new();
    let Some(want) = &expected.sections else { return trimmed };
    let names: BTreeSet<&String> = want.keys().chain(found.sections.keys()).collect();
    for name in names {
        let (got, want) =
            (found.sections.get(name).copied().unwrap_or(0), want.get(name).copied().unwrap_or(0));
        if by_reference(name) && got < want {
            trimmed.insert(name.clone());
            if is_special(name) {
                deviation("by-reference");
            }
        } else if is_special(name) && got < want && joined(found, name) {
            trimmed.insert(name.clone());
            deviation("entry-size");
        } else if is_special(name) && got != want {
            wrong.push(format!("{name}: {got} bytes for {want}"));
        }
    }
    trimmed
}

fn check_klp_symbols(
    expected: &Expected,
    found: &FoundReport,
    trimmed: &BTreeSet<String>,
    wrong: &mut Vec<String>,
) {
    let Some(want) = &expected.klp_symbols else { return };
    let plain = |symbol: &str| symbol.rsplit_once(',').map_or(symbol, |(name, _)| name).to_owned();
    let got: BTreeMap<String, &String> = found.klp_symbols.iter().map(|s| (plain(s), s)).collect();
    for symbol in want {
        match got.get(&plain(symbol)) {
            Some(found) if *found == symbol => {}
            // In these objects every name is unique.
            Some(found) if symbol.ends_with(",1") && found.ends_with(",0") => deviation("sympos"),
            Some(found) => wrong.push(format!("klp symbol {found} for {symbol}")),
            None => {
                let users: BTreeSet<&String> =
                    expected.klp_relocations.iter().filter(|r| &r.5 == symbol).map(|r| &r.0).collect();
                if !users.is_empty() && users.iter().all(|section| trimmed.contains(*section)) {
                    deviation("by-reference");
                } else {
                    wrong.push(format!("klp symbol {symbol} is missing"));
                }
            }
        }
    }
    let known: BTreeSet<String> = want.iter().map(|s| plain(s)).collect();
    for (name, symbol) in got {
        if !known.contains(&name) {
            wrong.push(format!("klp symbol {symbol} is too much"));
        }
    }
}

/// The linker of a machine.
fn linker(machine: &str) -> &'static str {
    match machine {
        "x86_64" => "ld",
        "aarch64" => "aarch64-linux-gnu-ld",
        "ppc64le" => "powerpc64le-linux-gnu-ld",
        "s390x" => "s390x-linux-gnu-ld",
        // The binutils of Debian 12 know no LoongArch.
        _ => "ld.lld-19",
    }
}

/// Other readers must understand the output without complaint.
fn readable(machine: &str, output: &Path, wrong: &mut Vec<String>) -> Result<(), Failed> {
    let bytes = std::fs::read(output)?;
    match goblin::elf::Elf::parse(&bytes) {
        Ok(elf) => {
            for (index, relocations) in &elf.shdr_relocs {
                let target = elf.section_headers.get(*index).map(|s| s.sh_info as usize);
                let size = target.and_then(|t| elf.section_headers.get(t)).map_or(0, |s| s.sh_size);
                for relocation in relocations {
                    if relocation.r_offset >= size || elf.syms.get(relocation.r_sym).is_none() {
                        wrong.push(format!("relocation at {:#x} leads nowhere", relocation.r_offset));
                    }
                }
            }
        }
        Err(error) => wrong.push(format!("goblin cannot read the output: {error}")),
    }
    let linked = output.with_extension("linked");
    let mut readelf = Command::new("readelf");
    readelf.args(["-a", "-W"]).arg(output);
    let mut link = Command::new(linker(machine));
    link.arg("-r").arg("-o").arg(&linked).arg(output);
    for mut command in [readelf, link] {
        let said =
            command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        if !said.status.success() || !complaint.trim().is_empty() {
            wrong.push(format!("{} {}: {complaint}", command.get_program().display(), said.status));
        }
    }
    Ok(())
}

fn itself(case: &Path) -> Result<(), Failed> {
    let expected: Expected = serde_json::from_slice(&std::fs::read(case.join("expected.json"))?)?;
    for object in ["original.o", "patched.o"] {
        let run = run(case, object, object, &expected.struct_sizes)?;
        if run.found.status != 3 && !run.found.report.callbacks.iter().any(|_| object == "patched.o") {
            return Err(format!("{object} differs from itself: {}", run.text).into());
        }
    }
    Ok(())
}
