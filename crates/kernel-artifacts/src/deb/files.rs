//! Files of a release, unpacked when first asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::headers::{self, Headers};
use super::index::Package;
use super::select::Selection;
use super::unpack::{self, Take};
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::settings::Settings;
use crate::store::{Store, create_dir_all, is_ready};

/// Raised when the way of unpacking changes, so that older entries are made again.
const UNPACKING: u32 = 1;

/// A release of Debian with its packages in the cache.
#[derive(Debug, Clone)]
pub struct DebKernel {
    store: Store,
    settings: Settings,
    selection: Selection,
}

impl DebKernel {
    pub(super) fn new(store: Store, settings: Settings, selection: Selection) -> Self {
        DebKernel { store, settings, selection }
    }

    /// What the release was resolved to.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// A directory of the cache for everything derived from exactly these packages.
    pub fn work_dir(&self) -> PathBuf {
        super::kernel_dir(&self.store, &self.selection.release).join(&self.selection.version)
    }

    /// Names exactly these packages: what is derived from them is keyed with it.
    pub fn identity(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (_, package) in self.selection.packages() {
            hash.update(package.sha256.as_bytes()).update(b"\n");
        }
        hash.finalize().to_hex().to_string()
    }

    /// Fetches whatever is not in the cache.
    pub(super) fn fetch_all(&self, events: Events) -> Result<()> {
        let packages: Vec<&Package> =
            self.selection.packages().into_iter().map(|(_, package)| package).collect();
        super::fetch(&packages, &self.settings, &self.store, events)
    }

    /// The source tree. It is shared by all flavours and must not be written.
    pub fn source(&self, events: Events) -> Result<PathBuf> {
        let package = &self.selection.source;
        let entry = self.store.path("source").join(format!("{}_{}", package.name, package.version));
        let makefile = entry.join("Makefile");
        let made = Entry {
            path: &entry,
            packages: &[package],
            what: "the source",
            needed: &[&makefile],
            knows_its_path: false,
        };
        self.unpacked(&made, events, |debs, new| unpack::source(&debs[0], new))?;
        Ok(entry)
    }

    /// The headers, usable where they are.
    pub fn headers(&self, events: Events) -> Result<Headers> {
        let selection = &self.selection;
        let entry = self.work_dir().join("headers");
        let packages = [&selection.headers, &selection.common, &selection.kbuild];
        let dir = entry.join("usr/src").join(&selection.headers.name);
        let headers = Headers {
            common: entry.join("usr/src").join(&selection.common.name),
            symvers: dir.join("Module.symvers"),
            dir,
        };
        let makefile = headers.common.join("Makefile");
        let made = Entry {
            path: &entry,
            packages: &packages,
            what: "the headers",
            needed: &[&headers.symvers, &makefile],
            knows_its_path: true,
        };
        self.unpacked(&made, events, |debs, new| {
            for deb in debs {
                unpack::all(deb, new)?;
            }
            headers::relocate(new, &entry)
        })?;
        Ok(headers)
    }

    /// The configuration.
    pub fn config(&self, events: Events) -> Result<PathBuf> {
        self.boot_file(&self.selection.base, "config", "config", "the configuration", events)
    }

    /// One file of a package, on its own.
    fn boot_file(
        &self,
        package: &Package,
        name: &str,
        kind: &str,
        what: &str,
        events: Events,
    ) -> Result<PathBuf> {
        let entry = self.work_dir().join(name);
        let file = entry.join(kind);
        let packages = [package];
        let made = Entry { path: &entry, packages: &packages, what, needed: &[&file], knows_its_path: false };
        self.unpacked(&made, events, |debs, new| {
            unpack::some(&debs[0], 1, |path| {
                if is_boot_file(path, kind, &self.selection.release) {
                    Take::To(new.join(kind))
                } else {
                    Take::Skip
                }
            })
            .map(drop)
        })?;
        Ok(file)
    }

    /// The bootable image.
    pub fn image(&self, events: Events) -> Result<PathBuf> {
        let package = &self.selection.image;
        self.boot_file(package, "image", "vmlinuz", "the kernel image", events)
    }

    /// The unstripped vmlinux.
    pub fn vmlinux(&self, events: Events) -> Result<PathBuf> {
        let package = &self.selection.debug;
        self.boot_file(package, "vmlinux", "vmlinux", "vmlinux", events)
    }

    /// `lib/modules/RELEASE` as shipped; the lists of built-in modules are in the base package where that is another.
    fn modules_dir(&self, events: Events) -> Result<PathBuf> {
        let (package, base) = (&self.selection.modules, &self.selection.base);
        let entry = self.work_dir().join("modules");
        let release = &self.selection.release;
        let made = Entry {
            path: &entry,
            packages: if package == base { &[package] } else { &[package, base] },
            what: "the modules",
            needed: &[],
            knows_its_path: false,
        };
        self.unpacked(&made, events, |debs, new| {
            let mut count = 0;
            for deb in debs {
                count += unpack::some(deb, usize::MAX, |path| {
                    let below = path.split_once(&format!("lib/modules/{release}/")).map(|(_, below)| below);
                    below.and_then(|below| unpack::below(new, below)).map_or(Take::Skip, Take::To)
                })?;
            }
            if count == 0 {
                let file = format!("lib/modules/{release}");
                return Err(Error::MissingFile { package: package.file_name().to_owned(), file });
            }
            Ok(())
        })?;
        Ok(entry)
    }

    /// All modules of the release: name as `lsmod` shows it, and the shipped file, compressed as it was shipped.
    pub fn modules(&self, events: Events) -> Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        find_modules(&self.modules_dir(events)?, &mut found)?;
        Ok(found)
    }

    /// The shipped module of that name, decompressed.
    pub fn module(&self, name: &str, events: Events) -> Result<PathBuf> {
        let name = module_name(name);
        let shipped = self.modules(events)?.remove(&name).ok_or_else(|| self.no_module(&name))?;
        let entry = self.work_dir().join("ko").join(&name);
        let file = entry.join(format!("{name}.ko"));
        let made = Entry {
            path: &entry,
            packages: &[&self.selection.modules],
            what: &format!("module {name}"),
            needed: &[&file],
            knows_its_path: false,
        };
        self.unpacked(&made, events, |_, new| unpack::decompress(&shipped, &new.join(format!("{name}.ko"))))?;
        Ok(file)
    }

    /// Debug files of modules. Several at once cost one pass over the debug package.
    pub fn module_debug(&self, names: &[&str], events: Events) -> Result<BTreeMap<String, PathBuf>> {
        let package = &self.selection.debug;
        let stamp = stamp(&[package]);
        let dir = self.work_dir().join("ko-debug");
        let names: BTreeSet<String> = names.iter().map(|name| module_name(name)).collect();
        let file_name = |name: &str| format!("{name}.ko.debug");
        let absent = || -> Result<Vec<String>> {
            let mut absent = Vec::new();
            for name in &names {
                if !is_ready(&dir.join(name), &stamp) || !dir.join(name).join(file_name(name)).exists() {
                    absent.push(name.clone());
                }
            }
            Ok(absent)
        };
        if !absent()?.is_empty() {
            let _lock = self.store.lock(&dir, events)?;
            // Another run may have unpacked them while this one waited.
            let absent = absent()?;
            let pass = pass_directory(&dir)?;
            if !absent.is_empty() {
                let what = format!("debug symbols of {}", absent.join(", "));
                self.reading(&[package], &what, events, |debs| {
                    unpack::some(&debs[0], absent.len(), |path| match debug_module(path) {
                        Some(name) if absent.contains(&name) => Take::To(pass.path().join(file_name(&name))),
                        _ => Take::Skip,
                    })
                    .map(drop)
                })?;
            }
            for name in &absent {
                let from = pass.path().join(file_name(name));
                if !from.exists() {
                    return Err(self.no_module(name));
                }
                self.store.forget(&dir.join(name), events)?;
                self.store.directory(&dir.join(name), &stamp, events, |new| {
                    Ok(fs::rename(&from, new.join(file_name(name)))?)
                })?;
            }
        }
        let file = |name: String| (name.clone(), dir.join(&name).join(file_name(&name)));
        Ok(names.into_iter().map(file).collect())
    }

    fn no_module(&self, name: &str) -> Error {
        Error::NoModule { release: self.selection.release.clone(), module: name.to_owned() }
    }

    /// The package file, fetched again where it is gone.
    fn deb(&self, package: &Package, events: Events) -> Result<PathBuf> {
        super::fetch(&[package], &self.settings, &self.store, events)?;
        Ok(self.store.path("debs").join(package.file_name()))
    }

    /// An entry of the cache made from packages.
    fn unpacked(
        &self,
        entry: &Entry,
        events: Events,
        make: impl Fn(&[PathBuf], &Path) -> Result<()>,
    ) -> Result<()> {
        let mut stamp = stamp(entry.packages);
        if entry.knows_its_path {
            let _ = writeln!(stamp, "{}", entry.path.display());
        }
        let gone = || entry.needed.iter().find(|file| !file.exists());
        if is_ready(entry.path, &stamp) {
            let Some(file) = gone() else { return Ok(()) };
            let message = format!("{} is missing; {} is unpacked again", file.display(), entry.what);
            events(Event::Warning { message });
            self.store.forget(entry.path, events)?;
        }
        self.store.directory(entry.path, &stamp, events, |new| {
            self.reading(entry.packages, entry.what, events, |debs| make(debs, new))
        })?;
        let Some(file) = gone() else { return Ok(()) };
        Err(Error::MissingFile {
            package: entry.packages.iter().map(|package| package.file_name()).collect::<Vec<_>>().join(", "),
            file: file.strip_prefix(entry.path).unwrap_or(file).display().to_string(),
        })
    }

    /// Reads packages.
    fn reading(
        &self,
        packages: &[&Package],
        what: &str,
        events: Events,
        read: impl Fn(&[PathBuf]) -> Result<()>,
    ) -> Result<()> {
        let debs =
            packages.iter().map(|package| self.checked(package, events)).collect::<Result<Vec<_>>>()?;
        events(Event::Unpacking { what: what.to_owned() });
        read(&debs)
    }

    /// A package file with the content that the release was resolved to. One of another content is fetched again, once:
    /// a package of the same name and version can have been made anew in the archive, or be damaged here.
    fn checked(&self, package: &Package, events: Events) -> Result<PathBuf> {
        let deb = self.deb(package, events)?;
        let is_right = |deb: &Path| Ok::<_, Error>(super::sha256(deb)? == package.sha256);
        if is_right(&deb)? {
            return Ok(deb);
        }
        let reason = "its content is not that of the package the release was resolved to".to_owned();
        let (file, suite) = (package.file_name().to_owned(), package.suite.clone());
        let wrong = Error::BadPackage { file, suite, reason };
        if self.settings.offline {
            return Err(wrong);
        }
        events(Event::Warning { message: format!("{wrong}; the package is fetched again") });
        kbuild::store::remove(&deb)?;
        let deb = self.deb(package, events)?;
        if is_right(&deb)? { Ok(deb) } else { Err(wrong) }
    }
}

/// What to make from which packages.
struct Entry<'a> {
    path: &'a Path,
    packages: &'a [&'a Package],
    what: &'a str,
    /// Files that must be there.
    needed: &'a [&'a Path],
    /// Whether its files name its own path, so that a moved cache must not be trusted.
    knows_its_path: bool,
}

/// A directory for one pass over the debug package; what killed runs left is removed. The lock of `dir` must be held.
fn pass_directory(dir: &Path) -> Result<tempfile::TempDir> {
    const PREFIX: &str = ".pass-";
    create_dir_all(dir)?;
    for left in fs::read_dir(dir)? {
        let left = left?;
        if left.file_name().to_string_lossy().starts_with(PREFIX) {
            kbuild::store::remove(&left.path())?;
        }
    }
    Ok(tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir)?)
}

/// What an entry was made from.
fn stamp(packages: &[&Package]) -> String {
    let hashes = packages.iter().map(|package| format!("{} {}\n", package.sha256, package.file_name()));
    format!("unpacking {UNPACKING}\n{}", hashes.collect::<String>())
}

/// `boot/config-RELEASE`, and since 7.x `usr/lib/modules/RELEASE/config`; below `usr/lib/debug` too. An image that
/// nobody signed is called so since 7.x.
fn is_boot_file(path: &str, kind: &str, release: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else { return false };
    let in_boot = dir == "boot" || dir.ends_with("/boot");
    let in_modules = dir.ends_with(&format!("lib/modules/{release}"));
    (in_boot && name == format!("{kind}-{release}"))
        || (in_modules && name.strip_suffix(".unsigned").unwrap_or(name) == kind)
}

/// The kernel's name for a module: file names may have dashes.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

fn module_of_file(name: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| name.strip_suffix(end))?;
    Some(module_name(stem))
}

/// The module whose debug file a path of the debug package is.
fn debug_module(path: &str) -> Option<String> {
    let (dir, name) = path.rsplit_once('/')?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.debug"))?;
    dir.contains("/modules/").then(|| module_name(stem))
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_modules(&path, found)?;
        } else if let Some(name) = module_of_file(&entry.file_name().to_string_lossy()) {
            found.insert(name, path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
