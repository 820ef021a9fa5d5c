//! Where the kernel's compiler runs: on the host where it has it, else in a root file system.

use kbuild::root::Root;

use crate::compiler::{self, Compiler};
use crate::deb::index::Package;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::settings::{BuildRootChoice, Settings};
use crate::store::Store;

/// Chooses the root and the compiler in it. `origin` is the suite the kernel is from and its kbuild package.
pub(crate) fn choose(
    wanted: &str,
    _origin: Option<(&str, &Package)>,
    settings: &Settings,
    _store: &Store,
    events: Events,
) -> Result<(Root, Compiler)> {
    let root = match &settings.build_root {
        BuildRootChoice::Auto | BuildRootChoice::None => Root::Host,
        BuildRootChoice::Dir(dir) => Root::in_dir(dir, []),
    };
    let found = compiler::find(wanted, &root);
    match found {
        Some(compiler) if compiler.exact => Ok((root, compiler)),
        Some(compiler) if settings.allow_other_compiler => {
            let message =
                format!("the kernel was built with `{wanted}`; `{}` is used instead", compiler.version_text);
            events(Event::Warning { message });
            Ok((root, compiler))
        }
        other => Err(Error::CompilerNotFound {
            wanted: wanted.to_owned(),
            found: compiler::describe(wanted, other.as_ref(), "the host"),
        }),
    }
}
