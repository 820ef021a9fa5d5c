//! Compares how kpatch-build counts same-named symbols with how the running kernel does.
//!
//! A live patch names a symbol and its position among the symbols of that name. kpatch-build counts in the symbol table of
//! the unstripped vmlinux; the kernel counts in its kallsyms. Both must give every symbol the same position.

use crate::error::{Error, Result};
use crate::guest::{self, Outcome};
use crate::kallsyms_image;
use kbuild::symtab::{SymbolTable, hidden_from_kallsyms};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the case.
pub(crate) const CASE: &str = "(kallsyms)";
/// Symbol whose address tells how far the kernel was moved at boot.
const BASE: &str = "_text";

/// Addresses by name, in the order of their positions.
type Positions = BTreeMap<String, Vec<u64>>;

/// What the vmlinux says.
pub(crate) struct Expected {
    duplicates: Positions,
    base: u64,
    /// Names that the table in the image itself has more or less often than the vmlinux's symbol table.
    differences: Vec<String>,
}

/// Reads the names that occur more than once.
pub(crate) fn expected(vmlinux: &Path) -> Result<Expected> {
    let wrong = |reason: String| Error::Failed(format!("{}: {reason}", vmlinux.display()));
    let data = fs_err::read(vmlinux)?;
    let table = SymbolTable::from_elf(&data).map_err(|error| wrong(error.to_string()))?;
    let mut duplicates = Positions::new();
    let mut base = None;
    for symbol in table.symbols().iter().filter(|symbol| symbol.listed) {
        if symbol.name.as_ref() == BASE.as_bytes() {
            base = Some(symbol.value);
        }
        let name = symbol.name.to_string();
        if duplicates.contains_key(&name) {
            continue;
        }
        let values: Vec<u64> = (1..)
            .map_while(|sympos| table.at_sympos(symbol.name.as_ref(), sympos))
            .map(|id| table.symbol(id).value)
            .collect();
        if values.len() > 1 {
            duplicates.insert(name, values);
        }
    }
    let base = base.ok_or_else(|| wrong(format!("no symbol {BASE}")))?;
    let image = kallsyms_image::names(&data, &table)?;
    Ok(Expected { differences: counted_otherwise(&table, &image), duplicates, base })
}

/// Names that the image's own table has more or less often than `table` lists them.
fn counted_otherwise(table: &SymbolTable<'_>, image: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for symbol in table.symbols().iter().filter(|symbol| symbol.listed) {
        counts.entry(symbol.name.to_string()).or_default().0 += 1;
    }
    for name in image {
        counts.entry(name.clone()).or_default().1 += 1;
    }
    counts
        .into_iter()
        .filter(|(name, (listed, found))| listed != found && !is_hidden(name))
        .map(|(name, (listed, found))| {
            format!("{name}: {listed} in vmlinux, {found} in the image's own table")
        })
        .collect()
}

/// Some kernels list what others hide: 5.10 local labels, 6.12 the tables of kallsyms itself. No patch refers to these.
fn is_hidden(name: &str) -> bool {
    hidden_from_kallsyms(name.into())
}

/// The guest lists what its kernel has under these names, and which names it has more than once.
pub(crate) fn case(expected: &Expected) -> guest::Case {
    let names: Vec<&str> = expected.duplicates.keys().map(String::as_str).collect();
    guest::Case {
        name: CASE.to_owned(),
        test: Some(TEST.to_owned()),
        files: vec![("names".to_owned(), names.join("\n").into_bytes())],
        ..guest::Case::default()
    }
}

const TEST: &str = r#"
awk 'NR == FNR { wanted[$1] = 1; next }
     NF != 3 { next }
     $3 in wanted || $3 == "_text" { print $1, $3 }
     { count[$3]++ }
     END { for (name in count) if (count[name] > 1) print "many", name }' "$FILES/names" /proc/kallsyms
"#;

/// What differs; nothing if all positions are the same.
pub(crate) fn compare(expected: &Expected, outcome: &Outcome) -> Vec<String> {
    let mut seen = Positions::new();
    let mut many = Vec::new();
    for line in &outcome.output {
        match line.split_once(' ') {
            Some(("many", name)) => many.push(name.to_owned()),
            Some((address, name)) => {
                if let Ok(address) = u64::from_str_radix(address, 16) {
                    seen.entry(name.to_owned()).or_default().push(address);
                }
            }
            None => {}
        }
    }
    let Some(&[base]) = seen.get(BASE).map(Vec::as_slice) else {
        return vec![format!("the guest does not tell where {BASE} is")];
    };
    let slide = base.wrapping_sub(expected.base);
    let mut differences = expected.differences.clone();
    for (name, values) in &expected.duplicates {
        let running = seen.get(name).map(Vec::as_slice).unwrap_or_default();
        // Per-CPU offsets and absolute values are not moved.
        let same = |value: &u64, address: &u64| *address == value.wrapping_add(slide) || address == value;
        if running.len() != values.len()
            || !values.iter().zip(running).all(|(value, address)| same(value, address))
        {
            differences.push(format!(
                "{name}: {} in vmlinux, {} in the kernel, or another order",
                values.len(),
                running.len()
            ));
        }
    }
    for name in many {
        if !expected.duplicates.contains_key(&name) && !is_hidden(&name) {
            differences.push(format!("{name} occurs once in vmlinux, more often in the kernel"));
        }
    }
    differences
}

/// How many names were compared.
pub(crate) fn size(expected: &Expected) -> usize {
    expected.duplicates.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        Outcome {
            name: CASE.to_owned(),
            failures: Vec::new(),
            objects: Vec::new(),
            transition: None,
            log: String::new(),
            output: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn the_image_counts_too() {
        use kbuild::symtab::{ShippedBinding::Local, ShippedKind::Function, shipped};
        let function = |name: &str, address| shipped(name, address, 4, Function, Local, Some(1));
        let table = SymbolTable::new(vec![function("f", 8), function("f", 16), function("g", 24)], false);
        let image = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(counted_otherwise(&table, &image(&["f", "f", "g", "kallsyms_names", ".LC0"])), [""; 0]);
        assert_eq!(counted_otherwise(&table, &image(&["f", "g", "h"])).len(), 2);
    }

    #[test]
    fn order_and_count_matter() {
        let expected = Expected {
            duplicates: Positions::from([
                ("f".to_owned(), vec![0x1010, 0x1020]),
                ("p".to_owned(), vec![8, 16]),
            ]),
            base: 0x1000,
            differences: Vec::new(),
        };
        let good = ["2000 _text", "2010 f", "2020 f", "8 p", "10 p", "many f", "many p"];
        assert!(compare(&expected, &outcome(&good)).is_empty());
        assert_eq!(compare(&expected, &outcome(&["2000 _text", "2020 f", "2010 f", "8 p", "10 p"])).len(), 1);
        assert_eq!(compare(&expected, &outcome(&["2000 _text", "2010 f", "8 p", "10 p"])).len(), 1);
        assert_eq!(compare(&expected, &outcome(&["2000 _text"])).len(), 2);
        assert_eq!(compare(&expected, &outcome(&[])).len(), 1);
        let mut more = good.to_vec();
        more.push("many .LC0");
        assert!(compare(&expected, &outcome(&more)).is_empty());
        more.push("many g");
        assert_eq!(compare(&expected, &outcome(&more)).len(), 1);
    }
}
