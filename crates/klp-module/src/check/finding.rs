//! What the check finds wrong, each with a stable code and a remedy.

use thiserror::Error;

/// Something that must not be in a finished module.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Finding {
    #[error("the module is no readable ELF object: {0}")]
    Malformed(String),
    #[error("relocation section {section} {what}")]
    RelaSection { section: String, what: &'static str },
    #[error("{section}+{offset:#x}: the kernel's loader does not know relocation type {kind} ({symbol})")]
    RelocationType { section: String, offset: u64, kind: u32, symbol: String },
    #[error("{section}+{offset:#x}: relocation against {symbol} leads out of its section")]
    RelocationRange { section: String, offset: u64, symbol: String },
    #[error("{section}+{offset:#x}: bytes under the relocation against {symbol} are not zero")]
    NonZero { section: String, offset: u64, symbol: String },
    #[error("{section}+{offset:#x}: two relocations write the same bytes ({symbol})")]
    Overlap { section: String, offset: u64, symbol: String },
    #[error("{section}+{offset:#x}: an ordinary relocation refers to livepatch symbol {symbol}")]
    PlainToLivepatch { section: String, offset: u64, symbol: String },
    #[error("{section}+{offset:#x}: a livepatch relocation refers to ordinary symbol {symbol}")]
    LivepatchToPlain { section: String, offset: u64, symbol: String },
    #[error("{section}: relocations gated by {gate} refer to {symbol} of vmlinux")]
    GatedVmlinux { section: String, gate: String, symbol: String },
    #[error("{section}: relocations ungated (vmlinux) refer to {symbol}, which belongs to a module")]
    UngatedModule { section: String, symbol: String },
    #[error("{section}: gated by {gate}, which the module does not patch")]
    UnknownGate { section: String, gate: String },
    #[error("{section} is read before its relocations against {symbol} happen (gate {gate})")]
    SpecialSection { section: String, gate: String, symbol: String },
    #[error("livepatch symbol {symbol}: the kernel cannot parse the name")]
    SymbolName { symbol: String },
    #[error("livepatch symbol {symbol}: the symbol table of {object} is not known")]
    NoTable { symbol: String, object: String },
    #[error("livepatch symbol {symbol}: {object} has no {name} at position {sympos}{hint}")]
    NoSymbol { symbol: String, object: String, name: String, sympos: u32, hint: String },
    #[error("livepatch symbol {symbol} is none of the references that were linked")]
    UnexpectedSymbol { symbol: String },
    #[error("reference {symbol} ({object}:{name}) got lost")]
    LostReference { symbol: String, object: String, name: String },
    #[error("{symbol} is undefined, and the kernel does not export it")]
    NotExported { symbol: String },
    #[error("{symbol} is exported to named modules only ({namespace})")]
    Restricted { symbol: String, namespace: String },
    #[error("{symbol} is exported by module {object}, which the patch would then depend on")]
    ModuleExport { symbol: String, object: String },
    #[error("{symbol} is exported in namespace {namespace}, which the module does not import")]
    Namespace { symbol: String, namespace: String },
    #[error("{symbol} has no version in the module, but the kernel demands one")]
    NoVersion { symbol: String },
    #[error("{symbol} has version {found:#010x} in the module and {expected:#010x} in the kernel")]
    Version { symbol: String, found: u32, expected: u32 },
    #[error("the module has a version for {symbol}, to which it does not refer")]
    StrayVersion { symbol: String },
    #[error("section {section}: {what}")]
    Versions { section: &'static str, what: &'static str },
    #[error("modinfo {tag} is {found:?}, expected {expected:?}")]
    Info { tag: &'static str, found: String, expected: String },
    #[error("section {section} is left over from the build")]
    Leftover { section: String },
    #[error("the module patches nothing")]
    Empty,
    #[error("table of {object}: {what}")]
    Table { object: String, what: String },
    #[error("{object}:{name},{sympos}: no function of that name and position in the kernel")]
    NoFunction { object: String, name: String, sympos: u32 },
    #[error(
        "{object}:{name},{sympos} has {found} bytes in the kernel, but {expected} in the compiled original"
    )]
    FunctionSize { object: String, name: String, sympos: u32, found: u64, expected: u64 },
    #[error("{object}:{name},{sympos} has no entry call in the kernel")]
    NoEntry { object: String, name: String, sympos: u32 },
    #[error("{object}: which of its functions have entry calls is not known")]
    NoEntryTable { object: String },
    #[error("{name}: the replacing function has no entry call")]
    NewWithoutEntry { name: String },
    #[error("{name} is called through a pointer by the patch, but its ENDBR is {what} in this kernel")]
    Endbr { name: String, what: &'static str },
}

impl Finding {
    /// A word that stays the same in all versions, for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::RelaSection { .. } => "rela-section",
            Self::RelocationType { .. } => "relocation-type",
            Self::RelocationRange { .. } => "relocation-range",
            Self::NonZero { .. } => "non-zero-bytes",
            Self::Overlap { .. } => "overlapping-relocations",
            Self::PlainToLivepatch { .. } => "plain-to-livepatch",
            Self::LivepatchToPlain { .. } => "livepatch-to-plain",
            Self::GatedVmlinux { .. } => "gated-vmlinux-symbol",
            Self::UngatedModule { .. } => "ungated-module-symbol",
            Self::UnknownGate { .. } => "unknown-gate",
            Self::SpecialSection { .. } => "gated-special-section",
            Self::SymbolName { .. } => "symbol-name",
            Self::NoTable { .. } => "no-symbol-table",
            Self::NoSymbol { .. } => "no-symbol",
            Self::UnexpectedSymbol { .. } => "unexpected-symbol",
            Self::LostReference { .. } => "lost-reference",
            Self::NotExported { .. } => "not-exported",
            Self::Restricted { .. } => "restricted-export",
            Self::ModuleExport { .. } => "module-export",
            Self::Namespace { .. } => "namespace",
            Self::NoVersion { .. } => "no-version",
            Self::Version { .. } => "version",
            Self::StrayVersion { .. } => "stray-version",
            Self::Versions { .. } => "versions",
            Self::Info { .. } => "modinfo",
            Self::Leftover { .. } => "leftover-section",
            Self::Empty => "empty",
            Self::Table { .. } => "table",
            Self::NoFunction { .. } => "no-function",
            Self::FunctionSize { .. } => "function-size",
            Self::NoEntry { .. } => "no-entry-call",
            Self::NoEntryTable { .. } => "no-entry-table",
            Self::NewWithoutEntry { .. } => "new-without-entry-call",
            Self::Endbr { .. } => "endbr",
        }
    }

    /// The symbol, function or section it is about.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Malformed(_) | Self::Empty => None,
            Self::RelaSection { section, .. }
            | Self::Leftover { section }
            | Self::UnknownGate { section, .. } => Some(section),
            Self::Versions { section, .. } => Some(section),
            Self::RelocationType { symbol, .. }
            | Self::RelocationRange { symbol, .. }
            | Self::NonZero { symbol, .. }
            | Self::Overlap { symbol, .. }
            | Self::PlainToLivepatch { symbol, .. }
            | Self::LivepatchToPlain { symbol, .. }
            | Self::GatedVmlinux { symbol, .. }
            | Self::UngatedModule { symbol, .. }
            | Self::SpecialSection { symbol, .. }
            | Self::SymbolName { symbol }
            | Self::NoTable { symbol, .. }
            | Self::NoSymbol { symbol, .. }
            | Self::UnexpectedSymbol { symbol }
            | Self::LostReference { symbol, .. }
            | Self::NotExported { symbol }
            | Self::Restricted { symbol, .. }
            | Self::ModuleExport { symbol, .. }
            | Self::Namespace { symbol, .. }
            | Self::NoVersion { symbol }
            | Self::Version { symbol, .. }
            | Self::StrayVersion { symbol } => Some(symbol),
            Self::Info { tag, .. } => Some(tag),
            Self::Table { object, .. } | Self::NoEntryTable { object } => Some(object),
            Self::NoFunction { name, .. }
            | Self::FunctionSize { name, .. }
            | Self::NoEntry { name, .. }
            | Self::NewWithoutEntry { name }
            | Self::Endbr { name, .. } => Some(name),
        }
    }

    /// What a user can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoEntry { .. } => {
                "the kernel cannot replace this function (it is notrace, inline or written in assembly); \
                 change its callers instead"
            }
            Self::Version { .. } => {
                "the headers package is of another build than the kernel, or the patch changes a type that \
                 an exported function takes; refresh the packages, or wrap new includes in #ifndef __GENKSYMS__"
            }
            Self::Info { tag: "vermagic", .. } => {
                "the headers package is of another kernel; install or fetch that of the target release"
            }
            Self::Namespace { .. } => "add MODULE_IMPORT_NS() to the patched file",
            Self::Restricted { .. } | Self::NotExported { .. } => {
                "the patch refers to a symbol that neither it nor the kernel has; check its spelling and \
                 whether another patch of the series defines it"
            }
            Self::FunctionSize { .. } => {
                "the compiled original is not what the kernel was built from; check source, configuration \
                 and compiler"
            }
            Self::NoTable { .. }
            | Self::NoSymbol { .. }
            | Self::NoFunction { .. }
            | Self::NoEntryTable { .. } => {
                "the symbol table is of another build than the compiled source, or incomplete; refresh the \
                 kernel's packages"
            }
            Self::SpecialSection { .. } => {
                "static keys and static calls of modules cannot be used in a patch; use static_key_enabled() \
                 or KPATCH_STATIC_CALL() instead"
            }
            Self::Endbr { .. } => {
                "call the function directly, or point to a new function of the patch that calls it: with \
                 indirect branch tracking the processor stops at a function without ENDBR"
            }
            Self::Empty => "the patch changes no code of this configuration",
            Self::Info { .. }
            | Self::Malformed(_)
            | Self::RelaSection { .. }
            | Self::RelocationType { .. }
            | Self::RelocationRange { .. }
            | Self::NonZero { .. }
            | Self::Overlap { .. }
            | Self::PlainToLivepatch { .. }
            | Self::LivepatchToPlain { .. }
            | Self::GatedVmlinux { .. }
            | Self::UngatedModule { .. }
            | Self::UnknownGate { .. }
            | Self::SymbolName { .. }
            | Self::UnexpectedSymbol { .. }
            | Self::LostReference { .. }
            | Self::ModuleExport { .. }
            | Self::NoVersion { .. }
            | Self::StrayVersion { .. }
            | Self::Versions { .. }
            | Self::Leftover { .. }
            | Self::Table { .. }
            | Self::NewWithoutEntry { .. } => {
                "the module was not made as intended; please report this with the patch and the release"
            }
        }
    }
}
