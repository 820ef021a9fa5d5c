//! Extracts to one object.

use kbuild::symvers::Symvers;
use klp_module::link::{self, Extract, LinkError, Linked};

use super::diff;
use super::plan::Unit;
use crate::error::Error;
use crate::events::Phase;

/// Links the extracts of all units.
pub fn run<'e>(
    extracts: &'e [diff::Extract],
    units: &[Unit],
    exports: &Symvers,
) -> Result<Linked<'e>, Vec<Error>> {
    let mut read = Vec::new();
    let mut errors = Vec::new();
    for extract in extracts {
        match Extract::read(&extract.bytes, &extract.unit.display().to_string()) {
            Ok(extract) => read.push(extract),
            Err(error) => errors.push(explain(&error, units)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    link::link(&read, exports).map_err(|errors| errors.iter().map(|error| explain(error, units)).collect())
}

fn explain(error: &LinkError, units: &[Unit]) -> Error {
    let mut out = Error::new(Phase::Link, error.code(), error).remedy(error.remedy());
    let unit = error.unit().and_then(|name| units.iter().find(|unit| unit.object.as_os_str() == name));
    if let Some(unit) = unit {
        out = out.file(&unit.source);
    }
    out
}
