//! Which units a vmlinux was linked from, as its debug information says.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gimli::{AttributeValue, DwAt, DwTag, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection};
use thiserror::Error;

use crate::mapped::Mapped;
use crate::paths::plain;
use crate::store::{self, Item, StoreError};

/// The debug information of a vmlinux cannot be read.
#[derive(Debug, Error)]
pub enum DwarfError {
    /// The file cannot be read, or the cache not written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No ELF file, or a damaged one.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// Damaged debug information.
    #[error("unreadable debug information: {0}")]
    Dwarf(#[from] gimli::Error),
    /// None there.
    #[error("no debug information")]
    Missing,
}

/// The sources that a vmlinux was compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitList {
    /// Paths below the source tree; with the path that kbuild spells with detours, where it does.
    units: BTreeMap<String, Option<String>>,
}

impl UnitList {
    /// Reads the list from the debug information of a vmlinux, of which only the heads of the units are looked at.
    pub fn from_elf(data: &[u8]) -> Result<UnitList, DwarfError> {
        let mut names = Vec::new();
        with_dwarf(data, |dwarf| {
            let mut headers = dwarf.units();
            while let Some(header) = headers.next()? {
                names.extend(unit_name(dwarf, &header)?);
            }
            Ok(())
        })?;
        if names.is_empty() {
            return Err(DwarfError::Missing);
        }
        Ok(UnitList::from_names(&names))
    }

    /// The listed sources that were compiled to what a vmlinux has at these addresses, by its table of address ranges;
    /// `None` for addresses that it does not tell of.
    pub fn at(&self, vmlinux: &[u8], addresses: &[u64]) -> Result<Vec<Option<&Path>>, DwarfError> {
        let mut found = vec![None; addresses.len()];
        with_dwarf(vmlinux, |dwarf| {
            let mut sets = dwarf.debug_aranges.headers();
            while let Some(set) = sets.next()? {
                let mut ranges = set.entries();
                while let Some(range) = ranges.next()? {
                    let inside = |address: u64| {
                        address.checked_sub(range.address()).is_some_and(|d| d < range.length())
                    };
                    for (index, _) in addresses.iter().enumerate().filter(|(_, address)| inside(**address)) {
                        let header = dwarf.debug_info.header_from_offset(set.debug_info_offset())?;
                        found[index] = unit_name(dwarf, &header)?.and_then(|name| self.listed(&name.name));
                    }
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The listed path that a unit's name ends with.
    fn listed(&self, name: &Path) -> Option<&Path> {
        let mut rest = name.components();
        loop {
            let path = rest.as_path().to_str().filter(|path| !path.is_empty())?;
            if let Some((listed, _)) = self.units.get_key_value(path) {
                return Some(Path::new(listed));
            }
            rest.next();
        }
    }

    /// The list for the vmlinux at a path, kept in the cache beside `item` under that item's key.
    pub fn cached(item: &Item, vmlinux: &Path) -> Result<UnitList, DwarfError> {
        let path = item.ensure::<DwarfError>(|path| {
            let data = Mapped::open(vmlinux).map_err(StoreError::io("read", vmlinux))?;
            store::write(path, UnitList::from_elf(&data)?.to_text().as_bytes())?;
            Ok(())
        })?;
        let text = std::fs::read_to_string(path).map_err(StoreError::io("read", path))?;
        Ok(UnitList::from_text(&text))
    }

    /// True if the vmlinux contains that source, a path below the source tree.
    pub fn contains(&self, unit: &Path) -> bool {
        unit.to_str().is_some_and(|unit| self.units.contains_key(unit))
    }

    /// The path by which kbuild compiled that source, where it is another: a makefile can lead into another
    /// directory, as in `arch/x86/kvm/../../../virt/kvm/kvm_main.c`.
    pub fn spelled(&self, unit: &Path) -> Option<&Path> {
        self.units.get(unit.to_str()?)?.as_deref().map(Path::new)
    }

    /// All sources, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.units.keys().map(String::as_str)
    }

    /// The number of sources.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// One path a line, after a tab the spelled one.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for (unit, spelled) in &self.units {
            text.push_str(unit);
            if let Some(spelled) = spelled {
                text.extend(["\t", spelled.as_str()]);
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn from_text(text: &str) -> UnitList {
        let units = text.lines().map(|line| match line.split_once('\t') {
            Some((unit, spelled)) => (unit.to_owned(), Some(spelled.to_owned())),
            None => (line.to_owned(), None),
        });
        UnitList { units: units.collect() }
    }

    fn from_names(names: &[UnitName]) -> UnitList {
        let roots = source_roots(names);
        let mut units = BTreeMap::new();
        for name in names {
            let path = below_root(&name.name, &roots).to_string_lossy().into_owned();
            let spelled = below_root(&name.spelled, &roots).to_string_lossy().into_owned();
            let spelled = (spelled != path).then_some(spelled);
            units.entry(path).or_insert(spelled);
        }
        UnitList { units }
    }
}

/// Does something with the debug information of an ELF file.
fn with_dwarf(
    data: &[u8],
    work: impl FnOnce(&gimli::Dwarf<EndianSlice<'_, RunTimeEndian>>) -> Result<(), DwarfError>,
) -> Result<(), DwarfError> {
    let file = object::File::parse(data)?;
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let load = |id: SectionId| match file.section_by_name(id.name()) {
        Some(section) => section.uncompressed_data(),
        None => Ok(Cow::Borrowed(&[][..])),
    };
    let sections = gimli::DwarfSections::load(load)?;
    work(&sections.borrow(|section| EndianSlice::new(section, endian)))
}

/// A unit as its debug information names it.
#[derive(Clone, Debug)]
struct UnitName {
    name: PathBuf,
    /// The same with its detours.
    spelled: PathBuf,
    directory: PathBuf,
}

impl UnitName {
    fn new(name: &Path, directory: &Path) -> UnitName {
        let spelled = name.strip_prefix(".").unwrap_or(name).to_owned();
        UnitName { name: plain(name), spelled, directory: plain(directory) }
    }
}

fn unit_name(
    dwarf: &gimli::Dwarf<EndianSlice<'_, RunTimeEndian>>,
    header: &gimli::UnitHeader<EndianSlice<'_, RunTimeEndian>>,
) -> Result<Option<UnitName>, DwarfError> {
    const PARTIAL: DwTag = gimli::DW_TAG_partial_unit;
    let unit = dwarf.unit(*header)?;
    let mut entries = unit.entries();
    let Some(root) = entries.next_dfs()? else { return Ok(None) };
    if root.tag() == PARTIAL {
        return Ok(None);
    }
    let text = |name: DwAt| -> Result<Option<PathBuf>, DwarfError> {
        let Some(value): Option<AttributeValue<_>> = root.attr_value(name) else { return Ok(None) };
        Ok(Some(PathBuf::from(dwarf.attr_string(&unit, value)?.to_string_lossy().into_owned())))
    };
    let directory = text(gimli::DW_AT_comp_dir)?.unwrap_or_default();
    Ok(text(gimli::DW_AT_name)?.map(|name| UnitName::new(&name, &directory)))
}

/// The directories that paths of sources start with. Every kernel has `init/main.c`. Other units may be named by
/// absolute paths all the same (assembly): those start with a directory that the build directory is in.
fn source_roots(names: &[UnitName]) -> Vec<PathBuf> {
    let mut roots = BTreeSet::new();
    for UnitName { name, directory, .. } in names {
        if name.ends_with("init/main.c") {
            roots.extend(name.ancestors().nth(2).map(Path::to_owned));
        }
        if name.is_absolute() && directory.is_absolute() {
            roots.extend(directory.ancestors().find(|root| name.starts_with(root)).map(Path::to_owned));
        }
    }
    roots.remove(Path::new(""));
    roots.remove(Path::new("/"));
    let mut roots: Vec<PathBuf> = roots.into_iter().collect();
    // The longest first: a build directory inside the source tree holds generated sources.
    roots.sort_by_key(|root| std::cmp::Reverse(root.components().count()));
    roots
}

fn below_root<'n>(name: &'n Path, roots: &[PathBuf]) -> &'n Path {
    roots.iter().find_map(|root| name.strip_prefix(root).ok()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<UnitName> = names
            .iter()
            .map(|(name, directory)| UnitName::new(Path::new(name), Path::new(directory)))
            .collect();
        UnitList::from_names(&names).iter().map(str::to_owned).collect()
    }

    #[test]
    fn names_become_paths_below_the_source_tree() {
        // As Debian's are: C relative by prefix maps, assembly absolute.
        let debian = list(&[
            ("/build/linux-6.1/arch/x86/kernel/head_64.S", "/build/linux-6.1/debian/build/amd64"),
            ("init/main.c", "debian/build/amd64"),
            ("arch/x86/kernel/head64.c", "debian/build/amd64"),
        ]);
        assert_eq!(debian, ["arch/x86/kernel/head64.c", "arch/x86/kernel/head_64.S", "init/main.c"]);
        // Build directory elsewhere, and inside.
        assert_eq!(
            list(&[("/src/init/main.c", "/o"), ("/src/fs/exec.c", "/o")]),
            ["fs/exec.c", "init/main.c"]
        );
        assert_eq!(
            list(&[("../init/main.c", "/s/o"), ("../fs/exec.c", "/s/o")]),
            ["fs/exec.c", "init/main.c"]
        );
        assert_eq!(list(&[("./fs/exec.c", "/s")]), ["fs/exec.c"]);
    }

    #[test]
    fn a_detour_of_the_makefile_is_remembered() {
        let names = [
            UnitName::new(Path::new("/s/init/main.c"), Path::new("/o")),
            UnitName::new(Path::new("/s/arch/x86/kvm/../../../virt/kvm/kvm_main.c"), Path::new("/o")),
        ];
        let list = UnitList::from_names(&names);
        let unit = Path::new("virt/kvm/kvm_main.c");
        assert!(list.contains(unit));
        assert_eq!(list.spelled(unit), Some(Path::new("arch/x86/kvm/../../../virt/kvm/kvm_main.c")));
        assert_eq!(list.spelled(Path::new("init/main.c")), None);
        assert_eq!(
            list.to_text(),
            "init/main.c\nvirt/kvm/kvm_main.c\tarch/x86/kvm/../../../virt/kvm/kvm_main.c\n"
        );
    }

    #[test]
    fn a_compiled_object_names_its_source() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("init")).unwrap();
        std::fs::write(dir.path().join("init/main.c"), "int main(void) { return 0; }\n").unwrap();
        let status = std::process::Command::new("gcc")
            .args(["-g", "-nostdlib", "-static", "-Wl,-e,main", "-o", "vmlinux", "init/main.c"])
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        let item = Item::new(dir.path().join("units"), "1");
        for _ in 0..2 {
            let list = UnitList::cached(&item, &dir.path().join("vmlinux")).unwrap();
            assert_eq!(list.iter().collect::<Vec<_>>(), ["init/main.c"]);
            assert!(list.contains(Path::new("init/main.c")) && !list.contains(Path::new("main.c")));
        }
        let data = std::fs::read(dir.path().join("vmlinux")).unwrap();
        let list = UnitList::from_elf(&data).unwrap();
        let entry = object::File::parse(&*data).unwrap().entry();
        let at = list.at(&data, &[entry, 1]).unwrap();
        assert_eq!(at, [Some(Path::new("init/main.c")), None]);
        for length in (0..data.len()).step_by(97) {
            let _ = UnitList::from_elf(&data[..length]);
        }
        assert!(matches!(UnitList::from_elf(b"no"), Err(DwarfError::Elf(_))));
    }
}
