//! Installed modules: `/var/lib/kpatch/RELEASE/NAME.ko`.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::root::Root;

/// The directory of installed modules.
pub const INSTALLED: &str = "/var/lib/kpatch";

/// What a file is called before it is whole. What an interrupted run leaves under such a name is removed by
/// the next, and never taken for a module.
const UNFINISHED: &str = ".kpatch-";

/// An installed module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    /// The release whose directory it is in.
    pub release: String,
    /// The name of the file without `.ko`.
    pub stem: String,
    /// The file.
    pub path: PathBuf,
}

impl Installed {
    /// Whether a name given by a person means this module: the file's name or the module's, where `-` and `_`
    /// are the same.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.strip_suffix(".ko").unwrap_or(name);
        name.replace('-', "_") == self.stem.replace('-', "_")
    }
}

/// The modules installed for a release, by name; all releases without one.
pub fn installed(root: &Root, release: Option<&str>) -> io::Result<Vec<Installed>> {
    let releases = match release {
        Some(release) => vec![release.to_owned()],
        None => root.names(INSTALLED)?.into_iter().filter(|name| !name.starts_with('.')).collect(),
    };
    let mut out = Vec::new();
    for release in releases {
        let directory = Path::new(INSTALLED).join(&release);
        if !root.path(&directory).is_dir() {
            continue;
        }
        for file in root.names(&directory)? {
            if let Some(stem) = file.strip_suffix(".ko").filter(|stem| !stem.starts_with('.')) {
                out.push(Installed {
                    release: release.clone(),
                    stem: stem.to_owned(),
                    path: root.path(directory.join(&file)),
                });
            }
        }
    }
    Ok(out)
}

/// Puts a module into the directory of a release: all of it or nothing, and after a crash as well.
pub fn install(root: &Root, release: &str, file: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let directory = root.path(Path::new(INSTALLED).join(release));
    fs_err::create_dir_all(&directory)?;
    clear(&directory);
    let path = directory.join(file);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let written = (|| {
        let mut out = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&directory)?;
        out.write_all(bytes)?;
        out.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        out.as_file().sync_all()?;
        out.persist(&path)?;
        sync(&directory)
    })();
    if let Err(error) = written {
        remove_if_empty(&directory);
        return Err(named(error));
    }
    // A new directory is an entry of its parent.
    directory.parent().map_or(Ok(()), sync).map_err(named)?;
    Ok(path)
}

/// Removes an installed module, and the directory with the last.
pub fn uninstall(module: &Installed) -> io::Result<()> {
    fs_err::remove_file(&module.path)?;
    if let Some(directory) = module.path.parent() {
        sync(directory)?;
        clear(directory);
        remove_if_empty(directory);
    }
    Ok(())
}

/// What earlier runs left unfinished. Installing is locked, so nobody is at it.
fn clear(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // If it will not go, it does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn remove_if_empty(directory: &Path) {
    // Fails where others are in it, as it should.
    let _ = std::fs::remove_dir(directory);
}

fn sync(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_modules_only() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let place = directory.path().join("var/lib/kpatch/6.1.0");
        fs_err::create_dir_all(&place).unwrap();
        fs_err::write(place.join(".kpatch-abc"), "half").unwrap();
        fs_err::write(place.join(".kpatch-x.ko"), "half").unwrap();
        fs_err::write(place.join("notes.txt"), "").unwrap();
        assert!(installed(&root, None).unwrap().is_empty());
        let path = install(&root, "6.1.0", "a-b.ko", b"module").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"module");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(!place.join(".kpatch-abc").exists());
        let [module] = installed(&root, Some("6.1.0")).unwrap().try_into().unwrap();
        for name in ["a-b", "a_b", "a-b.ko"] {
            assert!(module.is_called(name), "{name}");
        }
        assert!(!module.is_called("a"));
        fs_err::remove_file(place.join("notes.txt")).unwrap();
        uninstall(&module).unwrap();
        assert!(!place.exists());
        assert!(installed(&root, None).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_left_of_what_does_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        // The name is taken by a directory that is not empty.
        fs_err::create_dir_all(directory.path().join("var/lib/kpatch/6.1.0/a.ko/x")).unwrap();
        let error = install(&root, "6.1.0", "a.ko", b"module").unwrap_err();
        assert!(error.to_string().contains("a.ko"), "{error}");
        let names = root.names("/var/lib/kpatch/6.1.0").unwrap();
        assert_eq!(names, ["a.ko"]);
    }
}
