//! A program that runs compilers, such as ccache or distcc.

use crate::environment::Environment;

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
