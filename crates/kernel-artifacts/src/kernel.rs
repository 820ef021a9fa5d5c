//! A kernel with everything that was resolved about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kbuild::root::Root;

use crate::compiler::Compiler;
use crate::deb::DebKernel;
use crate::deb::headers::Headers;
use crate::deb::index::Package;
use crate::directory::DirectoryKernel;
use crate::error::Result;
use crate::event::Events;

/// Where the kernel's files come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Packages of Debian.
    Debian(Box<DebKernel>),
    /// Directories and files of the user.
    Directory(DirectoryKernel),
}

/// A kernel release and its parts. What is not needed by every run is unpacked when it is asked for.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What `uname -r` prints.
    pub release: String,
    /// Debian's name of the architecture, as in `amd64`.
    pub architecture: String,
    /// The configuration it was built with.
    pub config: PathBuf,
    /// Its compiler, as found.
    pub compiler: Compiler,
    /// What CONFIG_CC_VERSION_TEXT says.
    pub wanted_compiler: String,
    /// Where compilers and kbuild run.
    pub build_root: Root,
    /// A directory of the cache for what is derived from exactly this kernel.
    pub work_dir: PathBuf,
    /// Names exactly this kernel's files: the key of whatever is derived from them.
    pub identity: String,
    /// Where the files come from.
    pub origin: Origin,
}

/// One package of a resolved release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRecord {
    /// What it is used for.
    pub role: &'static str,
    /// The package.
    pub package: Package,
}

impl Kernel {
    /// The source tree; never to be written.
    pub fn source(&self, events: Events) -> Result<PathBuf> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.source(events),
            Origin::Directory(kernel) => Ok(kernel.source.clone()),
        }
    }

    /// The user's own source tree, of which [`Kernel::source`] is a view.
    pub fn tree(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Debian(_) => None,
            Origin::Directory(kernel) => Some(&kernel.tree),
        }
    }

    /// Takes the list of exported symbols of a build, where the user's own files have none.
    pub fn lend_symvers(&mut self, file: Option<PathBuf>) {
        if let Origin::Directory(kernel) = &mut self.origin {
            kernel.symvers = kernel.symvers.take().or(file);
        }
    }

    /// Headers of the release for external modules, where there are such.
    pub fn headers(&self, events: Events) -> Result<Option<Headers>> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.headers(events).map(Some),
            Origin::Directory(_) => Ok(None),
        }
    }

    /// Module.symvers of the shipped kernel. With the user's own files it may be absent.
    pub fn symvers(&self, events: Events) -> Result<Option<PathBuf>> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.headers(events).map(|headers| Some(headers.symvers)),
            Origin::Directory(kernel) => Ok(kernel.symvers.clone()),
        }
    }

    /// The unstripped vmlinux.
    pub fn vmlinux(&self, events: Events) -> Result<PathBuf> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.vmlinux(events),
            Origin::Directory(kernel) => Ok(kernel.vmlinux.clone()),
        }
    }

    /// The bootable image, where there is one.
    pub fn image(&self, events: Events) -> Result<Option<PathBuf>> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.image(events).map(Some),
            Origin::Directory(_) => Ok(None),
        }
    }

    /// Modules by name (with underscores), as shipped: possibly compressed.
    pub fn modules(&self, events: Events) -> Result<BTreeMap<String, PathBuf>> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.modules(events),
            Origin::Directory(kernel) => Ok(kernel.modules()),
        }
    }

    /// The shipped module of that name, decompressed.
    pub fn module(&self, name: &str, events: Events) -> Result<PathBuf> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.module(name, events),
            Origin::Directory(kernel) => kernel.module(name),
        }
    }

    /// Debug files of modules; asking for several at once saves time.
    pub fn module_debug(&self, names: &[&str], events: Events) -> Result<BTreeMap<String, PathBuf>> {
        match &self.origin {
            Origin::Debian(kernel) => kernel.module_debug(names, events),
            Origin::Directory(kernel) => {
                names.iter().map(|name| Ok(((*name).replace('-', "_"), kernel.module(name)?))).collect()
            }
        }
    }

    /// Version of the packages.
    pub fn version(&self) -> Option<&str> {
        match &self.origin {
            Origin::Debian(kernel) => Some(&kernel.selection().version),
            Origin::Directory(_) => None,
        }
    }

    /// The packages that make up the release.
    pub fn packages(&self) -> Vec<PackageRecord> {
        let Origin::Debian(kernel) = &self.origin else { return Vec::new() };
        let packages = kernel.selection().packages().into_iter();
        packages.map(|(role, package)| PackageRecord { role, package: package.clone() }).collect()
    }
}
