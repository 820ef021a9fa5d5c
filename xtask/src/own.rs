//! `cargo xtask own`: kernels that nobody packages, patched by `-s`.
//!
//! One, which enforces signatures, is built in a tree under git, as its owner would. It is patched by that tree, which has
//! changed since, and by clean sources with copies of its files, or with the directory it was built in. Another one, of
//! as few units as possible, is built by `make O=`. On it, the plan is held against whole builds.

mod hostile;
mod kernel;
mod launchers;
mod oracle;

use crate::builder::{Builder, Built};
use crate::error::{Error, Result};
use crate::guest::{self, Case};
use crate::{kernels, qemu, series, tools};
use kernel::Kernel;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel series whose source is taken.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Only these steps: `tree`, `module`, `pair`, `clean`, `unsigned`, `beside`, `hostile`, `launchers`;
    /// `output`, `oracle`, `whole`.
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Use this kpatch-build instead of the one of the checkout.
    #[arg(long, value_name = "FILE")]
    kpatch_build: Option<PathBuf>,
}

/// Steps that need the kernel that takes signed modules only.
const OF_SIGNED: [&str; 8] =
    ["tree", "module", "pair", "clean", "unsigned", "beside", "hostile", "launchers"];
/// Steps that need the one of few units.
const OF_SMALL: [&str; 3] = ["output", "oracle", "whole"];

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for step in &arguments.only {
        if !OF_SIGNED.iter().chain(&OF_SMALL).any(|known| known == step) {
            return Err(Error::Usage(format!("no step {step}")));
        }
    }
    tools::install_missing_for_tests()?;
    let series = series::read(&crate::workspace_root().join("test-patches"), &arguments.series)?;
    let pristine = kernels::source(&kernels::newest(&series)?)?;
    let work = crate::target_directory().join("own").join(&arguments.series);
    let wanted = |step: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == step);
    let own = |kernel: Kernel, work: &Path| -> Result<Own> {
        let builder = match &arguments.kpatch_build {
            Some(program) => Builder::existing(program, &kernel.release)?,
            None => Builder::compile(&kernel.release)?,
        };
        Ok(Own { kernel, builder, out: work.join("out") })
    };
    if OF_SMALL.iter().any(|step| wanted(step)) {
        let work = work.join("small");
        small_kernel(&own(Kernel::small(&pristine, &work)?, &work)?, &pristine, &wanted)?;
    }
    if OF_SIGNED.iter().any(|step| wanted(step)) {
        let work = work.join("signed");
        signed_kernel(&mut own(Kernel::signed(&pristine, &work)?, &work)?, &pristine, &wanted)?;
    }
    Ok(())
}

/// What is done with the kernel of few units.
fn small_kernel(own: &Own, pristine: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    let mut cases = Vec::new();
    let clean = own.copies("clean", &["config", "vmlinux"])?;
    let clean = Own::arguments(pristine, &clean);
    let clean: Vec<&str> = clean.iter().map(String::as_str).collect();
    let pristine = pristine.display().to_string();
    let beside = ["-s", &pristine, "--build-dir", &own.kernel.tree.display().to_string()];
    if wanted("output") {
        cases.push(own.case("output", "show", &beside)?);
        cases.push(own.case("output-module", "module", &beside)?);
    }
    if wanted("oracle") {
        oracle::run(own, oracle::Arguments { planned: &beside, whole: &clean })?;
    }
    if wanted("whole") {
        // Nobody built in that tree, and there is no Module.symvers.
        let vmlinux = [&clean[..], &["-t", "vmlinux", "--whole-tree"]].concat();
        cases.push(own.case("whole", "show", &vmlinux)?);
        own.refused("exported", &vmlinux, "crc-changed")?;
    }
    own.boot(&cases)
}

/// What is done with the kernel that takes signed modules only.
fn signed_kernel(own: &mut Own, pristine: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    hostile::heal(own)?;
    let tree = own.kernel.tree.display().to_string();
    let clean = own.copies("clean", &["config", "vmlinux", "Module.symvers"])?;
    let clean = Own::arguments(pristine, &clean);
    let clean: Vec<&str> = clean.iter().map(String::as_str).collect();
    let mut cases = Vec::new();
    if wanted("tree") {
        // Built in place, and changed since: by a commit, and by a file that is not committed.
        cases.push(own.case("tree", "show", &["-s", &tree])?);
    }
    if wanted("module") {
        let target = "fs/configfs/configfs.ko";
        cases.push(own.case("module", "module", &["-s", &tree, "-t", target])?);
        cases.push(own.case("modules", "module", &["-s", &tree, "-t", "modules"])?);
        own.refused("show", &["-s", &tree, "-t", "modules"], "outside-target")?;
        own.refused("module", &["-s", &tree, "-t", "vmlinux"], "outside-target")?;
    }
    if wanted("pair") {
        // Modules of one source.
        cases.push(own.case("pair", "pair", &["-s", &tree])?);
        own.refused("pair", &["-s", &tree, "-t", "lib/pair/pair_first.ko"], "outside-target")?;
    }
    if wanted("clean") {
        cases.push(own.case("clean", "show", &clean)?);
    }
    if wanted("unsigned") {
        cases.push(own.unsigned(&clean)?);
    }
    if wanted("beside") {
        let pristine = pristine.display().to_string();
        cases.push(own.case("beside", "show", &["-s", &pristine, "--build-dir", &tree])?);
    }
    own.boot(&cases)?;
    if wanted("hostile") {
        hostile::run(own, pristine)?;
    }
    if wanted("launchers") {
        launchers::run(own, &clean)?;
    }
    Ok(())
}

/// What the long run of all tests does.
pub(crate) fn gate() -> Result<()> {
    run(&Arguments { series: "6.1".to_owned(), only: Vec::new(), kpatch_build: None })
}

/// The test patches of an own kernel.
fn patches() -> PathBuf {
    crate::workspace_root().join("test-patches/own")
}

/// A kernel, and what patches it.
struct Own {
    kernel: Kernel,
    builder: Builder,
    out: PathBuf,
}

impl Own {
    /// A directory with copies of files of the build, and nothing else.
    fn copies(&self, name: &str, files: &[&str]) -> Result<PathBuf> {
        let directory = self.out.with_file_name(name);
        // Copies of another time would be another kernel.
        if !directory.exists() {
            fs_err::create_dir_all(&directory)?;
            for file in files {
                let of_build = if *file == "config" { ".config" } else { file };
                fs_err::copy(self.kernel.file(of_build), directory.join(file))?;
            }
        }
        Ok(directory)
    }

    /// What names a kernel by a source tree and copies of its files.
    fn arguments(tree: &Path, copies: &Path) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        ["-s", &path(tree), "-c", &path(&copies.join("config")), "-v", &path(&copies.join("vmlinux"))]
            .map(str::to_owned)
            .to_vec()
    }

    fn build(&self, name: &str, patch: &str, arguments: &[&str]) -> Result<Built> {
        let patch = patches().join(format!("{patch}.patch"));
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.builder.build(&format!("own-{name}"), &[patch], &arguments, &self.out.join(name))
    }

    /// Builds a module that must come out, without a trace in the user's tree.
    fn made(&self, name: &str, patch: &str, arguments: &[&str]) -> Result<PathBuf> {
        let before = self.kernel.written()?;
        let built = self.build(name, patch, arguments)?;
        if !built.succeeded() {
            return Err(Error::Failed(format!("{name}: no module:\n{}", built.tail(30).join("\n"))));
        }
        if self.kernel.written()? != before {
            return Err(Error::Failed(format!("{name}: something was written into the user's tree")));
        }
        println!("  {name}: {:.1} s", built.time.as_secs_f64());
        Ok(built.modules[0].clone())
    }

    /// Builds a module, signed where the kernel wants that, to be loaded.
    fn case(&self, name: &str, patch: &str, arguments: &[&str]) -> Result<Case> {
        let signing = self.kernel.signing();
        let signing: Vec<&str> = signing.iter().flatten().map(String::as_str).collect();
        let module = self.made(name, patch, &[arguments, &signing].concat())?;
        let test = fs_err::read_to_string(patches().join(format!("{patch}.test")))?;
        let before: &[&str] = match patch {
            "module" => &["configfs"],
            "pair" => &["pair_first", "pair_second"],
            _ => &[],
        };
        let before = before.iter().map(|module| (*module).to_owned()).collect();
        let patch = Some(qemu::patch_module(&module)?);
        Ok(Case { name: name.to_owned(), patch, test: Some(test), before, ..Case::default() })
    }

    /// Builds a module without a signature, which the kernel must refuse.
    fn unsigned(&self, arguments: &[&str]) -> Result<Case> {
        let module = self.made("unsigned", "show", arguments)?;
        let test = "insmod \"$FILES/unsigned\" 2>said && exit 1\ncat said\ngrep -qi 'key' said\n";
        Ok(Case {
            name: "unsigned".to_owned(),
            test: Some(test.to_owned()),
            files: vec![("unsigned".to_owned(), fs_err::read(module)?)],
            ..Case::default()
        })
    }

    fn refused(&self, patch: &str, arguments: &[&str], code: &str) -> Result<()> {
        let built = self.build("refused", patch, arguments)?;
        if built.status == Some(1) && built.modules.is_empty() && built.output.contains(code) {
            return Ok(());
        }
        Err(Error::Failed(format!("{patch}: not refused as {code}:\n{}", built.tail(30).join("\n"))))
    }

    /// Loads all of them.
    fn boot(&self, cases: &[Case]) -> Result<()> {
        if cases.is_empty() {
            return Ok(());
        }
        // On a busy host the emulated timer is late for the check of it.
        let options = guest::Options::new(self.out.with_file_name("logs")).machine(None, "no_timer_check");
        let run = guest::run(&self.kernel.bootable(), cases, &options)?;
        let mut wrong = String::new();
        for outcome in &run.outcomes {
            println!("  {}: {}", outcome.name, if outcome.passed() { "works" } else { "FAILED" });
            for failure in &outcome.failures {
                let _ = writeln!(wrong, "{}: {failure}", outcome.name);
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Failed(wrong)) }
    }
}
