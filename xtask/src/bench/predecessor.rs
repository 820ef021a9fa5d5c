//! The object differ of the C tools, as Debian ships it: fetched and unpacked, never installed, never compiled.
//!
//! Debian has it in sid only, so an apt with a state of its own reads that suite from the host's mirror. The
//! program is started with the C library of the same suite, as it wants a newer one than Debian 12 has.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Packages that are unpacked: the program and the libraries it loads.
const PACKAGES: [&str; 5] = ["kpatch-build", "libelf1t64", "libc6", "zlib1g", "libzstd1"];

/// Where the packages put things.
const PROGRAM: &str = "usr/lib/kpatch/create-diff-object";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The program, ready to be started.
#[derive(Debug)]
pub(super) struct Predecessor {
    root: PathBuf,
}

impl Predecessor {
    /// Fetches it, unless that was done before.
    pub(super) fn get() -> Result<Predecessor> {
        let home = crate::builder::cache_directory().join("predecessor");
        let root = home.join("root");
        if !root.join(PROGRAM).is_file() {
            println!("fetching the C tool: {}", PACKAGES.join(" "));
            fetch(&home, &root)?;
        }
        if root.join(PROGRAM).is_file() {
            return Ok(Predecessor { root });
        }
        Err(Error::Missing {
            what: format!("{PROGRAM} in Debian's kpatch-build"),
            remedy: "measure without it: --alone".to_owned(),
        })
    }

    /// Its command line up to its own arguments.
    pub(super) fn command(&self) -> Vec<OsString> {
        let libraries = self.root.join(LIBRARIES);
        vec![
            libraries.join("ld-linux-x86-64.so.2").into(),
            "--library-path".into(),
            libraries.into(),
            self.root.join(PROGRAM).into(),
        ]
    }
}

fn fetch(home: &Path, root: &Path) -> Result<()> {
    for directory in ["etc/parts", "etc/sources", "state/lists/partial", "cache/archives/partial", "debs"] {
        fs_err::create_dir_all(home.join(directory))?;
    }
    fs_err::write(
        home.join("etc/sources/sid.sources"),
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\nArchitectures: amd64\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
    )?;
    let at = home.display();
    let configuration = home.join("apt.conf");
    fs_err::write(
        &configuration,
        format!(
            "APT::Architecture \"amd64\";
APT::Architectures {{ \"amd64\"; }};
APT::Sandbox::User \"root\";
Acquire::Languages \"none\";
// A mirror that lags behind is good enough for a comparison.
Acquire::Check-Valid-Until \"false\";
Dir::Etc::main \"/dev/null\";
Dir::Etc::parts \"{at}/etc/parts\";
Dir::Etc::sourcelist \"/dev/null\";
Dir::Etc::sourceparts \"{at}/etc/sources\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"{at}/etc/parts\";
Dir::State \"{at}/state\";
Dir::State::status \"/dev/null\";
Dir::Cache \"{at}/cache\";
Dir::Log \"{at}\";
"
        ),
    )?;
    let run = |words: &[&str]| {
        duct::cmd(words[0], &words[1..])
            .env("APT_CONFIG", &configuration)
            .dir(home.join("debs"))
            .stdout_null()
            .run()
            .map(drop)
            .map_err(|error| Error::Command { command: words.join(" "), reason: error.to_string() })
    };
    run(&["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"])?;
    run(&[&["apt-get", "-q", "download"], &PACKAGES[..]].concat())?;
    for entry in fs_err::read_dir(home.join("debs"))? {
        let deb = entry?.path();
        run(&["dpkg-deb", "-x", &deb.to_string_lossy(), &root.to_string_lossy()])?;
    }
    Ok(())
}
