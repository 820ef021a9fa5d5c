//! Reads unified diffs, plain and as git makes them, with the text around them.
//!
//! Every line that could be part of a change is understood or is an error. Text between changes, as in mails
//! and commit messages, is skipped.

use std::path::PathBuf;

use bstr::ByteSlice;

use super::change::{Action, FilePatch, Hunk, Line, LineKind};
use super::name::tree_path;
use super::problem::{ParseError, Problem};

/// Reads a patch file. All that is wrong with it is reported.
pub fn parse(text: &[u8]) -> Result<Vec<FilePatch>, Vec<ParseError>> {
    let mut parser = Parser {
        lines: text.lines_with_terminator().collect(),
        at: 0,
        files: Vec::new(),
        errors: Vec::new(),
    };
    parser.run();
    if parser.files.is_empty() && parser.errors.is_empty() {
        parser.errors.push(ParseError { line: 1, problem: Problem::Empty });
    }
    if parser.errors.is_empty() { Ok(parser.files) } else { Err(parser.errors) }
}

struct Parser<'t> {
    lines: Vec<&'t [u8]>,
    at: usize,
    files: Vec<FilePatch>,
    errors: Vec<ParseError>,
}

/// What git says about a file before its hunks: each line of it is there or not.
#[allow(clippy::struct_excessive_bools)]
#[derive(Default)]
struct GitHeader<'t> {
    /// Behind `diff --git `.
    names: &'t [u8],
    renamed: Option<(&'t [u8], &'t [u8])>,
    copied: bool,
    created: bool,
    deleted: bool,
    binary: bool,
    special: bool,
}

/// The name of a file in `---` and `+++`.
enum Name<'t> {
    /// `/dev/null`, or a time stamp that says that there is no such file.
    Nothing,
    Path(&'t [u8]),
}

impl<'t> Parser<'t> {
    /// A line without its end, `offset` lines ahead.
    fn peek(&self, offset: usize) -> Option<&'t [u8]> {
        self.lines.get(self.at + offset).map(|line| trim_end(line))
    }

    fn fail(&mut self, index: usize, problem: Problem) {
        self.errors.push(ParseError { line: index + 1, problem });
    }

    fn run(&mut self) {
        while let Some(line) = self.peek(0) {
            if line.starts_with(b"diff --git ") {
                self.git();
            } else if self.at_file_header() {
                let start = self.at;
                self.file(start, None);
            } else if line.starts_with(b"*** ")
                && self.peek(1).is_some_and(|l| l.starts_with(b"--- "))
                && self.peek(2).is_some_and(|l| l.starts_with(b"***************"))
            {
                self.fail(self.at, Problem::ContextDiff);
                return;
            } else if line.starts_with(b"@@ -") && hunk_header(line).is_some() {
                self.fail(self.at, Problem::NoFile);
                self.at += 1;
            } else {
                self.at += 1;
            }
        }
    }

    fn at_file_header(&self) -> bool {
        self.peek(0).is_some_and(|l| l.starts_with(b"--- "))
            && self.peek(1).is_some_and(|l| l.starts_with(b"+++ "))
    }

    fn git(&mut self) {
        let start = self.at;
        let mut header = GitHeader {
            names: self.peek(0).and_then(|line| line.strip_prefix(b"diff --git ")).unwrap_or_default(),
            ..GitHeader::default()
        };
        self.at += 1;
        let mut from = None;
        while let Some(line) = self.peek(0) {
            if let Some(mode) = line.strip_prefix(b"new file mode ") {
                header.created = true;
                header.special |= is_special(mode);
            } else if let Some(mode) = line.strip_prefix(b"deleted file mode ") {
                header.deleted = true;
                header.special |= is_special(mode);
            } else if let Some(mode) =
                line.strip_prefix(b"old mode ").or_else(|| line.strip_prefix(b"new mode "))
            {
                header.special |= is_special(mode);
            } else if let Some(name) =
                line.strip_prefix(b"rename from ").or_else(|| line.strip_prefix(b"copy from "))
            {
                from = Some(name);
            } else if let Some(name) =
                line.strip_prefix(b"rename to ").or_else(|| line.strip_prefix(b"copy to "))
            {
                header.copied = line.starts_with(b"copy");
                header.renamed = from.map(|from| (from, name));
            } else if let Some(rest) = line.strip_prefix(b"index ") {
                header.special |= rest.rsplit(|&byte| byte == b' ').next().is_some_and(is_special);
            } else if line == b"GIT binary patch"
                || (line.starts_with(b"Binary files ") && line.ends_with(b" differ"))
            {
                header.binary = true;
            } else if !(line.starts_with(b"similarity index ") || line.starts_with(b"dissimilarity index ")) {
                break;
            }
            self.at += 1;
        }
        if header.binary || header.special {
            let path = lossy(header.names.split_str(" b/").next().unwrap_or_default());
            let path = path.strip_prefix("a/").unwrap_or(&path).to_owned();
            let binary = header.binary;
            self.fail(start, if binary { Problem::Binary { path } } else { Problem::NotAFile { path } });
            self.skip_file();
        } else if self.at_file_header() {
            self.file(start, Some(&header));
        } else {
            self.without_hunks(start, &header);
        }
    }

    /// A change that git can express without hunks: a mode, a name, an empty file.
    fn without_hunks(&mut self, start: usize, header: &GitHeader<'t>) {
        let action = match header.renamed {
            Some((from, to)) => self.renamed(start, from, to, header.copied),
            None => self.git_name(start, header).map(|path| {
                if header.created {
                    Action::Create(path)
                } else if header.deleted {
                    Action::Delete(path)
                } else {
                    Action::Modify(path.clone(), path)
                }
            }),
        };
        if let Some(action) = action {
            self.files.push(FilePatch { line: start + 1, action, hunks: Vec::new() });
        }
    }

    fn renamed(&mut self, index: usize, from: &[u8], to: &[u8], copied: bool) -> Option<Action> {
        let from = self.path(index, from, 0)?;
        let to = self.path(index, to, 0)?;
        Some(if copied { Action::Copy(from, to) } else { Action::Rename(from, to) })
    }

    /// The name in `diff --git a/NAME b/NAME`, where both are the same.
    fn git_name(&mut self, index: usize, header: &GitHeader<'t>) -> Option<PathBuf> {
        let half = header.names.len() / 2;
        let name = match header.names.get(half) {
            Some(b' ') => &header.names[..half],
            _ => header.names,
        };
        self.path(index, name, 1)
    }

    /// The change of one file, from its `---` line on.
    fn file(&mut self, start: usize, git: Option<&GitHeader<'t>>) {
        let header = self.at;
        let (old, new) = (self.name(0), self.name(1));
        // Made on another system: the line ends are the mail's, not the kernel's.
        let strip_cr = self.lines[header].ends_with(b"\r\n");
        self.at += 2;
        let errors = self.errors.len();
        let hunks = self.hunks(strip_cr);
        if hunks.is_empty() && errors == self.errors.len() {
            self.fail(header, Problem::NoHunks);
        }
        let renamed = git.and_then(|git| git.renamed.map(|names| (names, git.copied)));
        let action = if let Some(((from, to), copied)) = renamed {
            self.renamed(header, from, to, copied)
        } else {
            match (old, new) {
                (Name::Nothing, Name::Nothing) => {
                    let reason = "cannot be the name of both files";
                    self.fail(header, Problem::Path { path: "/dev/null".to_owned(), reason });
                    None
                }
                (Name::Nothing, Name::Path(new)) => self.path(header + 1, new, 1).map(Action::Create),
                (Name::Path(old), Name::Nothing) => self.path(header, old, 1).map(Action::Delete),
                (Name::Path(old), Name::Path(new)) => {
                    // One complaint about a file is enough, so the second name waits for the first.
                    self.path(header, old, 1)
                        .and_then(|old| Some(Action::Modify(old, self.path(header + 1, new, 1)?)))
                }
            }
        };
        if let Some(action) = action.filter(|_| !hunks.is_empty()) {
            self.files.push(FilePatch { line: start + 1, action, hunks });
        }
    }

    /// The name in the `---` or `+++` line `offset` lines ahead.
    fn name(&self, offset: usize) -> Name<'t> {
        let line = self.peek(offset).and_then(|line| line.get(4..)).unwrap_or_default();
        let (name, stamp) = match line.split_once_str("\t") {
            Some((name, stamp)) => (name, stamp),
            None => (line, &b""[..]),
        };
        // diff -N stamps a file that does not exist with the epoch, in whatever time zone.
        let absent = [&b"1970-01-01 "[..], b"1969-12-31 "].iter().any(|day| stamp.starts_with(day));
        if absent || name == b"/dev/null" { Name::Nothing } else { Name::Path(name) }
    }

    fn hunks(&mut self, strip_cr: bool) -> Vec<Hunk> {
        let mut hunks = Vec::new();
        while let Some(line) = self.peek(0).filter(|line| line.starts_with(b"@@")) {
            let Some(header) = hunk_header(line) else {
                self.fail(self.at, Problem::HunkHeader { header: lossy(line) });
                self.skip_file();
                break;
            };
            let start = self.at;
            self.at += 1;
            match self.hunk_lines(&header, strip_cr) {
                Ok(lines) => hunks.push(Hunk {
                    line: start + 1,
                    old_start: header.old_start,
                    new_start: header.new_start,
                    lines,
                }),
                Err((index, problem)) => {
                    // A line that is not there cannot be shown; the header that promises it can.
                    self.fail(if index < self.lines.len() { index } else { start }, problem);
                    self.skip_file();
                    break;
                }
            }
        }
        hunks
    }

    fn hunk_lines(&mut self, header: &HunkHeader, strip_cr: bool) -> Result<Vec<Line>, (usize, Problem)> {
        let (mut old, mut new) = (header.old_count, header.new_count);
        let mut lines: Vec<Line> = Vec::new();
        while old > 0 || new > 0 {
            let Some(&raw) = self.lines.get(self.at) else { return Err((self.at, Problem::HunkShort)) };
            if raw.starts_with(b"\\") {
                self.no_newline(&mut lines)?;
                continue;
            }
            let (kind, text) = match raw.split_first() {
                Some((b' ', text)) => (LineKind::Context, text),
                Some((b'-', text)) => (LineKind::Removed, text),
                Some((b'+', text)) => (LineKind::Added, text),
                // An empty line whose blank got lost on the way.
                Some((b'\n' | b'\r', _)) => (LineKind::Context, raw),
                _ => return Err((self.at, Problem::HunkShort)),
            };
            let left = match kind {
                LineKind::Context if old > 0 && new > 0 => {
                    old -= 1;
                    &mut new
                }
                LineKind::Removed if old > 0 => &mut old,
                LineKind::Added if new > 0 => &mut new,
                _ => return Err((self.at, Problem::HunkShort)),
            };
            *left -= 1;
            let mut text = text.to_owned();
            if strip_cr && text.ends_with(b"\r\n") {
                text.truncate(text.len() - 2);
                text.push(b'\n');
            }
            // The patch file itself may lack its last newline; the line it describes does not.
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            lines.push(Line { kind, text });
            self.at += 1;
        }
        if self.peek(0).is_some_and(|line| line.starts_with(b"\\ ")) {
            self.no_newline(&mut lines)?;
        }
        match self.peek(0) {
            // The end of a mail, `-- ` and then a version, is none of the hunk's lines.
            Some(line) if line == b"-- " || line == b"--" || self.at_file_header() => {}
            Some(line) if line.starts_with(b"-") || line.starts_with(b"+") => {
                return Err((self.at, Problem::HunkLong));
            }
            _ => {}
        }
        Ok(lines)
    }

    /// `\ No newline at end of file` is about the line before.
    fn no_newline(&mut self, lines: &mut [Line]) -> Result<(), (usize, Problem)> {
        match lines.last_mut() {
            Some(last) if last.text.ends_with(b"\n") => {
                last.text.pop();
                self.at += 1;
                Ok(())
            }
            _ => Err((self.at, Problem::StrayRemark)),
        }
    }

    /// Goes to the next file, after an error.
    fn skip_file(&mut self) {
        while let Some(line) = self.peek(0) {
            if line.starts_with(b"diff --git ") || self.at_file_header() {
                return;
            }
            self.at += 1;
        }
    }

    /// The path below the source tree, without its first `strip` components.
    fn path(&mut self, index: usize, name: &[u8], strip: usize) -> Option<PathBuf> {
        match tree_path(name, strip) {
            Ok(path) => Some(path),
            Err(reason) => {
                self.fail(index, Problem::Path { path: lossy(name), reason });
                None
            }
        }
    }
}

/// True for the modes of symbolic links and submodules.
fn is_special(mode: &[u8]) -> bool {
    mode.starts_with(b"120") || mode.starts_with(b"160")
}

struct HunkHeader {
    old_start: u64,
    old_count: u64,
    new_start: u64,
    new_count: u64,
}

/// Understands `@@ -OLD[,COUNT] +NEW[,COUNT] @@`.
fn hunk_header(line: &[u8]) -> Option<HunkHeader> {
    let line = line.to_str_lossy();
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(u64, u64)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| -> Option<u64> {
            if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
        };
        let (start, count) = (number(start)?, number(count)?);
        // Only an empty range can come before the first line.
        (start.checked_add(count).is_some() && (start > 0 || count == 0)).then_some((start, count))
    };
    let ((old_start, old_count), (new_start, new_count)) = (range(old)?, range(new)?);
    (old_count > 0 || new_count > 0).then_some(HunkHeader { old_start, old_count, new_start, new_count })
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn lossy(text: &[u8]) -> String {
    text.to_str_lossy().into_owned()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
