//! docs/errors.md explains exactly the error codes that the sources have.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What stands before an error's code in the driver's sources.
const BEFORE_CODES: [&str; 7] = ["Error::new(", "error(", "fail(", "Code(", "Code::new(", "=> (", "=> { ("];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.to_string_lossy().contains("test")
        {
            files.push(path);
        }
    }
}

/// A file's text without its tests.
fn source(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

fn is_code(text: &str) -> bool {
    let words = |c: char| c.is_ascii_lowercase() || c == '-';
    text.len() > 1 && text.chars().all(words) && !text.starts_with('-') && !text.ends_with('-')
}

/// The string literal at the start of a text, after the phase if there is one.
fn leading_literal(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    if let Some(phase) = rest.strip_prefix("Phase::").or_else(|| rest.strip_prefix("phase")) {
        rest = phase.split_once(',')?.1.trim_start();
    }
    rest.strip_prefix('"')?.split('"').next()
}

/// Codes that the driver gives by itself.
fn driver_codes(codes: &mut BTreeSet<String>) {
    let mut files = Vec::new();
    rust_files(&crates().join("kpatch-build/src"), &mut files);
    for path in files {
        // How the code is wrapped does not matter.
        let text = source(&path).split_whitespace().collect::<Vec<_>>().join(" ");
        for before in BEFORE_CODES {
            // `io_error(` and the like have something else there.
            let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let rest = text
                .match_indices(before)
                .filter(|(at, _)| whole(*at))
                .map(|(at, _)| &text[at + before.len()..]);
            codes.extend(rest.filter_map(leading_literal).filter(|code| is_code(code)).map(str::to_owned));
        }
    }
}

/// Codes of `fn code`, each an arm's value.
fn library_codes(codes: &mut BTreeSet<String>) {
    let mut files = Vec::new();
    for name in ["create-diff-object", "klp-module", "kpatch-build"] {
        rust_files(&crates().join(name).join("src"), &mut files);
    }
    let mut functions = 0;
    for path in files {
        for body in source(&path).split("fn code(&self)").skip(1) {
            functions += 1;
            let body = body.split("\n    }\n").next().unwrap_or_default();
            codes.extend(
                body.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
            );
        }
    }
    assert!(functions >= 5, "only {functions} places that give codes were found");
}

#[test]
fn the_document_has_the_codes_of_the_sources() {
    let mut codes = BTreeSet::new();
    driver_codes(&mut codes);
    library_codes(&mut codes);
    assert!(codes.len() > 100, "only {} codes found", codes.len());

    let text = std::fs::read_to_string(crates().join("../docs/errors.md")).unwrap();
    let first_cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let any_phase = text.lines().find(|line| line.contains("any phase")).unwrap();
    let documented: BTreeSet<String> = first_cells
        .chain([any_phase])
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();

    let missing: Vec<&String> = codes.difference(&documented).collect();
    let stale: Vec<&String> = documented.difference(&codes).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in docs/errors.md: {missing:?}; no longer used: {stale:?}"
    );
}
