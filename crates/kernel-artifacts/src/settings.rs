//! What the user decides about where kernels come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of a run. [`Settings::new`] gives the defaults for a cache directory.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Settings {
    /// Where everything is kept.
    pub cache_dir: PathBuf,
    /// Suites beyond those of the host, for example `bookworm-backports`.
    pub suites: Vec<String>,
    /// Whether the host's own suites are searched too.
    pub host_suites: bool,
    /// Mirror of the Debian archive for all suites but those of security updates; the host's where not given.
    pub mirror: Option<String>,
    /// Mirror of the security archive; the host's where not given.
    pub security_mirror: Option<String>,
    /// Debian architecture, for example `amd64`; the host's where not given.
    pub architecture: Option<String>,
    /// Look again in the package index, although the lock file knows the release.
    pub refresh: bool,
    /// Never use the network.
    pub offline: bool,
    /// Where compilers and kbuild run.
    pub build_root: BuildRootChoice,
    /// Use a compiler of the right name although its version differs.
    pub allow_other_compiler: bool,
}

impl Settings {
    /// Defaults for that cache directory.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Settings {
            cache_dir: cache_dir.into(),
            suites: Vec::new(),
            host_suites: true,
            mirror: None,
            security_mirror: None,
            architecture: None,
            refresh: false,
            offline: false,
            build_root: BuildRootChoice::Auto,
            allow_other_compiler: false,
        }
    }

    /// Takes over what a configuration file says; what the file leaves open stays as it is.
    pub fn apply(&mut self, file: &FileSettings) {
        for suite in &file.suites {
            if !self.suites.contains(suite) {
                self.suites.push(suite.clone());
            }
        }
        if let Some(host_suites) = file.host_suites {
            self.host_suites = host_suites;
        }
        if let Some(choice) = &file.build_root {
            self.build_root = choice.clone();
        }
        for (ours, theirs) in [
            (&mut self.mirror, &file.mirror),
            (&mut self.security_mirror, &file.security_mirror),
            (&mut self.architecture, &file.architecture),
        ] {
            if theirs.is_some() {
                ours.clone_from(theirs);
            }
        }
    }
}

/// The part of `kpatch-build.toml` that belongs to this crate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FileSettings {
    /// See [`Settings::suites`].
    pub suites: Vec<String>,
    /// See [`Settings::host_suites`].
    pub host_suites: Option<bool>,
    /// See [`Settings::mirror`].
    pub mirror: Option<String>,
    /// See [`Settings::security_mirror`].
    pub security_mirror: Option<String>,
    /// See [`Settings::architecture`].
    pub architecture: Option<String>,
    /// See [`Settings::build_root`].
    pub build_root: Option<BuildRootChoice>,
}

/// Where compilers and kbuild run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum BuildRootChoice {
    /// On the host where it has the kernel's compiler, else in a root file system made for the purpose.
    #[default]
    Auto,
    /// On the host, come what may.
    None,
    /// In this root file system.
    Dir(PathBuf),
}

impl From<String> for BuildRootChoice {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => BuildRootChoice::Auto,
            "none" => BuildRootChoice::None,
            _ => BuildRootChoice::Dir(PathBuf::from(text)),
        }
    }
}

impl From<BuildRootChoice> for String {
    fn from(choice: BuildRootChoice) -> Self {
        match choice {
            BuildRootChoice::Auto => "auto".into(),
            BuildRootChoice::None => "none".into(),
            BuildRootChoice::Dir(dir) => dir.to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_adds_suites_and_sets_the_rest() {
        let file: FileSettings = toml::from_str(
            "suites = [\"trixie\", \"sid\"]\nbuild-root = \"/srv/root\"\nmirror = \"http://m\"",
        )
        .unwrap();
        let mut settings = Settings::new("/c");
        settings.suites.push("sid".into());
        settings.apply(&file);
        assert_eq!(settings.suites, ["sid", "trixie"]);
        assert_eq!(settings.build_root, BuildRootChoice::Dir("/srv/root".into()));
        assert_eq!(settings.mirror.as_deref(), Some("http://m"));
        assert!(settings.host_suites);
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<FileSettings>("suits = []").is_err());
    }
}
