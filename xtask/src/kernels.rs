//! Kernels for the chores: stock ones, found and fetched as kpatch-build does it, so that both use one copy.

use crate::error::{Error, Result};
use crate::guest;
use crate::series::Series;
use kernel_artifacts::{Event, Kernel, Settings};
use std::path::{Path, PathBuf};

/// Settings with the cache of the chores.
pub(crate) fn settings() -> Settings {
    Settings::new(crate::builder::cache_directory())
}

/// Settings that find the kernel of a series.
fn settings_of(series: &Series) -> Settings {
    let mut settings = settings();
    if !series.suites.is_empty() {
        settings.suites.clone_from(&series.suites);
        settings.host_suites = false;
    }
    settings
}

/// Tells the developer what takes time.
fn tell(event: Event) {
    match event {
        Event::UpdatingIndex { suite } => eprintln!("reading the package index of {suite}"),
        Event::Fetching { file, size } => eprintln!("fetching {file} ({} MB)", size / 1_000_000),
        Event::Unpacking { what } => eprintln!("unpacking {what}"),
        Event::MakingBuildRoot { suite, path } => {
            eprintln!("making a build root of {suite} in {}", path.display());
        }
        Event::Warning { message } => eprintln!("warning: {message}"),
        Event::Waiting { what } => eprintln!("waiting for another run: {what}"),
        _ => {}
    }
}

fn failed(error: &kernel_artifacts::Error) -> Error {
    use kernel_artifacts::Error::{Incomplete, ReleaseNotFound};
    let message = error.to_string();
    match error {
        ReleaseNotFound { offered, .. } | Incomplete { offered, .. } => {
            Error::Gone { message, offered: offered.clone() }
        }
        _ => Error::Artifacts(message),
    }
}

/// The newest release of a series and flavour of which everything can be had.
pub(crate) fn newest(series: &Series) -> Result<Kernel> {
    kernel_artifacts::newest(&series.kernel, &series.flavour, &settings_of(series), &tell)
        .map_err(|error| failed(&error))
}

/// Fetches and unpacks the kernel of a series ahead of its use. What goes wrong is told when it is used.
pub(crate) fn prefetch(series: &Series) {
    let Ok(kernel) = newest(series) else { return };
    let _ = (source(&kernel), vmlinux(&kernel), headers(&kernel), bootable(&kernel));
}

/// Removes what only a build needs: the source and the packages.
pub(crate) fn forget_sources(kernel: &Kernel, cache: &Path) -> Result<()> {
    let source = source(kernel)?;
    fs_err::remove_file(source.with_added_extension("stamp"))?;
    fs_err::remove_dir_all(source)?;
    for record in kernel.packages() {
        let file = cache.join("debs").join(record.package.file_name());
        if file.exists() {
            fs_err::remove_file(file)?;
        }
    }
    Ok(())
}

/// A release with its packages.
pub(crate) fn resolve(release: &str, settings: &Settings) -> Result<Kernel> {
    kernel_artifacts::resolve(release, settings, &tell).map_err(|error| failed(&error))
}

/// A cache that knows the release and has its packages, and nothing else.
pub(crate) fn copy_packages(kernel: &Kernel, from: &Path, to: &Path) -> Result<()> {
    let place = PathBuf::from("kernels").join(&kernel.release);
    fs_err::create_dir_all(to.join(&place))?;
    fs_err::create_dir_all(to.join("debs"))?;
    fs_err::copy(from.join(&place).join("lock.json"), to.join(&place).join("lock.json"))?;
    for record in kernel.packages() {
        let file = record.package.file_name();
        let source = from.join("debs").join(file);
        if !source.exists() {
            return Err(Error::Missing {
                what: format!("package {file}"),
                remedy: "build something for this kernel first: cargo xtask demo".to_owned(),
            });
        }
        let target = to.join("debs").join(file);
        // On another file system a link cannot be made.
        if fs_err::hard_link(&source, &target).is_err() {
            fs_err::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// The file of the package that a kernel is installed from.
pub(crate) fn image_package(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let record = kernel.packages().into_iter().find(|record| record.role == "image");
    let file = record.map(|record| cache.join("debs").join(record.package.file_name()));
    file.filter(|file| file.exists()).ok_or_else(|| Error::NotInImage {
        what: "package".to_owned(),
        release: kernel.release.clone(),
        root: cache.to_owned(),
    })
}

/// What QEMU needs of a kernel.
pub(crate) fn bootable(kernel: &Kernel) -> Result<guest::Kernel> {
    let missing = |what: &str| Error::NotInImage {
        what: what.to_owned(),
        release: kernel.release.clone(),
        root: kernel.work_dir.clone(),
    };
    let vmlinuz = kernel.image(&tell).map_err(|error| failed(&error))?.ok_or_else(|| missing("image"))?;
    let modules = kernel.modules(&tell).map_err(|error| failed(&error))?;
    let directory = modules
        .values()
        .find_map(|path| modules_directory(path))
        .ok_or_else(|| missing("modules directory"))?;
    Ok(guest::Kernel { release: kernel.release.clone(), vmlinuz, modules: directory })
}

/// Headers of the kernel for external modules.
pub(crate) fn headers(kernel: &Kernel) -> Result<PathBuf> {
    let headers = kernel.headers(&tell).map_err(|error| failed(&error))?;
    headers.map(|headers| headers.dir).ok_or_else(|| Error::NotInImage {
        what: "headers".to_owned(),
        release: kernel.release.clone(),
        root: kernel.work_dir.clone(),
    })
}

/// The unstripped vmlinux.
pub(crate) fn vmlinux(kernel: &Kernel) -> Result<PathBuf> {
    kernel.vmlinux(&tell).map_err(|error| failed(&error))
}

/// The text of the configuration.
pub(crate) fn config(kernel: &Kernel) -> Result<String> {
    Ok(fs_err::read_to_string(&kernel.config)?)
}

/// The files of all shipped modules that are not compressed.
pub(crate) fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let modules = kernel.modules(&tell).map_err(|error| failed(&error))?;
    Ok(modules.into_values().filter(|path| path.extension().is_some_and(|end| end == "ko")).collect())
}

/// The kernel's source; it must not be written.
pub(crate) fn source(kernel: &Kernel) -> Result<PathBuf> {
    kernel.source(&tell).map_err(|error| failed(&error))
}

/// The directory above a module's file that lists what is built in.
fn modules_directory(module: &Path) -> Option<PathBuf> {
    module.ancestors().find(|path| path.join("modules.builtin").is_file()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_above_a_module() {
        let root = tempfile::tempdir().unwrap();
        let module = root.path().join("kernel/fs/x.ko");
        assert_eq!(modules_directory(&module), None);
        fs_err::write(root.path().join("modules.builtin"), "").unwrap();
        assert_eq!(modules_directory(&module), Some(root.path().to_owned()));
    }
}
