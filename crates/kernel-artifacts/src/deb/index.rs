//! Kernel packages that a suite offers, read from apt's `Packages` files.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::version;

/// One package of one version in one suite, as the signed index describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// Architecture of the package, or `all`.
    pub architecture: String,
    /// The suite whose index names it.
    pub suite: String,
    /// Path of the file below the mirror.
    pub filename: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// The `Depends` field.
    pub depends: Vec<Vec<Dependency>>,
}

/// One alternative of a dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Package name, without architecture qualifier.
    pub name: String,
    /// Relation and version, such as `=` and `6.1.192-2`.
    pub constraint: Option<(String, String)>,
}

impl Dependency {
    /// Whether a package of that name and version meets this dependency.
    pub fn is_met_by(&self, package: &Package) -> bool {
        self.name == package.name
            && self
                .constraint
                .as_ref()
                .is_none_or(|(relation, wanted)| version::satisfies(&package.version, relation, wanted))
    }
}

impl Package {
    /// Name of the file on its own.
    pub fn file_name(&self) -> &str {
        self.filename.rsplit('/').next().unwrap_or(&self.filename)
    }

    /// All alternatives of all dependencies.
    pub fn dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.depends.iter().flatten()
    }
}

/// Kernel packages of any number of suites.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Index {
    packages: Vec<Package>,
}

impl Index {
    /// Reads one `Packages` file, keeping what belongs to kernels.
    pub fn read(suite: &str, input: impl BufRead) -> std::io::Result<Self> {
        let mut packages = Vec::new();
        let mut stanza = Stanza::default();
        for line in input.split(b'\n') {
            let line = line?;
            if line.is_empty() {
                packages.extend(std::mem::take(&mut stanza).finish(suite));
            } else {
                stanza.line(&line);
            }
        }
        packages.extend(stanza.finish(suite));
        Ok(Index { packages })
    }

    /// Adds the packages of another suite; a file already offered by an earlier suite is kept once.
    pub fn extend(&mut self, other: Index) {
        for package in other.packages {
            let known = self.packages.iter().any(|p| {
                p.name == package.name
                    && p.version == package.version
                    && p.architecture == package.architecture
            });
            if !known {
                self.packages.push(package);
            }
        }
    }

    /// All packages.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// All versions of the package of that name, newest first.
    pub fn named(&self, name: &str) -> Vec<&Package> {
        let mut found: Vec<_> = self.packages.iter().filter(|p| p.name == name).collect();
        found.sort_by(|a, b| version::compare(&b.version, &a.version));
        found
    }

    /// The package of exactly that name and version.
    pub fn exact(&self, name: &str, version: &str) -> Option<&Package> {
        self.packages.iter().find(|p| p.name == name && p.version == version)
    }
}

#[derive(Default)]
struct Stanza {
    relevant: Option<bool>,
    name: String,
    version: String,
    architecture: String,
    filename: String,
    size: u64,
    sha256: String,
    depends: String,
}

impl Stanza {
    fn line(&mut self, line: &[u8]) {
        // A stanza starts with its name, so most of an index is skipped after one look.
        if self.relevant == Some(false) {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else { return };
        let Some((field, value)) = line.split_once(':') else { return };
        let value = value.trim();
        match field {
            "Package" => {
                self.relevant = Some(value.starts_with("linux-"));
                value.clone_into(&mut self.name);
            }
            "Version" => value.clone_into(&mut self.version),
            "Architecture" => value.clone_into(&mut self.architecture),
            "Filename" => value.clone_into(&mut self.filename),
            "Size" => self.size = value.parse().unwrap_or(0),
            "SHA256" => value.clone_into(&mut self.sha256),
            "Depends" => value.clone_into(&mut self.depends),
            _ => {}
        }
    }

    fn finish(self, suite: &str) -> Option<Package> {
        let complete = self.relevant == Some(true)
            && is_safe(&self.name)
            && is_safe(&self.version)
            && is_safe(&self.architecture)
            && !self.filename.is_empty()
            && self.sha256.len() == 64;
        complete.then(|| Package {
            name: self.name,
            version: self.version,
            architecture: self.architecture,
            suite: suite.to_owned(),
            filename: self.filename,
            size: self.size,
            sha256: self.sha256,
            depends: parse_depends(&self.depends),
        })
    }
}

/// Names and versions become file names and arguments of apt, so only what Debian policy allows in them is taken.
pub(crate) fn is_safe(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.~:_".contains(c))
}

fn parse_depends(field: &str) -> Vec<Vec<Dependency>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(parse_dependency).collect::<Vec<_>>())
        .filter(|group| !group.is_empty())
        .collect()
}

fn parse_dependency(text: &str) -> Option<Dependency> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '(' || c == '[').unwrap_or(text.len());
    let name = text[..end].split(':').next().filter(|name| !name.is_empty())?.to_owned();
    let constraint = text[end..].split_once('(').and_then(|(_, rest)| {
        let inner = rest.split_once(')')?.0.trim();
        let at = inner.find(|c: char| !"<>=".contains(c))?;
        Some((inner[..at].to_owned(), inner[at..].trim().to_owned()))
    });
    Some(Dependency { name, constraint })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A `Packages` stanza for tests.
    pub(crate) fn stanza(name: &str, version: &str, depends: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\nFilename: pool/{name}_{version}.deb\nSize: 7\nSHA256: {}\n\n",
            "0".repeat(64)
        )
    }

    #[test]
    fn keeps_kernel_packages_only() {
        let text = format!("{}{}", stanza("linux-source-6.1", "6.1.1-1", ""), stanza("zsh", "5-1", ""));
        let index = Index::read("bookworm", text.as_bytes()).unwrap();
        assert_eq!(index.packages().len(), 1);
        assert_eq!(index.packages()[0].suite, "bookworm");
        assert_eq!(index.packages()[0].size, 7);
        assert!(index.exact("linux-source-6.1", "6.1.1-1").is_some());
    }

    #[test]
    fn last_stanza_needs_no_blank_line_and_incomplete_ones_are_left_out() {
        let text = format!(
            "{}Package: linux-x\nVersion: 1\n",
            stanza("linux-a", "1", "").trim_end().to_owned() + "\n\n"
        );
        assert_eq!(Index::read("s", text.as_bytes()).unwrap().packages().len(), 1);
        let text = stanza("linux-a", "1", "");
        assert_eq!(Index::read("s", text.trim_end().as_bytes()).unwrap().packages().len(), 1);
    }

    #[test]
    fn refuses_names_that_are_no_names() {
        for name in ["linux-../x", "linux-a b", "linux-a/b"] {
            assert!(
                Index::read("s", stanza(name, "1", "").as_bytes()).unwrap().packages().is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn reads_dependencies() {
        let depends = parse_depends("kmod, a:any (>= 1~) | b, linux-kbuild-6.1 (>= 6.1.192-2)");
        assert_eq!(depends.len(), 3);
        assert_eq!(
            depends[1][0],
            Dependency { name: "a".into(), constraint: Some((">=".into(), "1~".into())) }
        );
        assert_eq!(depends[1][1], Dependency { name: "b".into(), constraint: None });
        assert_eq!(depends[2][0].constraint, Some((">=".into(), "6.1.192-2".into())));
    }

    #[test]
    fn newest_first() {
        let text = format!("{}{}", stanza("linux-a", "6.1.9-1", ""), stanza("linux-a", "6.1.10-1", ""));
        let index = Index::read("s", text.as_bytes()).unwrap();
        assert_eq!(index.named("linux-a")[0].version, "6.1.10-1");
    }
}
