//! Functions whose parameters the patches change while some of the code around them stays as it is.
//!
//! With `--only-touched-units` the other readers of a changed header are not compiled, so no compiler sees that they pass
//! what a function took before, or that a function which they define still takes that. gcc lists what a unit declares
//! (`-aux-info`): where that changes, both ends of every call have to be in the patch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bstr::ByteSlice;
use create_diff_object::SourceLine;
use kpatch_elf::{Object, Place};
use rayon::prelude::*;

use super::compile;
use super::extract::Extract;
use super::job::{Context, Job, Plain, Variant};
use super::places;
use super::shipped::{ShippedBytes, Tables};
use super::unit::Unit;
use crate::callers;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::phase::Phase;

/// What a unit says about a function.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prototype {
    /// As C writes it, without the names of parameters.
    text: String,
    /// The unit defines it, in this line.
    defined: Option<SourceLine>,
}

impl Prototype {
    /// What it says about registers and stack: without `const` and `volatile`.
    fn passed(&self) -> String {
        [" const ", " volatile ", "(const ", "(volatile "]
            .iter()
            .fold(format!(" {}", self.text), |text, word| text.replace(word, &word[..1]))
    }
}

/// Functions by name.
type Prototypes = BTreeMap<String, Prototype>;

/// A function whose prototype changes: how the running code has it, and the patched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Changed {
    before: String,
    after: String,
    /// Where a unit of the patch defines it.
    defined: Option<SourceLine>,
}

/// Refuses calls between old and new code that do not agree about parameters.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    extracts: &[Extract],
    bytes: &ShippedBytes,
    tables: &Tables<'_>,
    events: Events<'_>,
) -> Result<(), Vec<Error>> {
    if context.compiler.contains("clang") {
        events(Event::warning(
            "whether functions change their parameters is not known: only gcc lists prototypes",
        ));
        return Ok(());
    }
    let changed = changed(context, units)?;
    if changed.is_empty() {
        return Ok(());
    }
    let replaced: BTreeSet<&str> =
        extracts.iter().flat_map(|extract| &extract.report.changed).map(|name| plain_name(name)).collect();
    let mut errors = Vec::new();
    for extract in extracts {
        let Some(unit) = units.iter().find(|unit| unit.object == extract.unit) else { continue };
        for symbol in undefined(extract) {
            if let Some(change) = changed.get(&symbol).filter(|change| change.defined.is_none()) {
                let error = called(&symbol, change).file(&unit.source);
                errors.push(places::of_use(error, context.overlay, extract, &symbol));
            }
        }
        for function in &extract.report.changed {
            let Some(change) = changed.get(function) else { continue };
            let Some(place) = &change.defined else { continue };
            let Some((object, symbols)) = tables.bytes(&extract.owner).zip(tables.get(&extract.owner)) else {
                continue;
            };
            let mut callers = callers::callers(object, symbols, function);
            callers.retain(|caller| !replaced.contains(plain_name(caller)));
            let exported = bytes.exports.get(function.as_bytes().as_bstr()).is_some();
            if exported || !callers.is_empty() {
                let who = callers::describe(&extract.owner, &callers, exported);
                errors.push(places::at(replaced_alone(function, change, &who), context.overlay, place));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What a call of a function that stays as it is meets.
fn called(function: &str, change: &Changed) -> Error {
    Error::new(
        Phase::Link,
        "prototype-changed",
        format!(
            "patched code calls {function} by a changed prototype, but the patches do not change the function"
        ),
    )
    .function(function)
    .cause(change)
    .remedy(format!("add the change of {function} itself to the patch, or leave its declaration as it is"))
}

/// What callers that stay as they are meet.
fn replaced_alone(function: &str, change: &Changed, callers: &str) -> Error {
    Error::new(
        Phase::Link,
        "prototype-changed",
        format!("{function} changes its prototype, but not all of its callers are in the patch"),
    )
    .function(function)
    .cause(format!("{change}; {callers}"))
    .remedy(
        "add the changes of the callers to the patch, or give the function with new parameters a new name",
    )
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it was `{}`, is `{}`", self.before, self.after)
    }
}

/// A function's name without what the compiler adds for a part or a copy of it.
fn plain_name(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn undefined(extract: &Extract) -> Vec<String> {
    // The linker says what is wrong with one that cannot be read.
    let Ok(object) = Object::read(&extract.bytes) else { return Vec::new() };
    let symbols = object.symbols.iter().filter(|symbol| symbol.place == Place::Undefined);
    symbols.map(|symbol| symbol.name.to_str_lossy().into_owned()).collect()
}

fn changed(context: &Context<'_>, units: &[Unit]) -> Result<BTreeMap<String, Changed>, Vec<Error>> {
    let pool = compile::pool(context.jobs)?;
    let of_unit = |unit: &Unit| -> Result<BTreeMap<String, Changed>, Error> {
        let original = prototypes(context, unit, Variant::Original)?;
        Ok(differences(&original, &prototypes(context, unit, Variant::Patched)?))
    };
    let existing = units.par_iter().filter(|unit| !unit.created);
    let results: Vec<_> = pool.install(|| existing.map(of_unit).collect());
    let (mut all, mut errors) = (BTreeMap::<String, Changed>::new(), Vec::new());
    for result in results {
        match result {
            Ok(found) => {
                for (name, change) in found {
                    let known = all.entry(name).or_default();
                    let defined = known.defined.take().or_else(|| change.defined.clone());
                    *known = Changed { defined, ..change };
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// The functions that both know and say different things about.
fn differences(original: &Prototypes, patched: &Prototypes) -> BTreeMap<String, Changed> {
    let both = patched.iter().filter_map(|(name, after)| Some((name, original.get(name)?, after)));
    both.filter(|(_, before, after)| before.passed() != after.passed())
        .map(|(name, before, after)| {
            let (before, defined) = (before.text.clone(), after.defined.clone());
            (name.clone(), Changed { before, after: after.text.clone(), defined })
        })
        .collect()
}

/// What a unit declares.
fn prototypes(context: &Context<'_>, unit: &Unit, variant: Variant) -> Result<Prototypes, Error> {
    let name = if variant == Variant::Patched { "prototypes-patched" } else { "prototypes-original" };
    let list = context.output.join(name).join(unit.object.with_extension("txt"));
    if let Some(parent) = list.parent() {
        fs_err::create_dir_all(parent).map_err(Error::io(Phase::Link, "create", parent))?;
    }
    let job = Job { unit, variant, plain: Plain::default() };
    let command = compile::command(context, job).without_flags(|flag| flag == "-c");
    let words = command.with_last(["-fsyntax-only", "-aux-info"]).words();
    let Some((program, arguments)) = words.split_first() else { return Ok(Prototypes::new()) };
    let task = context.root.command(program).args(arguments).args([&list]);
    task.directory(context.tree.path()).run().map_err(|error| {
        Error::new(Phase::Link, "compiler", "the compiler does not list what the unit declares")
            .file(&unit.source)
            .cause(error)
            .remedy("build without --only-touched-units")
    })?;
    let text = fs_err::read(&list).map_err(Error::io(Phase::Link, "read", &list))?;
    Ok(parse(&text.to_str_lossy()))
}

/// Reads lines such as `/* a.c:3:NF */ extern int f (int a); /* (a) int a; */`, which `-aux-info` writes for functions
/// that are not static: `C` for a declaration, `F` for a definition.
fn parse(list: &str) -> Prototypes {
    let mut found = Prototypes::new();
    for line in list.lines() {
        let Some((place, rest)) = line.strip_prefix("/* ").and_then(|line| line.split_once(" */ ")) else {
            continue;
        };
        let Some(text) = rest.strip_prefix("extern ") else { continue };
        let Some((text, note)) = text.split_once(';') else { continue };
        let Some((head, parameters)) = split_at_parameters(text) else { continue };
        let name = head.rsplit([' ', '*', '(']).next().unwrap_or_default();
        let defined = definition(place);
        let text = if defined.is_some() { without_names(head, parameters, note) } else { text.to_owned() };
        let entry = found.entry(name.to_owned()).or_insert_with(|| Prototype { text, defined: None });
        entry.defined = defined.or(entry.defined.take());
    }
    found
}

/// The place in `a.c:3:NF`, if it is one of a definition.
fn definition(place: &str) -> Option<SourceLine> {
    let (place, kind) = place.rsplit_once(':')?;
    let (file, line) = place.rsplit_once(':')?;
    let line = line.parse().ok().filter(|_| kind.ends_with('F'))?;
    Some(SourceLine { file: file.to_owned(), line })
}

/// `extern int f` and `int a, int b` of `extern int f (int a, int b)`: the name stands before the first blank and bracket
/// that no star follows.
fn split_at_parameters(text: &str) -> Option<(&str, &str)> {
    let at = text.match_indices(" (").map(|(at, _)| at).find(|&at| !text[at + 2..].starts_with('*'))?;
    let (head, rest) = text.split_at(at);
    Some((head, rest.trim_start_matches(" (").strip_suffix(')').unwrap_or(rest)))
}

/// A definition as a declaration has it. Its names stand behind it, in the order of the parameters: ` /* (a, b) … */`.
fn without_names(head: &str, parameters: &str, note: &str) -> String {
    let names =
        note.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(names, _)| names);
    let mut names = names.split(", ");
    let mut text = format!("{head} (");
    for (at, parameter) in top_level(parameters).enumerate() {
        let name = names.next().unwrap_or_default();
        let parameter = match parameter.rfind(name).filter(|_| !name.is_empty()) {
            Some(at) => format!("{}{}", &parameter[..at], &parameter[at + name.len()..]),
            None => parameter.to_owned(),
        };
        let _ = write!(text, "{}{}", if at == 0 { "" } else { ", " }, parameter.trim_end());
    }
    text + ")"
}

/// The parameters, cut at the commas outside of brackets.
fn top_level(parameters: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    let cut = move |character: char| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    parameters.split(cut).map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Prototypes {
        let directory = tempfile::tempdir().unwrap();
        let (source, list) = (directory.path().join("a.c"), directory.path().join("a.txt"));
        fs_err::write(&source, text).unwrap();
        let words = ["-fsyntax-only", "-aux-info"];
        let status = std::process::Command::new("gcc").args(words).args([&list, &source]).status();
        assert!(status.unwrap().success());
        parse(&fs_err::read_to_string(&list).unwrap())
    }

    const SOURCE: &str = "typedef unsigned short u16; struct page;\n\
        int take(struct page *, u16);\n\
        void (*get(int which))(struct page *page);\n\
        static int own(int a) { return a; }\n\
        struct page *find(struct page *page, void (*done)(struct page *, int), int flags) { return page; }\n\
        int nothing(void) { return own(1); }\n";

    #[test]
    fn a_definition_says_what_a_declaration_does() {
        let found = of(SOURCE);
        let declared = of(
            "typedef unsigned short u16; struct page; struct page *find(struct page *, void (*)(struct page *, int), int);\n\
             int nothing(void);",
        );
        assert_eq!(found["find"].defined.as_ref().map(|place| place.line), Some(5));
        for name in ["find", "nothing"] {
            assert_eq!(found[name].text, declared[name].text);
            assert!(found[name].defined.is_some() && declared[name].defined.is_none());
        }
        assert!(found["take"].defined.is_none() && !found.contains_key("own"), "{found:?}");
    }

    #[test]
    fn only_types_of_parameters_count() {
        let changed = |from: &str, to: &str| {
            assert!(SOURCE.contains(from), "{from}");
            let found = differences(&of(SOURCE), &of(&SOURCE.replace(from, to)));
            found.into_iter().map(|(name, change)| format!("{name}: {change}")).collect::<Vec<_>>()
        };
        assert_eq!(changed("int flags)", "int more)"), [""; 0]);
        assert_eq!(changed("u16)", "u16 bits)"), [""; 0]);
        assert_eq!(changed("take(struct page *", "take(const struct page *"), [""; 0]);
        assert_eq!(changed("own(int a)", "own(long a)"), [""; 0]);
        assert_eq!(
            changed("u16)", "u16, int)"),
            ["take: it was `int take (struct page *, u16)`, is `int take (struct page *, u16, int)`"]
        );
        assert_eq!(
            changed("int flags)", "long flags)"),
            ["find: it was `struct page *find (struct page *, void (*) (struct page *, int), int)`, \
              is `struct page *find (struct page *, void (*) (struct page *, int), long int)`"]
        );
        assert_eq!(changed("int nothing", "long nothing").len(), 1);
    }
}
