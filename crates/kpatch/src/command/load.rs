//! `kpatch load`.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;

use super::Context;
use super::transition::{self, End};
use crate::edge::file::ModuleFile;
use crate::edge::read::{self, RECORDS};
use crate::edge::{lock, store};
use crate::error::{Error, Result};
use crate::model::module::PatchModule;
use crate::model::plan::{self, Start};
use crate::model::record::Record;
use crate::model::state::State;

/// How often a module that the kernel finds busy is tried, as the predecessor did.
const ATTEMPTS: u32 = 5;

/// How long to wait between two attempts.
const BETWEEN: Duration = Duration::from_secs(2);

/// What became of a module.
#[derive(Debug, Serialize)]
struct Loaded {
    module: String,
    /// False where it was in force already.
    changed: bool,
    /// Milliseconds from loading to the end of the transition.
    milliseconds: u64,
}

/// How modules are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a transition may take.
    pub limit: Duration,
    /// Load older versions over newer ones.
    pub downgrade: bool,
}

/// Loads one module.
pub fn one(cx: &mut Context<'_>, module: &Path, options: Options) -> Result<()> {
    let _lock = lock(cx)?;
    let path = cx.file(module)?;
    let loaded = load(cx, &path, options)?;
    if cx.json { cx.print(&loaded, "") } else { Ok(()) }
}

/// Loads all installed modules. What fails is told, and the others are loaded all the same.
pub fn all(cx: &mut Context<'_>, options: Options) -> Result<()> {
    let _lock = lock(cx)?;
    let release = cx.release(None)?;
    let installed = store::installed(&cx.root, Some(&release))?;
    let (mut done, mut failed) = (Vec::new(), 0);
    for module in &installed {
        match load(cx, &module.path, options) {
            Ok(loaded) => done.push(loaded),
            // A newer cumulative module has it all.
            Err(error @ Error::Older { .. }) => cx.warn(error),
            Err(error) => {
                failed += 1;
                cx.tell(&error);
            }
        }
    }
    if cx.json {
        cx.print(&done, "")?;
    }
    if failed > 0 { Err(Error::Some { failed, all: installed.len() }) } else { Ok(()) }
}

/// Takes the lock of commands that change what is loaded.
pub(super) fn lock(cx: &mut Context<'_>) -> Result<lock::Lock> {
    let root = cx.root.clone();
    Ok(lock::loading(&root, &mut || cx.say("waiting for another kpatch command"))?)
}

fn load(cx: &mut Context<'_>, path: &Path, options: Options) -> Result<Loaded> {
    let file = ModuleFile::open(path)?;
    let name = file.module.name.clone();
    let begin = cx.system.elapsed();
    let (plan, before) = decide(cx, &file.module, options)?;
    for remark in &plan.remarks {
        cx.say(format_args!("note: {remark}"));
    }
    match plan.start {
        Start::Nothing => {
            cx.say(format_args!("module {name} is loaded and enabled already"));
            return Ok(Loaded { module: name, changed: false, milliseconds: 0 });
        }
        Start::Wait => cx.say(format_args!("module {name} is being enabled already")),
        Start::Enable => {
            cx.say(format_args!("module {name} is loaded already, enabling it again"));
            transition::turn(cx, &name, true)?;
        }
        Start::Insert | Start::Reinsert => {
            cx.say(format_args!("loading patch module: {}", path.display()));
            if plan.start == Start::Reinsert {
                transition::remove(cx, &name)?;
            }
            insert(cx, &file, options.limit)?;
        }
    }
    if let End::Stalled(tasks, why) = transition::wait(cx, &name, true, options.limit)? {
        let undone = undo(cx, &name, options.limit);
        return Err(Error::Stalled { module: name, seconds: options.limit.as_secs(), undone, tasks, why });
    }
    let milliseconds = cx.system.elapsed().saturating_sub(begin).as_millis() as u64;
    if let Err(error) = remember(cx, &name, path) {
        cx.warn(format_args!("{name} is loaded, but not since when: {error}"));
    }
    remove_replaced(cx, &before);
    Ok(Loaded { module: name, changed: true, milliseconds })
}

/// The plan, once no other patch is on its way; and the state that it was made of.
fn decide(cx: &mut Context<'_>, module: &PatchModule, options: Options) -> Result<(plan::Load, State)> {
    let around = read::surroundings(&cx.root, module);
    let mut waited = false;
    loop {
        let state = read::state(&cx.root)?;
        match plan::load(module, &state, &around, options.downgrade) {
            Err(Error::OtherTransition(other)) if !waited => {
                waited = true;
                transition::others(cx, &other, options.limit)?;
            }
            result => return Ok((result?, state)),
        }
    }
}

fn insert(cx: &mut Context<'_>, file: &ModuleFile, limit: Duration) -> Result<()> {
    let name = file.module.name.as_str();
    let mut attempt = 1;
    loop {
        cx.system.log();
        let Err(error) = cx.system.insert(file.unchanged()?) else { return Ok(()) };
        let log = cx.system.log();
        if errno(&error) == Some(Errno::BUSY) && attempt < ATTEMPTS {
            attempt += 1;
            match read::state(&cx.root)?.in_transition().map(|patch| patch.name.clone()) {
                Some(other) => transition::others(cx, &other, limit)?,
                None => cx.system.wait(BETWEEN),
            }
            continue;
        }
        let ours =
            |line: &String| line.contains(name) || line.contains("livepatch") || line.contains("odule");
        return Err(Error::Refused {
            module: name.to_owned(),
            reason: refusal(&error),
            log: log.into_iter().filter(ours).collect(),
        });
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// What the kernel means by an error number, where it says more than its usual text.
fn refusal(error: &io::Error) -> String {
    let means = match errno(error) {
        Some(Errno::BUSY) => "a function is hooked by something else, or another transition does not end",
        Some(Errno::EXIST) => "a module of that name is loaded",
        Some(Errno::NOEXEC) => "the module does not fit the kernel",
        Some(Errno::NOENT) => "a symbol is missing in the kernel",
        Some(Errno::INVAL) => "a function or symbol to be patched is not found in the kernel",
        Some(Errno::KEYREJECTED | Errno::NOKEY) => "no key that the kernel trusts signed it",
        Some(Errno::PERM) => {
            "loading modules is not allowed here (not root, kernel.modules_disabled, or locked down and no key that \
             the kernel trusts signed it)"
        }
        _ => return error.to_string(),
    };
    format!("{means} ({error})")
}

/// Takes a stalled patch back. The words say how that went.
fn undo(cx: &mut Context<'_>, name: &str, limit: Duration) -> String {
    cx.say(format_args!("undoing the transition of {name}"));
    let back = transition::turn(cx, name, false)
        .and_then(|()| transition::wait(cx, name, false, limit))
        .and_then(|end| match end {
            End::There => transition::remove(cx, name).map(|()| true),
            End::Stalled(..) => Ok(false),
        });
    match back {
        Ok(true) => "it was undone and the module removed".to_owned(),
        Ok(false) => format!("undoing it has not ended either; `kpatch unload {name}` goes on with it"),
        Err(error) => format!("undoing it failed: {error}"),
    }
}

/// Notes since when the patch is in force.
fn remember(cx: &Context<'_>, name: &str, path: &Path) -> io::Result<()> {
    let inode = read::inode(&cx.root, name).ok_or_else(|| io::Error::other("it is gone from sysfs"))?;
    let file = std::path::absolute(path)?.display().to_string();
    let record = serde_json::to_vec(&Record { since: cx.system.now(), inode, file })?;
    let directory = cx.root.path(RECORDS);
    fs_err::create_dir_all(&directory)?;
    let mut out = tempfile::NamedTempFile::new_in(&directory)?;
    io::Write::write_all(&mut out, &record)?;
    out.persist(directory.join(format!("{name}.json")))?;
    Ok(())
}

/// The modules of replaced patches are of no use any more. One that was forced stays, by the kernel's rule.
fn remove_replaced(cx: &mut Context<'_>, before: &State) {
    let Ok(after) = read::state(&cx.root) else { return };
    for patch in &before.patches {
        if after.patch(&patch.name).is_none() && after.leftovers.contains(&patch.name) {
            match transition::remove(cx, &patch.name) {
                Ok(()) => cx.say(format_args!("removed the replaced module {}", patch.name)),
                Err(error) => cx.warn(error),
            }
        }
    }
}
