//! The kernel's configuration: `.config`, `config-RELEASE` or `include/config/auto.conf`.
//!
//! All three have one syntax: `CONFIG_NAME=VALUE` lines, comments, and `# CONFIG_NAME is not set`, which is the
//! same as no line at all.

use std::collections::BTreeMap;

use bstr::ByteSlice;
use thiserror::Error;

/// A line that is none of a configuration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("kernel configuration line {line}: {what}")]
pub struct ConfigError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The value of a set option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `y`.
    Yes,
    /// `m`.
    Module,
    /// A string, without its quotes.
    Text(String),
    /// A number, decimal or hexadecimal, as it is written.
    Number(String),
}

/// When objtool sees the code of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjtoolTime {
    /// The kernel is built without it.
    Never,
    /// Once per compiled object, as part of the compile command.
    Early,
    /// Once per linked object: `vmlinux.o` and every module.
    Late,
}

/// A kernel's configuration. Names are given without `CONFIG_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, Value>,
}

impl Config {
    /// Parses the file's bytes. A later line overrides an earlier one, as it does for make.
    pub fn parse(text: &[u8]) -> Result<Config, ConfigError> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let error = |what| ConfigError { line: index + 1, what };
            let line = line.trim_end().to_str().map_err(|_| error("not valid UTF-8"))?;
            if line.is_empty() {
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                let unset =
                    comment.trim().strip_prefix("CONFIG_").and_then(|c| c.strip_suffix(" is not set"));
                if let Some(name) = unset {
                    values.remove(name);
                }
                continue;
            }
            let (name, value) = line
                .strip_prefix("CONFIG_")
                .and_then(|setting| setting.split_once('='))
                .ok_or(error("neither a comment nor CONFIG_NAME=VALUE"))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(error("not an option's name"));
            }
            let value = match value {
                "y" => Value::Yes,
                "m" => Value::Module,
                "n" => {
                    values.remove(name);
                    continue;
                }
                text if text.starts_with('"') => {
                    Value::Text(unquote(text).ok_or(error("a string without its end"))?)
                }
                // auto.conf of 6.12 and later writes strings without quotes.
                text if !is_number(text) => Value::Text(text.to_owned()),
                number => Value::Number(number.to_owned()),
            };
            values.insert(name.to_owned(), value);
        }
        Ok(Config { values })
    }

    /// The value of an option, `None` where it is not set.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// True if the option is `y`.
    pub fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Yes)
    }

    /// True if the option is `m`.
    pub fn is_module(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Module)
    }

    /// True if the option has any value.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The string that the option is set to.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number that the option is set to.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => match number.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => number.parse().ok(),
            },
            _ => None,
        }
    }

    /// All options that are set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The kernel can load livepatches.
    pub fn livepatch(&self) -> bool {
        self.is_yes("LIVEPATCH")
    }

    /// Exported symbols carry checksums of their types.
    pub fn modversions(&self) -> bool {
        self.is_yes("MODVERSIONS")
    }

    /// The version line of the compiler that the kernel was built with.
    pub fn compiler(&self) -> Option<&str> {
        self.text("CC_VERSION_TEXT")
    }

    /// The kernel was built by clang.
    pub fn is_clang(&self) -> bool {
        self.is_yes("CC_IS_CLANG")
    }

    /// The kernel was linked from the compiler's intermediate code.
    pub fn is_lto(&self) -> bool {
        self.is_yes("LTO_CLANG") || self.is_yes("LTO_GCC")
    }

    /// When objtool sees the code of an object.
    ///
    /// `scripts/Makefile.lib` of 5.19 and later delays it (`delay-objtool`) for IBT and for LTO.
    pub fn objtool_time(&self) -> ObjtoolTime {
        if self.is_yes("X86_KERNEL_IBT") || self.is_lto() || self.is_yes("KLP_BUILD") {
            return ObjtoolTime::Late;
        }
        // OBJTOOL came with 5.19; STACK_VALIDATION stands for it before. 6.19 delays always where it can.
        if self.is_yes("OBJTOOL") || self.is_yes("STACK_VALIDATION") {
            return ObjtoolTime::Early;
        }
        ObjtoolTime::Never
    }

    /// objtool processes linked objects, not single ones.
    pub fn objtool_is_late(&self) -> bool {
        self.objtool_time() == ObjtoolTime::Late
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.strip_prefix("0x") {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// The text between quotes; Kconfig escapes quotes and backslashes.
fn unquote(quoted: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = quoted.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_value() {
        let config = Config::parse(
            b"#\n# Automatically generated file; DO NOT EDIT.\n#\n\
              CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0\"\n\
              CONFIG_LIVEPATCH=y\n# CONFIG_MODVERSIONS is not set\nCONFIG_EXT4_FS=m\nCONFIG_HZ=250\n\
              CONFIG_BASE=0xff\nCONFIG_NOTHING=\"\"\nCONFIG_SAYS=\"a \\\"b\\\" \\\\\"\nCONFIG_BARE=gcc (x) 1\n",
        )
        .unwrap();
        assert!(config.livepatch() && !config.modversions() && config.is_module("EXT4_FS"));
        assert_eq!(config.compiler(), Some("x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"));
        assert_eq!((config.number("HZ"), config.number("BASE")), (Some(250), Some(255)));
        assert_eq!(config.text("NOTHING"), Some(""));
        assert_eq!(config.text("SAYS"), Some("a \"b\" \\"));
        assert_eq!(config.text("BARE"), Some("gcc (x) 1"));
    }

    #[test]
    fn the_last_line_counts() {
        let config =
            Config::parse(b"CONFIG_A=y\n# CONFIG_A is not set\nCONFIG_B=n\nCONFIG_C=m\nCONFIG_C=y\n");
        let config = config.unwrap();
        assert!(!config.is_set("A") && !config.is_set("B") && config.is_yes("C"));
    }

    #[test]
    fn objtool_time_follows_the_options() {
        let time = |text: &str| Config::parse(text.as_bytes()).unwrap().objtool_time();
        assert_eq!(time(""), ObjtoolTime::Never);
        assert_eq!(time("CONFIG_OBJTOOL=y\n"), ObjtoolTime::Early);
        assert_eq!(time("CONFIG_STACK_VALIDATION=y\n"), ObjtoolTime::Early);
        assert_eq!(time("CONFIG_OBJTOOL=y\nCONFIG_X86_KERNEL_IBT=y\n"), ObjtoolTime::Late);
        assert_eq!(time("CONFIG_OBJTOOL=y\nCONFIG_LTO_CLANG=y\n"), ObjtoolTime::Late);
    }

    #[test]
    fn what_is_no_configuration_is_an_error_with_its_line() {
        for (text, line) in [
            (&b"CONFIG_A=y\nhello\n"[..], 2),
            (b"CONFIG_=y\n", 1),
            (b"CONFIG_A B=y\n", 1),
            (b"CONFIG_A=\"x\n", 1),
            (b"CONFIG_A=\"x\"y\n", 1),
            (b"CONFIG_A=\"x\\\n", 1),
            (b"\n\xff\xfe\n", 2),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().line, line, "{}", text.as_bstr());
        }
    }
}
