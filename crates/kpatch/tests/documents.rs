//! Man page and completions in `tools` are those of the command line as it is, and `docs/kpatch.md` explains
//! exactly the errors that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use kpatch::args::{Generated, generate};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn generated_files_are_current() {
    for what in Generated::value_variants() {
        let path = root().join("tools").join(what.path());
        let mut expected = Vec::new();
        generate(*what, &mut expected).unwrap();
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == expected, "{} is not current; run `cargo xtask generate`", what.path());
    }
}

#[test]
fn every_error_is_explained() {
    let source = std::fs::read_to_string(root().join("crates/kpatch/src/error.rs")).unwrap();
    let body = source.split("fn code(&self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let codes: BTreeSet<&str> =
        body.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(codes.len() > 20, "{codes:?}");
    let text = std::fs::read_to_string(root().join("docs/kpatch.md")).unwrap();
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(codes, documented);
}
