//! `create-diff-object`: compares two versions of an object and writes the extract.

mod codes;
mod explain;
mod readelf;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use create_diff_object::{Entry, EntrySizes, Failure, Input, Options, Outcome, Report, diff};
use kbuild::mapped::Mapped;
use kbuild::symvers::Symvers;
use kpatch_elf::arch::Machine;
use kpatch_elf::{Endian, klp};
use serde::Serialize;

/// Compares two versions of a kernel object and extracts what changed.
///
/// Exit status: 0 output written, 1 error, 2 difference that a live patch cannot make, 3 no functional
/// change.
///
/// Sizes of the entries of special sections are taken from environment variables `NAME_STRUCT_SIZE` (NAME
/// is one of BUG, EX, ALT, STATIC_CALL, PARA, JUMP, ORC, PRINTK_INDEX, FIXUP); built-in values of the
/// machine stand in for those that are not set.
#[derive(Parser)]
#[command(name = "create-diff-object", version)]
struct Arguments {
    /// The same as --explain, for scripts written for the predecessor.
    #[arg(short, long)]
    debug: bool,
    /// Say for each function and datum in the extract why it is there, and where changed functions differ.
    #[arg(long)]
    explain: bool,
    /// Write everything that was found as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave out changes of code and data that the kernel frees after start.
    #[arg(long)]
    skip_init_changes: bool,
    /// Leave out changes of the initial values of these data.
    #[arg(long, value_name = "SYMBOL", value_delimiter = ',')]
    skip_data_changes: Vec<String>,
    /// Replace whatever calls these global functions, which have no patchable entry, in place of themselves.
    #[arg(long, value_name = "FUNCTION", value_delimiter = ',')]
    replace_callers: Vec<String>,
    /// Object compiled from the original source.
    original: PathBuf,
    /// Object compiled from the patched source.
    patched: PathBuf,
    /// `vmlinux`, or the name of the module that the object is part of.
    parent_name: String,
    /// Symbol table of that parent: the output of `readelf -s --wide`, or the ELF file itself.
    parent_symtab: PathBuf,
    /// The kernel's Module.symvers.
    module_symvers: PathBuf,
    /// Name of the patch module.
    patch_module_name: String,
    /// Where to write the extract.
    output: PathBuf,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Json<'a> {
    status: u8,
    patch_module: &'a str,
    struct_sizes: std::collections::BTreeMap<&'static str, u32>,
    #[serde(flatten)]
    report: &'a Report,
    errors: Vec<JsonError>,
}

#[derive(Serialize)]
struct JsonError {
    code: &'static str,
    message: String,
    remedy: &'static str,
    element: Option<String>,
    section: Option<String>,
    source: Option<create_diff_object::SourceLine>,
}

/// The command line. The table of codes is put together only for those who ask for it.
fn arguments() -> Arguments {
    if !std::env::args_os().any(|argument| argument == "--help") {
        return Arguments::parse();
    }
    let matches = Arguments::command().after_long_help(codes::table()).get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn main() -> ExitCode {
    let arguments = arguments();
    match run(&arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ERROR: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Box<dyn std::error::Error>> {
    let original = Mapped::open(&arguments.original)?;
    let patched = Mapped::open(&arguments.patched)?;
    let object = arguments.parent_name.replace('-', "_");
    let table = Mapped::open(&arguments.parent_symtab)?;
    let shipped = if table.starts_with(b"\x7fELF") {
        kbuild::symtab::SymbolTable::from_elf(&table)
            .map_err(|e| format!("{}: {e}", arguments.parent_symtab.display()))?
    } else {
        readelf::parse(&table, object != klp::VMLINUX)
            .map_err(|e| format!("{}: {e}", arguments.parent_symtab.display()))?
    };
    let exports = Symvers::parse(&fs_err::read(&arguments.module_symvers)?)
        .map_err(|e| format!("{}: {e}", arguments.module_symvers.display()))?;
    let sizes = sizes(&patched)?;
    // The tools' predecessor prints the path without its first directory (`orig/fs/proc/meminfo.o`).
    let path = arguments.original.to_string_lossy().into_owned();
    let unit = path.split_once('/').map_or(path.as_str(), |(_, rest)| rest).to_owned();
    let input = Input {
        original: &original,
        patched: &patched,
        unit: &unit,
        object: &object,
        shipped: &shipped,
        exports: &exports,
        sizes: &sizes,
        source_trees: &[],
        options: Options {
            make_entry_table: true,
            skip_init: arguments.skip_init_changes,
            skip_data: &arguments.skip_data_changes,
            also_changed: &[],
            copied: &arguments.replace_callers,
            report_tracepoints: false,
            instructions: arguments.explain || arguments.debug || arguments.json.is_some(),
        },
    };
    let outcome = diff(&input);
    let (status, report, errors) = match &outcome {
        Ok(Outcome::Unchanged(report)) => (3, report, &[][..]),
        Ok(Outcome::Extract(extract)) => (0, &extract.report, &[][..]),
        Err(failure) => (failure.exit_status(), &failure.report, &failure.errors[..]),
    };
    if let Some(path) = &arguments.json {
        let json = Json {
            status,
            patch_module: &arguments.patch_module_name,
            struct_sizes: Entry::ALL
                .into_iter()
                .filter_map(|e| Some((e.variable(), sizes.get(e)?)))
                .collect(),
            report,
            errors: errors
                .iter()
                .map(|e| JsonError {
                    code: e.error.code(),
                    message: e.error.to_string(),
                    remedy: e.error.remedy(),
                    element: e.element.clone(),
                    section: e.section.clone(),
                    source: e.source.clone(),
                })
                .collect(),
        };
        fs_err::write(path, serde_json::to_vec_pretty(&json)?)?;
    }
    explain::changes(&unit, report);
    if arguments.explain || arguments.debug {
        explain::reasons(&unit, report);
    }
    match &outcome {
        Ok(Outcome::Unchanged(_)) => {
            println!("{unit}: no functional change");
        }
        Ok(Outcome::Extract(extract)) => write(&arguments.output, &extract.bytes)?,
        Err(failure) => refuse(&unit, failure),
    }
    // The process ends: giving thousands of names back one by one would be for nothing.
    std::mem::forget(outcome);
    Ok(status)
}

fn refuse(unit: &str, failure: &Failure) {
    for error in &failure.errors {
        eprintln!("ERROR: {unit}: {error}");
    }
    if failure.exit_status() == 2 {
        eprintln!("create-diff-object: unreconcilable difference");
    }
}

/// Writes beside and renames, so that no half-written output is ever seen.
fn write(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    fs_err::write(&beside, bytes)?;
    fs_err::rename(&beside, path)
}

fn sizes(object: &[u8]) -> Result<EntrySizes, String> {
    let machine = object.get(18..20).and_then(|_| {
        let endian = if object.get(5) == Some(&2) { Endian::Big } else { Endian::Little };
        Machine::from_elf(endian.u16(object, 18)?, endian)
    });
    let mut sizes = machine.map(EntrySizes::builtin).unwrap_or_default();
    for entry in Entry::ALL {
        let variable = format!("{}_STRUCT_SIZE", entry.variable());
        if let Some(value) = std::env::var_os(&variable) {
            let size = value
                .to_str()
                .and_then(|v| v.parse().ok())
                .filter(|&size: &u32| size > 0)
                .ok_or_else(|| format!("{variable}={} is no size", value.display()))?;
            sizes.set(entry, size);
        }
    }
    Ok(sizes)
}
