//! Stable codes and remedies of the errors of link and convert.

use crate::convert::ConvertError;
use crate::link::LinkError;

/// An error of this kind means that two parts of this tool disagree.
const REPORT: &str = "this is an error of the tool: please report it with the patch and the kernel's release";

impl LinkError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoUnits | Self::Empty => "empty",
            Self::Read { .. } => "unreadable-extract",
            Self::Manifest { .. } | Self::Names { .. } => "bad-manifest",
            Self::Machine { .. } => "mixed-machines",
            Self::MixedObjtool { .. } => "mixed-objtool",
            Self::Unresolved { .. } => "unresolved",
            Self::Duplicate { .. } => "duplicate",
            Self::CrossObject { .. } => "cross-object",
            Self::TwoCallbacks { .. } => "two-callbacks",
            Self::TwoReplacements { .. } => "two-replacements",
            Self::ObjectName { .. } => "object-name",
            Self::Common { .. } => "common-symbol",
            Self::Section { .. } => "section",
        }
    }

    /// What the patch's author can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoUnits | Self::Empty => "a live patch needs a changed function or a callback",
            Self::Unresolved { .. } => "add the patch that defines the symbol, or leave out what uses it",
            Self::Duplicate { .. } => "give one of the two another name, or make it static",
            Self::CrossObject { .. } => {
                "define the symbol in the object that uses it, or make one module for each of the two objects"
            }
            Self::TwoCallbacks { .. } => "call both functions from one callback",
            Self::TwoReplacements { .. } => "build the units that share a source file in separate modules",
            Self::Common { .. } => "initialise the variable, or compile with -fno-common",
            Self::MixedObjtool { .. } | Self::Machine { .. } => "compile all units in the same way",
            Self::Read { .. }
            | Self::Manifest { .. }
            | Self::Names { .. }
            | Self::ObjectName { .. }
            | Self::Section { .. } => REPORT,
        }
    }

    /// The unit it is about.
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Read { unit, .. }
            | Self::Manifest { unit, .. }
            | Self::Names { unit, .. }
            | Self::Machine { unit, .. }
            | Self::MixedObjtool { unit }
            | Self::Unresolved { unit, .. }
            | Self::CrossObject { unit, .. }
            | Self::ObjectName { unit, .. }
            | Self::Common { unit, .. }
            | Self::Section { unit, .. } => Some(unit),
            Self::NoUnits
            | Self::Empty
            | Self::Duplicate { .. }
            | Self::TwoCallbacks { .. }
            | Self::TwoReplacements { .. } => None,
        }
    }
}

impl ConvertError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "unreadable-module",
            Self::Write(_) => "unwritable-module",
            Self::Hook(_) => "no-hook",
            Self::Function { .. } => "lost-function",
            Self::SpecialSection { .. } => "special-section",
            Self::RelocationType { .. } => "relocation-type",
            Self::NoBytes { .. } => "no-bytes",
            Self::Versions { .. } => "versions",
            Self::SymbolName { .. } => "symbol-name",
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::SpecialSection { .. } => {
                "use static_key_enabled() for a static branch and KPATCH_STATIC_CALL() for a static call on a key of the module"
            }
            Self::SymbolName { .. } => {
                "the kernel's symbol cannot be referred to; reach it through another function"
            }
            _ => REPORT,
        }
    }
}
