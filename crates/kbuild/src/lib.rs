//! What kbuild leaves behind, as typed values.
//!
//! Parsers take bytes and never touch the file system; the modules that run kbuild say so.

pub mod command;
pub mod config;
pub mod include_graph;
pub mod object_tree;
mod paths;
pub mod root;
pub mod store;
pub mod symtab;
pub mod symvers;
pub mod units;
