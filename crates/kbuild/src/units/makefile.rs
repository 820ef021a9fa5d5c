//! Why kbuild leaves a unit out: the option that its makefiles ask for.
//!
//! This reads makefiles as people do, for the sake of a message; nothing is decided by it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::Config;

/// What the makefiles say about a unit that the kernel does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is compiled only with this option (named without `CONFIG_`), which is not set.
    Option(String),
    /// It is part of a program that runs during the build.
    HostProgram,
}

/// One word of an assignment such as `obj-$(CONFIG_XFS_FS) += xfs.o`.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'t> {
    /// The variable, up to its last dash: `obj`, `xfs`.
    variable: &'t str,
    /// Options it depends on, outermost first.
    options: Vec<&'t str>,
    /// The word.
    word: &'t str,
}

/// Looks for the unit in the makefiles of its directory and of those above it.
pub(super) fn why_left_out(source: &Path, unit: &Path, config: &Config) -> Option<Finding> {
    unit.ancestors().skip(1).find_map(|directory| {
        let below = unit.strip_prefix(directory).ok()?.with_extension("o");
        let text = ["Kbuild", "Makefile"]
            .iter()
            .filter_map(|name| std::fs::read(source.join(directory).join(name)).ok())
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect::<Vec<_>>()
            .join("\n");
        let text = text.replace("\\\n", " ");
        let entries = entries(&text);
        // The object itself, or any directory on the way to it.
        let mut wanted = vec![below.to_string_lossy().into_owned()];
        wanted.extend(below.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty()).map(directory_word));
        find(&entries, wanted, config)
    })
}

fn directory_word(directory: &Path) -> String {
    format!("{}/", directory.display())
}

/// Follows the words to the composites they are part of, until an option is not set.
fn find(entries: &[Entry<'_>], mut wanted: Vec<String>, config: &Config) -> Option<Finding> {
    let mut seen = BTreeSet::new();
    while let Some(word) = wanted.pop() {
        if !seen.insert(word.clone()) {
            continue;
        }
        let program = word.strip_suffix(".o");
        for entry in entries {
            if entry.variable.starts_with("hostprogs") && program == Some(entry.word) {
                return Some(Finding::HostProgram);
            }
            if entry.word != word {
                continue;
            }
            if let Some(option) = entry.options.iter().find(|option| !config.is_set(option)) {
                return Some(Finding::Option((*option).to_owned()));
            }
            if !matches!(entry.variable, "obj" | "lib" | "extra" | "subdir") {
                wanted.push(format!("{}.o", entry.variable));
            }
        }
    }
    None
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut conditions: Vec<Option<&str>> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        match first {
            "ifdef" | "ifeq" => conditions.push(option_in(line)),
            "ifndef" | "ifneq" => conditions.push(None),
            "else" => {
                if let Some(condition) = conditions.last_mut() {
                    *condition = None;
                }
            }
            "endif" => {
                conditions.pop();
            }
            _ => {
                let Some((variable, words)) = line.split_once('=') else { continue };
                let variable = variable.trim_end_matches(['+', ':', '?', ' ', '\t']);
                let (base, option) = match variable.split_once("-$(") {
                    Some((base, _)) => (base, option_in(variable)),
                    None => (variable.rsplit_once('-').map_or(variable, |(base, _)| base), None),
                };
                let base = base.strip_suffix("-objs").unwrap_or(base);
                for word in words.split_ascii_whitespace() {
                    let options = conditions.iter().flatten().copied().chain(option).collect();
                    entries.push(Entry { variable: base, options, word });
                }
            }
        }
    }
    entries
}

/// The option that a text names: `CONFIG_X` or `$(CONFIG_X)`.
fn option_in(text: &str) -> Option<&str> {
    let rest = &text[text.find("CONFIG_")? + "CONFIG_".len()..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(unit: &str, config: &str) -> Option<Finding> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("fs/Makefile", "obj-y := open.o exec.o \\\n\t\tpipe.o\nobj-$(CONFIG_XFS_FS)\t+= xfs/\n"),
            (
                "fs/xfs/Makefile",
                "obj-$(CONFIG_XFS_FS)\t\t+= xfs.o\n# this one first\nxfs-y += xfs_trace.o\n\
                 xfs-y += $(addprefix libxfs/, x.o)\nxfs-$(CONFIG_XFS_QUOTA) += xfs_dquot.o \\\n xfs_qm.o\n\
                 ifeq ($(CONFIG_MEMORY_FAILURE),y)\nxfs-$(CONFIG_FS_DAX) += xfs_notify.o\nelse\nxfs-y += other.o\nendif\n",
            ),
            ("lib/Makefile", "hostprogs := mktables\nlib-y += a.o\n"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        why_left_out(dir.path(), Path::new(unit), &Config::parse(config.as_bytes()).unwrap())
    }

    #[test]
    fn the_option_is_found_through_composites_directories_and_conditions() {
        assert_eq!(why("fs/xfs/xfs_trace.c", ""), Some(Finding::Option("XFS_FS".into())));
        assert_eq!(why("fs/xfs/xfs_qm.c", "CONFIG_XFS_FS=m\n"), Some(Finding::Option("XFS_QUOTA".into())));
        assert_eq!(
            why("fs/xfs/xfs_notify.c", "CONFIG_XFS_FS=m\nCONFIG_FS_DAX=y\n"),
            Some(Finding::Option("MEMORY_FAILURE".into()))
        );
        assert_eq!(
            why("fs/xfs/xfs_notify.c", "CONFIG_XFS_FS=m\nCONFIG_MEMORY_FAILURE=y\n"),
            Some(Finding::Option("FS_DAX".into()))
        );
        // Named in no makefile that we understand, but its directory is.
        assert_eq!(why("fs/xfs/libxfs/x.c", ""), Some(Finding::Option("XFS_FS".into())));
        assert_eq!(why("fs/xfs/other.c", "CONFIG_XFS_FS=y\n"), None);
        assert_eq!(why("fs/pipe.c", ""), None);
        assert_eq!(why("lib/mktables.c", ""), Some(Finding::HostProgram));
        assert_eq!(why("nowhere/a.c", ""), None);
    }
}
