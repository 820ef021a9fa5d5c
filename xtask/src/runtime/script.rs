//! The scripts of `test-patches/kpatch`: one a case, in the order of their names, with directives in comments.
//!
//! * `# boot: ARGUMENTS`: runs in another boot than most, with these words on the kernel's command line.
//! * `# key: enrolled`: the kernel of that boot trusts the tests' key.
//! * `# then: reboot` and `# then: off`: what becomes of a whole system after it.

use crate::error::Result;
use crate::guest::Outcome;
use std::path::{Path, PathBuf};

/// What becomes of the system after a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next script follows at once.
    Next,
    /// It is booted again.
    Reboot,
    /// It is switched off.
    Off,
}

/// A case.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Name of the file without its number.
    pub(super) name: String,
    /// For the shell.
    pub(super) text: String,
    /// Words on the kernel's command line, where it wants another boot than most.
    pub(super) boot: Option<String>,
    /// Its kernel trusts the tests' key.
    pub(super) enrolled: bool,
    /// What follows.
    pub(super) then: Then,
}

/// Where scripts and patches are.
pub(super) fn directory() -> PathBuf {
    crate::workspace_root().join("test-patches/kpatch")
}

/// What all scripts begin with.
pub(super) fn library() -> Result<String> {
    Ok(fs_err::read_to_string(directory().join("lib.sh"))?)
}

/// Reads the files `NN-NAME.sh` of a directory.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Script>> {
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    let mut scripts = Vec::new();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, name)) = stem.split_once('-').filter(|_| path.extension().is_some_and(|e| e == "sh"))
        else {
            continue;
        };
        scripts.push(parse(name, fs_err::read_to_string(&path)?));
    }
    Ok(scripts)
}

fn parse(name: &str, text: String) -> Script {
    let directive =
        |key: &str| text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)).map(str::trim);
    Script {
        name: name.to_owned(),
        boot: directive("boot:").map(str::to_owned),
        enrolled: directive("key:") == Some("enrolled"),
        then: match directive("then:") {
            Some("reboot") => Then::Reboot,
            Some("off") => Then::Off,
            _ => Then::Next,
        },
        text,
    }
}

/// What went wrong in a case, with what it printed.
pub(super) fn failures(outcome: &Outcome) -> Vec<String> {
    let mut failures: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
    if !failures.is_empty() {
        let from = outcome.output.len().saturating_sub(40);
        failures.push(format!("it printed:\n    {}", outcome.output[from..].join("\n    ")));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives() {
        let script = parse("x", "# What it is.\n# boot: a=b c\n# then: off\ntrue\n".to_owned());
        assert_eq!((script.boot.as_deref(), script.then), (Some("a=b c"), Then::Off));
        let script = parse("x", "true # boot: a\n".to_owned());
        assert_eq!((script.boot, script.then), (None, Then::Next));
    }

    #[test]
    fn every_file_is_a_case() {
        assert!(read_all(&directory()).unwrap().len() >= 10);
    }
}
