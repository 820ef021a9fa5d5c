//! The root file system of a guest: busybox, the cases, and the modules of the image they ask for.

use super::{Case, Options};
use crate::cpio::Archive;
use crate::error::{Error, Result};
use crate::modules::Modules;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

const INIT: &str = include_str!("init.sh");

/// Builds the archive for these cases, numbered from 0.
pub(super) fn build(cases: &[Case], modules: &Modules, options: &Options) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.char_device("dev/console", 5, 1);
    archive.char_device("dev/null", 1, 3);
    archive.file("bin/busybox", 0o755, &fs_err::read(busybox()?)?);
    archive.file("init", 0o755, INIT.as_bytes());
    for (name, content) in &options.shared {
        archive.file(&format!("shared/{name}"), 0o755, content);
    }

    let mut present = BTreeSet::new();
    for (index, case) in cases.iter().enumerate() {
        let mut settings = String::new();
        if let Some(patch) = &case.patch {
            check_name(&patch.name)?;
            let _ = writeln!(settings, "MODULE={}", patch.name);
            archive.file(&format!("cases/{index}/{}.ko", patch.name), 0o644, &patch.content);
        }
        for (name, content) in &case.files {
            check_name(name)?;
            archive.file(&format!("cases/{index}/files/{name}"), 0o644, content);
        }
        for (variable, names) in [("BEFORE", &case.before), ("AFTER", &case.after)] {
            let mut files = Vec::new();
            for name in names {
                for module in modules.with_dependencies(name)? {
                    check_name(&module.name)?;
                    let file = format!("{}.ko", module.name);
                    if present.insert(file.clone()) {
                        archive.file(&format!("modules/{file}"), 0o644, &module.content);
                    }
                    files.push(file);
                }
            }
            let _ = writeln!(settings, "{variable}='{}'", files.join(" "));
        }
        let flag = |set: bool| if set { "yes" } else { "" };
        let _ = writeln!(settings, "HAS_TEST={}", flag(case.test.is_some()));
        let _ = writeln!(settings, "ABSENT_OBJECTS={}", flag(case.absent_objects));
        archive.file(&format!("cases/{index}/case"), 0o644, settings.as_bytes());
        if let Some(test) = &case.test {
            archive.file(&format!("cases/{index}/test"), 0o644, test.as_bytes());
        }
    }

    let list: Vec<String> = (0..cases.len()).map(|index| index.to_string()).collect();
    let settings = format!(
        "REPORT_TTY=ttyS1\nTEST_SECONDS={}\nTRANSITION_SECONDS={}\nCASES='{}'\n",
        options.test_limit.as_secs(),
        options.transition_limit.as_secs(),
        list.join(" ")
    );
    archive.file("settings", 0o644, settings.as_bytes());
    Ok(archive.finish())
}

/// Names go into shell text unquoted.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::KernelModule {
        name: name.to_owned(),
        reason: "a module's name consists of letters, digits and `_`".to_owned(),
    })
}

fn busybox() -> Result<PathBuf> {
    match which::which("busybox") {
        Ok(path) if crate::tools::is_static(&path) => Ok(path),
        _ => Err(Error::Missing {
            what: "a busybox that is linked statically".to_owned(),
            remedy: "install the package busybox-static".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_shell_text_are_refused() {
        assert!(check_name("livepatch_x1").is_ok());
        for name in ["", "a b", "a;b", "$(x)", "a-b", "a/b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
