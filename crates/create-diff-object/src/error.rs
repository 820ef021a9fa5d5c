//! What can be wrong with a pair of objects. Every error has a stable code and a remedy.

use std::fmt;

use thiserror::Error;

use kpatch_elf::{ReadError, WriteError};

use crate::inlined::Inlined;
use crate::source::SourceLine;

/// A reason to refuse.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiffError {
    /// An input is no object that can be worked on.
    #[error("{which} object: {source}")]
    Read {
        /// `original` or `patched`.
        which: &'static str,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The output cannot be written.
    #[error("cannot write the extract: {0}")]
    Write(#[from] WriteError),
    /// The manifest cannot be written.
    #[error("cannot write the manifest: {0}")]
    Manifest(String),
    /// The two objects are for different machines or ABIs.
    #[error("original and patched differ in their ELF header: {what}")]
    Header {
        /// Which field.
        what: &'static str,
    },
    /// No size for the entries of a special section.
    #[error("the entry size of {section} (struct {structure}) is unknown")]
    EntrySizeUnknown {
        /// The section.
        section: String,
        /// The C structure.
        structure: &'static str,
        /// NAME of `NAME_STRUCT_SIZE`.
        variable: &'static str,
    },
    /// The size does not fit.
    #[error("{section} ({size} bytes) does not consist of entries of {entry} bytes")]
    EntrySizeWrong {
        /// The section.
        section: String,
        /// Its size, bytes.
        size: u64,
        /// Size of an entry, bytes.
        entry: u64,
    },
    /// An alignment that no kernel has.
    #[error("{section} is aligned to {align} bytes")]
    Alignment {
        /// The section.
        section: String,
        /// Its alignment.
        align: u64,
    },
    /// A section that holds entries about code but is not known.
    #[error("{section} refers to function {function} and is no section that this tool knows")]
    UnknownTable {
        /// The section.
        section: String,
        /// A function to be taken that it refers to.
        function: String,
    },
    /// The original function cannot be replaced: no call to the tracer at its entry.
    #[error("{function} has no patchable entry (fentry), so it cannot be replaced")]
    NoEntry {
        /// The function.
        function: String,
    },
    /// A function that no task leaves for good.
    #[error("{function} is on the stack of every task that sleeps, so that no transition could end")]
    AlwaysOnStack {
        /// The function.
        function: String,
    },
    /// Code or data that the kernel frees after start.
    #[error("{name} in {section} is freed after start and cannot be patched")]
    Init {
        /// Function or datum.
        name: String,
        /// Its section.
        section: String,
    },
    /// Something taken refers to what the kernel frees.
    #[error("{by} refers to {name} in {section}, which is freed after start")]
    InitReference {
        /// Who refers.
        by: String,
        /// What is referred to.
        name: String,
        /// Its section.
        section: String,
    },
    /// Initialised data differs.
    #[error("{what} of {name} in {section} changed")]
    ChangedData {
        /// The datum.
        name: String,
        /// Its section.
        section: String,
        /// `contents` or `size`.
        what: &'static str,
    },
    /// Code that is taken relies on a change that is left out.
    #[error("{by} uses {name}, and the change of {skipped} is left out")]
    DependsOnSkipped {
        /// The function that is taken.
        by: String,
        /// The datum that it uses.
        name: String,
        /// What is left out: the datum itself, or the function that sets it.
        skipped: String,
    },
    /// A new registration.
    #[error("{name} in {section} registers something at start; a live patch comes too late for that")]
    Registration {
        /// The entry's symbol.
        name: String,
        /// Its section.
        section: String,
    },
    /// Two elements of one name cannot be told apart.
    #[error(
        "{name} cannot be matched with its original: nothing tells which of {candidates} it is, if any ({section})"
    )]
    Ambiguous {
        /// Its name.
        name: String,
        /// Its section.
        section: String,
        /// How many.
        candidates: usize,
    },
    /// Two names of one function or datum have become two, or the other way round.
    #[error("{name} {what} {other}")]
    Alias {
        /// The name.
        name: String,
        /// `is no longer an alias of` or `has become an alias of`.
        what: &'static str,
        /// What it shares or shared its place with.
        other: String,
    },
    /// The shipped object lacks a symbol.
    #[error("{name} is not in the symbol table of {object}")]
    NotShipped {
        /// The symbol.
        name: String,
        /// `vmlinux` or a module.
        object: String,
    },
    /// kallsyms does not list a symbol.
    #[error("{name} of {object} is not listed by kallsyms, so that livepatch cannot find it")]
    NotListed {
        /// The symbol.
        name: String,
        /// `vmlinux` or a module.
        object: String,
    },
    /// Local symbols of this unit cannot be found in the shipped table.
    #[error("{name}: {candidates} files named {file} in the symbol table of {object} match equally well")]
    FileAmbiguous {
        /// The symbol that was looked for.
        name: String,
        /// Name of the source.
        file: String,
        /// `vmlinux` or a module.
        object: String,
        /// How many match.
        candidates: usize,
    },
    /// Two local symbols of one name in one file.
    #[error("{name}: {candidates} local symbols of that name in {file}")]
    LocalAmbiguous {
        /// The symbol.
        name: String,
        /// Name of the source.
        file: String,
        /// How many.
        candidates: usize,
    },
    /// A static key in a module.
    #[error("{function} uses static key {key} of module {object}{}", used_by(by.as_deref()))]
    JumpLabel {
        /// The function.
        function: String,
        /// The key.
        key: String,
        /// The module.
        object: String,
        /// The inline function that it was written in, if not this one.
        by: Option<Box<Inlined>>,
    },
    /// A static call whose key is in a module.
    #[error("{function} makes static call {key} of module {object}{}", used_by(by.as_deref()))]
    StaticCall {
        /// The function.
        function: String,
        /// The key.
        key: String,
        /// The module.
        object: String,
        /// The inline function that it was written in, if not this one.
        by: Option<Box<Inlined>>,
    },
    /// A special section would need the livepatch core to relocate it after it has been used.
    #[error("{section} of {function} refers to {symbol}, which is known only when {object} is loaded")]
    ModuleSpecial {
        /// The special section.
        section: String,
        /// The function it is about.
        function: String,
        /// The symbol.
        symbol: String,
        /// The module.
        object: String,
    },
    /// A constant that only vmlinux gets patched in.
    #[error("{function} contains runtime constant {constant}, which the kernel fixes up in vmlinux only")]
    RuntimeConstant {
        /// The function.
        function: String,
        /// The section that lists it.
        constant: String,
    },
    /// A relocation that cannot be carried over.
    #[error("relocation {kind} at {place} cannot be carried over")]
    Relocation {
        /// Its type.
        kind: String,
        /// Element and offset.
        place: String,
    },
    /// A branch whose field is too short for the way from a module to the kernel.
    #[error("{place} branches to {target} over a short distance, which does not reach out of a module")]
    ShortBranch {
        /// Element and offset.
        place: String,
        /// Where it jumps to.
        target: String,
    },
    /// A jump to another function instead of a call (ppc64le).
    #[error("{function} ends in a jump to {target}, which does not restore the table of contents")]
    SiblingCall {
        /// The function.
        function: String,
        /// Where it jumps to.
        target: String,
    },
    /// A section of the author macros is damaged.
    #[error("{section} is not what the author macros make")]
    AuthorSection {
        /// The section.
        section: String,
    },
}

impl DiffError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable-object",
            Self::Write(_) | Self::Manifest(_) => "unwritable-extract",
            Self::Header { .. } => "header-mismatch",
            Self::EntrySizeUnknown { .. } => "entry-size-unknown",
            Self::EntrySizeWrong { .. } => "entry-size-wrong",
            Self::Alignment { .. } => "alignment",
            Self::UnknownTable { .. } => "unknown-table",
            Self::NoEntry { .. } => "no-entry",
            Self::AlwaysOnStack { .. } => "always-on-stack",
            Self::Init { .. } => "init-changed",
            Self::InitReference { .. } => "init-reference",
            Self::ChangedData { .. } => "data-changed",
            Self::DependsOnSkipped { .. } => "depends-on-skipped",
            Self::Registration { .. } => "registration",
            Self::Ambiguous { .. } => "ambiguous-twin",
            Self::Alias { .. } => "alias-changed",
            Self::NotShipped { .. } => "not-shipped",
            Self::NotListed { .. } => "not-in-kallsyms",
            Self::FileAmbiguous { .. } => "file-ambiguous",
            Self::LocalAmbiguous { .. } => "local-ambiguous",
            Self::JumpLabel { .. } => "module-static-key",
            Self::StaticCall { .. } => "module-static-call",
            Self::ModuleSpecial { .. } => "module-special-section",
            Self::RuntimeConstant { .. } => "runtime-constant",
            Self::Relocation { .. } => "relocation",
            Self::ShortBranch { .. } => "short-branch",
            Self::SiblingCall { .. } => "sibling-call",
            Self::AuthorSection { .. } => "author-section",
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Header { .. } => {
                "compile both versions with the same compiler and flags"
            }
            Self::Write(_) | Self::Manifest(_) => "report this: the tool made something it cannot write",
            Self::Alignment { .. } => "compile it again: the object is damaged",
            Self::EntrySizeUnknown { .. } | Self::EntrySizeWrong { .. } => {
                "give the size of this kernel's structure (NAME_STRUCT_SIZE, or DWARF of vmlinux)"
            }
            Self::UnknownTable { .. } => {
                "the kernel needs this section to be correct for the new code; report the section's name"
            }
            Self::NoEntry { .. } => "patch its callers instead, e.g. with a copy of the function in them",
            Self::AlwaysOnStack { .. } => "change what it calls instead, before or after tasks are switched",
            Self::Init { .. } | Self::InitReference { .. } => {
                "it ran already; set things right in a pre-patch callback instead"
            }
            Self::ChangedData { .. } => {
                "leave the datum as it is and change the code that uses it, or set it in a callback"
            }
            Self::DependsOnSkipped { .. } => {
                "leave out the code that uses it as well, or set things right in a callback"
            }
            Self::Registration { .. } => "register from a callback, or leave it out of the live patch",
            Self::Ambiguous { .. } | Self::LocalAmbiguous { .. } => {
                "leave alone the function that refers to it, or give the new one another name"
            }
            Self::Alias { .. } => "keep the alias, and give what differs a name of its own",
            Self::NotShipped { .. } => "check that source and configuration are those of the shipped kernel",
            Self::NotListed { .. } => "avoid the reference in the changed functions",
            Self::FileAmbiguous { .. } => "avoid references to local symbols of this file",
            Self::JumpLabel { .. } => "use static_key_enabled() in place of the static branch",
            Self::StaticCall { .. } => "use KPATCH_STATIC_CALL() in place of static_call()",
            Self::ModuleSpecial { .. } => "avoid this construct in the changed function",
            Self::RuntimeConstant { .. } => {
                "compile both versions with include/asm-generic/runtime-const.h included first"
            }
            Self::Relocation { .. } => "report this with both objects",
            Self::ShortBranch { .. } | Self::SiblingCall { .. } => {
                "add __attribute__((optimize(\"-fno-optimize-sibling-calls\"))) to the function"
            }
            Self::AuthorSection { .. } => "use the macros of kpatch-macros.h",
        }
    }

    /// The exit status that the predecessor has for such an error: 1 for what it does not support, 2 for
    /// differences that cannot be reconciled.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NoEntry { .. }
            | Self::AlwaysOnStack { .. }
            | Self::Init { .. }
            | Self::ChangedData { .. }
            | Self::Registration { .. }
            | Self::DependsOnSkipped { .. }
            | Self::Ambiguous { .. }
            | Self::Alias { .. }
            | Self::Header { .. } => 2,
            _ => 1,
        }
    }
}

/// By which inline function something is used, as the end of a sentence.
pub(crate) fn used_by(by: Option<&Inlined>) -> String {
    by.map_or_else(String::new, |by| format!(", by {by}"))
}

/// An error and where it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub error: DiffError,
    /// The function or datum it is about.
    pub element: Option<String>,
    /// Its section.
    pub section: Option<String>,
    /// Its place in the patched source, where line tables tell.
    pub source: Option<SourceLine>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        write!(f, "{} [{}]; {}", self.error, self.error.code(), self.error.remedy())
    }
}

impl std::error::Error for Diagnostic {}
