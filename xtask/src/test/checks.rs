//! What is checked without a kernel that runs.

use super::Clock;
use crate::error::Result;
use crate::{deny, fuzz, itself, own};

/// Formatting, lints, the tests of all crates and a minute of fuzzing; the names of those that fail.
pub(super) fn run(full: bool, clock: Clock) -> Vec<&'static str> {
    let steps: [(&str, &[&str]); 3] = [
        ("cargo fmt", &["fmt", "--all", "--check"]),
        ("cargo clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
        ("cargo test", &["test", "--quiet", "--workspace", "--no-fail-fast"]),
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut failed = Vec::new();
    for (name, words) in steps {
        let mut command = duct::cmd(&cargo, words)
            .dir(crate::workspace_root())
            // Of use to nobody who compiles once, and a gigabyte.
            .env("CARGO_INCREMENTAL", "0")
            // The same cases every time: what fails here fails again.
            .env("PROPTEST_RNG_SEED", "1");
        if full {
            command = command.env("KPATCH_TEST_FULL", "1");
        }
        let run = command.unchecked().run();
        if !run.is_ok_and(|output| output.status.success()) {
            failed.push(name);
        }
        clock.tell(name);
    }
    let mut chore = |name, result: Result<()>| {
        if let Err(error) = result {
            println!("{name}: {error}");
            failed.push(name);
        }
        clock.tell(name);
    };
    chore("cargo xtask fuzz", fuzz::run(&fuzz::GATE));
    chore("cargo xtask itself", itself::gate(full));
    if full {
        chore("cargo xtask own", own::gate());
        chore("cargo xtask deny", deny::run());
    }
    failed
}

/// Removes what only these checks were compiled for.
pub(super) fn forget() {
    // What cannot be removed is in nobody's way but that of the check of the room.
    let _ = std::fs::remove_dir_all(crate::target_directory().join("fuzz"));
}
