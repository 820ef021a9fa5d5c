//! A configuration and files of kbuild's that hold commands: none of them changes anything outside of the cache.

use super::Own;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::Path;

/// Texts of the configuration that kbuild's makefiles and scripts expand.
const OPTIONS: [&str; 4] = ["LOCALVERSION", "SYSTEM_TRUSTED_KEYS", "CC_VERSION_TEXT", "BUILD_SALT"];

/// Builds with what would touch a file, `clean` and by the tree it was built in, and says what came of it.
pub(super) fn run(own: &Own, pristine: &Path) -> Result<()> {
    let mark = own.out.with_file_name("touched");
    let touch = mark.display();
    let directory = own.copies("hostile", &["config", "vmlinux", "Module.symvers"])?;
    let config = directory.join("config");
    let mut text = fs_err::read_to_string(own.kernel.file(".config"))?;
    for option in OPTIONS {
        let _ = writeln!(text, "CONFIG_{option}=\"$(shell touch {touch})$(touch {touch})`touch {touch}`\"");
    }
    fs_err::write(&config, text)?;
    let arguments = Own::arguments(pristine, &directory);
    refused_or_harmless(own, "config", &arguments, &mark)?;

    let saved = own.kernel.tree.join("fs/proc/.version.o.cmd");
    let original = fs_err::read(&saved)?;
    let line = format!("savedcmd_fs/proc/version.o := touch {touch}\n\n$(shell touch {touch})\n");
    fs_err::write(&saved, line.clone() + &line.replace("savedcmd", "cmd"))?;
    let tree = own.kernel.tree.display().to_string();
    let result = refused_or_harmless(own, "saved commands", &["-s".to_owned(), tree], &mark);
    fs_err::write(&saved, original)?;
    result
}

fn refused_or_harmless(own: &Own, what: &str, arguments: &[String], mark: &Path) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let built = own.build("hostile", "show", &arguments)?;
    if mark.exists() {
        return Err(Error::Failed(format!("hostile {what}: a command of it was run and has written a file")));
    }
    let refused = built.status == Some(1) && built.modules.is_empty() && built.output.contains("ERROR: ");
    if !built.succeeded() && !refused {
        return Err(Error::Failed(format!("hostile {what}: no clear end:\n{}", built.tail(30).join("\n"))));
    }
    let said = built.output.lines().find(|line| line.starts_with("ERROR: ")).unwrap_or("no harm done");
    println!("  hostile {what}: {said}");
    Ok(())
}
