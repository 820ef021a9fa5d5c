//! Structures of the original against those of the patched unit.
//!
//! Objects that live when a patch is applied keep the layout they were made with, and code that is not patched goes
//! on using it. So a structure that changes its size, or whose members move or change their types, is hardly ever
//! what a live patch can bring; a new member where there was nothing is told apart, since its author may know that
//! nobody reads it unset.

mod dwarf;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

pub use dwarf::{LayoutError, Types};

/// A structure or union.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes.
    pub size: u64,
    /// Members by name, those of nested structures as `outer.inner`.
    pub members: BTreeMap<String, Member>,
    /// Where it is declared. It says nothing about objects.
    pub place: Option<Place>,
}

/// A line of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the debug information names it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it begins, bits from the start of the structure.
    pub offset: u64,
    /// How long it is, bits; 0 for an array without a length.
    pub size: u64,
    /// Its type as C writes it.
    pub kind: String,
    /// Its type as far as objects are concerned: integers by size and sign, without `const` and `volatile`.
    pub form: String,
}

impl Member {
    /// True if an object made with one serves as well with the other. A pointer to nothing in particular may become one
    /// to something, and the other way round.
    fn is_like(&self, other: &Member) -> bool {
        let forms = [&self.form, &other.form];
        let pointers =
            forms.iter().all(|form| form.ends_with('*')) && forms.iter().any(|form| **form == "void *");
        (self.offset, self.size) == (other.offset, other.size) && (self.form == other.form || pointers)
    }
}

impl Layout {
    fn is_like(&self, other: &Layout) -> bool {
        let pairs = self.members.iter().zip(&other.members);
        self.size == other.size
            && self.members.len() == other.members.len()
            && pairs.into_iter().all(|((name, was), (other, is))| name == other && was.is_like(is))
    }
}

/// What became of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// New, where the original has padding.
    InHole(u64),
    /// New, after all that the original has.
    AtEnd(u64),
    /// New, where others were.
    Inserted(u64),
    /// It is no more.
    Removed,
    /// It begins elsewhere; both are bits.
    Moved(u64, u64),
    /// It is of another type.
    Retyped(String, String),
    /// Its type has the same name, but another size; both are bits.
    Resized(u64, u64),
}

/// A structure that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutChange {
    /// Its name with `struct` or `union`.
    pub name: String,
    /// Bytes before and after.
    pub size: (u64, u64),
    /// Members that changed, by name.
    pub members: Vec<(String, MemberChange)>,
    /// Where the patched structure is declared.
    pub place: Option<Place>,
}

impl LayoutChange {
    /// True if all that is old stays where it was.
    pub fn only_adds(&self) -> bool {
        self.members
            .iter()
            .all(|(_, change)| matches!(change, MemberChange::InHole(_) | MemberChange::AtEnd(_)))
    }
}

/// The structures that both have and that differ, by name. Those that live on stacks only, in both versions, do not
/// count: a task whose stack has one runs the old code until that is over.
pub fn changes(original: &Types, patched: &Types) -> Vec<LayoutChange> {
    let both =
        original.layouts.iter().filter_map(|(name, old)| Some((name, old, patched.layouts.get(name)?)));
    let passes = |name: &str| original.automatic.contains(name) && patched.automatic.contains(name);
    let is_like = |old: &Layout, new: &Layout| {
        old.is_like(new)
            || old.size == new.size && leaves(original, old).is_some_and(|l| leaves(patched, new) == Some(l))
    };
    both.filter(|(name, old, new)| !is_like(old, new) && !passes(name))
        .map(|(name, old, new)| compare(name, old, new))
        .collect()
}

/// A member that is no structure: bits from the start, bits, form, and its own name.
type Leaf<'t> = (u64, u64, &'t str, &'t str);

/// More leaves than any real structure has, and structures in structures deeper than any are.
const MOST_LEAVES: usize = 100_000;
const MOST_NESTED: usize = 32;

/// What an object of a structure consists of, however it is divided into structures: a member is the same whether it
/// stands in a structure of its own or directly where that was. `None` where it cannot be told.
fn leaves<'t>(types: &'t Types, layout: &'t Layout) -> Option<BTreeSet<Leaf<'t>>> {
    let mut leaves = BTreeSet::new();
    let mut open = vec![(0u64, layout, MOST_NESTED)];
    let mut visited = 0usize;
    while let Some((base, layout, depth)) = open.pop() {
        let deeper = depth.checked_sub(1)?;
        visited += layout.members.len();
        if visited > MOST_LEAVES {
            return None;
        }
        for (name, member) in &layout.members {
            let offset = base.saturating_add(member.offset);
            if let Some(nested) = types.layouts.get(&member.form) {
                open.push((offset, nested, deeper));
            } else {
                let own = name.rsplit('.').next().unwrap_or_default();
                leaves.insert((offset, member.size, member.form.as_str(), own));
            }
        }
    }
    Some(leaves)
}

/// The functions, of those named, that use a structure.
pub fn users(types: &Types, structure: &str, functions: &BTreeSet<String>) -> Vec<String> {
    let uses = |name: &&String| types.functions.get(*name).is_some_and(|used| used.contains(structure));
    functions.iter().filter(uses).cloned().collect()
}

fn compare(name: &str, old: &Layout, new: &Layout) -> LayoutChange {
    let mut members = Vec::new();
    for (member, was) in &old.members {
        match new.members.get(member) {
            None => members.push((member.clone(), MemberChange::Removed)),
            Some(is) => {
                if was.offset != is.offset {
                    members.push((member.clone(), MemberChange::Moved(was.offset, is.offset)));
                }
                if was.form != is.form && !(Member { offset: is.offset, ..was.clone() }).is_like(is) {
                    let change = MemberChange::Retyped(was.kind.clone(), is.kind.clone());
                    members.push((member.clone(), change));
                } else if was.size != is.size {
                    members.push((member.clone(), MemberChange::Resized(was.size, is.size)));
                }
            }
        }
    }
    for (member, is) in new.members.iter().filter(|(member, _)| !old.members.contains_key(*member)) {
        let overlaps = |was: &Member| was.offset < is.offset + is.size && is.offset < was.offset + was.size;
        let change = if is.offset >= old.size * 8 {
            MemberChange::AtEnd(is.offset)
        } else if old.members.values().any(overlaps) {
            MemberChange::Inserted(is.offset)
        } else {
            MemberChange::InHole(is.offset)
        };
        members.push((member.clone(), change));
    }
    let place = new.place.clone();
    LayoutChange { name: name.to_owned(), size: (old.size, new.size), members, place }
}

/// An offset in bits as people write it: `8`, or `8:3` for a bit field.
struct Offset(u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 8 {
            0 => write!(f, "{}", self.0 / 8),
            bit => write!(f, "{}:{bit}", self.0 / 8),
        }
    }
}

impl fmt::Display for MemberChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberChange::InHole(at) => write!(f, "is new, in a hole at {}", Offset(*at)),
            MemberChange::AtEnd(at) => write!(f, "is new, at the end at {}", Offset(*at)),
            MemberChange::Inserted(at) => write!(f, "is new, at {}", Offset(*at)),
            MemberChange::Removed => f.write_str("is gone"),
            MemberChange::Moved(from, to) => write!(f, "moves from {} to {}", Offset(*from), Offset(*to)),
            MemberChange::Resized(from, to) => {
                write!(f, "takes {} bytes instead of {}", Offset(*to), Offset(*from))
            }
            MemberChange::Retyped(from, to) => write!(f, "was `{from}`, is `{to}`"),
        }
    }
}

/// Members that a message names; the others are counted.
const NAMED: usize = 8;

impl fmt::Display for LayoutChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = self.size;
        if old == new {
            write!(f, "{new} bytes")?;
        } else {
            write!(f, "{old} bytes before, {new} after")?;
        }
        for (name, change) in self.members.iter().take(NAMED) {
            write!(f, "; {name} {change}")?;
        }
        if self.members.len() > NAMED {
            write!(f, "; and {} more", self.members.len() - NAMED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "struct leaf { int a; };\n\
        struct s { char c; int i; struct { long x, y; } in; union { int u; char v; }; struct leaf l; \
          unsigned b : 3; long (*f)(struct s *); short arr[3]; const char *p; };\n\
        struct same { struct s *s; struct same *next; };\n\
        typedef struct { int t; } named;\n\
        int use(struct s *s, struct same *o, named *n) { return s->i + o->s->in.x + n->t; }\n\
        int other(struct leaf *l) { return l->a; }\n";

    fn types(text: &str, options: &[&str]) -> Types {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("a.c"), dir.path().join("a.o"));
        fs_err::write(&source, text).unwrap();
        let status = std::process::Command::new("gcc")
            .args(["-g", "-O1", "-c", "-gz=none", "-o"])
            .args([&object, &source])
            .args(options)
            .status()
            .unwrap();
        assert!(status.success());
        Types::of(&fs_err::read(&object).unwrap()).unwrap()
    }

    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(ORIGINAL.contains(from), "{from}");
        let text = ORIGINAL.replace(from, to);
        let found = ["-gdwarf-4", "-gdwarf-5"].map(|version| {
            let (original, patched) = (types(ORIGINAL, &[version]), types(&text, &[version]));
            changes(&original, &patched).iter().map(|c| format!("{}: {c}", c.name)).collect::<Vec<_>>()
        });
        assert_eq!(found[0], found[1], "both versions of DWARF say the same");
        found[0].clone()
    }

    #[test]
    fn what_moved_is_told_from_what_is_new() {
        assert_eq!(changed("char c;", "char c, d;"), ["struct s: 64 bytes; d is new, in a hole at 1"]);
        assert_eq!(
            changed("const char *p;", "const char *p; int e;"),
            ["struct s: 64 bytes before, 72 after; e is new, at the end at 64"]
        );
        assert_eq!(
            changed("long x, y", "long z, x, y"),
            [
                "struct s: 64 bytes before, 72 after; arr moves from 48 to 56; b moves from 32 to 40; f moves from 40 to 48; \
              in.x moves from 8 to 16; in.y moves from 16 to 24; l moves from 28 to 36; p moves from 56 to 64; \
              u moves from 24 to 32; and 2 more"
            ]
        );
        assert_eq!(
            changed("unsigned b : 3", "unsigned b : 4"),
            ["struct s: 64 bytes; b was `unsigned int : 3`, is `unsigned int : 4`"]
        );
        assert_eq!(
            changed("int a; }", "unsigned a; }"),
            ["struct leaf: 4 bytes; a was `int`, is `unsigned int`"]
        );
        assert_eq!(changed("int t;", "int t, w;").len(), 1);
        assert_eq!(
            changed("struct leaf { int a;", "struct leaf { int a, b;").last().map(String::as_str),
            Some("struct s: 64 bytes; b moves from 32 to 36; l takes 8 bytes instead of 4")
        );
        assert_eq!(changed("short arr[3]", "short arr[2]").len(), 1);
        assert_eq!(changed("const char *p", "const struct s *p").len(), 1);
        assert_eq!(changed("return s->i", "return 1 + s->i"), [""; 0]);
    }

    #[test]
    fn other_words_for_the_same_type_are_none() {
        let text = "typedef unsigned long long u64; typedef unsigned int __u32; typedef __u32 __be32;\n\
            struct s { unsigned long a; unsigned b; const char *c; volatile int d; u64 *e; long f; __u32 g[2]; };\n\
            int use(struct s *s) { return s->d; }\n";
        let kinds = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            changes(&types(text, &[]), &types(&text.replace(from, to), &[])).len()
        };
        assert_eq!(kinds("unsigned long a", "u64 a"), 0);
        assert_eq!(kinds("unsigned b", "__u32 b"), 0);
        assert_eq!(kinds("const char *c", "char *const c"), 0);
        assert_eq!(kinds("volatile int d", "int d"), 0);
        assert_eq!(kinds("u64 *e", "unsigned long *e"), 0);
        assert_eq!(kinds("__u32 g[2]", "unsigned g[2]"), 0);
        assert_eq!(kinds("u64 *e", "void *e"), 0);
        // The same bytes, but they mean something else.
        assert_eq!(kinds("u64 *e", "int *e"), 1);
        assert_eq!(kinds("unsigned b", "__be32 b"), 1);
        assert_eq!(kinds("long f", "unsigned long f"), 1);
        assert_eq!(kinds("long f", "void *f"), 1);
        assert_eq!(kinds("unsigned b", "float b"), 1);
    }

    #[test]
    fn how_members_are_grouped_is_no_change() {
        let text = "struct host; struct core { struct host *host; };\n\
            struct ha { int a; struct core core; struct { long x, y; } pair; };\n\
            long use(struct ha *ha) { return ha->a + ha->pair.x; }\n";
        let kinds = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            changes(&types(text, &[]), &types(&text.replace(from, to), &[])).len()
        };
        assert_eq!(kinds("struct core core", "struct host *host"), 0);
        assert_eq!(kinds("struct { long x, y; } pair", "struct { struct { long x; }; long y; } pair"), 0);
        assert_eq!(kinds("struct core core", "struct host *other"), 1);
        assert_eq!(kinds("struct core core", "struct ha *host"), 1);
        assert_eq!(kinds("int a; struct core core", "struct core core; int a"), 1);
        // What is in it changes as well.
        assert_eq!(
            kinds("struct core { struct host *host; }", "struct core { struct host *host; int b; }"),
            2
        );
    }

    /// A structure of the source itself, and what else there is of it.
    fn private(more: &str, calls: &str) -> usize {
        let text = |member: &str| {
            format!(
                "struct walk {{ int a; {member} }}; struct up; void *alloc(unsigned long); void done(void *);\n\
                 {more}\n\
                 static __attribute__((noinline)) int step(struct walk *w, int by) {{ return w->a += by; }}\n\
                 int run(struct up *up) {{ struct walk w = {{ 1 }}; {calls}; done(&w); return step(&w, 2); }}\n"
            )
        };
        let found = ["-gdwarf-4", "-gdwarf-5"].map(|version| {
            changes(&types(&text(""), &[version]), &types(&text("long b;"), &[version])).len()
        });
        assert_eq!(found[0], found[1], "both versions of DWARF say the same");
        found[0]
    }

    #[test]
    fn structures_on_stacks_may_change() {
        assert_eq!(private("", ""), 0);
        assert_eq!(private("int two(struct walk (*w)[2]) { return (*w)[1].a; }", ""), 0);
        // Where it may live longer, it may not.
        assert_eq!(private("struct up { struct walk *w; };", "up->w = &w"), 1);
        assert_eq!(private("struct up { struct walk w[3]; };", "done(up->w)"), 2);
        assert_eq!(private("struct walk one;", ""), 1);
        assert_eq!(private("", "static struct walk kept; done(&kept)"), 1);
        assert_eq!(private("", "struct walk *more = alloc(sizeof(*more)); done(more)"), 1);
        assert_eq!(private("struct walk *get(void) { return alloc(sizeof(struct walk)); }", ""), 1);
    }

    #[test]
    fn structures_of_headers_are_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("x.h"), "struct walk { int a; };").unwrap();
        let include = format!("-I{}", dir.path().display());
        let text = "#include \"x.h\"\nint step(struct walk *w) { return w->a; }\n\
                    int run(void) { struct walk w = { 1 }; return step(&w); }\n";
        let found = types(text, &[&include]);
        assert!(found.automatic.is_empty(), "{:?}", found.automatic);
        let own = types(&text.replace("#include \"x.h\"", "struct walk { int a; };"), &[]);
        assert!(own.automatic.contains("struct walk"));
    }

    #[test]
    fn data_are_found_where_they_are_declared() {
        let text = "extern int one; static const char *own = \"a\";\nint one = 1;\n\
            int use(void) { static int kept\n = 2; own++; return kept++ + one; }\n\
            int more(void) { static int twice; return twice++; }\n\
            int again(void) { static int twice; return twice++; }\n";
        for version in ["-gdwarf-4", "-gdwarf-5"] {
            let data = types(text, &[version]).data;
            let lines: Vec<(&str, u32)> =
                data.iter().map(|(name, place)| (name.as_str(), place.line)).collect();
            assert_eq!(lines, [("kept", 3), ("one", 2), ("own", 1)]);
        }
    }

    #[test]
    fn only_additions_are_additions() {
        let (original, more) = (types(ORIGINAL, &[]), types(&ORIGINAL.replace("char c;", "char c, d;"), &[]));
        assert!(changes(&original, &more)[0].only_adds());
        let moved = types(&ORIGINAL.replace("char c;", "long before; char c;"), &[]);
        assert!(!changes(&original, &moved)[0].only_adds());
    }

    #[test]
    fn functions_are_known_by_the_structures_they_use() {
        let types = types(ORIGINAL, &[]);
        let all = ["other".to_owned(), "use".to_owned()].into();
        assert_eq!(users(&types, "struct s", &all), ["use"]);
        assert_eq!(users(&types, "struct leaf", &all), ["other"]);
        assert_eq!(users(&types, "struct none", &all), [""; 0]);
    }
}
