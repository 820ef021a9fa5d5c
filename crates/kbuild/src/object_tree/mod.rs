//! The object tree of a kernel: a build directory (`O=`) in which kbuild compiles single units as the kernel's own
//! build did, without configuring or building the kernel.
//!
//! From a headers package it takes seconds: the package carries the configuration, all generated headers and the
//! exported symbols, and only the tools that compiling needs are built. What kbuild generates again on the way
//! must come out as the package has it, which proves that source, configuration and compiler belong together.
//! Without a headers package kbuild prepares the tree from the configuration.

mod modules;
mod prepare;
mod units;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::command::{CommandError, SavedCommand};
use crate::config::{Config, ConfigError};
use crate::root::{Root, RunError, Task};
use crate::store::{Item, StoreError};

pub use modules::ModuleObjects;
pub use units::UnitCommand;

/// Raised when trees made before must not be used any more.
const FORMAT: u32 = 1;

/// The object tree cannot be made or used.
#[derive(Debug, Error)]
pub enum TreeError {
    /// A file operation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A command failed.
    #[error("{what}: {source}")]
    Run {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        source: RunError,
    },
    /// Generated headers differ from those of the headers package.
    #[error(
        "the kernel's generated headers cannot be reproduced, so source, configuration and compiler do not \
         belong together; different: {}", files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotReproduced {
        /// Paths in the object tree.
        files: Vec<PathBuf>,
    },
    /// The configuration cannot be read.
    #[error("{}: {source}", path.display())]
    Config {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A saved command cannot be read.
    #[error("{}: {source}", path.display())]
    Command {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: CommandError,
    },
    /// A unit's path leads out of the source tree.
    #[error("{} is no path in the source tree", path.display())]
    NoUnit {
        /// The path.
        path: PathBuf,
    },
}

/// Where the configuration and the generated headers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An unpacked headers package: the directory with `.config`, `Module.symvers`, `include` and `arch`.
    Headers(PathBuf),
    /// A configuration file alone; kbuild generates the rest.
    Config(PathBuf),
}

/// What an object tree is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The kernel's release.
    pub release: String,
    /// The architecture as the kernel's makefiles call it: `x86`, `arm64`.
    pub arch: String,
    /// The source tree; never written to.
    pub source: PathBuf,
    /// Configuration and generated headers.
    pub origin: Origin,
    /// The compiler (`CC`).
    pub compiler: String,
    /// The compiler of tools that run during the build (`HOSTCC`).
    pub host_compiler: String,
    /// More variables for make's command line, such as `LLVM` or `CROSS_COMPILE`.
    pub variables: BTreeMap<String, String>,
    /// Where commands run. The directories named here are made visible inside by [`ObjectTree::open`].
    pub root: Root,
    /// Identifies the contents of source, origin and compiler: checksums of packages, for example. A tree that
    /// was made with another identity is made anew.
    pub identity: String,
}

impl Recipe {
    fn key(&self) -> String {
        let root = match &self.root {
            Root::Host => Path::new("host"),
            Root::Dir { dir, .. } => dir.as_path(),
        };
        let mut key = format!(
            "object tree {FORMAT}\n{}\n{}\n{}\n{:?}\n{}\n{}\n{}\n",
            self.release,
            self.arch,
            self.source.display(),
            self.origin,
            self.compiler,
            self.host_compiler,
            root.display(),
        );
        for (name, value) in &self.variables {
            key.extend([name, "=", value, "\n"]);
        }
        key.push_str(&self.identity);
        key
    }
}

/// A build directory in which kbuild compiles single units.
#[derive(Clone, Debug)]
pub struct ObjectTree {
    item: Item,
    recipe: Recipe,
    /// Modules that the kernel comes with: paths in the tree without suffix.
    modules: BTreeSet<PathBuf>,
}

impl ObjectTree {
    /// The object tree at `path`, an absolute path, made there if it is missing, unfinished or made from something
    /// else. Nothing but this module may write there.
    pub fn open(path: &Path, mut recipe: Recipe) -> Result<ObjectTree, TreeError> {
        let item = Item::new(path, recipe.key());
        recipe.root.bind(path);
        recipe.root.bind(recipe.source.clone());
        let tree = ObjectTree { item, recipe, modules: BTreeSet::new() };
        tree.item.ensure_in_place(|_| prepare::prepare(&tree))?;
        // A run that was killed while kbuild worked may have left kbuild's own.
        prepare::restore_identity(&tree)?;
        Ok(tree)
    }

    /// The build directory. Commands that kbuild saved must run there.
    pub fn path(&self) -> &Path {
        self.item.path()
    }

    /// The source tree.
    pub fn source(&self) -> &Path {
        &self.recipe.source
    }

    /// What it was made from.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Where its commands run.
    pub fn root(&self) -> &Root {
        &self.recipe.root
    }

    /// The configuration that units are compiled with.
    pub fn config(&self) -> Result<Config, TreeError> {
        read_config(&self.path().join(".config"))
    }

    /// Options that differ between the configuration file it was made from and the configuration in use, because
    /// kbuild brought it up to date; always empty with a headers package. What only names the compiler's version
    /// is left out.
    pub fn config_drift(&self) -> Result<Vec<String>, TreeError> {
        let Origin::Config(given) = &self.recipe.origin else { return Ok(Vec::new()) };
        let (given, used) = (read_config(given)?, self.config()?);
        let mut names: Vec<&str> = given.iter().chain(used.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let describes_tools = |name: &str| {
            ["CC_VERSION", "CC_HAS", "GCC_", "CLANG_", "AS_", "LD_", "RUSTC_", "PAHOLE_", "TOOLS_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        Ok(names
            .into_iter()
            .filter(|name| given.get(name) != used.get(name) && !describes_tools(name))
            .map(str::to_owned)
            .collect())
    }

    /// A make command for this tree, without goals.
    pub fn make(&self) -> Task<'_> {
        let recipe = &self.recipe;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        self.recipe
            .root
            .command("make")
            .directory(self.path())
            .confined_to([self.path()])
            .arg(format!("-j{jobs}"))
            .arg("-C")
            .arg(&recipe.source)
            .arg(joined("O=", self.path()))
            .arg(format!("ARCH={}", recipe.arch))
            .arg(format!("CC={}", recipe.compiler))
            .arg(format!("HOSTCC={}", recipe.host_compiler))
            .arg(format!("KERNELRELEASE={}", recipe.release))
            // These decide which tools are built first, never how C is compiled.
            .args(["CONFIG_RUST=", "CONFIG_DEBUG_INFO_BTF="])
            .args(recipe.variables.iter().map(|(name, value)| format!("{name}={value}")))
    }
}

fn joined(option: &str, path: &Path) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(option);
    word.push(path);
    word
}

fn read_command(path: &Path) -> Result<SavedCommand, TreeError> {
    let content = std::fs::read(path).map_err(StoreError::io("read", path))?;
    SavedCommand::parse(&content).map_err(|source| TreeError::Command { path: path.to_owned(), source })
}

fn read_config(path: &Path) -> Result<Config, TreeError> {
    let text = std::fs::read(path).map_err(StoreError::io("read", path))?;
    Config::parse(&text).map_err(|source| TreeError::Config { path: path.to_owned(), source })
}
