//! What a run shows: its events turned into lines, a bar, a table and a report for programs.
//!
//! Nothing else in this crate prints. Lines that the predecessor printed go to the standard output in their old
//! form; so do this tool's own, between them. Warnings, errors, the bar and the table of phases go to the
//! standard error.

mod errors;
mod json;
mod lines;
mod pace;
mod terminal;
mod time;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};

use crate::args::Color;
use crate::error::Error;
use crate::events::Event;
use crate::options::Display;

pub use errors::render;

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With a module.
    Module(&'a Path),
    /// Without one, and why.
    Failed(&'a [Error]),
}

/// Consumes events.
trait Reporter: Send {
    /// Something happened.
    fn event(&mut self, event: &Event);

    /// The run is over.
    fn finish(&mut self, outcome: Outcome<'_>) -> io::Result<()>;
}

/// Where lines go.
type Output = Box<dyn Write + Send>;

/// The reporters of a run. Takes events from any thread.
pub struct Reports {
    reporters: Mutex<Vec<Box<dyn Reporter>>>,
}

impl Reports {
    /// The reporters that the user asked for.
    pub fn new(display: &Display) -> Reports {
        let choice = match display.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        let to_stdout = display.json.as_deref().is_some_and(|path| path == Path::new("-"));
        // A report on the standard output is meant for a program, which wants nothing else there.
        let out: Output = if to_stdout {
            Box::new(AutoStream::new(io::stderr(), choice))
        } else {
            Box::new(AutoStream::new(io::stdout(), choice))
        };
        let err: Output = Box::new(AutoStream::new(io::stderr(), choice));
        let on_terminal = io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            && std::env::var_os("CI").is_none();
        let errors = errors::Style {
            color: AutoStream::choice(&io::stderr()) != ColorChoice::Never && choice != ColorChoice::Never
                || choice == ColorChoice::Always,
            unicode: on_terminal,
            width: errors::width(),
        };
        let lines = terminal::Lines {
            out,
            err,
            display: display.clone(),
            errors,
            times: time::Times::default(),
            pace: pace::Pace::new(std::time::Instant::now()),
        };
        let mut reporters: Vec<Box<dyn Reporter>> = Vec::new();
        if on_terminal && !display.quiet {
            reporters.push(Box::new(terminal::Terminal::new(lines)));
        } else {
            reporters.push(Box::new(lines));
        }
        if let Some(path) = &display.json {
            let to = if to_stdout { json::To::Stdout } else { json::To::File(path.clone()) };
            reporters.push(Box::new(json::Json::new(to)));
        }
        Reports { reporters: Mutex::new(reporters) }
    }

    /// Passes an event on.
    pub fn event(&self, event: &Event) {
        for reporter in self.lock().iter_mut() {
            reporter.event(event);
        }
    }

    /// Ends all reports. The error is the first that kept one from being written.
    pub fn finish(&self, outcome: Outcome<'_>) -> io::Result<()> {
        let mut result = Ok(());
        for reporter in self.lock().iter_mut() {
            let finished = reporter.finish(outcome);
            result = result.and(finished);
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Reporter>>> {
        self.reporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

/// Paths of a list, for a line.
fn join(paths: impl IntoIterator<Item = PathBuf>) -> String {
    paths.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}
