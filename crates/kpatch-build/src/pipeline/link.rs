//! Extracts to one object.

use kbuild::symvers::Symvers;
use klp_module::link::{self, Extract, LinkError, Linked};

use super::extract;
use super::overlay::Overlay;
use super::places;
use super::unit::Unit;
use crate::error::Error;
use crate::phase::Phase;

/// Links the extracts of all units.
pub fn run<'e>(
    extracts: &'e [extract::Extract],
    units: &[Unit],
    exports: &Symvers,
    overlay: &Overlay,
) -> Result<Linked<'e>, Vec<Error>> {
    let explain = |error: &LinkError| explain(error, extracts, units, overlay);
    let mut read = Vec::new();
    let mut errors = Vec::new();
    for extract in extracts {
        match Extract::read(&extract.bytes, &extract.unit.display().to_string()) {
            Ok(extract) => read.push(extract),
            Err(error) => errors.push(explain(&error)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    link::link(&read, exports).map_err(|errors| errors.iter().map(explain).collect())
}

fn explain(error: &LinkError, extracts: &[extract::Extract], units: &[Unit], overlay: &Overlay) -> Error {
    let mut out = Error::new(Phase::Link, error.code(), error).remedy(error.remedy());
    let unit = error.unit().and_then(|name| units.iter().find(|unit| unit.object.as_os_str() == name));
    if let Some(unit) = unit {
        out = out.file(&unit.source);
    }
    match error {
        LinkError::Unresolved { unit, symbol } => {
            match extracts.iter().find(|extract| extract.unit.as_os_str() == unit.as_str()) {
                Some(extract) => places::of_use(out, overlay, extract, symbol),
                None => out,
            }
        }
        LinkError::Empty => only_additions(out, extracts),
        _ => out,
    }
}

/// Says what there is where nothing is replaced.
fn only_additions(error: Error, extracts: &[extract::Extract]) -> Error {
    let added: Vec<&str> = extracts.iter().flat_map(|e| &e.report.new).map(String::as_str).collect();
    if added.is_empty() {
        return error;
    }
    error
        .cause(format!(
            "it only adds {}, which nothing in the running kernel calls; modules that exist do not know of it \
             either, even if it is exported",
            added.join(", ")
        ))
        .remedy("add the patch of the code that is to use it, or leave it out")
}
