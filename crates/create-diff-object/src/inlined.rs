//! From places in code to the inline functions that brought them there, by the object's debug information.

use std::fmt;

use kpatch_elf::{Object, SectionId};

use crate::source::SourceLine;
use crate::source::{DebugReader, address, debug_section, path_of};

/// A function that was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inlined {
    /// Its name.
    pub name: String,
    /// Where it is declared; for what a macro declares, where the macro is used.
    pub declared: Option<SourceLine>,
    /// Where it was inlined.
    pub called: Option<SourceLine>,
}

impl fmt::Display for Inlined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inline function {}", self.name)?;
        if let Some(declared) = &self.declared {
            write!(f, " ({declared})")?;
        }
        self.called.iter().try_for_each(|called| write!(f, ", called at {called}"))
    }
}

/// Headers whose functions are what a static branch, a static call and a tracepoint consist of.
const MECHANISM: [&str; 4] =
    ["asm/jump_label.h", "linux/jump_label.h", "linux/static_call.h", "linux/tracepoint.h"];

/// The inline function that a static branch or static call at a place in a section was written in. None where it was
/// written in the function itself, or the object does not tell: this serves people, and damaged debug information is as
/// good as none.
pub(crate) fn writer_of(object: &Object<'_>, section: SectionId, place: u64) -> Option<Inlined> {
    let chain = chain(object, address(section, place)).ok()?;
    let is_mechanism = |inlined: &Inlined| {
        let file = inlined.declared.as_ref().map(|declared| declared.file.as_str()).unwrap_or_default();
        MECHANISM.iter().any(|header| file.ends_with(header))
    };
    chain.into_iter().rev().find(|inlined| !is_mechanism(inlined))
}

/// The inlined functions around an address, outermost first.
fn chain<'a>(object: &'a Object<'a>, place: u64) -> gimli::Result<Vec<Inlined>> {
    let dwarf =
        gimli::Dwarf::<DebugReader<'a>>::load(|id| Ok::<_, gimli::Error>(debug_section(object, id.name())))?;
    let mut found = Vec::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let mut cursor = unit.entries();
        while let Some(entry) = cursor.next_dfs()? {
            if entry.tag() != gimli::DW_TAG_inlined_subroutine {
                continue;
            }
            let mut ranges = dwarf.die_ranges(&unit, entry)?;
            let mut covers = false;
            while let Some(range) = ranges.next()? {
                covers |= (range.begin..range.end).contains(&place);
            }
            if covers {
                found.push(read(&dwarf, &unit, entry)?);
            }
        }
    }
    Ok(found)
}

fn read<'a>(
    dwarf: &gimli::Dwarf<DebugReader<'a>>,
    unit: &gimli::Unit<DebugReader<'a>>,
    entry: &gimli::DebuggingInformationEntry<DebugReader<'a>>,
) -> gimli::Result<Inlined> {
    let text = |value| {
        let reader = dwarf.attr_string(unit, value).ok()?;
        Some(gimli::Reader::to_string_lossy(&reader).ok()?.into_owned())
    };
    let number =
        |entry: &gimli::DebuggingInformationEntry<DebugReader<'a>>, name| match entry.attr_value(name) {
            Some(gimli::AttributeValue::FileIndex(file)) => Some(file),
            value => value?.udata_value(),
        };
    let line = |entry: &gimli::DebuggingInformationEntry<DebugReader<'a>>, file, line| {
        let program = unit.line_program.as_ref()?;
        let path = path_of(program.header(), number(entry, file)?, text);
        Some(SourceLine { file: path, line: number(entry, line)? })
    };
    let mut inlined = Inlined {
        name: String::new(),
        declared: None,
        called: line(entry, gimli::DW_AT_call_file, gimli::DW_AT_call_line),
    };
    if let Some(gimli::AttributeValue::UnitRef(origin)) = entry.attr_value(gimli::DW_AT_abstract_origin) {
        let origin = unit.entry(origin)?;
        inlined.name = origin.attr_value(gimli::DW_AT_name).and_then(text).unwrap_or_default();
        inlined.declared = line(&origin, gimli::DW_AT_decl_file, gimli::DW_AT_decl_line);
    }
    Ok(inlined)
}
