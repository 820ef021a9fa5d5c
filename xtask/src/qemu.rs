//! `cargo xtask qemu`: one live patch on one kernel.

use crate::error::{Error, Result};
use crate::guest::{self, Case, Kernel, Options, PatchModule};
use crate::kernels;
use crate::modules::ModInfo;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The kernel, as `uname -r` prints it.
    release: String,
    /// The patch module.
    module: PathBuf,
    /// Shell script that must succeed exactly while the patch is active.
    test: PathBuf,
    /// Load this module of the kernel image before the patch, or while it is active.
    #[arg(long, value_name = "NAME[:before|:after]")]
    with_module: Vec<WithModule>,
    /// Text in the first line of a warning that the kernel must log.
    #[arg(long, value_name = "TEXT")]
    expect_warning: Vec<String>,
    /// Text that the kernel must log; several in this order.
    #[arg(long, value_name = "TEXT")]
    expect_log: Vec<String>,
    /// Virtual processors.
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// What QEMU calls the model of the processors.
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// More of the kernel's command line, such as `retbleed=stuff`.
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Take the kernel from this directory, laid out as the image package installs it.
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Print what the kernel logged, also when all went well.
    #[arg(long)]
    show_log: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct WithModule {
    name: String,
    late: bool,
}

impl FromStr for WithModule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, when) = text.split_once(':').unwrap_or((text, "before"));
        let late = match when {
            "before" => false,
            "after" => true,
            _ => return Err(format!("`{when}` is neither `before` nor `after`")),
        };
        if name.is_empty() {
            return Err("no module is named".to_owned());
        }
        Ok(Self { name: name.to_owned(), late })
    }
}

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let kernel = match &arguments.image_root {
        Some(root) => Kernel::below(root, &arguments.release)?,
        None => kernels::bootable(&kernels::resolve(&arguments.release, &kernels::settings())?)?,
    };
    let names = |late: bool| {
        arguments.with_module.iter().filter(|with| with.late == late).map(|with| with.name.clone()).collect()
    };
    let case = Case {
        name: arguments.module.display().to_string(),
        patch: Some(patch_module(&arguments.module)?),
        test: Some(fs_err::read_to_string(&arguments.test)?),
        files: Vec::new(),
        before: names(false),
        after: names(true),
        absent_objects: false,
        log: arguments.expect_log.clone(),
        warnings: arguments.expect_warning.clone(),
    };
    let file_name = arguments.module.file_stem().unwrap_or_default();
    let mut options = Options::new(crate::target_directory().join("qemu").join(file_name))
        .machine(arguments.cpu.as_deref(), &arguments.append);
    options.processors = arguments.smp;
    let run = guest::run(&kernel, &[case], &options)?;
    let Some(outcome) = run.outcomes.first() else {
        return Err(Error::Failed("the guest reported nothing".to_owned()));
    };
    if arguments.show_log {
        print!("{}", outcome.log);
    }
    for object in &outcome.objects {
        let patched = match object.patched {
            Some(true) => "patched",
            Some(false) => "not patched",
            None => "patched or not: this kernel does not tell",
        };
        println!("{}: {} functions, {patched}", object.name, object.functions);
    }
    if let Some(transition) = outcome.transition {
        println!("transition over {:.2} s after loading", transition.as_secs_f64());
    }
    if outcome.passed() {
        println!("{}: works on {}", outcome.name, kernel.release);
        return Ok(());
    }
    for failure in &outcome.failures {
        println!("{failure}");
    }
    for path in &run.kept_logs {
        println!("logs are in {}", path.display());
    }
    Err(Error::Failed(format!("{} does not work on {}", outcome.name, kernel.release)))
}

/// Reads a module with a live patch. Its name is what its `.modinfo` says, else that of the file.
pub(crate) fn patch_module(path: &Path) -> Result<PatchModule> {
    let content = fs_err::read(path)?;
    let info = ModInfo::parse(&content)
        .map_err(|reason| Error::KernelModule { name: path.display().to_string(), reason })?;
    let name = match info.get("name") {
        Some(name) => name.to_owned(),
        None => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    Ok(PatchModule { name: name.replace('-', "_"), content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_when_they_come() {
        assert_eq!("xfs".parse(), Ok(WithModule { name: "xfs".into(), late: false }));
        assert_eq!("xfs:before".parse(), Ok(WithModule { name: "xfs".into(), late: false }));
        assert_eq!("xfs:after".parse(), Ok(WithModule { name: "xfs".into(), late: true }));
        assert!("xfs:later".parse::<WithModule>().is_err());
        assert!(":after".parse::<WithModule>().is_err());
    }
}
