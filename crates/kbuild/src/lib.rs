//! What kbuild leaves behind, as typed values.
//!
//! Parsers take bytes and never touch the file system:
//! * [`config`] reads configurations, [`command`] saved command lines and derives variants of them;
//! * [`symvers`] reads exported symbols, [`symtab`] symbol tables of shipped objects.
//!
//! These run commands or keep a cache, and say so:
//! * [`root`] runs commands on the host or in a root file system, [`store`] keeps items complete or absent;
//! * [`confine`] keeps commands from writing anywhere but where they must;
//! * [`object_tree`] makes a build directory from a headers package or a configuration, asks kbuild for the commands
//!   of units and for the objects of modules;
//! * [`units`] tells which object a unit's code is in, or why it cannot be patched, and who can see a changed file;
//! * [`include_graph`] is the textual graph of `#include` directives behind that.

pub mod command;
pub mod config;
pub mod confine;
pub mod include_graph;
pub mod mapped;
pub mod object_tree;
mod paths;
pub mod root;
pub mod store;
pub mod symtab;
pub mod symvers;
pub mod units;
