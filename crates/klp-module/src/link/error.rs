//! What can be wrong with the extracts of a patch.

use kpatch_elf::ReadError;
use kpatch_elf::extract::{self, CallbackKind};
use thiserror::Error;

/// Why units cannot be linked to one object.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// Nothing to link.
    #[error("no extracted object")]
    NoUnits,
    /// Not a single function is replaced and there is no callback, so that the kernel would load nothing.
    #[error("the patch replaces no function and has no callback")]
    Empty,
    /// The container cannot be read.
    #[error("{unit}: {source}")]
    Read {
        /// What the caller calls the extract.
        unit: String,
        /// What is wrong.
        source: ReadError,
    },
    /// The manifest is missing or is none.
    #[error("{unit}: section {} {what}", extract::SECTION)]
    Manifest {
        /// What the caller calls the extract.
        unit: String,
        /// What is wrong.
        what: String,
    },
    /// Units of different machines or ABIs.
    #[error("{unit} is for another machine than {first}")]
    Machine {
        /// The unit.
        unit: String,
        /// The first unit.
        first: String,
    },
    /// Some units went through objtool, some did not.
    #[error("objtool has run over some of the extracted objects, but not over {unit}")]
    MixedObjtool {
        /// A unit that it has not seen.
        unit: String,
    },
    /// An undefined symbol that is nowhere.
    #[error("{unit}: {symbol} is neither defined by the patch, nor exported, nor found in the kernel")]
    Unresolved {
        /// The unit that refers to it.
        unit: String,
        /// Its name.
        symbol: String,
    },
    /// Two units define one new global name.
    #[error("{symbol} is defined by both {first} and {second}")]
    Duplicate {
        /// Its name.
        symbol: String,
        /// A unit.
        first: String,
        /// Another.
        second: String,
    },
    /// A new definition belongs to a module that need not be loaded when its user runs.
    #[error("{unit} (of {user}) refers to {symbol}, new in {definer} (of {object})")]
    CrossObject {
        /// The unit that refers to it.
        unit: String,
        /// That unit's object.
        user: String,
        /// The symbol.
        symbol: String,
        /// The unit that defines it.
        definer: String,
        /// That unit's object.
        object: String,
    },
    /// Two callbacks of one kind for one object.
    #[error("{object} has two {kind:?} callbacks: {first} and {second}")]
    TwoCallbacks {
        /// The object.
        object: String,
        /// The kind.
        kind: CallbackKind,
        /// `unit: symbol` of one.
        first: String,
        /// `unit: symbol` of the other.
        second: String,
    },
    /// One function replaced twice.
    #[error("{object}:{name},{sympos} is replaced by both {first} and {second}")]
    TwoReplacements {
        /// The object.
        object: String,
        /// The function.
        name: String,
        /// Its position.
        sympos: u32,
        /// A unit.
        first: String,
        /// Another.
        second: String,
    },
    /// A name in the manifest that the extract does not have in the expected form.
    #[error("{unit}: manifest names {symbol}, which is {what} in the object")]
    Names {
        /// The unit.
        unit: String,
        /// The symbol.
        symbol: String,
        /// What was found.
        what: &'static str,
    },
    /// An object whose name livepatch cannot take.
    #[error("{unit}: {object:?} is no possible object name")]
    ObjectName {
        /// The unit.
        unit: String,
        /// The name.
        object: String,
    },
    /// A common symbol, which the module loader refuses.
    #[error("{unit}: {symbol} is a common symbol; compile with -fno-common")]
    Common {
        /// The unit.
        unit: String,
        /// The symbol.
        symbol: String,
    },
    /// A section that cannot be linked.
    #[error("{unit}: section {section}: {what}")]
    Section {
        /// The unit.
        unit: String,
        /// The section.
        section: String,
        /// What is wrong.
        what: &'static str,
    },
}
