//! Sections that the input has not: what keeps the keys of static calls, and lists of entries.

use bstr::BString;
use kpatch_elf::arch::Machine;
use kpatch_elf::klp::VMLINUX;
use kpatch_elf::{Contents, Relocation, Section, binding, section_flags, section_type};

use super::{Emitter, Placed};
use crate::entry::tracer_call;
use crate::lookup::Resolution;
use crate::tables::TableKind;
use crate::unit::{ElementId, Kind};

impl Emitter<'_, '_> {
    /// For each static call, objtool must find its key in the object; nothing else refers to it there.
    pub(super) fn keep_keys(&mut self) {
        let mut entries = Vec::new();
        for trampoline in std::mem::take(&mut self.keys) {
            let key: BString = [b"__SCK__", &trampoline[7..]].concat().into();
            let unit = self.parts.patched;
            let defined = unit
                .object
                .symbols_with_ids()
                .find(|(_, s)| s.name.as_ref() == key && s.section().is_some())
                .and_then(|(id, _)| self.symbols.get(&id).copied());
            let symbol = match defined {
                Some(symbol) => symbol,
                None => match self.parts.lookup.external(key.as_ref()) {
                    Ok(Resolution::Klp { object, .. }) if object != VMLINUX => continue,
                    // Where the trampoline alone is exported, modules have no key and the kernel finds it by
                    // the trampoline.
                    Ok(Resolution::Unknown) if self.parts.lookup.is_exported(trampoline.as_ref()) => continue,
                    Ok(resolution) => self.undefined(key.as_ref(), &resolution, binding::GLOBAL),
                    Err(error) => {
                        self.errors.push((None, error));
                        continue;
                    }
                },
            };
            entries.push(symbol);
        }
        if entries.is_empty() {
            return;
        }
        let kind = self.out.machine.arch().absolute64();
        let mut section = Section::new(
            ".discard.addressable",
            section_type::PROGBITS,
            section_flags::ALLOC | section_flags::WRITE,
            8,
            vec![0; entries.len() * 8],
        );
        let relocations: Vec<Relocation> = entries
            .into_iter()
            .enumerate()
            .map(|(i, symbol)| Relocation { offset: i as u64 * 8, kind, symbol: Some(symbol), addend: 0 })
            .collect();
        section.relocations = relocations.into();
        self.out.add_section(section);
    }

    /// Lists the tracer's call sites where recordmcount or objtool would have done so.
    pub(super) fn entry_table(&mut self) {
        let unit = self.parts.patched;
        let mut sites = Vec::new();
        let placed: Vec<(ElementId, Placed)> = self.placed.iter().map(|(id, p)| (*id, *p)).collect();
        for (id, place) in placed {
            let element = unit.element(id);
            let listed = unit.entries_of[id.index()].iter().any(|e| {
                unit.element(*e).kind == Kind::Entry(TableKind::Entries) && self.placed.contains_key(e)
            });
            if element.kind != Kind::Function || listed {
                continue;
            }
            let (Some(reference), Some(main)) = (tracer_call(unit, id), element.main) else { continue };
            let Some(&symbol) = self.symbols.get(&main) else { continue };
            let field = reference.offset;
            // The field lies behind the operation code on x86, and is the instruction itself elsewhere.
            let front = u64::from(unit.object.machine == Machine::X86_64);
            let at = match field.checked_sub(front) {
                Some(at) if at >= element.start => at,
                _ => continue,
            };
            if front > 0 && reference.kind == 0 {
                self.restore_call(place, field);
            }
            sites.push((symbol, at as i64 - element.origin as i64));
        }
        if sites.is_empty() {
            return;
        }
        let kind = self.out.machine.arch().absolute64();
        let existing = self.out.section_named("__mcount_loc");
        let id = match existing {
            Some(id) => id,
            None => self.out.add_section(Section::new(
                "__mcount_loc",
                section_type::PROGBITS,
                section_flags::ALLOC,
                8,
                Vec::new(),
            )),
        };
        let section = &mut self.out.sections[id.index()];
        for (symbol, addend) in sites {
            let Contents::Bytes(bytes) = &mut section.contents else { return };
            let offset = bytes.len() as u64;
            bytes.to_mut().extend_from_slice(&[0; 8]);
            section.relocations.to_mut().push(Relocation { offset, kind, symbol: Some(symbol), addend });
        }
    }

    /// recordmcount turned the call into a no-operation; the module loader expects it to be a call.
    pub(super) fn restore_call(&mut self, place: Placed, field: u64) {
        let field = field.wrapping_add_signed(place.delta);
        let section = &mut self.out.sections[place.section.index()];
        let Contents::Bytes(bytes) = &mut section.contents else { return };
        let from = field as usize - 1;
        if let Some(site) = bytes.to_mut().get_mut(from..from + 5)
            && site[0] == 0x0f
        {
            site.copy_from_slice(&[0xe8, 0, 0, 0, 0]);
            for relocation in section.relocations.to_mut() {
                if relocation.offset == field {
                    relocation.kind = 2;
                    relocation.addend = -4;
                }
            }
        }
    }
}
