//! Debian's format (`deb(5)`): an `ar` archive of a version, the control files and the files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{Needs, Package, PackageError};

/// Debian's name of a machine.
fn architecture(machine: Option<&str>) -> &str {
    match machine {
        None => "all",
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        Some("ppc64le") => "ppc64el",
        Some("loongarch64") => "loong64",
        Some(other) => other,
    }
}

/// Debian allows lower case only, and no underscores.
fn name(package: &Package) -> String {
    package.name.to_ascii_lowercase().replace('_', "-")
}

/// The name that the package's file should have.
pub fn file_name(package: &Package) -> String {
    let machine = architecture(package.machine.as_deref());
    format!("{}_{}-{}_{machine}.deb", name(package), package.version, package.release)
}

/// The bytes of the package's file.
pub fn write(package: &Package) -> Result<Vec<u8>, PackageError> {
    package.check()?;
    let mut out = ar::Builder::new(Vec::new());
    let mut member = |name: &str, bytes: &[u8]| {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(u64::from(package.time));
        out.append(&header, bytes)
    };
    member("debian-binary", b"2.0\n")?;
    member("control.tar.gz", &control(package)?)?;
    member("data.tar.gz", &data(package)?)?;
    Ok(out.into_inner()?)
}

fn list(needs: &[Needs]) -> String {
    needs.iter().filter_map(|needs| needs.deb.clone()).collect::<Vec<_>>().join(", ")
}

fn control(package: &Package) -> io::Result<Vec<u8>> {
    let size: usize = package.files.values().map(|file| file.content.len()).sum();
    let mut text = format!(
        "Package: {}\nVersion: {}-{}\nArchitecture: {}\nMaintainer: kpatch maintainers <root@localhost>\n\
         Installed-Size: {}\nSection: admin\nPriority: optional\n",
        name(package),
        package.version,
        package.release,
        architecture(package.machine.as_deref()),
        size.div_ceil(1024)
    );
    for (field, needs) in [("Depends", &package.needs), ("Recommends", &package.recommends)] {
        let list = list(needs);
        if !list.is_empty() {
            let _ = writeln!(text, "{field}: {list}");
        }
    }
    let _ = writeln!(text, "Description: {}", package.summary);
    for line in package.description.lines() {
        // An empty line is a dot, see deb-control(5).
        let _ = writeln!(text, " {}", if line.trim().is_empty() { "." } else { line });
    }
    let mut tar = Archive::new(package.time);
    tar.directory("./")?;
    tar.file("./control", 0o644, text.as_bytes())?;
    // What is run when, see deb-postinst(5), deb-prerm(5) and deb-postrm(5).
    let scripts = [
        ("./postinst", "configure", &package.scripts.installed),
        ("./prerm", "remove", &package.scripts.removing),
        ("./postrm", "remove", &package.scripts.removed),
    ];
    for (path, when, script) in scripts {
        if let Some(script) = script {
            let text = format!("#!/bin/sh\nset -e\n[ \"$1\" = {when} ] || exit 0\n{script}");
            tar.file(path, 0o755, text.as_bytes())?;
        }
    }
    tar.finish()
}

fn data(package: &Package) -> io::Result<Vec<u8>> {
    let mut tar = Archive::new(package.time);
    let mut known = BTreeSet::new();
    tar.directory("./")?;
    for (path, file) in &package.files {
        let path = format!(".{path}");
        for (end, _) in path.match_indices('/').skip(1) {
            if known.insert(path[..=end].to_owned()) {
                tar.directory(&path[..=end])?;
            }
        }
        tar.file(&path, file.mode, &file.content)?;
    }
    tar.finish()
}

/// A compressed tar archive whose files belong to root.
struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    time: u32,
}

impl Archive {
    fn new(time: u32) -> Archive {
        Archive { tar: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best())), time }
    }

    fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, tar::EntryType::Directory, 0o755, &[])
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, content)
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_mtime(u64::from(self.time));
        // Not by set_path, which takes the leading dot away that dpkg wants.
        let bytes = path.as_bytes();
        let field = &mut header.as_old_mut().name;
        if bytes.len() > field.len() {
            return self.tar.append_data(&mut header, path, content);
        }
        field[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        self.tar.append(&header, content)
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        let mut out = self.tar.into_inner()?;
        out.flush()?;
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::example;
    use std::process::Command;

    /// What Debian's own tool says of a package.
    fn dpkg_deb(bytes: &[u8], words: &[&str]) -> String {
        let directory = std::env::temp_dir().join(format!("kpatch-deb-{}-{}", std::process::id(), words[0]));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("x.deb");
        std::fs::write(&file, bytes).unwrap();
        let output = Command::new("dpkg-deb").arg(words[0]).arg(&file).args(&words[1..]).output().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn dpkg_reads_what_is_written() {
        let bytes = write(&example()).unwrap();
        let fields = dpkg_deb(&bytes, &["--field"]);
        for line in [
            "Package: kpatch-patch-x",
            "Version: 1.0-1",
            "Architecture: amd64",
            "Depends: kpatch, linux-image-x (= 6)",
            "Description: One line",
        ] {
            assert!(fields.lines().any(|found| found == line), "{line} in\n{fields}");
        }
        let files = dpkg_deb(&bytes, &["--contents"]);
        let found: Vec<(&str, &str)> =
            files.lines().map(|line| (&line[..10], line.rsplit(' ').next().unwrap_or_default())).collect();
        let long = format!("./var/lib/kpatch/{}/x.ko", "r".repeat(100));
        let long_directory = long.trim_end_matches("x.ko");
        let expected = [
            ("drwxr-xr-x", "./"),
            ("drwxr-xr-x", "./usr/"),
            ("drwxr-xr-x", "./usr/sbin/"),
            ("-rwxr-xr-x", "./usr/sbin/kpatch"),
            ("drwxr-xr-x", "./var/"),
            ("drwxr-xr-x", "./var/lib/"),
            ("drwxr-xr-x", "./var/lib/kpatch/"),
            ("drwxr-xr-x", long_directory),
            ("-rw-r--r--", long.as_str()),
        ];
        // Long names lose their leading dot, which dpkg takes as well.
        let plain = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(m, p)| ((*m).to_owned(), p.trim_start_matches("./").to_owned())).collect()
        };
        assert_eq!(plain(&found), plain(&expected));
        assert!(dpkg_deb(&bytes, &["--info", "postinst"]).contains("= configure ] || exit 0\necho here"));
        assert_eq!(bytes, write(&example()).unwrap(), "the same again");
        assert_eq!(file_name(&example()), "kpatch-patch-x_1.0-1_amd64.deb");
    }
}
