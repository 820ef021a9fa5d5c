//! The compiler a kernel was built with, and whether it is at hand.

use std::path::Path;

use fs_err as fs;
use kbuild::root::Root;

use crate::error::{Error, Result};

/// A compiler that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// What to give kbuild as CC.
    pub program: String,
    /// First line of its `--version`.
    pub version_text: String,
    /// Whether it is the very compiler of the kernel, by its full version text.
    pub exact: bool,
}

/// CONFIG_CC_VERSION_TEXT of a configuration.
pub fn wanted(config: &Path) -> Result<String> {
    let text = fs::read(config)?;
    version_text(&String::from_utf8_lossy(&text))
        .ok_or_else(|| Error::NoCompilerText { config: config.to_owned() })
}

fn version_text(config: &str) -> Option<String> {
    let value = config.lines().find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT="))?;
    let text = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Looks for the compiler: the exact one if it is there, else one of the same name.
pub fn find(wanted: &str, root: &Root) -> Option<Compiler> {
    let mut other = None;
    for program in programs(wanted) {
        let Some(found) = version_of(&program, root) else { continue };
        let compiler = Compiler { exact: same(wanted, &found), program, version_text: found };
        if compiler.exact {
            return Some(compiler);
        }
        other = other.or(Some(compiler));
    }
    other
}

/// Names under which the compiler may be installed, the most telling first.
fn programs(wanted: &str) -> Vec<String> {
    let first = wanted.split_whitespace().next().unwrap_or_default();
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('-')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
    };
    if let Some((_, version)) = wanted.split_once("clang version ") {
        let major = version.split('.').next().unwrap_or_default();
        return [format!("clang-{major}"), "clang".to_owned()]
            .into_iter()
            .filter(|name| is_name(name))
            .collect();
    }
    // Some kernels name the compiler with the machine's prefix and others without; both are one program on a native host.
    let machine = format!("{}-linux-gnu-", std::env::consts::ARCH);
    let mut names = vec![first.to_owned()];
    match first.strip_prefix(&machine) {
        Some(plain) => names.push(plain.to_owned()),
        None => names.push(format!("{machine}{first}")),
    }
    // A kernel's own name for it may lack the version that Debian's program has: `gcc (Debian 12.2.0-14) 12.2.0`.
    let bare = first.rsplit('-').next().unwrap_or(first);
    if let (true, Some(major)) = (bare == "gcc", gcc_major(wanted)) {
        names.push(format!("{machine}gcc-{major}"));
        names.push(format!("gcc-{major}"));
    }
    names.retain(|name| is_name(name));
    names
}

/// The version comes last, but for a date that compilers between two releases add: `gcc-10 (Debian 10.2.1-6) 10.2.1 20210110`.
fn gcc_major(wanted: &str) -> Option<u32> {
    wanted.split_whitespace().rev().find_map(|word| word.split_once('.')?.0.parse().ok())
}

fn version_of(program: &str, root: &Root) -> Option<String> {
    let output = root.command(program).arg("--version").output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}

/// gcc's text starts with the name it was called by, which says nothing about the compiler.
fn same(wanted: &str, found: &str) -> bool {
    if wanted.contains("clang version ") {
        return wanted == found;
    }
    let without_name = |text: &str| text.split_once(' ').map(|(_, rest)| rest.to_owned());
    without_name(wanted) == without_name(found)
}

/// The Debian package that has the compiler: `gcc-14` for `x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0`.
pub(crate) fn package(wanted: &str) -> Option<String> {
    if let Some((_, version)) = wanted.split_once("clang version ") {
        let major = version.split('.').next()?;
        return major.parse::<u32>().ok().map(|major| format!("clang-{major}"));
    }
    gcc_major(wanted).map(|major| format!("gcc-{major}"))
}

/// The path of a program that is wanted, for messages.
pub(crate) fn describe(wanted: &str, host: Option<&Compiler>, place: &str) -> String {
    if let Some(found) = host {
        return format!("{place} has `{}`", found.version_text);
    }
    format!("{place} has none of {}", programs(wanted).join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCC: &str = "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0";

    #[test]
    fn text_of_the_configuration() {
        let config = format!("CONFIG_X=y\nCONFIG_CC_VERSION_TEXT=\"{GCC}\"\n");
        assert_eq!(version_text(&config).as_deref(), Some(GCC));
        assert_eq!(version_text("CONFIG_CC_VERSION_TEXT=\"\"\n"), None);
        assert_eq!(version_text("CONFIG_CC_VERSION_TEXT=gcc\n"), None);
    }

    #[test]
    fn the_name_does_not_matter_but_the_version_does() {
        assert!(same(GCC, "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"));
        assert!(!same(GCC, "gcc-12 (Debian 12.2.0-14) 12.2.0"));
        assert!(!same("Debian clang version 14.0.6", "Debian clang version 16.0.6"));
    }

    #[test]
    fn names_and_package() {
        assert!(programs(GCC).contains(&"gcc-12".to_owned()) || std::env::consts::ARCH != "x86_64");
        assert_eq!(programs("gcc-12 (x) 12.2.0")[0], "gcc-12");
        assert!(programs("gcc (Debian 12.2.0-14) 12.2.0").contains(&"gcc-12".to_owned()));
        assert_eq!(programs("Debian clang version 14.0.6"), ["clang-14", "clang"]);
        assert!(
            programs("/bin/sh;x 1").is_empty() || !programs("/bin/sh;x 1").contains(&"/bin/sh;x".to_owned())
        );
        assert_eq!(package(GCC).as_deref(), Some("gcc-12"));
        assert_eq!(package("Debian clang version 19.1.7 (3+b1)").as_deref(), Some("clang-19"));
        assert_eq!(package("gcc-10 (Debian 10.2.1-6) 10.2.1 20210110").as_deref(), Some("gcc-10"));
        assert_eq!(package("nonsense"), None);
    }

    #[test]
    fn a_compiler_that_is_not_there_is_not_found() {
        assert_eq!(find("no-such-gcc-99 (x) 99.1.0", &Root::Host), None);
    }
}
