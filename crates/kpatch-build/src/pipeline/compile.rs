//! Units to objects, by the command line that kbuild used for the kernel.
//!
//! Three variants of a unit exist. The proof wants the original exactly as the kernel was compiled; the diff
//! wants original and patched with a section for each function and datum, and with line tables, so that a
//! refusal can name source lines. objtool runs on none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bstr::ByteSlice;
use kbuild::command::{CompileCommand, listed_files};
use kbuild::root::RunError;
use rayon::prelude::*;

use super::job::{Context, Job, Plain, Variant};
use super::reads;
use super::unit::Unit;
use crate::cache::{CacheError, Key, KeyBuilder, Lookup};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::phase::Phase;

/// Options that give every function and datum a section of its own. Compressed debug sections (gcc's defaults
/// differ by distribution) would only cost time.
const DIFF_OPTIONS: [&str; 3] = ["-ffunction-sections", "-fdata-sections", "-gz=none"];

/// These variants of all units.
pub fn jobs<'u>(units: &'u [Unit], variants: &[Variant]) -> Vec<Job<'u>> {
    let job = |unit, &variant| Job { unit, variant, plain: Plain::default() };
    let is_there = |job: &Job<'_>| job.variant != Variant::Shipped || !job.unit.created;
    variants
        .iter()
        .flat_map(|variant| units.iter().map(move |unit| job(unit, variant)))
        .filter(is_there)
        .collect()
}

/// Objects by unit (its object file) and variant.
pub type Objects = BTreeMap<ObjectKey, PathBuf>;

/// A unit (its object file) and a variant of it.
pub type ObjectKey = (PathBuf, Variant);

/// The command of a variant, without its output.
pub fn command(context: &Context<'_>, job: Job<'_>) -> CompileCommand {
    let unit = job.unit;
    let mut command = unit.compile.clone().without_dependency_file().without_debug_information();
    if job.variant != Variant::Shipped {
        let mut first = vec![format!("-I{}", context.headers.display())];
        for header in job.plain.headers(context) {
            first.extend(["-include".to_owned(), header.display().to_string()]);
        }
        command = command.with_last(DIFF_OPTIONS).with_last([context.debug.option()]).with_last(first);
    }
    if unit.created && job.variant != Variant::Patched {
        // An empty original: all that the patched one has is new.
        return command.with_source(&absent(context, unit));
    }
    if job.variant == Variant::Patched {
        let options = context.overlay.options(&unit.spelled);
        command = command
            .with_directories_before(|directory| context.overlay.directory_before(directory))
            .with_first_includes(|file| context.overlay.first_include(file));
        command = command.with_first(options).with_source(&context.overlay.source_of(&unit.spelled));
    }
    command
}

/// The empty file that stands for the original of a new unit.
fn absent(context: &Context<'_>, unit: &Unit) -> PathBuf {
    context.output.join("absent").join(&unit.source)
}

/// Threads for as many compilers as the user allows.
pub fn pool(jobs: usize) -> Result<rayon::ThreadPool, Vec<Error>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|error| vec![Error::new(Phase::Compile, "threads", "cannot start threads").cause(error)])
}

/// Does all jobs, in parallel; the errors of all of them together.
pub fn run(context: &Context<'_>, jobs: &[Job<'_>], events: Events<'_>) -> Result<Objects, Vec<Error>> {
    let pool = pool(context.jobs)?;
    let done = AtomicUsize::new(0);
    let results: Vec<Result<(ObjectKey, PathBuf), Error>> = pool.install(|| {
        jobs.par_iter()
            .map(|&job| {
                let result = compile(context, job, events);
                events(Event::Progress {
                    phase: Phase::Compile,
                    done: done.fetch_add(1, Ordering::Relaxed) + 1,
                    total: jobs.len(),
                    what: job.unit.object.display().to_string(),
                });
                result.map(|path| ((job.unit.object.clone(), job.variant), path))
            })
            .collect()
    });
    let mut objects = Objects::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok((key, path)) => {
                objects.insert(key, path);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(objects) } else { Err(errors) }
}

fn compile(context: &Context<'_>, job: Job<'_>, events: Events<'_>) -> Result<PathBuf, Error> {
    let command = command(context, job);
    let name = match job.variant {
        Variant::Shipped => "shipped",
        Variant::Original => "original",
        Variant::Patched => "patched",
    };
    let output = context.output.join(format!("{name}{}", job.plain.suffix())).join(&job.unit.object);
    let io = |error: std::io::Error| {
        Error::new(Phase::Compile, "io", format!("cannot write {}", output.display()))
            .cause(error)
            .remedy("free some space or name another cache directory with CACHEDIR")
    };
    if let Some(parent) = output.parent() {
        fs_err::create_dir_all(parent).map_err(io)?;
    }
    if job.unit.created && job.variant != Variant::Patched {
        kbuild::store::write(&absent(context, job.unit), b"").map_err(|e| io(std::io::Error::other(e)))?;
    }
    // The patched unit depends on files that exist in this run only; originals are worth keeping.
    let key = (job.variant != Variant::Patched && !job.unit.created).then(|| cache_key(context, &command));
    let mut missing = None;
    if let Some(key) = key {
        match context.cache.lookup(key).map_err(|error| cache_error(&error))? {
            Lookup::Found(found) => {
                events(Event::CacheHit { unit: job.unit.object.clone() });
                fs_err::write(&output, found.content).map_err(io)?;
                return Ok(output);
            }
            Lookup::Missing(entry) => missing = Some(entry),
        }
    }
    // Only the compiler knows what it reads.
    let rule = output.with_extension("d");
    let command = command.with_dependency_file(&rule).with_output(&output);
    let words: Vec<String> = context.launcher.words.iter().cloned().chain(command.words()).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::new(Phase::Compile, "command", "the unit's command line is empty"));
    };
    match context.command(program).args(arguments).run() {
        Ok(_) => {}
        Err(RunError::Interrupted) => return Err(Error::interrupted(Phase::Compile)),
        Err(RunError::Failed { output: text, .. }) => return Err(refused(context, job, &text)),
        Err(error) => {
            return Err(Error::new(Phase::Compile, "compiler", "the compiler does not start")
                .file(&job.unit.source)
                .cause(error)
                .remedy("install the kernel's compiler, or let --build-root auto make a root that has it"));
        }
    }
    let rule = fs_err::read(&rule).map_err(io)?;
    let rule = String::from_utf8_lossy(&rule);
    if job.variant == Variant::Patched {
        reads::check(context, job.unit, &command, &rule)?;
    }
    if let Some(missing) = missing {
        let object = fs_err::read(&output).map_err(io)?;
        let files = listed_files(&rule).into_iter();
        let files = files.map(|file| context.on_host(Path::new(&file)));
        context.cache.store(missing, files, &object).map_err(|error| cache_error(&error))?;
    }
    Ok(output)
}

/// What decides an original's object besides the files that it reads. The compiler's working directory
/// counts: relative paths start there.
fn cache_key(context: &Context<'_>, command: &CompileCommand) -> Key {
    KeyBuilder::new("object")
        .field("compiler", context.compiler)
        .field("directory", context.tree.path().as_os_str().as_encoded_bytes())
        .list("command", command.words())
        .finish()
}

fn cache_error(error: &CacheError) -> Error {
    let remedy = error.remedy();
    let out = Error::new(Phase::Compile, "cache", "the cache cannot be used").cause(error);
    match remedy {
        Some(remedy) => out.remedy(remedy),
        None => out,
    }
}

/// The compiler's complaint, with the paths that the user knows.
fn refused(context: &Context<'_>, job: Job<'_>, text: &str) -> Error {
    let overlay = format!("{}/", context.overlay.root().display());
    let source = format!("{}/", context.source.display());
    let text = text.replace(&overlay, "").replace(&source, "");
    let what = match job.variant {
        Variant::Patched => "the patched source does not compile",
        Variant::Shipped | Variant::Original => "the original source does not compile",
    };
    let mut error =
        Error::new(Phase::Compile, "compiler-error", what).file(&job.unit.source).cause(text.trim_end());
    if let Some(line) = first_error_line(&text, &job.unit.source) {
        error = error.line(line);
        if job.variant == Variant::Patched {
            error = error.text(context.overlay.source_of(&job.unit.source));
        }
    }
    match job.variant {
        Variant::Patched if job.unit.indirect => error.remedy(
            "the patches touch a file that this unit reads, but not the unit: add its own change to the patch; only where \
             the change means nothing to it, leave all such units alone with --only-touched-units",
        ),
        Variant::Patched => error.remedy("correct the patch; the lines are those of the patched file"),
        Variant::Shipped | Variant::Original => {
            error.remedy("source, configuration and compiler do not belong together: check -s, -c and -v")
        }
    }
}

/// The line of the first `FILE:LINE:COLUMN: error:` about the unit itself.
fn first_error_line(text: &str, source: &Path) -> Option<u32> {
    let prefix = format!("{}:", source.display());
    text.lines()
        .filter(|line| line.as_bytes().contains_str(": error:") || line.contains(": fatal error:"))
        .find_map(|line| line.strip_prefix(&prefix)?.split(':').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_the_unit_gives_the_line() {
        let text = "In file included from fs/a.c:3:\n\
                    include/linux/x.h:7:1: error: one\n\
                    fs/a.c:12:5: warning: two\n\
                    fs/a.c:31:5: error: three\nfs/a.c:40:5: error: four\n";
        assert_eq!(first_error_line(text, Path::new("fs/a.c")), Some(31));
        assert_eq!(first_error_line(text, Path::new("fs/b.c")), None);
    }
}
