//! Lists of objects in a makefile of kbuild, and what a patch adds to them.
//!
//! Only plain lists are understood: `proc-y += a.o b.o`, `obj-$(CONFIG_X) := c.o`. Everything else must stay as it is,
//! so that no patch can make kbuild run anything, or compile anything otherwise.

use std::collections::{BTreeMap, BTreeSet};

use bstr::ByteSlice;
use thiserror::Error;

/// A change to a makefile that is more than objects added to lists.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{problem}")]
pub struct ListError {
    /// Line of the patched makefile, from 1; of the original for what is gone.
    pub line: usize,
    /// What is wrong.
    pub problem: ListProblem,
}

/// What is wrong with a change to a makefile.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ListProblem {
    /// The statement that is new or gone is no plain list of objects.
    #[error("the patch changes more than lists of objects: {0}")]
    Other(String),
    /// An object is taken out of a list.
    #[error("the patch takes {0} out of a list of objects")]
    Removed(String),
}

/// An object that a patch adds to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The object as the makefile names it, relative to the makefile's directory.
    pub object: String,
    /// Line of the patched makefile, from 1.
    pub line: usize,
    /// What stands before the last dash of the list's name: `obj`, `lib`, or the composite object.
    pub list: String,
    /// Objects that the unpatched makefile has in that list under the same conditions.
    pub beside: Vec<String>,
}

/// A list, by all that decides whether kbuild uses it: the statements before it that are no lists (conditions among
/// them), what it is called, the option or letter after that, and the operator.
type Key<'t> = (usize, &'t str, &'t str, &'t str);

/// A makefile as far as it matters here.
#[derive(Default)]
struct Makefile<'t> {
    /// Objects by list, with the line of each.
    lists: BTreeMap<Key<'t>, Vec<(&'t str, usize)>>,
    /// All other statements, with the line where each begins.
    others: Vec<(String, usize)>,
}

/// What the patched makefile has in its lists that the original has not. An object may only go where another takes its
/// place in the same list that `renamed` says is the same one by another name (old object, new object).
pub fn added(
    original: &[u8],
    patched: &[u8],
    renamed: &dyn Fn(&str, &str) -> bool,
) -> Result<Vec<Added>, ListError> {
    let (original, patched) = (original.to_str_lossy(), patched.to_str_lossy());
    let (old_statements, new_statements) = (statements(&original), statements(&patched));
    let (old, new) = (Makefile::of(&old_statements), Makefile::of(&new_statements));
    let other =
        |(text, line): &(String, usize)| ListError { line: *line, problem: ListProblem::Other(text.clone()) };
    for (at, statement) in new.others.iter().enumerate() {
        match old.others.get(at) {
            Some((text, _)) if *text == statement.0 => {}
            Some(gone) if old.others.iter().any(|(text, _)| *text == statement.0) => return Err(other(gone)),
            _ => return Err(other(statement)),
        }
    }
    if let Some(gone) = old.others.get(new.others.len()) {
        return Err(other(gone));
    }
    for (key, objects) in &old.lists {
        let kept: BTreeSet<&str> =
            new.lists.get(key).into_iter().flatten().map(|(object, _)| *object).collect();
        let is_gone = |object: &str| !kept.contains(object) && !kept.iter().any(|new| renamed(object, new));
        if let Some((object, line)) = objects.iter().find(|(object, _)| is_gone(object)) {
            return Err(ListError { line: *line, problem: ListProblem::Removed((*object).to_owned()) });
        }
    }
    let mut added = Vec::new();
    for (key, objects) in &new.lists {
        let beside: Vec<String> =
            old.lists.get(key).into_iter().flatten().map(|(object, _)| (*object).to_owned()).collect();
        let is_old = |object: &str| beside.iter().any(|old| old == object || renamed(old, object));
        for (object, line) in objects.iter().filter(|(object, _)| !is_old(object)) {
            let (object, list) = ((*object).to_owned(), key.1.to_owned());
            added.push(Added { object, line: *line, list, beside: beside.clone() });
        }
    }
    Ok(added)
}

/// True if a statement other than a list speaks of this object: `CFLAGS_a.o`, `a.o: a.h`.
pub fn speaks_of(makefile: &[u8], object: &str) -> bool {
    let text = makefile.to_str_lossy();
    let statements = statements(&text);
    let is_whole = |text: &str, at: usize| {
        let before = text[..at].rsplit(' ').next().unwrap_or_default();
        let variable = before.ends_with('_') && before.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        before.is_empty() || variable
    };
    let others = Makefile::of(&statements).others;
    others.iter().any(|(text, _)| text.match_indices(object).any(|(at, _)| is_whole(text, at)))
}

impl<'t> Makefile<'t> {
    fn of(statements: &'t [(String, usize)]) -> Makefile<'t> {
        let mut makefile = Makefile::default();
        for (text, line) in statements {
            match list(text) {
                Some((name, condition, operator, objects)) => {
                    let key = (makefile.others.len(), name, condition, operator);
                    makefile.lists.entry(key).or_default().extend(objects.into_iter().map(|o| (o, *line)));
                }
                None => makefile.others.push((text.clone(), *line)),
            }
        }
        makefile
    }
}

/// The statements of a makefile with the line where each begins: continued lines joined, comments and blank lines
/// left out.
fn statements(text: &str) -> Vec<(String, usize)> {
    let mut statements = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let mut statement = line.to_owned();
        // In a comment too, a backslash continues the line.
        while statement.ends_with('\\') {
            statement.pop();
            let Some((_, more)) = lines.next() else { break };
            statement.push(' ');
            statement.push_str(more);
        }
        let (is_recipe, trimmed) = (statement.starts_with('\t'), statement.trim());
        if trimmed.is_empty() || trimmed.starts_with('#') && !is_recipe {
            continue;
        }
        let words: Vec<&str> = trimmed.split_ascii_whitespace().collect();
        // The tab of a recipe stays, as what a shell runs is no list.
        statements.push((format!("{}{}", if is_recipe { "\t" } else { "" }, words.join(" ")), at + 1));
    }
    statements
}

/// Name, condition, operator and objects of a plain list.
fn list(statement: &str) -> Option<(&str, &str, &str, Vec<&str>)> {
    if statement.starts_with('\t') {
        return None;
    }
    let statement = statement.split('#').next()?;
    let (left, right) = statement.split_once('=')?;
    let name_end = left.trim_end_matches(['+', ':', '?']).len();
    let (variable, operator) = (left[..name_end].trim(), &left[name_end..]);
    let (name, condition) = match variable.split_once("-$(") {
        Some((name, option)) => (name, option.strip_suffix(')')?.strip_prefix("CONFIG_")?),
        None => variable.rsplit_once('-')?,
    };
    let is_name = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let plain = matches!(condition, "y" | "m" | "objs");
    if !is_name(name, "_-.") || !is_name(condition, "_") || !plain && !variable.ends_with(')') {
        return None;
    }
    let objects: Vec<&str> = right.split_ascii_whitespace().collect();
    let is_object = |word: &&str| {
        word.strip_suffix(".o").is_some()
            && is_name(word, "_-./")
            && !word.contains("..")
            && !word.starts_with('/')
    };
    objects.iter().all(is_object).then_some((name, condition, operator, objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "# SPDX\nobj-y += proc.o\nCFLAGS_task_mmu.o += -Wno-override-init\n\
                            proc-y\t:= nommu.o \\\n\ttask_nommu.o\nproc-$(CONFIG_MMU) := task_mmu.o\n\
                            ifdef CONFIG_NET\nproc-y += net.o\nendif\n\
                            x.h: y\n\tcc $< > $@\n";

    fn change(from: &str, to: &str) -> Result<Vec<Added>, ListError> {
        assert!(MAKEFILE.contains(from), "{from}");
        let renamed = |old: &str, new: &str| (old, new) == ("net.o", "renamed.o");
        added(MAKEFILE.as_bytes(), MAKEFILE.replacen(from, to, 1).as_bytes(), &renamed)
    }

    #[test]
    fn added_objects_are_found_with_those_beside_them() {
        for (from, to, object, list, beside) in [
            ("nommu.o \\", "nommu.o new.o \\", "new.o", "proc", &["nommu.o", "task_nommu.o"][..]),
            ("ifdef", "proc-y := new.o\nifdef", "new.o", "proc", &["nommu.o", "task_nommu.o"]),
            ("net.o", "net.o \\\n sub/new.o # why", "sub/new.o", "proc", &["net.o"]),
            ("task_mmu.o\nifdef", "task_mmu.o a-b_c.o\nifdef", "a-b_c.o", "proc", &["task_mmu.o"]),
            ("proc.o", "proc.o new.o", "new.o", "obj", &["proc.o"]),
            ("ifdef", "new-$(CONFIG_X) += new.o\nifdef", "new.o", "new", &[]),
        ] {
            let found = change(from, to).unwrap();
            let [one] = found.as_slice() else { panic!("{to}: {found:?}") };
            assert_eq!((one.object.as_str(), one.list.as_str()), (object, list), "{to}");
            assert_eq!(one.beside, beside, "{to}");
        }
        assert_eq!(change("# SPDX\n", "# SPDX\n\n# More.\n").unwrap(), []);
        assert_eq!(change("net.o", "renamed.o").unwrap(), []);
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        for (from, to, line) in [
            ("obj-y += proc.o", "obj-y += proc.o\nx := $(shell touch /tmp/x)", 3),
            ("obj-y += proc.o", "obj-y += proc.o $(shell touch /tmp/x)", 2),
            ("obj-y += proc.o", "obj-y += proc.o `x`.o", 2),
            ("obj-y += proc.o", "obj-y += ../proc.o", 2),
            ("obj-y += proc.o", "obj-y += proc.o\n$(info x)", 3),
            ("-Wno-override-init", "-Werror", 3),
            ("obj-y += proc.o", "ccflags-y += -O0\nobj-y += proc.o", 2),
            ("endif\n", "", 9),
            ("ifdef CONFIG_NET", "ifdef CONFIG_NOT", 7),
            ("cc $<", "cc -x $<", 11),
            ("\tcc", "\tproc-y := a.o\n\tcc", 11),
            ("nommu.o \\", "\\", 4),
            ("proc-y += net.o", "proc-y := net.o", 8),
            ("proc-y += net.o", "proc-y += other.o", 8),
            ("proc-y += net.o\nendif", "endif\nproc-y += renamed.o", 8),
        ] {
            let error = change(from, to).unwrap_err();
            // Joined lines count from their first.
            assert_eq!(error.line, line, "{to}: {error}");
        }
    }

    #[test]
    fn statements_about_one_object_are_found() {
        for (object, found) in [("task_mmu.o", true), ("mmu.o", false), ("net.o", false), ("new.o", false)] {
            assert_eq!(speaks_of(MAKEFILE.as_bytes(), object), found, "{object}");
        }
    }

    #[test]
    fn cut_makefiles_are_no_danger() {
        for length in 0..MAKEFILE.len() {
            let _ = added(MAKEFILE.as_bytes(), &MAKEFILE.as_bytes()[..length], &|_, _| false);
            let _ = added(&MAKEFILE.as_bytes()[length..], MAKEFILE.as_bytes(), &|_, _| false);
        }
    }
}
