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

impl Inlined {
    /// The file that declares it, without directories.
    fn header(&self) -> Option<&str> {
        self.declared.as_ref().and_then(|declared| declared.file.rsplit('/').next())
    }
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

/// What the kernel has to know of a place in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) section: SectionId,
    pub(crate) offset: u64,
    /// A static branch, not a static call.
    pub(crate) branch: bool,
}

/// For each static branch or static call, the inline function that it was written in. None where it was written in the
/// function itself, or the object does not tell: this serves people, and damaged debug information is as good as none.
pub(crate) fn writers_of(object: &Object<'_>, sites: &[Site]) -> Vec<Option<Inlined>> {
    let mut places: Vec<(u64, usize)> =
        sites.iter().enumerate().map(|(index, site)| (address(site.section, site.offset), index)).collect();
    places.sort_unstable();
    let mut around = vec![Vec::new(); sites.len()];
    if places.is_empty() || find(object, &places, &mut around).is_err() {
        return vec![None; sites.len()];
    }
    sites.iter().zip(around).map(|(site, functions)| writer(site.branch, functions)).collect()
}

/// Who wrote what is inlined at a place, of the inline functions around it, innermost last.
///
/// A static call is a macro. A static branch is an `asm goto` that each architecture has in a function of its own, the
/// innermost around each branch of the kernels of Debian from 5.10 to 7.3 on x86_64: nobody means that one, nor those of
/// the generic header, which by the kernel's custom has the same name as the architecture's (`linux/jump_label.h`,
/// `asm/jump_label.h`).
fn writer(branch: bool, mut functions: Vec<Inlined>) -> Option<Inlined> {
    if branch {
        let own = functions.pop()?.header().map(str::to_owned);
        while own.is_some() && functions.last().is_some_and(|f| f.header() == own.as_deref()) {
            functions.pop();
        }
    }
    functions.pop()
}

/// Notes the inlined functions around each place, innermost last; `places` are sorted addresses with their indexes in
/// `around`.
fn find<'a>(
    object: &'a Object<'a>,
    places: &[(u64, usize)],
    around: &mut [Vec<Inlined>],
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
                    around[site].push(inlined.clone());
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
