//! Package files: one description, two formats.
//!
//! A [`Package`] says what a package holds and needs, and what is run when it comes and goes; [`deb::write`]
//! and [`rpm::write`] make the bytes. [`patch`] describes the package of a patch module. The same description
//! gives the same bytes. Nothing here does input or output.

pub mod deb;
pub mod patch;
pub mod rpm;

use std::collections::BTreeMap;

use thiserror::Error;

/// Why no package can be made.
#[derive(Debug, Error)]
pub enum PackageError {
    /// The name, the version or a path has characters that a format does not allow.
    #[error("{what} {text:?} cannot be one of a package")]
    Unusable {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The archive cannot be written, which happens with paths that are too long.
    #[error("the archive cannot be written: {0}")]
    Archive(#[from] std::io::Error),
    /// The rpm library refuses.
    #[error("the rpm cannot be written: {0}")]
    Rpm(String),
}

/// Another package that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its name in the world of deb.
    pub deb: Option<String>,
    /// Its name, or the name of what it provides, in the world of rpm, and the exact version.
    pub rpm: Option<(String, Option<String>)>,
}

impl Needs {
    /// A package that has one name everywhere.
    pub fn everywhere(name: &str) -> Needs {
        Needs { deb: Some(name.to_owned()), rpm: Some((name.to_owned(), None)) }
    }

    /// A package of Debian, possibly with alternatives and versions.
    pub fn deb(text: &str) -> Needs {
        Needs { deb: Some(text.to_owned()), rpm: None }
    }

    /// A package of the rpm world.
    pub fn rpm(name: &str) -> Needs {
        Needs { deb: None, rpm: Some((name.to_owned(), None)) }
    }
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its permissions.
    pub mode: u32,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// What is run, each a text for `/bin/sh`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// After a new installation and after an upgrade.
    pub installed: Option<String>,
    /// Before the removal, not before an upgrade.
    pub removing: Option<String>,
    /// After the removal, not after an upgrade.
    pub removed: Option<String>,
}

/// A package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Version of what is in it.
    pub version: String,
    /// Version of the packaging.
    pub release: String,
    /// The machine as `uname -m` prints it; none for what runs on all.
    pub machine: Option<String>,
    /// One line.
    pub summary: String,
    /// Lines that tell more.
    pub description: String,
    /// What it needs.
    pub needs: Vec<Needs>,
    /// What is useful with it.
    pub recommends: Vec<Needs>,
    /// The files by absolute path.
    pub files: BTreeMap<String, File>,
    /// What is run.
    pub scripts: Scripts,
    /// Time of all files, seconds since 1970.
    pub time: u32,
}

impl Package {
    /// Adds a file.
    pub fn add(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), File { mode, content: content.into() });
    }

    fn check(&self) -> Result<(), PackageError> {
        let unusable = |what, text: &str| Err(PackageError::Unusable { what, text: text.to_owned() });
        let word = |text: &str, more: &str| {
            text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
        };
        if !word(&self.name, "+-._") {
            return unusable("name", &self.name);
        }
        for version in [&self.version, &self.release] {
            // No dash: it divides version and release.
            if !word(version, "+.~_") {
                return unusable("version", version);
            }
        }
        for path in self.files.keys() {
            let clean = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
            if !path.starts_with('/') || !clean || path.contains(char::is_control) {
                return unusable("path", path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package with everything.
    pub(crate) fn example() -> Package {
        let mut package = Package {
            name: "kpatch-patch-x".into(),
            version: "1.0".into(),
            release: "1".into(),
            machine: Some("x86_64".into()),
            summary: "One line".into(),
            description: "More\n\nlines".into(),
            needs: vec![
                Needs::everywhere("kpatch"),
                Needs::deb("linux-image-x (= 6)"),
                Needs { deb: None, rpm: Some(("kernel-uname-r".into(), Some("6".into()))) },
            ],
            scripts: Scripts { installed: Some("echo here\n".into()), ..Scripts::default() },
            ..Package::default()
        };
        package.add("/usr/sbin/kpatch", 0o755, "program");
        package.add(format!("/var/lib/kpatch/{}/x.ko", "r".repeat(100)), 0o644, "module");
        package
    }

    #[test]
    fn names_that_would_break_a_format_are_refused() {
        let good = Package {
            name: "kpatch".into(),
            version: "1.0".into(),
            release: "1".into(),
            ..Package::default()
        };
        assert!(good.check().is_ok());
        for (name, version, path) in
            [("", "1", "/a"), ("a b", "1", "/a"), ("a", "1-2", "/a"), ("a", "1", "a"), ("a", "1", "/../a")]
        {
            let mut bad = Package { name: name.into(), version: version.into(), ..good.clone() };
            bad.add(path, 0o644, "");
            assert!(bad.check().is_err(), "{name} {version} {path}");
        }
    }
}
