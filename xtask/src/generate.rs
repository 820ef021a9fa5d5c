//! Writes the files that are made from the command line's definition.

use crate::error::{Error, Result};
use fs_err as fs;

/// What the programs' `--generate` is asked for, and where the answer goes below `tools`. Tests of the crates
/// compare them.
const FILES: [(&str, &str, &str); 8] = [
    ("kpatch-build", "man", "man/kpatch-build.1"),
    ("kpatch-build", "complete-bash", "completions/kpatch-build.bash"),
    ("kpatch-build", "complete-zsh", "completions/_kpatch-build"),
    ("kpatch-build", "complete-fish", "completions/kpatch-build.fish"),
    ("kpatch", "man", "man/kpatch.8"),
    ("kpatch", "complete-bash", "completions/kpatch.bash"),
    ("kpatch", "complete-zsh", "completions/_kpatch"),
    ("kpatch", "complete-fish", "completions/kpatch.fish"),
];

/// Writes all of them.
pub(crate) fn run() -> Result<()> {
    let root = crate::workspace_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for (program, what, path) in FILES {
        let text = duct::cmd!(&cargo, "run", "--quiet", "--package", program, "--", "--generate", what)
            .dir(&root)
            .stdout_capture()
            .run()
            .map_err(|error| Error::Command {
                command: format!("{program} --generate {what}"),
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
