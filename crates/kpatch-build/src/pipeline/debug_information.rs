//! How much debug information a patch calls for.

use bstr::ByteSlice;

use crate::patch::{FileKind, FilePatch, PatchFile, Patched};

/// How much the objects that are compared tell a debugger. It never changes code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugInformation {
    /// Functions and lines: all that messages need.
    Lines,
    /// Types as well, for a patch that may change the layout of a structure.
    Full,
}

impl DebugInformation {
    /// What the patches call for: types where they touch a header, or lines in a structure's definition.
    pub fn for_patch(patched: &Patched, patches: &[PatchFile]) -> DebugInformation {
        let in_structure = |file: &FilePatch| {
            let content = file.paths().find_map(|path| patched.files.get(path)?.as_deref());
            file.hunks.iter().any(|hunk| {
                hunk.lines.iter().any(|line| begins_structure(&line.text))
                    || content.is_some_and(|content| is_in_structure(content, hunk.new_start))
            })
        };
        let mut files = patches.iter().flat_map(|patch| &patch.files);
        if patched.of_kind(FileKind::Header).next().is_some() || files.any(in_structure) {
            DebugInformation::Full
        } else {
            DebugInformation::Lines
        }
    }

    pub(super) fn option(self) -> &'static str {
        match self {
            DebugInformation::Lines => "-g1",
            DebugInformation::Full => "-g",
        }
    }
}

/// True for `struct name {`, `static union {` and the like.
fn begins_structure(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let is_type = |word: &[u8]| matches!(word, b"struct" | b"union" | b"enum");
    line.ends_with(b"{")
        && !line.contains(&b'(')
        && !line.contains(&b'=')
        && line.split(|&byte| byte == b' ' || byte == b'\t').any(is_type)
}

/// True if the last line above `line` (from 1) that starts without blanks begins a structure.
fn is_in_structure(content: &[u8], line: u64) -> bool {
    let above = usize::try_from(line).unwrap_or(usize::MAX);
    let last =
        content.lines().take(above).filter(|l| l.first().is_some_and(|b| !b.is_ascii_whitespace())).last();
    last.is_some_and(begins_structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_told_from_variables_and_functions() {
        for line in ["struct a {\n", "\tunion {", "typedef struct x {", "enum e {"] {
            assert!(begins_structure(line.as_bytes()), "{line}");
        }
        for line in ["struct a b = {", "struct a *f(struct b *c) {", "struct a *p;", "\tif (x) {", "{"] {
            assert!(!begins_structure(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_hunk_in_the_middle_of_a_structure_is_seen() {
        let content = b"struct a {\n\tint b;\n\n\tint c;\n};\nint f(void)\n{\n\tint d;\n}\n";
        let inside: Vec<u64> = (0..12).filter(|&line| is_in_structure(content, line)).collect();
        assert_eq!(inside, [1, 2, 3, 4]);
    }
}
