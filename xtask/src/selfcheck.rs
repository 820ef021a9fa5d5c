//! Shows that a live patch which does not work does not pass: one case for each thing that the guest checks.

use crate::error::{Error, Result};
use crate::guest::{self, Case, PatchModule};
use crate::kernels;
use crate::qemu;
use kernel_artifacts::Kernel;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A way to be wrong, and how it must be noticed.
struct Sabotage {
    name: &'static str,
    /// What the module does wrong, as lines of C before `sabotage.h`.
    source: &'static str,
    test: &'static str,
    /// Further spoiling of the case.
    spoil: fn(&mut Case),
    /// The step that must fail; none for the one that is right.
    step: Option<&'static str>,
    /// What the failure must say.
    says: &'static str,
}

const TEST: &str = "grep -q '^kpatch: patched' /proc/meminfo";
const NOTHING: fn(&mut Case) = |_| {};

const SABOTAGES: [Sabotage; 18] = [
    Sabotage { name: "right", source: "", test: TEST, spoil: NOTHING, step: None, says: "" },
    Sabotage {
        name: "wrong_name",
        source: "#define OLD_NAME \"kpatch_no_such_function\"",
        test: TEST,
        spoil: NOTHING,
        step: Some("insmod"),
        says: "refuses",
    },
    Sabotage {
        name: "no_patch",
        source: "#define NO_PATCH",
        test: TEST,
        spoil: NOTHING,
        step: Some("livepatch"),
        says: "no live patch",
    },
    Sabotage {
        name: "no_function",
        source: "#define NO_FUNCTION",
        test: TEST,
        spoil: NOTHING,
        step: Some("patched"),
        says: "no function",
    },
    Sabotage {
        name: "absent_object",
        source: "#define OBJECT \"kpatch_no_such_module\"",
        test: TEST,
        spoil: NOTHING,
        step: Some("patched"),
        says: "not patched",
    },
    Sabotage {
        name: "warning",
        source: "#define FIRST WARN_ON(1)",
        test: TEST,
        spoil: NOTHING,
        step: Some("kernel log"),
        says: "complains",
    },
    Sabotage {
        name: "no_warning",
        source: "",
        test: TEST,
        spoil: |case| case.warnings.push("replacement".to_owned()),
        step: Some("kernel log"),
        says: "expected",
    },
    Sabotage {
        name: "no_log",
        source: "",
        test: TEST,
        spoil: |case| case.log.extend(["patching complete".to_owned(), "enabling patch".to_owned()]),
        step: Some("kernel log"),
        says: "order",
    },
    Sabotage {
        name: "oops",
        source: "#define FIRST (*(volatile int *)8)++",
        test: TEST,
        spoil: NOTHING,
        step: Some("guest"),
        says: "NULL pointer",
    },
    Sabotage {
        name: "reset",
        source: "#include <asm/desc_defs.h>\n#define FIRST asm volatile(\"lidt %0; int3\" :: \"m\"((const struct desc_ptr){ }))",
        test: TEST,
        spoil: NOTHING,
        step: Some("guest"),
        says: "reset",
    },
    Sabotage {
        name: "hang",
        source: "#define FIRST local_irq_disable(); for (;;) barrier()",
        test: TEST,
        spoil: NOTHING,
        step: Some("guest"),
        says: "hangs",
    },
    Sabotage {
        name: "no_exit",
        source: "#define NO_EXIT",
        test: TEST,
        spoil: NOTHING,
        step: Some("unload"),
        says: "removed",
    },
    Sabotage {
        // A process sleeps in the patched function, so the transition cannot end.
        name: "stall",
        source: "#define OLD_NAME \"hrtimer_nanosleep\"\n#define FIRST return 0",
        test: "[ -e /tmp/asleep ] || { sleep 1000 & touch /tmp/asleep; usleep 300000; }\nfalse",
        spoil: NOTHING,
        step: Some("transition"),
        says: "does not end",
    },
    Sabotage {
        name: "always",
        source: "",
        test: "true",
        spoil: NOTHING,
        step: Some("test-before"),
        says: "not active",
    },
    Sabotage {
        name: "never",
        source: "",
        test: "false",
        spoil: NOTHING,
        step: Some("test-patched"),
        says: "status 1",
    },
    Sabotage {
        // Shows what it did once, for ever.
        name: "sticky",
        source: "",
        test: "grep -q '^kpatch: patched' /proc/meminfo && touch /tmp/sticky\n[ -e /tmp/sticky ]",
        spoil: NOTHING,
        step: Some("test-after"),
        says: "not active",
    },
    Sabotage { name: "no_shell", source: "", test: "if", spoil: NOTHING, step: Some("test"), says: "valid" },
    Sabotage {
        name: "no_program",
        source: "",
        test: "kpatch_no_such_program",
        spoil: NOTHING,
        step: Some("test-before"),
        says: "broken",
    },
];

/// Runs everything; the names of the checks with what they failed to notice.
pub(crate) fn run(
    kernel: &Kernel,
    bootable: &guest::Kernel,
    directory: &Path,
) -> Result<Vec<(String, Vec<String>)>> {
    let modules = directory.join("sabotage");
    compile(kernel, &modules)?;
    let mut cases = Vec::new();
    for sabotage in &SABOTAGES {
        let path = modules.join(format!("{}.ko", sabotage.name));
        let PatchModule { name, content } = qemu::patch_module(&path)?;
        let mut case = Case {
            name: sabotage.name.to_owned(),
            patch: Some(PatchModule { name, content }),
            test: Some(sabotage.test.to_owned()),
            ..Case::default()
        };
        (sabotage.spoil)(&mut case);
        cases.push(case);
    }
    let mut options = guest::Options::new(directory.join("logs").join("sabotage"));
    // Nothing here takes long unless it never ends, even while the next series is built.
    options.test_limit = Duration::from_secs(20);
    options.transition_limit = Duration::from_secs(20);
    options.slack = Duration::from_secs(20);
    let run = guest::run(bootable, &cases, &options)?;
    let judged = SABOTAGES.iter().zip(&run.outcomes).map(|(sabotage, outcome)| {
        let told: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
        let noticed = match sabotage.step {
            None => outcome.passed(),
            Some(step) => outcome
                .failures
                .iter()
                .any(|failure| failure.step == step && failure.reason.contains(sabotage.says)),
        };
        let complaint = format!("must fail at {:?} with `{}`, but: {told:?}", sabotage.step, sabotage.says);
        (format!("(guest: {})", sabotage.name), if noticed { Vec::new() } else { vec![complaint] })
    });
    Ok(judged.collect())
}

/// Makes the modules as the kernel makes its own: by its compiler, in its build root if it has one.
fn compile(kernel: &Kernel, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs_err::remove_dir_all(directory)?;
    }
    fs_err::create_dir_all(directory)?;
    fs_err::write(directory.join("sabotage.h"), include_str!("sabotage.h"))?;
    let mut makefile = String::new();
    for sabotage in &SABOTAGES {
        let text = format!("{}\n#include \"sabotage.h\"\n", sabotage.source);
        fs_err::write(directory.join(format!("{}.c", sabotage.name)), text)?;
        let _ = writeln!(makefile, "obj-m += {}.o", sabotage.name);
    }
    fs_err::write(directory.join("Makefile"), makefile)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut root = kernel.build_root.clone();
    root.bind(directory);
    let make = root
        .command("make")
        .directory(directory)
        .args(["-s".to_owned(), format!("-j{processors}")])
        .arg("-C")
        .arg(kernels::headers(kernel)?)
        .arg(format!("M={}", directory.display()))
        .arg(format!("CC={}", kernel.compiler.program));
    make.run()
        .map(drop)
        .map_err(|error| Error::Command { command: "make".to_owned(), reason: error.to_string() })
}
