//! What can be wrong with a patch file, and what helps.

use std::path::Path;

use thiserror::Error;

use crate::error::Error as RunError;
use crate::phase::Phase;

/// A patch file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Line in the patch file, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a patch file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Nothing in it is a change.
    #[error("there is no unified diff in this file")]
    Empty,
    /// A hunk's header is damaged.
    #[error("malformed hunk header: {header}")]
    HunkHeader {
        /// The header.
        header: String,
    },
    /// A hunk without a file.
    #[error("malformed patch: a hunk without the name of its file before it")]
    NoFile,
    /// A hunk has fewer or other lines than its header says.
    #[error("malformed patch: the hunk ends before the number of lines that its header says")]
    HunkShort,
    /// A hunk has more lines than its header says.
    #[error("malformed patch: the hunk goes on after the number of lines that its header says")]
    HunkLong,
    /// The remark about a missing newline stands alone.
    #[error("malformed patch: a remark about a missing newline without a line")]
    StrayRemark,
    /// Headers without what they announce.
    #[error("malformed patch: file header without a change")]
    NoHunks,
    /// A file name that cannot be used.
    #[error("path `{path}` {reason}")]
    Path {
        /// The path as it stands in the patch.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A binary file changes.
    #[error("{path}: unsupported patch to a binary file")]
    Binary {
        /// The file.
        path: String,
    },
    /// A symbolic link or a submodule changes.
    #[error("{path}: unsupported patch to a symbolic link or submodule")]
    NotAFile {
        /// The file.
        path: String,
    },
    /// Not a unified diff.
    #[error("this is a context diff")]
    ContextDiff,
}

impl Problem {
    fn code(&self) -> &'static str {
        match self {
            Problem::Empty => "empty-patch",
            Problem::HunkHeader { .. }
            | Problem::NoFile
            | Problem::HunkShort
            | Problem::HunkLong
            | Problem::StrayRemark
            | Problem::NoHunks => "malformed-patch",
            Problem::Path { .. } => "bad-path",
            Problem::Binary { .. } | Problem::NotAFile { .. } => "unsupported-file",
            Problem::ContextDiff => "not-unified",
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Problem::Empty | Problem::ContextDiff => {
                "make it with `git diff`, `git format-patch` or `diff -u`"
            }
            Problem::HunkHeader { .. }
            | Problem::NoFile
            | Problem::HunkShort
            | Problem::HunkLong
            | Problem::StrayRemark
            | Problem::NoHunks => "make the patch anew; it was damaged on its way or edited by hand",
            Problem::Path { .. } => {
                "paths are those of `patch -p1`: one directory (a/, b/), then the path below the source tree"
            }
            Problem::Binary { .. } | Problem::NotAFile { .. } => "leave this file out of the patch",
        }
    }
}

impl ParseError {
    /// The error of the run.
    pub fn into_error(self, patch: &Path) -> RunError {
        RunError::new(Phase::Parse, self.problem.code(), &self.problem)
            .file(patch)
            .line(if self.problem == Problem::Empty { 0 } else { self.line })
            .text(patch)
            .remedy(self.problem.remedy())
    }
}
