//! The way of the data, one phase a file.

pub mod overlay;
