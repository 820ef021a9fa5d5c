//! Man page and completions in `tools` are those of the command line as it is.

use std::path::Path;

use clap::ValueEnum;
use kpatch_build::args::{Generated, generate};

#[test]
fn generated_files_are_current() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    for what in Generated::value_variants() {
        let path = tools.join(what.path());
        let mut expected = Vec::new();
        generate(*what, &mut expected).unwrap();
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == expected, "{} is not current; run `cargo xtask generate`", what.path());
    }
}
