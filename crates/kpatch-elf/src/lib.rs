//! A typed, id-indexed model of relocatable ELF objects, for live patching.
//!
//! The model is flat: [`Object`] owns one table of sections and one of symbols, and everything refers to
//! them by [`SectionId`] and [`SymbolId`]. Bytes and names are borrowed from the input until somebody
//! changes them. Relocations belong to the section they apply to, so no `.rela.*` section, symbol table
//! or string table appears in the model: [`Object::read`] folds them in and [`Object::write`] makes them
//! anew. The one exception are livepatch relocation sections (`.klp.rela.*`), of which a section may have
//! several; they are sections of their own, see [`klp`].
//!
//! Nothing here does input or output.

pub mod arch;
mod endian;
pub mod extract;
mod ids;
pub mod klp;
pub mod note;
mod object;
mod read;
mod relocations;
mod write;

pub use endian::Endian;
pub use ids::{SectionId, SymbolId};
pub use object::{
    Contents, Info, Link, Name, Object, Place, Section, Symbol, binding, section_flags, section_type,
    symbol_kind,
};
pub use read::ReadError;
pub use relocations::{Relocation, RelocationSlice, Relocations};
pub use write::WriteError;
