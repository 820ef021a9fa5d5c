//! The checked module to a package that installs it.

use std::path::PathBuf;

use klp_module::hook::PatchFile;
use kpatch_elf::arch::Machine;
use kpatch_package::patch::{EMPTY, Patch};
use kpatch_package::{PackageError, deb, patch, rpm};

use super::publish;
use super::resolve::Resolved;
use crate::args::PackageFormat;
use crate::error::Error;
use crate::options::{Options, Packaging};
use crate::phase::Phase;

/// A package's file: name and bytes.
pub type Made = (String, Vec<u8>);

/// Makes the package of a module, and the empty one by which a host subscribes to those that follow.
pub fn run(
    options: &Options,
    packaging: &Packaging,
    resolved: &Resolved,
    machine: Machine,
    patches: &[PatchFile],
    module: &[u8],
) -> Result<Vec<Made>, Error> {
    let fixes: Vec<String> = patches.iter().map(|patch| patch.subject.clone()).collect();
    let packages = resolved.kernel.packages();
    let image = packages.iter().find(|record| record.role == "image");
    let full = Patch {
        kernel: &resolved.kernel.release,
        version: &packaging.version,
        release: &packaging.release,
        machine: machine.name(),
        module: Some((&options.module_name, module)),
        fixes: &fixes,
        debian_kernel: image.map(|record| record.package.version.as_str()),
    };
    let empty = Patch { version: EMPTY.0, release: EMPTY.1, module: None, fixes: &[], ..full };
    [full, empty]
        .iter()
        .map(|one| write(packaging.format, one))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::new(Phase::Publish, "package", "the package cannot be made").cause(error))
}

fn write(format: PackageFormat, patch: &Patch<'_>) -> Result<Made, PackageError> {
    Ok(match format {
        PackageFormat::Deb => {
            let package = patch::deb(patch);
            (deb::file_name(&package), deb::write(&package)?)
        }
        PackageFormat::Rpm => {
            let package = patch::rpm(patch);
            (rpm::file_name(&package), rpm::write(&package)?)
        }
    })
}

/// Writes packages beside the module.
pub fn publish(options: &Options, made: &[Made]) -> Result<Vec<PathBuf>, Error> {
    made.iter().map(|(name, bytes)| publish::write(&options.output, name, bytes)).collect()
}
