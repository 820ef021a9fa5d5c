//! What the kernel's modules are made of, from kbuild, without compiling anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{ObjectTree, TreeError, prepare};
use crate::paths;
use crate::store::{self, StoreError};

/// The list of an earlier run, in the object tree.
const KEPT: &str = ".module-objects";

/// The objects of modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleObjects {
    /// By module: its path in the object tree without suffix. Objects as kbuild spells them.
    modules: BTreeMap<PathBuf, Vec<PathBuf>>,
}

impl ModuleObjects {
    /// The modules with their objects, both as paths in the object tree. Objects may have detours.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &[PathBuf])> {
        self.modules.iter().map(|(module, objects)| (module.as_path(), objects.as_slice()))
    }

    /// The path by which kbuild compiles a source into a module, where it is not the source's own.
    pub fn spelled(&self, unit: &Path) -> Option<PathBuf> {
        let object = unit.with_extension("o");
        let mut found = self.modules.values().flatten().filter(|spelled| paths::plain(spelled) == object);
        let extension = unit.extension().unwrap_or_default();
        found.find(|spelled| **spelled != object).map(|spelled| spelled.with_extension(extension))
    }

    /// The names of the modules that contain the object of a source, as the kernel knows them.
    pub fn modules_of(&self, unit: &Path) -> BTreeSet<String> {
        let object = unit.with_extension("o");
        let contains = |objects: &[PathBuf]| objects.iter().any(|spelled| paths::plain(spelled) == object);
        let modules = self.iter().filter(|(_, objects)| contains(objects));
        modules.filter_map(|(module, _)| Some(module.file_name()?.to_str()?.replace('-', "_"))).collect()
    }

    /// The C sources that a module may be made of, by the name that the kernel knows it by.
    pub fn sources_of(&self, module: &str) -> BTreeSet<PathBuf> {
        let is_module = |path: &Path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.replace('-', "_") == module)
        };
        let objects = self.iter().filter(|(path, _)| is_module(path)).flat_map(|(_, objects)| objects);
        objects.map(|object| paths::plain(object).with_extension("c")).collect()
    }

    /// The objects of all modules without detours, sorted.
    pub fn objects(&self) -> BTreeSet<PathBuf> {
        self.modules.values().flatten().map(|object| paths::plain(object)).collect()
    }

    /// One module a line: its path and its objects, separated by tabs.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for (module, objects) in &self.modules {
            text.push_str(&module.to_string_lossy());
            for object in objects {
                text.push('\t');
                text.push_str(&object.to_string_lossy());
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn from_text(text: &str) -> ModuleObjects {
        let modules = text.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(PathBuf::from);
            Some((fields.next()?, fields.collect()))
        });
        ModuleObjects { modules: modules.collect() }
    }
}

impl ObjectTree {
    /// Tells which modules the kernel comes with, by their installed files
    /// (`…/modules/RELEASE/kernel/fs/xfs/xfs.ko.xz`, or without the release); others are not asked for.
    #[must_use]
    pub fn with_modules(mut self, files: impl IntoIterator<Item = impl AsRef<Path>>) -> ObjectTree {
        self.modules = files.into_iter().filter_map(|file| module_path(file.as_ref())).collect();
        self
    }

    /// What the modules named by [`ObjectTree::with_modules`] are made of. kbuild evaluates the makefiles once per
    /// tree, which takes some ten seconds; `None` where no modules were named or this kernel's kbuild cannot tell
    /// without compiling them (before 5.18).
    pub fn module_objects(&self) -> Result<Option<ModuleObjects>, TreeError> {
        if self.modules.is_empty() || !self.lists_without_compiling()? {
            return Ok(None);
        }
        let kept = self.path().join(KEPT);
        let known = |text: &str| {
            let known = ModuleObjects::from_text(text);
            self.modules.iter().all(|module| known.modules.contains_key(module)).then_some(known)
        };
        if let Some(known) = std::fs::read_to_string(&kept).ok().and_then(|text| known(&text)) {
            return Ok(Some(known));
        }
        let _lock = self.item.lock()?;
        if let Some(known) = std::fs::read_to_string(&kept).ok().and_then(|text| known(&text)) {
            return Ok(Some(known));
        }
        for module in &self.modules {
            store::remove(&self.path().join(with_suffix(module, ".mod")))?;
        }
        // Some may be unknown to these makefiles, such as modules built elsewhere: they have no objects here.
        self.make()
            .args(["-k", "-s"])
            .args(self.modules.iter().map(|module| with_suffix(module, ".mod")))
            .output()
            .map_err(|source| TreeError::Run { what: "ask kbuild what modules are made of", source })?;
        prepare::restore_identity(self)?;
        let mut objects = ModuleObjects::default();
        for module in &self.modules {
            let path = self.path().join(with_suffix(module, ".mod"));
            let list = match std::fs::read_to_string(&path) {
                Ok(list) => list,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(StoreError::io("read", &path)(error).into()),
            };
            objects
                .modules
                .insert(module.clone(), list.split_ascii_whitespace().map(PathBuf::from).collect());
        }
        store::write(&kept, objects.to_text().as_bytes())?;
        Ok(Some(objects))
    }

    /// Since 5.18 the list of a module's objects (`.mod`) depends on nothing.
    fn lists_without_compiling(&self) -> Result<bool, TreeError> {
        let path = self.source().join("scripts/Makefile.build");
        let text = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().any(|line| line.trim_end() == "$(obj)/%.mod: FORCE"))
    }
}

/// The path of a module in the object tree, from its installed file.
fn module_path(file: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = file
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str().unwrap_or_default(),
            _ => "",
        })
        .collect();
    // modules/RELEASE/kernel/…, or modules/kernel/… where they were unpacked for one release.
    let start = (1..parts.len()).rev().find(|&i| {
        parts[i] == "kernel" && (parts[i - 1] == "modules" || i > 1 && parts[i - 2] == "modules")
    })?;
    let (name, directories) = parts.get(start + 1..)?.split_last()?;
    let name = name.split_once(".ko")?.0;
    let path: PathBuf = directories.iter().copied().chain([name]).collect();
    paths::is_below(&path).then_some(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_files_tell_paths_of_modules() {
        for (file, path) in [
            ("/lib/modules/6.1.0/kernel/fs/xfs/xfs.ko", Some("fs/xfs/xfs")),
            ("/c/usr/lib/modules/7.2/kernel/arch/x86/kvm/kvm-intel.ko.xz", Some("arch/x86/kvm/kvm-intel")),
            ("/cache/kernel/6.1/modules/kernel/net/key/af_key.ko", Some("net/key/af_key")),
            ("/lib/modules/6.1.0/updates/dkms/x.ko", None),
            ("/lib/modules/6.1.0/kernel/README", None),
            ("xfs.ko", None),
        ] {
            assert_eq!(module_path(Path::new(file)).as_deref(), path.map(Path::new), "{file}");
        }
    }

    #[test]
    fn sources_are_found_behind_detours_and_in_several_modules() {
        let text = "arch/x86/kvm/kvm\tarch/x86/kvm/../../../virt/kvm/kvm_main.o\tarch/x86/kvm/x86.o\n\
                    net/a-b\tnet/shared.o\nnet/c\tnet/shared.o\n";
        let objects = ModuleObjects::from_text(text);
        assert_eq!(objects.to_text(), text);
        assert_eq!(
            objects.spelled(Path::new("virt/kvm/kvm_main.c")).as_deref(),
            Some(Path::new("arch/x86/kvm/../../../virt/kvm/kvm_main.c"))
        );
        assert_eq!(objects.spelled(Path::new("arch/x86/kvm/x86.c")), None);
        assert_eq!(objects.modules_of(Path::new("net/shared.c")), ["a_b".into(), "c".into()].into());
        assert_eq!(objects.modules_of(Path::new("virt/kvm/kvm_main.c")), ["kvm".into()].into());
        assert!(objects.objects().contains(Path::new("virt/kvm/kvm_main.o")));
        assert_eq!(
            objects.sources_of("kvm"),
            ["arch/x86/kvm/x86.c".into(), "virt/kvm/kvm_main.c".into()].into()
        );
        assert_eq!(objects.sources_of("a_b"), ["net/shared.c".into()].into());
        assert_eq!(objects.sources_of("net"), BTreeSet::new());
    }
}
