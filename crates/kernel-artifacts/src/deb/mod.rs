//! Debian: packages of a release, fetched with apt into the cache without installing anything.

pub(crate) mod apt;
mod files;
pub mod headers;
pub mod index;
mod lock;
pub mod select;
pub(crate) mod sources;
mod unpack;
pub mod version;

use std::path::{Path, PathBuf};

use self::apt::{Apt, Freshness};
use self::index::{Index, Package};
use self::select::Selection;
use self::sources::HostSources;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::run::Program;
use crate::settings::Settings;
use crate::store::Store;

pub use self::files::DebKernel;

/// Finds a release: from the lock file, else from the package index, and fetches its packages.
pub(crate) fn resolve(
    release: &str,
    settings: &Settings,
    store: &Store,
    events: Events,
) -> Result<DebKernel> {
    if !index::is_safe(release) {
        return Err(Error::BadRelease { release: release.to_owned() });
    }
    let dir = kernel_dir(store, release);
    let known = if settings.refresh && !settings.offline {
        None
    } else {
        read_lock(&dir, release, settings, events)?
    };
    let selection = match known {
        Some(selection) => selection,
        None => find(release, settings, store, events)?,
    };
    let kernel = DebKernel::new(store.clone(), settings.clone(), selection);
    kernel.fetch_all(events)?;
    Ok(kernel)
}

/// A lock file that cannot be read heals itself where the network may be used.
fn read_lock(dir: &Path, release: &str, settings: &Settings, events: Events) -> Result<Option<Selection>> {
    match lock::read(dir, release) {
        Err(error) if !settings.offline => {
            events(Event::Warning { message: format!("{error}; the release is looked up again") });
            Ok(None)
        }
        other => other,
    }
}

/// A release that a recent index does not have may have appeared since, so the mirrors are asked before it is refused.
fn find(release: &str, settings: &Settings, store: &Store, events: Events) -> Result<Selection> {
    let attempts: &[Freshness] = match (settings.offline, settings.refresh) {
        (true, _) => &[Freshness::Offline],
        (false, true) => &[Freshness::Now],
        (false, false) => &[Freshness::Recent, Freshness::Now],
    };
    let mut result =
        Err(Error::ReleaseNotFound { release: release.to_owned(), suites: vec![], offered: vec![] });
    for &freshness in attempts {
        let (index, suites) = index(settings, store, freshness, events)?;
        result = select::release(&index, &suites, release);
        if result.is_ok() {
            break;
        }
    }
    let selection = result?;
    remember(&selection, store, events)?;
    Ok(selection)
}

/// Complete releases of a series and flavour, newest first.
pub(crate) fn of_series(
    series: &str,
    flavour: &str,
    settings: &Settings,
    store: &Store,
    events: Events,
) -> Result<Vec<String>> {
    let freshness = match (settings.offline, settings.refresh) {
        (true, _) => Freshness::Offline,
        (false, true) => Freshness::Now,
        (false, false) => Freshness::Recent,
    };
    let (index, suites) = index(settings, store, freshness, events)?;
    select::of_series(&index, &suites, series, flavour)
}

/// All complete releases on offer, newest first.
pub(crate) fn offered(settings: &Settings, store: &Store, events: Events) -> Result<Vec<String>> {
    let freshness = if settings.offline { Freshness::Offline } else { Freshness::Recent };
    let (index, _) = index(settings, store, freshness, events)?;
    Ok(select::complete_releases(&index).into_iter().map(|selection| selection.release).collect())
}

fn remember(selection: &Selection, store: &Store, events: Events) -> Result<()> {
    let dir = kernel_dir(store, &selection.release);
    let _lock = store.lock(&dir, events)?;
    lock::write(&dir, selection)?;
    events(Event::Resolved { release: selection.release.clone(), version: selection.version.clone() });
    Ok(())
}

fn index(
    settings: &Settings,
    store: &Store,
    freshness: Freshness,
    events: Events,
) -> Result<(Index, Vec<String>)> {
    let architecture = architecture(settings)?;
    let suites = HostSources::read(Path::new("/")).suites(settings)?;
    let mut index = Index::default();
    for suite in &suites {
        index.extend(Apt::new(store, suite, &architecture).index(freshness, events)?);
    }
    Ok((index, suites.into_iter().map(|suite| suite.name).collect()))
}

pub(crate) fn architecture(settings: &Settings) -> Result<String> {
    if let Some(architecture) = &settings.architecture {
        return Ok(architecture.clone());
    }
    let text =
        Program::new("dpkg", "dpkg", "learn the host's architecture").arg("--print-architecture").run()?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Everything of one release that is not shared with others.
pub(crate) fn kernel_dir(store: &Store, release: &str) -> PathBuf {
    store.path("kernels").join(release)
}

/// Fetches packages that are not in the cache.
fn fetch(packages: &[&Package], settings: &Settings, store: &Store, events: Events) -> Result<()> {
    let dir = store.path("debs");
    let absent = |packages: &[&Package]| -> Vec<Package> {
        let mut absent: Vec<Package> = Vec::new();
        for package in packages {
            if !is_fetched(&dir, package) && !absent.contains(package) {
                absent.push((*package).clone());
            }
        }
        absent
    };
    if absent(packages).is_empty() {
        return Ok(());
    }
    let _lock = store.lock(&dir, events)?;
    // Another run may have fetched them while this one waited.
    let absent = absent(packages);
    if let (Some(package), true) = (absent.first(), settings.offline) {
        return Err(Error::Offline { what: format!("package {}", package.file_name()) });
    }
    let architecture = architecture(settings)?;
    let host = HostSources::read(Path::new("/"));
    let mut suites: Vec<&str> = absent.iter().map(|package| package.suite.as_str()).collect();
    suites.sort_unstable();
    suites.dedup();
    for name in suites {
        let suite = host.suites(settings)?.into_iter().find(|suite| suite.name == name);
        let suite = suite.map_or_else(|| host.suite(name, settings), Ok)?;
        let of_suite: Vec<&Package> = absent.iter().filter(|package| package.suite == name).collect();
        Apt::new(store, &suite, &architecture).download(&of_suite, &dir, events)?;
    }
    Ok(())
}

/// Hash of a file.
fn sha256(path: &Path) -> Result<String> {
    let text = Program::new("sha256sum", "coreutils", "check a package").arg("--").arg(path).run()?;
    let text = String::from_utf8_lossy(&text);
    // A name with special characters makes the line start with a backslash.
    Ok(text.split_whitespace().next().unwrap_or_default().trim_start_matches('\\').to_owned())
}

/// apt checked the content when it was fetched; the size tells whether it is still whole.
fn is_fetched(dir: &Path, package: &Package) -> bool {
    fs_err::metadata(dir.join(package.file_name())).is_ok_and(|meta| meta.len() == package.size)
}
