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

/// Headers, in whatever directory, whose functions are what a static branch, a static call and a tracepoint consist of.
const MECHANISM: [&str; 3] = ["jump_label.h", "static_call.h", "tracepoint.h"];

/// Whether a function is what static branches and the like consist of, wherever they are written.
fn is_mechanism(inlined: &Inlined) -> bool {
    let file = inlined.declared.as_ref().and_then(|declared| declared.file.rsplit('/').next());
    file.is_some_and(|file| MECHANISM.contains(&file))
}

/// For each place in a section, the inline function that the static branch or static call there was written in. None where
/// it was written in the function itself, or the object does not tell: this serves people, and damaged debug information
/// is as good as none.
pub(crate) fn writers_of(object: &Object<'_>, sites: &[(SectionId, u64)]) -> Vec<Option<Inlined>> {
    let mut places: Vec<(u64, usize)> =
        sites.iter().enumerate().map(|(site, &(section, place))| (address(section, place), site)).collect();
    places.sort_unstable();
    let mut writers = vec![None; sites.len()];
    if !places.is_empty() && find(object, &places, &mut writers).is_err() {
        writers.fill(None);
    }
    writers
}

/// Notes the innermost function around each place that is no mechanism; `places` are sorted addresses with their indexes
/// in `writers`.
fn find<'a>(
    object: &'a Object<'a>,
    places: &[(u64, usize)],
    writers: &mut [Option<Inlined>],
) -> gimli::Result<()> {
    let dwarf =
        gimli::Dwarf::<DebugReader<'a>>::load(|id| Ok::<_, gimli::Error>(debug_section(object, id.name())))?;
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let mut cursor = unit.entries();
        // Functions come before those that were inlined into them.
        while let Some(entry) = cursor.next_dfs()? {
            if entry.tag() != gimli::DW_TAG_inlined_subroutine {
                continue;
            }
            let mut function = None;
            let mut ranges = dwarf.die_ranges(&unit, entry)?;
            while let Some(range) = ranges.next()? {
                let from = places.partition_point(|&(place, _)| place < range.begin);
                for &(_, site) in places[from..].iter().take_while(|&&(place, _)| place < range.end) {
                    let inlined = match &function {
                        Some(inlined) => inlined,
                        None => function.insert(read(&dwarf, &unit, entry)?),
                    };
                    if !is_mechanism(inlined) {
                        writers[site] = Some(inlined.clone());
                    }
                }
            }
        }
    }
    Ok(())
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
