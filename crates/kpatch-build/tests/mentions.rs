//! Units that do not mention what changed, against the compiler: their objects stay as they are.
//!
//! Headers are put together at random from what kernel headers are made of, macros above all, and changed at random.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;
use std::process::Command;

use kpatch_build::mentions::{self, Header};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// One piece of a header. `@` is its own number, `%` that of an earlier one, `?` what a change changes.
const FORMS: [&str; 31] = [
    "static inline int f@(int x) { return x * ?; }",
    "static inline int f@(int x) { return f%(x) + ?; }",
    "static always int f@(int x) { return s%(x) - ?; }",
    "static inline int f@(int x) nothing\n{ return M%(x) + ?; }",
    "#define M@(x) ((x) + ?)",
    "#define M@(x) (f%(x) ^ ?)",
    "#define M@(x) M%(cat(1, ?) + x)",
    "#define M@(x) paste(f, %, x)",
    "#define M@(x) f_of(%)(x)",
    "#define M@(x) call(f_of, %)(x)",
    "#define M@(x) made(of, %)(x)",
    "#define M@(x) through(two(%))(x)",
    "#define M@(x) rest(?, f, %)(x)",
    "#define C@ f_of\n#define M@(x) call(C@, %)(x)",
    "#define E@ ?",
    "enum { E@ = ? };",
    "enum { E@ = E% + ? };",
    "#if E% > ?\nstatic inline int f@(int x) { return x; }\n#else\nstatic inline int f@(int x) { return -x; }\n#endif",
    "#ifdef E%\n#define M@(x) (x)\n#else\n#define M@(x) (-(x) + ?)\n#endif",
    "struct t@ { int a[? + 1]; long b; };\nstatic inline int s@(int x) { return sizeof(struct t@) + x; }",
    "struct t@ { struct t% in; char c[E% + ? + 1]; };\nstatic inline int s@(int x) { return sizeof(struct t@) - x; }",
    "typedef struct { int a; } attributes\nu@;\nstatic inline int s@(int x) { u@ u = { x }; return u.a * ?; }",
    "#define G@(n) static inline int f##n(int x) { return x | ?; }\nG@(@)",
    "#define G@(n) static inline int f##n(int x) { return x | ?; }\n\nG@(@) G@(r@)",
    "static inline int g@(int x) { return x & ?; }\n#define f@ g@",
    "static inline int g@(int x) { return x & ?; }\n#define f@ cat(g, @)",
    "#define LIST@(m) m(@, ?)\n#define AS@(n, v) static inline int s##n(int x) { return x + v; }\nLIST@(AS@)",
    "#define N@ f%\nstatic inline int s@(int x) { return cat(N, @)(x) /* ? */; }",
    "extern inline int __attribute__((__gnu_inline__)) f@(int x) { return \\\n x // ?\n * ?; }",
    "#ifdef OTHER\n#define f@(x)\n#define s@(x) ((void)(x))\n#else\nstatic inline int f@(int x) { return x - ?; }\n\
     static inline int s@(int x) { return x / ?; }\n#endif",
    "#ifndef OTHER\nstatic inline int always f@(int x) { return x << ?; }\n#else\n#define f@(x) do { } while (0)\n#endif",
];

/// What of the headers a unit uses.
const USES: [&str; 13] = [
    "int r@(int x) { return f%(x); }",
    "int r@(int x) { return s%(x); }",
    "int r@(int x) { return M%(x); }",
    "int r@(void) { return E%; }",
    "int r@(int x) { return cat(f, %)(x); }",
    "#define own@ cat(M, %)\nint r@(int x) { return own@(x); }",
    "#ifdef E%\nint r@(int x) { return x; }\n#endif",
    "int r@(int x) { return f_of(%)(x); }",
    "int r@(int x) { return call(f_of, %)(x); }",
    "int r@(int x) { return made(of, %)(x); }",
    "int r@(int x) { return through(two(%))(x); }",
    "int r@(int x) { return rest(1, f, %)(x); }",
    "#define own@(a, n) call(a, n)\nint r@(int x) { return own@(f_of, %)(x); }",
];

/// What stands before all.
const FIRST: &str = "#define always inline __attribute__((__always_inline__))\n\
    #define attributes __attribute__((__unused__))\n#define nothing\n\
    #define cat(a, b) cat_(a, b)\n#define cat_(a, b) a##b\n\
    #define paste(a, b, x) cat(a, b)(x)\n#define f_of(n) f##n\n\
    #define call(op, n) op(n)\n#define made(op, n) f_##op(n)\n\
    #define two(n) f, n\n#define through(x) cat_(x)\n\
    #define third(a, b, c) b##c\n#define rest(a, ...) third(a, __VA_ARGS__)\n\
    static inline int f0(int x) { return x; }\nstatic inline int s0(int x) { return x; }\n\
    #define M0(x) (x)\n#define E0 0\nstruct t0 { int a; };\n";

/// Two headers and a unit, and what a change of one number makes of them.
struct Texts {
    headers: [[String; 2]; 2],
    unit: String,
    /// The number of what the unit used last.
    used: usize,
}

/// What tells names apart: any macro can paste digits, letters only who has them.
fn label(number: usize) -> String {
    if number.is_multiple_of(2) { number.to_string() } else { format!("q{number}") }
}

fn texts(forms: &[(usize, usize)], uses: &[(usize, usize)], changed: usize) -> Texts {
    let kinds = ["f", "s", "M", "E", "t"];
    let mut bearers: Vec<Vec<usize>> = vec![vec![0]; kinds.len()];
    let mut headers = [[FIRST.to_owned(), FIRST.to_owned()], [String::new(), String::new()]];
    let mut unit = String::new();
    let mut used = 0;
    for (at, &(form, earlier)) in forms.iter().chain(uses).enumerate() {
        let is_use = at >= forms.len();
        let form = if is_use { USES[form % USES.len()] } else { FORMS[form % FORMS.len()] };
        let number = at + 1;
        // Of each kind, the one that is mentioned; by its number alone, a function is.
        let mut text = form.to_owned();
        for (kind, bearers) in kinds.iter().zip(&bearers) {
            let bearer = bearers[earlier % bearers.len()];
            if is_use && text.contains(&format!("{kind}%")) {
                used = bearer;
            }
            text = text.replace(&format!("{kind}%"), &format!("{kind}{}", label(bearer)));
        }
        let macros = ["cat(M, %)"].iter().any(|call| form.contains(call));
        let any = &bearers[if macros { 2 } else { 0 }];
        let any = any[earlier % any.len()];
        if is_use && text.contains('%') {
            used = any;
        }
        let text = text.replace('%', &label(any)).replace('@', &label(number));
        if is_use {
            unit.push_str(&text);
            unit.push('\n');
            continue;
        }
        for (kind, bearers) in kinds.iter().zip(&mut bearers) {
            let made = form.contains(&format!("{kind}@"))
                || *kind == "f" && form.contains("G@(@)")
                || *kind == "s" && form.contains("LIST@(AS@)");
            if made {
                bearers.push(number);
            }
        }
        for (version, header) in headers[usize::from(at * 2 >= forms.len())].iter_mut().enumerate() {
            header.push_str(&text.replace('?', if at == changed && version == 1 { "3" } else { "2" }));
            header.push('\n');
        }
    }
    Texts { headers, unit, used }
}

/// The object, or nothing where the text is no C.
fn compile(directory: &Path, texts: &Texts, version: usize) -> Option<Vec<u8>> {
    let (source, object) = (directory.join("unit.c"), directory.join("unit.o"));
    for (number, header) in texts.headers.iter().enumerate() {
        std::fs::write(directory.join(format!("h{number}.h")), &header[version]).unwrap();
    }
    std::fs::write(&source, format!("#include \"h0.h\"\n#include \"h1.h\"\n{}", texts.unit)).unwrap();
    let output = Command::new("gcc")
        .args(["-O2", "-std=gnu11", "-w", "-c", "-o"])
        .args([&object, &source])
        .output()
        .unwrap();
    output.status.success().then(|| std::fs::read(&object).unwrap())
}

fn is_kept(texts: &Texts) -> bool {
    let header = |[text, patched]: &[String; 2]| Header {
        text: text.clone().into_bytes(),
        patched: (text != patched).then(|| patched.clone().into_bytes()),
    };
    let headers: Vec<Header> = texts.headers.iter().map(header).collect();
    let scan = mentions::scan(texts.unit.as_bytes(), []);
    let reached =
        mentions::reached(&headers, &[scan], &|_| Some((texts.unit.clone().into_bytes(), Vec::new())));
    reached.everywhere || reached.mentioned[0] || reached.readers.contains(&true)
}

#[test]
fn units_that_do_not_mention_what_changed_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let cases = if std::env::var_os("KPATCH_TEST_FULL").is_some() { 4000 } else { 250 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let pick = || (0..1000usize, 0..1000usize);
    let input = (prop::collection::vec(pick(), 8..20), prop::collection::vec(pick(), 1..3), 0..20usize);
    let [kept, dropped, refused] = [(); 3].map(|()| std::cell::Cell::new(0u32));
    let count = |counter: &std::cell::Cell<u32>| counter.set(counter.get() + 1);
    runner
        .run(&input, |(forms, uses, changed)| {
            let mut texts = self::texts(&forms, &uses, changed % forms.len());
            // Half of the changes are aimed at what the unit uses, however it comes by the name.
            if forms[0].0.is_multiple_of(2) && texts.used > 0 {
                texts = self::texts(&forms, &uses, texts.used - 1);
            }
            if is_kept(&texts) {
                count(&kept);
                return Ok(());
            }
            match (compile(directory.path(), &texts, 0), compile(directory.path(), &texts, 1)) {
                (Some(one), Some(other)) => {
                    count(&dropped);
                    prop_assert!(
                        one == other,
                        "the objects differ:\n{}{}\n--- and ---\n{}{}\n--- unit ---\n{}",
                        texts.headers[0][0],
                        texts.headers[1][0],
                        texts.headers[0][1],
                        texts.headers[1][1],
                        texts.unit
                    );
                }
                _ => count(&refused),
            }
            Ok(())
        })
        .unwrap();
    let (kept, dropped, refused) = (kept.get(), dropped.get(), refused.get());
    assert!(kept * 8 > cases && dropped * 8 > cases, "{kept} kept, {dropped} dropped: says nothing");
    assert!(refused * 4 < dropped, "{refused} texts are no C, {dropped} are");
}
