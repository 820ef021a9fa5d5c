//! Structures and functions from the debug information (DWARF 4 and 5) of an object that is not linked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use gimli::{AttributeValue, EndianSlice, RunTimeEndian};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};
use thiserror::Error;

use super::{Layout, Member, Place};

/// Debug information that cannot be read.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// No ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// Damaged debug information.
    #[error("unreadable debug information: {0}")]
    Dwarf(#[from] gimli::Error),
}

/// What the debug information of a unit says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    /// Structures and unions by name; one without a tag by the name of its type.
    pub layouts: BTreeMap<String, Layout>,
    /// Structures that each function has variables of, or pointers to, by the function's name.
    pub functions: BTreeMap<String, BTreeSet<String>>,
    /// Structures of which there are automatic variables only: defined in a source that is no header, never part of
    /// something else, nor pointed to by anything but parameters.
    pub automatic: BTreeSet<String>,
    /// Where variables with an address of their own are declared, but for names that several have.
    pub data: BTreeMap<String, Place>,
}

/// Types that refer to types, and structures in structures, are followed so far; no real ones go deeper.
const DEPTH: usize = 32;

/// The reader of a section.
type Slice<'d> = EndianSlice<'d, RunTimeEndian>;

impl Types {
    /// Reads an object.
    pub fn of(data: &[u8]) -> Result<Types, LayoutError> {
        let file = ElfFile64::<Endianness, &[u8]>::parse(data)?;
        let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let load = |id: gimli::SectionId| relocated(&file, id.name());
        let sections = gimli::DwarfSections::load(load)?;
        let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
        let mut types = Types::default();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let unit = dwarf.unit(header)?;
            Entries::read(&dwarf, &unit)?.add_to(&mut types);
        }
        Ok(types)
    }
}

/// A section's bytes with its relocations done, as far as they are absolute.
fn relocated<'d>(
    file: &ElfFile64<'d, Endianness, &'d [u8]>,
    name: &str,
) -> Result<Cow<'d, [u8]>, object::read::Error> {
    let Some(section) = file.section_by_name(name) else { return Ok(Cow::Borrowed(&[])) };
    let mut data = section.uncompressed_data()?.into_owned();
    let little = file.is_little_endian();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        if relocation.kind() != object::RelocationKind::Absolute {
            continue;
        }
        let address = file.symbol_by_index(symbol)?.address();
        let value = address.wrapping_add(relocation.addend() as u64);
        let size = usize::from(relocation.size() / 8);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(field) = start.checked_add(size).and_then(|end| data.get_mut(start..end))
            && size <= 8
        {
            let bytes = if little {
                value.to_le_bytes()
            } else {
                value.rotate_left(64 - 8 * size as u32).to_be_bytes()
            };
            field.copy_from_slice(&bytes[..size]);
        }
    }
    Ok(Cow::Owned(data))
}

/// An entry of the debug information, as far as it matters.
#[derive(Clone, Debug)]
struct Entry {
    tag: gimli::DwTag,
    name: Option<String>,
    /// The entries it consists of.
    children: Vec<u32>,
    /// Position of its type, or of the entry that says more about it.
    kind: Option<usize>,
    origin: Option<usize>,
    size: Option<u64>,
    /// `DW_AT_data_member_location`, bytes.
    location: u64,
    bit_offset: Option<u64>,
    bit_size: Option<u64>,
    /// Elements of an array.
    count: Option<u64>,
    encoding: Option<gimli::DwAte>,
    /// True for a variable that has an address of its own.
    is_static: bool,
    /// The file that it stands in, by its number in `Entries::files`.
    file: Option<u64>,
    /// The line there.
    line: Option<u32>,
}

/// How a type is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// As in the source, for messages.
    OfTheSource,
    /// By what an object of it consists of.
    OfTheObject,
}

/// The kernel's and C's names for integers that say their size and sign and nothing else, as `__be32` does.
fn is_plain_integer(name: &str) -> bool {
    let bare = name.strip_prefix("__").unwrap_or(name);
    let sized = bare.strip_prefix(['u', 's']).is_some_and(|bits| ["8", "16", "32", "64"].contains(&bits));
    let standard =
        bare.strip_prefix('u').unwrap_or(bare).strip_prefix("int").and_then(|r| r.strip_suffix("_t"));
    sized
        || standard.is_some_and(|bits| ["8", "16", "32", "64"].contains(&bits))
        || [
            "uint",
            "ulong",
            "ushort",
            "size_t",
            "ssize_t",
            "kernel_size_t",
            "kernel_ssize_t",
            "kernel_ulong_t",
        ]
        .contains(&bare)
}

/// The path of a file of the line table.
fn file_path<'d>(
    dwarf: &gimli::Dwarf<Slice<'d>>,
    unit: &gimli::Unit<Slice<'d>>,
    index: u64,
) -> Result<PathBuf, LayoutError> {
    let header = unit.line_program.as_ref().map(gimli::IncompleteLineProgram::header);
    let Some((header, file)) = header.and_then(|header| Some((header, header.file(index)?))) else {
        return Ok(PathBuf::new());
    };
    let text = |value| -> Result<PathBuf, LayoutError> {
        Ok(PathBuf::from(dwarf.attr_string(unit, value)?.to_string_lossy().into_owned()))
    };
    let directory = file.directory(header).map(text).transpose()?.unwrap_or_default();
    Ok(directory.join(text(file.path_name())?))
}

/// All entries of a unit, in their order.
struct Entries {
    all: Vec<Entry>,
    /// By position in the unit.
    at: HashMap<usize, u32>,
    /// Files that entries stand in, by their numbers in the line table.
    files: BTreeMap<u64, PathBuf>,
    address_size: u64,
}

impl Entries {
    fn read<'d>(
        dwarf: &gimli::Dwarf<Slice<'d>>,
        unit: &gimli::Unit<Slice<'d>>,
    ) -> Result<Entries, LayoutError> {
        let mut read = Entries {
            all: Vec::new(),
            at: HashMap::new(),
            files: BTreeMap::new(),
            address_size: u64::from(unit.encoding().address_size),
        };
        // The entries above the current one.
        let mut path: Vec<u32> = Vec::new();
        let mut cursor = unit.entries();
        while let Some(found) = cursor.next_dfs()? {
            let id = read.all.len() as u32;
            path.truncate(usize::try_from(found.depth()).unwrap_or(0));
            if let Some(parent) = path.last().and_then(|&parent| read.all.get_mut(parent as usize)) {
                parent.children.push(id);
            }
            path.push(id);
            read.at.insert(found.offset().0, id);
            let number = |name| found.attr_value(name).and_then(|value| value.udata_value());
            let reference = |name| match found.attr_value(name) {
                Some(AttributeValue::UnitRef(offset)) => Some(offset.0),
                _ => None,
            };
            let name = match found.attr_value(gimli::DW_AT_name) {
                Some(value) => Some(dwarf.attr_string(unit, value)?.to_string_lossy().into_owned()),
                None => None,
            };
            let encoding = match found.attr_value(gimli::DW_AT_encoding) {
                Some(AttributeValue::Encoding(encoding)) => Some(encoding),
                _ => None,
            };
            let address = [gimli::DW_OP_addr.0, gimli::DW_OP_addrx.0].map(Some);
            let is_static = match found.attr_value(gimli::DW_AT_location) {
                Some(AttributeValue::Exprloc(code)) => address.contains(&code.0.first().copied()),
                _ => false,
            };
            let file = match found.attr_value(gimli::DW_AT_decl_file) {
                Some(AttributeValue::FileIndex(index)) => Some(index),
                Some(value) => value.udata_value(),
                None => None,
            };
            if let Some(index) = file
                && !read.files.contains_key(&index)
            {
                read.files.insert(index, file_path(dwarf, unit, index)?);
            }
            let upper = number(gimli::DW_AT_upper_bound).and_then(|upper| upper.checked_add(1));
            read.all.push(Entry {
                tag: found.tag(),
                name,
                children: Vec::new(),
                kind: reference(gimli::DW_AT_type),
                origin: reference(gimli::DW_AT_abstract_origin)
                    .or_else(|| reference(gimli::DW_AT_specification)),
                size: number(gimli::DW_AT_byte_size),
                location: number(gimli::DW_AT_data_member_location).unwrap_or(0),
                bit_offset: number(gimli::DW_AT_data_bit_offset),
                bit_size: number(gimli::DW_AT_bit_size),
                count: number(gimli::DW_AT_count).or(upper),
                encoding,
                is_static,
                file,
                line: number(gimli::DW_AT_decl_line).and_then(|line| u32::try_from(line).ok()),
            });
        }
        Ok(read)
    }

    fn get(&self, position: Option<usize>) -> Option<&Entry> {
        self.all.get(*self.at.get(&position?)? as usize)
    }

    fn path(&self, entry: &Entry) -> Option<&Path> {
        self.files.get(&entry.file?).map(PathBuf::as_path)
    }

    /// True if it stands in a file that is no header.
    fn is_in_source(&self, entry: &Entry) -> bool {
        self.path(entry).is_some_and(|path| path.extension().is_some_and(|extension| extension == "c"))
    }

    fn add_to(&self, types: &mut Types) {
        self.add_automatic(types);
        self.add_data(types);
        for entry in &self.all {
            match entry.tag {
                gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                    if let Some(name) = &entry.name {
                        self.add_layout(types, format!("{} {name}", keyword(entry)), entry);
                    }
                }
                gimli::DW_TAG_typedef => {
                    let is_unnamed = |kind: &&Entry| is_structure(kind) && kind.name.is_none();
                    if let (Some(name), Some(kind)) = (&entry.name, self.get(entry.kind).filter(is_unnamed)) {
                        self.add_layout(types, name.clone(), kind);
                    }
                }
                gimli::DW_TAG_subprogram => self.add_function(types, entry),
                _ => {}
            }
        }
    }

    fn add_layout(&self, types: &mut Types, name: String, entry: &Entry) {
        // A structure that is only named has no size.
        let Some(size) = entry.size else { return };
        let place = self.path(entry).zip(entry.line);
        let place = place.map(|(file, line)| Place { file: file.to_owned(), line });
        let mut layout = Layout { size, members: BTreeMap::new(), place };
        self.members(entry, 0, "", DEPTH, &mut layout.members);
        types.layouts.entry(name).or_insert(layout);
    }

    fn members(
        &self,
        entry: &Entry,
        base: u64,
        prefix: &str,
        depth: usize,
        members: &mut BTreeMap<String, Member>,
    ) {
        let Some(deeper) = depth.checked_sub(1) else { return };
        for child in entry.children.iter().filter_map(|&child| self.all.get(child as usize)) {
            if child.tag != gimli::DW_TAG_member {
                continue;
            }
            let offset = child.bit_offset.unwrap_or(child.location.saturating_mul(8)).saturating_add(base);
            let kind = self.get(child.kind);
            let unnamed = kind.filter(|kind| is_structure(kind) && kind.name.is_none());
            let name = match &child.name {
                Some(name) => format!("{prefix}{name}"),
                None => prefix.to_owned(),
            };
            if let Some(nested) = unnamed {
                let prefix = if child.name.is_some() { format!("{name}.") } else { name };
                self.members(nested, offset, &prefix, deeper, members);
            } else if child.name.is_some() {
                let size = child.bit_size.unwrap_or_else(|| self.size(child.kind, DEPTH).saturating_mul(8));
                let [kind, form] = [Words::OfTheSource, Words::OfTheObject].map(|words| {
                    let mut kind = self.type_name(child.kind, words, DEPTH);
                    if let Some(bits) = child.bit_size {
                        let _ = write!(kind, " : {bits}");
                    }
                    kind
                });
                members.insert(name, Member { offset, size, kind, form });
            }
        }
    }

    /// Bytes.
    fn size(&self, kind: Option<usize>, depth: usize) -> u64 {
        let (Some(entry), Some(deeper)) = (self.get(kind), depth.checked_sub(1)) else { return 0 };
        match (entry.tag, entry.size) {
            (gimli::DW_TAG_array_type, _) => {
                let counts = entry.children.iter().filter_map(|&id| self.all.get(id as usize));
                counts
                    .map(|range| range.count.unwrap_or(0))
                    .fold(self.size(entry.kind, deeper), u64::saturating_mul)
            }
            (_, Some(size)) => size,
            (gimli::DW_TAG_pointer_type, None) => self.address_size,
            _ => self.size(entry.kind, deeper),
        }
    }

    fn type_name(&self, kind: Option<usize>, words: Words, depth: usize) -> String {
        let Some(entry) = self.get(kind) else { return "void".to_owned() };
        let Some(deeper) = depth.checked_sub(1) else { return "…".to_owned() };
        let inner = || self.type_name(entry.kind, words, deeper);
        match entry.tag {
            gimli::DW_TAG_pointer_type => format!("{} *", inner()),
            gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type if words == Words::OfTheObject => inner(),
            gimli::DW_TAG_typedef
                if words == Words::OfTheObject && entry.name.as_deref().is_some_and(is_plain_integer) =>
            {
                inner()
            }
            gimli::DW_TAG_base_type if words == Words::OfTheObject => {
                let bits = entry.size.unwrap_or(0).saturating_mul(8);
                match entry.encoding {
                    Some(gimli::DW_ATE_signed) => format!("s{bits}"),
                    Some(gimli::DW_ATE_unsigned) => format!("u{bits}"),
                    _ => entry.name.clone().unwrap_or_default(),
                }
            }
            gimli::DW_TAG_const_type => format!("const {}", inner()),
            gimli::DW_TAG_volatile_type => format!("volatile {}", inner()),
            gimli::DW_TAG_array_type => {
                let ranges = entry.children.iter().filter_map(|&id| self.all.get(id as usize));
                ranges.fold(inner(), |name, range| match range.count {
                    Some(count) => format!("{name}[{count}]"),
                    None => format!("{name}[]"),
                })
            }
            gimli::DW_TAG_subroutine_type => {
                let parameters = entry.children.iter().filter_map(|&id| self.all.get(id as usize));
                let parameters: Vec<String> =
                    parameters.map(|parameter| self.type_name(parameter.kind, words, deeper)).collect();
                format!("{} ()({})", inner(), parameters.join(", "))
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type | gimli::DW_TAG_enumeration_type => {
                match &entry.name {
                    Some(name) => format!("{} {name}", keyword(entry)),
                    None => format!("{} {{…}}", keyword(entry)),
                }
            }
            _ => entry.name.clone().unwrap_or_default(),
        }
    }

    /// Finds where variables are declared. A declaration before the definition has the name, the definition the address.
    fn add_data(&self, types: &mut Types) {
        let mut places: BTreeMap<&str, BTreeSet<(&Path, u32)>> = BTreeMap::new();
        for entry in self.all.iter().filter(|entry| entry.tag == gimli::DW_TAG_variable && entry.is_static) {
            let declaration = self.get(entry.origin);
            let name = entry.name.as_deref().or_else(|| declaration?.name.as_deref());
            let of_entry = |entry: &Entry| self.path(entry).zip(entry.line);
            let place = self.path(entry).or_else(|| self.path(declaration?)).zip(entry.line);
            if let Some((name, place)) = name.zip(place.or_else(|| of_entry(declaration?))) {
                places.entry(name).or_default().insert(place);
            }
        }
        for (name, places) in places {
            if let (Some((file, line)), 1) = (places.first(), places.len()) {
                types.data.insert(name.to_owned(), Place { file: file.to_path_buf(), line: *line });
            }
        }
    }

    /// Finds the structures that live on stacks only.
    fn add_automatic(&self, types: &mut Types) {
        let (mut automatic, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<(u32, bool)> = self.all.first().map(|_| (0, false)).into_iter().collect();
        while let Some((id, in_function)) = open.pop() {
            let Some(entry) = self.all.get(id as usize) else { continue };
            let function = matches!(entry.tag, gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine);
            open.extend(entry.children.iter().map(|&child| (child, in_function || function)));
            let kind = entry.kind.or_else(|| self.get(entry.origin)?.kind);
            let is_type = matches!(
                entry.tag,
                gimli::DW_TAG_pointer_type
                    | gimli::DW_TAG_const_type
                    | gimli::DW_TAG_volatile_type
                    | gimli::DW_TAG_array_type
                    | gimli::DW_TAG_typedef
            );
            if is_type || entry.tag == gimli::DW_TAG_formal_parameter {
                continue;
            }
            let Some(name) = self.structure(kind) else { continue };
            let variable = entry.tag == gimli::DW_TAG_variable && in_function && !entry.is_static;
            if variable && !self.is_pointer(kind) {
                automatic.insert(name);
            } else {
                elsewhere.insert(name);
            }
        }
        let private = self.all.iter().filter(|entry| is_structure(entry) && self.is_in_source(entry));
        let private =
            private.filter_map(|entry| Some(format!("{} {}", keyword(entry), entry.name.as_ref()?)));
        types.automatic.extend(private.filter(|name| automatic.contains(name) && !elsewhere.contains(name)));
    }

    /// Whether a type leads to another by a pointer.
    fn is_pointer(&self, mut kind: Option<usize>) -> bool {
        for _ in 0..DEPTH {
            match self.get(kind) {
                Some(entry) if entry.tag == gimli::DW_TAG_pointer_type => return true,
                Some(entry) if !is_structure(entry) => kind = entry.kind,
                _ => return false,
            }
        }
        true
    }

    fn add_function(&self, types: &mut Types, function: &Entry) {
        let name = function.name.as_ref().or_else(|| self.get(function.origin)?.name.as_ref());
        let Some(name) = name else { return };
        let used = types.functions.entry(name.clone()).or_default();
        let mut open: Vec<u32> = function.children.clone();
        while let Some(entry) = open.pop().and_then(|id| self.all.get(id as usize)) {
            open.extend(&entry.children);
            let kind = entry.kind.or_else(|| self.get(entry.origin)?.kind);
            used.extend(self.structure(kind));
        }
        used.extend(self.structure(function.kind));
    }

    /// The structure that a type is, or that it points to.
    fn structure(&self, mut kind: Option<usize>) -> Option<String> {
        for _ in 0..DEPTH {
            let entry = self.get(kind)?;
            if is_structure(entry) {
                return Some(format!("{} {}", keyword(entry), entry.name.as_ref()?));
            }
            let unnamed = |kind: &Entry| is_structure(kind) && kind.name.is_none();
            if entry.tag == gimli::DW_TAG_typedef && self.get(entry.kind).is_some_and(unnamed) {
                return entry.name.clone();
            }
            kind = entry.kind;
        }
        None
    }
}

fn is_structure(entry: &Entry) -> bool {
    matches!(entry.tag, gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type)
}

fn keyword(entry: &Entry) -> &'static str {
    match entry.tag {
        gimli::DW_TAG_union_type => "union",
        gimli::DW_TAG_enumeration_type => "enum",
        _ => "struct",
    }
}
