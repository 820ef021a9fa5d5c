//! A kernel of the user's own: source directory, configuration and vmlinux, none of which is ever written.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::store::Store;

mod sources;

pub use sources::Sources;

/// Paths that the user gave, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryKernel {
    /// Source tree.
    pub tree: PathBuf,
    /// What kbuild sees of it, see [`Sources`].
    pub source: PathBuf,
    /// Configuration.
    pub config: PathBuf,
    /// Unstripped vmlinux.
    pub vmlinux: PathBuf,
    /// Module.symvers of this very kernel: beside vmlinux, or in the headers that are installed for the release.
    pub symvers: Option<PathBuf>,
    /// The release that vmlinux names in its banner.
    pub release: String,
}

impl DirectoryKernel {
    /// Checks the paths and reads the release from vmlinux.
    pub fn open(tree: &Path, config: &Path, vmlinux: &Path) -> Result<Self> {
        let tree = absolute(tree)?;
        let config = absolute(config)?;
        let vmlinux = absolute(vmlinux)?;
        for file in ["Makefile", "Kconfig", "scripts/Makefile.build"] {
            if !tree.join(file).exists() {
                let reason = format!("it is no kernel source tree: it has no {file}");
                return Err(Error::BadInput { path: tree, reason });
            }
        }
        let release = release_of(&vmlinux)?;
        let symvers = [
            vmlinux.with_file_name("Module.symvers"),
            // All there is where no modules were built.
            vmlinux.with_file_name("vmlinux.symvers"),
            PathBuf::from(format!("/lib/modules/{release}/build/Module.symvers")),
            PathBuf::from(format!("/usr/src/linux-headers-{release}/Module.symvers")),
        ]
        .into_iter()
        .find(|path| path.exists());
        Ok(DirectoryKernel { source: tree.clone(), tree, config, vmlinux, symvers, release })
    }

    /// A name for everything that is derived from these paths.
    pub(crate) fn place(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for path in [&self.tree, &self.config, &self.vmlinux] {
            hash.update(path.as_os_str().as_encoded_bytes()).update(b"\0");
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// Has kbuild see the sources only, by links in a directory of the cache. Gives what changes whenever a source does,
    /// or the configuration or vmlinux.
    pub(crate) fn see_sources(&mut self, store: &Store, entry: &Path, events: Events) -> Result<String> {
        use std::os::unix::fs::MetadataExt;
        let sources = Sources::scan(&self.tree)?;
        self.source = sources.view(store, entry, events)?;
        let mut hash = blake3::Hasher::new();
        hash.update(sources.identity().as_bytes()).update(&fs::read(&self.config)?);
        let meta = fs::metadata(&self.vmlinux)?;
        for number in [meta.size() as i64, meta.mtime(), meta.mtime_nsec()] {
            hash.update(&number.to_le_bytes());
        }
        Ok(hash.finalize().to_hex().to_string())
    }

    /// Modules below the directory that vmlinux is in (the kernel's build directory).
    pub(crate) fn modules(&self) -> BTreeMap<String, PathBuf> {
        let Some(dir) = self.vmlinux.parent() else { return BTreeMap::new() };
        let order = dir.join("modules.order");
        let Ok(text) = fs::read_to_string(&order) else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for line in text.lines() {
            // modules.order names objects since 6.2 and modules before.
            let Some(stem) = line.trim().strip_suffix(".ko").or_else(|| line.trim().strip_suffix(".o"))
            else {
                continue;
            };
            let file = dir.join(format!("{stem}.ko"));
            let name = stem.rsplit('/').next().unwrap_or(stem).replace('-', "_");
            if file.exists() {
                found.insert(name, file);
            }
        }
        found
    }

    pub(crate) fn module(&self, name: &str) -> Result<PathBuf> {
        let name = name.replace('-', "_");
        let found = self.modules().remove(&name);
        found.ok_or_else(|| Error::NoModule { release: self.release.clone(), module: name })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path)
        .map_err(|error| Error::BadInput { path: path.to_owned(), reason: error.to_string() })
}

/// The release in the banner `Linux version RELEASE (…`, which is the very text that /proc/version shows.
fn release_of(vmlinux: &Path) -> Result<String> {
    let bad = |reason: &str| Error::BadInput { path: vmlinux.to_owned(), reason: reason.to_owned() };
    let mut file = fs::File::open(vmlinux).map_err(|error| bad(&error.to_string()))?;
    let mut window = Vec::new();
    let mut first = true;
    loop {
        // Windows overlap by more than a banner's start is long.
        let kept = window.len().saturating_sub(256);
        window.drain(..kept);
        let read =
            file.by_ref().take(4 << 20).read_to_end(&mut window).map_err(|error| bad(&error.to_string()))?;
        if first && !window.starts_with(b"\x7fELF") {
            return Err(bad("it is no ELF file"));
        }
        if let Some(release) = banner_release(&window) {
            return Ok(release);
        }
        if read == 0 {
            return Err(bad("it has no `Linux version` banner, so it is no vmlinux"));
        }
        first = false;
    }
}

fn banner_release(content: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = content;
    while let Some(at) = rest.iter().position(|&byte| byte == b'L') {
        rest = &rest[at..];
        if let Some(text) = rest.strip_prefix(BANNER) {
            let end = text.iter().take(128).position(|&byte| byte == b' ' || byte == 0);
            let release = end.and_then(|end| std::str::from_utf8(&text[..end]).ok());
            // linux_proc_banner has a format in place of the release.
            if let Some(release) = release
                && release.starts_with(|c: char| c.is_ascii_digit())
                && crate::deb::index::is_safe(release)
            {
                return Some(release.to_owned());
            }
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_from_the_banner_not_from_the_format() {
        let text = b"\x7fELF..LLinux version %s (%s)\0..Linux version 6.1.0-test+ (me@here) (gcc";
        assert_eq!(banner_release(text).as_deref(), Some("6.1.0-test+"));
        assert_eq!(banner_release(b"\x7fELF Linux version ../../x (a)"), None);
        assert_eq!(banner_release(b"Linux version 6.1"), None);
    }

    #[test]
    fn wrong_paths_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vmlinux");
        fs::write(&file, "text").unwrap();
        let error = DirectoryKernel::open(dir.path(), &file, &file).unwrap_err();
        assert!(error.to_string().contains("no Makefile"), "{error}");
        for part in ["Makefile", "Kconfig", "scripts/Makefile.build"] {
            let path = dir.path().join(part);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let error = DirectoryKernel::open(dir.path(), &file, &file).unwrap_err();
        assert!(error.to_string().contains("no ELF"), "{error}");
        fs::write(&file, "\x7fELF Linux version 6.1.9 (x").unwrap();
        fs::write(dir.path().join("modules.order"), "kernel/a-b.ko\n").unwrap();
        fs::create_dir_all(dir.path().join("kernel")).unwrap();
        fs::write(dir.path().join("kernel/a-b.ko"), "").unwrap();
        let kernel = DirectoryKernel::open(dir.path(), &file, &file).unwrap();
        assert_eq!(kernel.release, "6.1.9");
        assert_eq!(kernel.symvers, None);
        assert!(kernel.modules().contains_key("a_b"));
    }
}
