//! The command `kpatch`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kpatch::cli::run(std::env::args_os()).into()
}
