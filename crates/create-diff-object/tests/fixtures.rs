//! The C sources of `fixtures/diff`: each compiled in two versions with the compilers that it names and
//! compared; directives in comments say what must come out (`fixtures/diff/README.md`).

#[allow(dead_code, reason = "shared with the random edits")]
mod toolchains;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use toolchains::{TOOLCHAINS, Toolchain};

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
    let mut trials: Vec<Trial> = Vec::new();
    for path in sources {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let source = match std::fs::read_to_string(&path) {
            Ok(source) => source,
            Err(error) => {
                trials.push(Trial::test(name, move || Err(error.into())));
                continue;
            }
        };
        let wanted = toolchains_of(&source);
        if wanted.is_empty() {
            trials.push(Trial::test(name.clone(), || Err("directive `on` names no toolchain".into())));
        }
        for toolchain in wanted {
            let (path, source) = (path.clone(), source.clone());
            let name = format!("{name}/{}", toolchain.name);
            trials.push(Trial::test(name, move || check(&path, &Directives { source: &source, toolchain })));
        }
    }
    if trials.is_empty() {
        trials.push(Trial::test("fixtures", || Err("no sources found".into())));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The toolchains that a source is for; Debian 12's gcc alone if it names none.
fn toolchains_of(source: &str) -> Vec<&'static Toolchain> {
    let words: Vec<&str> =
        source.lines().filter_map(|l| l.strip_prefix("//# on:")).flat_map(str::split_whitespace).collect();
    let wanted = |toolchain: &Toolchain| {
        words.iter().any(|w| toolchain.is(w))
            && !words.iter().any(|w| w.strip_prefix('!').is_some_and(|w| toolchain.is(w)))
    };
    if words.is_empty() {
        return TOOLCHAINS.iter().take(1).collect();
    }
    TOOLCHAINS.iter().filter(|t| wanted(t)).collect()
}

/// The directives of a source as one toolchain sees them.
struct Directives<'a> {
    source: &'a str,
    toolchain: &'static Toolchain,
}

impl Directives<'_> {
    /// The values of a directive, all lines of it together; `None` if there is none. Lines that name the
    /// toolchain (`//# klp@s390x:`) take the place of those that name none.
    fn lines(&self, name: &str) -> Option<Vec<String>> {
        let (mut plain, mut own) = (Vec::new(), Vec::new());
        for line in self.source.lines() {
            let Some((key, value)) = line.strip_prefix("//# ").and_then(|l| l.split_once(':')) else {
                continue;
            };
            let value = value.trim().to_owned();
            match key.split_once('@') {
                None if key == name => plain.push(value),
                Some((key, words)) if key == name && words.split(',').any(|w| self.toolchain.is(w)) => {
                    own.push(value);
                }
                _ => {}
            }
        }
        let found = if own.is_empty() { plain } else { own };
        (!found.is_empty()).then_some(found)
    }

    fn words(&self, name: &str) -> Option<BTreeSet<String>> {
        self.lines(name).map(|lines| lines.join(" ").split_whitespace().map(str::to_owned).collect())
    }
}

fn check(path: &Path, source: &Directives<'_>) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let mut flags: Vec<String> = source.words("flags").unwrap_or_default().into_iter().collect();
    flags.push("-c".to_owned());
    for (version, object) in ["original.o", "patched.o"].into_iter().enumerate() {
        flags.push(format!("-DIS_PATCHED={version}"));
        source.toolchain.compile(path, &flags, &at(object))?;
        flags.pop();
    }
    std::fs::write(at("symvers"), b"")?;
    let object = source.lines("object").map_or("vmlinux".to_owned(), |lines| lines.join(""));
    let arguments = source.lines("arguments").unwrap_or_default().join(" ");
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

    let want: i32 = match source.lines("status") {
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
    expect("skipped", skipped, Some(source.words("skipped").unwrap_or_default()));
    expect("error", codes, Some(source.words("error").unwrap_or_default()));
    if want == 0 || want == 3 {
        for key in ["changed", "new", "callbacks"] {
            expect(key, names(key), Some(source.words(key).unwrap_or_default()));
        }
    }
    if want == 0 {
        let mut undefined = names("undefined");
        // The tracer, and the base of the table of contents.
        undefined.retain(|name| !["__fentry__", "_mcount", ".TOC."].contains(&name.as_str()));
        let mut functions = names("functions");
        functions.retain(|name| !name.starts_with("__cfi_"));
        expect("functions", functions, source.words("functions"));
        expect("undefined", undefined, source.words("undefined"));
        expect("klp", names("klp_symbols"), source.words("klp"));
        extract(source, &at("output.o"), &mut wrong)?;
    }
    for part in source.lines("warning").unwrap_or_default() {
        if !names("warnings").iter().any(|w| w.contains(&part)) {
            wrong.push(format!("no warning with {part:?}"));
        }
    }
    for part in source.lines("says").unwrap_or_default() {
        if !text.contains(&part) {
            wrong.push(format!("nothing printed has {part:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{text}", wrong.join("\n")).into()) }
}

fn extract(source: &Directives<'_>, output: &Path, wrong: &mut Vec<String>) -> Result<(), Failed> {
    let bytes = std::fs::read(output)?;
    let object = kpatch_elf::Object::read(&bytes)?;
    for line in source.lines("section").unwrap_or_default() {
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
    for part in source.lines("manifest").unwrap_or_default() {
        if !manifest.contains(&part) {
            wrong.push(format!("manifest lacks {part:?}: {manifest}"));
        }
    }
    for name in source.words("klp-symbol").unwrap_or_default() {
        if !object.symbols.iter().any(|s| s.name.as_ref() == name.as_str() && s.is_undefined()) {
            wrong.push(format!("no undefined symbol {name}"));
        }
    }
    let linked =
        Command::new(source.toolchain.linker).args(["-r", "-o", "/dev/null"]).arg(output).output()?;
    let complaint = String::from_utf8_lossy(&linked.stderr);
    if !linked.status.success() || !complaint.trim().is_empty() {
        wrong.push(format!("ld -r: {complaint}"));
    }
    Ok(())
}
