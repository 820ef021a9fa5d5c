//! `docs/create-diff-object-json.md` describes what the binary writes: no more, no less, of the types it says.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Key, types, and whether it may be missing.
type Table = BTreeMap<String, (BTreeSet<String>, bool)>;

fn documented() -> Table {
    let text = std::fs::read_to_string(root().join("docs/create-diff-object-json.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.split(" | ");
        let key = cells.next().unwrap().trim_end_matches('`').to_owned();
        let types = cells.next().unwrap().split(" or ").map(str::to_owned).collect();
        (key, (types, cells.next().unwrap().starts_with("optional")))
    })
    .collect()
}

/// Objects whose keys are names.
const MAPS: [&str; 2] = ["struct_sizes", "sections"];

/// Every key with the types of its values, and how often the object that has it occurs with and without it.
#[derive(Default)]
struct Seen {
    types: BTreeMap<String, BTreeSet<String>>,
    objects: BTreeMap<String, usize>,
    keys: BTreeMap<String, usize>,
}

impl Seen {
    fn look(&mut self, path: &str, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        };
        if !path.is_empty() {
            self.types.entry(path.to_owned()).or_default().insert(kind.to_owned());
        }
        match value {
            // Members of relocations have their meaning by position.
            Value::Array(_) if path == "klp_relocations[]" => {}
            Value::Array(list) => list.iter().for_each(|item| self.look(&format!("{path}[]"), item)),
            Value::Object(map) if MAPS.contains(&path) => {
                map.values().for_each(|value| self.look(&format!("{path}{{}}"), value));
            }
            Value::Object(map) => {
                *self.objects.entry(path.to_owned()).or_default() += 1;
                for (key, value) in map {
                    let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    *self.keys.entry(inner.clone()).or_default() += 1;
                    self.look(&inner, value);
                }
            }
            _ => {}
        }
    }
}

/// Runs every pair of the fixtures both ways, so that there are refusals of all kinds.
fn seen() -> Seen {
    let mut seen = Seen::default();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("json");
    let symvers = directory.path().join("symvers");
    std::fs::write(&symvers, "").unwrap();
    for corpus in ["objdiff", "objdiff-before-objtool"] {
        for machine in std::fs::read_dir(root().join("fixtures").join(corpus)).unwrap().flatten() {
            let Ok(cases) = std::fs::read_dir(machine.path()) else { continue };
            for case in cases.flatten().map(|case| case.path()) {
                for (one, other) in [("original.o", "patched.o"), ("patched.o", "original.o")] {
                    Command::new(env!("CARGO_BIN_EXE_create-diff-object"))
                        .current_dir(&case)
                        .arg("--json")
                        .arg(&json)
                        .args([one, other, "vmlinux", one])
                        .arg(&symvers)
                        .arg("patch")
                        .arg(directory.path().join("output.o"))
                        .output()
                        .unwrap();
                    let text = std::fs::read(&json).unwrap();
                    seen.look("", &serde_json::from_slice(&text).unwrap());
                    std::fs::remove_file(&json).unwrap();
                }
            }
        }
    }
    seen
}

/// The objects have no line tables and no author macros, static data kept its numbers, and nobody asks for changes
/// to be left out.
const NOT_IN_FIXTURES: [&str; 8] = [
    "elements[].original",
    "elements[].difference.original_source",
    "elements[].difference.patched_source",
    "uses[].source",
    "callbacks[]",
    "ignored_functions[]",
    "ignored_sections[]",
    "skipped[]",
];

#[test]
fn the_table_says_what_is_written() {
    let (table, seen) = (documented(), seen());
    let mut wrong = Vec::new();
    for (key, types) in &seen.types {
        // A list without a name of its own for its members is one of objects.
        let Some((known, _)) = table.get(key) else {
            let list_of_objects = key.ends_with("[]") && types.iter().all(|t| t == "object");
            if !list_of_objects {
                wrong.push(format!("{key} ({types:?}) is not in the table"));
            }
            continue;
        };
        if !types.is_subset(known) {
            wrong.push(format!("{key} is {types:?}, the table says {known:?}"));
        }
    }
    for (key, (_, optional)) in &table {
        if NOT_IN_FIXTURES.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        if !seen.types.contains_key(key) {
            wrong.push(format!("{key} is in the table and never written"));
        }
        let owner = key.rsplit_once('.').map_or("", |(owner, _)| owner);
        let (objects, keys) = (seen.objects.get(owner), seen.keys.get(key));
        if let (Some(&objects), Some(&keys)) = (objects, keys)
            && !optional
            && keys < objects
        {
            wrong.push(format!("{key} is missing in {} of {objects}", objects - keys));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The keys of the recorded results, for tools that read those.
#[test]
fn the_keys_of_the_corpus_are_there() {
    let text = std::fs::read_to_string(root().join("fixtures/objdiff/README.md")).unwrap();
    let table = documented();
    let mut count = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| key")) {
        let key = row.split('|').nth(1).unwrap();
        for key in key.split(',').map(str::trim) {
            assert!(table.contains_key(key), "{key}");
            count += 1;
        }
    }
    assert!(count > 10, "{count} keys");
}
