//! What the machine sees of an object: sections that are loaded, and the names that lead into them. Compares bytes
//! only; whatever differs, the differ judges.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::mem::Discriminant;

use bstr::ByteSlice;
use kpatch_elf::{Object, Place, Relocation, Section, Symbol};

/// True if all that is loaded, and every name that leads to it, is the same.
pub(crate) fn same_code(original: &Object<'_>, patched: &Object<'_>) -> bool {
    // Sections first: they differ soonest.
    sections(original) == sections(patched) && symbols(original) == symbols(patched)
}

/// Functions of the patched object, by their names in the source, that differ from those of the original or are new.
pub(crate) fn changed_functions(original: &Object<'_>, patched: &Object<'_>) -> BTreeSet<String> {
    let before: BTreeMap<&[u8], Loaded<'_>> =
        sections(original).into_iter().map(|section| (section.name, section)).collect();
    let differs = |section: &Section<'_>| {
        let name: &[u8] = section.name.as_ref().as_ref();
        before.get(name).is_none_or(|before| *before != loaded(patched, section))
    };
    let changed: Vec<bool> =
        patched.sections.iter().map(|section| section.is_text() && differs(section)).collect();
    let of_changed = patched.symbols.iter().filter(|symbol| {
        let section = symbol.section().and_then(|id| changed.get(id.index()));
        symbol.is_function() && section.is_some_and(|changed| *changed)
    });
    // What the compiler makes of a function has a suffix: `name.isra.0`.
    let name = |symbol: &Symbol<'_>| symbol.name.to_str_lossy().split('.').next().map(str::to_owned);
    of_changed.filter_map(name).collect()
}

/// A hash of all that [`same_code`] compares.
pub(crate) fn hash(object: &Object<'_>) -> blake3::Hash {
    let mut hash = Bytes(blake3::Hasher::new());
    sections(object).hash(&mut hash);
    symbols(object).hash(&mut hash);
    hash.0.finalize()
}

/// Takes what is hashed as bytes, with a length before each list.
struct Bytes(blake3::Hasher);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks: the hash is taken from the inside.
    fn finish(&self) -> u64 {
        0
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Loaded<'o> {
    name: &'o [u8],
    kind: (u32, u64, u64, u64),
    size: u64,
    bytes: &'o [u8],
    relocations: Vec<(u64, u32, i64, Option<Named<'o>>)>,
}

/// What a symbol is, without its number.
type Named<'o> = (&'o [u8], Discriminant<Place>, Option<&'o [u8]>, [u64; 2], [u8; 3]);

fn sections<'o>(object: &'o Object<'_>) -> Vec<Loaded<'o>> {
    let sections = object.sections.iter().filter(|section| section.is_alloc());
    sections.map(|section| loaded(object, section)).collect()
}

fn loaded<'o>(object: &'o Object<'_>, section: &'o Section<'_>) -> Loaded<'o> {
    let relocation = |relocation: Relocation| {
        let symbol = relocation.symbol.and_then(|id| object.symbols.get(id.index()));
        (relocation.offset, relocation.kind, relocation.addend, symbol.map(|symbol| named(object, symbol)))
    };
    Loaded {
        name: &section.name,
        kind: (section.kind, section.flags, section.align, section.entry_size),
        size: section.size(),
        bytes: section.bytes(),
        relocations: section.relocations.iter().map(relocation).collect(),
    }
}

fn named<'o>(object: &'o Object<'_>, symbol: &'o Symbol<'_>) -> Named<'o> {
    let section = symbol.section().and_then(|id| object.sections.get(id.index()));
    let place = section.map(|section| section.name.as_ref().as_ref());
    let kind_of_place = std::mem::discriminant(&symbol.place);
    (
        &symbol.name,
        kind_of_place,
        place,
        [symbol.value, symbol.size],
        [symbol.kind, symbol.binding, symbol.other],
    )
}

/// The symbols in their order, but for those of debug sections.
fn symbols<'o>(object: &'o Object<'_>) -> Vec<Named<'o>> {
    let of_debug = |symbol: &&Symbol<'_>| {
        symbol.section().and_then(|id| object.sections.get(id.index())).is_some_and(Section::is_debug)
    };
    object.symbols.iter().filter(|symbol| !of_debug(symbol)).map(|symbol| named(object, symbol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("a.c"), dir.path().join("a.o"));
        fs_err::write(&source, text).unwrap();
        let status = std::process::Command::new("gcc")
            .args(["-g", "-O2", "-ffunction-sections", "-fdata-sections", "-c", "-o"])
            .args([&object, &source])
            .status()
            .unwrap();
        assert!(status.success());
        fs_err::read(&object).unwrap()
    }

    #[test]
    fn only_what_the_machine_sees_counts() {
        let original = "int f(void); int g(void); static int v; int *p = &v;\n\
                        int h(void) { return f() + v; }\nchar *s(void) { return \"a\"; }\n";
        let object = compile(original);
        let same = |text: &str| {
            let other = compile(text);
            let (object, other) = (Object::read(&object).unwrap(), Object::read(&other).unwrap());
            let same = same_code(&object, &other);
            assert_eq!(hash(&object) == hash(&other), same, "{text}");
            same
        };
        assert!(same(&format!("\n\nstruct unused {{ int a; }};\n{original}")));
        for (from, to) in [
            ("return f()", "return g()"),
            ("return f() + v", "return f() + 2 * v"),
            ("\"a\"", "\"b\""),
            ("int *p = &v", "int *p = &v, q"),
            ("int h(", "int h2("),
            ("static int v", "static int v = 1"),
        ] {
            assert!(!same(&original.replace(from, to)), "{to}");
        }
        let other = compile(&original.replace("return f()", "return g()"));
        let changed = changed_functions(&Object::read(&object).unwrap(), &Object::read(&other).unwrap());
        assert_eq!(changed, ["h".to_owned()].into());
    }
}
