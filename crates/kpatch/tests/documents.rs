//! Man page and completions in `tools` are those of the command line as it is, and `docs/kpatch.md` explains
//! exactly the errors that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kpatch::args;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn generated_files_are_current() {
    let stale = manual::stale(&args::definition(), args::SECTION, &root().join("tools"));
    assert!(stale.is_empty(), "{stale:?} are not current; run `cargo xtask generate`");
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
