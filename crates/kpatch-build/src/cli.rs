//! From the words of a command line to an exit status.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::args::{self, Args, CacheAction, Command};
use crate::environment::Environment;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::maintenance;
use crate::options::{self, Display, Options};
use crate::phase::Phase;
use crate::report::{self, Outcome, Reports};
use crate::settings::FileSettings;
use crate::workspace;

/// What makes a module.
pub type Pipeline<'p> = &'p dyn Fn(&Options, Events<'_>) -> Result<PathBuf, Vec<Error>>;

/// Runs a command line, program name first. The exit status is 0 for success, else 1.
pub fn run(words: impl IntoIterator<Item = OsString>, pipeline: Pipeline<'_>) -> u8 {
    let args = match Args::parse_from_words(words) {
        Ok(args) => args,
        Err(error) => {
            // Help is no failure. All else has the one exit status of failures, as the predecessor has.
            let status = u8::from(error.use_stderr());
            return if error.print().is_ok() { status } else { 1 };
        }
    };
    if let Some(what) = args.generate {
        let out = &mut std::io::stdout().lock();
        return written(manual::generate(what, Args::definition(), args::SECTION, out));
    }
    if args.version {
        return written(writeln!(std::io::stdout(), "Version : {}", env!("CARGO_PKG_VERSION")));
    }

    // A working directory that is gone matters only to relative paths, whose errors then name it.
    let directory = std::env::current_dir().unwrap_or_default();
    if let Some(Command::Cache { action }) = args.command {
        return look_after_cache(action, &directory);
    }
    let reports = Reports::new(&Display::new(&args, &directory));
    let result = make(&args, &directory, pipeline, &|event| reports.event(&event));
    let outcome = match &result {
        Ok(module) => Outcome::Module(module),
        Err(errors) => Outcome::Failed(errors),
    };
    let reported = written(reports.finish(outcome));
    u8::from(result.is_err()).max(reported)
}

fn look_after_cache(action: CacheAction, directory: &Path) -> u8 {
    let work = || {
        let environment = Environment::read();
        let settings = FileSettings::read(directory, &environment, &mut |_| {})?;
        let cache = options::cache_directory(&environment, &settings, directory)?;
        maintenance::run(action, &cache, settings.cache_limit())
    };
    match work() {
        Ok(done) => written(std::io::stdout().write_all(done.text.as_bytes())).max(u8::from(done.damaged)),
        Err(error) => {
            let text = report::render(&[error]);
            written(std::io::stderr().write_all(text.as_bytes())).max(1)
        }
    }
}

fn make(
    args: &Args,
    directory: &Path,
    pipeline: Pipeline<'_>,
    events: Events<'_>,
) -> Result<PathBuf, Vec<Error>> {
    workspace::handle_signals().map_err(|error| {
        let message = "signals cannot be handled, so an interrupted run would leave files behind";
        vec![Error::new(Phase::Arguments, "signals", message).cause(error)]
    })?;
    let environment = Environment::read();
    let settings = FileSettings::read(directory, &environment, &mut |text| events(Event::warning(text)))
        .map_err(|error| vec![error])?;
    let options = Options::new(args, &environment, &settings, directory)?;
    pipeline(&options, events)
}

/// The exit status of having written something. A reader that wants no more is none of our failures.
fn written(result: std::io::Result<()>) -> u8 {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "ERROR: cannot write: {error}");
            1
        }
        _ => 0,
    }
}
