//! CRCs of exported symbols: whether the patches change the type that modules know a symbol by.
//!
//! genksyms of the kernel's own kbuild computes them from preprocessed text, as for `Module.symvers`. A patch module
//! exports nothing, so a changed CRC alone breaks nobody; but patched code that refers to such a symbol takes it for
//! what the running kernel does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bstr::ByteSlice;
use kbuild::symvers::Symvers;
use kpatch_elf::{Object, Place};
use rayon::prelude::*;

use super::compile::{self, Objects};
use super::extract::Extract;
use super::job::{Context, Job, Plain, Variant};
use super::overlay::Overlay;
use super::places;
use super::unit::Unit;
use crate::declared;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::patch::Patched;
use crate::phase::Phase;

/// kbuild's program, below the object tree.
const GENKSYMS: &str = "scripts/genksyms/genksyms";

/// What symbols that an object exports begin with: up to 6.3, and since.
const EXPORTS: [&[u8]; 2] = [b"__ksymtab_", b"__export_symbol_"];

/// A symbol whose CRC the patches change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its CRC in the running kernel.
    pub shipped: u32,
    /// As the patches would have it.
    pub patched: u32,
    /// Types that changed, as genksyms writes them: `s#name` for `struct name`.
    pub types: Vec<String>,
    /// The declaration of the symbol itself is another one, not only what its types consist of.
    pub own: bool,
}

/// The exported symbols whose CRC changes, each of which is warned of. Nothing but a warning where the kernel's CRCs are
/// not from genksyms.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    objects: &Objects,
    (exports, patched): (&Symvers, &Patched),
    events: Events<'_>,
) -> Result<BTreeMap<String, Changed>, Vec<Error>> {
    if !context.tree.path().join(GENKSYMS).exists() {
        return unknown(units, objects, exports, events);
    }
    let pool = compile::pool(context.jobs)?;
    let results: Vec<Result<Vec<(String, Changed)>, Error>> =
        pool.install(|| units.par_iter().map(|unit| of_unit(context, unit, objects, exports)).collect());
    let (mut changed, mut errors) = (BTreeMap::new(), Vec::new());
    for result in results {
        match result {
            Ok(found) => changed.extend(found),
            Err(error) => errors.push(error),
        }
    }
    for (symbol, change) in &changed {
        events(Event::warning(format!(
            "the type of exported {symbol} changes: {}",
            describe(change, symbol, patched)
        )));
    }
    if errors.is_empty() { Ok(changed) } else { Err(errors) }
}

/// Kernels with GENDWARFKSYMS compute CRCs from debug information, and their builds bring no genksyms: what the patches
/// do to exported symbols is not known, and that is said.
fn unknown(
    units: &[Unit],
    objects: &Objects,
    exports: &Symvers,
    events: Events<'_>,
) -> Result<BTreeMap<String, Changed>, Vec<Error>> {
    for unit in units {
        let exported = exported(unit, objects).map_err(|error| vec![error])?;
        // Kernels without MODVERSIONS have no CRCs at all.
        let has_crc = |name: &&String| exports.get(name.as_bytes().as_bstr()).is_some_and(|e| e.crc != 0);
        let names: Vec<&str> = exported.iter().filter(has_crc).map(String::as_str).collect();
        if !names.is_empty() {
            events(Event::warning(format!(
                "{}: the kernel's build has no genksyms: whether the patches change the type of exported {} is not known",
                unit.object.display(),
                names.join(", ")
            )));
        }
    }
    Ok(BTreeMap::new())
}

/// Of units whose code stays as it is, those that export what extracts refer to: its type can change all the same.
pub fn exporting(units: &[Unit], extracts: &[Extract], objects: &Objects) -> Result<Vec<Unit>, Vec<Error>> {
    let mut used = BTreeSet::new();
    for object in extracts.iter().filter_map(|extract| Object::read(&extract.bytes).ok()) {
        let undefined = object.symbols.iter().filter(|symbol| symbol.place == Place::Undefined);
        used.extend(undefined.map(|symbol| symbol.name.to_str_lossy().into_owned()));
    }
    let is_used = |unit: &&Unit| Ok(!exported(unit, objects)?.is_disjoint(&used));
    let found: Vec<Result<Option<Unit>, Error>> =
        units.par_iter().map(|unit| is_used(&unit).map(|used| used.then(|| unit.clone()))).collect();
    let (mut exporting, mut errors) = (Vec::new(), Vec::new());
    for result in found {
        match result {
            Ok(unit) => exporting.extend(unit),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(exporting) } else { Err(errors) }
}

/// Errors for extracts that refer to a symbol whose CRC changed, and for those that replace an exported function by one
/// of another type: modules go on calling it as they do.
pub fn refuse(
    changed: &BTreeMap<String, Changed>,
    extracts: &[Extract],
    units: &[Unit],
    (overlay, patched): (&Overlay, &Patched),
) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    for extract in extracts.iter().filter(|_| !changed.is_empty()) {
        // The linker says what is wrong with one that cannot be read.
        let Ok(object) = Object::read(&extract.bytes) else { continue };
        let source = units.iter().find(|unit| unit.object == extract.unit).map(|unit| &unit.source);
        let undefined = object.symbols.iter().filter(|symbol| symbol.place == Place::Undefined);
        let used = undefined.filter_map(|symbol| changed.get_key_value(&*symbol.name.to_str_lossy()));
        let used = used.map(|(symbol, change)| {
            let message = format!("patched code uses exported {symbol}, whose type the patches change");
            (symbol, message, change, "leave the type of what is exported as it is")
        });
        let replaced = extract.report.changed.iter().filter_map(|name| changed.get_key_value(name));
        let replaced = replaced.filter(|(_, change)| change.own).map(|(symbol, change)| {
            let message =
                format!("exported {symbol} changes its own type, and modules call it by the old one");
            (symbol, message, change, "leave its type as it is, and give what is new a function of its own")
        });
        for (symbol, message, change, remedy) in used.chain(replaced) {
            let error = Error::new(Phase::Link, "crc-changed", message)
                .cause(describe(change, symbol, patched))
                .remedy(remedy);
            let error = match source {
                Some(source) => error.file(source),
                None => error,
            };
            errors.push(places::of_use(error, overlay, extract, symbol));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The CRCs, and the types that changed with the lines that changed them.
fn describe(change: &Changed, symbol: &str, patched: &Patched) -> String {
    let crcs = format!("its CRC is {:#010x}, and would be {:#010x}", change.shipped, change.patched);
    let with_line = |name: &String| {
        let name = plain_name(name);
        match changed_line(&name, patched) {
            Some((file, line)) => format!("{name} ({}:{line})", file.display()),
            None => name,
        }
    };
    let mut types: Vec<String> = change.types.iter().map(with_line).collect();
    if types.is_empty() && change.own {
        types.push(with_line(&symbol.to_owned()));
    }
    if types.is_empty() { crcs } else { format!("{crcs}, because of {}", types.join(", ")) }
}

/// The first line that the patches write in the declaration of a type or function, as [`plain_name`] names it: its first
/// line where they only take lines away.
fn changed_line<'p>(name: &str, patched: &'p Patched) -> Option<(&'p Path, u64)> {
    let (keyword, bare) = match name.split_once(' ') {
        Some((keyword, bare)) => (Some(keyword), bare),
        None => (None, name),
    };
    patched.touched.iter().find_map(|(path, touched)| {
        let text = patched.files.get(path)?.as_ref()?;
        let (first, last) = declared::lines(text, keyword, bare)?;
        let (first, last) = (u64::from(first), u64::from(last));
        let written = touched.lines.iter().find_map(|&(from, count)| {
            let line = from.max(first);
            (line <= last && line < from.saturating_add(count)).then_some(line)
        });
        Some((path.as_path(), written.unwrap_or(first)))
    })
}

/// `struct name` for genksyms' `s#name`.
fn plain_name(name: &str) -> String {
    match name.split_once('#') {
        Some(("s", name)) => format!("struct {name}"),
        Some(("u", name)) => format!("union {name}"),
        Some(("e" | "E", name)) => format!("enum {name}"),
        Some((_, name)) => name.to_owned(),
        None => name.to_owned(),
    }
}

fn of_unit(
    context: &Context<'_>,
    unit: &Unit,
    objects: &Objects,
    exports: &Symvers,
) -> Result<Vec<(String, Changed)>, Error> {
    let exported = exported(unit, objects)?;
    let shipped: BTreeMap<&str, u32> = exported
        .iter()
        .filter_map(|name| Some((name.as_str(), exports.get(name.as_bytes().as_bstr())?.crc)))
        .filter(|(_, crc)| *crc != 0)
        .collect();
    if shipped.is_empty() {
        return Ok(Vec::new());
    }
    let patched = compute(context, unit, Variant::Patched)?;
    let differs = |name: &str, crc: u32| patched.crcs.get(name).is_some_and(|now| *now != crc);
    if !shipped.iter().any(|(name, crc)| differs(name, *crc)) {
        return Ok(Vec::new());
    }
    let original = compute(context, unit, Variant::Original)?;
    let mut changed = Vec::new();
    for (name, crc) in shipped {
        // Where not even the original comes out as shipped, nothing is known.
        if let Some(&now) = patched.crcs.get(name).filter(|now| **now != crc)
            && original.crcs.get(name) == Some(&crc)
        {
            let types = changed_types(&original.types, &patched.types, name);
            // A new `#include` shows what is in a structure that was only named before; that is no change of it.
            if types.is_empty() {
                continue;
            }
            let own = is_redeclared(&original.types, &patched.types, name);
            changed.push((name.to_owned(), Changed { shipped: crc, patched: now, types, own }));
        }
    }
    Ok(changed)
}

/// The symbols that the original of a unit exports.
fn exported(unit: &Unit, objects: &Objects) -> Result<BTreeSet<String>, Error> {
    let Some(path) = objects.get(&(unit.object.clone(), Variant::Original)) else {
        return Ok(BTreeSet::new());
    };
    let bytes = fs_err::read(path).map_err(Error::io(Phase::Link, "read", path))?;
    let Ok(object) = Object::read(&bytes) else { return Ok(BTreeSet::new()) };
    let name = |name: &[u8]| {
        let name = EXPORTS.iter().find_map(|prefix| name.strip_prefix(*prefix))?;
        Some(name.to_str_lossy().into_owned())
    };
    Ok(object.symbols.iter().filter_map(|symbol| name(symbol.name.as_ref())).collect())
}

/// What genksyms says about a unit.
#[derive(Debug, Default)]
struct Computed {
    crcs: BTreeMap<String, u32>,
    /// By name, what each type or symbol consists of.
    types: BTreeMap<String, String>,
}

fn compute(context: &Context<'_>, unit: &Unit, variant: Variant) -> Result<Computed, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Phase::Link, "genksyms", "the CRCs of the unit's exported symbols cannot be computed")
            .file(&unit.source)
            .cause(error)
            .remedy("remove the object tree from the cache directory and run again")
    };
    let name = if variant == Variant::Patched { "crc-patched" } else { "crc-original" };
    let text = context.output.join(name).join(unit.object.with_extension("i"));
    if let Some(parent) = text.parent() {
        fs_err::create_dir_all(parent).map_err(Error::io(Phase::Link, "create", parent))?;
    }
    let job = Job { unit, variant, plain: Plain::default() };
    let command = compile::command(context, job).without_flags(|flag| flag == "-c");
    let words = command.with_last(["-E", "-D__GENKSYMS__"]).with_output(&text).words();
    let Some((program, arguments)) = words.split_first() else { return Ok(Computed::default()) };
    context.command(program).args(arguments).run().map_err(|e| failed(&e))?;
    let types = text.with_extension("symtypes");
    let script = r#"exec "$1" -T "$2" -r /dev/null < "$3""#;
    let output = context
        .command("sh")
        .args(["-c", script, "sh", &format!("./{GENKSYMS}")])
        .args([&types, &text])
        .run()
        .map_err(|e| failed(&e))?;
    let types = fs_err::read(&types).map_err(Error::io(Phase::Link, "read", &types))?;
    let computed = Computed { crcs: crcs(&output.stdout), types: symtypes(&types) };
    // Preprocessed text is large, and there may be hundreds of units.
    let _ = fs_err::remove_file(&text);
    Ok(computed)
}

/// `#SYMVER name 0x0123abcd`, or before 5.19 `__crc_name = 0x0123abcd;`.
fn crcs(output: &[u8]) -> BTreeMap<String, u32> {
    let crc = |text: &str| u32::from_str_radix(text.trim_end_matches(';').trim_start_matches("0x"), 16).ok();
    let text = output.to_str_lossy();
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["#SYMVER", name, value] => Some(((*name).to_owned(), crc(value)?)),
            [name, "=", value, ..] => Some((name.strip_prefix("__crc_")?.to_owned(), crc(value)?)),
            _ => None,
        }
    };
    text.lines().filter_map(of_line).collect()
}

/// One type or symbol a line: its name, and what it consists of.
fn symtypes(text: &[u8]) -> BTreeMap<String, String> {
    let text = text.to_str_lossy();
    let of_line = |line: &str| {
        let (name, definition) = line.split_once(' ')?;
        Some((name.to_owned(), definition.trim().to_owned()))
    };
    text.lines().filter_map(of_line).collect()
}

/// Whether a symbol's own declaration changes, `const` and `volatile` aside, which nobody sees who calls a function.
fn is_redeclared(
    original: &BTreeMap<String, String>,
    patched: &BTreeMap<String, String>,
    symbol: &str,
) -> bool {
    let words = |text: &String| {
        let words = text.split(' ').filter(|word| !matches!(*word, "const" | "volatile"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    original.get(symbol).map(words) != patched.get(symbol).map(words)
}

/// What genksyms writes for the contents of a structure that the unit only names.
const UNKNOWN: &str = "UNKNOWN";

/// The types that differ, of those that a symbol consists of as far as both versions know them.
fn changed_types(
    original: &BTreeMap<String, String>,
    patched: &BTreeMap<String, String>,
    symbol: &str,
) -> Vec<String> {
    let mut open = vec![symbol];
    let mut seen = BTreeSet::new();
    let mut changed = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(definition) = patched.get(name).filter(|_| seen.insert(name)) else { continue };
        let Some(was) = original.get(name) else { continue };
        if [was, definition].iter().any(|text| text.split(' ').any(|word| word == UNKNOWN)) {
            continue;
        }
        if was != definition {
            changed.insert(name.to_owned());
        }
        open.extend(definition.split(' ').filter(|word| word.contains('#')));
    }
    changed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::{FileKind, Touched};

    #[test]
    fn both_forms_of_output_are_read() {
        let output = b"#SYMVER one 0x0000abcd\n__crc_two = 0x12345678;\n__crc_three = 0x0000000a ;\nnoise\n";
        let crcs = crcs(output);
        assert_eq!(
            crcs.into_iter().collect::<Vec<_>>(),
            [("one".to_owned(), 0xabcd), ("three".to_owned(), 10), ("two".to_owned(), 0x1234_5678)]
        );
    }

    #[test]
    fn exports_that_patched_code_uses_count_though_their_code_stays() {
        let directory = tempfile::tempdir().unwrap();
        let compile = |name: &str, text: &str| {
            let source = directory.path().join(name).with_extension("c");
            fs_err::write(&source, text).unwrap();
            let object = source.with_extension("o");
            let status =
                std::process::Command::new("gcc").args(["-c", "-o"]).args([&object, &source]).status();
            assert!(status.unwrap().success());
            object
        };
        let exporting_foo = compile("a", "int foo(void) { return 1; } int __ksymtab_foo;");
        let bytes = fs_err::read(compile("b", "int foo(void); int bar(void) { return foo(); }")).unwrap();
        let words = ["gcc", "-c", "-o", "a.o", "a.c"].map(str::to_owned);
        let unit = Unit {
            source: "a.c".into(),
            spelled: "a.c".into(),
            object: "a.o".into(),
            owner: "vmlinux".into(),
            also: Vec::new(),
            compile: kbuild::command::CompileCommand::from_words(&words).unwrap(),
            objtool: None,
            indirect: true,
            created: false,
        };
        let objects = Objects::from([(("a.o".into(), Variant::Original), exporting_foo)]);
        let found = |bytes: Vec<u8>| {
            let report = create_diff_object::Report::default();
            let extracts = [Extract { unit: "b.o".into(), owner: "vmlinux".into(), bytes, report }];
            exporting(std::slice::from_ref(&unit), &extracts, &objects).unwrap().len()
        };
        assert_eq!(found(bytes), 1);
        let other = compile("c", "int other(void); int bar(void) { return other(); }");
        assert_eq!(found(fs_err::read(other).unwrap()), 0);
    }

    #[test]
    fn an_exported_function_keeps_its_type() {
        let directory = tempfile::tempdir().unwrap();
        let (source, object) = (directory.path().join("b.c"), directory.path().join("b.o"));
        fs_err::write(&source, "int foo(char *a) { return *a; }").unwrap();
        let status = std::process::Command::new("gcc").args(["-c", "-o"]).args([&object, &source]).status();
        assert!(status.unwrap().success());
        let files = BTreeMap::new();
        let root = directory.path().join("overlay");
        let overlay = Overlay::create(&root, directory.path(), &files, std::iter::empty()).unwrap();
        let refused = |own: bool, replaced: &str| {
            let change = Changed { shipped: 1, patched: 2, types: vec!["s#a".to_owned()], own };
            let report = create_diff_object::Report {
                changed: vec![replaced.to_owned()],
                ..create_diff_object::Report::default()
            };
            let bytes = fs_err::read(&object).unwrap();
            let extract = Extract { unit: "b.o".into(), owner: "vmlinux".into(), bytes, report };
            refuse(
                &BTreeMap::from([("foo".to_owned(), change)]),
                &[extract],
                &[],
                (&overlay, &Patched::default()),
            )
            .is_err()
        };
        assert!(refused(true, "foo"));
        assert!(!refused(false, "foo"));
        assert!(!refused(true, "bar"));
        let declared = |text: &str| symtypes(format!("f {text}\n").as_bytes());
        let differs = |after: &str| is_redeclared(&declared("int f ( char * )"), &declared(after), "f");
        assert!(differs("int f ( char * , int )"));
        assert!(!differs("int f ( const char * )"));
    }

    #[test]
    fn the_types_behind_a_symbol_are_searched_for_the_change() {
        let original = symtypes(
            b"s#leaf struct leaf { int a ; }\ns#root struct root { s#leaf leaf ; }\n\
              s#other struct other { int b ; }\nf int f ( s#root * )\n",
        );
        let patched = symtypes(
            b"s#leaf struct leaf { int a ; int c ; }\ns#root struct root { s#leaf leaf ; }\n\
              s#other struct other { int d ; }\nf int f ( s#root * )\n",
        );
        assert_eq!(changed_types(&original, &patched, "f"), ["s#leaf"]);
        assert_eq!(changed_types(&original, &original, "f"), [""; 0]);
        assert_eq!(changed_types(&original, &patched, "none"), [""; 0]);
        // `other` is only named by the original, and includes what the original does not know.
        let original = symtypes(
            b"s#root struct root { s#other * o ; }\ns#other struct other { UNKNOWN }\nf int f ( s#root * )\n",
        );
        let patched = symtypes(
            b"s#root struct root { s#other * o ; }\ns#other struct other { s#new n ; }\ns#new struct new { int a ; }\n\
              f int f ( s#root * )\n",
        );
        assert_eq!(changed_types(&original, &patched, "f"), [""; 0]);
        assert_eq!(changed_types(&patched, &original, "f"), [""; 0]);
        let other = symtypes(
            b"s#root struct root { s#new * o ; }\ns#new struct new { int a ; }\nf int f ( s#root * )\n",
        );
        assert_eq!(changed_types(&original, &other, "f"), ["s#root"]);
        let change = Changed { shipped: 1, patched: 2, types: vec!["s#leaf".into()], own: false };
        let crcs = "its CRC is 0x00000001, and would be 0x00000002";
        let describe = |patched: &Patched| describe(&change, "f", patched);
        assert_eq!(describe(&Patched::default()), format!("{crcs}, because of struct leaf"));
        let header = |lines: Vec<(u64, u64)>| {
            let text = b"struct other;\nstruct leaf {\n\tint a;\n\tint c;\n};\n".to_vec();
            let mut patched = Patched::default();
            patched.files.insert("include/leaf.h".into(), Some(text));
            let touched = Touched { kind: FileKind::Header, created: false, lines };
            patched.touched.insert("include/leaf.h".into(), touched);
            patched
        };
        let at = |line: u32| format!("{crcs}, because of struct leaf (include/leaf.h:{line})");
        assert_eq!(describe(&header(vec![(1, 1), (4, 1)])), at(4));
        assert_eq!(describe(&header(vec![(3, 2)])), at(3));
        assert_eq!(describe(&header(vec![(7, 1)])), at(2));
    }
}
