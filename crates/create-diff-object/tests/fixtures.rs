//! The C sources of `fixtures/diff`: each compiled in two versions with gcc and compared; directives in
//! comments say what must come out (`fixtures/diff/README.md`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

/// What kernels are compiled with, as far as it shapes objects.
const FLAGS: [&str; 17] = [
    "-O2",
    "-ffreestanding",
    "-fno-PIE",
    "-fno-pic",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fcf-protection=none",
    "-pg",
    "-mfentry",
    "-mrecord-mcount",
    "-mgeneral-regs-only",
    "-ffunction-sections",
    "-fdata-sections",
];

fn main() {
    let arguments = Arguments::from_args();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/diff");
    let mut sources: Vec<_> = std::fs::read_dir(&directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    sources.sort();
    let mut trials: Vec<Trial> = sources
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Trial::test(name, move || check(&path))
        })
        .collect();
    if trials.is_empty() {
        trials.push(Trial::test("fixtures", || Err("no sources found".into())));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The values of a directive, all lines of it together; `None` if there is none.
fn directive(source: &str, name: &str) -> Option<Vec<String>> {
    let mark = format!("//# {name}:");
    let lines: Vec<&str> = source.lines().filter_map(|l| l.strip_prefix(&mark)).collect();
    (!lines.is_empty()).then(|| lines.iter().map(|l| l.trim().to_owned()).collect())
}

fn words(source: &str, name: &str) -> Option<BTreeSet<String>> {
    directive(source, name).map(|lines| lines.join(" ").split_whitespace().map(str::to_owned).collect())
}

fn compile(path: &Path, flags: &[String], patched: bool, output: &Path) -> Result<(), Failed> {
    let result = Command::new("gcc-12")
        .args(FLAGS)
        .args(flags)
        .arg(format!("-DIS_PATCHED={}", u8::from(patched)))
        .arg("-c")
        .arg("-o")
        .arg(output)
        .arg(path)
        .output()?;
    if !result.status.success() {
        return Err(format!("gcc-12: {}", String::from_utf8_lossy(&result.stderr)).into());
    }
    Ok(())
}

fn check(path: &Path) -> Result<(), Failed> {
    let source = std::fs::read_to_string(path)?;
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let flags: Vec<String> = words(&source, "flags").unwrap_or_default().into_iter().collect();
    compile(path, &flags, false, &at("original.o"))?;
    compile(path, &flags, true, &at("patched.o"))?;
    std::fs::write(at("symvers"), b"")?;
    let object = directive(&source, "object").map_or("vmlinux".to_owned(), |lines| lines.join(""));
    let arguments = directive(&source, "arguments").unwrap_or_default().join(" ");
    let output = Command::new(env!("CARGO_BIN_EXE_create-diff-object"))
        .args(arguments.split_whitespace())
        .arg("--json")
        .arg(at("json"))
        .arg(at("original.o"))
        .arg(at("patched.o"))
        .arg(object)
        .arg(at("original.o"))
        .arg(at("symvers"))
        .arg("patch")
        .arg(at("output.o"))
        .output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let found: Value = serde_json::from_slice(&std::fs::read(at("json"))?)?;
    let mut wrong = Vec::new();

    let want: i32 = match directive(&source, "status") {
        Some(lines) => lines.join("").parse()?,
        None => 0,
    };
    if output.status.code() != Some(want) {
        wrong.push(format!("status {:?} for {want}", output.status.code()));
    }
    let names = |key: &str| -> BTreeSet<String> {
        let list = found.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let errors = found.get("errors").and_then(Value::as_array).cloned().unwrap_or_default();
    let codes: BTreeSet<String> =
        errors.iter().filter_map(|e| e.get("code")).filter_map(Value::as_str).map(str::to_owned).collect();
    let mut expect = |what: &str, got: BTreeSet<String>, want: Option<BTreeSet<String>>| {
        if let Some(want) = want
            && got != want
        {
            wrong.push(format!("{what}: {got:?} for {want:?}"));
        }
    };
    let skipped: BTreeSet<String> = found
        .get("skipped")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|s| s.get("name")?.as_str().map(str::to_owned))
        .collect();
    expect("skipped", skipped, Some(words(&source, "skipped").unwrap_or_default()));
    expect("error", codes, Some(words(&source, "error").unwrap_or_default()));
    if want == 0 || want == 3 {
        for key in ["changed", "new", "callbacks"] {
            expect(key, names(key), Some(words(&source, key).unwrap_or_default()));
        }
    }
    if want == 0 {
        let mut undefined = names("undefined");
        undefined.remove("__fentry__");
        expect("functions", names("functions"), words(&source, "functions"));
        expect("undefined", undefined, words(&source, "undefined"));
        expect("klp", names("klp_symbols"), words(&source, "klp"));
        extract(&source, &at("output.o"), &mut wrong)?;
    }
    for part in directive(&source, "warning").unwrap_or_default() {
        if !names("warnings").iter().any(|w| w.contains(&part)) {
            wrong.push(format!("no warning with {part:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{text}", wrong.join("\n")).into()) }
}

fn extract(source: &str, output: &Path, wrong: &mut Vec<String>) -> Result<(), Failed> {
    let bytes = std::fs::read(output)?;
    let object = kpatch_elf::Object::read(&bytes)?;
    for line in directive(source, "section").unwrap_or_default() {
        let Some((name, size)) = line.split_once(' ') else {
            return Err(format!("directive `section: {line}`").into());
        };
        let got: u64 =
            object.sections.iter().filter(|s| s.name.as_ref() == name).map(kpatch_elf::Section::size).sum();
        if got != size.trim().parse::<u64>()? {
            wrong.push(format!("section {name}: {got} bytes for {size}"));
        }
    }
    let manifest = object
        .section_named(kpatch_elf::extract::SECTION)
        .map(|id| String::from_utf8_lossy(object.section(id).bytes()).into_owned())
        .unwrap_or_default();
    for part in directive(source, "manifest").unwrap_or_default() {
        if !manifest.contains(&part) {
            wrong.push(format!("manifest lacks {part:?}: {manifest}"));
        }
    }
    for name in words(source, "klp-symbol").unwrap_or_default() {
        if !object.symbols.iter().any(|s| s.name.as_ref() == name.as_str() && s.is_undefined()) {
            wrong.push(format!("no undefined symbol {name}"));
        }
    }
    let linked = Command::new("ld").args(["-r", "-o", "/dev/null"]).arg(output).output()?;
    let complaint = String::from_utf8_lossy(&linked.stderr);
    if !linked.status.success() || !complaint.trim().is_empty() {
        wrong.push(format!("ld -r: {complaint}"));
    }
    Ok(())
}
