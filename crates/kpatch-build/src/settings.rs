//! `kpatch-build.toml`: what a user or a site decides once for all runs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::environment::Environment;
use crate::error::Error;
use crate::phase::Phase;

/// Name of the file.
const FILE_NAME: &str = "kpatch-build.toml";

/// Bytes of compiled originals that the cache keeps where nothing is said.
const DEFAULT_CACHE_LIMIT: u64 = 2 << 30;

/// Keys that are about where kernels come from.
const KERNEL_KEYS: [&str; 6] =
    ["suites", "host-suites", "mirror", "security-mirror", "architecture", "build-root"];

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct FileSettings {
    /// `cache-dir`: where the cache is, if `CACHEDIR` does not say it.
    pub cache_dir: Option<PathBuf>,
    /// `cache-limit`: most bytes of compiled originals.
    pub cache_limit: Option<u64>,
    /// `jobs`: commands to run at once.
    pub jobs: Option<NonZeroUsize>,
    /// Where kernels come from.
    pub kernels: kernel_artifacts::settings::FileSettings,
}

impl FileSettings {
    /// Most bytes that compiled originals may take.
    pub fn cache_limit(&self) -> u64 {
        self.cache_limit.unwrap_or(DEFAULT_CACHE_LIMIT)
    }

    /// Reads the first file there is: in the directory, in the user's configuration, in /etc. Unknown keys are
    /// told to `warn`, since the file may be of a newer version.
    pub fn read(
        directory: &Path,
        environment: &Environment,
        warn: &mut dyn FnMut(String),
    ) -> Result<FileSettings, Error> {
        let user =
            environment.config_home.clone().or_else(|| Some(environment.home.as_ref()?.join(".config")));
        let places = [Some(directory.to_owned()), user, Some(PathBuf::from("/etc"))];
        for path in places.into_iter().flatten().map(|place| place.join(FILE_NAME)) {
            match std::fs::read_to_string(&path) {
                Ok(text) => return Self::parse(&text, &path, warn),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(Phase::Arguments, "read", &path)(error)),
            }
        }
        Ok(FileSettings::default())
    }

    /// Understands a file's text; `path` is for messages.
    pub fn parse(text: &str, path: &Path, warn: &mut dyn FnMut(String)) -> Result<FileSettings, Error> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            damaged(path, line, error.message())
        })?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let mut kernels = toml::Table::new();
        for key in KERNEL_KEYS {
            if let Some(value) = table.remove(key) {
                kernels.insert(key.to_owned(), value);
            }
        }
        let settings = FileSettings {
            cache_dir: take(&mut table, "cache-dir", text, path)?.map(|dir: PathBuf| base.join(dir)),
            cache_limit: take(&mut table, "cache-limit", text, path)?,
            jobs: take(&mut table, "jobs", text, path)?,
            kernels: value(toml::Value::Table(kernels)).map_err(|message| damaged(path, 0, &message))?,
        };
        for key in table.keys() {
            let line = line_of_key(text, key);
            warn(format!("{}:{line}: unknown setting `{key}`", path.display()));
        }
        Ok(settings)
    }
}

fn take<T: DeserializeOwned>(
    table: &mut toml::Table,
    key: &str,
    text: &str,
    path: &Path,
) -> Result<Option<T>, Error> {
    let Some(found) = table.remove(key) else { return Ok(None) };
    value(found)
        .map(Some)
        .map_err(|message| damaged(path, line_of_key(text, key), &format!("`{key}`: {message}")))
}

fn value<T: DeserializeOwned>(value: toml::Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn damaged(path: &Path, line: usize, message: &str) -> Error {
    Error::new(Phase::Arguments, "bad-settings", message.trim()).file(path).line(line).text(path)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// Line of a top-level key, 0 where it is not found in a plain form.
fn line_of_key(text: &str, key: &str) -> usize {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '\t', '=', ']', '"', '\'', '.']))
    };
    text.lines().position(is_key).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Result<FileSettings, Error>, Vec<String>) {
        let mut warnings = Vec::new();
        let result = FileSettings::parse(text, Path::new("/d/kpatch-build.toml"), &mut |w| warnings.push(w));
        (result, warnings)
    }

    #[test]
    fn known_keys_are_taken_and_unknown_ones_warned_of() {
        let (settings, warnings) = parse(
            "jobs = 3\nsuites = [\"sid\"]\ncache-dir = \"c\"\ncache-limit = 5\ncolour = 1\n[extra]\nx = 1\n",
        );
        let settings = settings.unwrap();
        assert_eq!(settings.jobs, NonZeroUsize::new(3));
        assert_eq!(settings.cache_dir.as_deref(), Some(Path::new("/d/c")));
        assert_eq!((settings.cache_limit(), settings.kernels.suites), (5, vec!["sid".to_owned()]));
        assert_eq!(
            warnings,
            [
                "/d/kpatch-build.toml:5: unknown setting `colour`",
                "/d/kpatch-build.toml:6: unknown setting `extra`"
            ]
        );
    }

    #[test]
    fn wrong_values_are_errors_with_a_line() {
        let (result, _) = parse("\njobs = 0\n");
        assert_eq!(result.unwrap_err().line, Some(2));
        let (result, _) = parse("jobs = 1\n= 3\n");
        assert_eq!(result.unwrap_err().line, Some(2));
        assert!(parse("suites = 3").0.is_err());
    }

    #[test]
    fn the_nearest_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let environment =
            Environment { config_home: Some(dir.path().join("config")), ..Environment::default() };
        std::fs::create_dir_all(dir.path().join("config")).unwrap();
        std::fs::write(dir.path().join("config/kpatch-build.toml"), "jobs = 7").unwrap();
        let read = |warn: &mut dyn FnMut(String)| FileSettings::read(dir.path(), &environment, warn);
        assert_eq!(read(&mut |_| ()).unwrap().jobs, NonZeroUsize::new(7));
        std::fs::write(dir.path().join("kpatch-build.toml"), "jobs = 8").unwrap();
        assert_eq!(read(&mut |_| ()).unwrap().jobs, NonZeroUsize::new(8));
    }
}
