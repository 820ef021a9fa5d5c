//! `kpatch install`.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::{Context, module_name};
use crate::edge::file::ModuleFile;
use crate::edge::root::Root;
use crate::edge::{lock, store};
use crate::error::{Error, Result};
use crate::model::plan;

/// The unit that loads installed modules at boot.
const UNIT: &str = "kpatch.service";

#[derive(Debug, Serialize)]
struct InstalledModule<'a> {
    module: &'a str,
    release: &'a str,
    file: String,
}

/// Copies a module to where the boot finds it.
pub fn run(cx: &mut Context<'_>, file: &Path, release: Option<&str>) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if file.extension().is_none_or(|extension| extension != "ko") || name.starts_with('.') {
        return Err(Error::NotKo(file.to_owned()));
    }
    let ModuleFile { module, bytes, .. } = ModuleFile::open(file)?;
    let release = cx.release(release)?;
    plan::belongs(&module, &release, None)?;
    let root = cx.root.clone();
    let _lock = lock::installing(&root, &mut || cx.say("waiting for another kpatch command"))?;
    let same = |other: &store::Installed| other.is_called(&name) || module_name(&other.path) == module.name;
    if store::installed(&root, Some(&release))?.iter().any(same) {
        return Err(Error::AlreadyInstalled(name));
    }
    cx.say(format_args!("installing {} ({release})", file.display()));
    let path = store::install(&root, &release, &name, &bytes)?;
    enable_unit(&root)?;
    if cx.json {
        let installed =
            InstalledModule { module: &module.name, release: &release, file: path.display().to_string() };
        cx.print(&installed, "")?;
    }
    Ok(())
}

/// Has systemd load modules at boot, where there is a systemd and the unit.
fn enable_unit(root: &Root) -> Result<()> {
    let has = |place: &&str| root.path(place).exists();
    let unit = ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"]
        .map(|directory| format!("{directory}/{UNIT}"));
    if !["/usr/bin/systemctl", "/bin/systemctl"].iter().any(has)
        || !unit.iter().any(|place| has(&place.as_str()))
    {
        return Ok(());
    }
    let mut command = Command::new("systemctl");
    if !root.is_running_system() {
        command.arg("--root").arg(root.path("/"));
    }
    let failed = |reason: String| Error::Command { command: format!("systemctl enable {UNIT}"), reason };
    let output = command.args(["--quiet", "enable", UNIT]).output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
