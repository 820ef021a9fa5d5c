//! A compiler's command line, typed as far as variants of it need.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A command that compiles nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// An option at the end of the line lacks its argument.
    #[error("{0} lacks its argument")]
    NoArgument(String),
    /// No `-c`, so that it is some other tool or another mode of the compiler.
    #[error("not a compiler command: no -c")]
    NotCompiling,
    /// No `-o`.
    #[error("not a compiler command: no -o")]
    NoOutput,
    /// No or several source files.
    #[error("{0} source files in one compiler command")]
    Sources(usize),
    /// Arguments in a file, which kbuild does not use.
    #[error("the compiler takes arguments from a file: {0}")]
    ResponseFile(String),
}

/// Options of gcc and clang whose argument is the next word, or, where joined says so, the rest of the word.
/// In an order where no option hides a longer one behind it.
const WITH_ARGUMENT: [(&str, bool); 43] = [
    ("-include", false),
    ("-imacros", false),
    ("-iwithprefixbefore", true),
    ("-iwithprefix", true),
    ("-iprefix", true),
    ("-isysroot", true),
    ("-isystem", true),
    ("-idirafter", true),
    ("-iquote", true),
    ("-imultilib", true),
    ("-imultiarch", true),
    ("-ivfsoverlay", false),
    ("--include", false),
    ("--sysroot", false),
    ("--param", false),
    ("--target", false),
    ("-target", false),
    ("-arch", false),
    ("-aux-info", false),
    ("-auxbase-strip", false),
    ("-auxbase", false),
    ("-dumpbase-ext", false),
    ("-dumpbase", false),
    ("-dumpdir", false),
    ("-wrapper", false),
    ("-mllvm", false),
    ("-plugin", false),
    ("-Xassembler", false),
    ("-Xpreprocessor", false),
    ("-Xlinker", false),
    ("-Xclang", false),
    ("-Xanalyzer", false),
    ("-MF", true),
    ("-MT", true),
    ("-MQ", true),
    ("-I", true),
    ("-D", true),
    ("-U", true),
    ("-A", true),
    ("-B", true),
    ("-L", true),
    ("-x", true),
    ("-o", true),
];

/// One argument of the compiler, with the value that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An option of one word: `-O2`, `-Wall`, `-mfentry`.
    Flag(String),
    /// An option with a value: `-I DIR`, `-DNAME`.
    Valued {
        /// The option alone.
        option: &'static str,
        /// Its value.
        value: String,
        /// Both stand in one word.
        joined: bool,
    },
    /// A source file.
    Source(String),
}

impl Argument {
    fn value_of(&self, wanted: &str) -> Option<&str> {
        match self {
            Argument::Valued { option, value, .. } if *option == wanted => Some(value),
            _ => None,
        }
    }
}

/// A compiler command: one source file in, one object out. Relative paths start at the object tree, where it must
/// be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileCommand {
    program: Vec<String>,
    arguments: Vec<Argument>,
}

impl CompileCommand {
    /// Understands a command's words.
    pub fn from_words(words: &[String]) -> Result<CompileCommand, CompileError> {
        // A wrapper such as ccache stands before the compiler; both are words that are no options.
        let start = words.iter().position(|w| w.starts_with('-')).ok_or(CompileError::NotCompiling)?;
        let (program, rest) = words.split_at(start);
        if program.is_empty() {
            return Err(CompileError::NotCompiling);
        }
        let mut arguments = Vec::with_capacity(rest.len());
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            arguments.push(argument(word, &mut rest)?);
        }
        let command = CompileCommand { program: program.to_vec(), arguments };
        if !command.has_flag("-c") {
            return Err(CompileError::NotCompiling);
        }
        if command.value("-o").is_none() {
            return Err(CompileError::NoOutput);
        }
        match command.sources().count() {
            1 => Ok(command),
            count => Err(CompileError::Sources(count)),
        }
    }

    /// The compiler, with wrappers before it.
    pub fn program(&self) -> &[String] {
        &self.program
    }

    /// Everything after the program.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// The words to run.
    pub fn words(&self) -> Vec<String> {
        let mut words = self.program.clone();
        for argument in &self.arguments {
            match argument {
                Argument::Flag(word) | Argument::Source(word) => words.push(word.clone()),
                Argument::Valued { option, value, joined: true } => words.push(format!("{option}{value}")),
                Argument::Valued { option, value, joined: false } => {
                    words.extend([(*option).to_owned(), value.clone()]);
                }
            }
        }
        words
    }

    /// The object file it writes.
    pub fn output(&self) -> &Path {
        Path::new(self.value("-o").unwrap_or_default())
    }

    /// The source file it reads.
    pub fn source(&self) -> &Path {
        Path::new(self.sources().next().unwrap_or_default())
    }

    /// True if that option without a value is given.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.arguments.iter().any(|argument| matches!(argument, Argument::Flag(word) if word == flag))
    }

    /// The values of an option, in order.
    pub fn values<'c>(&'c self, wanted: &'c str) -> impl DoubleEndedIterator<Item = &'c str> {
        self.arguments.iter().filter_map(move |argument| argument.value_of(wanted))
    }

    /// The value of an option that counts when it is given several times: the last.
    pub fn value(&self, wanted: &str) -> Option<&str> {
        self.arguments.iter().rev().find_map(|argument| argument.value_of(wanted))
    }

    /// What a macro is defined as by `-D`, the quotes of a C string included; `1` where nothing is said.
    pub fn define(&self, name: &str) -> Option<&str> {
        let of = |definition: &'_ str| match definition.split_once('=') {
            Some((defined, _)) => defined == name,
            None => definition == name,
        };
        let definition = self.values("-D").rfind(|d| of(d))?;
        Some(definition.split_once('=').map_or("1", |(_, value)| value))
    }

    /// The text of a macro that is defined as a C string.
    fn define_string(&self, name: &str) -> Option<&str> {
        let value = self.define(name)?;
        Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
    }

    /// The directories of `-I`, in order; relative ones start at the object tree.
    pub fn include_directories(&self) -> impl Iterator<Item = &Path> {
        self.values("-I").map(Path::new)
    }

    /// Compiled as part of a module.
    pub fn is_module(&self) -> bool {
        self.define("MODULE").is_some()
    }

    /// The modules it is part of, by the names the kernel knows them by; none for built-in code.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        // An object that several modules share has all their names, joined by colons.
        let names = if self.is_module() { self.modname().unwrap_or_default() } else { "" };
        names.split(':').filter(|name| !name.is_empty())
    }

    /// `KBUILD_MODNAME`: what the code is called in messages and parameters, for built-in code too.
    pub fn modname(&self) -> Option<&str> {
        self.define_string("KBUILD_MODNAME")
    }

    /// `KBUILD_BASENAME`, the object's name.
    pub fn basename(&self) -> Option<&str> {
        self.define_string("KBUILD_BASENAME")
    }

    /// Writes the object elsewhere.
    #[must_use]
    pub fn with_output(mut self, output: &Path) -> CompileCommand {
        self.arguments.retain(|argument| !matches!(argument, Argument::Valued { option: "-o", .. }));
        let value = output.to_string_lossy().into_owned();
        self.arguments.push(Argument::Valued { option: "-o", value, joined: false });
        self
    }

    /// Compiles another source file.
    #[must_use]
    pub fn with_source(mut self, source: &Path) -> CompileCommand {
        for argument in &mut self.arguments {
            if let Argument::Source(path) = argument {
                *path = source.to_string_lossy().into_owned();
            }
        }
        self
    }

    /// The command for another source file of the same list of objects. What is named after the object is named after
    /// the other one: always the base name, and for an object that is no part of a composite the module as well.
    #[must_use]
    pub fn for_neighbour(self, source: &Path, object: &Path) -> CompileCommand {
        let name = |path: &Path| {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            stem.replace(['-', ','], "_")
        };
        let (old, new) = (name(self.output()), name(object));
        let alone = self.modname() == self.basename();
        let mut command = self.with_source(source).with_output(object);
        for argument in &mut command.arguments {
            let Argument::Valued { option: "-D", value, .. } = argument else { continue };
            let Some((macro_name, text)) = value.split_once('=') else { continue };
            let named_after = match macro_name {
                "KBUILD_BASENAME" => true,
                "KBUILD_MODNAME" | "__KBUILD_MODNAME" | "KBUILD_MODFILE" => alone,
                _ => false,
            };
            let bare = text.trim_end_matches('"');
            if named_after && let Some(before) = bare.strip_suffix(&old) {
                *value = format!("{macro_name}={before}{new}{}", &text[bare.len()..]);
            }
        }
        command
    }

    /// Puts options before all others: search directories that come first.
    #[must_use]
    pub fn with_first<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> CompileCommand {
        let words = words.into_iter().map(|word| Argument::Flag(word.as_ref().to_owned()));
        self.arguments.splice(0..0, words);
        self
    }

    /// Puts another directory before each directory of `-I` for which there is one: searched right before it, so
    /// that the order among the others stays.
    #[must_use]
    pub fn with_directories_before(mut self, other: impl Fn(&Path) -> Option<PathBuf>) -> CompileCommand {
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in self.arguments {
            if let Some(before) = argument.value_of("-I").and_then(|directory| other(Path::new(directory))) {
                let value = before.to_string_lossy().into_owned();
                arguments.push(Argument::Valued { option: "-I", value, joined: true });
            }
            arguments.push(argument);
        }
        self.arguments = arguments;
        self
    }

    /// Includes another file first (`-include`) in place of each for which there is one.
    #[must_use]
    pub fn with_first_includes(mut self, other: impl Fn(&Path) -> Option<PathBuf>) -> CompileCommand {
        for argument in &mut self.arguments {
            if let Argument::Valued { option: "-include", value, .. } = argument
                && let Some(other) = other(Path::new(value))
            {
                *value = other.to_string_lossy().into_owned();
            }
        }
        self
    }

    /// Puts options after all others, where they override.
    #[must_use]
    pub fn with_last<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> CompileCommand {
        self.arguments.extend(words.into_iter().map(|word| Argument::Flag(word.as_ref().to_owned())));
        self
    }

    /// The words that make the compiler print the preprocessed source. `__LINE__` and `__COUNTER__` are pinned: what
    /// is left can be compared, not compiled.
    pub fn preprocessing_words(&self) -> Vec<String> {
        let mut command = self.clone().without_dependency_file().without_flags(|word| word == "-c");
        command.arguments.retain(|argument| !matches!(argument, Argument::Valued { option: "-o", .. }));
        // -w: to define these two earns a warning, which -Werror would turn into an error.
        command.with_last(["-E", "-w", "-D__LINE__=0", "-D__COUNTER__=0"]).words()
    }

    /// Writes a rule of make that names the files the compiler read.
    #[must_use]
    pub fn with_dependency_file(self, rule: &Path) -> CompileCommand {
        self.without_dependency_file().with_last(["-MD".to_owned(), format!("-MF{}", rule.display())])
    }

    /// Leaves out flags that the predicate names; options with values stay.
    #[must_use]
    pub fn without_flags(mut self, unwanted: impl Fn(&str) -> bool) -> CompileCommand {
        self.arguments.retain(|argument| !matches!(argument, Argument::Flag(word) if unwanted(word)));
        self
    }

    /// Writes no dependency file.
    #[must_use]
    pub fn without_dependency_file(mut self) -> CompileCommand {
        self.arguments.retain(|argument| match argument {
            Argument::Flag(word) => !is_dependency_flag(word),
            Argument::Valued { option, .. } => !matches!(*option, "-MF" | "-MT" | "-MQ"),
            Argument::Source(_) => true,
        });
        self
    }

    /// Makes no debug information, which does not change the code.
    #[must_use]
    pub fn without_debug_information(self) -> CompileCommand {
        self.without_flags(|word| word.starts_with("-g") || word.starts_with("-Wa,-g"))
    }

    fn sources(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Source(path) => Some(path.as_str()),
            _ => None,
        })
    }
}

/// The absolute path of a path in a command that runs in `tree`.
pub fn absolute(tree: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_owned() } else { tree.join(path.strip_prefix("./").unwrap_or(path)) }
}

fn argument<'w>(word: &str, rest: &mut impl Iterator<Item = &'w String>) -> Result<Argument, CompileError> {
    if word.starts_with('@') {
        return Err(CompileError::ResponseFile(word.to_owned()));
    }
    if !word.starts_with('-') || word == "-" {
        return Ok(Argument::Source(word.to_owned()));
    }
    for (option, may_join) in WITH_ARGUMENT {
        if word == option {
            let value = rest.next().ok_or_else(|| CompileError::NoArgument(word.to_owned()))?;
            return Ok(Argument::Valued { option, value: value.clone(), joined: false });
        }
        if let (true, Some(value)) = (may_join, word.strip_prefix(option)) {
            return Ok(Argument::Valued { option, value: value.to_owned(), joined: true });
        }
    }
    Ok(Argument::Flag(word.to_owned()))
}

/// `-MMD`, `-MD`, `-MP` and the like, and the same handed through by `-Wp,`.
fn is_dependency_flag(word: &str) -> bool {
    let word = word.strip_prefix("-Wp,").unwrap_or(word);
    let word = word.split(',').next().unwrap_or(word);
    matches!(word, "-M" | "-MM" | "-MD" | "-MMD" | "-MP" | "-MG" | "-MF" | "-MT" | "-MQ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    const LINE: &str = "ccache gcc-12 -Wp,-MMD,a/.b.o.d -nostdinc -I/s/include -I ./a -include /s/k.h -O2 -g \
                        -gdwarf-5 --param asan-globals=1 --param=x=1 -mrecord-mcount -DMODULE -Ds -DKBUILD_MODFILE=\"a/m\" -DKBUILD_MODNAME=\"m\" \
                        -DKBUILD_BASENAME=\"b\" -c -o a/b.o /s/a/b.c";

    #[test]
    fn options_keep_their_arguments_and_the_line_its_words() {
        let command = CompileCommand::from_words(&words(LINE)).unwrap();
        assert_eq!(command.words(), words(LINE));
        assert_eq!(command.program(), ["ccache", "gcc-12"]);
        assert_eq!((command.output(), command.source()), (Path::new("a/b.o"), Path::new("/s/a/b.c")));
        let search: Vec<&Path> = command.include_directories().collect();
        assert_eq!(search, [Path::new("/s/include"), Path::new("./a")]);
        assert_eq!(command.value("-include"), Some("/s/k.h"));
        assert!(command.is_module());
        assert_eq!(command.modules().collect::<Vec<_>>(), ["m"]);
        assert_eq!((command.modname(), command.basename()), (Some("m"), Some("b")));
        assert_eq!(command.define("s"), Some("1"));
    }

    #[test]
    fn a_variant_changes_only_what_was_asked() {
        let variant = CompileCommand::from_words(&words(LINE))
            .unwrap()
            .without_dependency_file()
            .without_debug_information()
            .with_source(Path::new("/p/a/b.c"))
            .with_output(Path::new("/w/b.o"))
            .with_first(["-iquote/s/a"])
            .with_last(["-ffunction-sections"]);
        let expected = "ccache gcc-12 -iquote/s/a -nostdinc -I/s/include -I ./a -include /s/k.h -O2 --param asan-globals=1 --param=x=1 \
                        -mrecord-mcount -DMODULE -Ds -DKBUILD_MODFILE=\"a/m\" -DKBUILD_MODNAME=\"m\" \
                        -DKBUILD_BASENAME=\"b\" -c /p/a/b.c -o /w/b.o -ffunction-sections";
        assert_eq!(variant.words(), words(expected));
        let preprocessing = variant.preprocessing_words().join(" ");
        assert!(preprocessing.contains(" /p/a/b.c -ffunction-sections -E "), "{preprocessing}");
        assert!(!preprocessing.contains(" -c ") && !preprocessing.contains(" -o "), "{preprocessing}");
        let rule = variant.with_dependency_file(Path::new("/w/b.d")).words().join(" ");
        assert!(rule.ends_with(" -MD -MF/w/b.d") && rule.contains(" -o /w/b.o "), "{rule}");
    }

    #[test]
    fn a_neighbour_gets_its_own_names() {
        let command = |modname: &str, source: &str, base: &str, object: &str| {
            let line = format!(
                "gcc -DKBUILD_MODFILE=\"fs/{modname}\" -DKBUILD_BASENAME=\"{base}\" -DKBUILD_MODNAME=\"{modname}\" \
                 -D__KBUILD_MODNAME=kmod_{modname} -c {source} -o {object}"
            );
            CompileCommand::from_words(&words(&line)).unwrap()
        };
        let neighbour =
            |command: CompileCommand| command.for_neighbour(Path::new("/s/b-c.c"), Path::new("b-c.o"));
        let of_composite = neighbour(command("proc", "/s/a.c", "a", "a.o"));
        assert_eq!(of_composite, command("proc", "/s/b-c.c", "b_c", "b-c.o"));
        let alone = neighbour(command("a", "/s/a.c", "a", "a.o"));
        assert_eq!(alone, command("b_c", "/s/b-c.c", "b_c", "b-c.o"));
    }

    #[test]
    fn several_modules_may_share_an_object_and_built_in_code_has_none() {
        let modules = |line: &str| {
            let command = CompileCommand::from_words(&words(line)).unwrap();
            command.modules().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(modules("gcc -DMODULE -DKBUILD_MODNAME=\"x_a:y\" -c -o a.o a.c"), ["x_a", "y"]);
        assert!(modules("gcc -DKBUILD_MODNAME=\"x\" -c -o a.o a.c").is_empty());
    }

    #[test]
    fn directories_and_first_includes_can_stand_elsewhere() {
        let command = CompileCommand::from_words(&words("gcc -I/s/a -I ./b -include /s/k.h -c -o a.o a.c"));
        let patched = |path: &Path| Some(Path::new("/p").join(path.strip_prefix("/s").ok()?));
        let command = command.unwrap().with_directories_before(patched).with_first_includes(patched);
        assert_eq!(command.words(), words("gcc -I/p/a -I/s/a -I ./b -include /p/k.h -c -o a.o a.c"));
    }

    #[test]
    fn other_commands_are_refused() {
        let error = |text: &str| CompileCommand::from_words(&words(text)).unwrap_err();
        assert_eq!(error("ld -r -o a.o b.o"), CompileError::NotCompiling);
        assert_eq!(error("true"), CompileError::NotCompiling);
        assert_eq!(error("-c -o a.o a.c"), CompileError::NotCompiling);
        assert_eq!(error("gcc -c a.c"), CompileError::NoOutput);
        assert_eq!(error("gcc -c -o a.o"), CompileError::Sources(0));
        assert_eq!(error("gcc -c -o a.o a.c b.c"), CompileError::Sources(2));
        assert_eq!(error("gcc -c a.c -o"), CompileError::NoArgument("-o".into()));
        assert_eq!(error("gcc -c -o a.o @args"), CompileError::ResponseFile("@args".into()));
    }
}
