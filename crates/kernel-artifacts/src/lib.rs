//! A kernel release and where its parts come from.
//!
//! * [`resolve`] finds a release of Debian: from the lock file in the cache, else from the package index, and fetches its
//!   packages with an apt whose whole state lies in the cache. [`newest`] finds the newest release of a series that is
//!   complete.
//! * [`open`] takes a source tree, configuration and vmlinux of the user's own instead.
//! * The result is a [`Kernel`], whose files are unpacked when first asked for.
//!
//! Nothing is installed, nothing of the host's is written, and nothing is printed: progress goes to a callback as
//! [`Event`]s. A cache entry either exists completely or is made again, so a run may be killed at any moment, and two runs
//! may share a cache.

mod build_root;
pub mod compiler;
pub mod deb;
pub mod directory;
pub mod error;
pub mod event;
pub mod kernel;
mod run;
pub mod settings;
pub mod store;

use std::path::Path;

pub use compiler::Compiler;
pub use deb::headers::Headers;
pub use directory::Sources;
pub use error::{Error, Result};
pub use event::{Event, Events};
pub use kernel::{Kernel, Origin, PackageRecord};
pub use settings::{BuildRootChoice, FileSettings, Settings};

use directory::DirectoryKernel;
use store::Store;

/// Finds a release (what `uname -r` prints) and fetches what belongs to it.
pub fn resolve(release: &str, settings: &Settings, events: Events) -> Result<Kernel> {
    let store = Store::open(&settings.cache_dir)?;
    let found = deb::resolve(release, settings, &store, events)?;
    let config = found.config(events)?;
    let wanted = compiler::wanted(&config)?;
    let suite = found.selection().headers.suite.clone();
    let needs = found.selection().kbuild.clone();
    let (build_root, compiler) =
        build_root::choose(&wanted, Some((&suite, &needs)), settings, &store, events)?;
    Ok(Kernel {
        release: release.to_owned(),
        architecture: found.selection().headers.architecture.clone(),
        config,
        compiler,
        wanted_compiler: wanted,
        build_root,
        work_dir: found.work_dir(),
        identity: found.identity(),
        origin: Origin::Debian(Box::new(found)),
    })
}

/// The newest release of a series (`6.1`) and flavour (`cloud-amd64`) of which everything is offered in one version and
/// can be fetched. A mirror may lack files that its index names; then the next older release is taken, with a warning.
pub fn newest(series: &str, flavour: &str, settings: &Settings, events: Events) -> Result<Kernel> {
    let releases = releases(series, flavour, settings, events)?;
    let found = first_fetched(&releases, |release| resolve(release, settings, events), events)?;
    found.ok_or_else(|| Error::SeriesNotFound {
        series: series.to_owned(),
        flavour: flavour.to_owned(),
        suites: settings.suites.clone(),
        offered: Vec::new(),
    })
}

/// The first release whose packages can be fetched; where there is none, the error of the first.
fn first_fetched<T>(
    releases: &[String],
    mut resolve: impl FnMut(&str) -> Result<T>,
    events: Events,
) -> Result<Option<T>> {
    let mut first = None;
    for release in releases {
        match resolve(release) {
            Err(error @ Error::NotFetched { .. }) => {
                events(Event::Warning { message: format!("{release} is passed over: {error}") });
                first.get_or_insert(error);
            }
            result => return result.map(Some),
        }
    }
    first.map_or(Ok(None), Err)
}

/// Complete releases of a series and flavour, newest first.
pub fn releases(series: &str, flavour: &str, settings: &Settings, events: Events) -> Result<Vec<String>> {
    let store = Store::open(&settings.cache_dir)?;
    deb::of_series(series, flavour, settings, &store, events)
}

/// All complete releases that the suites offer, newest first.
pub fn offered(settings: &Settings, events: Events) -> Result<Vec<String>> {
    let store = Store::open(&settings.cache_dir)?;
    deb::offered(settings, &store, events)
}

/// A kernel of the user's own: source tree, configuration and vmlinux. None of them is written.
pub fn open(
    source: &Path,
    config: &Path,
    vmlinux: &Path,
    settings: &Settings,
    events: Events,
) -> Result<Kernel> {
    let store = Store::open(&settings.cache_dir)?;
    let mut found = DirectoryKernel::open(source, config, vmlinux)?;
    let wanted = compiler::wanted(&found.config)?;
    let (mut build_root, compiler) = build_root::choose(&wanted, None, settings, &store, events)?;
    // Where the links of the view lead.
    build_root.bind(found.tree.clone());
    // Two kernels may have one release, so the directory is named after the files.
    let work_dir = store.path("kernels").join(&found.release).join(format!("own-{}", found.place()));
    let identity = found.see_sources(&store, &work_dir.join("source"), events)?;
    Ok(Kernel {
        release: found.release.clone(),
        architecture: deb::architecture(settings).unwrap_or_else(|_| std::env::consts::ARCH.to_owned()),
        config: found.config.clone(),
        compiler,
        wanted_compiler: wanted,
        build_root,
        work_dir,
        identity,
        origin: Origin::Directory(found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_fetched(release: &str) -> Error {
        Error::NotFetched { file: format!("{release}.deb"), suite: "s".into(), output: "404".into() }
    }

    #[test]
    fn what_the_mirror_lacks_is_passed_over_and_said() {
        let said = std::sync::Mutex::new(Vec::new());
        let events = |event: Event| {
            if let Event::Warning { message } = event {
                said.lock().unwrap().push(message);
            }
        };
        let releases = ["3", "2", "1"].map(String::from);
        let resolve = |release: &str| match release {
            "3" => Err(not_fetched(release)),
            release => Ok(release.to_owned()),
        };
        assert_eq!(first_fetched(&releases, resolve, &events).unwrap().as_deref(), Some("2"));
        let said = said.into_inner().unwrap();
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("3 is passed over: 3.deb"), "{said:?}");
    }

    #[test]
    fn other_errors_and_a_mirror_without_anything_are_errors() {
        let quiet = |_: Event| {};
        let releases = ["2", "1"].map(String::from);
        let none: Result<Option<()>> = first_fetched(&releases, |release| Err(not_fetched(release)), &quiet);
        assert!(matches!(none, Err(Error::NotFetched { file, .. }) if file == "2.deb"));
        let mut asked = 0;
        let offline: Result<Option<()>> = first_fetched(
            &releases,
            |release| {
                asked += 1;
                Err(Error::BadRelease { release: release.to_owned() })
            },
            &quiet,
        );
        assert!(matches!(offline, Err(Error::BadRelease { .. })) && asked == 1);
        assert!(first_fetched(&[], |_| Ok(()), &quiet).unwrap().is_none());
    }
}
