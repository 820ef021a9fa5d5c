//! `cargo xtask demo`: from nothing to a patched kernel, for somebody to watch.

use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::{guest, kernels, qemu, series, tools};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel series whose newest stock kernel is patched.
    #[arg(long, default_value = "6.1")]
    series: String,
}

const CASE: &str = "meminfo-string";
const MARK: &str = "kpatch-demo: ";
/// Shows the line in question through the kernel log, which the host reads.
const TEST: &str = "\
line=$(grep -i '^vmallocused:' /proc/meminfo) || exit 126
echo \"kpatch-demo: $line\" >/dev/kmsg
echo \"$line\" | grep -q '^VMALLOCUSED:'
";

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let root = crate::workspace_root().join("test-patches");
    let series = series::read(&root, &arguments.series)?;
    let case = series
        .cases
        .iter()
        .find(|case| case.name == CASE)
        .ok_or_else(|| Error::Usage(format!("series {} has no case {CASE}", series.name)))?;

    println!("compiling kpatch-build");
    let kernel = kernels::newest(&series)?;
    let release = &kernel.release;
    let mut builder = Builder::compile(release)?;
    builder.suites.clone_from(&series.suites);
    for patch in &case.patches {
        println!("\n{}:\n{}", patch.display(), fs_err::read_to_string(patch)?);
    }
    let output = crate::target_directory().join("demo");
    let module = builder.watch(&case.patches, &output)?;

    let bootable = kernels::bootable(&kernel)?;
    println!("\nbooting the stock kernel {release} in QEMU and loading {}", module.display());
    let guest_case = guest::Case {
        name: CASE.to_owned(),
        patch: Some(qemu::patch_module(&module)?),
        test: Some(TEST.to_owned()),
        ..guest::Case::default()
    };
    let run = guest::run(&bootable, &[guest_case], &guest::Options::new(output.join("logs")))?;
    let outcome =
        run.outcomes.first().ok_or_else(|| Error::Failed("the guest reported nothing".to_owned()))?;
    let lines = outcome.log.lines().filter_map(|line| line.split_once(MARK)).map(|(_, line)| line);
    println!("\n/proc/meminfo:");
    for (when, line) in ["before ", "patched", "after  "].into_iter().zip(lines) {
        println!("  {when}  {line}");
    }
    if outcome.passed() {
        println!("\nThe module is {}", module.display());
        return Ok(());
    }
    for failure in &outcome.failures {
        println!("{failure}");
    }
    Err(Error::Failed("the demonstration failed".to_owned()))
}
