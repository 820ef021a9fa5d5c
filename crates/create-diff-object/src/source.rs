//! From places in code to places in the source, by the object's line tables.

use std::cell::OnceCell;
use std::fmt;

use gimli::{DebugLineOffset, EndianSlice, Reader, RelocateReader, RunTimeEndian};
use kpatch_elf::{Endian, Object, Section, SectionId};
use serde::Serialize;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceLine {
    /// The file as the compiler saw it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The source of an object's code, read when first asked for: most comparisons need it for few places or none.
pub(crate) struct SourceMap<'a> {
    object: &'a Object<'a>,
    table: OnceCell<LineTable>,
}

/// A row of a line table: section, address, file, line; line 0 ends a sequence.
type Row = (u32, u64, u32, u32);

/// Rows go by their addresses. Of several for one address, as where an inlined function has left no instruction, the
/// last in the table is that of the instruction, and the end of one sequence comes before the beginning of another.
fn order(&(section, address, _, line): &Row) -> (u32, u64, bool) {
    (section, address, line != 0)
}

/// The line table of an object, as far as it has one.
#[derive(Clone, Debug, Default)]
struct LineTable {
    files: Vec<String>,
    /// Sorted by `order`.
    rows: Vec<Row>,
}

/// Addresses of different sections are told apart by the section's number in the bits above these.
const SECTION_SHIFT: u32 = 40;

/// Applies the object's own relocations to a debug section while it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relocations<'a> {
    object: &'a Object<'a>,
    section: Option<SectionId>,
}

impl Relocations<'_> {
    fn at(&self, offset: usize) -> Option<(Option<SectionId>, u64)> {
        let section = self.object.section(self.section?);
        let relocation = section.relocations_in(offset as u64, offset as u64 + 1).first()?;
        let symbol = self.object.symbol(relocation.symbol?);
        Some((symbol.section(), symbol.value.wrapping_add_signed(relocation.addend)))
    }
}

impl gimli::Relocate for Relocations<'_> {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(match self.at(offset) {
            Some((Some(section), place)) => address(section, place),
            _ => value,
        })
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        Ok(match self.at(offset) {
            Some((_, place)) => usize::try_from(place).unwrap_or(value),
            None => value,
        })
    }
}

pub(crate) type DebugReader<'a> = RelocateReader<EndianSlice<'a, RunTimeEndian>, Relocations<'a>>;

/// A debug section with its relocations done, empty where the object has none. What it says of code are [`address`]es.
pub(crate) fn debug_section<'a>(object: &'a Object<'a>, name: &str) -> DebugReader<'a> {
    let order = match object.endian {
        Endian::Little => RunTimeEndian::Little,
        Endian::Big => RunTimeEndian::Big,
    };
    let section = object.section_named(name);
    let bytes = section.map(|id| object.section(id)).map(Section::bytes).unwrap_or_default();
    RelocateReader::new(EndianSlice::new(bytes, order), Relocations { object, section })
}

/// How debug sections name a place in a section, as they are read here.
pub(crate) fn address(section: SectionId, place: u64) -> u64 {
    (u64::from(section.0) + 1) << SECTION_SHIFT | place
}

/// The path of a file of a line table, as the compiler saw it; below the build directory without that.
pub(crate) fn path_of<'a>(
    header: &gimli::LineProgramHeader<DebugReader<'a>>,
    file: u64,
    text: impl Fn(gimli::AttributeValue<DebugReader<'a>>) -> Option<String>,
) -> String {
    let entry = header.file(file);
    let base = entry.and_then(|e| text(e.path_name())).unwrap_or_default();
    let directory = entry.and_then(|e| e.directory(header)).and_then(text);
    // Directory 0 is the build directory, relative to which names are best read.
    match directory {
        Some(directory) if !base.starts_with('/') && entry.is_some_and(|e| e.directory_index() != 0) => {
            format!("{directory}/{base}")
        }
        _ => base,
    }
}

impl<'a> SourceMap<'a> {
    pub(crate) fn of(object: &'a Object<'a>) -> SourceMap<'a> {
        SourceMap { object, table: OnceCell::new() }
    }

    /// The source of a place in a section.
    pub(crate) fn at(&self, section: SectionId, place: u64) -> Option<SourceLine> {
        self.table.get_or_init(|| LineTable::read(self.object)).at(section, place)
    }
}

impl LineTable {
    /// Reads the line tables. Damaged ones are as good as none: they serve people, and decide only where
    /// they speak for a change being no change.
    fn read(object: &Object<'_>) -> LineTable {
        let mut table = LineTable::default();
        if table.read_lines(object).is_err() {
            return LineTable::default();
        }
        table.rows.sort_by_key(order);
        table
    }

    fn read_lines<'a>(&mut self, object: &'a Object<'a>) -> gimli::Result<()> {
        let load = |name| debug_section(object, name);
        let lines = load(".debug_line");
        let strings = [load(".debug_line_str"), load(".debug_str")];
        let text = |value: gimli::AttributeValue<DebugReader<'a>>| -> Option<String> {
            let mut reader = match value {
                gimli::AttributeValue::String(reader) => {
                    return Some(reader.to_string_lossy().ok()?.into_owned());
                }
                gimli::AttributeValue::DebugLineStrRef(offset) => {
                    let mut reader = strings[0].clone();
                    reader.skip(offset.0).ok()?;
                    reader
                }
                gimli::AttributeValue::DebugStrRef(offset) => {
                    let mut reader = strings[1].clone();
                    reader.skip(offset.0).ok()?;
                    reader
                }
                _ => return None,
            };
            Some(reader.read_null_terminated_slice().ok()?.to_string_lossy().ok()?.into_owned())
        };
        let table = gimli::DebugLine::from(lines.clone());
        let mut offset = 0;
        while offset < lines.len() {
            let mut rest = lines.clone();
            rest.skip(offset)?;
            let before = rest.len();
            let (length, _) = rest.read_initial_length()?;
            let next = offset + (before - rest.len()) + length;
            let program = table.program(DebugLineOffset(offset), 8, None, None)?;
            let mut names: Vec<Option<u32>> = Vec::new();
            let mut rows = program.rows();
            while let Some((header, row)) = rows.next_row()? {
                let address = row.address();
                let Some(section) = (address >> SECTION_SHIFT).checked_sub(1) else { continue };
                let place = address & ((1 << SECTION_SHIFT) - 1);
                if row.end_sequence() {
                    self.rows.push((section as u32, place, 0, 0));
                    continue;
                }
                let index = usize::try_from(row.file_index()).unwrap_or(usize::MAX);
                if index > header.file_names().len() {
                    continue;
                }
                if names.len() <= index {
                    names.resize(index + 1, None);
                }
                let file = if let Some(file) = names[index] {
                    file
                } else {
                    let file = self.files.len() as u32;
                    self.files.push(path_of(header, row.file_index(), text));
                    names[index] = Some(file);
                    file
                };
                let line = row.line().map_or(0, |l| l.get().min(u64::from(u32::MAX)));
                self.rows.push((section as u32, place, file, line as u32));
            }
            offset = next;
        }
        Ok(())
    }

    fn at(&self, section: SectionId, place: u64) -> Option<SourceLine> {
        let after = self.rows.partition_point(|&(s, a, ..)| (s, a) <= (section.0, place));
        let &(s, _, file, line) = self.rows.get(after.checked_sub(1)?)?;
        if s != section.0 || line == 0 {
            return None;
        }
        Some(SourceLine { file: self.files.get(file as usize)?.clone(), line: u64::from(line) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_of_an_address_counts() {
        let mut rows =
            vec![(1, 0, 1, 10), (1, 4, 1, 11), (1, 4, 0, 12), (1, 8, 0, 13), (1, 4, 0, 0), (1, 8, 0, 0)];
        rows.sort_by_key(order);
        let map = LineTable { files: vec!["a.c".into(), "b.h".into()], rows };
        let at = |place| map.at(SectionId(1), place).map(|line| line.to_string());
        assert_eq!(at(3).as_deref(), Some("b.h:10"));
        assert_eq!(at(4).as_deref(), Some("a.c:12"));
        assert_eq!(at(8).as_deref(), Some("a.c:13"));
        assert_eq!(map.at(SectionId(0), 4), None);
    }
}
