//! A key that signs modules, and its certificate.

use super::run_tool;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// What a key is made by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scheme {
    /// What every kernel verifies.
    Rsa,
    /// `CONFIG_CRYPTO_ECDSA`, 5.13. Its certificates are half as large.
    Ecdsa,
}

impl Scheme {
    /// The smallest that a kernel of this configuration takes: the certificate must fit where the shipped one stands.
    pub(super) fn of(config: &str) -> Scheme {
        if config.lines().any(|line| line == "CONFIG_CRYPTO_ECDSA=y") { Scheme::Ecdsa } else { Scheme::Rsa }
    }

    /// What `openssl req` is told.
    fn words(self) -> &'static [&'static str] {
        match self {
            Scheme::Rsa => &["-newkey", "rsa:2048"],
            Scheme::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        }
    }
}

/// The files, both in PEM.
#[derive(Debug)]
pub(super) struct Keys {
    key: PathBuf,
    /// For a kernel that shall trust it.
    pub(super) certificate: PathBuf,
}

impl Keys {
    /// Makes a pair in a directory, anew each time.
    pub(super) fn make(directory: &Path, name: &str, scheme: Scheme) -> Result<Keys> {
        let file = |what: &str| directory.join(format!("{name}-{what}.pem"));
        let keys = Keys { key: file("key"), certificate: file("certificate") };
        let request = ["req", "-new", "-x509", "-nodes", "-days", "36500", "-sha256"];
        let files =
            ["-subj", "/CN=kpatch tests", "-keyout", path(&keys.key), "-out", path(&keys.certificate)];
        run_tool(&duct::cmd("openssl", request.iter().chain(scheme.words()).chain(&files)))?;
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
