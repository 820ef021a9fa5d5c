//! Compilers run by ccache, and by distcc on a server of this machine: the module stays the same.

use super::Own;
use crate::error::{Error, Result};
use std::path::Path;
use std::time::Duration;

/// Where the server listens; it is stopped at the end.
const PORT: &str = "36320";

/// Builds the same patch three times.
pub(super) fn run(own: &mut Own, arguments: &[&str]) -> Result<()> {
    let plain = own.made("launcher", "show", arguments)?;
    let plain = fs_err::read(plain)?;
    let places = ["ccache", "distcc"].map(|name| own.out.with_file_name(name));
    for place in &places {
        if place.exists() {
            fs_err::remove_dir_all(place)?;
        }
        fs_err::create_dir_all(place)?;
    }
    let [ccache, distcc] = places.each_ref().map(|place| place.display().to_string());

    own.builder.environment = vec![("CCACHE_DIR".to_owned(), ccache.clone())];
    let by_ccache = own.made("launcher", "show", &[arguments, &["--cc-launcher", "ccache"]].concat())?;
    same("ccache", &by_ccache, &plain)?;
    let stored = walkdir::WalkDir::new(&ccache).into_iter().filter_map(std::result::Result::ok);
    if !stored.into_iter().any(|entry| entry.file_type().is_file() && entry.path().extension().is_none()) {
        return Err(Error::Failed(format!("ccache has kept nothing in {ccache}")));
    }

    let log = places[1].join("server.log");
    let server = duct::cmd!(
        "distccd",
        "--no-detach",
        // One process, which ends when it is killed.
        "--no-fork",
        "--daemon",
        "--port",
        PORT,
        "--listen",
        "127.0.0.1",
        "--allow",
        "127.0.0.1",
        "--log-stderr"
    );
    let server = server.stdout_null().stderr_path(&log).unchecked().start()?;
    // Nothing else says that it listens; a compilation that does not reach it fails.
    std::thread::sleep(Duration::from_secs(2));
    own.builder.environment = [
        ("DISTCC_HOSTS", format!("127.0.0.1:{PORT}")),
        ("DISTCC_FALLBACK", "0".to_owned()),
        ("DISTCC_DIR", distcc),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let by_distcc = own.made("launcher", "show", &[arguments, &["--cc-launcher", "distcc"]].concat());
    server.kill()?;
    own.builder.environment.clear();
    same("distcc", &by_distcc?, &plain)?;
    let said = fs_err::read_to_string(&log)?;
    if said.contains("COMPILE_OK") {
        return Ok(());
    }
    Err(Error::Failed(format!("the server of distcc has compiled nothing:\n{said}")))
}

fn same(name: &str, module: &Path, plain: &[u8]) -> Result<()> {
    if fs_err::read(module)? == plain {
        println!("  {name}: the same module");
        return Ok(());
    }
    Err(Error::Failed(format!("{name}: the module differs from the one of a compiler that runs directly")))
}
