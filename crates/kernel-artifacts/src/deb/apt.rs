//! apt with a state of its own: one directory per suite in the cache, nothing of the host's is written.

use std::fmt::Write as _;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use kbuild::store;

use super::index::{Index, Package};
use super::sources::Suite;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::run::{Program, tail};
use crate::store::{Store, create_dir_all};

/// For so long a fetched index counts as current.
const INDEX_LIFETIME: Duration = Duration::from_hours(1);

/// apt for one suite.
pub(crate) struct Apt<'a> {
    store: &'a Store,
    suite: &'a Suite,
    architecture: &'a str,
    dir: PathBuf,
}

/// How much an index in the cache is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Ask the mirror, whatever is in the cache.
    Now,
    /// Ask the mirror unless that was done a short while ago.
    Recent,
    /// Never ask the mirror.
    Offline,
}

impl<'a> Apt<'a> {
    pub(crate) fn new(store: &'a Store, suite: &'a Suite, architecture: &'a str) -> Self {
        // Two mirrors of one suite may differ, so each has its own state.
        let mut hash = blake3::Hasher::new();
        hash.update(suite.uri.as_bytes());
        let name =
            format!("apt/{}_{architecture}_{}", suite.name.replace('/', "_"), &hash.finalize().to_hex()[..8]);
        let dir = store.path(name);
        Apt { store, suite, architecture, dir }
    }

    /// The kernel packages of the suite, updating the index first where `freshness` asks for it.
    pub(crate) fn index(&self, freshness: Freshness, events: Events) -> Result<Index> {
        let _lock = self.store.lock(&self.dir, events)?;
        let reduced = self.dir.join("kernels.json");
        if !Self::is_current(&reduced, freshness) {
            match self.update(events) {
                Ok(()) => {
                    let index = self.read_lists()?;
                    let text = serde_json::to_vec(&index).map_err(std::io::Error::from)?;
                    store::write(&reduced, &text)?;
                    return Ok(index);
                }
                Err(error @ Error::NoIndex { .. }) if reduced.exists() => {
                    events(Event::Warning {
                        message: format!("{error}; the index of an earlier run is used"),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let text = match fs::read(&reduced) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Offline {
                    what: format!("the package index of suite {}", self.suite.name),
                });
            }
            Err(error) => return Err(Error::DamagedCache { path: reduced, reason: error.to_string() }),
        };
        serde_json::from_slice(&text)
            .map_err(|error| Error::DamagedCache { path: reduced, reason: error.to_string() })
    }

    fn is_current(reduced: &Path, freshness: Freshness) -> bool {
        match freshness {
            Freshness::Now => false,
            Freshness::Offline => true,
            Freshness::Recent => {
                let modified = fs::metadata(reduced).and_then(|meta| meta.modified());
                modified.is_ok_and(|time| {
                    SystemTime::now().duration_since(time).is_ok_and(|age| age < INDEX_LIFETIME)
                })
            }
        }
    }

    fn update(&self, events: Events) -> Result<()> {
        events(Event::UpdatingIndex { suite: self.suite.name.clone() });
        let configuration = self.configure()?;
        // Without this option apt-get treats a mirror that does not answer as a success.
        let output = apt_get(&configuration, "fetch a package index")
            .args(["-q", "-o", "APT::Update::Error-Mode=any", "update"])
            .output()?;
        if output.success {
            return Ok(());
        }
        let mut said = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with("Err:") || line.starts_with("  "))
            .fold(String::new(), |all, line| all + line + "\n");
        said.push_str(&output.stderr);
        Err(Error::NoIndex {
            suite: self.suite.name.clone(),
            mirror: self.suite.uri.clone(),
            output: tail(&said, 8),
        })
    }

    fn read_lists(&self) -> Result<Index> {
        let listing = apt_get(&self.dir.join("apt.conf"), "find the package index")
            .args(["indextargets", "--format", "$(FILENAME)", "Created-By: Packages"])
            .run()?;
        let mut index = Index::default();
        for file in String::from_utf8_lossy(&listing).lines().filter(|line| !line.is_empty()) {
            let file = fs::File::open(file)?;
            index.extend(Index::read(&self.suite.name, BufReader::with_capacity(1 << 20, file))?);
        }
        Ok(index)
    }

    /// Downloads packages into `into`; apt checks them against the signed index.
    pub(crate) fn download(&self, packages: &[&Package], into: &Path, events: Events) -> Result<()> {
        let _lock = self.store.lock(&self.dir, events)?;
        let configuration = self.configure()?;
        if !self.knows_all(packages) {
            self.update(events)?;
        }
        let new = into.join(format!(".new-{}", self.suite.name.replace('/', "_")));
        store::remove(&new)?;
        create_dir_all(&new)?;
        for package in packages {
            events(Event::Fetching { file: package.file_name().to_owned(), size: package.size });
            let program = apt_get(&configuration, format!("fetch package {}", package.name))
                .args(["-q", "download"])
                .arg(format!(
                    "{}:{}={}",
                    package.name,
                    package.architecture_for(self.architecture),
                    package.version
                ))
                .dir(&new);
            let output = program.output()?;
            if !output.success {
                return Err(Error::NotFetched {
                    file: package.file_name().to_owned(),
                    suite: self.suite.name.clone(),
                    output: tail(&output.stderr, 5),
                });
            }
            let found: Vec<PathBuf> = fs::read_dir(&new)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .collect();
            let [file] = found.as_slice() else {
                return Err(Error::BadPackage {
                    file: package.file_name().to_owned(),
                    suite: self.suite.name.clone(),
                    reason: format!("apt left {} files", found.len()),
                });
            };
            let size = fs::metadata(file)?.len();
            if size != package.size {
                return Err(Error::BadPackage {
                    file: package.file_name().to_owned(),
                    suite: self.suite.name.clone(),
                    reason: format!("it has {size} bytes instead of {}", package.size),
                });
            }
            fs::rename(file, into.join(package.file_name()))?;
        }
        Ok(store::remove(&new)?)
    }

    /// Whether the lists on disk are those that name the packages (the lock file may be older than the lists).
    fn knows_all(&self, packages: &[&Package]) -> bool {
        self.read_lists().is_ok_and(|index| {
            packages.iter().all(|package| index.exact(&package.name, &package.version).is_some())
        })
    }

    /// Writes the configuration, the source and the directories; gives the configuration's path.
    fn configure(&self) -> Result<PathBuf> {
        for dir in ["etc/parts", "etc/sources", "state/lists/partial", "cache/archives/partial"] {
            create_dir_all(&self.dir.join(dir))?;
        }
        let mut source = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: {}\n",
            self.suite.uri, self.suite.name, self.architecture
        );
        if let Some(keyring) = &self.suite.signed_by {
            let _ = writeln!(source, "Signed-By: {keyring}");
        }
        store::write(&self.dir.join("etc/sources/suite.sources"), source.as_bytes())?;
        let path = self.dir.join("apt.conf");
        store::write(&path, self.configuration()?.as_bytes())?;
        Ok(path)
    }

    fn configuration(&self) -> Result<String> {
        let dump = apt_config().run()?;
        let mut text = inherited(&String::from_utf8_lossy(&dump));
        let dir = self.dir.display();
        let _ = write!(
            text,
            "APT::Architecture \"{architecture}\";
APT::Architectures {{ \"{architecture}\"; }};
APT::Sandbox::User \"root\";
Acquire::Languages \"none\";
Acquire::GzipIndexes \"false\";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";
Dir::Etc::main \"/dev/null\";
Dir::Etc::parts \"{dir}/etc/parts\";
Dir::Etc::sourcelist \"/dev/null\";
Dir::Etc::sourceparts \"{dir}/etc/sources\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"{dir}/etc/parts\";
Dir::Etc::netrc \"/etc/apt/auth.conf\";
Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";
Dir::State \"{dir}/state\";
Dir::State::status \"/dev/null\";
Dir::Cache \"{dir}/cache\";
Dir::Log \"{dir}\";
",
            architecture = self.architecture
        );
        Ok(text)
    }
}

impl Package {
    fn architecture_for<'a>(&'a self, native: &'a str) -> &'a str {
        if self.architecture == "all" { native } else { &self.architecture }
    }
}

/// How the host's apt reaches mirrors, as lines of a configuration file.
pub(crate) fn mirror_access() -> Result<String> {
    let dump = Program::new("apt-config", "apt", "read the host's apt configuration").arg("dump").run()?;
    Ok(inherited(&String::from_utf8_lossy(&dump)))
}

/// Of the host's configuration only how to reach mirrors is taken (proxies, certificates, retries), never hooks or paths.
fn inherited(dump: &str) -> String {
    dump.lines()
        .filter(|line| line.starts_with("Acquire::"))
        .filter(|line| {
            let own = ["IndexTargets", "Languages", "GzipIndexes", "Changelogs", "cdrom", "CompressionTypes"];
            !own.iter().any(|key| line["Acquire::".len()..].starts_with(key))
        })
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The host's own configuration, which the caller's APT_CONFIG may extend.
fn apt_config() -> Program {
    let program = Program::new("apt-config", "apt", "read the host's apt configuration").arg("dump");
    match std::env::var_os("APT_CONFIG") {
        Some(file) => program.env("APT_CONFIG", file),
        None => program,
    }
}

fn apt_get(configuration: &Path, purpose: impl Into<String>) -> Program {
    let mut program = Program::new("apt-get", "apt", purpose).env("APT_CONFIG", configuration);
    for name in ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"] {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            if let Some(value) = std::env::var_os(&name) {
                program = program.env(&name, value);
            }
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_over_how_to_reach_mirrors_but_no_hooks() {
        let dump = "APT::Update::Post-Invoke:: \"rm -rf /\";\nAcquire::http::Proxy \"http://p:1\";\nAcquire::IndexTargets::deb::X \"y\";\nDir \"/\";\nAcquire::Check-Valid-Until \"false\";\n";
        assert_eq!(
            inherited(dump),
            "Acquire::http::Proxy \"http://p:1\";\nAcquire::Check-Valid-Until \"false\";\n"
        );
    }
}
