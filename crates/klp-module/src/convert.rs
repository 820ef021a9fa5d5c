//! Convert: the module as kbuild leaves it gets its livepatch form.
//!
//! Until here the module was ordinary code with ordinary undefined symbols, so that the target's own
//! objtool and modpost could do their work on it. Now
//! * symbols of the manifest's references become `.klp.sym.OBJECT.NAME,SYMPOS` in `SHN_LIVEPATCH`;
//! * relocations against them move to `.klp.rela.GATE.SECTION`, and the bytes they apply to become zero,
//!   as the loader demands. The gate comes from each relocation's symbol, since the kernel's linker script
//!   may have joined sections of several units;
//! * the hook's tables get the addresses of the replacing functions;
//! * what modpost noted about the symbols that livepatch resolves is taken back;
//! * sections that nobody needs at run time go, and made-up names become the real ones.
//!
//! Symbols and sections keep their order.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bstr::{BStr, ByteSlice};
use kpatch_elf::klp::{self, SHF_RELA_LIVEPATCH, VMLINUX};
use kpatch_elf::{
    Contents, Info, Link, Object, Place, ReadError, Relocation, Section, SectionId, Symbol, SymbolId,
    WriteError, binding, section_flags, section_type, symbol_kind,
};
use thiserror::Error;

use crate::hook::{self, LAYOUT_SECTION};
use crate::manifest::{KlpReference, ModuleManifest};
use crate::special::SPECIAL_SECTIONS;

/// Why a module cannot be converted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConvertError {
    /// kbuild's module cannot be read.
    #[error("the module that kbuild made: {0}")]
    Read(#[from] ReadError),
    /// The finished module cannot be written.
    #[error("the converted module: {0}")]
    Write(#[from] WriteError),
    /// Something of the hook is missing.
    #[error("the module that kbuild made lacks {0} of the hook")]
    Hook(String),
    /// A replacing function is missing or not alone.
    #[error("{name}: the module that kbuild made has {count} functions of that name, one expected")]
    Function {
        /// Name of its symbol in the linked object.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A table that the loader works through before the relocation would happen.
    #[error(
        "{section}+{offset:#x} ({place}) refers to {symbol}, which livepatch resolves only when \
         {gate} is loaded; the kernel reads that table before"
    )]
    SpecialSection {
        /// The section.
        section: String,
        /// Offset in it.
        offset: u64,
        /// The function that the entry is about, as far as known.
        place: String,
        /// The symbol, as `OBJECT:NAME`.
        symbol: String,
        /// The object that has to be there.
        gate: String,
    },
    /// A relocation of a type that is unknown on this machine.
    #[error("{section}+{offset:#x}: relocation type {kind} against {symbol} is unknown")]
    RelocationType {
        /// The section.
        section: String,
        /// Offset in it.
        offset: u64,
        /// The type.
        kind: u32,
        /// The symbol.
        symbol: String,
    },
    /// A relocation that leads out of its section, or into one without bytes.
    #[error("{section}+{offset:#x}: relocation against {symbol} has no bytes to apply to")]
    NoBytes {
        /// The section.
        section: String,
        /// Offset in it.
        offset: u64,
        /// The symbol.
        symbol: String,
    },
    /// Versions in a form that is not known.
    #[error("section {section}: {what}")]
    Versions {
        /// The section.
        section: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// A name that livepatch cannot parse.
    #[error("{object}:{name}: the kernel cannot parse a livepatch symbol of that name")]
    SymbolName {
        /// The object.
        object: String,
        /// The symbol.
        name: String,
    },
}

/// Brings a module into livepatch form.
pub fn convert(module: &[u8], manifest: &ModuleManifest) -> Result<Vec<u8>, Vec<ConvertError>> {
    let mut object = Object::read(module).map_err(|error| vec![error.into()])?;
    let mut errors = Vec::new();
    if let Err(error) = fill_tables(&mut object, manifest, &mut errors) {
        errors.push(error);
    }
    drop_sections(&mut object);
    let references = livepatch_symbols(&mut object, manifest, &mut errors);
    livepatch_relocations(&mut object, &references, manifest, &mut errors);
    if let Err(error) = forget_versions(&mut object, manifest) {
        errors.push(error);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    rename(&mut object, manifest);
    drop_unused(&mut object);
    object.write().map_err(|error| vec![error.into()])
}

/// Layout of `struct klp_func` in the target kernel, bytes.
struct Layout {
    size: u64,
    old_name: u64,
    new_func: u64,
}

fn layout(object: &Object<'_>) -> Option<Layout> {
    let section = object.section(object.section_named(LAYOUT_SECTION)?);
    let word = |index: usize| object.endian.u64(section.bytes(), index * 8);
    let layout = Layout { size: word(0)?, old_name: word(1)?, new_func: word(2)? };
    (layout.old_name.checked_add(8)? <= layout.size && layout.new_func.checked_add(8)? <= layout.size)
        .then_some(layout)
}

/// Points the hook's tables to the replacing functions.
fn fill_tables(
    object: &mut Object<'_>,
    manifest: &ModuleManifest,
    errors: &mut Vec<ConvertError>,
) -> Result<(), ConvertError> {
    let layout = layout(object).ok_or_else(|| ConvertError::Hook(LAYOUT_SECTION.to_owned()))?;
    let pointer = object.machine.arch().absolute64();
    for (index, patched) in manifest.objects.iter().enumerate() {
        let name = hook::functions_symbol(index);
        let missing = || ConvertError::Hook(name.clone());
        let mut tables =
            object.symbols.iter().filter(|s| s.name.as_ref() == name.as_bytes() && s.is_object());
        let (Some(table), None) = (tables.next(), tables.next()) else { return Err(missing()) };
        let (Some(section), start) = (table.section(), table.value) else { return Err(missing()) };
        let entries = patched.functions.len() as u64;
        let whole = start.checked_add(layout.size.saturating_mul(entries + 1)).ok_or_else(missing)?;
        if whole > object.section(section).size() || object.section(section).bytes().is_empty() && entries > 0
        {
            return Err(missing());
        }
        for (place, function) in patched.functions.iter().enumerate() {
            let found: Vec<SymbolId> = object
                .symbols_with_ids()
                .filter(|(_, s)| s.name.as_ref() == function.symbol.as_bytes())
                .filter(|(_, s)| s.is_function() && s.section().is_some())
                .map(|(id, _)| id)
                .collect();
            let &[symbol] = found.as_slice() else {
                errors.push(ConvertError::Function { name: function.symbol.clone(), count: found.len() });
                continue;
            };
            let entry = start + layout.size * place as u64;
            let relocations = object.sections[section.index()].relocations.to_mut();
            // The table is the hook's if the entry has its name and nothing else.
            let at = |offset: u64| relocations.iter().any(|r| r.offset == offset);
            if !at(entry + layout.old_name) || at(entry + layout.new_func) {
                return Err(missing());
            }
            let offset = entry + layout.new_func;
            let position = relocations.partition_point(|r| r.offset < offset);
            relocations
                .insert(position, Relocation { offset, kind: pointer, symbol: Some(symbol), addend: 0 });
        }
    }
    Ok(())
}

/// Sections that serve debuggers or the build only.
fn unneeded(section: &Section<'_>) -> bool {
    let name = section.name.as_bytes();
    let plain = name.strip_prefix(b".rel").map_or(name, |rest| rest.strip_prefix(b"a").unwrap_or(rest));
    name == LAYOUT_SECTION.as_bytes()
        || matches!(
            plain,
            b".BTF" | b".BTF.ext" | b".BTF.base" | b".BTF_ids" | b".comment" | b".note.GNU-stack"
        )
        || name.starts_with(b".discard")
        || name.starts_with(b".gnu.lto_")
        || !section.is_alloc() && (section.is_debug() || name.starts_with(b".stab"))
}

/// Removes sections and what refers to them; ids change.
fn drop_sections(object: &mut Object<'_>) {
    retain_sections(object, |section| !unneeded(section));
}

fn retain_sections(object: &mut Object<'_>, keep: impl Fn(&Section<'_>) -> bool) {
    let mut next = 0;
    let ids: Vec<Option<SectionId>> = object
        .sections
        .iter()
        .map(|section| {
            keep(section).then(|| {
                next += 1;
                SectionId(next - 1)
            })
        })
        .collect();
    let map = |id: SectionId| ids[id.index()];
    let mut index = 0;
    object.sections.retain(|_| {
        index += 1;
        ids[index - 1].is_some()
    });
    for section in &mut object.sections {
        section.link = match section.link {
            Link::Section(id) => map(id).map_or(Link::None, Link::Section),
            link => link,
        };
        section.info = match section.info {
            Info::Section(id) => map(id).map_or(Info::Raw(0), Info::Section),
            info => info,
        };
        if let Contents::Group { members, .. } = &mut section.contents {
            *members = members.iter().filter_map(|&id| map(id)).collect();
        }
    }
    let mut gone = BTreeSet::new();
    for (index, symbol) in object.symbols.iter_mut().enumerate() {
        if let Some(section) = symbol.section() {
            match map(section) {
                Some(id) => symbol.place = Place::Section(id),
                None => {
                    gone.insert(SymbolId(index as u32));
                }
            }
        }
    }
    retain_symbols(object, |id, _| !gone.contains(&id));
}

/// Removes symbols; relocations that refer to a removed one go with it.
fn retain_symbols(object: &mut Object<'_>, keep: impl Fn(SymbolId, &Symbol<'_>) -> bool) {
    let mut next = 0;
    let ids: Vec<Option<SymbolId>> = object
        .symbols_with_ids()
        .map(|(id, symbol)| {
            keep(id, symbol).then(|| {
                next += 1;
                SymbolId(next - 1)
            })
        })
        .collect();
    let mut index = 0;
    object.symbols.retain(|_| {
        index += 1;
        ids[index - 1].is_some()
    });
    for section in &mut object.sections {
        if let Info::Symbol(id) = section.info {
            section.info = ids[id.index()].map_or(Info::Raw(0), Info::Symbol);
        }
        section.relocations.to_mut().retain_mut(|relocation| match relocation.symbol {
            None => true,
            Some(old) => {
                relocation.symbol = ids[old.index()];
                relocation.symbol.is_some()
            }
        });
    }
}

/// Turns the undefined symbols of references into livepatch symbols; tells which is which.
fn livepatch_symbols<'m>(
    object: &mut Object<'_>,
    manifest: &'m ModuleManifest,
    errors: &mut Vec<ConvertError>,
) -> BTreeMap<SymbolId, &'m KlpReference> {
    let by_name: BTreeMap<&[u8], &KlpReference> =
        manifest.references.iter().map(|r| (r.symbol.as_bytes(), r)).collect();
    let mut out = BTreeMap::new();
    for (index, symbol) in object.symbols.iter_mut().enumerate() {
        if !symbol.is_undefined() {
            continue;
        }
        let Some(&reference) = by_name.get(symbol.name.as_bytes()) else { continue };
        let (owner, name) = (BStr::new(&reference.object), BStr::new(&reference.name));
        let livepatch = klp::symbol_name(owner, name, reference.sympos);
        if klp::parse_symbol_name(livepatch.as_ref()) != Some((owner, name, reference.sympos)) {
            errors.push(ConvertError::SymbolName {
                object: reference.object.clone(),
                name: reference.name.clone(),
            });
        }
        symbol.name = Cow::Owned(livepatch);
        symbol.kind = symbol_kind::NOTYPE;
        symbol.binding = binding::GLOBAL;
        symbol.place = Place::Livepatch;
        symbol.value = 0;
        symbol.size = 0;
        out.insert(SymbolId(index as u32), reference);
    }
    out
}

/// Moves relocations against livepatch symbols to sections of their own.
fn livepatch_relocations(
    object: &mut Object<'_>,
    references: &BTreeMap<SymbolId, &KlpReference>,
    manifest: &ModuleManifest,
    errors: &mut Vec<ConvertError>,
) {
    let arch = object.machine.arch();
    let mut made = Vec::new();
    for index in 0..object.sections.len() {
        let section = &object.sections[index];
        if section.is_klp_rela() || section.relocations.is_empty() {
            continue;
        }
        let mut gates: BTreeMap<(bool, &str), Vec<Relocation>> = BTreeMap::new();
        let mut kept = Vec::with_capacity(section.relocations.len());
        for relocation in &section.relocations {
            match relocation.symbol.and_then(|symbol| references.get(&symbol)) {
                None => kept.push(relocation),
                Some(reference) => {
                    let gate = reference.gate.as_str();
                    gates.entry((gate != VMLINUX, gate)).or_default().push(relocation);
                    if gate != VMLINUX && is_special(section.name.as_ref()) {
                        errors.push(ConvertError::SpecialSection {
                            section: section.name.to_string(),
                            offset: relocation.offset,
                            place: place_of_entry(object, section, relocation.offset, manifest),
                            symbol: format!("{}:{}", reference.object, reference.name),
                            gate: gate.to_owned(),
                        });
                    }
                }
            }
        }
        if gates.is_empty() {
            continue;
        }
        let name = section.name.to_string();
        let alloc = section.is_alloc();
        if !alloc {
            // Nothing is loaded here, so that nothing can be resolved.
            object.sections[index].relocations = kept.into();
            continue;
        }
        let mut zeros = Vec::new();
        for relocation in gates.values().flatten() {
            let symbol = relocation.symbol.map(|s| object.display_name(s).to_string()).unwrap_or_default();
            match arch.field(relocation.kind) {
                // The other bits of a partial field are the instruction's.
                Some(field) if !field.whole => {}
                Some(field) => zeros.push((relocation.offset, field.width as u64, symbol)),
                None => errors.push(ConvertError::RelocationType {
                    section: name.clone(),
                    offset: relocation.offset,
                    kind: relocation.kind,
                    symbol,
                }),
            }
        }
        for ((_, gate), relocations) in gates {
            let mut rela = Section::new(
                klp::rela_name(BStr::new(gate), BStr::new(&name)),
                section_type::RELA,
                section_flags::ALLOC | section_flags::INFO_LINK | SHF_RELA_LIVEPATCH,
                8,
                Vec::new(),
            );
            rela.entry_size = 24;
            rela.link = Link::SymbolTable;
            rela.info = Info::Section(SectionId(index as u32));
            rela.relocations = relocations.into();
            made.push(rela);
        }
        let section = &mut object.sections[index];
        section.relocations = kept.into();
        for (offset, width, symbol) in zeros {
            if !zero(section, offset, width) {
                errors.push(ConvertError::NoBytes { section: name.clone(), offset, symbol });
            }
        }
    }
    // Behind all others, so that the ids above stay what they are.
    object.sections.extend(made);
}

fn is_special(name: &BStr) -> bool {
    SPECIAL_SECTIONS.iter().any(|special| name == special.as_bytes())
}

/// The function that the table entry at `offset` is about: that of the nearest relocation against code.
fn place_of_entry(
    object: &Object<'_>,
    section: &Section<'_>,
    offset: u64,
    manifest: &ModuleManifest,
) -> String {
    let code = section
        .relocations
        .iter()
        .filter(|r| r.offset <= offset)
        .rev()
        .filter_map(|r| r.symbol.map(|s| (object.symbol(s), r.addend)))
        .find_map(|(symbol, addend)| {
            let id = symbol.section().filter(|&id| object.section(id).is_text())?;
            Some((id, symbol.value.wrapping_add_signed(addend)))
        });
    let Some((text, at)) = code else { return "unknown place".to_owned() };
    let function = object.symbols.iter().find(|s| {
        s.is_function() && s.section() == Some(text) && s.value <= at && at - s.value < s.size.max(1)
    });
    match function.and_then(|f| Some((f.name.to_str().ok()?, f.value))) {
        Some((name, start)) => format!("{}+{:#x}", manifest.final_name(name), at - start),
        None => format!("{}+{at:#x}", object.section(text).name),
    }
}

fn zero(section: &mut Section<'_>, offset: u64, width: u64) -> bool {
    let Contents::Bytes(bytes) = &mut section.contents else { return false };
    let Some(end) = offset.checked_add(width) else { return false };
    if end > bytes.len() as u64 {
        return false;
    }
    let field = offset as usize..end as usize;
    // Not to be copied where nothing changes.
    if bytes[field.clone()].iter().any(|&b| b != 0) {
        bytes.to_mut()[field].fill(0);
    }
    true
}

/// Takes back the versions that modpost noted for symbols that livepatch resolves.
fn forget_versions(object: &mut Object<'_>, manifest: &ModuleManifest) -> Result<(), ConvertError> {
    let names: BTreeSet<&[u8]> = manifest.references.iter().map(|r| r.symbol.as_bytes()).collect();
    if names.is_empty() {
        return Ok(());
    }
    if let Some(id) = object.section_named("__versions") {
        let section = &mut object.sections[id.index()];
        let bytes = section.bytes();
        if !bytes.len().is_multiple_of(VERSION_ENTRY) {
            return Err(ConvertError::Versions { section: "__versions", what: "cut off" });
        }
        let kept: Vec<u8> = bytes
            .chunks_exact(VERSION_ENTRY)
            .filter(|entry| !names.contains(c_string(&entry[8..])))
            .flatten()
            .copied()
            .collect();
        section.contents = Contents::Bytes(Cow::Owned(kept));
    }
    let extended =
        object.section_named("__version_ext_names").zip(object.section_named("__version_ext_crcs"));
    if let Some((texts, crcs)) = extended {
        let mismatch =
            ConvertError::Versions { section: "__version_ext_names", what: "not as many names as CRCs" };
        let words = object.section(crcs).bytes().chunks_exact(4);
        let text = object.section(texts).bytes();
        let entries: Vec<&[u8]> = match text.strip_suffix(b"\0") {
            Some(text) => text.split(|&b| b == 0).collect(),
            None if text.is_empty() => Vec::new(),
            None => return Err(mismatch),
        };
        if words.len() != entries.len() || !words.remainder().is_empty() {
            return Err(mismatch);
        }
        let (mut new_texts, mut new_crcs) = (Vec::new(), Vec::new());
        for (word, entry) in words.zip(entries) {
            if !names.contains(entry) {
                new_crcs.extend_from_slice(word);
                new_texts.extend_from_slice(entry);
                new_texts.push(0);
            }
        }
        object.sections[texts.index()].contents = Contents::Bytes(Cow::Owned(new_texts));
        object.sections[crcs.index()].contents = Contents::Bytes(Cow::Owned(new_crcs));
    }
    Ok(())
}

/// `sizeof(struct modversion_info)` of 64-bit kernels: a CRC in a word, then the name.
const VERSION_ENTRY: usize = 64;

fn c_string(bytes: &[u8]) -> &[u8] {
    bytes.find_byte(0).map_or(bytes, |end| &bytes[..end])
}

/// Gives symbols the names that kallsyms shall show. objtool may have made prefix symbols of them.
fn rename(object: &mut Object<'_>, manifest: &ModuleManifest) {
    const PREFIX_SYMBOL: &str = "__pfx_";
    let names: BTreeMap<&[u8], &str> =
        manifest.renames.iter().map(|r| (r.linked.as_bytes(), r.name.as_str())).collect();
    for symbol in &mut object.symbols {
        let name = symbol.name.as_bytes();
        let new = if let Some(new) = names.get(name) {
            (*new).to_owned()
        } else if let Some(new) = name.strip_prefix(PREFIX_SYMBOL.as_bytes()).and_then(|n| names.get(n)) {
            format!("{PREFIX_SYMBOL}{new}")
        } else {
            continue;
        };
        symbol.name = Cow::Owned(new.into());
        // Global was only for the hook to find it by a name of its own.
        symbol.binding = binding::LOCAL;
    }
}

/// Removes undefined and livepatch symbols that nothing refers to any more: those that were there to keep
/// objtool content, and those of removed sections.
fn drop_unused(object: &mut Object<'_>) {
    let mut used = vec![false; object.symbols.len()];
    for section in &object.sections {
        for symbol in section.relocations.iter().filter_map(|r| r.symbol) {
            used[symbol.index()] = true;
        }
        if let Info::Symbol(symbol) = section.info {
            used[symbol.index()] = true;
        }
    }
    retain_symbols(object, |id, symbol| {
        !matches!(symbol.place, Place::Undefined | Place::Livepatch) || used[id.index()]
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use kpatch_elf::Endian;
    use kpatch_elf::arch::Machine;

    #[test]
    fn bits_of_an_instruction_stay() {
        const CALL26: u32 = 283;
        const ABS64: u32 = 257;
        let manifest = ModuleManifest {
            references: vec![KlpReference {
                symbol: "far".to_owned(),
                gate: "vmlinux".to_owned(),
                object: "vmlinux".to_owned(),
                name: "far".to_owned(),
                sympos: 0,
                function: true,
                units: Vec::new(),
            }],
            ..ModuleManifest::default()
        };
        let mut object = Object {
            machine: Machine::Aarch64,
            endian: Endian::Little,
            file_flags: 0,
            abi: [0, 0],
            sections: Vec::new(),
            symbols: Vec::new(),
        };
        let symbol = Some(object.add_symbol(Symbol::undefined("far", binding::GLOBAL)));
        // A branch with link, and a pointer that somebody left a value in.
        let call = [0x01, 0x00, 0x00, 0x94];
        let mut text = Section::new(".text.f", section_type::PROGBITS, 6, 4, call.to_vec());
        text.relocations.to_mut().push(Relocation { offset: 0, kind: CALL26, symbol, addend: 0 });
        let mut data = Section::new(".data", section_type::PROGBITS, 3, 8, vec![7; 8]);
        data.relocations.to_mut().push(Relocation { offset: 0, kind: ABS64, symbol, addend: 0 });
        object.add_section(text);
        object.add_section(data);
        let mut errors = Vec::new();
        let references = livepatch_symbols(&mut object, &manifest, &mut errors);
        livepatch_relocations(&mut object, &references, &manifest, &mut errors);
        assert_eq!(errors, []);
        assert_eq!(object.sections[0].bytes(), call);
        assert_eq!(object.sections[1].bytes(), [0; 8]);
        assert!(object.sections[..2].iter().all(|s| s.relocations.is_empty()));
        let made: Vec<_> = object.sections[2..].iter().map(|s| s.name.to_string()).collect();
        assert_eq!(made, [".klp.rela.vmlinux..text.f", ".klp.rela.vmlinux..data"]);
    }
}
