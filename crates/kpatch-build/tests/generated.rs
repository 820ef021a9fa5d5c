//! Man page and completions in `tools` are those of the command line as it is.

use std::path::Path;

use kpatch_build::args::{Args, SECTION};

#[test]
fn generated_files_are_current() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    let stale = manual::stale(&Args::definition(), SECTION, &tools);
    assert!(stale.is_empty(), "{stale:?} are not current; run `cargo xtask generate`");
}
