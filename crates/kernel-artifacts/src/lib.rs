//! A kernel release and where its parts come from.

pub mod deb;
pub mod error;
pub mod event;
mod run;
pub mod settings;
pub mod store;
