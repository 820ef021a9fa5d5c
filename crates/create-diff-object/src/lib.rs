//! Compares two versions of a kernel object and extracts what changed.
//!
//! [`diff`] takes the bytes of both versions and what is known of the shipped kernel, and returns an extract
//! ([`kpatch_elf::extract`]) or the reasons against it. It does no input or output and has no state.
//!
//! One phase per module, each borrowing what the earlier ones made: `unit` reads an object and cuts it into
//! elements; `correlate` finds each element's original; `compare` and `lines` tell same from changed;
//! `select` decides what goes in and why; `verify` refuses what a live patch cannot do; `lookup` says what
//! an undefined symbol is in the shipped kernel; `emit` builds the extract.

mod author;
mod compare;
mod correlate;
mod emit;
mod entry;
mod error;
mod inlined;
mod keys;
mod lines;
mod lookup;
mod names;
mod pointers;
mod report;
mod select;
mod sizes;
mod skip;
mod source;
mod story;
mod tables;
mod transition;
mod unit;
mod verify;

use std::collections::BTreeSet;

use bstr::BStr;
use kbuild::symtab::SymbolTable;
use kbuild::symvers::Symvers;
use kpatch_elf::extract::{self, Manifest};
use kpatch_elf::{Section, section_type};

pub use error::{Diagnostic, DiffError};
pub use inlined::Inlined;
pub use pointers::{Pointer, pointers_to};
pub use report::{
    ElementReport, FirstDifference, Reason, Report, SharedName, SkipReason, Skipped, Status, Use,
};
pub use sizes::{Entry, EntrySizes, SizesError};
pub use source::SourceLine;

use author::Author;
use emit::Parts;
use lines::LineNumbers;
use lookup::Lookup;
use select::{Change, Seeds};
use source::SourceMap;
use unit::{ElementId, Kind, LoadError, Unit};

/// Choices that do not depend on the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the choices do not depend on each other")]
pub struct Options<'a> {
    /// Make `__mcount_loc` for functions that call the tracer and are listed nowhere: for objects that the
    /// target's own tools will not see again.
    pub make_entry_table: bool,
    /// Leave out changes of code and data that the kernel frees after start.
    pub skip_init: bool,
    /// Leave out changes of the initial values of these data.
    pub skip_data: &'a [String],
    /// Functions that count as changed in any case.
    pub also_changed: &'a [String],
    /// Global functions without patchable entry, of this unit or another one of the object, that the patch module has
    /// copies of: they are not replaced, and whatever calls them is, so that it calls the copy.
    pub copied: &'a [String],
    /// Report branches on tracepoints of modules like those on other static keys of modules, for callers who compile anew
    /// so that keys are read. Otherwise their entries are left out, with a warning.
    pub report_tracepoints: bool,
    /// Write the first differing instructions as text. A disassembler's tables cost more than comparing a small
    /// object.
    pub instructions: bool,
}

/// What to compare, and with what knowledge.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The object compiled from the original source.
    pub original: &'a [u8],
    /// The object compiled from the patched source.
    pub patched: &'a [u8],
    /// The object's path in the build, `fs/proc/meminfo.o`.
    pub unit: &'a str,
    /// The object it is part of: `vmlinux` or a module's name with `_` for `-`.
    pub object: &'a str,
    /// Symbol table of the shipped `object`.
    pub shipped: &'a SymbolTable<'a>,
    /// What vmlinux and the modules export.
    pub exports: &'a Symvers,
    /// Sizes of special sections' entries.
    pub sizes: &'a EntrySizes,
    /// Directories, with `/` at their end, of which names of source files in the objects' strings may tell:
    /// what stands below one goes by its relative name.
    pub source_trees: &'a [&'a str],
    /// Choices.
    pub options: Options<'a>,
}

impl<'a> Input<'a> {
    /// Two versions of a unit of vmlinux that goes by no name, with default choices; the rest is set where it
    /// matters.
    pub fn new(
        [original, patched]: [&'a [u8]; 2],
        shipped: &'a SymbolTable<'a>,
        exports: &'a Symvers,
        sizes: &'a EntrySizes,
    ) -> Input<'a> {
        Input {
            original,
            patched,
            unit: "unit.o",
            object: kpatch_elf::klp::VMLINUX,
            shipped,
            exports,
            sizes,
            source_trees: &[],
            options: Options::default(),
        }
    }
}

/// What a comparison comes to.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing that a kernel would notice changed.
    Unchanged(Report),
    /// Something did.
    Extract(Extract),
}

/// What changed, ready for the linker of the patch module.
#[derive(Debug)]
pub struct Extract {
    /// The object.
    pub bytes: Vec<u8>,
    /// Its manifest, which is in the object as well.
    pub manifest: Manifest,
    /// What was found and why.
    pub report: Report,
}

/// Why there is no extract.
#[derive(Debug)]
pub struct Failure {
    /// All reasons, in the order of the patched object.
    pub errors: Vec<Diagnostic>,
    /// What was found before, as far as it got.
    pub report: Report,
}

impl Failure {
    /// The exit status of the predecessor for this: 2 where differences cannot be reconciled, else 1.
    pub fn exit_status(&self) -> u8 {
        if self.errors.iter().any(|e| e.error.exit_status() == 2) { 2 } else { 1 }
    }

    /// What compiling both versions anew, with that read from variables, would overcome.
    pub fn overcome_by(&self) -> Overcome {
        Overcome {
            runtime_constants: self
                .errors
                .iter()
                .any(|e| matches!(e.error, DiffError::RuntimeConstant { .. })),
            static_keys: self.errors.iter().any(|e| matches!(e.error, DiffError::JumpLabel { .. })),
        }
    }

    /// The errors that compiling anew would not overcome.
    pub fn lasting(&self) -> impl Iterator<Item = &Diagnostic> {
        self.errors
            .iter()
            .filter(|e| !matches!(e.error, DiffError::RuntimeConstant { .. } | DiffError::JumpLabel { .. }))
    }
}

/// What stands in the way as the kernel would have to write it into code, which it does for no live patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overcome {
    /// Runtime constants: `asm-generic/runtime-const.h` reads variables.
    pub runtime_constants: bool,
    /// Static keys of a module.
    pub static_keys: bool,
}

/// From this size on, bytes, the second version is loaded while the first is.
const LARGE: usize = 1 << 20;

/// Loads both versions.
fn load<'a>(input: &Input<'a>) -> [Result<Unit<'a>, LoadError>; 2] {
    let one = |data: &'a [u8]| Unit::load(data, input.sizes, input.source_trees);
    if input.original.len().min(input.patched.len()) < LARGE {
        return [one(input.original), one(input.patched)];
    }
    std::thread::scope(|scope| {
        let original = scope.spawn(|| one(input.original));
        let patched = one(input.patched);
        let original = original.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        [original, patched]
    })
}

/// Compares two versions of an object.
#[expect(clippy::result_large_err, reason = "one value per comparison")]
pub fn diff(input: &Input<'_>) -> Result<Outcome, Failure> {
    let report = Report { unit: input.unit.to_owned(), object: input.object.to_owned(), ..Report::default() };
    let (mut original, mut patched) = match load(input) {
        [Ok(original), Ok(patched)] => (original, patched),
        [original, patched] => {
            let errors = load_errors("original", original.err())
                .chain(load_errors("patched", patched.err()))
                .collect::<Vec<_>>();
            return Err(Failure { errors: once_each(errors), report });
        }
    };
    let mut errors = Vec::new();
    let (a, b) = (&original.object, &patched.object);
    for (same, what) in [
        (a.machine == b.machine, "machine"),
        (a.abi == b.abi, "ABI"),
        (a.file_flags == b.file_flags, "flags"),
    ] {
        if !same {
            errors.push(plain(DiffError::Header { what }));
        }
    }
    if !errors.is_empty() {
        return Err(Failure { errors, report });
    }
    let keeps_memory_init = lookup::keeps_memory_init(&original, input.shipped, input.object);
    original.keeps_memory_init = keeps_memory_init;
    patched.keeps_memory_init = keeps_memory_init;
    compare(input, &original, &patched, report)
}

#[expect(clippy::result_large_err, reason = "one value per comparison")]
fn compare(
    input: &Input<'_>,
    original: &Unit<'_>,
    patched: &Unit<'_>,
    mut report: Report,
) -> Result<Outcome, Failure> {
    report.after_objtool = patched.after_objtool();
    report.warnings.extend(patched.warnings.iter().cloned());
    let mut early = Vec::new();
    let author = Author::read(patched, &mut early);
    let (lines_before, lines_after) = (SourceMap::of(&original.object), SourceMap::of(&patched.object));
    let lookup = Lookup::new(original, patched, input);
    let mut twins = correlate::correlate(original, patched);
    let mut statuses = select::statuses(
        original,
        patched,
        &mut twins,
        &LineNumbers { original: &lines_before, patched: &lines_after },
        &input.options,
        input.object == kpatch_elf::klp::VMLINUX,
    );
    let mut left = skip::data(patched, input.options.skip_data, &mut statuses);
    left.extend(statuses.unreached.iter().map(|id| (*id, SkipReason::Unreached)));
    apply_author(patched, &author, &mut statuses, &mut report);
    overridden(patched, &lookup, &mut statuses, &mut report);

    for &(table, pointers) in &statuses.tables {
        let name = patched.name(table);
        report.warnings.push(if pointers {
            format!("constant {name} changed: objects made before keep the original functions")
        } else {
            format!("constant {name} changed: all functions that use it are replaced")
        });
    }

    let mut seeds = Seeds {
        callbacks: author.callbacks.iter().map(|c| c.1).collect(),
        ignored: author.ignored_functions.clone(),
        dropped: BTreeSet::new(),
    };
    let mut selection = select::select(patched, &statuses, &seeds);
    let (dropped, key_errors) =
        keys::check(patched, &lookup, &selection, input.options.report_tracepoints, &mut report.warnings);
    if !dropped.is_empty() {
        seeds.dropped = dropped;
        selection = select::select(patched, &statuses, &seeds);
    }

    let is_function = |id: &ElementId| patched.element(*id).kind == Kind::Function;
    if patched.object.section_named(".printk_index").is_some() && selection.order.iter().any(is_function) {
        report.warnings.push(
            "printk's index does not list the messages of replaced functions: .printk_index is left out"
                .to_owned(),
        );
    }
    let sources = (&lines_before, &lines_after);
    let scenery = story::Scenery { sources, instructions: input.options.instructions };
    story::tell(&mut report, original, patched, &twins, &statuses, &selection, &author, &scenery);
    let mut errors: Vec<(Option<ElementId>, DiffError)> = early.into_iter().map(|e| (None, e)).collect();
    errors.extend(key_errors);
    let verdict = verify::verify(
        original,
        patched,
        &twins,
        &statuses,
        &selection,
        &author,
        (input.object, input.options.skip_init),
        &mut report.warnings,
    );
    errors.extend(verdict.errors);
    errors.extend(transition::check(original, patched, &twins, &statuses, &selection, &mut report.warnings));
    left.extend(verdict.left_out);
    left.sort_by_key(|(id, _)| *id);
    errors.extend(skip::dependencies(original, patched, &twins, &statuses, &selection, &left));
    let place = |id: ElementId, offset| lines_after.at(patched.element(id).section, offset);
    report.skipped = left
        .iter()
        .map(|&(id, reason)| Skipped {
            name: skip::name(patched, id),
            section: patched.section(id).name.to_string(),
            reason,
            source: place(id, patched.element(id).origin),
        })
        .collect();
    let nothing = selection.order.is_empty();
    if nothing && errors.is_empty() {
        return Ok(Outcome::Unchanged(report));
    }
    let parts = Parts {
        original,
        patched,
        twins: &twins,
        statuses: &statuses,
        selection: &selection,
        lookup: &lookup,
        author: &author,
        unit: input.unit,
        object: input.object,
        make_entry_table: input.options.make_entry_table,
    };
    let emitted = match emit::emit(&parts) {
        Ok(emitted) if errors.is_empty() => emitted,
        Ok(_) => return Err(fail(errors, patched, &lines_after, report)),
        Err(more) => {
            errors.extend(more);
            return Err(fail(errors, patched, &lines_after, report));
        }
    };
    report.warnings.extend(emitted.warnings.iter().cloned());
    report.unresolved = emitted.unresolved.into_iter().collect();
    report.uses = emitted
        .uses
        .into_iter()
        .map(|(symbol, (by, offset))| Use { symbol, by: patched.name(by), source: place(by, offset) })
        .collect();
    story::sum_up(&mut report, &emitted.object, &emitted.manifest);
    match write(emitted.object, &emitted.manifest) {
        Ok(bytes) => Ok(Outcome::Extract(Extract { bytes, manifest: emitted.manifest, report })),
        Err(error) => Err(Failure { errors: vec![plain(error)], report }),
    }
}

/// What the author wants ignored counts as unchanged.
fn apply_author(patched: &Unit<'_>, author: &Author, statuses: &mut select::Statuses, report: &mut Report) {
    for function in &author.forced {
        report.warnings.push(format!("function '{function}' marked with KPATCH_FORCE_UNSAFE!"));
    }
    if author.ignored_functions.is_empty() && author.ignored_sections.is_empty() {
        return;
    }
    for id in patched.ids() {
        let section: &BStr = patched.section(id).name.as_ref();
        let function = patched.element(id).kind == Kind::Function;
        let parent = statuses.parent.get(&id).copied().unwrap_or(id);
        if author.ignored_functions.contains(&id) || author.ignored_functions.contains(&parent) {
            statuses.of[id.index()] = Change::Same;
            if function && parent == id {
                report.ignored_functions.push(patched.name(id));
            }
        } else if author.ignores(section) {
            statuses.of[id.index()] = Change::Same;
            let section = section.to_string();
            if !report.ignored_sections.contains(&section) {
                report.ignored_sections.push(section);
            }
        }
    }
}

/// A weak function that another unit overrides is not in the kernel: a change of it changes nothing.
fn overridden(patched: &Unit<'_>, lookup: &Lookup<'_>, statuses: &mut select::Statuses, report: &mut Report) {
    for id in patched.ids() {
        if statuses.of[id.index()] != Change::Changed || patched.element(id).kind != Kind::Function {
            continue;
        }
        let Some((_, name)) = patched.weak(id) else { continue };
        if lookup.global(name).is_some_and(|shipped| !lookup.is_weak(shipped)) {
            statuses.of[id.index()] = Change::Same;
            report.warnings.push(format!(
                "{name} changed, but the kernel has another definition that overrides this weak one"
            ));
        }
    }
}

fn write(mut object: kpatch_elf::Object<'_>, manifest: &Manifest) -> Result<Vec<u8>, DiffError> {
    let text = serde_json::to_vec(manifest).map_err(|error| DiffError::Manifest(error.to_string()))?;
    object.add_section(Section::new(extract::SECTION, section_type::PROGBITS, 0, 1, text));
    Ok(object.write()?)
}

fn plain(error: DiffError) -> Diagnostic {
    Diagnostic { error, element: None, section: None, source: None }
}

fn load_errors(which: &'static str, error: Option<LoadError>) -> impl Iterator<Item = Diagnostic> {
    let errors = match error {
        None => Vec::new(),
        Some(LoadError::Read(source)) => vec![DiffError::Read { which, source }],
        Some(LoadError::Tables(errors)) => errors,
    };
    errors.into_iter().map(plain)
}

/// Both versions tell the same of a section that neither can be cut into entries.
fn once_each(errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut out: Vec<Diagnostic> = Vec::new();
    for error in errors {
        if !out.contains(&error) {
            out.push(error);
        }
    }
    out
}

/// Says where each error is.
fn fail(
    mut errors: Vec<(Option<ElementId>, DiffError)>,
    patched: &Unit<'_>,
    lines: &SourceMap<'_>,
    report: Report,
) -> Failure {
    errors.sort_by_key(|(id, _)| *id);
    let errors = errors
        .into_iter()
        .map(|(id, error)| {
            let Some(id) = id else { return plain(error) };
            let element = patched.element(id);
            Diagnostic {
                error,
                element: Some(patched.name(id)),
                section: Some(patched.section(id).name.to_string()),
                source: (element.kind == Kind::Function)
                    .then(|| lines.at(element.section, element.origin))
                    .flatten(),
            }
        })
        .collect();
    Failure { errors: once_each(errors), report }
}
