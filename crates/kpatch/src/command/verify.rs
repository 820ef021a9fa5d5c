//! `kpatch verify`: does the kernel do what the loaded modules say?
//!
//! Three kinds of evidence: ftrace's list of hooked functions, the code at each function's entry, and the
//! fields of the module that the livepatch core filled in. What cannot be read counts as unknown, never as
//! right.

mod references;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use kpatch_elf::arch::Machine;
use kpatch_elf::klp::VMLINUX;
use kpatch_elf::note::NotedFunction;
use serde::Serialize;

use super::info::function as show;
use super::{Context, module_name};
use crate::edge::memory::Memory;
use crate::edge::{read, store};
use crate::error::{Error, Result};
use crate::model::entry;
use crate::model::ftrace::{Hooked, parse_enabled_functions};
use crate::model::module::PatchModule;
use crate::model::state::{LivePatch, Phase};
use crate::model::symbols::{Found, Symbols};
use crate::model::x86_64;

/// The machine that we run on; none that live patching knows leaves everything unknown.
const MACHINE: Option<Machine> = if cfg!(target_arch = "x86_64") {
    Some(Machine::X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(Machine::Aarch64)
} else if cfg!(target_arch = "powerpc64") {
    Some(Machine::Ppc64le)
} else if cfg!(target_arch = "s390x") {
    Some(Machine::S390x)
} else if cfg!(target_arch = "loongarch64") {
    Some(Machine::LoongArch64)
} else {
    None
};

/// What is known of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Right,
    Wrong,
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    verdict: Verdict,
    why: String,
}

#[derive(Debug, Serialize)]
struct Verified {
    module: String,
    checks: Vec<Check>,
}

impl Verified {
    fn add(&mut self, what: impl Into<String>, verdict: Verdict, why: impl Into<String>) {
        self.checks.push(Check { what: what.into(), verdict, why: why.into() });
    }
}

/// What the running system shows; each part may be unreadable, then it says why.
struct Evidence {
    hooks: Option<Vec<Hooked>>,
    symbols: Symbols,
    memory: Result<Memory, String>,
    modules: BTreeSet<String>,
}

/// Checks one loaded patch, or all.
pub fn run(cx: &mut Context<'_>, module: Option<&str>) -> Result<()> {
    let state = read::state(&cx.root)?;
    let wanted = module.map(|name| module_name(name.as_ref()));
    if let Some(name) = wanted.as_ref().filter(|name| state.patch(name).is_none()) {
        return Err(Error::NotLoaded(name.clone()));
    }
    let patches = state.patches.iter().filter(|patch| wanted.as_ref().is_none_or(|name| *name == patch.name));
    let patches: Vec<(&LivePatch, Result<PatchModule, String>)> =
        patches.map(|patch| (patch, file_of(cx, patch))).collect();
    let evidence = gather(cx, &patches);
    let mut verified = Vec::new();
    for (patch, file) in &patches {
        let mut out = Verified { module: patch.name.clone(), checks: Vec::new() };
        match patch.phase() {
            Phase::Enabled => out.add("state", Verdict::Right, "enabled"),
            other => out.add("state", Verdict::Wrong, other.word()),
        }
        objects(patch, &evidence, &mut out);
        functions(patch, &evidence, &mut out);
        match file {
            Ok(module) => references::check(cx, module, &evidence, &mut out),
            Err(why) => out.add("references", Verdict::Unknown, why.as_str()),
        }
        verified.push(out);
    }
    let text = text(&verified);
    cx.print(&verified, &text)?;
    let count = |verdict| {
        verified.iter().flat_map(|one| &one.checks).filter(|check| check.verdict == verdict).count()
    };
    let all: usize = verified.iter().map(|one| one.checks.len()).sum();
    match (count(Verdict::Wrong), count(Verdict::Unknown)) {
        (0, 0) => Ok(()),
        (0, unknown) => {
            Err(Error::Verify(format!("{unknown} of {all} checks could not be made on this system")))
        }
        (wrong, _) => Err(Error::Verify(format!("{wrong} of {all} checks failed"))),
    }
}

/// The file that a loaded module came from: only it tells of references.
fn file_of(cx: &Context<'_>, patch: &LivePatch) -> Result<PatchModule, String> {
    let recorded = read::record(&cx.root, &patch.name).map(|record| PathBuf::from(record.file));
    let installed = store::installed(&cx.root, cx.release(None).ok().as_deref()).unwrap_or_default();
    let installed = installed.into_iter().map(|module| module.path);
    for path in recorded.into_iter().chain(installed) {
        let Ok(module) = read::module(&path) else { continue };
        // Without a note nothing tells that it is the same build.
        if module.name == patch.name && module.note.is_some() && module.note == patch.note {
            return Ok(module);
        }
    }
    Err("the file that the module was loaded from is not there any more".to_owned())
}

fn gather(cx: &Context<'_>, patches: &[(&LivePatch, Result<PatchModule, String>)]) -> Evidence {
    let functions: Vec<NotedFunction> = patches.iter().flat_map(|(patch, _)| patch.functions()).collect();
    let mut names: BTreeSet<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    for (_, file) in patches {
        names.extend(file.iter().flat_map(|module| &module.relocations).map(|r| r.symbol.as_str()));
    }
    names.extend(x86_64::NO_FUNCTION);
    let table = cx.root.maybe("/proc/kallsyms").unwrap_or_default();
    Evidence {
        hooks: read::tracefs(&cx.root, "enabled_functions").map(|text| parse_enabled_functions(&text)),
        symbols: Symbols::parse(&table, &names),
        memory: Memory::open(&cx.root, read::NATIVE).map_err(|error| format!("/proc/kcore: {error}")),
        modules: cx.root.names("/sys/module").unwrap_or_default().into_iter().collect(),
    }
}

impl Evidence {
    fn has(&self, object: &str) -> bool {
        object == VMLINUX || self.modules.contains(object)
    }

    fn find(&self, object: &str, name: &str, sympos: u32) -> Result<u64, (Verdict, String)> {
        match self.symbols.find(object, name, sympos) {
            Found::At(address) => Ok(address),
            Found::Missing => Err((Verdict::Wrong, format!("{object} has no {name},{sympos}"))),
            Found::Ambiguous => Err((Verdict::Wrong, format!("{object} has several {name}"))),
            Found::Hidden => {
                Err((Verdict::Unknown, "the kernel hides addresses (kernel.kptr_restrict)".to_owned()))
            }
        }
    }

    fn bytes(&self, address: u64, size: usize) -> Result<Vec<u8>, (Verdict, String)> {
        let memory = self.memory.as_ref().map_err(|why| (Verdict::Unknown, why.clone()))?;
        memory.read(address, size).map_err(|error| (Verdict::Unknown, format!("/proc/kcore: {error}")))
    }
}

fn objects(patch: &LivePatch, evidence: &Evidence, out: &mut Verified) {
    for object in &patch.objects {
        match (object.patched, evidence.has(&object.name)) {
            (Some(true), _) | (None, true) => out.add(&object.name, Verdict::Right, "patched"),
            (_, false) => out.add(&object.name, Verdict::Right, "not loaded, will be patched when it is"),
            (Some(false), true) => out.add(&object.name, Verdict::Wrong, "loaded, but not patched"),
        }
    }
}

/// Each function must be hooked by something that redirects, and begin with a call.
fn functions(patch: &LivePatch, evidence: &Evidence, out: &mut Verified) {
    for function in patch.functions().filter(|function| evidence.has(&function.object)) {
        let result = hooked(&function, evidence).and_then(|()| entered(&function, evidence));
        match result {
            Ok(()) => out.add(show(&function), Verdict::Right, "redirected"),
            Err((verdict, why)) => out.add(show(&function), verdict, why),
        }
    }
}

fn hooked(function: &NotedFunction, evidence: &Evidence) -> Result<(), (Verdict, String)> {
    let Some(hooks) = &evidence.hooks else {
        return Err((Verdict::Unknown, "tracefs is not mounted or not readable".to_owned()));
    };
    let is = |hook: &&Hooked| {
        hook.function == function.name && hook.module.as_deref().unwrap_or(VMLINUX) == function.object
    };
    if hooks.iter().filter(is).any(|hook| hook.redirects) {
        return Ok(());
    }
    Err((Verdict::Wrong, "ftrace does not redirect it".to_owned()))
}

fn entered(function: &NotedFunction, evidence: &Evidence) -> Result<(), (Verdict, String)> {
    let Some(machine) = MACHINE else {
        let why = "ftrace redirects it; code of this machine was not looked at";
        return Err((Verdict::Unknown, why.to_owned()));
    };
    let address = evidence.find(&function.object, &function.name, function.sympos)?;
    let code = evidence.bytes(address, entry::size(machine))?;
    match entry::leads_to_ftrace(machine, &code) {
        Some(true) => Ok(()),
        Some(false) => Err((Verdict::Wrong, format!("its code begins with {code:02x?}, which is no call"))),
        None => Err((Verdict::Unknown, format!("its code begins with {code:02x?}, which is not understood"))),
    }
}

fn text(verified: &[Verified]) -> String {
    let mut out = String::new();
    for module in verified {
        let _ = writeln!(out, "{}:", module.module);
        for check in &module.checks {
            let sign = match check.verdict {
                Verdict::Right => "ok",
                Verdict::Wrong => "WRONG",
                Verdict::Unknown => "unknown",
            };
            let _ = writeln!(out, "  {sign:8}{}: {}", check.what, check.why);
        }
    }
    if verified.is_empty() {
        out.push_str("no live patches are loaded\n");
    }
    out
}
