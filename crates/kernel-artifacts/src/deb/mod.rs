//! Debian: packages of a release, fetched with apt into the cache without installing anything.

mod apt;
pub mod index;
pub mod select;
mod sources;
pub mod version;
