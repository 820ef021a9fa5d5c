//! Symbols that somebody else has to provide: livepatch, or the exports of the kernel.

use std::collections::{BTreeMap, BTreeSet};

use goblin::elf::header::EM_PPC64;
use goblin::elf::sym::STB_WEAK;
use kbuild::symtab::ShippedKind;
use kpatch_elf::klp::{self, SHN_LIVEPATCH, SYMBOL_PREFIX};

use super::Target;
use super::finding::Finding;
use super::view::{ModuleView, UNDEFINED};
use crate::manifest::{KlpReference, ModuleManifest};

pub(super) fn livepatch(
    view: &ModuleView<'_>,
    manifest: &ModuleManifest,
    target: &Target<'_>,
    findings: &mut Vec<Finding>,
) {
    let limit = name_limit(target.release);
    let mut expected: BTreeMap<(&str, &str, u32), &KlpReference> =
        manifest.references.iter().map(|r| ((r.object.as_str(), r.name.as_str(), r.sympos), r)).collect();
    let mut found = BTreeSet::new();
    for symbol in &view.symbols {
        let name = view.symbol_name(symbol);
        if symbol.st_shndx != usize::from(SHN_LIVEPATCH) && !name.starts_with(SYMBOL_PREFIX) {
            continue;
        }
        let parsed = klp::parse_symbol_name(name.into())
            .filter(|_| symbol.st_shndx == usize::from(SHN_LIVEPATCH))
            .and_then(|(object, plain, sympos)| {
                Some((std::str::from_utf8(object).ok()?, std::str::from_utf8(plain).ok()?, sympos))
            })
            .filter(|(_, plain, _)| plain.len() <= limit);
        let Some(key) = parsed else {
            findings.push(Finding::SymbolName { symbol: name.to_owned() });
            continue;
        };
        found.insert(key);
        let reference = expected.remove(&key);
        if reference.is_none() {
            findings.push(Finding::UnexpectedSymbol { symbol: name.to_owned() });
        }
        lookup(name, key, reference, target, findings);
    }
    // One that nobody refers to any more is gone on purpose only if its sole users were sections that are
    // discarded at the final link; those of objtool's needs are the static calls' keys.
    for (key, reference) in expected {
        if !found.contains(&key) && !reference.name.starts_with("__SCK__") {
            findings.push(Finding::LostReference {
                symbol: reference.symbol.clone(),
                object: reference.object.clone(),
                name: reference.name.clone(),
            });
        }
    }
}

fn lookup(
    symbol: &str,
    (object, name, sympos): (&str, &str, u32),
    reference: Option<&KlpReference>,
    target: &Target<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(table) = target.tables.get(object) else {
        findings.push(Finding::NoTable { symbol: symbol.to_owned(), object: object.to_owned() });
        return;
    };
    let mut wrong = |hint: String| {
        findings.push(Finding::NoSymbol {
            symbol: symbol.to_owned(),
            object: object.to_owned(),
            name: name.to_owned(),
            sympos,
            hint,
        });
    };
    match table.at_sympos(name.into(), sympos) {
        None => {
            let count = table.named(name.into()).filter(|&id| table.symbol(id).listed).count();
            wrong(format!(" (there are {count} of that name)"));
        }
        Some(id) => {
            let datum = table.symbol(id).kind == ShippedKind::Object;
            if datum && reference.is_some_and(|r| r.function) {
                wrong(" (a datum is there, a function is meant)".to_owned());
            }
        }
    }
}

/// The longest symbol name that the kernel's `sscanf` of livepatch symbols takes: `KSYM_NAME_LEN - 1`,
/// which went from 128 to 512 in 6.1.
fn name_limit(release: &str) -> usize {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => 127,
        _ => 511,
    }
}

pub(super) fn undefined(view: &ModuleView<'_>, target: &Target<'_>, findings: &mut Vec<Finding>) {
    let imports: BTreeSet<&str> = view.info("import_ns").collect();
    for name in undefined_names(view) {
        let symbol = name.to_owned();
        match target.exports.get(name.into()) {
            None => findings.push(Finding::NotExported { symbol }),
            Some(export) if export.is_restricted() => {
                findings.push(Finding::Restricted { symbol, namespace: export.namespace.to_string() });
            }
            Some(export) if !export.is_vmlinux() => {
                findings.push(Finding::ModuleExport { symbol, object: export.object.to_string() });
            }
            Some(export) => {
                let namespace = export.namespace.to_string();
                if !namespace.is_empty() && !imports.contains(namespace.as_str()) {
                    findings.push(Finding::Namespace { symbol, namespace });
                }
            }
        }
    }
}

/// The loader looks up every undefined symbol, used or not; a weak one may stay without.
fn undefined_names<'v>(view: &'v ModuleView<'_>) -> impl Iterator<Item = &'v str> {
    view.symbols
        .iter()
        .skip(1)
        .filter(|s| s.st_shndx == UNDEFINED && s.st_bind() != STB_WEAK)
        .map(|s| view.symbol_name(s))
        .filter(|&name| !(name == ".TOC." && view.elf.header.e_machine == EM_PPC64))
}

/// `sizeof(struct modversion_info)`: the CRC in a word, then the name.
const VERSION_ENTRY: usize = 64;

pub(super) fn versions(view: &ModuleView<'_>, target: &Target<'_>, findings: &mut Vec<Finding>) {
    let versions = match noted_versions(view) {
        Ok(versions) => versions,
        Err(finding) => {
            findings.push(finding);
            return;
        }
    };
    if !target.modversions {
        return;
    }
    let weak = view.symbols.iter().skip(1).filter(|s| s.st_shndx == UNDEFINED && s.st_bind() == STB_WEAK);
    let weak: BTreeSet<&str> = weak.map(|s| view.symbol_name(s)).collect();
    // The version of struct module itself, which every module needs.
    let needed: BTreeSet<&str> = undefined_names(view).chain(["module_layout"]).collect();
    for name in &needed {
        let Some(expected) = target.exports.get((*name).into()) else { continue };
        match versions.get(*name) {
            None => findings.push(Finding::NoVersion { symbol: (*name).to_owned() }),
            Some(&found) if found != expected.crc => {
                findings.push(Finding::Version { symbol: (*name).to_owned(), found, expected: expected.crc });
            }
            Some(_) => {}
        }
    }
    for name in versions.keys() {
        if !needed.contains(name.as_str()) && !weak.contains(name.as_str()) {
            findings.push(Finding::StrayVersion { symbol: name.clone() });
        }
    }
}

/// The versions that the module notes, in either form.
fn noted_versions(view: &ModuleView<'_>) -> Result<BTreeMap<String, u32>, Finding> {
    let mut versions = BTreeMap::new();
    if let Some(index) = view.section_named("__versions") {
        let bytes = view.bytes(index);
        let entries = bytes.chunks_exact(VERSION_ENTRY);
        if !entries.remainder().is_empty() {
            return Err(Finding::Versions { section: "__versions", what: "is cut off" });
        }
        for entry in entries {
            let name = entry[8..].split(|&b| b == 0).next().unwrap_or_default();
            let crc = view.word(entry, 0).unwrap_or_default();
            versions.insert(String::from_utf8_lossy(name).into_owned(), crc as u32);
        }
    }
    let names = view.section_named("__version_ext_names");
    if let Some((names, crcs)) = names.zip(view.section_named("__version_ext_crcs")) {
        let words = view.bytes(crcs);
        let mut count = 0;
        for name in view.bytes(names).split(|&b| b == 0).filter(|name| !name.is_empty()) {
            let Some(crc) = view.half(words, count * 4) else { break };
            versions.insert(String::from_utf8_lossy(name).into_owned(), crc);
            count += 1;
        }
        if count * 4 != words.len() {
            return Err(Finding::Versions { section: "__version_ext_names", what: "does not fit its CRCs" });
        }
    }
    Ok(versions)
}
