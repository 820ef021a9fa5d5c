//! The plan against whole builds: what is compiled must contain every unit whose object differs between two of them.
//!
//! A plan that leaves out the readers of headers must be found wanting, or nothing would be.

use super::{Own, patches};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// A patch of a header and a source, for a plan that follows the source only.
const TWO: &str = "oracle/09-two";

/// How the kernel is named, with its modules for the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arguments<'a> {
    pub(super) planned: &'a [&'a str],
    pub(super) whole: &'a [&'a str],
}

/// Holds the plan of every patch of the directory `oracle` against whole builds.
pub(super) fn run(own: &Own, arguments: Arguments<'_>) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(patches().join("oracle"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(|name| format!("oracle/{name}")));
    }
    names.sort();
    let mut wrong = String::new();
    for name in &names {
        let planned = objects(own, name, arguments.planned, "/units")?;
        let whole =
            objects(own, name, &[arguments.whole, &["--whole-tree"]].concat(), "/whole_tree/changed")?;
        println!("  {name}: {} units compiled, {} differ", planned.len(), whole.len());
        let missing: Vec<&String> = whole.difference(&planned).collect();
        if !missing.is_empty() {
            let _ = writeln!(wrong, "{name}: not compiled, though their objects differ: {missing:?}");
        }
        if whole.is_empty() {
            let _ = writeln!(wrong, "{name}: no object differs, so this patch tells nothing");
        }
        if name == TWO {
            let touched = [arguments.planned, &["--only-touched-units"]].concat();
            let lacks = whole.difference(&objects(own, name, &touched, "/units")?).count();
            println!("  {name} without readers of headers: {lacks} lacking");
            if lacks == 0 {
                let _ = writeln!(wrong, "{name}: a plan without readers of headers lacks nothing");
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Failed(wrong)) }
}

/// The objects that the report of a run has in the list `at`, whatever became of the run afterwards.
fn objects(own: &Own, patch: &str, arguments: &[&str], at: &str) -> Result<BTreeSet<String>> {
    let report = own.out.join("oracle").join("report.json");
    let file = report.display().to_string();
    let built = own.build("oracle", patch, &[arguments, &["--json", &file]].concat())?;
    let listed = read(&report, at)?;
    listed.filter(|listed| built.succeeded() || !listed.is_empty()).ok_or_else(|| {
        Error::Failed(format!("{patch}: the run comes to no {at}:\n{}", built.tail(30).join("\n")))
    })
}

fn read(report: &Path, at: &str) -> Result<Option<BTreeSet<String>>> {
    let text = fs_err::read_to_string(report)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Error::Failed(error.to_string()))?;
    let listed = json.pointer(at).and_then(serde_json::Value::as_array);
    let name = |entry: &serde_json::Value| entry.as_str().or(entry["unit"].as_str()).map(str::to_owned);
    Ok(listed.map(|listed| listed.iter().filter_map(name).collect()))
}
