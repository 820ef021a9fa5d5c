//! Taking files out of packages: whole ones with dpkg-deb, single files by reading the archive as a stream.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use crate::error::{Error, Result};
use crate::run::{self, Program};
use crate::store::create_dir_all;

/// Unpacks the whole package into a directory.
pub(super) fn all(deb: &Path, into: &Path) -> Result<()> {
    create_dir_all(into)?;
    Program::new("dpkg-deb", "dpkg", "unpack a package").arg("-x").arg(deb).arg(into).run().map(drop)
}

/// What to do with a file of the archive.
pub(super) enum Take {
    /// Leave it out.
    Skip,
    /// Write it there.
    To(PathBuf),
}

/// Streams through a package and writes the files that `choose` picks by their path (without a leading `./`). Reading ends
/// after `enough` files, which saves decompressing the rest of a large package. Gives the number of files written.
pub(super) fn some(deb: &Path, enough: usize, mut choose: impl FnMut(&str) -> Take) -> Result<usize> {
    let program = Program::new("dpkg-deb", "dpkg", "read a package").arg("--fsys-tarfile").arg(deb);
    let mut reader =
        program.expression().stderr_null().reader().map_err(|error| program.start_error(error))?;
    let unreadable = |error: std::io::Error| Error::DamagedCache {
        path: deb.to_owned(),
        reason: format!("it is no readable package: {error}"),
    };
    let mut written = 0;
    {
        let mut archive = tar::Archive::new(&mut reader);
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Take::To(target) = choose(path.trim_start_matches("./")) else { continue };
            if let Some(parent) = target.parent() {
                create_dir_all(parent)?;
            }
            let size = entry.size();
            if copy(&mut entry, &mut fs::File::create(&target)?, unreadable)? != size {
                return Err(unreadable(std::io::ErrorKind::UnexpectedEof.into()));
            }
            written += 1;
            if written == enough {
                // The writer dies of the closed pipe; that is no error of the package.
                let _ = reader.kill();
                return Ok(written);
            }
        }
    }
    // Read to the end, so that a failure of dpkg-deb is seen.
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(unreadable)?;
    Ok(written)
}

/// Failure to read is the package's, failure to write is not.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    unreadable: impl Fn(std::io::Error) -> Error,
) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        if kbuild::root::interrupted() {
            return Err(Error::Interrupted);
        }
        let count = from.read(&mut buffer).map_err(&unreadable)?;
        if count == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..count])?;
        total += count as u64;
    }
}

/// Unpacks the tarball that a source package holds, without writing the tarball itself.
pub(super) fn source(deb: &Path, into: &Path) -> Result<()> {
    create_dir_all(into)?;
    let member = tarball_name(deb)?;
    let open = Program::new("dpkg-deb", "dpkg", "read the source package").arg("--fsys-tarfile").arg(deb);
    let pick = Program::new("tar", "tar", "read the source package").args(["-xO", "--"]).arg(&member);
    let expand = Program::new("xz", "xz-utils", "unpack the source").args(["-T0", "-dc"]);
    let spread = Program::new("tar", "tar", "unpack the source")
        .args(["-x", "--strip-components=1", "--no-same-owner", "-C"])
        .arg(into);
    let from_pipe = |program: &Program| program.pipe_expression();
    // tar stops reading after the member, at which dpkg-deb's pipe breaks: its status says nothing.
    let pipeline = open
        .expression()
        .unchecked()
        .pipe(from_pipe(&pick))
        .pipe(from_pipe(&expand))
        .pipe(from_pipe(&spread))
        .stderr_capture()
        .unchecked();
    let output = run::interruptible(&pipeline).map_err(|error| spread.start_error(error))?;
    let Some(output) = output else { return Err(Error::Interrupted) };
    if output.status.success() {
        return Ok(());
    }
    Err(Error::DamagedCache {
        path: deb.to_owned(),
        reason: format!(
            "the source cannot be unpacked: {}",
            run::tail(&String::from_utf8_lossy(&output.stderr), 5)
        ),
    })
}

/// The tarball's path in the archive, as tar wants it named.
fn tarball_name(deb: &Path) -> Result<String> {
    let listing = Program::new("dpkg-deb", "dpkg", "read the source package")
        .arg("-c")
        .arg(deb)
        .run()
        .map_err(|error| Error::DamagedCache { path: deb.to_owned(), reason: error.to_string() })?;
    String::from_utf8_lossy(&listing)
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .find(|path| path.starts_with("./usr/src/linux-source-") && path.ends_with(".tar.xz"))
        .map(str::to_owned)
        .ok_or_else(|| Error::MissingFile {
            package: file_name(deb),
            file: "usr/src/linux-source-*.tar.xz".to_owned(),
        })
}

/// Last component of a path, for messages.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A path of an archive as a path below a directory, or nothing where it would lead elsewhere.
pub(super) fn below(dir: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| dir.join(path))
}

/// Decompresses a module by its name's ending; an uncompressed one is copied.
pub(super) fn decompress(from: &Path, to: &Path) -> Result<()> {
    let extension = from.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let (tool, package) = match extension {
        "xz" => ("xz", "xz-utils"),
        "zst" => ("zstd", "zstd"),
        "gz" => ("gzip", "gzip"),
        _ => {
            fs::copy(from, to)?;
            return Ok(());
        }
    };
    let program = Program::new(tool, package, "decompress a module").arg("-dc").arg(from);
    let content = program.run()?;
    Ok(fs::write(to, content)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small package, made by dpkg-deb itself.
    fn package(dir: &Path) -> PathBuf {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("boot")).unwrap();
        fs::write(tree.join("boot/config-1"), "CONFIG_X=y\n").unwrap();
        fs::write(tree.join("boot/vmlinuz-1"), vec![7; 3 << 20]).unwrap();
        fs::write(
            tree.join("DEBIAN/control"),
            "Package: linux-x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n",
        )
        .unwrap();
        let deb = dir.join("x.deb");
        Program::new("dpkg-deb", "dpkg", "test").arg("-b").arg(&tree).arg(&deb).run().unwrap();
        deb
    }

    #[test]
    fn takes_single_files() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let target = dir.path().join("out/config");
        let count =
            some(&deb, 1, |path| if path == "boot/config-1" { Take::To(target.clone()) } else { Take::Skip })
                .unwrap();
        assert_eq!(count, 1);
        assert_eq!(fs::read_to_string(target).unwrap(), "CONFIG_X=y\n");
        assert_eq!(some(&deb, 1, |_| Take::Skip).unwrap(), 0);
    }

    #[test]
    fn a_damaged_package_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let content = fs::read(&deb).unwrap();
        fs::write(&deb, &content[..content.len() / 2]).unwrap();
        let error = some(&deb, usize::MAX, |_| Take::To(dir.path().join("f"))).unwrap_err();
        assert!(error.to_string().contains("x.deb"), "{error}");
        assert!(all(&deb, &dir.path().join("a")).is_err());
        assert!(source(&deb, &dir.path().join("b")).is_err());
    }

    #[test]
    fn modules_of_all_compressions_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        // Signed: what stands behind the object belongs to the file.
        let module = [&b"\x7fELF"[..], &[7; 5000], b"~Module signature appended~\n"].concat();
        let plain = dir.path().join("a.ko");
        fs::write(&plain, &module).unwrap();
        for (end, tool) in [("", ""), (".xz", "xz"), (".zst", "zstd"), (".gz", "gzip")] {
            let file = dir.path().join(format!("a.ko{end}"));
            if !end.is_empty() {
                let packed = Program::new(tool, tool, "test").arg("-c").arg(&plain).run().unwrap();
                assert!(packed.len() < 1000);
                fs::write(&file, packed).unwrap();
            }
            let unpacked = dir.path().join("unpacked");
            decompress(&file, &unpacked).unwrap();
            assert_eq!(fs::read(&unpacked).unwrap(), module, "{end}");
            if !end.is_empty() {
                fs::write(&file, b"no such thing").unwrap();
                let error = decompress(&file, &unpacked).unwrap_err().to_string();
                assert!(error.contains(tool), "{error}");
            }
        }
    }

    #[test]
    fn a_path_never_leaves_its_directory() {
        assert_eq!(below(Path::new("/d"), "a/b"), Some("/d/a/b".into()));
        for path in ["../a", "a/../../b", "/etc/passwd"] {
            assert_eq!(below(Path::new("/d"), path), None, "{path}");
        }
    }
}
