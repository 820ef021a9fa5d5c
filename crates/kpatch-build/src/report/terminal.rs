//! The report for people: lines, and on a terminal a bar below them.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use super::lines::{self, Weight};
use super::pace::Pace;
use super::time::Times;
use super::{Outcome, Output, Reporter, errors};
use crate::events::Event;
use crate::options::Display;
use crate::phase::Phase;

/// Lines without a bar: in a pipe, in a log, with `--quiet`.
pub(super) struct Lines {
    pub(super) out: Output,
    pub(super) err: Output,
    pub(super) display: Display,
    pub(super) errors: errors::Style,
    pub(super) times: Times,
    pub(super) pace: Pace,
}

/// Lines with a bar.
pub(super) struct Terminal {
    lines: Lines,
    bar: ProgressBar,
}

impl Lines {
    fn print(&mut self, event: &Event) {
        let Some((weight, text)) = lines::of(event) else { return };
        let wanted = match weight {
            Weight::Warning => true,
            Weight::Debug => self.display.debug > 0 && !self.display.quiet,
            Weight::Step | Weight::Success | Weight::Note => !self.display.quiet,
        };
        if !wanted {
            return;
        }
        let bold = |color: AnsiColor| color.on_default().bold();
        let (to, word, style) = match weight {
            Weight::Warning => (&mut self.err, "WARNING: ", bold(AnsiColor::Yellow)),
            Weight::Success => (&mut self.out, "", bold(AnsiColor::Green)),
            Weight::Debug => (&mut self.out, "", Style::new().dimmed()),
            Weight::Step | Weight::Note => (&mut self.out, "", Style::new()),
        };
        let written = if word.is_empty() {
            writeln!(to, "{style}{text}{style:#}")
        } else {
            writeln!(to, "{style}{word}{style:#}{text}")
        };
        // A closed pipe is no reason to stop: the module is what counts.
        let _ = written.and_then(|()| to.flush());
    }

    fn end(&mut self, outcome: Outcome<'_>) {
        if let Outcome::Failed(errors) = outcome {
            let mut text = errors::render_as(errors, self.errors);
            if errors.len() > 1 {
                text.push('\n');
                text.push_str(&errors.len().to_string());
                text.push_str(" errors, no module was made\n");
            }
            let _ = self.err.write_all(text.as_bytes());
        }
        if self.display.time {
            let _ = self.err.write_all(self.times.table().as_bytes());
        }
        let _ = self.err.flush();
    }
}

impl Reporter for Lines {
    fn event(&mut self, event: &Event) {
        self.times.event(event);
        self.print(event);
        let far = self.pace.event(event, Instant::now()).filter(|_| !self.display.quiet);
        if let Some(far) = far {
            let _ = writeln!(self.err, "{far}").and_then(|()| self.err.flush());
        }
    }

    fn finish(&mut self, outcome: Outcome<'_>) -> io::Result<()> {
        self.end(outcome);
        Ok(())
    }
}

impl Terminal {
    pub(super) fn new(lines: Lines) -> Terminal {
        let bar = ProgressBar::new_spinner();
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Terminal { lines, bar }
    }
}

impl Reporter for Terminal {
    fn event(&mut self, event: &Event) {
        self.lines.times.event(event);
        match event {
            Event::PhaseStarted { phase } => {
                self.bar.set_style(spinner());
                self.bar.set_message(doing(*phase));
            }
            Event::Progress { phase, done, total, what } => {
                if *done == 1 {
                    // The estimate goes by this work alone.
                    self.bar.reset();
                }
                self.bar.set_style(counter());
                self.bar.set_length(*total as u64);
                self.bar.set_position(*done as u64);
                self.bar.set_message(format!("{} {what}", doing(*phase)));
            }
            _ => {}
        }
        let lines = &mut self.lines;
        self.bar.suspend(|| lines.print(event));
    }

    fn finish(&mut self, outcome: Outcome<'_>) -> io::Result<()> {
        self.bar.finish_and_clear();
        self.lines.end(outcome);
        Ok(())
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn counter() -> ProgressStyle {
    let style =
        ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {wide_msg} {elapsed}, {eta} to go");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// What goes on in a phase.
fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Arguments => "reading the command line",
        Phase::Parse => "reading the patches",
        Phase::Resolve => "finding the kernel",
        Phase::Plan => "planning",
        Phase::Compile => "compiling",
        Phase::Prove => "proving",
        Phase::Diff => "comparing",
        Phase::Link => "linking",
        Phase::Kbuild => "building the module",
        Phase::Convert => "converting",
        Phase::Check => "checking",
        Phase::Publish => "publishing",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::Error;
    use crate::events::Step;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn stripped(buffer: Buffer) -> Output {
        let buffer: Output = Box::new(buffer);
        Box::new(anstream::StripStream::new(buffer))
    }

    fn run(display: Display, outcome: Outcome<'_>) -> (String, String) {
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut lines = Lines {
            out: stripped(out.clone()),
            err: stripped(err.clone()),
            display,
            errors: errors::Style { color: false, unicode: false, width: 80 },
            pace: Pace::new(Instant::now()),
            times: Times::default(),
        };
        let phase = Phase::Parse;
        for event in [
            Event::PhaseStarted { phase },
            Event::Step(Step::TestingPatches),
            Event::note("a note"),
            Event::warning("a warning"),
            Event::Debug { message: "a detail".into() },
            Event::Progress { phase, done: 1, total: 2, what: "x".into() },
            Event::PhaseFinished { phase, elapsed: Duration::from_secs(1) },
            Event::Step(Step::Success),
        ] {
            lines.event(&event);
        }
        lines.finish(outcome).unwrap();
        (out.text(), err.text())
    }

    const MODULE: Outcome<'static> = Outcome::Failed(&[]);

    #[test]
    fn lines_and_warnings_go_their_ways() {
        let (out, err) = run(Display::default(), MODULE);
        assert_eq!(out, "Testing patch file(s)\na note\nSUCCESS\n");
        assert_eq!(err, "WARNING: a warning\n");
        let (out, _) = run(Display { debug: 1, ..Display::default() }, MODULE);
        assert!(out.contains("a detail\n"));
    }

    #[test]
    fn quiet_leaves_warnings_and_errors() {
        let errors = [Error::new(Phase::Plan, "a", "one"), Error::new(Phase::Plan, "b", "two")];
        let display = Display { quiet: true, debug: 1, ..Display::default() };
        let (out, err) = run(display, Outcome::Failed(&errors));
        assert_eq!(out, "");
        assert!(err.starts_with("WARNING: a warning\n"), "{err}");
        for text in ["ERROR: one", "ERROR: two", "2 errors, no module was made\n"] {
            assert!(err.contains(text), "{err}");
        }
    }

    #[test]
    fn the_table_is_printed_on_demand() {
        let display = Display { time: true, ..Display::default() };
        let (_, err) = run(display, Outcome::Module(Path::new("x.ko")));
        assert!(err.ends_with("total           1.000\n"), "{err}");
    }
}
