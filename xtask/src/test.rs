//! `cargo xtask test`: everything that must hold, on this machine and on stock kernels.

mod checks;
mod kernel;
mod room;

use crate::error::{Error, Result};
use crate::series::{self, Series};
use crate::{kernels, tools};
use room::Room;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also the kernels that take long or come from other distributions.
    #[arg(long)]
    full: bool,
    /// Only these series of test patches.
    #[arg(long, value_name = "SERIES")]
    series: Vec<String>,
    /// Only these cases.
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Test this kpatch-build instead of the one of the checkout.
    #[arg(long, value_name = "FILE")]
    kpatch_build: Option<PathBuf>,
    /// Leave out formatting, lints and unit tests.
    #[arg(long)]
    no_checks: bool,
}

/// One line of the final table.
#[derive(Debug)]
struct Row {
    case: String,
    build: Option<Duration>,
    transition: Option<Duration>,
    failures: Vec<String>,
    /// What good came of it.
    good: &'static str,
}

impl Row {
    fn of_host(case: &str, failures: Vec<String>, good: &'static str) -> Self {
        Self { case: case.to_owned(), build: None, transition: None, failures, good }
    }
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let clock = Clock(Instant::now());
    let wanted = wanted(arguments)?;
    let room = room::check(&wanted, arguments.full)?;
    if room == Room::Scarce {
        println!("the disk is nearly full: what a kernel was unpacked to goes as soon as nothing needs it");
    }
    tools::install_missing_for_tests()?;
    let failed_checks = std::thread::scope(|scope| {
        // The network and one processor are idle while crates are compiled.
        if room == Room::Ample {
            scope.spawn(|| wanted.iter().for_each(kernels::prefetch));
        }
        if arguments.no_checks { Vec::new() } else { checks::run(arguments.full, clock) }
    });
    if room == Room::Scarce && !arguments.no_checks {
        checks::forget();
    }

    let mut tally = Tally::default();
    // A machine that emulates another keeps one processor busy; meanwhile the next series is built.
    std::thread::scope(|scope| {
        let mut booting = None;
        for series in &wanted {
            let built = kernel::build(series, arguments, room);
            clock.tell(&format!("series {}: built", series.name));
            if let Some((series, handle)) = booting.take() {
                tally.finish(series, join(handle), clock);
            }
            booting = Some((series, scope.spawn(|| built.and_then(|built| built.boot(arguments)))));
        }
        if let Some((series, handle)) = booting {
            tally.finish(series, join(handle), clock);
        }
    });

    println!("\n{} s", clock.0.elapsed().as_secs());
    for check in &failed_checks {
        println!("check failed: {check}");
    }
    for text in &tally.trouble {
        println!("not run: {text}");
    }
    // A series that could not be run has failed as a whole.
    let failed = tally.failed + tally.trouble.len();
    println!("{} passed, {failed} failed", tally.passed);
    if failed > 0 || !failed_checks.is_empty() {
        return Err(Error::Failed("not everything is as it should be".to_owned()));
    }
    if tally.passed == 0 {
        return Err(Error::Usage("no case of that name".to_owned()));
    }
    Ok(())
}

/// The series that are asked for.
fn wanted(arguments: &Arguments) -> Result<Vec<Series>> {
    let root = crate::workspace_root().join("test-patches");
    let mut wanted = Vec::new();
    for name in series::names(&root)? {
        let series = series::read(&root, &name)?;
        let named = arguments.series.contains(&name);
        if named || (arguments.series.is_empty() && (arguments.full || !series.full)) {
            wanted.push(series);
        }
    }
    Ok(wanted)
}

/// Tells how far the chore is.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn tell(self, what: &str) {
        println!("[{:4} s] {what}", self.0.elapsed().as_secs());
    }
}

/// What became of all series.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    trouble: Vec<String>,
}

impl Tally {
    fn finish(&mut self, series: &Series, result: Result<(String, Vec<Row>)>, clock: Clock) {
        clock.tell(&format!("series {}: run", series.name));
        match result {
            Ok((release, rows)) => {
                print_table(&series.name, &release, &rows);
                self.failed += rows.iter().filter(|row| !row.failures.is_empty()).count();
                self.passed += rows.iter().filter(|row| row.failures.is_empty()).count();
            }
            Err(error) => {
                let text = format!("series {}: {error}", series.name);
                println!("\n{text}");
                self.trouble.push(text);
            }
        }
    }
}

fn join<T>(handle: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|_| Err(Error::Failed("a thread panicked".to_owned())))
}

fn print_table(series: &str, release: &str, rows: &[Row]) {
    let seconds = |time: Option<Duration>| {
        time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
    };
    let width = rows.iter().map(|row| row.case.len()).max().unwrap_or(0).max(4);
    println!("\nseries {series}, kernel {release}");
    println!("{:width$}  {:>9}  {:>10}  result", "case", "build", "transition");
    for row in rows {
        let result = if row.failures.is_empty() { row.good } else { "FAILED" };
        println!("{:width$}  {:>9}  {:>10}  {result}", row.case, seconds(row.build), seconds(row.transition));
    }
    for row in rows {
        for failure in &row.failures {
            println!("\n{}: {failure}", row.case);
        }
    }
}
