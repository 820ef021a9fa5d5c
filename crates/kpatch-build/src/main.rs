//! The command `kpatch-build`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kpatch_build::cli::run(std::env::args_os(), &kpatch_build::pipeline::run).into()
}
