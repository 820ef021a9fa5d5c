//! What the linked object patches: functions and callbacks of each object of the kernel.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kpatch_elf::klp::VMLINUX;
use kpatch_elf::{SymbolId, binding};

use super::{Extract, LinkError, Linker, Maps};
use crate::manifest::{NewFunction, ObjectCallback, PatchedObject, Rename};

impl<'a, 'd> Linker<'a, 'd> {
    /// The tables of the hook.
    pub(super) fn objects(&mut self, maps: &Maps) -> Vec<PatchedObject> {
        let extracts: &'a [Extract<'d>] = self.extracts;
        let mut objects: BTreeMap<(bool, &str), PatchedObject> = BTreeMap::new();
        for (unit, extract) in extracts.iter().enumerate() {
            let manifest = &extract.manifest;
            let module = manifest.object != VMLINUX;
            if !module && manifest.functions.is_empty() && manifest.callbacks.is_empty() {
                continue;
            }
            // A module's relocations are applied only if the module is among the patched objects, also
            // when nothing but new code belongs to it.
            let object = objects.entry((module, manifest.object.as_str())).or_insert_with(|| PatchedObject {
                name: manifest.object.clone(),
                functions: Vec::new(),
                callbacks: Vec::new(),
            });
            for function in &manifest.functions {
                let Some(symbol) = self.own_symbol(unit, maps, &function.symbol) else { continue };
                let linked = self.unique_name(symbol, &function.symbol, false);
                let same = object
                    .functions
                    .iter()
                    .find(|f| f.name == function.name && f.sympos.max(1) == function.sympos.max(1));
                if let Some(other) = same {
                    self.errors.push(LinkError::TwoReplacements {
                        object: object.name.clone(),
                        name: function.name.clone(),
                        sympos: function.sympos,
                        first: other.unit.clone(),
                        second: manifest.unit.clone(),
                    });
                }
                object.functions.push(NewFunction {
                    symbol: linked,
                    name: function.name.clone(),
                    sympos: function.sympos,
                    old_size: function.old_size,
                    unit: manifest.unit.clone(),
                });
            }
            for callback in &manifest.callbacks {
                let Some(symbol) = self.own_symbol(unit, maps, &callback.symbol) else { continue };
                let linked = self.unique_name(symbol, &callback.symbol, true);
                if let Some(other) = object.callbacks.iter().find(|c| c.kind == callback.kind) {
                    self.errors.push(LinkError::TwoCallbacks {
                        object: object.name.clone(),
                        kind: callback.kind,
                        first: format!("{}: {}", other.unit, other.symbol),
                        second: format!("{}: {}", manifest.unit, callback.symbol),
                    });
                }
                object.callbacks.push(ObjectCallback {
                    kind: callback.kind,
                    symbol: linked,
                    unit: manifest.unit.clone(),
                });
            }
        }
        objects.into_values().collect()
    }

    /// The linked symbol of a function that the manifest of `unit` names.
    fn own_symbol(&mut self, unit: usize, maps: &Maps, name: &str) -> Option<SymbolId> {
        let object = &self.extracts[unit].object;
        let mut found = object
            .symbols_with_ids()
            .filter(|(_, s)| s.name.as_ref() == name.as_bytes() && s.is_function() && s.section().is_some());
        let what = match (found.next(), found.next()) {
            (Some((id, _)), None) => match maps[unit][id.index()] {
                Some(symbol) => return Some(symbol),
                None => "left out",
            },
            (Some(_), Some(_)) => "there twice",
            (None, _) => "no function",
        };
        self.errors.push(LinkError::Names { unit: self.unit(unit), symbol: name.to_owned(), what });
        None
    }

    /// Makes sure that no other symbol has the name of `symbol`, as hook and convert look it up by name.
    fn unique_name(&mut self, symbol: SymbolId, name: &str, callback: bool) -> String {
        if self.out.symbol(symbol).name.as_ref() != name.as_bytes() {
            // Named before, for another role.
            return self.out.symbol(symbol).name.to_string();
        }
        let count = self.out.symbols.iter().filter(|s| s.name.as_ref() == name.as_bytes()).count();
        // The hook's C file names callbacks, so that objtool sees their address taken.
        if count == 1 && !callback && !name.starts_with(crate::hook::PREFIX) {
            return name.to_owned();
        }
        let role = if callback { "callback" } else { "new" };
        let linked = format!("{}{role}_{}", crate::hook::PREFIX, self.renames.len());
        let entry = &mut self.out.symbols[symbol.index()];
        entry.name = Cow::Owned(linked.clone().into());
        if callback {
            entry.binding = binding::GLOBAL;
        }
        self.renames.push(Rename { linked: linked.clone(), name: name.to_owned() });
        linked
    }
}
