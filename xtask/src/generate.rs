//! Writes the files that are made from the command line's definition.

use clap::ValueEnum;
use fs_err as fs;
use manual::Generated;

use crate::error::{Error, Result};

/// The programs, and the sections of their man pages. Tests of the crates compare what is written.
const PROGRAMS: [(&str, &str); 2] = [("kpatch-build", "1"), ("kpatch", "8")];

/// Writes all files of all programs.
pub(crate) fn run() -> Result<()> {
    let root = crate::workspace_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for (program, section) in PROGRAMS {
        for what in Generated::value_variants() {
            let word = what.word();
            let text = duct::cmd!(&cargo, "run", "--quiet", "--package", program, "--", "--generate", &word)
                .dir(&root)
                .stdout_capture()
                .run()
                .map_err(|error| Error::Command {
                    command: format!("{program} --generate {word}"),
                    reason: error.to_string(),
                })?
                .stdout;
            let path = root.join("tools").join(what.path(program, section));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, text)?;
        }
    }
    Ok(())
}
