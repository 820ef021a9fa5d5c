//! What a compilation is: of what unit, for what, with what at hand.

use std::path::{Path, PathBuf};

use kbuild::object_tree::ObjectTree;
use kbuild::root::{Root, Task};

use super::debug_information::DebugInformation;
use super::overlay::Overlay;
use super::unit::Unit;
use crate::cache::Cache;
use crate::launcher::Launcher;
use crate::originals::Originals;

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
