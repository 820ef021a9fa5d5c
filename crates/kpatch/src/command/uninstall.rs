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
    let _lock = lock::installing(&root, &mut || cx.say("waiting for another kpatch command"))?;
    let found = store::installed(&root, Some(&release))?.into_iter().find(|module| module.is_called(name));
    let Some(module) = found else {
        return Err(Error::NotInstalled { module: name.to_owned(), release });
    };
    cx.say(format_args!("uninstalling {} ({release})", module.stem));
    store::uninstall(&module)?;
    if cx.json { cx.print(&Uninstalled { module: &module.stem, release: &release }, "") } else { Ok(()) }
}
