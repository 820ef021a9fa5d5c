//! What the names of symbols and sections say about their elements.
//!
//! Compilers number what they make: clones (`.isra.3`), static locals (`lock.12`), unnamed constants. The
//! numbers change whenever anything before them does, so names are compared by their base.

use bstr::{BStr, BString, ByteSlice};

/// A name without the numbers that a compiler or the preprocessor's counter gave it.
///
/// `foo.isra.3.cold.12` becomes `foo.isra.cold`; `lock.7` becomes `lock.`; `foo.llvm.123456` becomes
/// `foo.llvm`; `__UNIQUE_ID_ddebug345.6` becomes `__UNIQUE_ID_ddebug.`.
pub(crate) fn base(name: &BStr) -> BString {
    let mut parts = name.split(|&b| b == b'.');
    let head = parts.next().unwrap_or_default();
    let mut out: BString = Vec::with_capacity(name.len()).into();
    push_head(head, &mut out);
    let mut numbered = false;
    let mut worded = false;
    for part in parts {
        if !part.is_empty() && part.iter().all(u8::is_ascii_digit) {
            numbered = true;
        } else {
            worded = true;
            out.push(b'.');
            out.extend_from_slice(part);
        }
    }
    // A clone's name tells by its words that it is one; a static local's only by the dot.
    if numbered && !worded {
        out.push(b'.');
    }
    out
}

/// Adds the part before the first dot, without the value of the preprocessor's `__COUNTER__` where the kernel's
/// macros put it.
fn push_head(head: &[u8], out: &mut Vec<u8>) {
    if !is_counted(head) {
        out.extend_from_slice(head);
        return;
    }
    // `__initcall__kmod_foo__12_345_foo_init7` holds counter and line inside.
    for (index, piece) in head.split(|&b| b == b'_').enumerate() {
        if index > 0 {
            out.push(b'_');
        }
        let inner = !piece.is_empty() && piece.iter().all(u8::is_ascii_digit);
        if !inner {
            out.extend_from_slice(piece);
        }
    }
    while out.last().is_some_and(u8::is_ascii_digit) {
        out.pop();
    }
}

/// True if the kernel's macros put the value of the preprocessor's `__COUNTER__` into names that begin so.
fn is_counted(head: &[u8]) -> bool {
    const COUNTED: [&[u8]; 5] =
        [b"__UNIQUE_ID_", b"__BTF_ID__", b"__ADDRESSABLE_", b"__kpatch_ignore_", b"__initcall__"];
    // All of them begin with underscores or hold several in a row; most names do not.
    COUNTED.iter().any(|prefix| head.starts_with(prefix)) || contains(head, b"__addressable_")
}

/// A name for people. Formatting would look at its bytes one by one.
pub(crate) fn text(name: &BStr) -> String {
    name.to_str_lossy().into_owned()
}

/// True if the compiler made up a part of the name, so that equal bases need not mean the same element.
pub(crate) fn is_numbered(name: &BStr) -> bool {
    (name.contains(&b'.') || is_counted(name)) && base(name) != name
}

/// Whether a short text holds another; without the preparation of a general search, which costs more than
/// the search itself for names.
pub(crate) fn contains<const N: usize>(text: &[u8], wanted: &[u8; N]) -> bool {
    text.array_windows::<N>().any(|window| window == wanted)
}

/// The source-level function behind a clone's or child's name: everything before the first dot.
pub(crate) fn root(name: &BStr) -> &BStr {
    name.split(|&b| b == b'.').next().unwrap_or_default().as_bstr()
}

/// For a function that the compiler split off for cold paths, the name of the function it belongs to.
///
/// Only a `.cold` part of the suffix counts; a function may well be called `thing.cold_start`.
pub(crate) fn cold_parent(name: &BStr) -> Option<&BStr> {
    let dots = name.iter().enumerate().skip(1).filter(|(_, b)| **b == b'.').map(|(at, _)| at);
    for at in dots {
        let part = name[at + 1..].split(|&b| b == b'.').next().unwrap_or_default();
        if part == b"cold" {
            return Some(name[..at].as_bstr());
        }
    }
    None
}

/// Symbols before a function that describe it and are no functions themselves.
pub(crate) fn is_prefix_symbol(name: &BStr) -> bool {
    name.starts_with(b"__pfx_") || name.starts_with(b"__cfi_")
}

/// What is special about a static datum that the kernel's macros or the compiler create per use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// State of one call site (once flags, lock classes, rate limits): every version has its own.
    Site,
    /// A constant: what counts is what it holds.
    Constant,
}

/// Whether a local datum is one that no version shares with another.
pub(crate) fn special_static(name: &BStr, section: &BStr) -> Option<Special> {
    const SITES: [&[u8]; 6] = [b"__key", b"__warned", b"__already_done", b"_rs", b"_entry", b"_entry_ptr"];
    const CONSTANTS: [&[u8]; 4] = [b"__func__", b"__FUNCTION__", b"__PRETTY_FUNCTION__", b"CSWTCH"];
    if matches!(
        section.as_bytes(),
        b"__verbose" | b"__dyndbg" | b".data.once" | b".data..once" | b".data.unlikely" | b".data..unlikely"
    ) {
        return Some(Special::Site);
    }
    let mut parts = name.split(|&b| b == b'.');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    if rest.is_empty() {
        return None;
    }
    // gcc writes `__key.12`, clang `function.__key.12`.
    let has = |names: &[&[u8]]| names.iter().any(|n| *n == first || rest.contains(n));
    if has(&SITES) {
        Some(Special::Site)
    } else if has(&CONSTANTS) {
        Some(Special::Constant)
    } else {
        None
    }
}

/// Data of the undefined-behaviour sanitizer: locations and types for its messages.
pub(crate) fn is_sanitizer_data(section: &BStr) -> bool {
    let section = section.as_bytes();
    let name = [b".data.rel.local.".as_slice(), b".data.rel.ro.local.", b".data.", b".rodata.", b""]
        .iter()
        .find_map(|prefix| section.strip_prefix(*prefix))
        .unwrap_or(section);
    name.starts_with(b".Lubsan_") || name.starts_with(b".L__ubsan")
}

/// Data that clang names by number only.
pub(crate) fn is_clang_unnamed(section: &BStr) -> bool {
    section.starts_with(b".data..L__unnamed_") || section.starts_with(b".data.__unnamed_")
}

/// Code and data that the kernel frees or may free after start.
pub(crate) fn is_discarded_after_init(section: &BStr) -> bool {
    // Asked for every element, most of which are in `.text`, `.data`, `.rodata` or `__bug_table`.
    if section.starts_with(b".text") || !section.starts_with(b".") {
        return false;
    }
    [&b".init."[..], b".exit.", b".meminit.", b".memexit.", b".devinit.", b".cpuinit.", b".head.text"]
        .iter()
        .any(|prefix| section.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_drop_numbers_only() {
        for (name, expected) in [
            ("foo", "foo"),
            ("foo.isra.3.cold.12", "foo.isra.cold"),
            ("foo.isra.3.cold", "foo.isra.cold"),
            ("lock.7", "lock."),
            ("foo2", "foo2"),
            ("__UNIQUE_ID_ddebug345.6", "__UNIQUE_ID_ddebug."),
            ("__UNIQUE_ID___addressable_foo12", "__UNIQUE_ID___addressable_foo"),
            ("__initcall__kmod_foo__12_345_foo_init7", "__initcall__kmod_foo____foo_init"),
            ("x.llvm.1234567", "x.llvm"),
            ("__BTF_ID__func__bpf_get__123", "__BTF_ID__func__bpf_get__"),
        ] {
            assert_eq!(base(name.into()), expected, "{name}");
        }
        assert!(is_numbered("lock.7".into()));
        assert!(!is_numbered("lock7".into()));
    }

    #[test]
    fn cold_children_name_their_parent() {
        assert_eq!(cold_parent("foo.cold".into()), Some("foo".into()));
        assert_eq!(cold_parent("foo.isra.0.cold.3".into()), Some("foo.isra.0".into()));
        assert_eq!(cold_parent("foo.coldish".into()), None);
        assert_eq!(cold_parent(".cold".into()), None);
    }

    #[test]
    fn special_statics_are_recognised_in_both_compilers_spellings() {
        let data = ".data.x".into();
        assert_eq!(special_static("__key.1".into(), data), Some(Special::Site));
        assert_eq!(special_static("init.__key.1".into(), data), Some(Special::Site));
        assert_eq!(special_static("CSWTCH.12".into(), data), Some(Special::Constant));
        assert_eq!(special_static("__key".into(), data), None, "a file-level variable of that name");
        assert_eq!(special_static("lock.1".into(), data), None);
        assert_eq!(special_static("anything".into(), ".data..once".into()), Some(Special::Site));
    }

    #[test]
    fn sanitizer_data_is_recognised_in_every_section_spelling() {
        for name in [".data..Lubsan_data1", ".data.rel.local..Lubsan_data3", ".rodata..Lubsan_type0"] {
            assert!(is_sanitizer_data(name.into()), "{name}");
        }
        assert!(!is_sanitizer_data(".data.ubsan".into()));
    }
}
