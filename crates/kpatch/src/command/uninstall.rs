//! `kpatch uninstall`.

use serde::Serialize;

use super::Context;
use crate::edge::{lock, store};
use crate::error::{Error, Result};

#[derive(Debug, Serialize)]
struct Uninstalled<'a> {
    module: &'a str,
    release: &'a str,
}

/// Removes an installed module.
pub fn run(cx: &mut Context<'_>, name: &str, release: Option<&str>) -> Result<()> {
    if name.contains('/') {
        return Err(Error::PathGiven(name.to_owned()));
    }
    let release = cx.release(release)?;
    let root = cx.root.clone();
    let find = || {
        let found =
            store::installed(&root, Some(&release))?.into_iter().find(|module| module.is_called(name));
        found.ok_or_else(|| Error::NotInstalled { module: name.to_owned(), release: release.clone() })
    };
    // To take the lock makes its file, which a command that has nothing to do must not leave behind.
    find()?;
    let _lock = lock::installing(&root, &mut || cx.say("waiting for another kpatch command"))?;
    let module = find()?;
    cx.say(format_args!("uninstalling {} ({release})", module.stem));
    store::uninstall(&module)?;
    if cx.json { cx.print(&Uninstalled { module: &module.stem, release: &release }, "") } else { Ok(()) }
}
