//! What a patch module's file says of itself.

use std::collections::BTreeMap;

use bstr::ByteSlice;
use kpatch_elf::note::{self, Note, NotedFunction};
use kpatch_elf::{Info, Object, Place, ReadError, Section, Symbol, klp};
use thiserror::Error;

/// What the kernel's `scripts/sign-file` leaves at the end of a signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// Section in which the kernel's own linker script keeps `struct module`.
const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// Offset of `struct module::name` on 64-bit kernels: behind the state and a list head.
const NAME_OFFSET: usize = 24;

/// The table of replaced functions that kpatch-build 0.9 leaves in its modules, and the layout of an entry.
const FUNCS: &str = ".kpatch.funcs";
const FUNCS_ENTRY: u64 = 56;
const FUNCS_SYMPOS: u64 = 32;
const FUNCS_NAME: u64 = 40;
const FUNCS_OBJECT: u64 = 48;

/// Why a file is no patch module.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModuleError {
    /// No ELF file, or a damaged one.
    #[error("it is not a readable kernel module: {0}")]
    Unreadable(#[from] ReadError),
    /// It is compressed, which the kernel might undo, but then nothing could be checked.
    #[error("it is compressed with {0}; unpack it first")]
    Compressed(&'static str),
    /// No `.modinfo`, or no `vermagic` in it.
    #[error("it is an object file, but no kernel module")]
    NoModule,
    /// An ordinary module.
    #[error("module {0} is no live patch")]
    NoLivepatch(String),
    /// The name is not one the kernel accepts.
    #[error("it names itself {0:?}, which cannot be a module's name")]
    Name(String),
}

/// One relocation that the livepatch core applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KlpRelocation {
    /// The object whose patching makes it happen.
    pub gate: String,
    /// Section of the module that it applies to.
    pub section: String,
    /// The size of that section, bytes.
    pub section_size: u64,
    /// Where in that section, bytes.
    pub offset: u64,
    /// Its type, as the machine numbers them.
    pub kind: u32,
    /// Added to the symbol's address.
    pub addend: i64,
    /// The object that defines the symbol.
    pub object: String,
    /// The symbol.
    pub symbol: String,
    /// Its position among the same-named symbols of that object; 0 where the name is unique.
    pub sympos: u32,
}

/// A patch module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchModule {
    /// Its name as the kernel spells it.
    pub name: String,
    /// `vermagic`: release first, then words about the configuration.
    pub vermagic: String,
    /// Build-id of the kernel that it was made for, hexadecimal.
    pub build_id: Option<String>,
    /// The note of kpatch-build, if it made the module.
    pub note: Option<Note>,
    /// Does it replace all earlier patches? Unknown for modules of other tools.
    pub replace: Option<bool>,
    /// The replaced functions, sorted; empty where the module does not tell.
    pub functions: Vec<NotedFunction>,
    /// All of `.modinfo`, in order.
    pub info: Vec<(String, String)>,
    /// A signature is appended. Whose, the kernel knows.
    pub signed: bool,
    /// What the livepatch core resolves.
    pub relocations: Vec<KlpRelocation>,
    /// A digest of each replacing function's code and of what it refers to, to tell versions apart.
    pub code: BTreeMap<NotedFunction, [u8; 32]>,
}

impl PatchModule {
    /// Reads a module's bytes.
    pub fn read(bytes: &[u8]) -> Result<PatchModule, ModuleError> {
        if let Some(how) = compression(bytes) {
            return Err(ModuleError::Compressed(how));
        }
        let object = Object::read(bytes)?;
        let section = |name: &str| object.sections.iter().find(|section| section.name.as_ref() == name);
        let info = strings(section(".modinfo").ok_or(ModuleError::NoModule)?.bytes());
        let value = |tag: &str| info.iter().find(|(key, _)| key == tag).map(|(_, value)| value.clone());
        let vermagic = value("vermagic").ok_or(ModuleError::NoModule)?;
        let name = value("name")
            .or_else(|| name_in_structure(section(THIS_MODULE)?))
            .ok_or(ModuleError::NoModule)?
            .replace('-', "_");
        if !is_module_name(&name) {
            return Err(ModuleError::Name(name));
        }
        if value("livepatch").is_none() {
            return Err(ModuleError::NoLivepatch(name));
        }
        let note = section(note::SECTION).and_then(|section| read_note(section.bytes(), object.endian));
        let mut functions = match &note {
            Some(note) => note.functions.clone(),
            None => section(FUNCS).map_or_else(Vec::new, |table| noted_functions(&object, table)),
        };
        functions.sort();
        Ok(PatchModule {
            build_id: note
                .as_ref()
                .and_then(|note| note.provenance.build_id.clone())
                .or_else(|| value("kpatch_target_build_id")),
            replace: note.as_ref().map(|note| note.replace),
            name,
            vermagic,
            note,
            signed: bytes.ends_with(SIGNATURE_MARK),
            relocations: relocations(&object),
            code: code(&object, &functions),
            functions,
            info,
        })
    }

    /// The source patches, where the module tells.
    pub fn patches(&self) -> &[note::PatchFile] {
        self.note.as_ref().map_or(&[], |note| &note.provenance.patches)
    }

    /// The build-ids of the modules that it patches, where it tells.
    pub fn module_build_ids(&self) -> Option<&BTreeMap<String, String>> {
        self.note.as_ref().map(|note| &note.provenance.modules)
    }

    /// The release that the module is for.
    pub fn release(&self) -> &str {
        self.vermagic.split_whitespace().next().unwrap_or_default()
    }
}

/// What the kernel accepts as a name without quoting anywhere: it becomes a directory of sysfs.
pub fn is_module_name(name: &str) -> bool {
    // MODULE_NAME_LEN is 64 less a pointer, the NUL included.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=55).contains(&name.len()) && name.bytes().all(plain)
}

fn compression(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 3] =
        [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x1f\x8b", "gzip")];
    known.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

/// The `key=value` strings of `.modinfo`.
fn strings(bytes: &[u8]) -> Vec<(String, String)> {
    let entries = bytes.split(|&byte| byte == 0).filter_map(|entry| entry.split_once_str("="));
    entries.map(|(key, value)| (key.as_bstr().to_string(), value.as_bstr().to_string())).collect()
}

fn name_in_structure(section: &Section<'_>) -> Option<String> {
    let rest = section.bytes().get(NAME_OFFSET..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    Some(rest[..end].to_str().ok()?.to_owned()).filter(|name| !name.is_empty())
}

/// The note of kpatch-build in a section's bytes, which may also come from sysfs.
pub fn read_note(bytes: &[u8], endian: kpatch_elf::Endian) -> Option<Note> {
    let ours = |note: &note::Entry<'_>| note.owner == note::OWNER && note.kind == note::TYPE;
    serde_json::from_slice(note::entries(bytes, endian).find(ours)?.text).ok()
}

/// The table of a module that kpatch-build 0.9 made.
fn noted_functions(object: &Object<'_>, table: &Section<'_>) -> Vec<NotedFunction> {
    let string = |at: u64| {
        let relocation = table.relocations_in(at, at + 1).first()?;
        let symbol = object.symbols.get(relocation.symbol?.index())?;
        let Place::Section(section) = symbol.place else { return None };
        let start = symbol.value.checked_add_signed(relocation.addend)?;
        Some(object.sections.get(section.index())?.string_at(start)?.to_string())
    };
    (0..table.size() / FUNCS_ENTRY)
        .filter_map(|index| {
            let at = index * FUNCS_ENTRY;
            let sympos = object.endian.u64(table.bytes(), usize::try_from(at + FUNCS_SYMPOS).ok()?)?;
            Some(NotedFunction {
                object: string(at + FUNCS_OBJECT)?,
                name: string(at + FUNCS_NAME)?,
                sympos: u32::try_from(sympos).ok()?,
            })
        })
        .collect()
}

fn relocations(object: &Object<'_>) -> Vec<KlpRelocation> {
    let mut out = Vec::new();
    for section in object.sections.iter().filter(|section| section.is_klp_rela()) {
        let Some((gate, _)) = klp::parse_rela_name(section.name.as_ref()) else { continue };
        let Info::Section(target) = section.info else { continue };
        let Some(target) = object.sections.get(target.index()) else { continue };
        for relocation in &section.relocations {
            let symbol = relocation.symbol.and_then(|id| object.symbols.get(id.index()));
            let Some(symbol) = symbol else { continue };
            let Some((owner, name, sympos)) = klp::parse_symbol_name(symbol.name.as_ref()) else { continue };
            out.push(KlpRelocation {
                gate: gate.to_string(),
                section: target.name.to_string(),
                section_size: target.size(),
                offset: relocation.offset,
                kind: relocation.kind,
                addend: relocation.addend,
                object: owner.to_string(),
                symbol: name.to_string(),
                sympos,
            });
        }
    }
    out
}

/// Digests of the functions that have one definition of their name in the module.
fn code(object: &Object<'_>, functions: &[NotedFunction]) -> BTreeMap<NotedFunction, [u8; 32]> {
    let mut by_name: BTreeMap<&[u8], Vec<&Symbol<'_>>> = BTreeMap::new();
    for symbol in object.symbols.iter().filter(|symbol| symbol.is_function()) {
        by_name.entry(symbol.name.as_ref().as_bytes()).or_default().push(symbol);
    }
    let digest = |function: &NotedFunction| match by_name.get(function.name.as_bytes())?.as_slice() {
        [symbol] => digest(object, symbol),
        _ => None,
    };
    functions.iter().filter_map(|function| Some((function.clone(), digest(function)?))).collect()
}

fn digest(object: &Object<'_>, symbol: &Symbol<'_>) -> Option<[u8; 32]> {
    let id = symbol.section()?;
    let section = object.sections.get(id.index())?;
    let end = symbol.value.checked_add(symbol.size)?;
    let mut hash = blake3::Hasher::new();
    hash.update(section.bytes().get(usize::try_from(symbol.value).ok()?..usize::try_from(end).ok()?)?);
    let own = section.relocations_in(symbol.value, end);
    // Livepatch relocations are in sections of their own, sorted by offset as all are.
    let klp = object.sections.iter().filter(|other| other.is_klp_rela() && other.info == Info::Section(id));
    for relocation in own.chain(klp.flat_map(|other| other.relocations_in(symbol.value, end))) {
        hash.update(&(relocation.offset - symbol.value).to_le_bytes());
        hash.update(&relocation.kind.to_le_bytes());
        let Some(target) = relocation.symbol.and_then(|id| object.symbols.get(id.index())) else { continue };
        let place = target.section().and_then(|id| object.sections.get(id.index()));
        let place = place.filter(|place| target.is_section() || holds_strings(place));
        // Strings move when others come and go; what counts is the text.
        let text = place.and_then(|place| {
            // A field relative to itself ends where the instruction ends, in code of this kind.
            let bias = object.machine.arch().addend_bias(relocation.kind, Some(4));
            text_at(place, target.value.checked_add_signed(relocation.addend.saturating_add(bias))?)
        });
        if let Some(text) = text {
            hash.update(text);
        } else {
            hash.update(place.map_or(target.name.as_ref(), |place| place.name.as_ref()));
            hash.update(&relocation.addend.to_le_bytes());
        }
    }
    Some(*hash.finalize().as_bytes())
}

/// The text at a place of a section. The link of a module of 7.2 puts strings into `.rodata` with all the rest: there the
/// bytes must look like a text.
fn text_at<'s>(section: &'s Section<'_>, start: u64) -> Option<&'s [u8]> {
    let text = section.string_at(start)?.as_bytes();
    // KERN_SOH begins the messages of printk.
    let plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | 1);
    let looks_so = section.name.starts_with_str(".rodata") && !text.is_empty() && text.iter().all(plain);
    (holds_strings(section) || looks_so).then_some(text)
}

/// Strings only. The link of a module may take the flag away; then the name is left, which gcc and clang give.
fn holds_strings(section: &Section<'_>) -> bool {
    section.is_strings() || section.name.contains_str(".str1.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_other_data() {
        let section = |name: &str| Section::new(name, 1, 2, 1, b"ab\0\x01cd\n\0\xff\0".to_vec());
        let rodata = section(".rodata");
        for (start, text) in [(0, Some(&b"ab"[..])), (3, Some(b"\x01cd\n")), (8, None), (2, None), (99, None)]
        {
            assert_eq!(text_at(&rodata, start), text, "{start}");
        }
        assert_eq!(text_at(&section(".rodata.f.str1.1"), 8), Some(&b"\xff"[..]));
        assert_eq!(text_at(&section(".data"), 0), None);
    }
}
