//! Units to compile by the old way: the original and the patched tree are built completely, and compared.
//!
//! All builds use one object tree, over a view of the sources that is this phase's own. The original is built once; what
//! is kept of it are hashes of its objects, of what the machine sees of them, and the symbols that it exports. Then the
//! patched files take their places in the view, kbuild compiles what depends on them, and the originals are put back.
//! Each change is newer than every object, so the next build, also one after a killed run, compiles the same units again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;
use kbuild::object_tree::ObjectTree;
use kbuild::store::{self, Lock};
use kernel_artifacts::Sources;
use kernel_artifacts::store::Store;
use kpatch_elf::Object;
use rayon::prelude::*;

use super::overlay::PatchedFiles;
use super::resolve::{self, Resolved, forward, kernel_error};
use crate::error::{Code, Error};
use crate::events::{Event, Events};
use crate::loaded;
use crate::options::{Options, Target};
use crate::phase::Phase;

/// Version of what is kept of an original build; another one where hashes are made in another way.
const FORMAT: u32 = 1;

/// Two builds of one kernel.
#[derive(Debug)]
pub struct Builds {
    tree: ObjectTree,
    /// The sources as kbuild sees them.
    view: PathBuf,
    /// The user's tree, or the unpacked one.
    original: PathBuf,
    place: PathBuf,
    goals: Vec<String>,
    jobs: usize,
    _lock: Lock,
}

impl Builds {
    /// Builds the original, unless that was done before.
    pub fn original(options: &Options, resolved: &Resolved, events: Events<'_>) -> Result<Builds, Error> {
        let place = resolved.kernel.work_dir.join("whole");
        let lock = Lock::exclusive(&resolved.kernel.work_dir.join("whole.lock")).map_err(|e| failed(&e))?;
        let cache = Store::open(&options.cache).map_err(kernel_error)?;
        let tree = resolved.tree();
        let sources = Sources::scan(tree).map_err(kernel_error)?;
        let view = sources.view(&cache, &place.join("source"), &forward(events)).map_err(kernel_error)?;
        let builds = Builds {
            tree: resolve::object_tree_of(
                resolved,
                &view,
                &place.join("objects"),
                &sources.identity(),
                events,
            )?,
            view,
            original: tree.to_owned(),
            goals: goals(&options.targets),
            jobs: options.jobs.get(),
            place,
            _lock: lock,
        };
        builds.put_back()?;
        if builds.kept("hashes").exists() {
            events(Event::note("the whole original tree was built before"));
        } else {
            events(Event::note("building the whole original tree"));
            builds.build()?;
            builds.keep()?;
        }
        Ok(builds)
    }

    /// Builds the patched tree. The sources of which the machine sees something else than of the originals.
    pub fn changed(&self, patched: &PatchedFiles, events: Events<'_>) -> Result<BTreeSet<PathBuf>, Error> {
        let originals = self.hashes_of_originals()?;
        self.take(patched)?;
        events(Event::note("building the whole patched tree"));
        let start = SystemTime::now();
        let built = self.build().and_then(|()| self.hashes(start));
        self.put_back()?;
        let built = built?;
        let compiled = built.len();
        let changed = built.into_iter().filter(|(object, (_, hash))| originals.get(object) != Some(hash));
        let (objects, sources): (Vec<PathBuf>, _) =
            changed.map(|(object, (source, _))| (object, source)).unzip();
        events(Event::WholeTree { compiled, changed: objects });
        Ok(sources)
    }

    /// The symbols that the original exports, as its build listed them.
    pub fn symvers(&self) -> Option<PathBuf> {
        Some(self.kept("symvers")).filter(|path| path.exists())
    }

    fn build(&self) -> Result<(), Error> {
        self.tree.build(&self.goals, self.jobs).map_err(|error| resolve::tree_error(Phase::Compile, error))
    }

    /// Hashes of all objects that were compiled since, with their sources.
    fn hashes(&self, since: SystemTime) -> Result<BTreeMap<PathBuf, (PathBuf, String)>, Error> {
        let compiled =
            self.tree.compiled_since(since).map_err(|error| resolve::tree_error(Phase::Compile, error))?;
        let hash = |(object, source): (PathBuf, PathBuf)| {
            let path = self.tree.path().join(&object);
            let bytes = fs::read(&path).map_err(Error::io(Phase::Compile, "read", &path))?;
            // What is no object for this machine is known by its bytes.
            let hash = match Object::read(&bytes) {
                Ok(object) => loaded::hash(&object),
                Err(_) => blake3::hash(&bytes),
            };
            Ok((object, (source, hash.to_hex().to_string())))
        };
        compiled.into_iter().collect::<Vec<_>>().into_par_iter().map(hash).collect()
    }

    /// Keeps what later builds in the same place would replace.
    fn keep(&self) -> Result<(), Error> {
        let mut names = ["Module.symvers", "vmlinux.symvers"].into_iter();
        if let Some(symvers) = names.find_map(|name| fs::read(self.tree.path().join(name)).ok()) {
            store::write(&self.kept("symvers"), &symvers).map_err(|e| failed(&e))?;
        }
        let all = self.hashes(SystemTime::UNIX_EPOCH)?;
        let text = lines(all.iter().map(|(object, (_, hash))| format!("{hash} {}", object.display())));
        // They come last: where they are, all is.
        store::write(&self.kept("hashes"), text.as_bytes()).map_err(|e| failed(&e))
    }

    /// Hashes of the original build by object.
    fn hashes_of_originals(&self) -> Result<BTreeMap<PathBuf, String>, Error> {
        let path = self.kept("hashes");
        let text = fs::read_to_string(&path).map_err(Error::io(Phase::Compile, "read", &path))?;
        let line = |line: &str| line.split_once(' ').map(|(hash, object)| (object.into(), hash.to_owned()));
        Ok(text.lines().filter_map(line).collect())
    }

    /// Where something of the original of these sources, this compiler and these goals is kept.
    fn kept(&self, what: &str) -> PathBuf {
        let recipe = self.tree.recipe();
        let key = format!("{FORMAT}\n{}\n{}\n{}", recipe.identity, recipe.compiler, self.goals.join(" "));
        self.place.join(format!("original-{}.{what}", blake3::hash(key.as_bytes()).to_hex()))
    }

    /// Where the files stand that are not the original's now.
    fn list(&self) -> PathBuf {
        self.place.join("patched-files")
    }

    /// Puts patched files into the view.
    fn take(&self, patched: &PatchedFiles) -> Result<(), Error> {
        let list = lines(patched.keys().map(|path| path.display().to_string()));
        store::write(&self.list(), list.as_bytes()).map_err(|e| failed(&e))?;
        for (path, content) in patched {
            self.replace(path, content.as_deref())?;
        }
        Ok(())
    }

    /// Puts the original's files back where a run, perhaps a killed one, has left others.
    fn put_back(&self) -> Result<(), Error> {
        let list = self.list();
        let Ok(text) = fs::read_to_string(&list) else { return Ok(()) };
        for path in text.lines().map(Path::new) {
            let original = fs::read(self.original.join(path)).ok();
            self.replace(path, original.as_deref())?;
        }
        store::remove(&list).map_err(|e| failed(&e))
    }

    /// Writes a file of the view; it is newer than every object then.
    fn replace(&self, path: &Path, content: Option<&[u8]>) -> Result<(), Error> {
        let place = self.view.join(path);
        // A link must not be written through: it leads to the user's file.
        store::remove(&place).map_err(|e| failed(&e))?;
        match content {
            Some(content) => store::write(&place, content).map_err(|e| failed(&e)),
            None => Ok(()),
        }
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// What kbuild is to make for these targets.
fn goals(targets: &[Target]) -> Vec<String> {
    let goal = |target: &Target| match target {
        Target::Vmlinux => "vmlinux".to_owned(),
        Target::Modules | Target::Module(_) => "modules".to_owned(),
        Target::Directory(directory) => format!("{}/", directory.display()),
    };
    let goals: BTreeSet<String> = targets.iter().map(goal).collect();
    if goals.is_empty() {
        vec!["modules".to_owned(), "vmlinux".to_owned()]
    } else {
        goals.into_iter().collect()
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new(Phase::Compile, Code::IO, error).remedy(super::CACHE_REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_those_of_the_targets() {
        let of = |names: &[&str]| {
            goals(&names.iter().flat_map(|name| Target::parse(name).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), ["modules", "vmlinux"]);
        assert_eq!(of(&["vmlinux"]), ["vmlinux"]);
        assert_eq!(of(&["fs/xfs/xfs.ko", "modules"]), ["modules"]);
        assert_eq!(of(&["fs/proc/"]), ["fs/proc/"]);
    }
}
