//! Files of a release, unpacked when first asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::headers::{self, Headers};
use super::index::Package;
use super::select::Selection;
use super::unpack::{self, Take};
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::settings::Settings;
use crate::store::{Store, is_ready, remove};

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
        self.unpacked(&entry, &[package], "the source", &[&makefile], events, |debs, new| {
            unpack::source(&debs[0], new)
        })?;
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
        let needed = [headers.symvers.as_path(), &makefile];
        self.unpacked(&entry, &packages, "the headers", &needed, events, |debs, new| {
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
        self.unpacked(&entry, &[package], what, &[&file], events, |debs, new| {
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

    /// `lib/modules/RELEASE` as shipped.
    fn modules_dir(&self, events: Events) -> Result<PathBuf> {
        let package = &self.selection.modules;
        let entry = self.work_dir().join("modules");
        let release = &self.selection.release;
        self.unpacked(&entry, &[package], "the modules", &[], events, |debs, new| {
            let count = unpack::some(&debs[0], usize::MAX, |path| {
                let below = path.split_once(&format!("lib/modules/{release}/")).map(|(_, below)| below);
                below.and_then(|below| unpack::below(new, below)).map_or(Take::Skip, Take::To)
            })?;
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
        self.unpacked(
            &entry,
            &[&self.selection.modules],
            &format!("module {name}"),
            &[&file],
            events,
            |_, new| unpack::decompress(&shipped, &new.join(format!("{name}.ko"))),
        )?;
        Ok(file)
    }

    /// Debug files of modules. Several at once cost one pass over the debug package.
    pub fn module_debug(&self, names: &[&str], events: Events) -> Result<BTreeMap<String, PathBuf>> {
        let package = &self.selection.debug;
        let stamp = stamp(&[package]);
        let dir = self.work_dir().join("ko-debug");
        let entry = |name: &str| dir.join(name);
        let mut absent = Vec::new();
        for name in names.iter().map(|name| module_name(name)) {
            if !is_ready(&entry(&name), &stamp)? && !absent.contains(&name) {
                absent.push(name);
            }
        }
        if !absent.is_empty() {
            let pass = dir.join("pass");
            let _lock = self.store.lock(&pass, events)?;
            remove(&pass)?;
            let deb = self.deb(package, events)?;
            events(Event::Unpacking { what: format!("debug symbols of {}", absent.join(", ")) });
            unpack::some(&deb, absent.len(), |path| match debug_module(path) {
                Some(name) if absent.contains(&name) => Take::To(pass.join(format!("{name}.ko.debug"))),
                _ => Take::Skip,
            })?;
            for name in &absent {
                let from = pass.join(format!("{name}.ko.debug"));
                if !from.exists() {
                    return Err(self.no_module(name));
                }
                self.store.directory(&entry(name), &stamp, events, |new| {
                    Ok(fs::rename(&from, new.join(format!("{name}.ko.debug")))?)
                })?;
            }
            remove(&pass)?;
        }
        let file = |name: String| (name.clone(), entry(&name).join(format!("{name}.ko.debug")));
        Ok(names.iter().map(|name| file(module_name(name))).collect())
    }

    fn no_module(&self, name: &str) -> Error {
        Error::NoModule { release: self.selection.release.clone(), module: name.to_owned() }
    }

    /// The package file, fetched again where it is gone.
    fn deb(&self, package: &Package, events: Events) -> Result<PathBuf> {
        super::fetch(&[package], &self.settings, &self.store, events)?;
        Ok(self.store.path("debs").join(package.file_name()))
    }

    /// An entry of the cache made from packages. A package that turns out damaged is fetched again, once.
    fn unpacked(
        &self,
        entry: &Path,
        packages: &[&Package],
        what: &str,
        needed: &[&Path],
        events: Events,
        make: impl Fn(&[PathBuf], &Path) -> Result<()>,
    ) -> Result<()> {
        let stamp = stamp(packages);
        let gone = || needed.iter().find(|file| !file.exists());
        if is_ready(entry, &stamp)? {
            let Some(file) = gone() else { return Ok(()) };
            events(Event::Warning {
                message: format!("{} is missing; {what} is unpacked again", file.display()),
            });
            self.store.forget(entry, events)?;
        }
        let attempt = || -> Result<()> {
            self.store.directory(entry, &stamp, events, |new| {
                let debs =
                    packages.iter().map(|package| self.deb(package, events)).collect::<Result<Vec<_>>>()?;
                events(Event::Unpacking { what: what.to_owned() });
                make(&debs, new)
            })?;
            Ok(())
        };
        let result = match attempt() {
            Err(error @ (Error::DamagedCache { .. } | Error::Command { .. })) if !self.settings.offline => {
                events(Event::Warning { message: format!("{error}; fetching the package again") });
                for package in packages {
                    remove(&self.store.path("debs").join(package.file_name()))?;
                }
                attempt()
            }
            other => other,
        };
        result?;
        match gone() {
            None => Ok(()),
            Some(file) => Err(Error::MissingFile {
                package: packages.iter().map(|package| package.file_name()).collect::<Vec<_>>().join(", "),
                file: file.strip_prefix(entry).unwrap_or(file).display().to_string(),
            }),
        }
    }
}

/// What an entry was made from.
fn stamp(packages: &[&Package]) -> String {
    let hashes = packages.iter().map(|package| format!("{} {}\n", package.sha256, package.file_name()));
    format!("unpacking {UNPACKING}\n{}", hashes.collect::<String>())
}

/// `boot/config-RELEASE`, and since 7.x `usr/lib/modules/RELEASE/config`; below `usr/lib/debug` too.
fn is_boot_file(path: &str, kind: &str, release: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else { return false };
    let in_boot = dir == "boot" || dir.ends_with("/boot");
    let in_modules = dir.ends_with(&format!("lib/modules/{release}"));
    (in_boot && name == format!("{kind}-{release}")) || (in_modules && name == kind)
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
mod tests {
    use super::*;

    #[test]
    fn boot_files_of_both_layouts() {
        let release = "6.1.0-1-amd64";
        assert!(is_boot_file("boot/config-6.1.0-1-amd64", "config", release));
        assert!(is_boot_file("usr/lib/debug/boot/vmlinux-6.1.0-1-amd64", "vmlinux", release));
        assert!(is_boot_file("usr/lib/debug/lib/modules/6.1.0-1-amd64/vmlinux", "vmlinux", release));
        assert!(is_boot_file("usr/lib/modules/6.1.0-1-amd64/vmlinuz", "vmlinuz", release));
        assert!(!is_boot_file("boot/config-6.1.0-2-amd64", "config", release));
        assert!(!is_boot_file("usr/share/doc/config-6.1.0-1-amd64", "config", release));
    }

    #[test]
    fn module_names() {
        assert_eq!(module_of_file("virtio-net.ko.xz").as_deref(), Some("virtio_net"));
        assert_eq!(module_of_file("modules.dep"), None);
        let path = "usr/lib/debug/lib/modules/6.1/kernel/fs/nls/nls-utf8.ko";
        assert_eq!(debug_module(path).as_deref(), Some("nls_utf8"));
        assert_eq!(debug_module("usr/lib/debug/boot/vmlinux-6.1"), None);
    }
}
