//! A program that runs compilers, such as ccache or distcc.

use std::path::PathBuf;

use kbuild::root::Root;

use crate::environment::Environment;

/// A launcher and what it may do.
#[derive(Clone, Debug, Default)]
pub struct Launcher {
    /// The words before the compiler; none to run compilers directly.
    pub words: Vec<String>,
    /// Directories that it writes to beside the compiler's, where that is all it does. Others, such as sccache, start a
    /// server that outlives the run: it may write what its user may.
    pub writable: Option<Vec<PathBuf>>,
}

impl Launcher {
    /// The launcher that the words name.
    pub fn new(words: Vec<String>, root: &Root, environment: &Environment) -> Launcher {
        let places = words.iter().map(|word| places(word, environment)).collect::<Option<Vec<_>>>();
        // In a root file system it has places that nobody here knows.
        let writable = places.map(|places| places.concat()).filter(|_| root.is_host());
        let usable = |places: &Vec<PathBuf>| places.iter().all(|place| fs_err::create_dir_all(place).is_ok());
        Launcher { words, writable: writable.filter(usable) }
    }

    /// What is to be said of a launcher that is not confined.
    pub fn warning(&self) -> Option<String> {
        let words = self.words.join(" ");
        let warning =
            || format!("{words}: compilers that it runs are not confined, they may write what you may");
        (!self.words.is_empty() && self.writable.is_none()).then(warning)
    }
}

/// Where a program keeps what it writes of its own; none where that is not known.
fn places(program: &str, environment: &Environment) -> Option<Vec<PathBuf>> {
    match program.rsplit('/').next()? {
        "ccache" if environment.ccache_prefix.is_none() => {
            let asked = |key: &str| {
                let answer = Root::Host.command(program).args(["--get-config", key]).run().ok()?;
                Some(PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim()))
            };
            Some(vec![asked("cache_dir")?, asked("temporary_dir")?])
        }
        "distcc" => {
            let home = || Some(environment.home.as_ref()?.join(".distcc"));
            Some(vec![environment.distcc_dir.clone().or_else(home)?])
        }
        _ => None,
    }
}

/// The words before the compiler: those that were asked for, else what `CC` says. The compiler itself is the kernel's,
/// called `compiler`.
pub fn words(asked_for: Option<&[String]>, environment: &Environment, compiler: &str) -> Vec<String> {
    if let Some(words) = asked_for {
        return words.to_vec();
    }
    let Some(cc) = environment.cc.as_ref().and_then(|cc| cc.to_str()) else { return Vec::new() };
    let mut words: Vec<String> = cc.split_whitespace().map(str::to_owned).collect();
    let is_compiler = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.contains("gcc") || name.contains("clang") || name == "cc" || *word == compiler
    };
    if words.last().is_some_and(is_compiler) {
        words.pop();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_with_a_server_is_not_confined() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { home: Some(home.path().to_owned()), ..Environment::default() };
        let launcher = |words: &[&str], root: &Root| {
            Launcher::new(words.iter().map(|word| (*word).to_owned()).collect(), root, &environment)
        };
        assert_eq!(launcher(&[], &Root::Host).writable, Some(Vec::new()));
        assert_eq!(launcher(&[], &Root::Host).warning(), None);
        let distcc = launcher(&["distcc"], &Root::Host).writable.unwrap();
        assert!(distcc == [home.path().join(".distcc")] && distcc[0].is_dir(), "{distcc:?}");
        let inside = Root::in_dir("/r", []);
        assert_eq!(launcher(&[], &inside).warning(), None);
        for (words, root) in [
            (&["sccache"][..], &Root::Host),
            (&["ccache-that-is-not-there", "distcc"], &Root::Host),
            (&["distcc", "icecc"], &Root::Host),
            (&["distcc"], &inside),
        ] {
            assert_eq!(launcher(words, root).writable, None, "{words:?}");
            let warning = launcher(words, root).warning().unwrap();
            assert!(warning.starts_with(&words.join(" ")), "{warning}");
        }
    }

    #[test]
    fn words_before_the_compiler_are_the_launcher() {
        for (cc, expected) in [
            ("gcc", ""),
            ("ccache gcc", "ccache"),
            ("ccache distcc /usr/bin/gcc-12", "ccache distcc"),
            ("distcc", "distcc"),
            ("sccache x86_64-linux-gnu-gcc-12", "sccache"),
        ] {
            let environment = Environment { cc: Some(cc.into()), ..Environment::default() };
            assert_eq!(words(None, &environment, "x86_64-linux-gnu-gcc-12").join(" "), expected, "{cc}");
            let asked = ["icecc".to_owned()];
            assert_eq!(words(Some(&asked), &environment, "gcc"), asked);
        }
    }
}
