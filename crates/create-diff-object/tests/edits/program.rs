//! Random C programs, and random edits of them.

use std::fmt::Write as _;

/// A small generator of pseudo-random numbers (SplitMix64): the same seed gives the same programs everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % limit.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One statement of a function; the numbers are constants and what it refers to.
#[derive(Clone, Debug)]
enum Statement {
    Add(usize),
    Multiply(usize),
    Put(usize),
    Call(usize),
    Print(usize),
    PrintValue(usize),
    Warn(usize),
    Once(usize),
    Counter(usize),
    Shared(usize),
    Table(usize),
    LocalTable(usize),
    Switch(usize, usize),
    Dispatch(usize, usize),
    GivePointer(usize),
    Loop(usize),
    Name,
    Unlikely(usize),
    Here,
    Structure(usize),
    /// An array whose first values the compiler keeps as a constant without name.
    Copied(usize),
    External(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linkage {
    Global,
    Static,
    NoInline,
    Section,
    Init,
}

#[derive(Clone, Debug)]
struct Function {
    name: String,
    linkage: Linkage,
    body: Vec<Statement>,
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    functions: Vec<Function>,
    /// In which order they stand in the source.
    order: Vec<usize>,
    /// Empty lines on top.
    lines: usize,
    tables: Vec<usize>,
    fresh: usize,
}

impl Program {
    pub(crate) fn new(random: &mut Random) -> Program {
        let count = 5 + random.below(6);
        let mut program = Program {
            functions: Vec::new(),
            order: (0..count).collect(),
            lines: 0,
            tables: (0..4).map(|_| random.below(900)).collect(),
            fresh: 0,
        };
        for index in 0..count {
            let linkage = match random.below(10) {
                0..4 => Linkage::Global,
                4..6 => Linkage::Static,
                6..8 => Linkage::NoInline,
                8 => Linkage::Section,
                _ => Linkage::Init,
            };
            // The last ones are called by nobody else.
            let linkage = if index + 2 >= count { Linkage::Global } else { linkage };
            let body = (0..=random.below(6)).map(|_| Self::statement(random, index, count)).collect();
            program.functions.push(Function { name: format!("fn_{index}"), linkage, body });
        }
        // Every static function is used.
        for index in 0..count - 2 {
            let user = index + 1 + random.below(count - index - 1);
            program.functions[user].body.push(Statement::Call(index));
        }
        program
    }

    /// A statement of function `index`, which calls functions before it only.
    fn statement(random: &mut Random, index: usize, count: usize) -> Statement {
        let number = random.below(1000);
        let callee = if index == 0 { count } else { random.below(index) };
        match random.below(23) {
            0 => Statement::Add(number),
            1 => Statement::Multiply(number),
            2 | 3 => Statement::Put(number),
            4 | 5 if callee < count => Statement::Call(callee),
            6 => Statement::Print(number),
            7 => Statement::PrintValue(number),
            8 => Statement::Warn(number % 10),
            9 => Statement::Once(number),
            10 => Statement::Counter(number),
            11 => Statement::Shared(number),
            12 => Statement::Table(number % 4),
            13 => Statement::LocalTable(number),
            14 => Statement::Switch(4 + number % 5, number),
            15 if callee < count => Statement::Dispatch(callee, number % 3),
            16 if callee < count => Statement::GivePointer(callee),
            17 => Statement::Loop(number % 50),
            18 => Statement::Name,
            19 => Statement::Unlikely(number),
            20 => Statement::Structure(number % 6),
            21 => Statement::External(number % 3),
            22 => Statement::Copied(number),
            _ => Statement::Here,
        }
    }

    /// Changes something; returns what, for people.
    pub(crate) fn edit(&mut self, random: &mut Random) -> String {
        let count = self.functions.len();
        let at = random.below(count);
        let length = self.functions[at].body.len();
        let place = random.below(length + 1);
        let name = self.functions[at].name.clone();
        match random.below(13) {
            0 | 1 => {
                let statement = Self::statement(random, at, count);
                let text = format!("{statement:?} added to {name}");
                self.functions[at].body.insert(place, statement);
                text
            }
            2 if length > 1 => {
                let gone = self.functions[at].body.remove(place.min(length - 1));
                format!("{gone:?} taken from {name}")
            }
            3 | 4 => {
                let number = 1 + random.below(5);
                let Some(statement) = self.functions[at].body.get_mut(place) else { return "nothing".into() };
                let old = format!("{statement:?}");
                match statement {
                    Statement::Add(n)
                    | Statement::Multiply(n)
                    | Statement::Put(n)
                    | Statement::Print(n)
                    | Statement::PrintValue(n)
                    | Statement::Once(n)
                    | Statement::Counter(n)
                    | Statement::Shared(n)
                    | Statement::LocalTable(n)
                    | Statement::Copied(n)
                    | Statement::Switch(_, n)
                    | Statement::Unlikely(n)
                    | Statement::Loop(n) => *n += number,
                    _ => {}
                }
                format!("{old} of {name} became {statement:?}")
            }
            5 => {
                let Some(Statement::Switch(cases, _)) =
                    self.functions[at].body.iter_mut().find(|s| matches!(s, Statement::Switch(..)))
                else {
                    return "nothing".into();
                };
                *cases += 1;
                format!("a case added to a switch of {name}")
            }
            6 => {
                for index in (1..count).rev() {
                    self.order.swap(index, random.below(index + 1));
                }
                "functions reordered".into()
            }
            7 => {
                self.lines += 1 + random.below(4);
                "lines added on top".into()
            }
            8 if self.functions[at].linkage != Linkage::Global => {
                self.fresh += 1;
                self.functions[at].name = format!("fresh_{}", self.fresh);
                format!("{name} renamed")
            }
            9 => {
                self.tables[random.below(4)] += 1;
                "a table changed".into()
            }
            10 => {
                // A new function, and a call of it.
                self.fresh += 1;
                let body = (0..=random.below(4)).map(|_| Self::statement(random, 0, count)).collect();
                let linkage = if random.chance(50) { Linkage::NoInline } else { Linkage::Static };
                self.functions.push(Function { name: format!("fresh_{}", self.fresh), linkage, body });
                self.order.insert(random.below(count), count);
                self.functions[at].body.insert(place, Statement::Call(count));
                format!("a new function called by {name}")
            }
            11 if at + 2 < count && self.functions[at].linkage == Linkage::NoInline => {
                self.functions[at].linkage = Linkage::Global;
                format!("{name} made global")
            }
            _ => {
                if place + 1 < length {
                    self.functions[at].body.swap(place, place + 1);
                }
                format!("statements of {name} swapped")
            }
        }
    }

    /// The source text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::from(PROLOGUE);
        for function in &self.functions {
            let _ = writeln!(out, "{};", Self::head(function));
        }
        out.push_str(&"\n".repeat(self.lines));
        for (index, first) in self.tables.iter().enumerate() {
            let _ = writeln!(out, "static const long table_{index}[] = {{ {first}, 5, 9, {index}, 77 }};");
        }
        for &index in &self.order {
            let function = &self.functions[index];
            let _ = writeln!(out, "{} {{", Self::head(function));
            out.push_str("\tlong y = x;\n");
            for (place, statement) in function.body.iter().enumerate() {
                out.push('\t');
                self.statement_text(statement, place, &mut out);
                out.push('\n');
            }
            out.push_str("\treturn y;\n}\n\n");
        }
        out
    }

    fn head(function: &Function) -> String {
        let attributes = match function.linkage {
            Linkage::Global => "",
            Linkage::Static => "static ",
            Linkage::NoInline => "static NOINLINE ",
            Linkage::Section => "static NOINLINE SECTION ",
            Linkage::Init => "static NOINLINE COLD ",
        };
        format!("{attributes}long {}(long x)", function.name)
    }

    fn statement_text(&self, statement: &Statement, place: usize, out: &mut String) {
        let name = |index: &usize| self.functions.get(*index).map_or("put", |f| f.name.as_str());
        let _ = match statement {
            Statement::Add(n) => write!(out, "y += {n};"),
            Statement::Multiply(n) => write!(out, "y = y * {n} + x;"),
            Statement::Put(n) => write!(out, "y ^= put(y + {n});"),
            Statement::Call(f) => write!(out, "y += {}(y);", name(f)),
            Statement::Print(n) => write!(out, "_printk(\"text number {n}\\n\");"),
            Statement::PrintValue(n) => write!(out, "if (y > {n}) _printk(\"value %ld of {n}\\n\", y);"),
            Statement::Warn(n) => write!(out, "if (y == {n}) __warn_printk(\"file.c\", LINE);"),
            Statement::Once(n) => {
                write!(
                    out,
                    "{{ static ONCE char __already_done; if (y == {n} && !__already_done) {{ __already_done = 1; put({n}); }} }}"
                )
            }
            Statement::Counter(n) => {
                write!(out, "{{ static long counter; counter += {n}; y ^= counter++; }}")
            }
            Statement::Shared(n) => write!(out, "{{ static long state = 3; y += state; state = y ^ {n}; }}"),
            Statement::Table(n) => write!(out, "y += table_{n}[y & 3];"),
            Statement::LocalTable(n) => {
                write!(
                    out,
                    "{{ static const int local[] = {{ {n}, 8, 1, 77, 3, 4, 5, 6 }}; y += local[y & 7]; }}"
                )
            }
            Statement::Switch(cases, n) => {
                let _ = write!(out, "switch (y & 15) {{ ");
                for case in 0..*cases {
                    let _ = write!(out, "case {case}: y = {}; break; ", (case * 37 + n) % 211);
                }
                write!(out, "default: put(y); }}")
            }
            Statement::Dispatch(f, n) => {
                write!(
                    out,
                    "{{ static const function dispatch[] = {{ {}, put, more_{n}, put }}; y += dispatch[y & 3](y); }}",
                    name(f)
                )
            }
            Statement::GivePointer(f) => write!(out, "take({});", name(f)),
            Statement::Loop(n) => write!(out, "for (int i = 0; i < (x & 31) + {n}; i++) y += put(i ^ y);"),
            Statement::Name => write!(out, "_printk(\"%s: %ld\\n\", __func__, y);"),
            Statement::Unlikely(n) => {
                write!(out, "if (__builtin_expect(y == {n}, 0)) {{ complain({n}); y = put(y) - {n}; }}")
            }
            Statement::Here => {
                write!(out, "note(({{ __label__ here_{place}; here_{place}: &&here_{place}; }}));")
            }
            Statement::Structure(n) => {
                write!(out, "{{ struct thing t = {{ {n}, 2, {{ 3, {n}, 5, 6 }} }}; use(&t); y += t.a; }}")
            }
            Statement::Copied(n) => {
                write!(
                    out,
                    "{{ int copied[12] = {{ {n}, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }}; use(copied); y += copied[1]; }}"
                )
            }
            Statement::External(n) => write!(out, "outside_{n} += y;"),
        };
    }
}

const PROLOGUE: &str = "\
#define NOINLINE __attribute__((noinline))
#define SECTION __attribute__((section(\".sched.text\")))
#define COLD __attribute__((cold))
#define ONCE __attribute__((section(\".data..once\")))
#ifdef NO_LINES
#define LINE 77
#else
#define LINE __LINE__
#endif
typedef long (*function)(long);
struct thing { int a, b; long c[4]; };
long put(long);
long more_0(long), more_1(long), more_2(long);
extern long outside_0, outside_1, outside_2;
int _printk(const char *, ...);
void __warn_printk(const char *, int);
void take(function);
void note(void *);
void use(void *);
COLD void complain(int);
";
