//! The codes of errors for `--help`, from the table that explains them to people.

use std::fmt::Write as _;

/// All codes with their meanings; a test keeps it complete.
const EXPLAINED: &str = include_str!("../../../docs/errors.md");

/// Codes of the phase that only the driver reports, which looks at more than two objects.
const DRIVER: [&str; 6] =
    ["no-change", "all-left-out", "layout-changed", "debug-information", "entry-sizes", "missing"];

/// The codes that a comparison may end with, one or more a line, each with its meaning below.
pub(crate) fn table() -> String {
    let mut out = String::from("Error codes, which stay the same in all versions:\n");
    let phase = EXPLAINED.lines().skip_while(|line| !line.starts_with("## diff:")).skip(1);
    for line in phase.take_while(|line| !line.starts_with("## ")) {
        let Some((codes, meaning)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) else {
            continue;
        };
        let codes: Vec<&str> = codes.split("`, `").filter(|code| !DRIVER.contains(code)).collect();
        if !codes.is_empty() {
            let meaning = meaning.trim_end_matches([' ', '|']).replace('`', "");
            let _ = write!(out, "\n  {}\n      {meaning}\n", codes.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_code_is_explained() {
        let table = super::table();
        let source = include_str!("error.rs");
        let codes: Vec<&str> = source
            .lines()
            .filter(|line| line.trim_start().starts_with("Self::"))
            .filter_map(|line| line.split_once("=> \"")?.1.split_once("\",").map(|(code, _)| code))
            .filter(|code| !code.contains(' '))
            .collect();
        assert!(codes.len() > 20, "{codes:?}");
        for code in codes {
            assert!(table.contains(code), "{code}");
        }
    }
}
