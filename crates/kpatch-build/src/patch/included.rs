//! New sources that others include and no makefile knows: headers in all but name.

use std::path::{Path, PathBuf};

use bstr::ByteSlice;

use super::{FileKind, Patched};
use crate::mentions;

/// Takes new C files for headers where a file of the patches includes one of that name, and no makefile of theirs makes
/// an object of it.
pub(super) fn follow(mut patched: Patched) -> Patched {
    let new: Vec<PathBuf> = patched
        .of_kind(FileKind::Source)
        .filter(|path| patched.touched.get(*path).is_some_and(|touched| touched.created))
        .filter(|path| is_included(&patched, path) && !is_compiled(&patched, path))
        .map(Path::to_owned)
        .collect();
    for path in new {
        if let Some(touched) = patched.touched.get_mut(&path) {
            touched.kind = FileKind::Header;
        }
    }
    patched
}

fn is_included(patched: &Patched, source: &Path) -> bool {
    let Some(name) = source.file_name().and_then(|name| name.to_str()) else { return false };
    let is_it = |target: &str| target.trim_matches(['"', '<', '>', ' ']).rsplit('/').next() == Some(name);
    let others = patched.files.iter().filter(|(path, _)| *path != source);
    let texts = others.filter_map(|(_, text)| text.as_deref()).filter(|text| text.contains_str(name));
    let mut includes = texts.flat_map(|text| mentions::scan(text, []).includes);
    includes.any(|include| is_it(&include))
}

fn is_compiled(patched: &Patched, source: &Path) -> bool {
    let object = source.with_extension("o");
    let Some(object) = object.file_name().and_then(|name| name.to_str()) else { return true };
    let makefiles =
        patched.of_kind(FileKind::Makefile).filter_map(|path| patched.files.get(path)?.as_deref());
    makefiles.into_iter().any(|text| text.contains_str(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::Touched;

    fn kind(others: &[(&str, &str)]) -> FileKind {
        let mut patched = Patched::default();
        for (path, text) in others.iter().copied().chain([("fs/part.c", "int part;\n")]) {
            let kind = super::super::classify(Path::new(path));
            let created = path == "fs/part.c";
            patched.files.insert(path.into(), Some(text.into()));
            patched.touched.insert(path.into(), Touched { kind, created, lines: Vec::new() });
        }
        follow(patched).touched[Path::new("fs/part.c")].kind
    }

    #[test]
    fn a_new_source_is_a_header_where_it_is_only_included() {
        let makefile = ("fs/Makefile", "obj-y += open.o part.o\n");
        for name in ["\"part.c\"", "\"../fs/part.c\"", "<fs/part.c>"] {
            let open = format!("int a;\n#include {name}\n");
            assert_eq!(kind(&[("fs/open.c", &open)]), FileKind::Header, "{name}");
            assert_eq!(kind(&[("fs/open.c", &open), makefile]), FileKind::Source, "{name}");
        }
        for text in ["#include \"other_part.c\"\n", "int b; /* part.c */\n"] {
            assert_eq!(kind(&[("fs/open.c", text)]), FileKind::Source, "{text}");
        }
        assert_eq!(kind(&[makefile]), FileKind::Source);
    }
}
