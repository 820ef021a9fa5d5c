//! What the differ found and why, for people and machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::source::SourceLine;

/// How an element of the patched version compares with its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it was.
    Same,
    /// It has an original that differs.
    Changed,
    /// It has no original.
    New,
}

/// Why an element is in the extract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "because")]
pub enum Reason {
    /// It differs from its original.
    Changed,
    /// A new global symbol: other units may refer to it.
    NewGlobal,
    /// Named by an author macro.
    Callback,
    /// The compiler split it off a function that is in.
    PartOf {
        /// The function.
        function: String,
    },
    /// It calls or contains a part that changed and cannot be replaced on its own.
    ContainsChanged {
        /// The part.
        part: String,
    },
    /// Something that is in refers to it.
    ReferencedBy {
        /// Who.
        element: String,
    },
    /// An entry of a special section about a function that is in.
    About {
        /// The function.
        function: String,
    },
}

/// The first difference between a function and its original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstDifference {
    /// What differs.
    pub what: String,
    /// Offset in the original, bytes from its start.
    pub original_offset: u64,
    /// Offset in the patched version.
    pub patched_offset: u64,
    /// The instruction there in the original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_instruction: Option<String>,
    /// The instruction there in the patched version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patched_instruction: Option<String>,
    /// The place in the original source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_source: Option<SourceLine>,
    /// The place in the patched source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patched_source: Option<SourceLine>,
}

/// A function or datum of the patched version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ElementReport {
    /// Its name: symbol, or section and offset.
    pub name: String,
    /// Its section.
    pub section: String,
    /// `function`, `datum`, `special`, `unnamed`, `detached-code`, `entry`.
    pub kind: &'static str,
    /// Against its original.
    pub status: Status,
    /// Name of its original where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// Why it is in the extract; nothing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub included: Option<Reason>,
    /// Where it first differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<FirstDifference>,
}

/// Where a symbol that the unit does not define is used first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The symbol.
    pub symbol: String,
    /// The function or datum that refers to it.
    pub by: String,
    /// The place in the patched source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
}

/// Why a change cannot take effect in a running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// Code or data of the kernel's start, or of a module's.
    Start,
    /// Code that runs when the module is unloaded; it has no entry that livepatch could redirect.
    Exit,
    /// The initial value of a datum.
    Value,
    /// Code that only start code of vmlinux calls, which has run.
    Unreached,
}

/// A change that is left out of the extract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Function or datum.
    pub name: String,
    /// Its section.
    pub section: String,
    /// Why.
    pub reason: SkipReason,
    /// Its place in the patched source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLine>,
}

/// A name that many entries of a list share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedName(pub Arc<str>);

impl Serialize for SharedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The whole story of one pair of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The unit's object.
    pub unit: String,
    /// `vmlinux` or a module.
    pub object: String,
    /// The objects have been through objtool.
    pub after_objtool: bool,
    /// Names of changed functions that are replaced.
    pub changed: Vec<String>,
    /// Names of new functions.
    pub new: Vec<String>,
    /// Names of callback functions.
    pub callbacks: Vec<String>,
    /// Functions whose only difference are line numbers.
    pub line_only: Vec<String>,
    /// Functions marked to be ignored.
    pub ignored_functions: Vec<String>,
    /// Sections marked to be ignored.
    pub ignored_sections: Vec<String>,
    /// Functions of the patched version that are changed, new or in the extract, and data that are new or in
    /// the extract.
    pub elements: Vec<ElementReport>,
    /// Function symbols of the extract.
    pub functions: Vec<String>,
    /// How many symbols lie in executable sections of the extract.
    pub text_symbols: usize,
    /// Functions to be replaced, `object.name,sympos`.
    pub patched: Vec<String>,
    /// Sizes of the extract's allocated sections, bytes; same-named ones are added up.
    pub sections: BTreeMap<String, u64>,
    /// Undefined symbols of the extract that the module loader resolves.
    pub undefined: Vec<String>,
    /// Undefined symbols that neither the shipped kernel nor this unit defines.
    pub unresolved: Vec<String>,
    /// Where each symbol that the unit does not define is used first.
    pub uses: Vec<Use>,
    /// Changes that are left out, in the order of the patched object.
    pub skipped: Vec<Skipped>,
    /// `object.name,sympos` of every symbol that the livepatch core resolves.
    pub klp_symbols: Vec<String>,
    /// `(section, offset, type, addend, object to be patched, symbol)` of their relocations.
    pub klp_relocations: Vec<(SharedName, u64, u32, i64, SharedName, SharedName)>,
    /// Remarks that do not stop anything.
    pub warnings: Vec<String>,
}
