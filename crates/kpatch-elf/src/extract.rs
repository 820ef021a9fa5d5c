//! The extract: what the differ hands to the linker of the patch module.
//!
//! An extract is an ordinary `ET_REL` object that any ELF tool can read. All its references are ordinary
//! relocations; a reference that the livepatch core has to resolve points to an ordinary undefined symbol
//! whose meaning stands in the manifest. The manifest is the JSON text of [`Manifest`] in the section
//! [`SECTION`], which is not allocated; `objcopy -O binary -j .kpatch.extract` prints it. Objects are
//! brought into livepatch form only after the target kernel's own kbuild and objtool have seen them as
//! ordinary code.

use serde::{Deserialize, Serialize};

/// Name of the section that holds the manifest.
pub const SECTION: &str = ".kpatch.extract";

/// Version of the manifest's layout; a reader refuses any other.
pub const VERSION: u32 = 1;

/// Everything about an extract that ELF cannot say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The unit's object file relative to the build directory, `fs/proc/meminfo.o`.
    pub unit: String,
    /// The object this unit belongs to: `vmlinux` or a module's name with `_` for `-`.
    pub object: String,
    /// True when objtool has already run over the compiled objects (their `.orc_unwind` and the like are
    /// in the extract), so that it must not run again.
    pub after_objtool: bool,
    /// The functions to be replaced, in symbol order.
    pub functions: Vec<PatchedFunction>,
    /// What the undefined symbols that need the livepatch core mean, in symbol order.
    pub references: Vec<Reference>,
    /// Callbacks of the patch author's macros.
    pub callbacks: Vec<Callback>,
    /// Symbol namespaces that the unit imports (`MODULE_IMPORT_NS`), without quotes.
    pub import_namespaces: Vec<String>,
}

/// A function that the patch replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchedFunction {
    /// Name of the replacing function's symbol in the extract.
    pub symbol: String,
    /// Name of the function to be replaced in the shipped symbol table.
    pub name: String,
    /// Position among the same-named symbols of the object, as kallsyms counts; 0 where the name is unique.
    pub sympos: u32,
    /// Size in bytes of the shipped function.
    pub old_size: u64,
}

/// An undefined symbol of the extract that the livepatch core resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Name of the undefined symbol in the extract.
    pub symbol: String,
    /// The object that defines it: `vmlinux` or a module.
    pub object: String,
    /// Its name in that object's symbol table.
    pub name: String,
    /// Position among the same-named symbols of the object, as kallsyms counts; 0 where the name is unique.
    pub sympos: u32,
    /// True for a function, so that the reference may be called.
    pub function: bool,
}

/// A callback of the livepatch core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// When it is called.
    pub kind: CallbackKind,
    /// Name of its symbol in the extract.
    pub symbol: String,
}

/// The four moments at which the livepatch core calls back; the order is that of `struct klp_callbacks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallbackKind {
    /// Before the object is patched; may refuse.
    PrePatch,
    /// After the transition.
    PostPatch,
    /// Before the object is unpatched.
    PreUnpatch,
    /// After the object has been unpatched.
    PostUnpatch,
}

impl CallbackKind {
    /// All kinds, in order.
    pub const ALL: [Self; 4] = [Self::PrePatch, Self::PostPatch, Self::PreUnpatch, Self::PostUnpatch];

    /// Name of the section in which the author macro leaves the pointer, and of the field of
    /// `struct klp_callbacks` behind the last dot.
    pub fn section(self) -> &'static str {
        match self {
            Self::PrePatch => ".kpatch.callbacks.pre_patch",
            Self::PostPatch => ".kpatch.callbacks.post_patch",
            Self::PreUnpatch => ".kpatch.callbacks.pre_unpatch",
            Self::PostUnpatch => ".kpatch.callbacks.post_unpatch",
        }
    }
}
