//! What a compilation is: of what unit, for what, with what at hand.

use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use kbuild::object_tree::ObjectTree;
use kbuild::root::{Root, Task};

use super::overlay::Overlay;
use super::unit::Unit;
use crate::cache::Cache;
use crate::launcher::Launcher;
use crate::originals::Originals;
use crate::patch::{FileKind, FilePatch, PatchFile, Patched};

/// What a unit is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// The original as the kernel has it, for the proof.
    Shipped,
    /// The original, for the diff.
    Original,
    /// The patched source, for the diff.
    Patched,
}

/// How much the objects that are compared tell a debugger. It never changes code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugInformation {
    /// Functions and lines: all that messages need.
    Lines,
    /// Types as well, for a patch that may change the layout of a structure.
    Full,
}

impl DebugInformation {
    /// What the patches call for: types where they touch a header, or lines in a structure's definition.
    pub fn for_patch(patched: &Patched, patches: &[PatchFile]) -> DebugInformation {
        let in_structure = |file: &FilePatch| {
            let content = file.paths().find_map(|path| patched.files.get(path)?.as_deref());
            file.hunks.iter().any(|hunk| {
                hunk.lines.iter().any(|line| begins_structure(&line.text))
                    || content.is_some_and(|content| is_in_structure(content, hunk.new_start))
            })
        };
        let mut files = patches.iter().flat_map(|patch| &patch.files);
        if patched.of_kind(FileKind::Header).next().is_some() || files.any(in_structure) {
            DebugInformation::Full
        } else {
            DebugInformation::Lines
        }
    }

    pub(super) fn option(self) -> &'static str {
        match self {
            DebugInformation::Lines => "-g1",
            DebugInformation::Full => "-g",
        }
    }
}

/// True for `struct name {`, `static union {` and the like.
fn begins_structure(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let is_type = |word: &[u8]| matches!(word, b"struct" | b"union" | b"enum");
    line.ends_with(b"{")
        && !line.contains(&b'(')
        && !line.contains(&b'=')
        && line.split(|&byte| byte == b' ' || byte == b'\t').any(is_type)
}

/// True if the last line above `line` (from 1) that starts without blanks begins a structure.
fn is_in_structure(content: &[u8], line: u64) -> bool {
    let above = usize::try_from(line).unwrap_or(usize::MAX);
    let last =
        content.lines().take(above).filter(|l| l.first().is_some_and(|b| !b.is_ascii_whitespace())).last();
    last.is_some_and(begins_structure)
}

/// The header that reads runtime constants as variables, below the source tree; since 6.12.
const RUNTIME_CONSTANTS: &str = "include/asm-generic/runtime-const.h";

/// What compiling needs to know about the kernel.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where the compiler runs.
    pub root: &'a Root,
    /// The object tree, where commands run.
    pub tree: &'a ObjectTree,
    /// The source tree.
    pub source: &'a Path,
    /// The patched sources.
    pub overlay: &'a Overlay,
    /// The patch author's headers.
    pub headers: &'a Path,
    /// Where objects go.
    pub output: &'a Path,
    /// What identifies the compiler: the text that it prints about itself.
    pub compiler: &'a str,
    /// A wrapper such as ccache, words before the compiler.
    pub launcher: &'a Launcher,
    /// Finished objects of earlier runs.
    pub cache: &'a Cache,
    /// What the preprocessor said in earlier runs.
    pub originals: &'a Originals,
    /// How much debug information the compared objects get.
    pub debug: DebugInformation,
    /// How many compilers at once.
    pub jobs: usize,
}

impl Context<'_> {
    /// Where a file is that the compiler names. Its own headers are those of the root it runs in.
    pub fn on_host(&self, file: &Path) -> PathBuf {
        self.root.on_host(&self.tree.path().join(file))
    }

    /// A command that starts in the object tree and can write this run's objects only, and a launcher what is its own.
    pub fn command(&self, program: &str) -> Task<'_> {
        let task = self.root.command(program).directory(self.tree.path());
        if self.launcher.words.first().is_none_or(|launcher| launcher != program) {
            return task.confined_to([self.output]);
        }
        match &self.launcher.writable {
            Some(more) => task.confined_to([self.output]).confined_to(more),
            None => task,
        }
    }
}

/// One compilation to be done.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The unit.
    pub unit: &'a Unit,
    /// The variant.
    pub variant: Variant,
    /// What becomes ordinary variable reads.
    pub plain: Plain,
}

/// What the kernel would have to write into code, and code of a live patch reads from variables instead; see
/// [`super::diff`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Runtime constants.
    pub runtime_constants: bool,
    /// Static keys.
    pub static_keys: bool,
}

impl Plain {
    /// Headers to be included first.
    pub(super) fn headers(self, context: &Context<'_>) -> Vec<PathBuf> {
        // Since 6.12 (`asm/runtime-const.h`) code holds placeholders that boot fixes up in vmlinux only. The
        // generic header has the same include guard and reads the variables instead.
        let constants = self.runtime_constants.then(|| context.source.join(RUNTIME_CONSTANTS));
        let keys = self.static_keys.then(|| context.headers.join(klp_module::headers::STATIC_KEYS.0));
        constants.into_iter().chain(keys).collect()
    }

    pub(super) fn suffix(self) -> &'static str {
        match (self.runtime_constants, self.static_keys) {
            (false, false) => "",
            (true, false) => "-plain-constants",
            (false, true) => "-plain-keys",
            (true, true) => "-plain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_told_from_variables_and_functions() {
        for line in ["struct a {\n", "\tunion {", "typedef struct x {", "enum e {"] {
            assert!(begins_structure(line.as_bytes()), "{line}");
        }
        for line in ["struct a b = {", "struct a *f(struct b *c) {", "struct a *p;", "\tif (x) {", "{"] {
            assert!(!begins_structure(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_hunk_in_the_middle_of_a_structure_is_seen() {
        let content = b"struct a {\n\tint b;\n\n\tint c;\n};\nint f(void)\n{\n\tint d;\n}\n";
        let inside: Vec<u64> = (0..12).filter(|&line| is_in_structure(content, line)).collect();
        assert_eq!(inside, [1, 2, 3, 4]);
    }
}
