//! Source files that patches add to an object of the kernel: which object, and how they are compiled.
//!
//! kbuild is not asked: its makefiles are those of the running kernel. A patch may add objects to plain lists and
//! nothing else (`kbuild::units::added`), so a new unit belongs to the object that its neighbours in the list are in,
//! and is compiled as they are.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kbuild::units::{self, Added, Unpatchable};

use super::unit::{self, Kernel, Unit, error};
use crate::error::Error;
use crate::patch::{FileKind, Patched};

/// Neighbours that are asked for before a new unit is given up; each costs a question to kbuild.
const NEIGHBOURS: usize = 4;

/// The new units, and what is wrong with the makefiles that the patches touch.
pub fn run(patched: &Patched, kernel: &Kernel<'_>) -> Result<Vec<Unit>, Vec<Error>> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let mut followed = BTreeSet::new();
    for makefile in patched.of_kind(FileKind::Makefile) {
        match of_makefile(makefile, patched, kernel, &mut followed) {
            Ok(units) => found.extend(units),
            Err(more) => errors.extend(more),
        }
    }
    let lost = patched.renamed.iter().filter(|(old, _)| errors.is_empty() && !followed.contains(*old));
    let lost: Vec<Error> = lost
        .map(|(old, new)| {
            let message = format!("the patch renames the file to {}, and no makefile says so", new.display());
            error("deleted-unit", message)
                .file(old)
                .remedy("leave the renaming out of the live patch, or add the change of the makefile")
        })
        .collect();
    errors.extend(lost);
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// The units that a makefile's change adds; renamed files that it follows go to `followed` by their old names.
fn of_makefile(
    makefile: &Path,
    patched: &Patched,
    kernel: &Kernel<'_>,
    followed: &mut BTreeSet<PathBuf>,
) -> Result<Vec<Unit>, Vec<Error>> {
    let remedy =
        "leave it out of the live patch: a makefile may only add objects of new files to lists of objects";
    let refused =
        |problem: &dyn std::fmt::Display| error("build-description", problem).file(makefile).remedy(remedy);
    let touched = patched.touched.get(makefile);
    let (Some(Some(text)), false) =
        (patched.files.get(makefile), touched.is_none_or(|touched| touched.created))
    else {
        return Err(vec![refused(&"the patch creates or deletes a makefile")]);
    };
    let path = kernel.tree.source().join(makefile);
    let original =
        fs_err::read(&path).map_err(|e| vec![Error::io(crate::phase::Phase::Plan, "read", &path)(e)])?;
    let line = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    // Its makefile must say of a renamed file that it takes the old one's place.
    let seen = RefCell::new(followed);
    let renamed = |old: &str, new: &str| {
        let [old, new] = [old, new].map(|object| relative_to(makefile, object).with_extension("c"));
        let same = patched.renamed.get(&old) == Some(&new);
        if same {
            seen.borrow_mut().insert(old);
        }
        same
    };
    let added = units::added(&original, text, &renamed).map_err(|e| vec![refused(&e).line(line(e.line))])?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for added in added {
        let object = relative_to(makefile, &added.object);
        let source = object.with_extension("c");
        let is_new = patched.touched.get(&source).is_some_and(|touched| touched.created);
        if !is_new || patched.files.get(&source).is_none_or(Option::is_none) {
            let message = format!(
                "{} is added to an object, but the patch creates no {}",
                added.object,
                source.display()
            );
            errors.push(refused(&message).line(line(added.line)));
            continue;
        }
        if units::speaks_of(text, &added.object) {
            let message = format!("the makefile has rules or options for {} alone", added.object);
            errors.push(refused(&message).line(line(added.line)));
            continue;
        }
        match unit(&source, &object, makefile, &original, &added, kernel) {
            Ok(unit) => found.push(unit),
            Err(error) => errors.push(error.line(line(added.line))),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// The unit, made from the first neighbour that says where it belongs.
fn unit(
    source: &Path,
    object: &Path,
    makefile: &Path,
    original: &[u8],
    added: &Added,
    kernel: &Kernel<'_>,
) -> Result<Unit, Error> {
    let unknown = |cause: String| {
        error("new-unit", format!("what {} would be part of cannot be told", source.display()))
            .file(makefile)
            .cause(cause)
            .remedy("add it to a list that has objects already, or put the new functions into a file that the kernel has")
    };
    // Options for one object are no options for another.
    let neighbours = added.beside.iter().filter(|object| !units::speaks_of(original, object));
    let neighbours = neighbours.map(|object| relative_to(makefile, object).with_extension("c"));
    let neighbours: Vec<PathBuf> =
        neighbours.filter(|source| kernel.tree.source().join(source).is_file()).take(NEIGHBOURS).collect();
    let located = unit::locate(kernel, &neighbours)?;
    let mut reason = None;
    for neighbour in &neighbours {
        match located.get(neighbour) {
            Some(Ok(found)) => {
                let neighbour = unit::planned(neighbour, found, false)?;
                // Not all of its lists need to have the new one.
                if !neighbour.also.is_empty() {
                    let owners: Vec<&str> = neighbour.owners().collect();
                    reason = Some(format!("{} are made of it", owners.join(" and ")));
                    continue;
                }
                if neighbour.compile.is_module()
                    && neighbour.compile.modname() == neighbour.compile.basename()
                {
                    return Err(error(
                        "new-module",
                        format!("{} would be a module of its own", source.display()),
                    )
                    .file(makefile)
                    .remedy("build it as a module: only code that is loaded already can be patched"));
                }
                let compile = neighbour.compile.for_neighbour(&kernel.tree.source().join(source), object);
                let (source, object) = (source.to_owned(), object.to_owned());
                return Ok(Unit {
                    spelled: source.clone(),
                    source,
                    object,
                    compile,
                    created: true,
                    ..neighbour
                });
            }
            Some(Err(why)) if !matches!(why, Unpatchable::NotConfigured { .. }) => {
                return Err(unit::unpatchable(source, why));
            }
            Some(Err(why)) => reason = Some(why.to_string()),
            None => {}
        }
    }
    Err(unknown(match reason {
        Some(reason) => format!("{}, which the list has beside it: {reason}", added.beside.join(", ")),
        None if added.beside.is_empty() => {
            format!("the kernel's own {} has no such list", makefile.display())
        }
        None => {
            "the list has no object that is compiled from C with the makefile's common options".to_owned()
        }
    }))
}

/// The path of an object that a makefile names, below the object tree.
fn relative_to(makefile: &Path, object: &str) -> PathBuf {
    makefile.parent().unwrap_or(Path::new("")).join(object)
}
