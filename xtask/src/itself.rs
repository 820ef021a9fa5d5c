//! Real objects compared with themselves: nothing may have changed.
//!
//! The shipped modules of a kernel are relocatable objects that have been through every tool of kbuild. With `--full`
//! objects of a small configuration are compiled as well, which have been through the compiler and objtool only.

use crate::error::{Error, Result};
use crate::{kernels, programs, series, small, tools};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Arguments of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel series whose newest stock kernel is taken.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Also objects compiled of the kernel's source, which takes minutes.
    #[arg(long)]
    units: bool,
}

/// So many objects there must be at least, or something is wrong with the search for them.
const FEWEST: usize = 300;

/// Added to the smallest configuration, so that there are enough units and all kinds of tables.
const OPTIONS: [&str; 22] = [
    "64BIT",
    "PRINTK",
    "BUG",
    "MODULES",
    "SMP",
    "PROC_FS",
    "SYSFS",
    "FUTEX",
    "EPOLL",
    "SHMEM",
    "TMPFS",
    "BLOCK",
    "EXT2_FS",
    "NET",
    "INET",
    "UNIX",
    "KALLSYMS",
    "FTRACE",
    "FUNCTION_TRACER",
    "POSIX_TIMERS",
    "HIGH_RES_TIMERS",
    "JUMP_LABEL",
];

/// Runs the chore.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install_missing()?;
    let program = programs::compile()?.join("create-diff-object");
    let series = series::read(&crate::workspace_root().join("test-patches"), &arguments.series)?;
    let kernel = kernels::newest(&series)?;
    let modules = kernels::modules(&kernel)?;
    compare_all(&program, &format!("modules of {}", kernel.release), &modules)?;
    if arguments.units {
        let built = crate::target_directory().join("itself");
        let units = build(&kernels::source(&kernel)?, &built)?;
        compare_all(&program, "units", &units)?;
    }
    Ok(())
}

/// What the gate runs.
pub(crate) fn gate(full: bool) -> Result<()> {
    run(&Arguments { series: "6.1".to_owned(), units: full })
}

/// Objects of a small configuration, as the compiler and the kernel's objtool leave them.
fn build(source: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    fs_err::create_dir_all(output)?;
    let here = format!("O={}", output.display());
    small::configure(source, output, &OPTIONS)?;
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
    let sections = "KCFLAGS=-ffunction-sections -fdata-sections";
    let goals = ["-s", &jobs, &here, sections, "kernel/", "mm/", "fs/", "lib/", "net/", "arch/x86/kernel/"];
    small::make(source, &goals)?;
    let mut units = Vec::new();
    for entry in walkdir::WalkDir::new(output).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::from)?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "o")
            && is_kernel_object(&fs_err::read(path)?)
        {
            units.push(path.to_owned());
        }
    }
    Ok(units)
}

/// A 64-bit relocatable object with symbols; host programs and 32-bit boot code are something else.
fn is_kernel_object(bytes: &[u8]) -> bool {
    use object::read::elf::FileHeader as _;
    let read = || {
        let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        let symbols =
            header.sections(endian, bytes).ok()?.symbols(endian, bytes, object::elf::SHT_SYMTAB).ok()?;
        Some(header.e_type(endian) == object::elf::ET_REL && !symbols.is_empty())
    };
    read().unwrap_or(false)
}

/// Compares each object with itself; an error that names those of which anything but "no change" was said.
fn compare_all(program: &Path, what: &str, objects: &[PathBuf]) -> Result<()> {
    if objects.len() < FEWEST {
        return Err(Error::Failed(format!("only {} {what}", objects.len())));
    }
    let scratch = tempfile::tempdir()?;
    let symvers = scratch.path().join("symvers");
    fs_err::write(&symvers, "")?;
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let output = scratch.path().join("never-written");
                    let run =
                        duct::cmd!(program, object, object, "vmlinux", object, &symvers, "patch", &output)
                            .stdout_capture()
                            .stderr_to_stdout()
                            .unchecked()
                            .run();
                    let text = match run {
                        Ok(run) if run.status.code() == Some(3) => continue,
                        Ok(run) => format!("{}: {}", run.status, String::from_utf8_lossy(&run.stdout)),
                        Err(error) => error.to_string(),
                    };
                    let mut wrong = wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    wrong.push(format!("{}: {text}", object.display()));
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    wrong.sort();
    println!("{} {what} compared with themselves, {} differ", objects.len(), wrong.len());
    if wrong.is_empty() { Ok(()) } else { Err(Error::Failed(wrong.join("\n"))) }
}
