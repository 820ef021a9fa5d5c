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
use kbuild::object_tree::ObjectTree;
use kbuild::root::{Root, RunError, Task};
use rayon::prelude::*;

use super::overlay::Overlay;
use super::reads;
use super::unit::Unit;
use crate::cache::{Cache, CacheError, Key, KeyBuilder, Lookup};
use crate::error::Error;
use crate::events::{Event, Events};
use crate::launcher::Launcher;
use crate::originals::Originals;
use crate::patch::{FileKind, FilePatch, PatchFile, Patched};
use crate::phase::Phase;

/// What a unit is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// The original as the kernel has it, for the proof.
    Shipped,
    /// The original, for the diff.
    Original,
    /// The patched source, for the diff.
    Patched,
}

/// Options that give every function and datum a section of its own. Compressed debug sections (gcc's defaults
/// differ by distribution) would only cost time.
const DIFF_OPTIONS: [&str; 3] = ["-ffunction-sections", "-fdata-sections", "-gz=none"];

/// How much the objects that are compared tell a debugger. It never changes code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugInformation {
    /// Functions and lines: all that messages need.
    Lines,
    /// Types as well, for a patch that may change the layout of a structure.
    Full,
}

impl DebugInformation {
    /// What the patches call for: types where they touch a header, or lines in a structure's definition.
    pub fn for_patch(patched: &Patched, patches: &[PatchFile]) -> DebugInformation {
        let in_structure = |file: &FilePatch| {
            let content = file.paths().find_map(|path| patched.files.get(path)?.as_deref());
            file.hunks.iter().any(|hunk| {
                hunk.lines.iter().any(|line| begins_structure(&line.text))
                    || content.is_some_and(|content| is_in_structure(content, hunk.new_start))
            })
        };
        let mut files = patches.iter().flat_map(|patch| &patch.files);
        if patched.of_kind(FileKind::Header).next().is_some() || files.any(in_structure) {
            DebugInformation::Full
        } else {
            DebugInformation::Lines
        }
    }

    fn option(self) -> &'static str {
        match self {
            DebugInformation::Lines => "-g1",
            DebugInformation::Full => "-g",
        }
    }
}

/// True for `struct name {`, `static union {` and the like.
fn begins_structure(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let is_type = |word: &[u8]| matches!(word, b"struct" | b"union" | b"enum");
    line.ends_with(b"{")
        && !line.contains(&b'(')
        && !line.contains(&b'=')
        && line.split(|&byte| byte == b' ' || byte == b'\t').any(is_type)
}

/// True if the last line above `line` (from 1) that starts without blanks begins a structure.
fn is_in_structure(content: &[u8], line: u64) -> bool {
    let above = usize::try_from(line).unwrap_or(usize::MAX);
    let last =
        content.lines().take(above).filter(|l| l.first().is_some_and(|b| !b.is_ascii_whitespace())).last();
    last.is_some_and(begins_structure)
}

/// The header that reads runtime constants as variables, below the source tree; since 6.12.
const RUNTIME_CONSTANTS: &str = "include/asm-generic/runtime-const.h";

/// What compiling needs to know about the kernel.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where the compiler runs.
    pub root: &'a Root,
    /// The object tree, where commands run.
    pub tree: &'a ObjectTree,
    /// The source tree.
    pub source: &'a Path,
    /// The patched sources.
    pub overlay: &'a Overlay,
    /// The patch author's headers.
    pub headers: &'a Path,
    /// Where objects go.
    pub output: &'a Path,
    /// What identifies the compiler: the text that it prints about itself.
    pub compiler: &'a str,
    /// A wrapper such as ccache, words before the compiler.
    pub launcher: &'a Launcher,
    /// Finished objects of earlier runs.
    pub cache: &'a Cache,
    /// What the preprocessor said in earlier runs.
    pub originals: &'a Originals,
    /// How much debug information the compared objects get.
    pub debug: DebugInformation,
    /// How many compilers at once.
    pub jobs: usize,
}

impl Context<'_> {
    /// Where a file is that the compiler names. Its own headers are those of the root it runs in.
    pub fn on_host(&self, file: &Path) -> PathBuf {
        self.root.on_host(&self.tree.path().join(file))
    }

    /// A command that starts in the object tree and can write this run's objects only, and a launcher what is its own.
    pub fn command(&self, program: &str) -> Task<'_> {
        let task = self.root.command(program).directory(self.tree.path());
        if self.launcher.words.first().is_none_or(|launcher| launcher != program) {
            return task.confined_to([self.output]);
        }
        match &self.launcher.writable {
            Some(more) => task.confined_to([self.output]).confined_to(more),
            None => task,
        }
    }
}

/// One compilation to be done.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The unit.
    pub unit: &'a Unit,
    /// The variant.
    pub variant: Variant,
    /// What becomes ordinary variable reads.
    pub plain: Plain,
}

/// What the kernel would have to write into code, and code of a live patch reads from variables instead; see
/// [`super::diff`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Runtime constants.
    pub runtime_constants: bool,
    /// Static keys.
    pub static_keys: bool,
}

impl Plain {
    /// Headers to be included first.
    fn headers(self, context: &Context<'_>) -> Vec<PathBuf> {
        // Since 6.12 (`asm/runtime-const.h`) code holds placeholders that boot fixes up in vmlinux only. The
        // generic header has the same include guard and reads the variables instead.
        let constants = self.runtime_constants.then(|| context.source.join(RUNTIME_CONSTANTS));
        let keys = self.static_keys.then(|| context.headers.join(klp_module::headers::STATIC_KEYS.0));
        constants.into_iter().chain(keys).collect()
    }

    fn suffix(self) -> &'static str {
        match (self.runtime_constants, self.static_keys) {
            (false, false) => "",
            (true, false) => "-plain-constants",
            (false, true) => "-plain-keys",
            (true, true) => "-plain",
        }
    }
}

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
    fn structures_are_told_from_variables_and_functions() {
        for line in ["struct a {\n", "\tunion {", "typedef struct x {", "enum e {"] {
            assert!(begins_structure(line.as_bytes()), "{line}");
        }
        for line in ["struct a b = {", "struct a *f(struct b *c) {", "struct a *p;", "\tif (x) {", "{"] {
            assert!(!begins_structure(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_hunk_in_the_middle_of_a_structure_is_seen() {
        let content = b"struct a {\n\tint b;\n\n\tint c;\n};\nint f(void)\n{\n\tint d;\n}\n";
        let inside: Vec<u64> = (0..12).filter(|&line| is_in_structure(content, line)).collect();
        assert_eq!(inside, [1, 2, 3, 4]);
    }

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
