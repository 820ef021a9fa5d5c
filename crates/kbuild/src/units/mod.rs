//! Which units the kernel really compiles, and into which of its objects.
//!
//! Three things say so: the debug information of the shipped vmlinux ([`UnitList`]) knows every unit of the kernel
//! proper; kbuild's command knows the module; the shipped modules confirm it. [`locate`] asks all three.

mod dwarf;
mod home;
mod makefile;
mod object_lists;
mod readers;

pub use dwarf::{DwarfError, UnitList};
pub use home::{Home, Unit, Unpatchable, locate};
pub use object_lists::{Added, ListError, ListProblem, added, speaks_of};
pub use readers::{Readers, readers};
