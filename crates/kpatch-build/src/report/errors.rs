//! How errors look: one block each, with place, cause and remedy, and the source line where it is at hand.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan,
    ThemeCharacters, ThemeStyles,
};

use crate::error::Error;

/// Longest source file that is read to show a line of it.
const MAX_SOURCE: u64 = 16 << 20;

/// What the place where errors go can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) color: bool,
    pub(super) unicode: bool,
    pub(super) width: usize,
}

/// Columns for text that people read.
pub(super) fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|&columns| columns > 0)
        .unwrap_or(100)
        .clamp(60, 120)
}

/// The errors as plain text, for a file or a program that reads the standard error.
pub fn render(errors: &[Error]) -> String {
    render_as(errors, Style { color: false, unicode: false, width: 100 })
}

pub(super) fn render_as(errors: &[Error], style: Style) -> String {
    let mut characters = if style.unicode { ThemeCharacters::unicode() } else { ThemeCharacters::ascii() };
    // Scripts look for this word at the start of a line.
    "ERROR:".clone_into(&mut characters.error);
    let theme = GraphicalTheme {
        characters,
        styles: if style.color { ThemeStyles::ansi() } else { ThemeStyles::none() },
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(style.width)
        .with_links(false)
        .with_context_lines(2)
        // Compiler output and disassembly lose their sense when they are wrapped.
        .with_wrap_lines(false)
        .with_break_words(false);
    let blocks = errors.iter().map(|error| {
        let mut block = String::new();
        let shown = Shown::new(error);
        if handler.render_report(&mut block, &shown).is_err() {
            // Never seen; an error that is not shown would be worse than one without decoration.
            block = shown.to_string();
        }
        block.trim().to_owned() + "\n"
    });
    blocks.collect::<Vec<_>>().join("\n")
}

/// An error in the form that miette shows.
#[derive(Debug)]
struct Shown<'a> {
    error: &'a Error,
    cause: Option<Cause>,
    source: Option<NamedSource<String>>,
    span: Option<SourceSpan>,
}

impl<'a> Shown<'a> {
    fn new(error: &'a Error) -> Shown<'a> {
        let (source, span) = match excerpt(error) {
            Some((source, span)) => (Some(source), Some(span)),
            None => (None, None),
        };
        Shown { error, cause: error.cause.clone().map(Cause), source, span }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [kpatch::{}::{}]", self.error.headline(), self.error.phase, self.error.code)
    }
}

impl std::error::Error for Shown<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.error.remedy.as_ref().map(|remedy| Box::new(remedy) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, span))))
    }
}

/// The reason behind an error, as a link of the chain that miette follows.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl std::error::Error for Cause {}

/// The text of the file that an error is about, and where its line is, if both are known and can be read.
fn excerpt(error: &Error) -> Option<(NamedSource<String>, SourceSpan)> {
    let file = error.file.as_ref()?;
    let line = usize::try_from(error.line?).ok()?;
    let path = error.text.as_ref()?;
    if std::fs::metadata(path).ok()?.len() > MAX_SOURCE {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let whole = text.get(start..)?.lines().next()?;
    let code = whole.trim_start();
    let span = SourceSpan::from((start + whole.len() - code.len(), code.trim_end().len()));
    Some((NamedSource::new(file.display().to_string(), text), span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;

    #[test]
    fn an_error_with_everything() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("a.c");
        std::fs::write(&text, "int a;\n\nint f(void)\n{\n\treturn b;\n}\n").unwrap();
        let error = Error::new(Phase::Compile, "compiler-error", "the patched source does not compile")
            .file("fs/a.c")
            .line(5)
            .text(&text)
            .cause("fs/a.c: In function 'f':\nfs/a.c:5:16: error: 'b' undeclared\n    5 |         return b;\n      |                ^\n")
            .remedy("correct the patch");
        insta::assert_snapshot!(render(std::slice::from_ref(&error)), @r"
        ERROR: fs/a.c:5: the patched source does not compile [kpatch::compile::compiler-error]
          `-> fs/a.c: In function 'f':
              fs/a.c:5:16: error: 'b' undeclared
                  5 |         return b;
                    |                ^
           ,-[fs/a.c:5:2]
         3 | int f(void)
         4 | {
         5 |     return b;
           :     ^^^^^^^^^
         6 | }
           `----
          help: correct the patch
        ");
        let colored = render_as(&[error], Style { color: true, unicode: true, width: 80 });
        assert!(colored.contains("\u{1b}["), "{colored}");
    }

    #[test]
    fn errors_stand_one_after_the_other() {
        let first = Error::new(Phase::Diff, "init-function", "is in .init.text, which is freed after boot")
            .file("fs/a.c")
            .function("setup");
        let second =
            Error::new(Phase::Parse, "not-applicable", "hunk 1 does not apply").file("fs/b.c").line(3);
        insta::assert_snapshot!(render(&[first, second]), @r"
        ERROR: fs/a.c: setup: is in .init.text, which is freed after boot [kpatch::diff::init-function]

        ERROR: fs/b.c:3: hunk 1 does not apply [kpatch::parse::not-applicable]
        ");
    }

    #[test]
    fn a_line_that_is_not_there_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("a.c");
        std::fs::write(&text, b"one\n\xff\n").unwrap();
        let error = |line: u32| Error::new(Phase::Parse, "x", "y").file("a.c").line(line).text(&text);
        assert!(excerpt(&error(2)).is_some());
        assert!(excerpt(&error(4)).is_none());
        assert!(excerpt(&error(1).text("/nonexistent")).is_none());
    }
}
