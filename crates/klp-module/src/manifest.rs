//! What is known about a patch module beside its bytes; made by link, used by hook, convert and check.

use kpatch_elf::extract::CallbackKind;
use serde::{Deserialize, Serialize};

/// Everything about the patch module that ELF cannot say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleManifest {
    /// The objects that the module patches: vmlinux first, then modules by name.
    pub objects: Vec<PatchedObject>,
    /// The undefined symbols that the livepatch core resolves, by their name in the linked object.
    pub references: Vec<KlpReference>,
    /// Symbol namespaces to import, sorted.
    pub import_namespaces: Vec<String>,
    /// Symbols that bear another name until convert gives them their own.
    pub renames: Vec<Rename>,
    /// True when objtool had run over the units before they were compared; it must not run again.
    pub after_objtool: bool,
}

impl ModuleManifest {
    /// All functions to be replaced, with the object they belong to.
    pub fn functions(&self) -> impl Iterator<Item = (&PatchedObject, &NewFunction)> {
        self.objects.iter().flat_map(|object| object.functions.iter().map(move |f| (object, f)))
    }

    /// The name that a symbol of the linked object has in the finished module.
    pub fn final_name<'a>(&'a self, linked: &'a str) -> &'a str {
        self.renames.iter().find(|r| r.linked == linked).map_or(linked, |r| r.name.as_str())
    }
}

/// One `struct klp_object`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchedObject {
    /// `vmlinux`, or a module's name with `_` for `-`.
    pub name: String,
    /// The functions to be replaced; may be empty where only callbacks or new code belong to the object.
    pub functions: Vec<NewFunction>,
    /// At most one callback of each kind.
    pub callbacks: Vec<ObjectCallback>,
}

/// One `struct klp_func`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFunction {
    /// Name of the replacing function's symbol in the linked object, where no other symbol has it.
    pub symbol: String,
    /// Name of the function to be replaced.
    pub name: String,
    /// Its position among the same-named symbols of the object; 0 where the name is unique.
    pub sympos: u32,
    /// Size in bytes of the function to be replaced.
    pub old_size: u64,
    /// The unit it comes from, `fs/proc/meminfo.o`.
    pub unit: String,
}

/// A callback of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCallback {
    /// When it is called.
    pub kind: CallbackKind,
    /// Name of its symbol in the linked object, global, and a C identifier.
    pub symbol: String,
    /// The unit it comes from.
    pub unit: String,
}

/// An undefined symbol that the livepatch core resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KlpReference {
    /// Its name in the linked object.
    pub symbol: String,
    /// The object whose patching makes the relocations against it happen.
    pub gate: String,
    /// The object that defines it.
    pub object: String,
    /// Its name in that object's symbol table.
    pub name: String,
    /// Its position among the same-named symbols of the object; 0 where the name is unique.
    pub sympos: u32,
    /// True for a function.
    pub function: bool,
    /// The units that refer to it.
    pub units: Vec<String>,
}

/// A symbol's name in the linked object and in the finished module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Name in the linked object and in the module as kbuild leaves it.
    pub linked: String,
    /// Name in the finished module.
    pub name: String,
}
