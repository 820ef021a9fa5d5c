//! `kpatch info`.

use std::fmt::Write as _;
use std::path::Path;

use kpatch_elf::note::{NotedFunction, PatchFile};
use serde::Serialize;

use super::{Context, cves, module_name};
use crate::edge::read;
use crate::error::{Error, Result};
use crate::model::state::LivePatch;

#[derive(Debug, Serialize)]
struct Info {
    module: String,
    /// The file; none where only the loaded module is known.
    file: Option<String>,
    release: Option<String>,
    build_id: Option<String>,
    made_by: Option<String>,
    replace: Option<bool>,
    signed: Option<bool>,
    patches: Vec<PatchFile>,
    cves: Vec<String>,
    functions: Vec<NotedFunction>,
    /// The rest of `.modinfo`.
    modinfo: Vec<(String, String)>,
}

/// Shows what a module carries: that of a file, or of a loaded module by its note.
pub fn run(cx: &mut Context<'_>, module: &Path) -> Result<()> {
    let info = match cx.file(module) {
        Ok(path) => of_file(&path)?,
        Err(error @ Error::NoSuchModule(_)) => {
            let name = module_name(module);
            of_loaded(read::state(&cx.root)?.patch(&name).ok_or(error)?)
        }
        Err(error) => return Err(error),
    };
    let text = text(&info);
    cx.print(&info, &text)
}

fn named_cves(patches: &[PatchFile]) -> Vec<String> {
    let texts: Vec<&str> =
        patches.iter().flat_map(|p| [p.subject.as_str(), p.description.as_str()]).collect();
    cves(&texts)
}

fn of_file(path: &Path) -> Result<Info> {
    let module = read::module(path)?;
    let patches = module.patches().to_vec();
    // Told in other words already.
    let told = |key: &str| key.starts_with("kpatch_") || key == "vermagic" || key == "name";
    Ok(Info {
        cves: named_cves(&patches),
        patches,
        file: Some(path.display().to_string()),
        release: Some(module.release().to_owned()),
        made_by: module.note.as_ref().map(|note| format!("kpatch-build {}", note.provenance.version)),
        build_id: module.build_id,
        replace: module.replace,
        signed: Some(module.signed),
        functions: module.functions,
        modinfo: module.info.into_iter().filter(|(key, _)| !told(key)).collect(),
        module: module.name,
    })
}

fn of_loaded(patch: &LivePatch) -> Info {
    let from = patch.note.as_ref().map(|note| &note.provenance);
    let patches = from.map_or_else(Vec::new, |from| from.patches.clone());
    Info {
        module: patch.name.clone(),
        file: None,
        release: from.map(|from| from.release.clone()),
        build_id: from.and_then(|from| from.build_id.clone()),
        made_by: from.map(|from| format!("kpatch-build {}", from.version)),
        replace: patch.replace,
        signed: None,
        cves: named_cves(&patches),
        patches,
        functions: patch.functions().collect(),
        modinfo: Vec::new(),
    }
}

/// A function for people; its position only where it tells something.
pub(super) fn function(function: &NotedFunction) -> String {
    let position = if function.sympos > 1 { format!(",{}", function.sympos) } else { String::new() };
    format!("{} {}{position}", function.object, function.name)
}

fn text(info: &Info) -> String {
    let unknown = || "unknown".to_owned();
    let yes =
        |flag: Option<bool>| flag.map_or_else(unknown, |flag| if flag { "yes" } else { "no" }.to_owned());
    let mut out = String::new();
    let mut line = |tag: &str, value: &str| {
        let tag = if tag.is_empty() { String::new() } else { format!("{tag}:") };
        let _ = writeln!(out, "{tag:16}{value}");
    };
    line("module", &info.module);
    line("file", &info.file.clone().unwrap_or_else(|| "loaded, not installed".to_owned()));
    line("kernel", &info.release.clone().unwrap_or_else(unknown));
    line("build-id", &info.build_id.clone().unwrap_or_else(unknown));
    line("made by", &info.made_by.clone().unwrap_or_else(unknown));
    line("replaces all", &yes(info.replace));
    line("signed", &yes(info.signed));
    for cve in &info.cves {
        line("fixes", cve);
    }
    for patch in &info.patches {
        line("patch", &patch.subject);
        line("", &format!("blake3:{}", patch.blake3));
    }
    for entry in &info.functions {
        line("function", &function(entry));
    }
    for (tag, value) in &info.modinfo {
        line(tag, value);
    }
    out
}
