//! Reads `test-patches/`: the cases of a kernel series, and what each must show. `test-patches/README.md` describes the files.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All cases for one kernel series.
#[derive(Debug)]
pub(crate) struct Series {
    /// Name of the directory.
    pub(crate) name: String,
    /// The kernel series, `6.1`.
    pub(crate) kernel: String,
    /// Flavour of the kernel that the cases are run on.
    pub(crate) flavour: String,
    /// Suites to look for the kernel in; the host's own when empty.
    pub(crate) suites: Vec<String>,
    /// The series that its cases come from, if any.
    pub(crate) inherits: Option<String>,
    /// Belongs to the long run only.
    pub(crate) full: bool,
    /// The machine, where it is not the usual one.
    pub(crate) machine: Machine,
    /// In the order of their names.
    pub(crate) cases: Vec<Case>,
}

/// One case: patches, and what must become of them.
#[derive(Debug)]
pub(crate) struct Case {
    /// The name.
    pub(crate) name: String,
    /// Patch files, in the order they are applied.
    pub(crate) patches: Vec<PathBuf>,
    /// The script for the guest.
    pub(crate) test: Option<PathBuf>,
    /// What the description says.
    pub(crate) says: Description,
}

impl Case {
    /// Whether the patches must be refused.
    pub(crate) fn must_be_refused(&self) -> bool {
        self.says.refused.is_some()
    }
}

/// Content of `NAME.toml`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Description {
    /// Names of patch files, if not `NAME.patch` alone.
    pub(crate) patches: Vec<String>,
    /// Further arguments of kpatch-build.
    pub(crate) arguments: Vec<String>,
    /// What must be patched.
    pub(crate) objects: Vec<String>,
    /// Changed functions of object files.
    pub(crate) changed: BTreeMap<String, BTreeSet<String>>,
    /// New functions of object files.
    pub(crate) new: BTreeMap<String, BTreeSet<String>>,
    /// Modules of the kernel image.
    pub(crate) modules: Modules,
    /// Texts of the kernel log, in order.
    pub(crate) log: Vec<String>,
    /// Expected warnings.
    pub(crate) warnings: Vec<String>,
    /// Objects may stay unloaded.
    pub(crate) absent_objects: bool,
    /// Set when the patches must be refused.
    pub(crate) refused: Option<Refused>,
}

/// Modules of the kernel image that a case needs.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Modules {
    /// Loaded before the patch.
    pub(crate) before: Vec<String>,
    /// Loaded while the patch is active.
    pub(crate) after: Vec<String>,
}

/// How patches must be refused.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Refused {
    /// Texts of the error.
    pub(crate) says: Vec<String>,
}

/// A machine that makes a kernel run otherwise than usual.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Machine {
    /// What QEMU calls the model of its processors.
    pub(crate) cpu: Option<String>,
    /// More of the kernel's command line.
    pub(crate) append: String,
}

/// Content of `series.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesFile {
    flavour: String,
    series: Option<String>,
    #[serde(default)]
    suites: Vec<String>,
    #[serde(default)]
    full: bool,
    inherits: Option<String>,
    #[serde(default)]
    without: BTreeSet<String>,
    #[serde(default)]
    machine: Machine,
}

const REFUSED_SUFFIX: &str = "-FAIL";

/// Reads one series below `root`.
pub(crate) fn read(root: &Path, name: &str) -> Result<Series> {
    let (file, files) = collect(root, name, &mut BTreeSet::new())?;
    let stems: BTreeSet<&str> = files
        .keys()
        .filter(|file| file.as_str() != "series.toml")
        .filter_map(|file| file.strip_suffix(".patch").or_else(|| file.strip_suffix(".toml")))
        .collect();
    let cases = stems.into_iter().map(|stem| case(stem, &files)).collect::<Result<Vec<Case>>>()?;
    for file in files.keys() {
        if let Some(stem) = file.strip_suffix(".test")
            && !cases.iter().any(|case| case.name == stem)
        {
            return Err(wrong(&files[file], "a test without a patch"));
        }
    }
    if cases.is_empty() {
        return Err(wrong(&root.join(name), "no cases"));
    }
    Ok(Series {
        name: name.to_owned(),
        kernel: file.series.unwrap_or_else(|| name.to_owned()),
        flavour: file.flavour,
        suites: file.suites,
        inherits: file.inherits,
        full: file.full,
        machine: file.machine,
        cases,
    })
}

/// The names of all series below `root`.
pub(crate) fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(root)? {
        let path = entry?.path();
        if path.join("series.toml").is_file()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn wrong(path: &Path, reason: impl Into<String>) -> Error {
    Error::Series { path: path.to_owned(), reason: reason.into() }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    toml::from_str(&fs_err::read_to_string(path)?).map_err(|error| wrong(path, error.to_string()))
}

/// The description and the files of a series by name, inherited ones included.
fn collect(
    root: &Path,
    name: &str,
    seen: &mut BTreeSet<String>,
) -> Result<(SeriesFile, BTreeMap<String, PathBuf>)> {
    let directory = root.join(name);
    if !seen.insert(name.to_owned()) {
        return Err(wrong(&directory, "inherits from itself"));
    }
    let series: SeriesFile = parse(&directory.join("series.toml"))?;
    let mut files = match &series.inherits {
        Some(parent) => collect(root, parent, seen)?.1,
        None => BTreeMap::new(),
    };
    for unwanted in &series.without {
        let before = files.len();
        files.retain(|file, _| file.rsplit_once('.').is_none_or(|(stem, _)| stem != unwanted));
        if files.len() == before {
            return Err(wrong(&directory.join("series.toml"), format!("`{unwanted}` is not inherited")));
        }
    }
    for entry in fs_err::read_dir(&directory)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            files.insert(name.to_owned(), path.clone());
        }
    }
    Ok((series, files))
}

fn case(name: &str, files: &BTreeMap<String, PathBuf>) -> Result<Case> {
    let description = files.get(&format!("{name}.toml"));
    let mut says: Description = description.map_or_else(|| Ok(Description::default()), |path| parse(path))?;
    let own_patch = format!("{name}.patch");
    let place = description.or_else(|| files.get(&own_patch)).cloned().unwrap_or_default();

    let names = if says.patches.is_empty() { vec![own_patch.clone()] } else { says.patches.clone() };
    let patches = names
        .iter()
        .map(|patch| files.get(patch).cloned().ok_or_else(|| wrong(&place, format!("no file `{patch}`"))))
        .collect::<Result<Vec<PathBuf>>>()?;
    let test = files.get(&format!("{name}.test")).cloned();

    let refused = name.ends_with(REFUSED_SUFFIX);
    match (&says.refused, refused) {
        (Some(_), false) => return Err(wrong(&place, "`refused`, but the name does not end in -FAIL")),
        (None, true) => says.refused = Some(Refused::default()),
        _ => {}
    }
    if refused && test.is_some() {
        return Err(wrong(&place, "what is refused cannot have a test"));
    }
    if !refused && test.is_none() {
        return Err(wrong(&place, format!("no file `{name}.test`")));
    }
    Ok(Case { name: name.to_owned(), patches, test, says })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        root
    }

    fn error(files: &[(&str, &str)]) -> String {
        read(tree(files).path(), "a").unwrap_err().to_string()
    }

    const A: (&str, &str) = ("a/series.toml", "flavour = 'f'\n");

    #[test]
    fn cases_are_inherited_replaced_and_left_out() {
        let root = tree(&[
            A,
            ("a/x.patch", ""),
            ("a/x.test", ""),
            ("a/y.patch", ""),
            ("a/y.test", ""),
            ("a/z-FAIL.patch", ""),
            ("a/z-FAIL.toml", "[refused]\nsays = ['why']\n"),
            (
                "b/series.toml",
                "flavour = 'g'\ninherits = 'a'\nwithout = ['y']\nmachine = { append = 'nopti' }\n",
            ),
            ("b/x.patch", ""),
        ]);
        let series = read(root.path(), "b").unwrap();
        assert_eq!(series.flavour, "g");
        assert_eq!(series.machine, Machine { cpu: None, append: "nopti".to_owned() });
        let names: Vec<&str> = series.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["x", "z-FAIL"]);
        assert_eq!(series.cases[0].patches, [root.path().join("b/x.patch")]);
        assert_eq!(series.cases[0].test, Some(root.path().join("a/x.test")));
        assert_eq!(series.cases[1].says.refused.as_ref().unwrap().says, ["why"]);
    }

    #[test]
    fn several_patches() {
        let root = tree(&[
            A,
            ("a/x.patch", ""),
            ("a/x.test", ""),
            ("a/c.toml", "patches = ['x.patch', 'x.patch']"),
            ("a/c.test", ""),
        ]);
        assert_eq!(read(root.path(), "a").unwrap().cases[0].patches.len(), 2);
    }

    #[test]
    fn mistakes_are_told() {
        assert!(error(&[A]).contains("no cases"));
        assert!(error(&[A, ("a/x.patch", "")]).contains("no file `x.test`"));
        assert!(error(&[A, ("a/x-FAIL.patch", ""), ("a/x-FAIL.test", "")]).contains("cannot have a test"));
        assert!(error(&[A, ("a/x.toml", "objectz = []"), ("a/x.patch", "")]).contains("objectz"));
        assert!(error(&[A, ("a/x.toml", "[refused]"), ("a/x.patch", "")]).contains("-FAIL"));
        assert!(
            error(&[A, ("a/x.patch", ""), ("a/x.test", ""), ("a/y.test", "")]).contains("without a patch")
        );
        assert!(error(&[("a/series.toml", "flavour = ''\ninherits = 'a'")]).contains("itself"));
    }

    #[test]
    fn the_series_of_this_checkout() {
        let root = crate::workspace_root().join("test-patches");
        let names = names(&root).unwrap();
        assert!(!names.is_empty());
        for name in names {
            let series = read(&root, &name).unwrap();
            assert!(series.cases.iter().any(Case::must_be_refused));
            assert!(series.cases.iter().any(|case| !case.must_be_refused()));
        }
    }
}
