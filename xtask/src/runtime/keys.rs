//! A key that signs modules, and its certificate.

use super::run_tool;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// The files, both in PEM.
#[derive(Debug)]
pub(super) struct Keys {
    key: PathBuf,
    /// For a kernel that shall trust it.
    pub(super) certificate: PathBuf,
}

impl Keys {
    /// Makes a pair in a directory, anew each time.
    pub(super) fn make(directory: &Path, name: &str) -> Result<Keys> {
        let file = |what: &str| directory.join(format!("{name}-{what}.pem"));
        let keys = Keys { key: file("key"), certificate: file("certificate") };
        let request = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500", "-sha256"];
        let files =
            ["-subj", "/CN=kpatch tests", "-keyout", path(&keys.key), "-out", path(&keys.certificate)];
        run_tool(&duct::cmd("openssl", request.iter().chain(&files)))?;
        Ok(keys)
    }

    /// What kpatch-build is called with.
    pub(super) fn arguments(&self) -> [&str; 4] {
        ["--sign-key", path(&self.key), "--sign-cert", path(&self.certificate)]
    }
}

/// A path of ours, which is text.
fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
