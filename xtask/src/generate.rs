//! Writes the files that are made from the command line's definition.

use crate::error::{Error, Result};
use fs_err as fs;

/// What `kpatch-build --generate` is asked for, and where the answer goes below `tools`. A test of kpatch-build
/// compares them.
const FILES: [(&str, &str); 4] = [
    ("man", "man/kpatch-build.1"),
    ("complete-bash", "completions/kpatch-build.bash"),
    ("complete-zsh", "completions/_kpatch-build"),
    ("complete-fish", "completions/kpatch-build.fish"),
];

/// Writes all of them.
pub(crate) fn run() -> Result<()> {
    let root = crate::workspace_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for (what, path) in FILES {
        let text =
            duct::cmd!(&cargo, "run", "--quiet", "--package", "kpatch-build", "--", "--generate", what)
                .dir(&root)
                .stdout_capture()
                .run()
                .map_err(|error| Error::Command {
                    command: format!("kpatch-build --generate {what}"),
                    reason: error.to_string(),
                })?
                .stdout;
        let path = root.join("tools").join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
    }
    Ok(())
}
