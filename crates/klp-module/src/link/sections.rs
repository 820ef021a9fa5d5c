//! Where each section of each unit goes: tables and strings are joined, code and data keep sections of their own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, BString};
use kpatch_elf::arch::Machine;
use kpatch_elf::extract;
use kpatch_elf::{Contents, Link, Relocations, Section, SectionId, section_flags, section_type};

use super::{LinkError, Linker};
use crate::special::SPECIAL_SECTIONS;

impl Linker<'_, '_> {
    /// Joins tables and strings; gives sections of single functions and data a name of their own.
    pub(super) fn place_sections(&mut self) {
        let mut taken: BTreeSet<BString> = BTreeSet::new();
        let mut joined: BTreeMap<(BString, u32, u64, u64), SectionId> = BTreeMap::new();
        for extract in self.extracts {
            let mut bases = Vec::with_capacity(extract.object.sections.len());
            let mut linked = Vec::new();
            for section in &extract.object.sections {
                if left_out(section) {
                    bases.push(None);
                    continue;
                }
                if joins(section) {
                    let key = (
                        BString::from(section.name.to_vec()),
                        section.kind,
                        section.flags,
                        section.entry_size,
                    );
                    if let Some(&id) = joined.get(&key) {
                        let out = &mut self.out.sections[id.index()];
                        let end = out.size();
                        let base = append(out, section, self.extracts[0].object.machine);
                        if base != end
                            && !ends_in_padding(section.name.as_ref(), base)
                            && SPECIAL_SECTIONS.iter().any(|s| section.name.as_ref() == s.as_bytes())
                        {
                            // What fills the gap would be read as an entry.
                            self.errors.push(LinkError::Section {
                                unit: extract.manifest.unit.clone(),
                                section: section.name.to_string(),
                                what: "its alignment leaves a gap between entries of two units",
                            });
                        }
                        bases.push(Some((id, base)));
                        continue;
                    }
                    let id = self.out.add_section(copy(section, section.name.clone()));
                    taken.insert(section.name.to_vec().into());
                    joined.insert(key, id);
                    bases.push(Some((id, 0)));
                    continue;
                }
                let name = if matches!(section.link, Link::None) {
                    unused_name(section.name.as_ref(), |name| taken.contains(name))
                } else {
                    // The code a table belongs to is told by its link; its name is what the kernel looks for.
                    section.name.clone()
                };
                taken.insert(name.to_vec().into());
                let id = self.out.add_section(copy(section, name));
                linked.push((id, section));
                bases.push(Some((id, 0)));
            }
            for (id, section) in linked {
                let map = |old: SectionId| bases.get(old.index()).copied().flatten().map(|(new, _)| new);
                let out = &mut self.out.sections[id.index()];
                out.link = match section.link {
                    Link::Section(old) => map(old).map_or(Link::None, Link::Section),
                    link => link,
                };
                if let Contents::Group { flags, members } = &section.contents {
                    let members = members.iter().filter_map(|&m| map(m)).collect();
                    out.contents = Contents::Group { flags: *flags, members };
                }
            }
            self.bases.push(bases);
        }
    }
}

/// Sections that are of no use to the module.
fn left_out(section: &Section<'_>) -> bool {
    section.name.as_ref() == extract::SECTION.as_bytes()
        || section.name.as_ref() == ".note.GNU-stack"
        || section.name.as_ref() == ".note.gnu.property"
        || section.name.as_ref() == ".comment"
        || section.kind == section_type::LLVM_ADDRSIG
}

/// Sections that the linked object has only one of by name: tables, which objtool and the module loader
/// find by name, and strings. Sections that -ffunction-sections and -fdata-sections made stay single.
fn joins(section: &Section<'_>) -> bool {
    const SINGLE: [&str; 5] = [".text.", ".data.", ".bss.", ".rodata.", ".ref.text."];
    if !matches!(section.link, Link::None) || matches!(section.contents, Contents::Group { .. }) {
        return false;
    }
    if section.has(section_flags::GROUP) {
        return false;
    }
    if section.has(section_flags::MERGE) {
        return true;
    }
    // Two dots mark names that mean something to the kernel: .data..ro_after_init, .text..refcount.
    !SINGLE.iter().any(|prefix| {
        section.name.strip_prefix(prefix.as_bytes()).is_some_and(|rest| !rest.starts_with(b"."))
    })
}

fn copy<'d>(section: &Section<'d>, name: Cow<'d, BStr>) -> Section<'d> {
    Section { name, link: Link::None, relocations: Relocations::new(), ..section.clone() }
}

/// Puts a section behind what is there, returns the offset it got.
fn append(out: &mut Section<'_>, section: &Section<'_>, machine: Machine) -> u64 {
    let code = out.is_text();
    let align = section.align.max(1);
    let base = out.size().checked_next_multiple_of(align).unwrap_or(u64::MAX);
    out.align = out.align.max(section.align);
    match (&mut out.contents, &section.contents) {
        (Contents::Bytes(bytes), Contents::Bytes(more)) => {
            let bytes = bytes.to_mut();
            // objtool reads what is between functions as code.
            let filler = if code { no_operation(machine) } else { &[0] };
            while (bytes.len() as u64) < base {
                bytes.push(filler[bytes.len() % filler.len()]);
            }
            bytes.extend_from_slice(more);
        }
        (Contents::Zero(size), Contents::Zero(more)) => *size = base.saturating_add(*more),
        // The key of joined sections holds their type, so that contents are of one kind.
        _ => {}
    }
    base
}

/// An instruction that does nothing, in memory order.
fn no_operation(machine: Machine) -> &'static [u8] {
    match machine {
        Machine::X86_64 => &[0x90],
        Machine::Aarch64 => &[0x1f, 0x20, 0x03, 0xd5],
        Machine::Ppc64le => &[0x00, 0x00, 0x00, 0x60],
        Machine::S390x => &[0x07, 0x07],
        Machine::LoongArch64 => &[0x00, 0x00, 0x40, 0x03],
    }
}

/// `NAME`, or `NAME.2`, `NAME.3` and so on, whichever is unused.
fn unused_name<'d>(name: &BStr, taken: impl Fn(&BString) -> bool) -> Cow<'d, BStr> {
    let mut candidate = BString::from(name.to_vec());
    let mut number = 1u32;
    while taken(&candidate) {
        number += 1;
        candidate = BString::from(name.to_vec());
        candidate.extend_from_slice(format!(".{number}").as_bytes());
    }
    Cow::Owned(candidate)
}

/// Whether a gap before `base` is what the last entry lacks. `_paravirt_alt` (to 6.6) aligns entries of
/// `.parainstructions`, which are of 16 bytes, at their start; the last of a unit has 12.
fn ends_in_padding(table: &BStr, base: u64) -> bool {
    table == ".parainstructions" && base.is_multiple_of(16)
}
