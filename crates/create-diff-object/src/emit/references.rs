//! Carries references over: what each symbol of the extract means, and how far from it the place is.

use bstr::{BStr, BString, ByteSlice};
use kpatch_elf::arch::Flow;
use kpatch_elf::klp::VMLINUX;
use kpatch_elf::{Place, Relocation, Symbol, SymbolId, binding, extract};

use super::{Emitter, Placed};
use crate::error::DiffError;
use crate::lookup::Resolution;
use crate::names;
use crate::select::{Change, function_of};
use crate::tables::TableKind;
use crate::unit::{ElementId, Kind, Reference, Target, Unit};

/// Name under which the original of something that the extract defines as well is referred to.
const ALIAS: &str = "__klp_ref.";

impl Emitter<'_, '_> {
    /// Carries over the references of everything placed.
    pub(super) fn relocate(&mut self) {
        let unit = self.parts.patched;
        let placed: Vec<(ElementId, Placed)> = self.placed.iter().map(|(id, p)| (*id, *p)).collect();
        for (id, place) in placed {
            let limit = self.out.section(place.section).size();
            for reference in unit.references(id) {
                if unit.is_empty_replacement(id, reference) {
                    continue;
                }
                let offset = reference.offset.wrapping_add_signed(place.delta);
                if offset >= limit {
                    // Padding behind the function that is left behind.
                    continue;
                }
                if reference.synthetic && unit.object.machine.arch().is_short(reference.kind) {
                    let error = DiffError::ShortBranch {
                        place: place_of(unit, id, reference),
                        target: crate::compare::describe(unit, reference.target),
                    };
                    self.fail(id, error);
                    continue;
                }
                let Some((symbol, addend)) = self.carry(id, reference) else { continue };
                self.out.sections[place.section.index()].relocations.to_mut().push(Relocation {
                    offset,
                    kind: reference.kind,
                    symbol,
                    addend,
                });
            }
        }
        for section in &mut self.out.sections {
            section.relocations.to_mut().sort_by_key(|r| r.offset);
        }
    }

    /// Symbol and addend of a reference in the extract.
    pub(super) fn carry(&mut self, by: ElementId, reference: &Reference) -> Option<(Option<SymbolId>, i64)> {
        let unit = self.parts.patched;
        match reference.target {
            Target::Number(value) => Some((None, value)),
            Target::String(section, start, delta) => {
                let bytes = unit.string(section, start, 0)?.to_vec();
                let from = unit.begins_string(section, start).then_some(section);
                let (symbol, place) = self.pool(from, bytes);
                Some((Some(symbol), (place as i64).wrapping_add(delta).wrapping_sub(reference.bias())))
            }
            Target::Constant(section, start, delta) => {
                let bytes = unit.constant(section, start)?.to_vec();
                let (symbol, place) = self.pool(Some(section), bytes);
                Some((Some(symbol), (place as i64).wrapping_add(delta).wrapping_sub(reference.bias())))
            }
            Target::External(symbol, _) => {
                let old = unit.object.symbol(symbol);
                match old.place {
                    Place::Undefined => {
                        let new = self.outside(by, reference, symbol, old.binding)?;
                        Some((Some(new), unit.addend(reference)))
                    }
                    Place::Absolute => {
                        let out = &mut self.out;
                        let new = *self.symbols.entry(symbol).or_insert_with(|| out.add_symbol(old.clone()));
                        Some((Some(new), unit.addend(reference)))
                    }
                    _ => {
                        let error = self.uncarried(by, reference);
                        self.fail(by, error);
                        None
                    }
                }
            }
            Target::Element(target, delta) => self.carry_element(by, reference, target, delta),
        }
    }

    /// The undefined symbol for what another unit defines.
    fn outside(
        &mut self,
        by: ElementId,
        reference: &Reference,
        symbol: SymbolId,
        bound: u8,
    ) -> Option<SymbolId> {
        let name: &BStr = self.parts.patched.object.symbol(symbol).name.as_ref();
        if reference.flow == Flow::Next && self.parts.lookup.is_copied(name) {
            // A pointer may outlive the patch, and the original is not redirected.
            self.fail(by, DiffError::NoEntry { function: name.to_string() });
            return None;
        }
        if let Some((resolution, new)) = self.externals.get(&symbol).cloned() {
            self.check_special(by, &resolution);
            return Some(new);
        }
        let resolution = match self.parts.lookup.external(name) {
            Ok(resolution) => resolution,
            Err(error) => {
                self.fail(by, error);
                return None;
            }
        };
        self.check_special(by, &resolution);
        let new = self.undefined(name, &resolution, bound);
        if resolution == Resolution::Unknown && bound != binding::WEAK {
            self.unresolved.insert(names::text(name));
        }
        self.uses.entry(names::text(name)).or_insert((by, reference.offset));
        if name.starts_with(b"__SCT__") {
            self.keys.insert(name.into());
        }
        self.externals.insert(symbol, (resolution, new));
        Some(new)
    }

    pub(super) fn carry_element(
        &mut self,
        by: ElementId,
        reference: &Reference,
        target: ElementId,
        delta: i64,
    ) -> Option<(Option<SymbolId>, i64)> {
        let unit = self.parts.patched;
        let twin = self.parts.twins.of_patched[target.index()];
        let existing = self.parts.statuses.of[target.index()] != Change::New;
        let addend = delta.wrapping_sub(reference.bias());
        if let Some((symbol, name)) = unit.weak(target)
            && self.parts.lookup.is_copied(name)
        {
            // The definition that overrides this one has been replaced.
            let new = self.outside(by, reference, symbol, binding::GLOBAL)?;
            return Some((Some(new), addend));
        }
        // A pointer to a function that exists outlives the patch and must be comparable with pointers that
        // exist: it goes to the original.
        let pointer = unit.element(target).kind == Kind::Function
            && existing
            && delta == 0
            && reference.flow == Flow::Next
            && !matches!(unit.element(by).kind, Kind::Entry(_))
            && !self.parts.statuses.parent.contains_key(&target)
            && reference.kind != 0;
        if !pointer && let Some(&placed) = self.placed.get(&target) {
            let named = reference.symbol().filter(|s| !unit.object.symbol(*s).is_section());
            if let Some(symbol) = named.and_then(|s| self.symbols.get(&s)) {
                return Some((Some(*symbol), unit.addend(reference)));
            }
            if reference.synthetic
                && let Some(symbol) = unit.element(target).main.and_then(|s| self.symbols.get(&s))
            {
                return Some((Some(*symbol), addend));
            }
            let origin = (unit.element(target).origin as i64).wrapping_add(placed.delta);
            let symbol = self.section_symbol(placed.section);
            return Some((Some(symbol), origin.wrapping_add(addend)));
        }
        let Some(twin) = twin else {
            let error = self.uncarried(by, reference);
            self.fail(by, error);
            return None;
        };
        let section: &BStr = unit.section(target).name.as_ref();
        if unit.is_freed(unit.element(target).section) {
            self.fail(
                by,
                DiffError::InitReference {
                    by: unit.name(by),
                    name: unit.name(target),
                    section: section.to_string(),
                },
            );
            return None;
        }
        let original = self.parts.original;
        // An alias goes by its own name where both versions have it.
        let alias =
            reference.symbol().map(|s| unit.object.symbol(s).name.as_ref()).and_then(|name: &BStr| {
                let symbols = original.symbols(twin);
                symbols.iter().copied().find(|s| {
                    let symbol = original.object.symbol(*s);
                    symbol.name.as_ref() == name && symbol.value == original.element(twin).origin
                })
            });
        let Some(symbol) = alias.or(original.element(twin).main) else {
            let error = self.uncarried(by, reference);
            self.fail(by, error);
            return None;
        };
        let own = if self.placed.contains_key(&target) {
            self.parts.lookup.own_klp(original, symbol)
        } else {
            self.parts.lookup.own(original, symbol)
        };
        let resolution = match own {
            Ok(resolution) => resolution,
            Err(error) => {
                self.fail(by, error);
                return None;
            }
        };
        self.check_special(by, &resolution);
        let old = original.object.symbol(symbol);
        let name: BString = old.name.as_ref().into();
        let new = self.undefined(name.as_ref(), &resolution, binding::GLOBAL);
        if name.starts_with(b"__SCT__") {
            self.keys.insert(name);
        }
        Some((Some(new), addend))
    }

    pub(super) fn uncarried(&self, by: ElementId, reference: &Reference) -> DiffError {
        let unit = self.parts.patched;
        let kind = unit
            .object
            .machine
            .arch()
            .relocation_name(reference.kind)
            .map_or_else(|| reference.kind.to_string(), str::to_owned);
        let what = crate::compare::describe(unit, reference.target);
        DiffError::Relocation { kind, place: format!("{} (to {what})", place_of(unit, by, reference)) }
    }

    /// Tables are used as soon as the module is loaded, before the livepatch core relocates what depends on
    /// another module.
    pub(super) fn check_special(&mut self, by: ElementId, resolution: &Resolution) {
        let Resolution::Klp { object, name, .. } = resolution else { return };
        if object == VMLINUX {
            return;
        }
        let unit = self.parts.patched;
        let replacement = unit.element(by).kind == Kind::Detached
            && unit.section(by).name.as_bytes() == b".altinstr_replacement";
        // Entries about keys have been judged before, see `keys`.
        let entry = match unit.element(by).kind {
            Kind::Entry(kind) => !matches!(kind, TableKind::Jumps | TableKind::StaticCalls),
            _ => false,
        };
        if entry || replacement {
            let function = function_of(unit, by).map(|f| unit.name(f)).unwrap_or_default();
            let error = DiffError::ModuleSpecial {
                section: unit.section(by).name.to_string(),
                function,
                symbol: name.to_string(),
                object: object.clone(),
            };
            self.fail(by, error);
        }
    }

    /// The undefined symbol for a name and its meaning.
    pub(super) fn undefined(&mut self, name: &BStr, resolution: &Resolution, bind: u8) -> SymbolId {
        let key = (name.into(), resolution.clone());
        if let Some(&known) = self.undefined.get(&key) {
            return known;
        }
        let mut own: BString = name.into();
        if matches!(resolution, Resolution::Klp { .. }) {
            let mut number = 0;
            while self.names.contains(&own) {
                own = format!("{ALIAS}{name}").into();
                if number > 0 {
                    own.extend_from_slice(format!(".{number}").as_bytes());
                }
                number += 1;
            }
        }
        self.names.insert(own.clone());
        let weak = bind == binding::WEAK;
        let bind = if weak && *resolution == Resolution::Unknown { binding::WEAK } else { binding::GLOBAL };
        // A static call whose key lives in a module stays a call of its trampoline: objtool leaves calls to
        // weak symbols alone.
        let bind = match resolution {
            Resolution::Klp { object, .. } if object != VMLINUX && name.starts_with(b"__SCT__") => {
                binding::WEAK
            }
            _ => bind,
        };
        let symbol = self.out.add_symbol(Symbol::undefined(own.clone(), bind));
        if let Resolution::Klp { object, name, sympos, function } = resolution {
            self.references.push(extract::Reference {
                symbol: names::text(own.as_ref()),
                object: object.clone(),
                name: names::text(name.as_ref()),
                sympos: *sympos,
                function: *function,
            });
        }
        self.undefined.insert(key, symbol);
        symbol
    }
}

/// Where a reference is, for people: its element and the distance from there.
fn place_of(unit: &Unit<'_>, by: ElementId, reference: &Reference) -> String {
    format!("{}+{:#x}", unit.name(by), reference.offset as i64 - unit.element(by).origin as i64)
}
