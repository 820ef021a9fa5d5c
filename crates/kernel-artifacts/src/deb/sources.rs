//! The host's package sources: which mirrors it uses and which suites it has.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// One mirror with the suites the host takes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    /// A keyring file, or nothing for apt's default ones.
    pub(crate) signed_by: Option<String>,
}

/// A suite with everything needed to fetch from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) signed_by: Option<String>,
}

const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package sources of a Debian host.
#[derive(Debug, Clone)]
pub(crate) struct HostSources {
    sources: Vec<Source>,
    codename: Option<String>,
    looked_in: PathBuf,
}

impl HostSources {
    /// Reads `sources.list` and `sources.list.d` below `root`, which is `/` except in tests.
    pub(crate) fn read(root: &Path) -> Self {
        let etc = root.join("etc/apt");
        let mut files = vec![etc.join("sources.list")];
        let mut parts: Vec<PathBuf> = match fs::read_dir(etc.join("sources.list.d")) {
            Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
            Err(_) => Vec::new(),
        };
        parts.sort();
        files.extend(parts);
        let mut sources = Vec::new();
        for file in files {
            // A file that cannot be read (third parties', often) may not keep the others from being used.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => sources.extend(parse_deb822(&text)),
                Some("list") => sources.extend(text.lines().filter_map(parse_one_line)),
                _ => {}
            }
        }
        let os_release = fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
        HostSources { sources, codename: codename(&os_release), looked_in: etc }
    }

    /// The suites to search: the host's own kernels' and those of the settings, with their mirrors.
    pub(crate) fn suites(&self, settings: &Settings) -> Result<Vec<Suite>> {
        let mut suites: Vec<Suite> = Vec::new();
        if settings.host_suites {
            for source in self.sources.iter().filter(|source| self.is_debian(source)) {
                for name in &source.suites {
                    if !suites.iter().any(|suite| suite.name == *name) {
                        suites.push(Suite {
                            name: name.clone(),
                            uri: configured(settings, name).unwrap_or(&source.uri).clone(),
                            signed_by: source.signed_by.clone(),
                        });
                    }
                }
            }
        }
        for name in &settings.suites {
            if !suites.iter().any(|suite| suite.name == *name) {
                suites.push(self.suite(name, settings)?);
            }
        }
        Ok(suites)
    }

    /// One suite by name: as the host has it, else on the mirror the host uses for suites of its kind.
    pub(crate) fn suite(&self, name: &str, settings: &Settings) -> Result<Suite> {
        if !is_suite_name(name) {
            return Err(Error::BadSuite { suite: name.to_owned() });
        }
        let security = is_security(name);
        // Other vendors' archives may look like Debian's; the keyring tells which one surely is.
        let like = self
            .sources
            .iter()
            .filter(|source| self.is_debian(source))
            .filter(|source| source.suites.iter().any(|suite| is_security(suite) == security))
            .min_by_key(|source| {
                !source.signed_by.as_deref().is_some_and(|key| key.contains("debian-archive"))
            });
        let exact = self.sources.iter().find(|source| source.suites.iter().any(|suite| suite == name));
        let from = exact.filter(|source| self.is_debian(source)).or(like);
        let uri = match (configured(settings, name), from) {
            (Some(uri), _) => uri.clone(),
            (None, Some(source)) => source.uri.clone(),
            (None, None) => {
                return Err(Error::NoMirror {
                    suite: name.to_owned(),
                    looked_in: self.looked_in.display().to_string(),
                });
            }
        };
        // A mirror's key is the archive's; a keyring of the host's that lacks the other suite's key would only hurt.
        let signed_by = if Path::new(DEFAULT_KEYRING).exists() {
            Some(DEFAULT_KEYRING.to_owned())
        } else {
            from.and_then(|source| source.signed_by.clone())
        };
        Ok(Suite { name: name.to_owned(), uri, signed_by })
    }

    /// Debian's own archives have suites named after the host's release and a component `main`; other vendors' hardly do.
    fn is_debian(&self, source: &Source) -> bool {
        let base = |suite: &str| {
            let codename = self.codename.as_deref().is_some_and(|codename| base_suite(suite) == codename);
            codename || matches!(base_suite(suite), "stable" | "testing" | "unstable" | "sid" | "oldstable")
        };
        source.components.iter().any(|component| component == "main")
            && source.suites.iter().any(|suite| base(suite))
            && source.uri.contains("debian")
    }
}

/// The mirror that the settings name for suites of that kind.
fn configured<'a>(settings: &'a Settings, suite: &str) -> Option<&'a String> {
    let mirror = if is_security(suite) { &settings.security_mirror } else { &settings.mirror };
    mirror.as_ref()
}

/// `trixie` for `trixie-backports`, `trixie-security`, `trixie-updates` and `trixie` itself.
pub(crate) fn base_suite(suite: &str) -> &str {
    suite.split(['-', '/']).next().unwrap_or(suite)
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

fn is_suite_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.split('/').all(|part| !part.is_empty() && part != "..")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._/".contains(c))
}

fn is_fetchable(uri: &str) -> bool {
    ["http:", "https:", "file:", "copy:", "mirror", "tor+", "ftp:"]
        .iter()
        .any(|scheme| uri.starts_with(scheme))
        && !uri.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn parse_one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with(char::is_whitespace))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let signed_by =
        options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uri = words.next().filter(|uri| is_fetchable(uri))?;
    let suite = words.next().filter(|suite| is_suite_name(suite))?;
    Some(Source { uri, suites: vec![suite], components: words.collect(), signed_by })
}

fn parse_deb822(text: &str) -> Vec<Source> {
    text.split("\n\n").flat_map(parse_stanza).collect()
}

fn parse_stanza(stanza: &str) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((field, value)) = line.split_once(':') {
            fields.push((field.to_ascii_lowercase(), value.to_owned()));
        }
    }
    let field =
        |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
    let words = |name: &str| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if field("enabled").trim() == "no" || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    // An embedded key spans lines; only the name of a keyring file is of use here.
    let signed_by = Some(field("signed-by").trim()).filter(|key| key.starts_with('/') && !key.contains('\n'));
    let suites: Vec<_> = words("suites").into_iter().filter(|suite| is_suite_name(suite)).collect();
    words("uris")
        .into_iter()
        .filter(|uri| is_fetchable(uri))
        .map(|uri| Source {
            uri,
            suites: suites.clone(),
            components: words("components"),
            signed_by: signed_by.map(str::to_owned),
        })
        .collect()
}

fn codename(os_release: &str) -> Option<String> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches(['"', '\'']).to_owned())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(list: &str, sources: &str) -> (tempfile::TempDir, HostSources) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).unwrap();
        fs::write(root.path().join("etc/apt/sources.list"), list).unwrap();
        fs::write(root.path().join("etc/apt/sources.list.d/debian.sources"), sources).unwrap();
        fs::write(root.path().join("etc/os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n").unwrap();
        let host = HostSources::read(root.path());
        (root, host)
    }

    const DEB822: &str = "Types: deb\n# comment\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb deb-src\nURIs: http://m/debian-security\nSuites: bookworm-security\nComponents: main\n\nTypes: deb\nURIs: https://vendor/x\nSuites: nodistro\nComponents: main\n";

    #[test]
    fn hosts_suites_come_with_their_mirrors() {
        let (_root, host) = host("deb https://vendor/apt bookworm main\n", DEB822);
        let suites = host.suites(&Settings::new("/c")).unwrap();
        let names: Vec<_> = suites.iter().map(|s| (s.name.as_str(), s.uri.as_str())).collect();
        assert_eq!(
            names,
            [
                ("bookworm", "http://m/debian"),
                ("bookworm-updates", "http://m/debian"),
                ("bookworm-security", "http://m/debian-security")
            ]
        );
        assert_eq!(suites[0].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn further_suites_use_the_mirror_of_their_kind() {
        let (_root, host) = host("", DEB822);
        let mut settings = Settings::new("/c");
        settings.suites = vec!["trixie-security".into(), "trixie-backports".into(), "bookworm".into()];
        let suites = host.suites(&settings).unwrap();
        let uri = |name: &str| suites.iter().find(|s| s.name == name).unwrap().uri.clone();
        assert_eq!(uri("trixie-security"), "http://m/debian-security");
        assert_eq!(uri("trixie-backports"), "http://m/debian");
        assert_eq!(suites.len(), 5);
    }

    #[test]
    fn a_mirror_of_the_settings_serves_every_suite_of_its_kind() {
        let (_root, host) = host("", DEB822);
        let mut settings = Settings::new("/c");
        settings.mirror = Some("http://near/debian".into());
        settings.suites = vec!["sid".into()];
        let uris: Vec<_> = host.suites(&settings).unwrap().into_iter().map(|suite| suite.uri).collect();
        let near = "http://near/debian";
        assert_eq!(uris, [near, near, "http://m/debian-security", near]);
    }

    #[test]
    fn one_line_format() {
        let source =
            parse_one_line("deb [arch=amd64 signed-by=/k] http://m/debian sid main contrib # c").unwrap();
        assert_eq!(source.suites, ["sid"]);
        assert_eq!(source.components, ["main", "contrib"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k"));
        assert_eq!(parse_one_line("# deb http://m/debian sid main"), None);
        assert_eq!(parse_one_line("deb-src http://m/debian sid main"), None);
        assert_eq!(parse_one_line("deb cdrom:[Debian]/ sid main"), None);
    }

    #[test]
    fn without_a_debian_source_a_mirror_must_be_named() {
        let (_root, host) = host("deb https://vendor/apt bookworm main\n", "");
        let mut settings = Settings::new("/c");
        settings.suites = vec!["sid".into()];
        assert!(matches!(host.suites(&settings), Err(Error::NoMirror { .. })));
        settings.mirror = Some("http://m/debian".into());
        assert_eq!(host.suites(&settings).unwrap()[0].uri, "http://m/debian");
    }

    #[test]
    fn hostile_suite_names_are_refused() {
        let (_root, host) = host("", DEB822);
        for name in ["", "../x", "a b", "a\"b", "x/../y", "-o"] {
            assert!(host.suite(name, &Settings::new("/c")).is_err(), "{name}");
        }
    }
}
