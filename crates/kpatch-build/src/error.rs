//! What a run can fail with, as values that every phase fills in and the edge renders once.

use std::fmt;
use std::path::PathBuf;

use crate::events::Phase;

/// The stable code of an error, `kpatch::plan::not-compiled`. Codes are never reused for another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub &'static str);

/// One reason why there is no module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Stable code, without the phase.
    pub code: Code,
    /// The phase that failed.
    pub phase: Phase,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The file it is about, as the user knows it.
    pub file: Option<PathBuf>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// The function or datum it is about.
    pub symbol: Option<String>,
    /// Why, as far as it is known: details, compiler output.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Error {
    /// An error with its one sentence.
    pub fn new(phase: Phase, code: &'static str, message: impl Into<String>) -> Error {
        Error {
            code: Code(code),
            phase,
            message: message.into(),
            file: None,
            line: None,
            symbol: None,
            cause: None,
            remedy: None,
        }
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Error {
        self.file = Some(file.into());
        self
    }

    /// Names the line.
    #[must_use]
    pub fn line(mut self, line: u32) -> Error {
        self.line = Some(line);
        self
    }

    /// Names the function or datum.
    #[must_use]
    pub fn symbol(mut self, symbol: impl Into<String>) -> Error {
        self.symbol = Some(symbol.into());
        self
    }

    /// Says why.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Error {
        self.cause = Some(cause.to_string());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// Phase and code, as they are printed and documented.
    pub fn full_code(&self) -> String {
        format!("kpatch::{}::{}", self.phase.name(), self.code.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(symbol) = &self.symbol {
            write!(f, "{symbol}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// All errors of a run; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl From<Error> for Errors {
    fn from(error: Error) -> Errors {
        Errors(vec![error])
    }
}

impl Errors {
    /// `Ok` where nothing was collected.
    pub fn check(errors: Vec<Error>) -> Result<(), Errors> {
        if errors.is_empty() { Ok(()) } else { Err(Errors(errors)) }
    }
}
