//! The kernel modules of an image and what they depend on.
//!
//! Debian packages carry no `modules.dep` (it is made at installation), so dependencies come from the modules' `.modinfo`.

use crate::error::{Error, Result};
use object::{Object as _, ObjectSection as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of one kernel, by name.
#[derive(Debug)]
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// A module ready to be loaded: decompressed.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Name as the kernel spells it.
    pub(crate) name: String,
    /// The ELF file.
    pub(crate) content: Vec<u8>,
}

impl Modules {
    /// Indexes `directory`, a `lib/modules/RELEASE`.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in walkdir::WalkDir::new(directory.join("kernel")).sort_by_file_name() {
            let entry = entry.map_err(std::io::Error::from)?;
            if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                files.insert(name, entry.into_path());
            }
        }
        let builtin = fs_err::read_to_string(directory.join("modules.builtin"))?
            .lines()
            .filter_map(|line| module_name(line.rsplit('/').next().unwrap_or(line)))
            .collect();
        Ok(Self { files, builtin })
    }

    /// The named module preceded by everything it depends on, in loading order; empty when it is built in.
    pub(crate) fn with_dependencies(&self, name: &str) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        self.visit(&normalise(name), &mut seen, &mut order)?;
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let wrong = |reason: String| Error::KernelModule { name: name.to_owned(), reason };
        let path = self
            .files
            .get(name)
            .ok_or_else(|| wrong("neither a module of this kernel image nor built in".to_owned()))?;
        let content = decompressed(path)?;
        let info = ModInfo::parse(&content).map_err(&wrong)?;
        for dependency in info.dependencies() {
            self.visit(&dependency, seen, order)?;
        }
        order.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

/// `foo-bar.ko.xz` → `foo_bar`; none for a file that is no module.
fn module_name(file: &str) -> Option<String> {
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| normalise(stem))
}

fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

/// Content of a module file; compression is undone here because busybox does not know zstd.
fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(fs_err::read(path)?),
    };
    let command = duct::cmd!(tool, "-dc", path);
    let output = command.stdout_capture().run().map_err(|error| Error::Command {
        command: format!("{tool} -dc {}", path.display()),
        reason: error.to_string(),
    })?;
    Ok(output.stdout)
}

/// The `key=value` strings of a module.
#[derive(Debug)]
pub(crate) struct ModInfo(Vec<(String, String)>);

impl ModInfo {
    /// Reads the `.modinfo` section of a module file.
    pub(crate) fn parse(file: &[u8]) -> std::result::Result<Self, String> {
        let elf = object::read::File::parse(file).map_err(|error| error.to_string())?;
        let section = elf.section_by_name(".modinfo").ok_or("no .modinfo section: not a kernel module")?;
        let data = section.data().map_err(|error| error.to_string())?;
        Ok(Self(parse_strings(data)))
    }

    /// The value of the first string with that key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn dependencies(&self) -> Vec<String> {
        let list = self.get("depends").unwrap_or_default();
        list.split(',').filter(|name| !name.is_empty()).map(normalise).collect()
    }
}

fn parse_strings(data: &[u8]) -> Vec<(String, String)> {
    data.split(|byte| *byte == 0)
        .filter_map(|string| {
            let string = String::from_utf8_lossy(string);
            let (key, value) = string.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_module_files() {
        assert_eq!(module_name("snd-hda.ko.xz").as_deref(), Some("snd_hda"));
        assert_eq!(module_name("xfs.ko").as_deref(), Some("xfs"));
        assert_eq!(module_name("modules.order"), None);
        assert_eq!(module_name("x.kobject"), None);
    }

    #[test]
    fn strings_of_modinfo() {
        let info = ModInfo(parse_strings(b"license=GPL\0depends=a-b,c\0\0name=x\0noise\0"));
        assert_eq!(info.get("name"), Some("x"));
        assert_eq!(info.dependencies(), ["a_b", "c"]);
        assert!(ModInfo::parse(b"not an ELF file").is_err());
    }
}
