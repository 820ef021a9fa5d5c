//! The running kernel's symbol table, `/proc/kallsyms`.

use std::collections::{BTreeMap, BTreeSet};

use kpatch_elf::klp::VMLINUX;

/// Addresses of the wanted names by object and name, in the order in which the kernel counts positions: by
/// address in the kernel proper, as the symbol table has them in a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols(BTreeMap<(String, String), Vec<u64>>);

/// What a name and a position lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This address.
    At(u64),
    /// Nothing.
    Missing,
    /// Several, and no position says which.
    Ambiguous,
    /// The kernel does not show addresses to us (`kernel.kptr_restrict`, lockdown).
    Hidden,
}

impl Symbols {
    /// Keeps the wanted names of a table, each a line `ADDRESS TYPE NAME`, then a tab and `[MODULE]`.
    pub fn parse(text: &str, wanted: &BTreeSet<&str>) -> Symbols {
        let mut out: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if !wanted.contains(name) {
                continue;
            }
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            let object = words.next().map_or(VMLINUX, |module| module.trim_matches(['[', ']']));
            out.entry((object.to_owned(), name.to_owned())).or_default().push(address);
        }
        Symbols(out)
    }

    /// Where a symbol is. Position 0 stands for a name that is unique.
    pub fn find(&self, object: &str, name: &str, sympos: u32) -> Found {
        let key = (object.to_owned(), name.to_owned());
        let Some(addresses) = self.0.get(&key) else { return Found::Missing };
        if addresses.contains(&0) {
            return Found::Hidden;
        }
        if sympos == 0 && addresses.len() > 1 {
            return Found::Ambiguous;
        }
        let index = (sympos as usize).max(1) - 1;
        addresses.get(index).map_or(Found::Missing, |address| Found::At(*address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_same_named_symbols_of_an_object() {
        let text = "ffffffff81000010 t f\nffffffff81000020 t g\nffffffff81000030 T f\n\
                    ffffffffc0000000 t f\t[xfs]\n0000000000000000 t hidden\nnonsense\n";
        let symbols = Symbols::parse(text, &BTreeSet::from(["f", "g", "hidden"]));
        assert_eq!(symbols.find("vmlinux", "f", 2), Found::At(0xffff_ffff_8100_0030));
        assert_eq!(symbols.find("vmlinux", "f", 0), Found::Ambiguous);
        assert_eq!(symbols.find("vmlinux", "f", 3), Found::Missing);
        assert_eq!(symbols.find("vmlinux", "g", 0), Found::At(0xffff_ffff_8100_0020));
        assert_eq!(symbols.find("xfs", "f", 1), Found::At(0xffff_ffff_c000_0000));
        assert_eq!(symbols.find("vmlinux", "hidden", 0), Found::Hidden);
        assert_eq!(symbols.find("xfs", "g", 0), Found::Missing);
    }
}
