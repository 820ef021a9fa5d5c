//! The linked extract to a module, by the target kernel's own objtool and kbuild.

use std::path::{Path, PathBuf};

use bstr::ByteSlice;
use kbuild::object_tree::ObjectTree;
use kbuild::root::{Root, RunError};
use klp_module::hook::{self, Hook};
use klp_module::objtool;

use super::unit::Unit;
use crate::error::Error;
use crate::events::{Event, Events};
use crate::phase::Phase;

/// What making the module needs.
pub struct Input<'a> {
    /// The module's name, without `.ko`.
    pub name: &'a str,
    /// The linked object, complete.
    pub linked: &'a [u8],
    /// The hook's source and its kbuild files.
    pub hook: &'a Hook,
    /// Where the module is built; empty and this run's own.
    pub directory: &'a Path,
    /// What `make -C` gets: the headers package, or the object tree of an own kernel.
    pub kernel: &'a Path,
    /// The object tree, where objtool's relative paths start.
    pub tree: &'a ObjectTree,
    /// Where commands run.
    pub root: &'a Root,
    /// The compiler.
    pub compiler: &'a str,
    /// A unit that kbuild has objtool work on by itself, if the kernel is of that kind and objtool has not
    /// run over the extract's objects.
    pub early: Option<&'a Unit>,
    /// `CFLAGS_MODULE` of the environment.
    pub cflags: Option<&'a std::ffi::OsStr>,
    /// `KBUILD_EXTRA_SYMBOLS` of the environment.
    pub extra_symbols: Option<&'a std::ffi::OsStr>,
}

/// Makes the module; its bytes as kbuild leaves them.
pub fn run(input: &Input<'_>, events: Events<'_>) -> Result<Vec<u8>, Error> {
    let write = |name: &str, contents: &[u8]| {
        let path = input.directory.join(name);
        fs_err::write(&path, contents).map_err(Error::io(Phase::Kbuild, "write", &path))
    };
    for (name, text) in input.hook.files() {
        write(name, text.as_bytes())?;
    }
    write(hook::LINKED, input.linked)?;
    if let Some(unit) = input.early {
        run_objtool(input, unit, events)?;
    }

    let mut make = input
        .root
        .command("make")
        .directory(input.directory)
        .confined_to([input.directory])
        .arg("-s")
        .arg("-C")
        .arg(input.kernel)
        .arg(format!("M={}", input.directory.display()))
        .arg(format!("CC={}", input.compiler))
        .args(make_arguments(input));
    if let Some(cflags) = input.cflags {
        make = make.env("CFLAGS_MODULE", cflags);
    }
    let output = match make.arg("modules").output() {
        Ok(output) => output,
        Err(RunError::Interrupted) => return Err(Error::interrupted(Phase::Kbuild)),
        Err(error) => return Err(Error::new(Phase::Kbuild, "make", "make does not start").cause(error)),
    };
    let text = output.text().replace(&format!("{}/", input.directory.display()), "");
    if !output.status.success() {
        return Err(refused(&text));
    }
    for line in text.lines().filter(|line| line.contains("arning")) {
        events(Event::warning(line.trim()));
    }
    let path = module_path(input);
    fs_err::read(&path).map_err(|error| {
        Error::new(Phase::Kbuild, "no-module", "the kernel's kbuild made no module")
            .cause(format!("{error}\n{text}"))
    })
}

/// What the hook needs, with the user's own symbol files behind this run's.
fn make_arguments(input: &Input<'_>) -> Vec<String> {
    let mut arguments = hook::make_arguments(&input.directory.display().to_string());
    if let Some(more) = input.extra_symbols.and_then(|more| more.to_str()) {
        for argument in arguments.iter_mut().filter(|a| a.starts_with("KBUILD_EXTRA_SYMBOLS=")) {
            argument.push(' ');
            argument.push_str(more);
        }
    }
    arguments
}

fn module_path(input: &Input<'_>) -> PathBuf {
    input.directory.join(format!("{}.ko", input.name))
}

/// On kernels where objtool works on single objects, kbuild does not run it on a ready-made one.
fn run_objtool(input: &Input<'_>, unit: &Unit, events: Events<'_>) -> Result<(), Error> {
    let Some(recorded) = &unit.objtool else { return Ok(()) };
    let error = |code, message: &str| Error::new(Phase::Kbuild, code, message);
    let object = input.directory.join(hook::LINKED);
    let words = objtool::arguments(recorded, &object.display().to_string())
        .map_err(|e| error("objtool-command", "kbuild's objtool command is not understood").cause(e))?;
    let Some((program, arguments)) = words.split_first() else {
        return Err(error("objtool-command", "kbuild's objtool command is empty"));
    };
    // The kernel's makefiles export SRCARCH, which wrappers around objtool ask for.
    let arch = input.tree.recipe().arch.as_str();
    let task = input.root.command(program).args(arguments).directory(input.tree.path()).env("SRCARCH", arch);
    let task = task.confined_to([input.directory]);
    match task.run() {
        Ok(output) => {
            for line in output.text().lines() {
                events(Event::warning(line.trim()));
            }
            Ok(())
        }
        Err(RunError::Interrupted) => Err(Error::interrupted(Phase::Kbuild)),
        Err(e) => Err(error("objtool", "the kernel's objtool refuses the patched code")
            .cause(e)
            .remedy("objtool names the function; rewrite what it does not follow, or report it if the kernel itself has such code")),
    }
}

/// What kbuild's complaint means.
fn refused(text: &str) -> Error {
    let undefined: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("modpost") && line.ends_with("undefined!"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    if !undefined.is_empty() {
        return Error::new(
            Phase::Kbuild,
            "undefined",
            format!("the patched code refers to what the kernel does not have: {}", undefined.join(", ")),
        )
        .cause(text.trim_end())
        .remedy("add the patch that defines it, or leave out what uses it");
    }
    let code = if text.as_bytes().contains_str("objtool") { "objtool" } else { "kbuild" };
    Error::new(Phase::Kbuild, code, "the target kernel's kbuild cannot make the module")
        .cause(text.trim_end())
}
