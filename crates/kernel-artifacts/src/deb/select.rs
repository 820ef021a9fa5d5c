//! Which packages make up a release.
//!
//! Nothing here knows a release: names are put together from the release's name, and the rest follows from dependencies.

use serde::{Deserialize, Serialize};

use super::index::{Index, Package};
use super::version;
use crate::error::{Error, Result};

/// The packages of one release, all of one source version (but for kbuild where that is not versioned).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// What `uname -r` prints.
    pub release: String,
    /// Version of the packages.
    pub version: String,
    /// Has the bootable image.
    pub image: Package,
    /// Has the configuration and System.map.
    pub base: Package,
    /// Has the modules.
    pub modules: Package,
    /// Has the flavour's generated headers and Module.symvers.
    pub headers: Package,
    /// Has the headers that all flavours share.
    pub common: Package,
    /// Has kbuild's programs.
    pub kbuild: Package,
    /// Has the unstripped vmlinux and the modules' debug files.
    pub debug: Package,
    /// Has the source.
    pub source: Package,
}

impl Selection {
    /// Every package once, by role, in a fixed order.
    pub fn packages(&self) -> Vec<(&'static str, &Package)> {
        vec![
            ("source", &self.source),
            ("base", &self.base),
            ("image", &self.image),
            ("modules", &self.modules),
            ("headers", &self.headers),
            ("common", &self.common),
            ("kbuild", &self.kbuild),
            ("debug", &self.debug),
        ]
    }
}

/// A release as the headers package shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate<'a> {
    release: &'a str,
    flavour: &'a str,
    headers: &'a Package,
    common: &'a str,
}

/// Finds the packages of a release.
pub fn release(index: &Index, suites: &[String], release: &str) -> Result<Selection> {
    let headers = index.named(&format!("linux-headers-{release}"));
    let mut first: Option<(String, Vec<String>)> = None;
    for headers in headers {
        match select(index, release, headers) {
            Ok(selection) => return Ok(selection),
            Err(missing) => first = first.or(Some((headers.version.clone(), missing))),
        }
    }
    let offered = offered_like(index, release);
    let suites = suites.to_vec();
    if let Some((version, missing)) = first {
        return Err(Error::Incomplete { release: release.to_owned(), version, suites, missing, offered });
    }
    // The image alone is often kept longer than what belongs to it.
    if let Some(image) = index.named(&format!("linux-image-{release}")).first() {
        return Err(Error::Incomplete {
            release: release.to_owned(),
            version: image.version.clone(),
            suites,
            missing: vec![format!("linux-headers-{release}")],
            offered,
        });
    }
    Err(Error::ReleaseNotFound { release: release.to_owned(), suites, offered })
}

/// Complete releases of a series (`6.1`) and flavour (`cloud-amd64`), newest first; at least one, or an error.
pub fn of_series(index: &Index, suites: &[String], series: &str, flavour: &str) -> Result<Vec<String>> {
    let mut candidates = candidates(index);
    candidates.retain(|candidate| candidate.flavour == flavour);
    candidates.sort_by(|a, b| version::compare(&b.headers.version, &a.headers.version));
    candidates.retain(|candidate| select(index, candidate.release, candidate.headers).is_ok());
    let names = |keep: &dyn Fn(&str) -> bool| {
        let mut names: Vec<String> = Vec::new();
        for candidate in candidates.iter().filter(|candidate| keep(candidate.release)) {
            if !names.iter().any(|name| name == candidate.release) {
                names.push(candidate.release.to_owned());
            }
        }
        names
    };
    let found = names(&|release| in_series(release, series));
    if !found.is_empty() {
        return Ok(found);
    }
    Err(Error::SeriesNotFound {
        series: series.to_owned(),
        flavour: flavour.to_owned(),
        suites: suites.to_vec(),
        offered: names(&|_| true),
    })
}

/// Complete releases that the index offers, newest first.
pub fn complete_releases(index: &Index) -> Vec<Selection> {
    let mut candidates = candidates(index);
    candidates.sort_by(|a, b| version::compare(&b.headers.version, &a.headers.version));
    candidates.iter().filter_map(|c| select(index, c.release, c.headers).ok()).collect()
}

/// Every flavour's headers package depends on the headers all flavours share; their name tells where the flavour starts.
fn candidates(index: &Index) -> Vec<Candidate<'_>> {
    let mut found = Vec::new();
    for headers in index.packages() {
        let Some(release) = headers.name.strip_prefix("linux-headers-") else { continue };
        let common = headers.dependencies().find_map(|dependency| {
            let rest = dependency.name.strip_prefix("linux-headers-")?;
            // A featureset has headers of its own: linux-headers-6.1.0-1-common-rt.
            let (abi, _) = rest.split_once("-common")?;
            Some((dependency.name.as_str(), release.strip_prefix(abi)?.strip_prefix('-')?))
        });
        if let Some((common, flavour)) = common {
            found.push(Candidate { release, flavour, headers, common });
        }
    }
    found
}

fn select(index: &Index, release: &str, headers: &Package) -> Result<Selection, Vec<String>> {
    let version = headers.version.as_str();
    let mut missing = Vec::new();
    let mut need = |found: Option<&Package>, name: String| {
        if found.is_none() {
            missing.push(format!("{name} ({version})"));
        }
        found.cloned()
    };
    let exact = |name: String| index.exact(&name, version);

    // Since 7.x what was one image package is three.
    let split = exact(format!("linux-base-{release}"));
    let image = if split.is_some() {
        exact(format!("linux-binary-{release}")).or_else(|| exact(format!("linux-binary-unsigned-{release}")))
    } else {
        exact(format!("linux-image-{release}")).or_else(|| exact(format!("linux-image-{release}-unsigned")))
    };
    let image = need(image, format!("linux-image-{release}"));
    let base = split.cloned().or_else(|| image.clone());
    let modules = if split.is_some() {
        need(exact(format!("linux-modules-{release}")), format!("linux-modules-{release}"))
    } else {
        image.clone()
    };
    let debug = need(exact(format!("linux-image-{release}-dbg")), format!("linux-image-{release}-dbg"));
    let source =
        index.packages().iter().find(|package| package.version == version && is_source(&package.name));
    let source = need(source, "linux-source".into());
    let common_name = candidates_common(headers);
    let common = need(
        common_name.and_then(|name| index.exact(name, version)),
        common_name.unwrap_or("linux-headers-common").to_owned(),
    );
    let (kbuild, kbuild_name) = select_kbuild(index, headers);
    let kbuild = need(kbuild, kbuild_name);
    match (image, base, modules, debug, source, common, kbuild) {
        (Some(image), Some(base), Some(modules), Some(debug), Some(source), Some(common), Some(kbuild)) => {
            Ok(Selection {
                release: release.to_owned(),
                version: version.to_owned(),
                image,
                base,
                modules,
                headers: headers.clone(),
                common,
                kbuild,
                debug,
                source,
            })
        }
        _ => Err(missing),
    }
}

fn candidates_common(headers: &Package) -> Option<&str> {
    headers
        .dependencies()
        .map(|dependency| dependency.name.as_str())
        .find(|name| name.starts_with("linux-headers-") && name.contains("-common"))
}

/// kbuild of the headers' own version; where the package is shared by releases, the newest that satisfies the headers.
fn select_kbuild<'a>(index: &'a Index, headers: &Package) -> (Option<&'a Package>, String) {
    let Some(dependency) = headers.dependencies().find(|d| d.name.starts_with("linux-kbuild-")) else {
        return (None, "linux-kbuild".to_owned());
    };
    let found = index
        .exact(&dependency.name, &headers.version)
        .filter(|kbuild| is_own_kbuild(&kbuild.name, &headers.name))
        .or_else(|| index.named(&dependency.name).into_iter().find(|package| dependency.is_met_by(package)));
    (found, dependency.name.clone())
}

/// `linux-kbuild-6.12.95+deb13` belongs to `linux-headers-6.12.95+deb13-amd64`; `linux-kbuild-6.1` to no release alone.
fn is_own_kbuild(kbuild: &str, headers: &str) -> bool {
    kbuild
        .strip_prefix("linux-kbuild-")
        .and_then(|abi| headers.strip_prefix("linux-headers-")?.strip_prefix(abi))
        .is_some_and(|flavour| flavour.starts_with('-'))
}

/// `linux-source-6.1`, and neither `linux-source` nor a flavour of it.
fn is_source(name: &str) -> bool {
    name.strip_prefix("linux-source-")
        .is_some_and(|series| !series.is_empty() && series.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Whether the release belongs to the series: `6.1.0-56-amd64` and `6.1` do, `6.12.95` and `6.1` do not.
fn in_series(release: &str, series: &str) -> bool {
    release.strip_prefix(series).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+', '~']))
}

/// Complete releases of the series and flavour of one that was not found; of any series in that flavour where there are none.
fn offered_like(index: &Index, release: &str) -> Vec<String> {
    let series_end = release
        .char_indices()
        .filter(|(_, c)| !c.is_ascii_digit())
        .nth(1)
        .map_or(release.len(), |(at, _)| at);
    let series = &release[..series_end];
    let all = complete_releases(index);
    let flavour_of = |selection: &Selection| {
        candidates_common(&selection.headers)
            .and_then(|common| common.strip_prefix("linux-headers-")?.split_once("-common"))
            .and_then(|(abi, _)| selection.release.strip_prefix(abi)?.strip_prefix('-').map(str::to_owned))
    };
    let same_flavour = |selection: &&Selection| {
        flavour_of(selection).is_some_and(|flavour| {
            // `cloud-amd64` ends in `amd64` too; the longest flavour that fits is the release's own.
            let own = all
                .iter()
                .filter_map(flavour_of)
                .filter(|f| release.ends_with(&format!("-{f}")))
                .max_by_key(String::len);
            own.is_none_or(|own| own == flavour)
        })
    };
    let alike: Vec<&Selection> = all.iter().filter(same_flavour).collect();
    let mut names: Vec<String> = Vec::new();
    for selection in alike.iter().filter(|selection| in_series(&selection.release, series)) {
        if !names.contains(&selection.release) {
            names.push(selection.release.clone());
        }
    }
    if !names.is_empty() {
        return names;
    }
    // Of other series the newest is enough.
    let mut seen: Vec<(&str, Option<String>)> = Vec::new();
    for selection in alike {
        let key = (selection.source.name.as_str(), flavour_of(selection));
        if !seen.contains(&key) {
            seen.push(key);
            names.push(selection.release.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::stanza;
    use super::*;

    fn index(stanzas: &[(&str, &str, &str)]) -> Index {
        let text: String =
            stanzas.iter().map(|(name, version, depends)| stanza(name, version, depends)).collect();
        Index::read("s", text.as_bytes()).unwrap()
    }

    /// A complete release in the layout of 6.x.
    fn whole(abi: &str, version: &str) -> Vec<(String, String, String)> {
        let release = format!("{abi}-cloud-amd64");
        vec![
            (format!("linux-image-{release}"), version.into(), String::new()),
            (
                format!("linux-headers-{release}"),
                version.into(),
                format!("linux-headers-{abi}-common (= {version}), linux-kbuild-6.1 (>= {version})"),
            ),
            (format!("linux-headers-{abi}-common"), version.into(), String::new()),
            (format!("linux-image-{release}-dbg"), version.into(), String::new()),
            ("linux-source-6.1".into(), version.into(), String::new()),
            ("linux-kbuild-6.1".into(), version.into(), String::new()),
        ]
    }

    fn index_of(all: &[(String, String, String)]) -> Index {
        let refs: Vec<_> = all.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        index(&refs)
    }

    #[test]
    fn a_release_of_one_version_and_the_newest_shared_kbuild() {
        let mut all = whole("6.1.0-9", "6.1.170-3");
        all.extend(whole("6.1.0-10", "6.1.176-1"));
        let index = index_of(&all);
        let selection = release(&index, &[], "6.1.0-9-cloud-amd64").unwrap();
        assert_eq!(selection.source.version, "6.1.170-3");
        assert_eq!(selection.kbuild.version, "6.1.176-1");
        assert_eq!(selection.base, selection.image);
        assert_eq!(
            of_series(&index, &[], "6.1", "cloud-amd64").unwrap(),
            ["6.1.0-10-cloud-amd64", "6.1.0-9-cloud-amd64"]
        );
    }

    #[test]
    fn newest_skips_what_is_not_complete() {
        let mut all = whole("6.1.0-9", "6.1.170-3");
        let mut newer = whole("6.1.0-10", "6.1.176-1");
        newer.remove(3);
        all.extend(newer);
        let index = index_of(&all);
        assert_eq!(of_series(&index, &[], "6.1", "cloud-amd64").unwrap(), ["6.1.0-9-cloud-amd64"]);
        let error = release(&index, &["s".into()], "6.1.0-10-cloud-amd64").unwrap_err().to_string();
        assert!(error.contains("linux-image-6.1.0-10-cloud-amd64-dbg (6.1.176-1)"), "{error}");
        assert!(error.contains("offered are 6.1.0-9-cloud-amd64"), "{error}");
    }

    #[test]
    fn unsigned_image_serves_where_no_signed_one_is() {
        let mut all = whole("6.1.0-9", "6.1.170-3");
        all[0].0.push_str("-unsigned");
        let selection = release(&index_of(&all), &[], "6.1.0-9-cloud-amd64").unwrap();
        assert!(selection.image.name.ends_with("-unsigned"));
    }

    #[test]
    fn split_images() {
        let (v, r) = ("7.2.12-1~bpo13+1", "7.2.12+deb13-cloud-amd64");
        let names = |parts: &[&str]| parts.iter().map(|p| format!("linux-{p}{r}")).collect::<Vec<_>>();
        let mut all: Vec<_> = names(&["image-", "base-", "modules-", "binary-unsigned-"])
            .into_iter()
            .map(|name| (name, v.to_owned(), String::new()))
            .collect();
        all.push((
            format!("linux-headers-{r}"),
            v.into(),
            format!("linux-headers-7.2.12+deb13-common (= {v}), linux-kbuild-7.2.12+deb13"),
        ));
        for name in ["linux-headers-7.2.12+deb13-common", "linux-kbuild-7.2.12+deb13", "linux-source-7.2"] {
            all.push((name.into(), v.into(), String::new()));
        }
        all.push((format!("linux-image-{r}-dbg"), v.into(), String::new()));
        let selection = release(&index_of(&all), &[], r).unwrap();
        assert_eq!(selection.image.name, format!("linux-binary-unsigned-{r}"));
        assert_eq!(selection.base.name, format!("linux-base-{r}"));
        assert_eq!(selection.modules.name, format!("linux-modules-{r}"));
        all.push((format!("linux-binary-{r}"), v.into(), String::new()));
        assert_eq!(release(&index_of(&all), &[], r).unwrap().image.name, format!("linux-binary-{r}"));
    }

    #[test]
    fn a_release_that_is_nowhere_names_those_that_are() {
        let index = index_of(&whole("6.1.0-9", "6.1.170-3"));
        for wanted in ["6.1.0-77-cloud-amd64", "5.4.1-custom"] {
            let error = release(&index, &["a".into(), "b".into()], wanted).unwrap_err();
            assert!(matches!(error, Error::ReleaseNotFound { .. }));
            let text = error.to_string();
            assert!(text.contains("suites a, b") && text.contains("6.1.0-9-cloud-amd64"), "{text}");
        }
    }

    #[test]
    fn series_are_whole_numbers() {
        assert!(in_series("6.1.0-56-amd64", "6.1"));
        assert!(!in_series("6.12.95+deb12-amd64", "6.1"));
        assert!(
            is_source("linux-source-6.1") && !is_source("linux-source") && !is_source("linux-source-6.1-x")
        );
    }

    #[test]
    fn flavours_are_told_apart() {
        let mut all = whole("6.1.0-9", "6.1.170-3");
        for (name, _, depends) in &mut all {
            *name = name.replace("cloud-amd64", "amd64");
            *depends = depends.replace("cloud-amd64", "amd64");
        }
        all.extend(whole("6.1.0-9", "6.1.170-3"));
        let index = index_of(&all);
        assert_eq!(of_series(&index, &[], "6.1", "amd64").unwrap(), ["6.1.0-9-amd64"]);
        let error = release(&index, &[], "6.1.0-7-amd64").unwrap_err().to_string();
        assert!(error.contains("6.1.0-9-amd64") && !error.contains("cloud"), "{error}");
    }
}
