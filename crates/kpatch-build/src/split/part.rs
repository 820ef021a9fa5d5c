//! A part of a patch, and what became of it, in words.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;

/// Some of the patches' hunks, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The hunks, by file.
    pub files: Vec<FilePart>,
    /// What became of them.
    pub outcome: Outcome,
    /// Why they are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Error>,
}

/// Hunks of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilePart {
    /// The patch file.
    pub patch: PathBuf,
    /// The file that is patched.
    pub file: PathBuf,
    /// Numbers of the hunks in that file's patch, from 1; none where the file is created, deleted or renamed as a whole.
    pub hunks: Vec<usize>,
    /// Their lines in the patch file.
    pub lines: Vec<usize>,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It can be built alone.
    Builds,
    /// Alone, it changes no code.
    NoChange,
    /// It can be built with the parts before it that can be built.
    BuildsWithOthers,
    /// It is refused.
    Refused,
    /// All that can be built can be built as one.
    Together,
}

impl fmt::Display for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.hunks.as_slice() {
            [] => {}
            [hunk] => write!(f, " hunk {hunk}")?,
            hunks => write!(f, " hunks {}", Ranges(hunks))?,
        }
        let (noun, name) = (if self.lines.len() == 1 { "line" } else { "lines" }, self.patch.file_name());
        let lines: Vec<String> = self.lines.iter().map(ToString::to_string).collect();
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write!(f, " ({noun} {} of {name})", lines.join(", "))
    }
}

/// Ascending numbers, those that follow each other joined: `1-3, 5`.
struct Ranges<'n>(&'n [usize]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            run => run.iter().map(ToString::to_string).collect(),
        });
        f.write_str(&runs.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(ToString::to_string).collect();
        let files = files.join("; ");
        match self.outcome {
            Outcome::Builds => write!(f, "{files}: can be built alone"),
            Outcome::NoChange => write!(f, "{files}: no functional change alone"),
            Outcome::BuildsWithOthers => {
                write!(f, "{files}: can be built with all of the above that can be built")
            }
            Outcome::Together => write!(f, "what can be built as one: {files}"),
            Outcome::Refused => {
                write!(f, "{files}: refused")?;
                for error in &self.errors {
                    write!(f, "\n  {} [kpatch::{}::{}]", error.headline(), error.phase, error.code)?;
                }
                Ok(())
            }
        }
    }
}
