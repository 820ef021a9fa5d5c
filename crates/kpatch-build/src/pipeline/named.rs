//! Units that no patch touches and that may read a touched file: which of them mention what changed.
//!
//! This reads text only, see [`crate::mentions`]. Who is left is preprocessed.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kbuild::include_graph::IncludeGraph;
use kbuild::object_tree::ObjectTree;
use rayon::prelude::*;

use super::unit::Unit;
use super::{compile, plain};
use crate::error::Error;
use crate::mentions::{self, Header, Scan};
use crate::patch::{FileKind, Patched};

/// What is known of the kernel and of the patches.
pub struct Readers<'a> {
    /// The object tree.
    pub tree: &'a ObjectTree,
    /// Who includes whom.
    pub graph: &'a IncludeGraph,
    /// The patches.
    pub patched: &'a Patched,
    /// How many threads.
    pub jobs: usize,
}

/// Keeps the units that patches touch and those that mention what changed.
pub fn run(readers: &Readers<'_>, units: Vec<Unit>) -> Result<Vec<Unit>, Vec<Error>> {
    let untouched: Vec<&Unit> = units.iter().filter(|unit| unit.indirect).collect();
    if untouched.is_empty() || !readers.is_understood() {
        return Ok(units);
    }
    let pool = compile::pool(readers.jobs)?;
    let kept = pool.install(|| readers.kept(&untouched));
    let dropped: BTreeSet<PathBuf> =
        untouched.iter().zip(kept).filter(|(_, kept)| !kept).map(|(unit, _)| unit.object.clone()).collect();
    Ok(units.into_iter().filter(|unit| !dropped.contains(&unit.object)).collect())
}

impl Readers<'_> {
    /// A file that comes or goes and that others may include changes what names of files lead to.
    fn is_understood(&self) -> bool {
        let mut included =
            self.patched.touched.iter().filter(|(_, touched)| touched.kind != FileKind::Source);
        self.patched.renamed.is_empty()
            && included.all(|(path, touched)| {
                !touched.created && self.patched.files.get(path).is_some_and(Option::is_some)
            })
    }

    /// For each unit, whether it may see a change. What cannot be read may.
    fn kept(&self, units: &[&Unit]) -> Vec<bool> {
        let first: Vec<Option<Vec<PathBuf>>> = units.iter().map(|unit| self.first_includes(unit)).collect();
        let roots = units.iter().map(|unit| unit.source.as_path());
        let firsts: BTreeSet<&Path> = first.iter().flatten().flatten().map(PathBuf::as_path).collect();
        let mut visible = self.graph.visible(roots.chain(firsts.iter().copied()));
        visible.extend(firsts.iter().map(|path| path.to_path_buf()));
        let paths: Vec<PathBuf> = visible.into_iter().collect();
        let headers: Option<Vec<Header>> = paths.par_iter().map(|path| self.header(path)).collect();
        let scans: Option<Vec<Scan>> = units
            .par_iter()
            .map(|unit| Some(mentions::scan(&self.read(&unit.source)?, unit.compile.values("-D"))))
            .collect();
        let (Some(headers), Some(scans)) = (headers, scans) else { return vec![true; units.len()] };
        let again = |at: usize| {
            let unit = units[at];
            Some((self.read(&unit.source)?, unit.compile.values("-D").map(str::to_owned).collect()))
        };
        let reached = mentions::reached(&headers, &scans, &again);
        if reached.everywhere {
            return vec![true; units.len()];
        }
        let affected = paths.iter().zip(&reached.affected).filter(|(_, affected)| **affected);
        let touching = self.graph.affected(affected.map(|(path, _)| path.as_path())).files;
        let made = OnceLock::new();
        let opaque = |path: &Path, scan: &Scan| {
            scan.spliced.iter().any(|target| self.targets(path, target).any(|file| touching.contains(file)))
                || scan.includes.iter().any(|target| self.is_generated(path, target, &made))
        };
        let scanned: Vec<Scan> = headers.par_iter().map(|header| mentions::scan(&header.text, [])).collect();
        let read_by_all: BTreeSet<&Path> = paths
            .iter()
            .zip(scanned.iter().zip(&reached.readers))
            .filter(|(path, (scan, readers))| **readers || opaque(path, scan))
            .map(|(path, _)| path.as_path())
            .collect();
        let readers = self.graph.affected(read_by_all).units;
        let keep = |(at, unit): (usize, &&Unit)| {
            reached.mentioned[at]
                || first[at].is_none()
                || readers.contains(&unit.source)
                || opaque(&unit.source, &scans[at])
        };
        units.iter().enumerate().map(keep).collect()
    }

    /// The files that the command line includes first, below the source tree; `None` if one is elsewhere.
    fn first_includes(&self, unit: &Unit) -> Option<Vec<PathBuf>> {
        let path = |value: &str| {
            let path = plain(&kbuild::command::absolute(self.tree.path(), Path::new(value)));
            path.strip_prefix(self.tree.source()).ok().map(Path::to_path_buf)
        };
        unit.compile.values("-include").map(path).collect()
    }

    /// The text of a file of the graph. Sources win over generated files, as there.
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let source = self.tree.source().join(path);
        std::fs::read(source).or_else(|_| std::fs::read(self.tree.path().join(path))).ok()
    }

    fn header(&self, path: &Path) -> Option<Header> {
        let patched = self.patched.files.get(path).cloned().flatten();
        Some(Header { text: self.read(path)?, patched })
    }

    /// What an `#include` of a file can lead to.
    fn targets<'s>(&'s self, path: &Path, target: &'s str) -> impl Iterator<Item = &'s Path> {
        let name =
            target.trim_matches(['"', '<', '>', ' ']).rsplit('/').next().unwrap_or_default().to_owned();
        let is_macro = !target.starts_with(['"', '<']);
        self.graph
            .included_by(path)
            .filter(move |file| is_macro || file.file_name().is_some_and(|n| *n == *name))
    }

    /// True if an `#include` leads to a file that kbuild makes together with an object: the graph does not know it.
    /// All directories of generated headers are known; elsewhere, a makefile speaks of what it makes.
    fn is_generated(&self, path: &Path, target: &str, made: &OnceLock<HashSet<Vec<u8>>>) -> bool {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let is_prepared = matches!(parts.as_slice(), ["include", ..] | ["arch", _, "include", ..]);
        if is_prepared || !target.starts_with(['"', '<']) || self.targets(path, target).next().is_some() {
            return false;
        }
        let name = target.trim_matches(['"', '<', '>', ' ']).rsplit('/').next().unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        made.get_or_init(|| self.words_of_makefiles()).contains(stem.as_bytes())
    }

    /// All words in the makefiles of the directories that hold sources, and of those above them.
    fn words_of_makefiles(&self) -> HashSet<Vec<u8>> {
        let directories: BTreeSet<&Path> =
            self.graph.directories().into_iter().flat_map(Path::ancestors).collect();
        let directories: Vec<&Path> = directories.into_iter().collect();
        let words = directories.par_iter().flat_map_iter(|directory| {
            ["Makefile", "Kbuild"].into_iter().flat_map(move |name| {
                let text = std::fs::read(self.tree.source().join(directory).join(name)).unwrap_or_default();
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
                text.split(|byte| !is_word(byte)).map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
        });
        words.collect()
    }
}
