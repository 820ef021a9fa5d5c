//! The one form in which every phase reports what went wrong.
//!
//! A phase has its own `thiserror` enum where it has several causes to tell apart; it becomes an [`Error`]
//! on the way out, so that all errors of a run can be collected, sorted and shown together. Only the edge
//! (`report`) decides how that looks.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::phase::Phase;

/// A stable name for one kind of error: lower case, words joined by `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Code(&'static str);

impl Code {
    /// The code of that name.
    pub const fn new(name: &'static str) -> Code {
        Code(name)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Another run is not to be blamed: the user interrupted this one.
    pub const INTERRUPTED: Code = Code("interrupted");
    /// A file operation failed.
    pub const IO: Code = Code("io");
}

impl From<&'static str> for Code {
    fn from(name: &'static str) -> Code {
        Code(name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What went wrong, where, why, and what to do about it.
///
/// Made with [`Error::new`] and the methods named like the fields of [`Details`], which it leads to. It is one
/// pointer, since every fallible function returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Error(Box<Details>);

impl Deref for Error {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

/// All that is known about an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Details {
    /// What kind of error it is.
    pub code: Code,
    /// The phase that found it.
    pub phase: Phase,
    /// The file it is about: relative to the source tree where it is of the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in that file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The function (or datum) it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Why, possibly over many lines: what a program said, what was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Where the text of `file` can be read, if it is not at that path itself.
    #[serde(skip)]
    pub text: Option<PathBuf>,
}

impl Error {
    /// An error with nothing but a message.
    #[must_use]
    pub fn new(phase: Phase, code: impl Into<Code>, message: impl fmt::Display) -> Error {
        Error(Box::new(Details {
            code: code.into(),
            phase,
            file: None,
            line: None,
            function: None,
            message: message.to_string(),
            cause: None,
            remedy: None,
            text: None,
        }))
    }

    /// A file operation that failed, as in `Error::io(phase, "read", path)`, to be given to `map_err`.
    pub fn io(phase: Phase, action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let message = format!("cannot {action} {}", path.display());
        move |source| Error::new(phase, Code::IO, message).cause(source)
    }

    /// The run was ended by a signal.
    #[must_use]
    pub fn interrupted(phase: Phase) -> Error {
        Error::new(phase, Code::INTERRUPTED, "interrupted")
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Error {
        self.0.file = Some(file.into());
        self
    }

    /// Names the line; 0, which is how debug information says that there is none, leaves it open.
    #[must_use]
    pub fn line(mut self, line: impl TryInto<u32>) -> Error {
        self.0.line = line.try_into().ok().filter(|&line| line != 0);
        self
    }

    /// Names the function or datum.
    #[must_use]
    pub fn function(mut self, function: impl fmt::Display) -> Error {
        self.0.function = Some(function.to_string());
        self
    }

    /// Says why.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Error {
        let cause = cause.to_string();
        self.0.cause = (!cause.is_empty()).then_some(cause);
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Error {
        self.0.remedy = Some(remedy.to_string());
        self
    }

    /// Says where the text of the file can be read, so that the line itself can be shown.
    #[must_use]
    pub fn text(mut self, path: impl Into<PathBuf>) -> Error {
        self.0.text = Some(path.into());
        self
    }

    /// `file:line` as far as it is known.
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_ref()?.display();
        Some(match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_string(),
        })
    }

    /// Place, function and message in one line.
    pub fn headline(&self) -> String {
        let mut text = String::new();
        if let Some(place) = self.place() {
            text.push_str(&place);
            text.push_str(": ");
        }
        if let Some(function) = self.function.as_ref().filter(|name| !mentions(&self.message, name)) {
            text.push_str(function);
            text.push_str(": ");
        }
        text + &self.message
    }
}

/// True if the message has the name as a word of its own, so that it need not be put before it.
fn mentions(message: &str, name: &str) -> bool {
    message.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).any(|word| word == name)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())
    }
}

impl std::error::Error for Error {}

/// Sorts errors into the order of phases, files and lines, which does not depend on which thread was first,
/// and drops repetitions.
pub fn arrange(errors: &mut Vec<Error>) {
    // With an interruption, everything else is what it caused.
    if let Some(at) = errors.iter().position(|error| error.code == Code::INTERRUPTED) {
        errors.swap(0, at);
        errors.truncate(1);
        return;
    }
    errors.sort_by(|a, b| {
        let key = |e: &Error| (e.phase, e.file.clone(), e.line, e.function.clone());
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    errors.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_says_each_thing_once() {
        let error =
            Error::new(Phase::Diff, "init-changed", "meminfo_init in .init.text is freed after start")
                .file("fs/proc/meminfo.c")
                .line(150)
                .function("meminfo_init");
        let text = "fs/proc/meminfo.c:150: meminfo_init in .init.text is freed after start";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.function("meminfo").headline(), text.replacen(": ", ": meminfo: ", 1));
    }

    #[test]
    fn line_zero_is_none() {
        assert_eq!(Error::new(Phase::Diff, "x", "y").line(0).line, None);
    }

    #[test]
    fn errors_are_in_order_and_once() {
        let error = |phase, file: &str, line: u32| Error::new(phase, "x", "m").file(file).line(line);
        let mut errors = vec![
            error(Phase::Diff, "b.c", 1),
            error(Phase::Compile, "b.c", 9),
            error(Phase::Compile, "b.c", 2),
            error(Phase::Diff, "b.c", 1),
        ];
        arrange(&mut errors);
        let places: Vec<_> = errors.iter().map(|e| (e.phase, e.line)).collect();
        let expected = [(Phase::Compile, Some(2)), (Phase::Compile, Some(9)), (Phase::Diff, Some(1))];
        assert_eq!(places, expected);
        errors.push(Error::interrupted(Phase::Compile));
        arrange(&mut errors);
        assert_eq!(errors, [Error::interrupted(Phase::Compile)]);
    }
}
