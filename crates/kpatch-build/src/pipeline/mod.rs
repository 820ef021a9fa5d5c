//! The way of the data, one phase a file. This file only leads from one to the next.

pub mod check;
pub mod compile;
pub mod convert;
pub mod copies;
pub mod crcs;
pub mod debug_information;
pub mod diff;
pub mod extract;
pub mod job;
pub mod layout;
pub mod link;
pub mod module;
pub mod named;
pub mod narrow;
pub mod new_units;
pub mod overlay;
pub mod package;
pub mod places;
pub mod plan;
pub mod preprocess;
pub mod prototypes;
pub mod prove;
pub mod publish;
pub mod reads;
pub mod resolve;
pub mod shipped;
pub mod sign;
pub mod unit;
pub mod whole;

use std::path::{Component, Path, PathBuf};

use create_diff_object::EntrySizes;
use kbuild::object_tree::ObjectTree;
use kbuild::root::Root;
use klp_module::hook::{self, Provenance};
use klp_module::link::Linked;

use crate::cache::Cache;
use crate::error::{self, Error};
use crate::events::{Event, Events, Step, phase};
use crate::launcher::{self, Launcher};
use crate::options::Options;
use crate::originals::{self, Originals};
use crate::patch::{self, PatchFile};
use crate::phase::Phase;
use crate::split;
use crate::workspace::Workspace;
use compile::Objects;
use debug_information::DebugInformation;
use job::Variant;
use narrow::Narrowed;
use overlay::Overlay;
use resolve::Resolved;
use shipped::{ShippedBytes, Tables};
use unit::Unit;

/// Makes a livepatch module of patches. The path of the module, or everything that stands in the way.
pub fn run(options: &Options, events: Events<'_>) -> Result<PathBuf, Vec<Error>> {
    let patches = phase(Phase::Parse, events, || patch::read(&options.patches)).map_err(arranged)?;
    let errors = match make(options, &patches, events).map_err(arranged) {
        Ok(module) => return Ok(module),
        Err(errors) => errors,
    };
    let is_of_patch = |error: &Error| error.phase != Phase::Resolve && error.code != error::Code::INTERRUPTED;
    if options.split && errors.iter().all(is_of_patch) {
        in_parts(options, &patches, events)?;
    }
    Err(errors)
}

/// Says which parts of refused patches could be built.
fn in_parts(options: &Options, patches: &[PatchFile], events: Events<'_>) -> Result<(), Vec<Error>> {
    let space = Workspace::create(&options.cache, false).map_err(|error| no_place(&error))?;
    let output = space.directory("parts").map_err(|error| no_place(&error))?;
    let options = Options { output, package: None, signing: None, keep: false, ..options.clone() };
    let build = |patches: &[PatchFile]| make(&options, patches, &|_| ()).map(|_| ()).map_err(arranged);
    split::run(patches, &build, &|part| events(Event::Part(part))).map_err(one)
}

fn arranged(mut errors: Vec<Error>) -> Vec<Error> {
    error::arrange(&mut errors);
    errors
}

fn make(options: &Options, patches: &[PatchFile], events: Events<'_>) -> Result<PathBuf, Vec<Error>> {
    let mut resolved = phase(Phase::Resolve, events, || resolve::run(options, events)).map_err(one)?;
    events(Event::Step(Step::TestingPatches));
    let patched =
        phase(Phase::Parse, events, || patch::apply(patches, resolved.tree(), options.fuzz, events))?;
    let work = Work::create(options)?;
    if work.space.is_kept() {
        events(Event::note(format!("work files stay in {}", work.space.path().display())));
    }

    let whole = options
        .whole_tree
        .then(|| phase(Phase::Compile, events, || whole::Builds::original(options, &resolved, events)));
    let whole = whole.transpose().map_err(one)?;
    if let Some(whole) = &whole {
        resolved.kernel.lend_symvers(whole.symvers());
    }
    let changed = whole.as_ref().map(|whole| || whole.changed(&patched.files, events));

    let shipped_modules =
        resolved.kernel.modules(&resolve::forward(events)).map_err(|e| one(resolve::kernel_error(e)))?;
    // vmlinux takes as long to unpack as the object tree takes to make.
    let (tree, vmlinux) = std::thread::scope(|scope| {
        let vmlinux = scope.spawn(|| shipped::vmlinux(&resolved.kernel, events));
        let tree = phase(Phase::Plan, events, || {
            let tree = resolve::object_tree(&resolved, events)?.with_modules(shipped_modules.values());
            plan::prepare(&patched, &tree)?;
            let graph = resolve::include_graph(&resolved, &tree)?;
            Ok::<_, Error>((tree, graph))
        });
        (tree, vmlinux.join())
    });
    let (tree, graph) = tree.map_err(one)?;
    let vmlinux = vmlinux
        .unwrap_or_else(|_| {
            Err(Error::new(Phase::Resolve, "internal", "unpacking vmlinux ended unexpectedly"))
        })
        .map_err(one)?;
    let list = resolve::unit_list(&resolved, &vmlinux).map_err(one)?;
    let is_shipped = |name: &str| shipped_modules.contains_key(name);
    let kernel = unit::Kernel {
        tree: &tree,
        vmlinux: &list,
        graph: &graph,
        is_shipped: &is_shipped,
        whole: changed.as_ref().map(|changed| changed as _),
    };
    let plan::Plan { units, reaching } =
        phase(Phase::Plan, events, || plan::run(options, &patched, &kernel, events))?;

    let considered = units.iter().filter(|unit| unit.indirect).count();
    let readers = named::Readers { tree: &tree, graph: &graph, patched: &patched, jobs: options.jobs.get() };
    let units = if whole.is_some() || options.all_readers {
        units
    } else {
        phase(Phase::Plan, events, || named::run(&readers, units))?
    };

    let overlay_root = work.directory("patched-source")?;
    let reaching = reaching.iter().chain(units.iter().map(|unit| &unit.spelled)).map(PathBuf::as_path);
    let overlay =
        Overlay::create(&overlay_root, &resolved.source, &patched.files, reaching).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::Interrupted => one(Error::interrupted(Phase::Compile)),
                _ => one(Error::io(Phase::Compile, "write", &overlay_root)(error)),
            }
        })?;
    let headers = Work::author_headers(&options.cache)?;
    let objects = work.directory("objects")?;
    let mut root = tree.root().clone();
    root.bind(work.space.path());
    root.bind(&headers);
    let launcher =
        launcher::words(options.launcher.as_deref(), &options.environment, &resolved.kernel.compiler.program);
    let launcher = Launcher::new(launcher, &root, &options.environment);
    if !kbuild::confine::is_possible() {
        events(Event::note("this system has no Landlock: compilers and kbuild may write what you may"));
    } else if let Some(warning) = launcher.warning() {
        events(Event::warning(warning));
    }
    let originals = Originals::open(resolved.kernel.work_dir.join(originals::FORMAT));
    let context = job::Context {
        root: &root,
        tree: &tree,
        source: &resolved.source,
        overlay: &overlay,
        headers: &headers,
        output: &objects,
        compiler: &resolved.kernel.compiler.version_text,
        launcher: &launcher,
        cache: &work.cache,
        originals: &originals,
        debug: DebugInformation::for_patch(&patched, patches),
        jobs: options.jobs.get(),
    };
    let compiler = Compiler { context: &context, options, events };
    // What the patches touch comes first: where that is wrong, hundreds of readers need not be looked at.
    let mut objects = Objects::new();
    if units.iter().any(|unit| unit.indirect) {
        let direct = units.iter().filter(|unit| !unit.indirect).cloned().collect();
        let direct = phase(Phase::Plan, events, || preprocess::run(&context, direct, &patched, 0, events))?;
        phase(Phase::Compile, events, || compiler.pairs(&direct, &mut objects))?;
    }
    let units = match &whole {
        // Their objects differ, whatever the preprocessor says.
        Some(_) => units,
        None => {
            phase(Phase::Plan, events, || preprocess::run(&context, units, &patched, considered, events))?
        }
    };
    plan::confirm(options, &units, events)?;
    let bytes = ShippedBytes::read(&resolved.kernel, &vmlinux, &units, events)?;
    let tables = bytes.tables()?;
    events(Event::Step(Step::ReadingSpecialSections));
    let sizes = diff::entry_sizes(bytes.vmlinux(), &bytes.identity(), &work.cache).map_err(one)?;

    events(Event::Step(Step::BuildingOriginal));
    events(Event::Step(Step::BuildingPatched));
    let Narrowed { kept: mut units, unchanged } = phase(Phase::Compile, events, || {
        compiler.pairs(&units, &mut objects)?;
        let narrowed = narrow::run(units, &objects, events);
        objects.extend(compile::run(&context, &compile::jobs(&narrowed.kept, &[Variant::Shipped]), events)?);
        Ok::<_, Vec<Error>>(narrowed)
    })?;
    phase(Phase::Prove, events, || {
        prove::run(&units, &objects, &tables.files(), options.skip_compiler_check, events)
    })?;

    events(Event::Step(Step::Extracting));
    let shipped = diff::Shipped { tables: &tables, files: &bytes, sizes: &sizes };
    let known = copies::Known { kernel: &kernel, shipped: &shipped };
    let diff::Differences { extracts, skipped } = copies::run(&compiler, &known, &mut units, &mut objects)?;
    let linked = phase(Phase::Link, events, || {
        let linked = link::run(&extracts, &units, &bytes.exports, &overlay);
        let mut exporting = crcs::exporting(&unchanged, &extracts, &objects)?;
        exporting.extend(units.iter().cloned());
        let changed = crcs::run(&context, &exporting, &objects, (&bytes.exports, &patched), events)?;
        // With all readers compiled, the compiler has seen both ends of every call.
        let prototypes = if options.only_touched {
            prototypes::run(&context, &units, &extracts, &bytes, &tables, events)
        } else {
            Ok(())
        };
        let refused = [crcs::refuse(&changed, &extracts, &units, (&overlay, &patched)), prototypes];
        let mut errors: Vec<Error> = refused.into_iter().filter_map(Result::err).flatten().collect();
        match linked {
            Ok(linked) if errors.is_empty() => Ok(linked),
            linked => {
                errors.extend(linked.err().into_iter().flatten());
                Err(errors)
            }
        }
    })?;
    let names = linked.manifest.objects.iter().map(|object| object.name.clone()).collect();
    events(Event::Step(Step::PatchedObjects { objects: names }));

    let maker = Maker {
        options,
        events,
        resolved: &resolved,
        patches,
        skipped: &skipped,
        units: &units,
        objects: &objects,
        sizes: &sizes,
        overlay: &overlay,
    };
    let module = maker.module(&linked, &tree, &root, &bytes, &tables, &work.directory("module")?)?;
    let machine = linked.object.machine;
    let path = phase(Phase::Publish, events, || {
        let module = match &options.signing {
            Some(signing) => sign::run(signing, &resolved, &tree, &root, work.space.path(), &module)?,
            None => module,
        };
        let packages = match &options.package {
            Some(packaging) => {
                let patches = maker.provenance(&bytes).patches;
                package::run(options, packaging, &resolved, machine, &patches, &module)?
            }
            None => Vec::new(),
        };
        let path = publish::run(&options.output, &options.module_name, &module)?;
        for package in package::publish(options, &packages)? {
            events(Event::Note { message: format!("package: {}", package.display()) });
        }
        Ok(path)
    })
    .map_err(one)?;
    for path in work.cache.damaged() {
        events(Event::warning(format!("{} was damaged and has been made anew", path.display())));
    }
    // What earlier runs compiled stays within its bounds; a failure to tidy up is none of the module's.
    if let Err(error) = work.cache.trim(options.cache_limit) {
        events(Event::warning(format!("the cache was not trimmed: {error}")));
    }
    events(Event::Step(Step::Success));
    Ok(path)
}

/// The places of this run, and the cache.
struct Work {
    space: Workspace,
    cache: Cache,
}

impl Work {
    fn create(options: &Options) -> Result<Work, Vec<Error>> {
        let space = Workspace::create(&options.cache, options.keep).map_err(|e| no_place(&e))?;
        let cache = Cache::open(options.cache.join("objects")).map_err(|error| {
            let remedy = error.remedy().unwrap_or_else(|| CACHE_REMEDY.to_owned());
            one(Error::new(Phase::Compile, "cache", "the cache cannot be used").cause(error).remedy(remedy))
        })?;
        Ok(Work { space, cache })
    }

    fn directory(&self, name: &str) -> Result<PathBuf, Vec<Error>> {
        self.space.directory(name).map_err(|error| no_place(&error))
    }

    /// The patch author's headers, at a path that is the same in every run: it is part of the command lines
    /// by which compiled originals are found again.
    fn author_headers(cache: &Path) -> Result<PathBuf, Vec<Error>> {
        let directory = cache.join("include").join(env!("CARGO_PKG_VERSION"));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| one(Error::io(Phase::Compile, "write", &path)(error).remedy(CACHE_REMEDY))
        };
        fs_err::create_dir_all(&directory).map_err(io(&directory))?;
        for (name, text) in klp_module::headers::ALL {
            let path = directory.join(name);
            if !fs_err::read(&path).is_ok_and(|found| found == text.as_bytes()) {
                kbuild::store::write(&path, text.as_bytes()).map_err(|error| {
                    one(Error::new(Phase::Compile, error::Code::IO, error).remedy(CACHE_REMEDY))
                })?;
            }
        }
        Ok(directory)
    }
}

const CACHE_REMEDY: &str = "make room, or name another cache directory with CACHEDIR";

fn no_place(error: &crate::workspace::WorkspaceError) -> Vec<Error> {
    one(Error::new(Phase::Parse, "workspace", "there is no place to work in")
        .cause(error)
        .remedy(CACHE_REMEDY))
}

/// From units to pairs of objects whose structures agree.
struct Compiler<'a> {
    context: &'a job::Context<'a>,
    options: &'a Options,
    events: Events<'a>,
}

impl Compiler<'_> {
    /// Compiles the original and the patched version of units that have no objects yet. A few go first, so that a
    /// changed layout is told before hundreds of units are compiled with it.
    fn pairs(&self, units: &[Unit], objects: &mut Objects) -> Result<(), Vec<Error>> {
        let new = units.iter().filter(|unit| !objects.contains_key(&(unit.object.clone(), Variant::Patched)));
        let new: Vec<Unit> = new.cloned().collect();
        let (first, rest) = new.split_at(new.len().min(self.context.jobs));
        for batch in [first, rest] {
            let jobs = compile::jobs(batch, &[Variant::Patched, Variant::Original]);
            objects.extend(compile::run(self.context, &jobs, self.events)?);
            if self.context.debug == DebugInformation::Full {
                layout::run(
                    self.context.overlay,
                    batch,
                    objects,
                    &self.options.allowed_layouts,
                    self.events,
                )?;
            }
        }
        Ok(())
    }
}

/// From the linked object to the checked module.
struct Maker<'a> {
    options: &'a Options,
    events: Events<'a>,
    resolved: &'a Resolved,
    patches: &'a [PatchFile],
    units: &'a [Unit],
    skipped: &'a [String],
    objects: &'a Objects,
    sizes: &'a EntrySizes,
    overlay: &'a Overlay,
}

impl Maker<'_> {
    fn module(
        &self,
        linked: &Linked<'_>,
        tree: &ObjectTree,
        root: &Root,
        bytes: &ShippedBytes,
        tables: &Tables<'_>,
        directory: &Path,
    ) -> Result<Vec<u8>, Vec<Error>> {
        let (options, events) = (self.options, self.events);
        let name = &options.module_name;
        events(Event::Step(Step::BuildingModule { file: format!("{name}.ko") }));
        let provenance = self.provenance(bytes);
        let error = |code, message: &str| Error::new(Phase::Kbuild, code, message);
        let hook = hook::hook(name, &linked.manifest, &provenance, options.replace)
            .map_err(|e| one(error("hook", "the module's own source cannot be made").cause(e)))?;
        let object = linked
            .object
            .write()
            .map_err(|e| one(error("linked-object", "the linked object cannot be written").cause(e)))?;
        let headers = resolve::headers(&self.resolved.kernel, events).map_err(one)?;
        if headers.is_none() {
            self.lend_symvers(tree)?;
        }
        let built = phase(Phase::Kbuild, events, || {
            module::run(
                &module::Input {
                    name,
                    linked: &object,
                    hook: &hook,
                    directory,
                    kernel: headers.as_ref().map_or(tree.path(), |headers| &headers.dir),
                    tree,
                    root,
                    compiler: &self.resolved.kernel.compiler.program,
                    early: self
                        .units
                        .iter()
                        .find(|u| u.objtool.is_some() && !self.resolved.config.objtool_is_late()),
                    cflags: options.environment.cflags_module.as_deref(),
                    extra_symbols: options.environment.extra_symbols.as_deref(),
                },
                events,
            )
        })
        .map_err(one)?;
        let converted = phase(Phase::Convert, events, || convert::run(&built, &linked.manifest))?;
        let context = check::Context {
            resolved: self.resolved,
            bytes,
            tables,
            units: self.units,
            objects: self.objects,
            sizes: self.sizes,
            overlay: self.overlay,
            machine: linked.object.machine,
        };
        phase(Phase::Check, events, || check::run(&context, &converted, name, &linked.manifest, events))?;
        Ok(converted)
    }

    /// Gives modpost the exported symbols of an own kernel, whose object tree nobody has built as a whole.
    fn lend_symvers(&self, tree: &ObjectTree) -> Result<(), Vec<Error>> {
        let path = resolve::symvers(&self.resolved.kernel, self.events).map_err(one)?;
        let text = fs_err::read(&path).map_err(|e| one(Error::io(Phase::Kbuild, "read", &path)(e)))?;
        let place = tree.path().join("Module.symvers");
        if fs_err::read(&place).is_ok_and(|found| found == text) {
            return Ok(());
        }
        kbuild::store::write(&place, &text)
            .map_err(|e| one(Error::new(Phase::Kbuild, error::Code::IO, e).remedy(CACHE_REMEDY)))
    }

    fn provenance(&self, bytes: &ShippedBytes) -> Provenance {
        let patches = self
            .patches
            .iter()
            .map(|patch| {
                let name =
                    patch.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                hook::PatchFile::new(&name, &patch.text)
            })
            .collect();
        Provenance {
            release: self.resolved.kernel.release.clone(),
            build_id: bytes.build_id(),
            modules: bytes.module_build_ids(),
            level: self
                .options
                .package
                .as_ref()
                .map(|package| format!("{}-{}", package.version, package.release)),
            patches,
            skipped: self.skipped.to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A path without `.` and `..`, which in a source tree never leads through a link.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn one(error: Error) -> Vec<Error> {
    vec![error]
}
