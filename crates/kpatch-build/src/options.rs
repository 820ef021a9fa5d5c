//! What a run is to do: the command line, the environment and the settings files brought together, with every
//! path absolute and every value checked.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use kernel_artifacts::settings::BuildRootChoice;

use crate::args::{Args, Color, PackageFormat};
use crate::environment::Environment;
use crate::error::Error;
use crate::phase::Phase;
use crate::settings::FileSettings;

/// Everything the pipeline needs to know.
// Switches of a command line are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
pub struct Options {
    /// Patch files in the order of application, absolute.
    pub patches: Vec<PathBuf>,
    /// `uname -r` of the kernel; the running one's where none was given and `source` is not set.
    pub release: Option<String>,
    /// The user's own source tree.
    pub source: Option<PathBuf>,
    /// Where that tree was built, if elsewhere (`O=`).
    pub build_dir: Option<PathBuf>,
    /// The user's own configuration.
    pub config: Option<PathBuf>,
    /// The user's own vmlinux.
    pub vmlinux: Option<PathBuf>,
    /// Objects that may be patched; empty for all.
    pub targets: Vec<Target>,
    /// Name of the module's file without `.ko`.
    pub module_name: String,
    /// Where the module goes.
    pub output: PathBuf,
    /// Whether the module replaces all that are loaded.
    pub replace: bool,
    /// The package to be made of the module.
    pub package: Option<Packaging>,
    /// The key and the certificate to sign the module with.
    pub signing: Option<Signing>,
    /// Lines of context that may differ.
    pub fuzz: usize,
    /// Whether differences from the shipped kernel are warnings only.
    pub skip_compiler_check: bool,
    /// Changes to be left out.
    pub skip: Skip,
    /// Whether units that only read a touched header are left as they are.
    pub only_touched: bool,
    /// Preprocess units whose text mentions nothing of what changed, too.
    pub all_readers: bool,
    /// Whether the units are found by building both trees completely.
    pub whole_tree: bool,
    /// Whether a refusal is followed by a search for the hunks that could be built.
    pub split: bool,
    /// Structures whose layout may change, by name.
    pub allowed_layouts: Vec<String>,
    /// Commands to run at once.
    pub jobs: NonZeroUsize,
    /// How often `--debug` was given.
    pub debug: u8,
    /// Whether the work files stay.
    pub keep: bool,
    /// The cache directory.
    pub cache: PathBuf,
    /// Where kernels come from and where commands run.
    pub kernels: kernel_artifacts::settings::Settings,
    /// Most bytes that compiled originals may take in the cache.
    pub cache_limit: u64,
    /// Words to put before the compiler, where the command line says so.
    pub launcher: Option<Vec<String>>,
    /// What the environment says to compilers.
    pub environment: Environment,
    /// How the run is shown.
    pub display: Display,
}

/// Changes that cannot take effect and are left out of the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// Code and data that the kernel frees after start.
    pub init: bool,
    /// Initial values of these data.
    pub data: Vec<String>,
}

/// How the module is packaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packaging {
    /// The format.
    pub format: PackageFormat,
    /// Number of the cumulative patch.
    pub version: String,
    /// Number of its packaging.
    pub release: String,
}

/// What the module is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// The private key, in PEM.
    pub key: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
}

/// How the run is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// Errors and warnings only.
    pub quiet: bool,
    /// When to use colours.
    pub color: Color,
    /// Whether to print how long each phase took.
    pub time: bool,
    /// Where to write the report, `-` for the standard output.
    pub json: Option<PathBuf>,
    /// How often `--debug` was given.
    pub debug: u8,
}

impl Display {
    /// What the command line says; it needs no checking, so that other errors can be shown by it.
    pub fn new(args: &Args, directory: &Path) -> Display {
        let absolute =
            |path: &PathBuf| if path.as_os_str() == "-" { path.clone() } else { directory.join(path) };
        Display {
            quiet: args.quiet,
            color: args.color,
            time: args.time,
            json: args.json.as_ref().map(absolute),
            debug: args.debug,
        }
    }
}

/// What `-t` allows to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The kernel image.
    Vmlinux,
    /// All modules.
    Modules,
    /// One module, by its name with `_` for `-`.
    Module(String),
    /// All units below a directory, in whatever object.
    Directory(PathBuf),
}

impl Target {
    /// Understands a target as given to make.
    pub fn parse(text: &str) -> Option<Vec<Target>> {
        Some(match text {
            "vmlinux" | "bzImage" | "Image" | "Image.gz" | "zImage" | "vmlinuz" => vec![Target::Vmlinux],
            "modules" => vec![Target::Modules],
            "all" => vec![Target::Vmlinux, Target::Modules],
            _ => {
                if let Some(directory) = text.strip_suffix('/') {
                    vec![Target::Directory(PathBuf::from(directory.trim_start_matches("./")))]
                } else {
                    let stem = text.strip_suffix(".ko")?;
                    let name = stem.rsplit_once('/').map_or(stem, |(_, name)| name);
                    if name.is_empty() {
                        return None;
                    }
                    vec![Target::Module(name.replace('-', "_"))]
                }
            }
        })
    }

    /// True if a unit (`fs/xfs/xfs_inode.o`) of this object (`vmlinux`, `xfs`) may be patched.
    pub fn allows(&self, object: &str, unit: &Path) -> bool {
        match self {
            Target::Vmlinux => object == "vmlinux",
            Target::Modules => object != "vmlinux",
            Target::Module(name) => object.replace('-', "_") == *name,
            Target::Directory(directory) => unit.starts_with(directory),
        }
    }
}

impl Options {
    /// True if `-t` allows a unit of this object to be patched.
    pub fn allows(&self, object: &str, unit: &Path) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| target.allows(object, unit))
    }

    /// Brings a command line, the environment and settings files together. All that is wrong is reported.
    pub fn new(
        args: &Args,
        environment: &Environment,
        file: &FileSettings,
        directory: &Path,
    ) -> Result<Options, Vec<Error>> {
        let errors = RefCell::new(Vec::new());
        let fail = |code: &'static str, message: String, remedy: Option<&str>| {
            let error = Error::new(Phase::Arguments, code, message);
            errors.borrow_mut().push(match remedy {
                Some(remedy) => error.remedy(remedy),
                None => error,
            });
        };
        let existing = |path: &Path, what: &str, is_dir: bool| {
            let path = directory.join(path);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() == is_dir => {}
                Ok(_) => {
                    let kind = if is_dir { "a directory" } else { "a file" };
                    fail("wrong-kind-of-file", format!("{what} {} is not {kind}", path.display()), None);
                }
                Err(error) => {
                    fail("no-such-file", format!("{what} {} cannot be used: {error}", path.display()), None);
                }
            }
            // Without symlinks, so that the place of a file in its tree can be told from its path.
            std::fs::canonicalize(&path).unwrap_or(path)
        };
        let patches: Vec<PathBuf> = args.patches.iter().map(|p| existing(p, "patch file", false)).collect();
        let source = args.sourcedir.as_deref().map(|p| existing(p, "source directory", true));
        let build_dir = args.build_dir.as_deref().map(|p| existing(p, "build directory", true));
        let config = args.config.as_deref().map(|p| existing(p, "configuration", false));
        let vmlinux = args.vmlinux.as_deref().map(|p| existing(p, "vmlinux", false));
        let output = existing(args.output.as_deref().unwrap_or(directory), "output directory", true);

        let mut targets = Vec::new();
        for text in &args.target {
            match Target::parse(text) {
                Some(parsed) => targets.extend(parsed),
                None => fail(
                    "unknown-target",
                    format!("unknown target `{text}`"),
                    Some("name vmlinux, modules, a module as in fs/xfs/xfs.ko, or a directory as in fs/xfs/"),
                ),
            }
        }

        let release = args.archversion.clone().or_else(|| {
            // With a tree of the user's own, its vmlinux says what it is.
            source.is_none().then(|| rustix::system::uname().release().to_string_lossy().into_owned())
        });
        let package_version = args.package_version.as_deref().unwrap_or("1-1");
        let (version, package_release) = package_version.split_once('-').unwrap_or_default();
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !number(version) || !number(package_release) {
            fail(
                "package-version",
                format!("`{package_version}` cannot be the version of a package"),
                Some("name two numbers with a dash between them, as in 1-1"),
            );
        }
        let packaging = args.package.map(|format| Packaging {
            format,
            version: version.to_owned(),
            release: package_release.to_owned(),
        });
        let signing =
            args.sign_key.as_deref().zip(args.sign_cert.as_deref()).map(|(key, certificate)| Signing {
                key: existing(key, "key", false),
                certificate: existing(certificate, "certificate", false),
            });

        // Each version of a packaged module has a name of its own, so that it can take over from the last.
        let versioned = packaging.as_ref().zip(release.as_deref()).map(|(packaging, release)| {
            kpatch_package::patch::module_name(
                release,
                std::env::consts::ARCH,
                &packaging.version,
                &packaging.release,
            )
        });
        let module_name = module_name(args.name.as_deref().or(versioned.as_deref()), &patches);
        if !module_name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            fail(
                "unusable-name",
                format!("`{module_name}` cannot be the name of a module"),
                Some("name one with -n"),
            );
        }

        let cache = cache_directory(environment, file, directory).unwrap_or_else(|error| {
            errors.borrow_mut().push(error);
            PathBuf::new()
        });

        let mut kernels = kernel_artifacts::settings::Settings::new(&cache);
        for suite in &args.suite {
            if !kernels.suites.contains(suite) {
                kernels.suites.push(suite.clone());
            }
        }
        kernels.apply(&file.kernels);
        if let Some(choice) = &args.build_root {
            kernels.build_root = BuildRootChoice::from(choice.clone());
        }
        if let BuildRootChoice::Dir(root) = &kernels.build_root {
            kernels.build_root = BuildRootChoice::Dir(existing(root, "build root", true));
        }
        kernels.refresh = args.refresh;
        kernels.allow_other_compiler = args.skip_compiler_check;

        let errors = errors.into_inner();
        if !errors.is_empty() {
            return Err(errors);
        }
        let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Options {
            patches,
            release,
            source,
            build_dir,
            config,
            vmlinux,
            targets,
            module_name,
            output,
            replace: !args.non_replace,
            package: packaging,
            signing,
            fuzz: args.fuzz,
            skip_compiler_check: args.skip_compiler_check,
            allowed_layouts: args.allow_layout_change.clone(),
            only_touched: args.only_touched_units,
            all_readers: args.all_readers,
            whole_tree: args.whole_tree,
            split: args.split,
            skip: Skip { init: args.skip_init_changes, data: args.skip_data_changes.clone() },
            jobs: args.jobs.or(file.jobs).unwrap_or_else(processors),
            debug: args.debug,
            keep: args.debug > 0 || args.skip_cleanup,
            cache,
            kernels,
            cache_limit: args.cache_size.unwrap_or_else(|| file.cache_limit()),
            launcher: args
                .cc_launcher
                .as_ref()
                .map(|words| words.split_whitespace().map(str::to_owned).collect()),
            environment: environment.clone(),
            display: Display {
                quiet: args.quiet,
                color: args.color,
                time: args.time,
                json: args
                    .json
                    .as_ref()
                    .map(|path| if path.as_os_str() == "-" { path.clone() } else { directory.join(path) }),
                debug: args.debug,
            },
        })
    }
}

/// The cache's directory: what the environment says, or the settings, or one in the user's home.
pub fn cache_directory(
    environment: &Environment,
    file: &FileSettings,
    directory: &Path,
) -> Result<PathBuf, Error> {
    match (&environment.cache, &file.cache_dir, &environment.home) {
        (Some(cache), ..) | (None, Some(cache), _) => Ok(directory.join(cache)),
        (None, None, Some(home)) => Ok(home.join(".kpatch")),
        (None, None, None) => Err(Error::new(
            Phase::Arguments,
            "no-cache-directory",
            "no place for the cache: neither CACHEDIR nor HOME is set",
        )
        .remedy("set CACHEDIR")),
    }
}

/// Longest module name that the predecessor makes; the kernel's limit less the length of a suffix.
const MAX_NAME: usize = 55;

/// The name of the module's file without `.ko`: the user's, or made from the patches' names.
pub fn module_name(given: Option<&str>, patches: &[PathBuf]) -> String {
    let name = given.map_or_else(|| default_name(patches), |name| name.trim_end_matches(".ko").to_owned());
    let usable = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    name.chars().map(usable).take(MAX_NAME).collect()
}

fn default_name(patches: &[PathBuf]) -> String {
    let file = match patches {
        [only] => only.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        _ => "patch".to_owned(),
    };
    let stem = file.strip_suffix(".patch").or_else(|| file.strip_suffix(".diff")).unwrap_or(&file);
    format!("livepatch-{stem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str, dir: &Path) -> Result<Options, Vec<Error>> {
        let words = std::iter::once("kpatch-build").chain(line.split_whitespace());
        let args = Args::parse_from_words(words).unwrap();
        let environment = Environment { home: Some("/home/u".into()), ..Environment::default() };
        Options::new(&args, &environment, &FileSettings::default(), dir)
    }

    #[test]
    fn names_are_made_as_the_predecessor_does() {
        let patches = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(module_name(None, &patches(&["/x/fix.patch"])), "livepatch-fix");
        assert_eq!(module_name(None, &patches(&["fix.1 ä.diff"])), "livepatch-fix-1--");
        assert_eq!(module_name(None, &patches(&["a.patch", "b.patch"])), "livepatch-patch");
        assert_eq!(module_name(Some("my.mod"), &patches(&["a.patch"])), "my-mod");
        assert_eq!(module_name(Some(&"x".repeat(80)), &[]).len(), 55);
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let errors = options("-s nosuch -c . -t bogus one.patch", dir.path()).unwrap_err();
        let codes: Vec<_> = errors.iter().map(|error| error.code.as_str()).collect();
        assert_eq!(codes, ["no-such-file", "no-such-file", "wrong-kind-of-file", "unknown-target"]);
    }

    #[test]
    fn paths_are_absolute_and_defaults_are_set() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("one.patch"), "").unwrap();
        let options = options("one.patch --json r.json", dir.path()).unwrap();
        assert_eq!(options.patches, [dir.path().canonicalize().unwrap().join("one.patch")]);
        assert_eq!(options.cache, Path::new("/home/u/.kpatch"));
        assert_eq!(options.display.json, Some(dir.path().join("r.json")));
        assert!(options.replace && !options.keep);
        assert!(options.release.is_some_and(|release| !release.is_empty()));
    }

    #[test]
    fn targets_limit_what_may_be_patched() {
        let xfs = Path::new("fs/xfs/xfs_inode.o");
        let allows = |text: &str, object: &str| {
            Target::parse(text).unwrap().iter().any(|target| target.allows(object, xfs))
        };
        assert!(allows("vmlinux", "vmlinux") && !allows("vmlinux", "xfs"));
        assert!(allows("modules", "xfs") && !allows("modules", "vmlinux"));
        assert!(allows("net/nf-tables.ko", "nf_tables") && !allows("net/nf-tables.ko", "xfs"));
        assert!(allows("fs/xfs/", "xfs") && !allows("fs/x/", "xfs"));
        assert!(allows("all", "xfs") && allows("all", "vmlinux"));
        assert_eq!(Target::parse("install"), None);
        assert_eq!(Target::parse("fs/.ko"), None);
    }
}
