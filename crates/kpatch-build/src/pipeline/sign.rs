//! Signs the checked module, by the kernel's own `scripts/sign-file`, as `modules_install` would.

use std::path::Path;

use kbuild::object_tree::ObjectTree;
use kbuild::root::{Root, RunError};

use super::resolve::Resolved;
use crate::error::Error;
use crate::options::Signing;
use crate::phase::Phase;

/// Where the program stands in the object tree.
const PROGRAM: &str = "scripts/sign-file";

/// What kernels without a setting of their own take.
const DEFAULT_HASH: &str = "sha256";

/// Gives back the module with its signature at the end.
pub fn run(
    signing: &Signing,
    resolved: &Resolved,
    tree: &ObjectTree,
    root: &Root,
    directory: &Path,
    module: &[u8],
) -> Result<Vec<u8>, Error> {
    let program = tree.path().join(PROGRAM);
    let error = |message: &str| Error::new(Phase::Publish, "sign", message);
    if !root.on_host(&program).exists() {
        return Err(error("the kernel's build has no scripts/sign-file")
            .remedy("this kernel was built without signed modules; load the module unsigned"));
    }
    let file = directory.join("signed.ko");
    fs_err::write(&file, module).map_err(Error::io(Phase::Publish, "write", &file))?;
    let mut root = root.clone();
    for path in [&signing.key, &signing.certificate] {
        root.bind(path.clone());
    }
    let hash = resolved.config.text("MODULE_SIG_HASH").unwrap_or(DEFAULT_HASH);
    let task = root
        .command(&program)
        .directory(directory)
        .confined_to([directory])
        .arg(hash)
        .arg(&signing.key)
        .arg(&signing.certificate)
        .arg(&file);
    match task.run() {
        Ok(_) => fs_err::read(&file).map_err(Error::io(Phase::Publish, "read", &file)),
        Err(RunError::Interrupted) => Err(Error::interrupted(Phase::Publish)),
        Err(cause) => Err(error("the module cannot be signed")
            .cause(cause)
            .remedy("name a private key and its certificate, both in PEM or the certificate in DER")),
    }
}
