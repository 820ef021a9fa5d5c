//! Hook: the C file and the kbuild files of a patch module.
//!
//! The hook holds the tables of the livepatch API (`include/linux/livepatch.h`, the same external fields
//! from 5.1 to 7.3) and registers them. It is compiled against the target's headers, so that the layout of
//! the tables is the target's. Replacing functions are not named in it: a pointer to a static function to
//! which the compiler gave no `ENDBR` would make objtool complain, and since ftrace enters replacements by
//! a return, none is needed. Their addresses become relocations in [`crate::convert`], which learns the
//! layout from the section [`LAYOUT_SECTION`].
//!
//! The text holds no path and no time, so that equal inputs give equal modules.

use std::fmt::Write as _;

use kpatch_elf::extract::CallbackKind;
use kpatch_elf::klp::VMLINUX;
pub use kpatch_elf::note::{Note, NotedFunction, PatchFile, Provenance};
pub use kpatch_elf::note::{OWNER as NOTE_OWNER, SECTION as NOTE_SECTION, TYPE as NOTE_TYPE};
use thiserror::Error;

use crate::manifest::{ModuleManifest, PatchedObject};

/// What all symbols of the hook, and all names that link makes up, begin with.
pub const PREFIX: &str = "kpatch_hook_";

/// Name of the C file in the module's directory.
pub const SOURCE: &str = "kpatch-hook.c";

/// Name of the linked object in the module's directory.
pub const LINKED: &str = "kpatch-linked.o";

/// Name of the linked object's saved command, which is empty: kbuild demands one of every object.
pub const LINKED_COMMAND: &str = ".kpatch-linked.o.cmd";

/// Name of the file that tells kbuild what to make.
pub const KBUILD: &str = "Kbuild";

/// Name of the file that tells modpost which undefined symbols livepatch resolves.
pub const SYMVERS: &str = "kpatch-klp.symvers";

/// Section in which the hook tells the layout of `struct klp_func`; removed by convert.
pub const LAYOUT_SECTION: &str = ".kpatch.layout";

/// The symbol of the table of replaced functions of the object at this place in the manifest.
pub fn functions_symbol(object: usize) -> String {
    format!("{PREFIX}funcs_{object}")
}

/// What cannot be put into a hook.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HookError {
    /// The module's name cannot be one.
    #[error("{name:?} cannot be a livepatch module's name: {why}")]
    ModuleName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The note cannot be made.
    #[error("note: {0}")]
    Note(String),
}

/// All texts that kbuild gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// [`SOURCE`].
    pub source: String,
    /// [`KBUILD`].
    pub kbuild: String,
    /// [`SYMVERS`].
    pub symvers: String,
}

impl Hook {
    /// The files with their names, ready to be written; [`LINKED`] comes from link.
    pub fn files(&self) -> [(&'static str, &str); 4] {
        [
            (SOURCE, self.source.as_str()),
            (KBUILD, self.kbuild.as_str()),
            (SYMVERS, self.symvers.as_str()),
            (LINKED_COMMAND, ""),
        ]
    }
}

/// Arguments for make beside `-C HEADERS`, `M=DIRECTORY` and `modules`, given the module's directory.
///
/// BTF of a patch module is of no use: it describes the hook only, and is removed by convert. Not making
/// it spares pahole. Debug information is removed too, but before that the linker would take it into the
/// build-id, and with it the directory's name, which differs between runs.
pub fn make_arguments(directory: &str) -> Vec<String> {
    vec![
        format!("KBUILD_EXTRA_SYMBOLS={directory}/{SYMVERS}"),
        "CONFIG_DEBUG_INFO_BTF_MODULES=".to_owned(),
        "CONFIG_MODULE_SRCVERSION_ALL=".to_owned(),
        "KCFLAGS=-g0".to_owned(),
    ]
}

/// Writes the texts for a module named `name` (without `.ko`).
pub fn hook(
    name: &str,
    manifest: &ModuleManifest,
    provenance: &Provenance,
    replace: bool,
) -> Result<Hook, HookError> {
    check_name(name)?;
    let source = source(manifest, provenance, replace)?;
    let stem = |file: &str| file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_owned();
    let kbuild = format!(
        "# SPDX-License-Identifier: GPL-2.0\n\
         obj-m := {name}.o\n\
         {name}-y := {}.o {LINKED}\n\
         ccflags-y := -g0\n",
        stem(SOURCE)
    );
    Ok(Hook { source, kbuild, symvers: symvers(manifest) })
}

/// The lines that make modpost take livepatch's symbols for known ones, without a dependency on a module.
///
/// The CRC is a dummy: convert removes the entries that modpost makes of it.
pub fn symvers(manifest: &ModuleManifest) -> String {
    let mut out = String::new();
    for reference in &manifest.references {
        let _ = writeln!(out, "0x00000000\t{}\t{VMLINUX}\tEXPORT_SYMBOL_GPL\t", reference.symbol);
    }
    out
}

fn check_name(name: &str) -> Result<(), HookError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > crate::link::MAX_VERSIONED_NAME {
        "it is longer than 55 bytes"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        "it holds other characters than letters, digits, - and _"
    } else if name.starts_with('-') {
        "it begins with -"
    } else if name.replace('-', "_").starts_with("kpatch_hook")
        || name.replace('-', "_").starts_with("kpatch_linked")
    {
        "files of the build have that name"
    } else {
        return Ok(());
    };
    Err(HookError::ModuleName { name: name.to_owned(), why })
}

fn source(manifest: &ModuleManifest, provenance: &Provenance, replace: bool) -> Result<String, HookError> {
    let mut out = String::from(
        "// SPDX-License-Identifier: GPL-2.0\n\
         #include <linux/init.h>\n\
         #include <linux/livepatch.h>\n\
         #include <linux/module.h>\n\
         #include <linux/stddef.h>\n\
         #include <linux/types.h>\n\n",
    );
    for object in &manifest.objects {
        for callback in &object.callbacks {
            let result = if callback.kind == CallbackKind::PrePatch { "int" } else { "void" };
            let _ = writeln!(out, "extern {result} {}(struct klp_object *obj);", callback.symbol);
        }
    }
    for (index, object) in manifest.objects.iter().enumerate() {
        let _ = writeln!(out, "\nstatic struct klp_func {}[] = {{", functions_symbol(index));
        for function in &object.functions {
            let _ = writeln!(
                out,
                "\t{{ .old_name = {}, .old_sympos = {} }},",
                literal(&function.name),
                function.sympos
            );
        }
        out.push_str("\t{ }\n};\n");
    }
    let _ = writeln!(out, "\nstatic struct klp_object {PREFIX}objects[] = {{");
    for (index, object) in manifest.objects.iter().enumerate() {
        object_entry(&mut out, index, object);
    }
    let _ = write!(
        out,
        "\t{{ }}\n}};\n\n\
         static struct klp_patch {PREFIX}patch = {{\n\
         \t.mod = THIS_MODULE,\n\
         \t.objs = {PREFIX}objects,\n\
         \t.replace = {replace},\n\
         }};\n\n\
         /* Read and removed when the module gets its final form. */\n\
         static const u64 {PREFIX}layout[] __used __section(\"{LAYOUT_SECTION}\") = {{\n\
         \tsizeof(struct klp_func),\n\
         \toffsetof(struct klp_func, old_name),\n\
         \toffsetof(struct klp_func, new_func),\n\
         }};\n\n"
    );
    note(&mut out, manifest, provenance, replace)?;
    let _ = write!(
        out,
        "static int __init {PREFIX}init(void)\n{{\n\treturn klp_enable_patch(&{PREFIX}patch);\n}}\n\n\
         static void __exit {PREFIX}exit(void)\n{{\n}}\n\n\
         module_init({PREFIX}init);\n\
         module_exit({PREFIX}exit);\n\n\
         MODULE_LICENSE(\"GPL\");\n\
         MODULE_DESCRIPTION(\"Live patch for Linux {}\");\n\
         MODULE_INFO(livepatch, \"Y\");\n",
        escape(&provenance.release)
    );
    let mut info = |tag: &str, value: &str| {
        let _ = writeln!(out, "MODULE_INFO({tag}, {});", literal(value));
    };
    // The macro MODULE_IMPORT_NS takes a word before 6.13 and a string since; what it makes is the same.
    for namespace in &manifest.import_namespaces {
        info("import_ns", namespace);
    }
    info("kpatch_version", &provenance.version);
    if let Some(build_id) = &provenance.build_id {
        info("kpatch_target_build_id", build_id);
    }
    for patch in &provenance.patches {
        info("kpatch_patch", &format!("blake3:{} {}", patch.blake3, patch.subject));
    }
    for skipped in &provenance.skipped {
        info("kpatch_skipped", skipped);
    }
    for (object, function) in manifest.functions() {
        info("kpatch_function", &format!("{}:{},{}", object.name, function.name, function.sympos));
    }
    Ok(out)
}

fn object_entry(out: &mut String, index: usize, object: &PatchedObject) {
    out.push_str("\t{\n");
    // The kernel proper goes without a name.
    if object.name != VMLINUX {
        let _ = writeln!(out, "\t\t.name = {},", literal(&object.name));
    }
    let _ = writeln!(out, "\t\t.funcs = {},", functions_symbol(index));
    for callback in &object.callbacks {
        let field = callback.kind.section().rsplit('.').next().unwrap_or_default();
        let _ = writeln!(out, "\t\t.callbacks.{field} = {},", callback.symbol);
    }
    out.push_str("\t},\n");
}

fn note(
    out: &mut String,
    manifest: &ModuleManifest,
    provenance: &Provenance,
    replace: bool,
) -> Result<(), HookError> {
    let mut provenance = provenance.clone();
    // Of modules in which nothing changes, nothing is demanded.
    provenance.modules.retain(|name, _| manifest.functions().any(|(object, _)| object.name == *name));
    let note = Note {
        note: 1,
        provenance,
        replace,
        functions: manifest
            .functions()
            .map(|(object, function)| NotedFunction {
                object: object.name.clone(),
                name: function.name.clone(),
                sympos: function.sympos,
            })
            .collect(),
    };
    let mut text = serde_json::to_string(&note).map_err(|error| HookError::Note(error.to_string()))?;
    // The literal's NUL is the note's padding, exactly.
    while text.len() % 4 != 3 {
        text.push(' ');
    }
    let owner = NOTE_OWNER.len() + 1;
    let _ = write!(
        out,
        "static const struct {{\n\
         \tu32 owner_size, text_size, type;\n\
         \tchar owner[{}];\n\
         \tchar text[{}];\n\
         }} {PREFIX}note __used __aligned(4) __section(\"{NOTE_SECTION}\") = {{\n\
         \t{owner}, {}, {NOTE_TYPE}, \"{NOTE_OWNER}\",\n",
        owner.next_multiple_of(4),
        text.len() + 1,
        text.len(),
    );
    // Short lines, since compilers need not take literals of any length.
    let bytes = text.as_bytes();
    for chunk in bytes.chunks(64) {
        let _ = writeln!(out, "\t\"{}\"", escape_bytes(chunk));
    }
    out.push_str("};\n\n");
    Ok(())
}

/// A C string literal without characters that would break a line of modinfo.
fn literal(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn escape(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    escape_bytes(clean.as_bytes())
}

fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(byte as char);
            }
            // A question mark could begin a trigraph.
            b' '..=b'~' if byte != b'?' => out.push(byte as char),
            // Three digits, so that a digit that follows is not taken in.
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out
}
