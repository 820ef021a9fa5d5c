//! Running programs: captured, in a fixed locale, with errors that say what they were run for.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use kbuild::root::{Root, RunError};

use crate::error::{Error, Result};

/// A program with what is needed to explain its failure.
pub(crate) struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<std::path::PathBuf>,
    purpose: String,
    package: &'static str,
}

/// What a program left.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) status: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Program {
    /// `package` is the Debian package that has the program.
    pub(crate) fn new(
        program: impl Into<OsString>,
        package: &'static str,
        purpose: impl Into<String>,
    ) -> Self {
        Program {
            argv: vec![program.into()],
            env: vec![("LC_ALL".into(), "C".into())],
            dir: None,
            purpose: purpose.into(),
            package,
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    pub(crate) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The command, for readers and as the start of a pipe.
    pub(crate) fn expression(&self) -> duct::Expression {
        self.pipe_expression().stdin_null()
    }

    /// The command as a later part of a pipe.
    pub(crate) fn pipe_expression(&self) -> duct::Expression {
        let mut expression = duct::cmd(&self.argv[0], &self.argv[1..]);
        for (name, value) in &self.env {
            expression = expression.env(name, value);
        }
        match &self.dir {
            Some(dir) => expression.dir(dir),
            None => expression,
        }
    }

    /// Runs it; failure to start is an error, failure of the program is for the caller to judge.
    pub(crate) fn output(&self) -> Result<Output> {
        let mut task = Root::Host.command(&self.argv[0]).args(&self.argv[1..]);
        for (name, value) in &self.env {
            task = task.env(name, value);
        }
        if let Some(dir) = &self.dir {
            task = task.directory(dir);
        }
        let output = task.output().map_err(|error| self.run_error(error))?;
        Ok(Output {
            success: output.status.success(),
            status: output.status.to_string(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and gives what it printed; failure is an error with the end of its output.
    pub(crate) fn run(&self) -> Result<Vec<u8>> {
        let output = self.output()?;
        if output.success { Ok(output.stdout) } else { Err(self.failed(&output.status, &output.stderr)) }
    }

    fn run_error(&self, error: RunError) -> Error {
        match error {
            RunError::Start { source, .. } => self.start_error(source),
            RunError::Interrupted => Error::Interrupted,
            failed @ RunError::Failed { .. } => self.failed("failure", &failed.to_string()),
        }
    }

    pub(crate) fn start_error(&self, error: std::io::Error) -> Error {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) {
            return Error::MissingTool {
                tool: self.argv[0].to_string_lossy().into_owned(),
                purpose: self.purpose.clone(),
                package: self.package.to_owned(),
                source: error,
            };
        }
        Error::Io(error)
    }

    pub(crate) fn failed(&self, status: &str, output: &str) -> Error {
        Error::Command {
            purpose: self.purpose.clone(),
            command: self.command_line(),
            status: status.to_owned(),
            output: tail(output, 20),
        }
    }

    fn command_line(&self) -> String {
        self.argv.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// Runs a pipe to its end, or kills it when the run is interrupted and gives nothing.
pub(crate) fn interruptible(pipe: &duct::Expression) -> std::io::Result<Option<std::process::Output>> {
    let handle = pipe.start()?;
    loop {
        if let Some(output) = handle.wait_timeout(Duration::from_millis(50))? {
            return Ok(Some(output.clone()));
        }
        if kbuild::root::interrupted() {
            handle.kill()?;
            return Ok(None);
        }
    }
}

/// The last lines of a program's output, where the reason usually is.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_names_its_package() {
        let error = Program::new("no-such-program-here", "a-package", "test").run().unwrap_err();
        assert!(matches!(&error, Error::MissingTool { package, .. } if package == "a-package"), "{error}");
    }

    #[test]
    fn failure_carries_status_and_output() {
        let error =
            Program::new("sh", "dash", "test").args(["-c", "echo why >&2; exit 3"]).run().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("why"), "{text}");
    }
}
