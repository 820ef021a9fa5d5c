//! What the author macros of a patch leave in the object, and what it imports.

use std::collections::BTreeSet;

use bstr::{BStr, ByteSlice};
use kpatch_elf::extract::CallbackKind;
use kpatch_elf::{Relocation, SectionId};

use crate::error::DiffError;
use crate::unit::{ElementId, Kind, Target, Unit};

/// The author's wishes.
#[derive(Debug, Default)]
pub(crate) struct Author {
    pub(crate) callbacks: Vec<(CallbackKind, ElementId)>,
    /// Functions that count as unchanged.
    pub(crate) ignored_functions: BTreeSet<ElementId>,
    /// Sections whose contents count as unchanged.
    pub(crate) ignored_sections: BTreeSet<String>,
    /// Functions marked as safe to be replaced while in use; a remark only, as livepatch does not ask.
    pub(crate) forced: Vec<String>,
    pub(crate) import_namespaces: BTreeSet<String>,
}

impl Author {
    /// Whether changes in a section do not count.
    pub(crate) fn ignores(&self, section: &BStr) -> bool {
        !self.ignored_sections.is_empty()
            && section.to_str().is_ok_and(|section| self.ignored_sections.contains(section))
    }

    /// Reads the author sections of the patched version.
    pub(crate) fn read(unit: &Unit<'_>, errors: &mut Vec<DiffError>) -> Author {
        let mut author = Author::default();
        for (id, section) in unit.object.sections_with_ids() {
            let name: &BStr = section.name.as_ref();
            let mut bad = || errors.push(DiffError::AuthorSection { section: name.to_string() });
            if let Some(kind) =
                CallbackKind::ALL.into_iter().find(|k| name.as_bytes() == k.section().as_bytes())
            {
                match section.relocations.all().first().and_then(|r| function(unit, &r)) {
                    Some(function) => author.callbacks.push((kind, function)),
                    None => bad(),
                }
            } else if name.as_bytes() == b".kpatch.ignore.functions" {
                for relocation in &section.relocations {
                    match function(unit, &relocation) {
                        Some(function) => {
                            author.ignored_functions.insert(function);
                        }
                        None => bad(),
                    }
                }
            } else if name.as_bytes() == b".kpatch.ignore.sections" {
                for relocation in &section.relocations {
                    match string(unit, &relocation) {
                        Some(text) => {
                            author.ignored_sections.insert(text);
                        }
                        None => bad(),
                    }
                }
            } else if name.as_bytes() == b".kpatch.force" {
                for relocation in &section.relocations {
                    match function(unit, &relocation) {
                        Some(function) => author.forced.push(unit.name(function)),
                        None => bad(),
                    }
                }
            } else if name.as_bytes() == b".modinfo" {
                author.import_namespaces.extend(imports(unit, id));
            }
        }
        author.callbacks.sort_by_key(|c| c.0);
        author
    }
}

fn function(unit: &Unit<'_>, relocation: &Relocation) -> Option<ElementId> {
    match unit.target(relocation, 0) {
        Target::Element(id, 0) if unit.element(id).kind == Kind::Function => Some(id),
        _ => None,
    }
}

/// The string that a pointer in a data section points to.
fn string(unit: &Unit<'_>, relocation: &Relocation) -> Option<String> {
    let text = match unit.target(relocation, 0) {
        Target::String(section, start, delta) => unit.string(section, start, delta)?.to_vec(),
        Target::Element(id, delta) => {
            let element = unit.element(id);
            let place = u64::try_from((element.origin as i64).wrapping_add(delta)).ok()?;
            unit.object.section(element.section).string_at(place)?.to_vec()
        }
        _ => return None,
    };
    let text = text.strip_suffix(&[0]).unwrap_or(&text);
    Some(text.to_str().ok()?.to_owned())
}

/// Symbol namespaces that the unit imports: `import_ns=NS`, for built-in code `MODULE.import_ns=NS`.
fn imports(unit: &Unit<'_>, section: SectionId) -> Vec<String> {
    unit.object
        .section(section)
        .bytes()
        .split(|&b| b == 0)
        .filter_map(|entry| {
            let (key, value) = entry.split_once_str("=")?;
            let key = key.rsplit(|&b| b == b'.').next()?;
            (key == b"import_ns").then(|| value.to_str_lossy().trim_matches('"').to_owned())
        })
        .collect()
}
