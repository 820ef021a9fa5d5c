//! Release to kernel artefacts.

use std::path::{Path, PathBuf};

use kbuild::config::Config;
use kbuild::include_graph::IncludeGraph;
use kbuild::object_tree::{ObjectTree, Origin, Recipe};
use kbuild::store::Item;
use kbuild::units::UnitList;
use kernel_artifacts::{Headers, Kernel, PackageRecord};

use crate::error::Error;
use crate::events::{Event, Events, Step};
use crate::options::Options;
use crate::phase::Phase;

/// The kernel with its source; everything else is unpacked when a later phase asks.
pub struct Resolved {
    /// The kernel.
    pub kernel: Kernel,
    /// The source tree; never written to.
    pub source: PathBuf,
    /// Its configuration.
    pub config: Config,
}

impl Resolved {
    /// The source tree as it was given or unpacked; [`Resolved::source`] may be a view of it, made of links.
    pub fn tree(&self) -> &Path {
        self.kernel.tree().unwrap_or(&self.source)
    }
}

/// Finds the kernel that the options name.
pub fn run(options: &Options, events: Events<'_>) -> Result<Resolved, Error> {
    let forward = forward(events);
    let kernel = if let Some(source) = &options.source {
        let built = options.build_dir.as_ref().unwrap_or(source);
        let config = options.config.clone().unwrap_or_else(|| built.join(".config"));
        let vmlinux = options.vmlinux.clone().unwrap_or_else(|| built.join("vmlinux"));
        events(Event::Step(Step::UsingSource { directory: source.clone() }));
        kernel_artifacts::open(source, &config, &vmlinux, &options.kernels, &forward)
    } else if let Some(release) = &options.release {
        kernel_artifacts::resolve(release, &options.kernels, &forward)
    } else {
        return Err(Error::new(Phase::Resolve, "no-release", "no kernel release is known")
            .remedy("name one with -a, as in `-a 6.1.0-30-amd64`"));
    };
    let kernel = kernel.map_err(kernel_error)?;
    if let Some(wanted) = options.release.as_ref().filter(|wanted| **wanted != kernel.release) {
        return Err(Error::new(
            Phase::Resolve,
            "release-mismatch",
            format!("the vmlinux is of release {}, not of {wanted}", kernel.release),
        )
        .remedy("leave -a out, or name the vmlinux of that release with -v"));
    }
    let parts = parts(&kernel, events)?;
    events(Event::Resolved { release: kernel.release.clone(), parts });
    let source = kernel.source(&forward).map_err(kernel_error)?;
    if options.source.is_none() {
        events(Event::Step(Step::UsingCache { directory: source.clone() }));
    }
    let text = fs_err::read(&kernel.config).map_err(Error::io(Phase::Resolve, "read", &kernel.config))?;
    let config = Config::parse(&text).map_err(|error| {
        Error::new(Phase::Resolve, "config", "the kernel's configuration cannot be read")
            .file(&kernel.config)
            .cause(error)
    })?;
    refuse_unsupported(&config)?;
    Ok(Resolved { kernel, source, config })
}

/// What the kernel is made of, one line each.
fn parts(kernel: &Kernel, events: Events<'_>) -> Result<Vec<String>, Error> {
    let packages = kernel.packages();
    if !packages.is_empty() {
        let line = |record: &PackageRecord| {
            format!("{}: {} {}", record.role, record.package.name, record.package.version)
        };
        return Ok(packages.iter().map(line).collect());
    }
    let forward = forward(events);
    let files = [
        ("source", kernel.source(&forward).map_err(kernel_error)?),
        ("config", kernel.config.clone()),
        ("vmlinux", kernel.vmlinux(&forward).map_err(kernel_error)?),
    ];
    let symvers = kernel.symvers(&forward).map_err(kernel_error)?.map(|path| ("symvers", path));
    Ok(files.iter().chain(&symvers).map(|(role, path)| format!("{role}: {}", path.display())).collect())
}

/// The list of the symbols that the shipped kernel exports.
pub fn symvers(kernel: &Kernel, events: Events<'_>) -> Result<PathBuf, Error> {
    kernel.symvers(&forward(events)).map_err(kernel_error)?.ok_or_else(|| {
        Error::new(Phase::Resolve, "no-symvers", "there is no Module.symvers of this kernel").remedy(
            "put the Module.symvers of the shipped kernel beside its vmlinux, or install the kernel's headers",
        )
    })
}

/// Options of the kernel without which, or with which, no livepatch can work.
fn refuse_unsupported(config: &Config) -> Result<(), Error> {
    let error = |code, message: &str| Error::new(Phase::Resolve, code, message);
    if !config.livepatch() {
        return Err(error("no-livepatch", "the kernel is built without CONFIG_LIVEPATCH")
            .remedy("use a kernel with livepatch support; the flavour `rt` of Debian has none"));
    }
    for option in ["GCC_PLUGIN_LATENT_ENTROPY", "GCC_PLUGIN_RANDSTRUCT", "RANDSTRUCT"] {
        if config.is_yes(option) {
            return Err(error("randomised-build", "two builds of this kernel never give the same code")
                .cause(format!("CONFIG_{option} is set")));
        }
    }
    if config.is_lto() {
        return Err(error(
            "lto",
            "kernels built with link-time optimisation are not supported: their objects hold no machine code",
        ));
    }
    Ok(())
}

/// The object tree in which the kernel's units are compiled.
pub fn object_tree(resolved: &Resolved, events: Events<'_>) -> Result<ObjectTree, Error> {
    let place = resolved.kernel.work_dir.join("object-tree");
    object_tree_of(resolved, &resolved.source, &place, "", events)
}

/// An object tree at `place` for a source tree; `more` tells versions of the sources apart that the kernel does not.
pub fn object_tree_of(
    resolved: &Resolved,
    source: &Path,
    place: &Path,
    more: &str,
    events: Events<'_>,
) -> Result<ObjectTree, Error> {
    let kernel = &resolved.kernel;
    let headers = headers(kernel, events)?;
    let origin = match &headers {
        Some(headers) => Origin::Headers(headers.dir.clone()),
        None => Origin::Config(kernel.config.clone()),
    };
    let mut identity = String::new();
    for record in kernel.packages() {
        identity.extend([&*record.package.name, " ", &*record.package.sha256, "\n"]);
    }
    if identity.is_empty() {
        // Files of the user's own.
        identity.extend([&*kernel.identity, "\n"]);
    }
    identity += &kernel.compiler.version_text;
    identity += more;
    let mut root = kernel.build_root.clone();
    if let Some(headers) = &headers {
        root.bind(headers.dir.clone());
        root.bind(headers.common.clone());
    }
    let recipe = Recipe {
        release: kernel.release.clone(),
        arch: kernel_arch(&kernel.architecture).to_owned(),
        source: source.to_owned(),
        origin,
        compiler: kernel.compiler.program.clone(),
        host_compiler: if kernel.build_root.is_host() {
            "gcc".to_owned()
        } else {
            kernel.compiler.program.clone()
        },
        variables: std::collections::BTreeMap::new(),
        root,
        identity,
    };
    ObjectTree::open(place, recipe).map_err(|error| tree_error(Phase::Plan, error))
}

/// The units that the shipped vmlinux is made of.
pub fn unit_list(resolved: &Resolved, vmlinux: &Path) -> Result<UnitList, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Phase::Plan, "unit-list", "the units of the kernel cannot be listed")
            .file(vmlinux)
            .cause(error)
            .remedy("name the vmlinux with debug information with -v")
    };
    let metadata = fs_err::metadata(vmlinux).map_err(|e| failed(&e))?;
    let changed = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let key = format!("{} {} {:?}", vmlinux.display(), metadata.len(), changed);
    UnitList::cached(&Item::new(resolved.kernel.work_dir.join("units"), key), vmlinux).map_err(|e| failed(&e))
}

/// Who includes whom in the kernel's sources; reading them all takes seconds, once.
pub fn include_graph(resolved: &Resolved, tree: &ObjectTree) -> Result<IncludeGraph, Error> {
    let recipe = tree.recipe();
    let item = Item::new(resolved.kernel.work_dir.join("include-graph"), recipe.identity.clone());
    IncludeGraph::cached(&item, &resolved.source, tree.path(), &recipe.arch).map_err(|error| {
        Error::new(Phase::Plan, "include-graph", "the kernel's sources cannot be read").cause(error)
    })
}

/// The headers package, where the kernel has one.
pub fn headers(kernel: &Kernel, events: Events<'_>) -> Result<Option<Headers>, Error> {
    kernel.headers(&forward(events)).map_err(kernel_error)
}

/// Debian's name of an architecture to the kernel's (`ARCH=`).
fn kernel_arch(debian: &str) -> &str {
    match debian {
        "amd64" | "x86_64" => "x86",
        "ppc64el" => "powerpc",
        "s390x" => "s390",
        "loong64" => "loongarch",
        other => other,
    }
}

/// Passes the artefacts' events on.
pub fn forward(events: Events<'_>) -> impl Fn(kernel_artifacts::Event) + '_ {
    move |event| events(Event::Kernel(event))
}

/// An error of the artefacts, with its remedy.
pub fn kernel_error(error: kernel_artifacts::Error) -> Error {
    // Whatever failed after a signal failed because of it.
    if kbuild::root::interrupted() {
        return Error::interrupted(Phase::Resolve);
    }
    let remedy = error.remedy();
    let out = Error::new(Phase::Resolve, "kernel", error);
    match remedy {
        Some(remedy) => out.remedy(remedy),
        None => out,
    }
}

/// An error of the object tree.
pub fn tree_error(phase: Phase, error: kbuild::object_tree::TreeError) -> Error {
    use kbuild::object_tree::TreeError;
    use kbuild::root::RunError;
    match error {
        TreeError::Run { source: RunError::Interrupted, .. } => Error::interrupted(phase),
        TreeError::Run { what, source } => Error::new(phase, "kbuild", format!("cannot {what}"))
            .cause(source)
            .remedy("check that make, bc, flex, bison and the headers of libelf and libssl are installed"),
        TreeError::NotReproduced { .. } => Error::new(phase, "not-reproduced", error)
            .remedy("name the configuration, source and compiler that belong to the kernel"),
        other => Error::new(phase, "object-tree", other)
            .remedy("remove the object tree from the cache directory and run again"),
    }
}
