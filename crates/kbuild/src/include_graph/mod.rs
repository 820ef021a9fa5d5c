//! Which units can see a file: the textual graph of `#include` directives.
//!
//! Conditions are not evaluated and macros not expanded, and where a name can lead to several files it leads to
//! all of them. So the answer holds too many units, never too few; the preprocessor tells which of them really see
//! a change. Names are searched as kbuild's command lines make the compiler search: beside the including file,
//! then in the kernel's own directories, then (options of single makefiles) anywhere.

mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use scan::{Directives, Include};

use crate::paths;
use crate::store::{self, Item, StoreError};

/// Headers that kbuild's command lines include first (`-include`).
const FORCED: [&str; 3] =
    ["include/linux/compiler-version.h", "include/linux/kconfig.h", "include/linux/compiler_types.h"];

/// Directories at the top of the source tree that units of the kernel include nothing from.
const LEFT_OUT: [&str; 6] = ["Documentation", "LICENSES", "debian", "scripts", "tools", "usr"];

/// Names of files that are scanned and can be included.
const SUFFIXES: [&str; 6] = ["c", "h", "S", "inc", "def", "x"];

/// Who includes whom in a kernel's sources and generated headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncludeGraph {
    /// Paths below the source tree or the object tree, sorted.
    files: Vec<String>,
    /// For each file, those it includes.
    includes: Vec<Vec<u32>>,
}

/// The units that can see changed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Paths of all `.c` files that reach a changed file, whether this kernel compiles them or not.
    pub units: BTreeSet<PathBuf>,
    /// All files that reach a changed file, headers and generated ones too, and the changed files themselves. Units
    /// that do so only by a header that kbuild includes first are not named.
    pub files: BTreeSet<PathBuf>,
    /// Changed files that are no part of the graph.
    pub unknown: BTreeSet<PathBuf>,
}

impl IncludeGraph {
    /// Reads all sources for an architecture (as the kernel's makefiles call it) and the generated headers of an
    /// object tree.
    pub fn build(source: &Path, object_tree: &Path, arch: &str) -> Result<IncludeGraph, StoreError> {
        let mut paths = BTreeMap::new();
        // Sources win: a generated file never stands where a source does.
        for directory in ["include/generated", &format!("arch/{arch}/include/generated")] {
            walk(object_tree, Path::new(directory), arch, &mut paths)?;
        }
        walk(source, Path::new(""), arch, &mut paths)?;
        let (files, locations): (Vec<String>, Vec<PathBuf>) = paths.into_iter().unzip();
        let directives: Vec<Directives> = locations
            .par_iter()
            .map(|path| Ok(scan::scan(&std::fs::read(path).map_err(StoreError::io("read", path))?)))
            .collect::<Result<_, StoreError>>()?;
        let search = Search::new(&files, arch);
        let includes =
            files.par_iter().zip(&directives).map(|(file, found)| search.targets(file, found)).collect();
        Ok(IncludeGraph { files, includes })
    }

    /// The same, kept in the cache as `item`.
    pub fn cached(
        item: &Item,
        source: &Path,
        object_tree: &Path,
        arch: &str,
    ) -> Result<IncludeGraph, StoreError> {
        for _ in 0..2 {
            let path = item.ensure::<StoreError>(|path| {
                let graph = IncludeGraph::build(source, object_tree, arch)?;
                store::write(path, graph.to_text().as_bytes())
            })?;
            let text = std::fs::read(path).map_err(StoreError::io("read", path))?;
            if let Some(graph) = std::str::from_utf8(&text).ok().and_then(IncludeGraph::from_text) {
                return Ok(graph);
            }
            // A damaged file of the cache.
            item.discard()?;
        }
        IncludeGraph::build(source, object_tree, arch)
    }

    /// The units that reach any of the changed files (paths below the source tree); a changed `.c` file reaches
    /// itself.
    pub fn affected<'p>(&self, changed: impl IntoIterator<Item = &'p Path>) -> Affected {
        let mut affected = Affected::default();
        let mut open = Vec::new();
        for path in changed {
            match path.to_str().and_then(|path| self.id(path)) {
                Some(id) => open.push(id),
                None => {
                    affected.unknown.insert(path.to_owned());
                }
            }
        }
        let includers = self.includers();
        let forced: Vec<u32> = FORCED.iter().filter_map(|path| self.id(path)).collect();
        let mut seen = vec![false; self.files.len()];
        let mut everywhere = false;
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id as usize], true) {
                continue;
            }
            everywhere |= forced.contains(&id);
            open.extend(&includers[id as usize]);
        }
        let units = self.files.iter().zip(&seen).filter(|(file, seen)| {
            (**seen || everywhere) && Path::new(file).extension().is_some_and(|suffix| suffix == "c")
        });
        affected.units = units.map(|(file, _)| PathBuf::from(file)).collect();
        let files = self.files.iter().zip(&seen).filter(|(_, seen)| **seen);
        affected.files = files.map(|(file, _)| PathBuf::from(file)).collect();
        affected
    }

    /// All files that any of these can see, by whatever includes of includes, with what kbuild includes first. The
    /// files themselves are among them only where others include them.
    pub fn visible<'p>(&self, from: impl IntoIterator<Item = &'p Path>) -> BTreeSet<PathBuf> {
        let id = |path: &Path| path.to_str().and_then(|path| self.id(path));
        let starts = from.into_iter().filter_map(id);
        let mut open: Vec<u32> = starts.flat_map(|id| self.includes[id as usize].iter().copied()).collect();
        open.extend(FORCED.iter().filter_map(|path| self.id(path)));
        let mut seen = vec![false; self.files.len()];
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut seen[id as usize], true) {
                open.extend(&self.includes[id as usize]);
            }
        }
        let seen = self.files.iter().zip(&seen).filter(|(_, seen)| **seen);
        seen.map(|(file, _)| PathBuf::from(file)).collect()
    }

    /// The files that a file includes itself.
    pub fn included_by(&self, path: &Path) -> impl Iterator<Item = &Path> {
        let id = path.to_str().and_then(|path| self.id(path));
        let ids = id.map_or(&[][..], |id| &self.includes[id as usize]);
        ids.iter().map(|id| Path::new(&self.files[*id as usize]))
    }

    /// The files of that name, whatever their directory.
    pub fn named<'g>(&'g self, name: &'g str) -> impl Iterator<Item = &'g Path> {
        let ends = move |file: &&String| {
            file.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        self.files.iter().filter(ends).map(Path::new)
    }

    /// The directories that hold files of the graph, once each.
    pub fn directories(&self) -> BTreeSet<&Path> {
        self.files.iter().filter_map(|file| Path::new(file).parent()).collect()
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True if there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn id(&self, path: &str) -> Option<u32> {
        self.files.binary_search_by(|file| file.as_str().cmp(path)).ok().map(|id| id as u32)
    }

    fn includers(&self) -> Vec<Vec<u32>> {
        let mut includers = vec![Vec::new(); self.files.len()];
        for (id, includes) in self.includes.iter().enumerate() {
            for &included in includes {
                includers[included as usize].push(id as u32);
            }
        }
        includers
    }

    /// One file a line: its path, and the line numbers, from 0, of those it includes.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for (file, includes) in self.files.iter().zip(&self.includes) {
            text.push_str(file);
            for id in includes {
                text.push('\t');
                text.push_str(&id.to_string());
            }
            text.push('\n');
        }
        text
    }

    fn from_text(text: &str) -> Option<IncludeGraph> {
        let count = text.lines().count();
        let mut graph = IncludeGraph::default();
        for line in text.lines() {
            let mut fields = line.split('\t');
            graph.files.push(fields.next()?.to_owned());
            let ids: Option<Vec<u32>> =
                fields.map(|field| field.parse().ok().filter(|&id: &u32| (id as usize) < count)).collect();
            graph.includes.push(ids?);
        }
        graph.files.is_sorted().then_some(graph)
    }
}

/// Collects the files below `directory` by their path below `tree`.
fn walk(
    tree: &Path,
    directory: &Path,
    arch: &str,
    paths: &mut BTreeMap<String, PathBuf>,
) -> Result<(), StoreError> {
    let absolute = tree.join(directory);
    let entries = match std::fs::read_dir(&absolute) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("list", &absolute)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", &absolute))?;
        let path = directory.join(entry.file_name());
        let kind = entry.file_type().map_err(StoreError::io("list", &absolute))?;
        if kind.is_dir() {
            if !is_left_out(&path, arch) {
                walk(tree, &path, arch, paths)?;
            }
        } else if path.extension().and_then(|s| s.to_str()).is_some_and(|s| SUFFIXES.contains(&s))
            && entry.path().is_file()
            && let Some(path) = path.to_str()
        {
            paths.insert(path.to_owned(), entry.path());
        }
    }
    Ok(())
}

fn is_left_out(directory: &Path, arch: &str) -> bool {
    let parts: Vec<&str> = directory.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        [top] => LEFT_OUT.contains(top) || top.starts_with('.'),
        // arm64 compiles a few sources of arm.
        ["arch", other] => *other != arch && !(arch == "arm64" && *other == "arm"),
        _ => false,
    }
}

/// Finds files by the names in directives.
struct Search<'f> {
    files: &'f [String],
    ids: HashMap<&'f str, u32>,
    by_name: HashMap<&'f str, Vec<u32>>,
    /// The directories that every unit searches.
    roots: Vec<String>,
}

impl<'f> Search<'f> {
    fn new(files: &'f [String], arch: &str) -> Search<'f> {
        let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
        let mut ids = HashMap::new();
        for (id, file) in files.iter().enumerate() {
            ids.insert(file.as_str(), id as u32);
            by_name.entry(file.rsplit('/').next().unwrap_or(file)).or_default().push(id as u32);
        }
        let mut roots = Vec::new();
        for kind in ["", "/uapi"] {
            roots.push(format!("arch/{arch}/include{kind}"));
            roots.push(format!("arch/{arch}/include/generated{kind}"));
            roots.push(format!("include{kind}"));
            roots.push(format!("include/generated{kind}"));
        }
        Search { files, ids, by_name, roots }
    }

    /// Everything that a file includes, or has others include for it; sorted.
    fn targets(&self, file: &str, found: &Directives) -> Vec<u32> {
        let directory = Path::new(file).parent().unwrap_or(Path::new(""));
        let mut targets = BTreeSet::new();
        for include in &found.includes {
            targets.extend(self.find(directory, include));
        }
        // A macro that names a file is used by whoever includes this one; from where is unknown.
        for include in &found.defined {
            targets.extend(self.find(directory, include));
            targets.extend(self.anywhere(include.path()));
        }
        if let Some(name) = &found.trace_file {
            let name = format!("{name}.h");
            targets.extend(self.beside(directory, &name));
            targets.extend(self.ids.get(format!("include/trace/events/{name}").as_str()));
            if let Some(path) = found.trace_path.as_deref().filter(|path| *path != ".") {
                targets.extend(self.anywhere(&format!("{path}/{name}")));
            }
        }
        targets.into_iter().collect()
    }

    fn find(&self, directory: &Path, include: &Include) -> Vec<u32> {
        if let Include::Quoted(path) = include
            && let Some(id) = self.beside(directory, path)
        {
            return vec![id];
        }
        let path = include.path();
        let in_roots: Vec<u32> =
            self.roots.iter().filter_map(|root| self.beside(Path::new(root), path)).collect();
        if in_roots.is_empty() { self.anywhere(path) } else { in_roots }
    }

    fn beside(&self, directory: &Path, path: &str) -> Option<u32> {
        self.ids.get(paths::plain(&directory.join(path)).to_str()?).copied()
    }

    /// All files whose path ends like that, whatever directory an option names.
    fn anywhere(&self, path: &str) -> Vec<u32> {
        let path = paths::plain(Path::new(path));
        let Some(path) = path.to_str().map(|path| path.trim_start_matches("../")) else { return Vec::new() };
        let name = path.rsplit('/').next().unwrap_or(path);
        let ends = |id: &u32| {
            let rest = self.files[*id as usize].strip_suffix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        self.by_name.get(name).into_iter().flatten().copied().filter(ends).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> (tempfile::TempDir, IncludeGraph) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            store::write(&dir.path().join(path), text.as_bytes()).unwrap();
        }
        let graph = IncludeGraph::build(&dir.path().join("s"), &dir.path().join("o"), "x86").unwrap();
        (dir, graph)
    }

    fn units(graph: &IncludeGraph, changed: &str) -> Vec<String> {
        let affected = graph.affected([Path::new(changed)]);
        assert!(affected.unknown.is_empty(), "{changed} is unknown");
        affected.units.iter().map(|unit| unit.display().to_string()).collect()
    }

    #[test]
    fn names_are_searched_as_the_compiler_does() {
        let (_dir, graph) = graph(&[
            ("s/include/linux/a.h", "#include <asm/b.h>\n"),
            ("s/drivers/x/linux/a.h", ""),
            ("s/arch/x86/include/asm/c.h", ""),
            ("s/arch/arm/include/asm/c.h", ""),
            ("o/arch/x86/include/generated/asm/b.h", "#include <asm-generic/b.h>\n"),
            ("s/include/asm-generic/b.h", "#include <asm/c.h>\n"),
            ("s/fs/one.c", "#include <linux/a.h>\n#include \"internal.h\"\n"),
            ("s/fs/internal.h", ""),
            ("s/mm/internal.h", ""),
            ("s/mm/two.c", "#include \"internal.h\"\n"),
            ("s/net/three.c", "#include \"../fs/internal.h\"\n"),
            ("s/net/four.c", "#include <lost/option.h>\n"),
            ("s/drivers/y/lost/option.h", ""),
            ("s/drivers/z/lost/option.h", ""),
            ("s/kernel/policy.c", "#include \"rt.c\"\n"),
            ("s/kernel/rt.c", "#include <linux/a.h>\n"),
            ("s/tools/t.c", "#include <linux/a.h>\n"),
        ]);
        assert_eq!(units(&graph, "arch/x86/include/asm/c.h"), ["fs/one.c", "kernel/policy.c", "kernel/rt.c"]);
        assert_eq!(units(&graph, "drivers/x/linux/a.h"), [""; 0]);
        assert_eq!(units(&graph, "fs/internal.h"), ["fs/one.c", "net/three.c"]);
        assert_eq!(units(&graph, "mm/internal.h"), ["mm/two.c"]);
        let files = graph.affected([Path::new("include/asm-generic/b.h")]).files;
        assert!(
            files.contains(Path::new("include/linux/a.h")) && !files.contains(Path::new("fs/internal.h"))
        );
        assert_eq!(units(&graph, "drivers/z/lost/option.h"), ["net/four.c"]);
        assert_eq!(units(&graph, "kernel/rt.c"), ["kernel/policy.c", "kernel/rt.c"]);
        let visible: Vec<PathBuf> = graph.visible([Path::new("kernel/policy.c")]).into_iter().collect();
        assert_eq!(
            visible.iter().filter_map(|path| path.to_str()).collect::<Vec<_>>(),
            [
                "arch/x86/include/asm/c.h",
                "arch/x86/include/generated/asm/b.h",
                "include/asm-generic/b.h",
                "include/linux/a.h",
                "kernel/rt.c"
            ]
        );
        assert!(graph.directories().contains(Path::new("arch/x86/include/generated/asm")));
        let included: Vec<&Path> = graph.included_by(Path::new("kernel/policy.c")).collect();
        assert_eq!(included, [Path::new("kernel/rt.c")]);
        let named: Vec<&Path> = graph.named("internal.h").collect();
        assert_eq!(named, [Path::new("fs/internal.h"), Path::new("mm/internal.h")]);
        let unknown = graph.affected([Path::new("arch/arm/include/asm/c.h")]).unknown;
        assert_eq!(unknown.len(), 1);
    }

    #[test]
    fn macros_and_forced_headers_lead_to_files_too() {
        let (_dir, graph) = graph(&[
            ("s/include/linux/kconfig.h", "#include <linux/deep.h>\n"),
            ("s/include/linux/deep.h", ""),
            ("s/fs/a.c", "#define BODY \"body.h\"\n#include <linux/magic.h>\n"),
            ("s/include/linux/magic.h", "#include BODY\n"),
            ("s/fs/body.h", ""),
            (
                "s/fs/trace.h",
                "#undef TRACE_INCLUDE_PATH\n#define TRACE_INCLUDE_PATH ../../fs\n\
                 #define TRACE_INCLUDE_FILE again\n#include <trace/define_trace.h>\n",
            ),
            ("s/include/trace/define_trace.h", "#include TRACE_INCLUDE(TRACE_INCLUDE_FILE)\n"),
            ("s/fs/again.h", ""),
            ("s/fs/b.c", "#include \"trace.h\"\n"),
        ]);
        assert_eq!(units(&graph, "include/linux/deep.h"), ["fs/a.c", "fs/b.c"]);
        assert_eq!(units(&graph, "fs/body.h"), ["fs/a.c"]);
        assert_eq!(units(&graph, "fs/again.h"), ["fs/b.c"]);
    }

    #[test]
    fn the_cache_keeps_the_graph_and_heals() {
        let (dir, graph) = graph(&[("s/a.c", "#include \"a.h\"\n"), ("s/a.h", "")]);
        let item = Item::new(dir.path().join("graph"), "1");
        let read =
            || IncludeGraph::cached(&item, &dir.path().join("s"), &dir.path().join("o"), "x86").unwrap();
        assert_eq!(read(), graph);
        std::fs::write(item.path(), "a.c\t7\n").unwrap();
        assert_eq!(read(), graph);
        std::fs::remove_dir_all(dir.path().join("s")).unwrap();
        assert_eq!(read(), graph);
    }
}
