//! The tables of the livepatch API, read as the kernel reads them.

use goblin::elf::Sym;
use goblin::elf::sym::STT_FUNC;
use kpatch_elf::klp::VMLINUX;

use super::finding::Finding;
use super::view::{ModuleView, is_defined};
use crate::hook::{PREFIX, functions_symbol};
use crate::manifest::{ModuleManifest, PatchedObject};

// External fields of struct klp_func, klp_object and klp_patch (`include/linux/livepatch.h`), which are the
// first of each, all of pointer size; unchanged from 5.1 to 7.3.
const FUNC_OLD_NAME: u64 = 0;
const FUNC_NEW_FUNC: u64 = 8;
const FUNC_OLD_SYMPOS: u64 = 16;
const OBJECT_NAME: u64 = 0;
const OBJECT_FUNCS: u64 = 8;
const OBJECT_CALLBACKS: u64 = 16;
const PATCH_MOD: u64 = 0;
const PATCH_OBJS: u64 = 8;

pub(super) fn check(view: &ModuleView<'_>, manifest: &ModuleManifest, findings: &mut Vec<Finding>) {
    if manifest.objects.iter().all(|o| o.functions.is_empty() && o.callbacks.is_empty()) {
        findings.push(Finding::Empty);
    }
    let mut bad = |object: &str, what: String| {
        findings.push(Finding::Table { object: object.to_owned(), what });
    };
    let Some(objects) = datum(view, &format!("{PREFIX}objects")) else {
        bad("patch", "struct klp_object is missing".to_owned());
        return;
    };
    match datum(view, &format!("{PREFIX}patch")) {
        None => bad("patch", "struct klp_patch is missing".to_owned()),
        Some(patch) => {
            let pointer = |offset| view.relocation_at(patch.st_shndx, patch.st_value.wrapping_add(offset));
            if pointer(PATCH_MOD).is_none_or(|r| view.name_at(r.symbol) != "__this_module") {
                bad("patch", "mod is not the module".to_owned());
            }
            if pointer(PATCH_OBJS).and_then(|r| view.target(r)) != Some((objects.st_shndx, objects.st_value))
            {
                bad("patch", "objs is not the table of objects".to_owned());
            }
        }
    }
    if !view.symbols.iter().any(|s| view.symbol_name(s) == "klp_enable_patch") {
        bad("patch", "nobody calls klp_enable_patch".to_owned());
    }
    // One entry each, and the one that ends the table.
    let Some(stride) = stride(objects, manifest.objects.len()) else {
        bad("patch", "struct klp_object has another number of entries".to_owned());
        return;
    };
    for (index, object) in manifest.objects.iter().enumerate() {
        let entry = objects.st_value + stride * index as u64;
        let pointer = |offset| view.relocation_at(objects.st_shndx, entry + offset);
        let name = pointer(OBJECT_NAME).and_then(|r| view.string(r));
        let expected = (object.name != VMLINUX).then_some(object.name.as_str());
        if name != expected || expected.is_none() && pointer(OBJECT_NAME).is_some() {
            bad(&object.name, format!("its name is {:?}", name.unwrap_or("none")));
        }
        let functions = datum(view, &functions_symbol(index));
        let target = pointer(OBJECT_FUNCS).and_then(|r| view.target(r));
        match functions {
            Some(table) if target == Some((table.st_shndx, table.st_value)) => {
                functions_of(view, manifest, object, table, &mut bad);
            }
            _ => bad(&object.name, "funcs is not its table of functions".to_owned()),
        }
        for callback in &object.callbacks {
            let offset = OBJECT_CALLBACKS + 8 * callback.kind as u64;
            let name = manifest.final_name(&callback.symbol);
            let target = pointer(offset).and_then(|r| view.target(r));
            if target.is_none_or(|place| !function_at(view, place, name)) {
                bad(&object.name, format!("{:?} callback is not {name}", callback.kind));
            }
        }
        let last = entry + stride;
        if index + 1 == manifest.objects.len()
            && view.relocations_of(objects.st_shndx).any(|r| r.offset >= last && r.offset < last + stride)
        {
            bad("patch", "struct klp_object has no end".to_owned());
        }
    }
}

fn functions_of(
    view: &ModuleView<'_>,
    manifest: &ModuleManifest,
    object: &PatchedObject,
    table: &Sym,
    bad: &mut impl FnMut(&str, String),
) {
    let Some(stride) = stride(table, object.functions.len()) else {
        bad(&object.name, "struct klp_func has another number of entries".to_owned());
        return;
    };
    let bytes = view.bytes(table.st_shndx);
    for (index, function) in object.functions.iter().enumerate() {
        let entry = table.st_value + stride * index as u64;
        let pointer = |offset| view.relocation_at(table.st_shndx, entry + offset);
        let name = pointer(FUNC_OLD_NAME).and_then(|r| view.string(r));
        if name != Some(function.name.as_str()) {
            bad(&object.name, format!("entry {index} names {name:?}, not {}", function.name));
        }
        let sympos = view.word(bytes, (entry + FUNC_OLD_SYMPOS) as usize);
        if sympos != Some(u64::from(function.sympos)) {
            bad(&object.name, format!("{}: sympos is {sympos:?}, not {}", function.name, function.sympos));
        }
        let new = manifest.final_name(&function.symbol);
        let target = pointer(FUNC_NEW_FUNC).and_then(|r| view.target(r));
        if target.is_none_or(|place| !function_at(view, place, new)) {
            bad(&object.name, format!("{}: new_func is not relocated to function {new}", function.name));
        }
    }
    let last = table.st_value + stride * object.functions.len() as u64;
    if view.relocations_of(table.st_shndx).any(|r| r.offset >= last && r.offset < last + stride) {
        bad(&object.name, "struct klp_func has no end".to_owned());
    }
}

/// The only datum of that name.
fn datum<'v>(view: &'v ModuleView<'_>, name: &str) -> Option<&'v Sym> {
    let mut found = view.symbols.iter().filter(|s| is_defined(s) && view.symbol_name(s) == name);
    let symbol = found.next()?;
    let end = symbol.st_value.checked_add(symbol.st_size)?;
    (found.next().is_none() && end <= view.bytes(symbol.st_shndx).len() as u64).then_some(symbol)
}

/// Size of an entry of a table with `entries` entries and one that ends it.
fn stride(table: &Sym, entries: usize) -> Option<u64> {
    let count = entries as u64 + 1;
    let stride = table.st_size / count;
    (stride * count == table.st_size && stride >= 24).then_some(stride)
}

/// Does a function of that name begin there?
fn function_at(view: &ModuleView<'_>, place: (usize, u64), name: &str) -> bool {
    view.defined(name)
        .any(|(_, s)| s.st_type() == STT_FUNC && s.st_size > 0 && (s.st_shndx, s.st_value) == place)
}
