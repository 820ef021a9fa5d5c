//! The module that kbuild made to its final form.

use klp_module::ModuleManifest;
use klp_module::convert;

use crate::error::Error;
use crate::phase::Phase;

/// Gives the module its livepatch symbols and relocations.
pub fn run(module: &[u8], manifest: &ModuleManifest) -> Result<Vec<u8>, Vec<Error>> {
    convert::convert(module, manifest).map_err(|errors| {
        errors
            .iter()
            .map(|error| Error::new(Phase::Convert, error.code(), error).remedy(error.remedy()))
            .collect()
    })
}
