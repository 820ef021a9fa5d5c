//! One file for each command, and what several of them share.

pub mod diff;
pub mod force;
pub mod info;
pub mod install;
pub mod list;
pub mod load;
pub mod show;
pub mod signal;
mod transition;
pub mod uname;
pub mod uninstall;
pub mod unload;
pub mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::edge::root::Root;
use crate::edge::system::System;
use crate::edge::{read, store};
use crate::error::{Error, Result};

/// What every command works with.
pub struct Context<'a> {
    /// Where files are.
    pub root: Root,
    /// The kernel.
    pub system: &'a mut dyn System,
    /// One JSON value is wanted, and no text beside it.
    pub json: bool,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
}

impl Context<'_> {
    /// Tells what is being done: on the standard output, as the predecessor did, unless that holds JSON.
    pub(crate) fn say(&mut self, text: impl std::fmt::Display) {
        let out: &mut dyn Write = if self.json { self.err } else { self.out };
        // Who does not listen any more does not keep the kernel from being patched.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// Tells what a person should know.
    pub(crate) fn warn(&mut self, text: impl std::fmt::Display) {
        let _ = writeln!(self.err, "kpatch: {text}");
    }

    /// Tells an error: on the standard error, and as JSON there where JSON is wanted.
    pub(crate) fn tell(&mut self, error: &Error) {
        let (message, cause, remedy) = (error.to_string(), error.cause(), error.remedy());
        if self.json {
            let failure = Failure { error: error.code(), message, cause, remedy };
            let _ = serde_json::to_writer(&mut *self.err, &failure).map(|()| writeln!(self.err));
            return;
        }
        let _ = writeln!(self.err, "kpatch: {message} [kpatch::runtime::{}]", error.code());
        for line in cause {
            let _ = writeln!(self.err, "  {line}");
        }
        if let Some(remedy) = remedy {
            let _ = writeln!(self.err, "  help: {remedy}");
        }
    }

    /// Prints the result.
    pub(crate) fn print(&mut self, value: &impl Serialize, text: &str) -> Result<()> {
        if self.json {
            serde_json::to_writer_pretty(&mut *self.out, value).map_err(std::io::Error::from)?;
            writeln!(self.out)?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// The release that installed modules are meant for, if none is named.
    pub(crate) fn release(&self, named: Option<&str>) -> Result<String> {
        match named {
            Some(release) => Ok(release.to_owned()),
            None => Some(read::release(&self.root)).filter(|r| !r.is_empty()).ok_or(Error::NoRelease),
        }
    }

    /// The file that a person means: a path, or an installed module.
    pub(crate) fn file(&self, module: &Path) -> Result<PathBuf> {
        if module.exists() {
            return Ok(module.to_owned());
        }
        let name = module.to_string_lossy();
        let release = self.release(None).unwrap_or_default();
        let found = store::installed(&self.root, Some(&release))?;
        found
            .into_iter()
            .find(|installed| !name.contains('/') && installed.is_called(&name))
            .map(|installed| installed.path)
            .ok_or_else(|| Error::NoSuchModule(name.into_owned()))
    }
}

/// An error, as JSON.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    error: &'a str,
    message: String,
    cause: Vec<String>,
    remedy: Option<String>,
}

/// The module's name that a person means by a name or a path.
pub(crate) fn module_name(module: &Path) -> String {
    let file = module.file_name().unwrap_or(module.as_os_str()).to_string_lossy();
    file.strip_suffix(".ko").unwrap_or(&file).replace('-', "_")
}

/// The CVEs that a text names, in order, each once.
pub(crate) fn cves(texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for text in texts {
        for (at, _) in text.match_indices("CVE-") {
            let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
            let year = at + 4;
            let number = year + 5;
            if digits(year) == 4 && text.as_bytes().get(year + 4) == Some(&b'-') && digits(number) >= 4 {
                let name = text[at..number + digits(number)].to_owned();
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod flow_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_modules() {
        for name in ["a-b", "a_b", "a-b.ko", "/x/a_b.ko"] {
            assert_eq!(module_name(Path::new(name)), "a_b");
        }
    }

    #[test]
    fn cves_in_texts() {
        let text =
            "fixes CVE-2026-12345 and CVE-2025-0001, CVE-2026-12345; not CVE-1 CVE-20-1 CVE-2026-\u{e9}";
        assert_eq!(cves(&[text, "CVE-2024-9999"]), ["CVE-2026-12345", "CVE-2025-0001", "CVE-2024-9999"]);
        assert!(cves(&["CVE-", "CVE-2026", "CVE-202\u{e9}-1"]).is_empty());
    }
}
