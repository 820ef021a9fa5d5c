//! Tests of `kpatch` on a stock kernel under QEMU: every script of `test-patches/kpatch`, all in one boot.

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::guest::{self, Case, Options};
use crate::modules::Modules;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The modules: name, patches, does it stack upon others.
const MODULES: [(&str, &[&str], bool); 5] = [
    ("lp_one", &["one"], true),
    ("lp_two", &["two"], true),
    ("lp_v1", &["one"], false),
    ("lp_v2", &["one", "two"], false),
    ("lp_sleep", &["sleep"], false),
];

/// A module of the kernel that is no live patch.
const ORDINARY: &str = "dummy";

/// How a test is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Rounds of loading and unloading under load.
    pub(crate) cycles: u32,
    /// Virtual processors.
    pub(crate) processors: u32,
}

/// What `--only` begins with where it names a case of kpatch.
const PREFIX: &str = "kpatch:";

/// Whether these tests are asked for: by all, or by a name `kpatch:CASE`.
pub(crate) fn is_wanted(only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| name.starts_with(PREFIX))
}

/// Where scripts and patches are.
fn directory() -> PathBuf {
    crate::workspace_root().join("test-patches/kpatch")
}

/// Builds everything and runs it; the names of the cases with what failed in them.
pub(crate) fn run(
    builder: &Builder,
    kernel: &guest::Kernel,
    settings: Settings,
    work: &Path,
    only: &[String],
) -> Result<Vec<(String, Vec<String>)>> {
    let mut shared = vec![("kpatch".to_owned(), fs_err::read(program()?)?)];
    for (name, patches, stacks) in MODULES {
        let patches: Vec<PathBuf> =
            patches.iter().map(|patch| directory().join(format!("{patch}.patch"))).collect();
        let mut arguments = vec!["-t".to_owned(), "vmlinux".to_owned()];
        arguments.extend(stacks.then(|| "-R".to_owned()));
        let built = builder.build(name, &patches, &arguments, &work.join(name))?;
        let Some(module) = built.modules.first().filter(|_| built.succeeded()) else {
            return Err(Error::Failed(format!("{name} was not made:\n{}", built.tail(15).join("\n"))));
        };
        shared.push((format!("{name}.ko"), fs_err::read(module)?));
    }
    let one = shared[1].1.clone();
    shared.push(("lp_foreign.ko".to_owned(), altered(&one, &format!("vermagic={}", kernel.release))?));
    shared.push(("lp_other_build.ko".to_owned(), altered(&one, "kpatch_target_build_id=")?));
    let ordinary = Modules::open(&kernel.modules)?.with_dependencies(ORDINARY)?;
    let ordinary = ordinary.into_iter().next_back().ok_or_else(|| Error::KernelModule {
        name: ORDINARY.to_owned(),
        reason: "it is built into the kernel".to_owned(),
    })?;
    shared.push(("ordinary.ko".to_owned(), ordinary.content));

    let mut options = Options::new(work.join("logs"));
    options.processors = settings.processors;
    options.test_limit = Duration::from_mins(10);
    options.shared = shared;
    let cases = cases(settings, only)?;
    let run = guest::run(kernel, &cases, &options)?;
    Ok(run
        .outcomes
        .iter()
        .map(|outcome| {
            let mut failures: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
            if !failures.is_empty() {
                let from = outcome.output.len().saturating_sub(40);
                failures.push(format!("it printed:\n    {}", outcome.output[from..].join("\n    ")));
            }
            (outcome.name.clone(), failures)
        })
        .collect())
}

/// One case for each script, in the order of their names.
fn cases(settings: Settings, only: &[String]) -> Result<Vec<Case>> {
    let library = fs_err::read_to_string(directory().join("lib.sh"))?;
    let mut cases = Vec::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs_err::read_dir(directory())? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, name)) = stem.split_once('-').filter(|_| path.extension().is_some_and(|e| e == "sh"))
        else {
            continue;
        };
        let name = format!("{PREFIX}{name}");
        if !only.is_empty() && !only.contains(&name) && !only.contains(&PREFIX.to_owned()) {
            continue;
        }
        let script = fs_err::read_to_string(&path)?;
        cases.push(Case {
            name,
            test: Some(format!("{library}\nCYCLES={}\n{script}", settings.cycles)),
            ..Case::default()
        });
    }
    Ok(cases)
}

/// Compiles kpatch so that it runs without libraries.
pub(crate) fn program() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["rustc", "--quiet", "--release", "--package", "kpatch", "--bin", "kpatch", "--"];
    duct::cmd(cargo, words.iter().chain(&["-C", "target-feature=+crt-static", "-C", "strip=symbols"]))
        .dir(crate::workspace_root())
        .run()
        .map_err(|error| Error::Command {
            command: "cargo rustc --package kpatch".to_owned(),
            reason: error.to_string(),
        })?;
    let program = crate::target_directory().join("release/kpatch");
    if crate::tools::is_static(&program) {
        return Ok(program);
    }
    Err(Error::Missing {
        what: "a C library to link statically with".to_owned(),
        remedy: "install the package libc6-dev".to_owned(),
    })
}

/// A module with other digits after each place of a text.
fn altered(module: &[u8], before: &str) -> Result<Vec<u8>> {
    let mut out = module.to_vec();
    let places: Vec<usize> = module
        .windows(before.len())
        .enumerate()
        .filter(|(_, window)| *window == before.as_bytes())
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else {
        return Err(Error::Failed(format!("`{before}` is in a module {} times", places.len())));
    };
    // The release ends within the text, the build-id begins after it: the nearest digit is part of it.
    let digit = |byte: &u8| byte.is_ascii_hexdigit();
    let after = at + before.len();
    let place = if before.ends_with('=') {
        Some(after)
    } else {
        out[at..after].iter().rposition(u8::is_ascii_digit).map(|p| at + p)
    };
    let Some(place) = place.filter(|place| out.get(*place).is_some_and(digit)) else {
        return Err(Error::Failed(format!("no digit after `{before}`")));
    };
    let new = if out[place] == b'9' { b'8' } else { b'9' };
    out[place] = new;
    // The note says the build-id as well.
    if before.ends_with('=') {
        let id: Vec<u8> = module[after..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        for (at, window) in module.windows(id.len().max(1)).enumerate() {
            if window == id {
                out[at] = new;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_altered_in_one_place() {
        let module = b"x\"build_id\":\"a1b2\" vermagic=6.1.0-5-amd64 SMP\0kpatch_target_build_id=a1b2\0";
        let foreign = altered(module, "vermagic=6.1.0-5-amd64").unwrap();
        assert!(String::from_utf8_lossy(&foreign).contains("vermagic=6.1.0-5-amd69 SMP"));
        let build = String::from_utf8(altered(module, "kpatch_target_build_id=").unwrap()).unwrap();
        assert!(build.contains("\"build_id\":\"91b2\"") && build.contains("build_id=91b2\0"), "{build}");
        assert!(altered(module, "absent=").is_err());
    }

    #[test]
    fn every_script_is_a_case() {
        let settings = Settings { cycles: 1, processors: 1 };
        let all = cases(settings, &[]).unwrap();
        assert!(all.len() >= 10);
        assert_eq!(cases(settings, &["kpatch:stall".to_owned()]).unwrap().len(), 1);
    }
}
