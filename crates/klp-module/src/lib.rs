//! Makes a livepatch module of extracted objects.
//!
//! Four phases, each a pure function of bytes and values:
//! * [`link`]: the extracts of all units become one relocatable object and one [`ModuleManifest`];
//! * [`hook`]: the text of the module's own C file and of its kbuild files;
//! * (the target kernel's kbuild, and with it its objtool, makes a module of both; that is the caller's)
//! * [`convert`]: that module gets livepatch symbols and relocations;
//! * [`check`]: the finished module is compared with the shipped kernel by an independent ELF reader.
//!
//! [`objtool`] derives the one objtool run that kernels need whose kbuild has objtool work on single
//! objects; [`headers`] holds the macros for patch authors.

pub mod check;
pub mod convert;
mod explain;
pub mod headers;
pub mod hook;
pub mod link;
mod manifest;
pub mod objtool;
mod special;
pub mod vermagic;

pub use manifest::{KlpReference, ModuleManifest, NewFunction, ObjectCallback, PatchedObject, Rename};
pub use special::SPECIAL_SECTIONS;
