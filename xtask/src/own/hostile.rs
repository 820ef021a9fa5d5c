//! A configuration and files of kbuild's that hold commands: none of them changes anything outside of the cache.
//!
//! Where no command is confined the configuration does harm; that is shown first, or the rest would show nothing.

use super::Own;
use crate::builder::Built;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Texts of the configuration that kbuild's makefiles and scripts expand.
const OPTIONS: [&str; 4] = ["LOCALVERSION", "SYSTEM_TRUSTED_KEYS", "CC_VERSION_TEXT", "BUILD_SALT"];

/// Takes Landlock from the program that it is loaded into.
const NO_LANDLOCK: &str = include_str!("no_landlock.c");

/// The file of the user's tree in which a saved command is replaced.
const SAVED: &str = "fs/proc/.version.o.cmd";

/// Builds with what would touch a file, `clean` and by the tree it was built in, and says what came of it.
pub(super) fn run(own: &mut Own, pristine: &Path) -> Result<()> {
    // Of single units kbuild expands none of these texts; a makefile does that the whole build reads first.
    let whole = ["--whole-tree", "-t", "certs/"];
    let free = vec![("LD_PRELOAD".to_owned(), no_landlock(own)?.display().to_string())];
    let (built, harmed) = with_configuration(own, pristine, &whole, free)?;
    if !harmed {
        let tail = built.tail(30).join("\n");
        return Err(Error::Failed(format!("hostile config: it does nothing where it could:\n{tail}")));
    }
    println!("  hostile config, not confined: its commands are run");
    for (what, more) in [("config, whole tree", &whole[..]), ("config", &[])] {
        let (built, harmed) = with_configuration(own, pristine, more, Vec::new())?;
        refused_or_harmless(what, &built, harmed)?;
    }

    let mark = mark(own)?;
    let touch = mark.display();
    let line = format!("savedcmd_fs/proc/version.o := touch {touch}\n\n$(shell touch {touch})\n");
    let saved = own.kernel.tree.join(SAVED);
    // Under its name it is complete.
    fs_err::copy(&saved, kept(own).with_extension("new"))?;
    fs_err::rename(kept(own).with_extension("new"), kept(own))?;
    fs_err::write(&saved, line.clone() + &line.replace("savedcmd", "cmd"))?;
    let tree = own.kernel.tree.display().to_string();
    let built = own.build("hostile", "show", &["-s", &tree]);
    heal(own)?;
    refused_or_harmless("saved commands", &built?, mark.exists())
}

/// Puts back what a run has replaced in the tree, perhaps one that was killed.
pub(super) fn heal(own: &Own) -> Result<()> {
    let kept = kept(own);
    if kept.exists() {
        fs_err::copy(&kept, own.kernel.tree.join(SAVED))?;
        fs_err::remove_file(kept)?;
    }
    Ok(())
}

fn kept(own: &Own) -> PathBuf {
    own.out.with_file_name("saved-command")
}

/// A build by a configuration with commands, and whether one of them has written a file.
fn with_configuration(
    own: &mut Own,
    pristine: &Path,
    more: &[&str],
    environment: Vec<(String, String)>,
) -> Result<(Built, bool)> {
    let directory = own.copies("hostile", &["config", "vmlinux", "Module.symvers"])?;
    let mark = mark(own)?;
    let touch = mark.display();
    let mut text = fs_err::read_to_string(own.kernel.file(".config"))?;
    for option in OPTIONS {
        let _ = writeln!(text, "CONFIG_{option}=\"$(shell touch {touch})$(touch {touch})`touch {touch}`\"");
    }
    fs_err::write(directory.join("config"), text)?;
    let arguments = Own::arguments(pristine, &directory);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    own.builder.environment = environment;
    let built = own.build("hostile", "show", &arguments);
    own.builder.environment.clear();
    Ok((built?, mark.exists()))
}

/// A file that is to be touched. It has another name each time: of a configuration that is in the cache nothing is run.
fn mark(own: &Own) -> Result<PathBuf> {
    let now = UNIX_EPOCH.elapsed().map_err(|error| Error::Failed(error.to_string()))?;
    let marks = own.out.with_file_name("touched");
    if marks.exists() {
        fs_err::remove_dir_all(&marks)?;
    }
    fs_err::create_dir_all(&marks)?;
    Ok(marks.join(now.as_nanos().to_string()))
}

fn no_landlock(own: &Own) -> Result<PathBuf> {
    let [source, library] = ["c", "so"].map(|end| own.out.with_file_name(format!("no_landlock.{end}")));
    fs_err::write(&source, NO_LANDLOCK)?;
    let words = ["-shared", "-fPIC", "-O1", "-o", &library.display().to_string()].map(str::to_owned);
    let compiled = duct::cmd("gcc", words.into_iter().chain([source.display().to_string()])).run();
    compiled.map_err(|error| Error::Command { command: "gcc".to_owned(), reason: error.to_string() })?;
    Ok(library)
}

fn refused_or_harmless(what: &str, built: &Built, harmed: bool) -> Result<()> {
    if harmed {
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
