//! Every chore of a developer of this project, as a subcommand of `cargo xtask`.

mod bench;
mod builder;
mod corpus;
mod cpio;
mod demo;
mod deny;
mod dist;
mod error;
mod fuzz;
mod generate;
mod guest;
mod itself;
mod kallsyms;
mod kallsyms_image;
mod kernels;
mod modules;
mod own;
mod programs;
mod qemu;
mod runtime;
mod selfcheck;
mod series;
mod small;
mod test;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Load a live patch into the stock kernel of a release under QEMU and check that it works.
    Qemu(qemu::Arguments),
    /// Patch the newest stock kernel of a series and show the effect under QEMU, from nothing.
    Demo(demo::Arguments),
    /// Build and load every patch of a directory, and report what became of them.
    Corpus(corpus::Arguments),
    /// Measure kpatch-build beside what cannot be had faster.
    Bench(bench::Arguments),
    /// Compare real kernel objects with themselves.
    Itself(itself::Arguments),
    /// Build a small kernel of one's own, and patch it by its tree.
    Own(own::Arguments),
    /// Check licences, sources and advisories of all dependencies.
    Deny,
    /// Look for inputs that break the object reader or the differ, with libFuzzer.
    Fuzz(fuzz::Arguments),
    /// Run all tests, on this machine and on stock kernels under QEMU.
    Test(test::Arguments),
    /// Make packages of the tools, as deb and rpm.
    Dist(dist::Arguments),
    /// Write the man page and the completions anew, after the command line has changed.
    Generate,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.chore {
        Chore::Qemu(arguments) => qemu::run(&arguments),
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Corpus(arguments) => corpus::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Itself(arguments) => itself::run(&arguments),
        Chore::Own(arguments) => own::run(&arguments),
        Chore::Deny => deny::run(),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Dist(arguments) => dist::run(&arguments),
        Chore::Generate => generate::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where chores leave files: the target directory of the workspace.
fn target_directory() -> std::path::PathBuf {
    workspace_root().join("target")
}

/// The checkout.
fn workspace_root() -> std::path::PathBuf {
    let xtask = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
