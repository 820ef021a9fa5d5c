//! A whole Debian: systemd boots it in QEMU, apt and rpm install packages, and it is booted again and again.
//!
//! The root file system is made by mmdebstrap, with the kernel that the patches are for. The scripts of
//! `test-patches/kpatch/system` are run in it one after the other by `system.sh`, which reports as the guests of
//! [`crate::guest`] do.

use super::altered::altered;
use super::script::{self, Script, Then};
use super::{Bench, Judged, module, run_tool};
use crate::dist;
use crate::error::Result;
use crate::guest::{self, Case, Options};
use crate::kernels;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the names of these cases begin with. They follow from one another, so all are run.
pub(super) const PREFIX: &str = "system:";

/// The distribution.
const SUITE: &str = "bookworm";

/// What is in it besides what apt needs. No busybox: the tests use the shell and the tools that every Debian has.
const INCLUDE: &str = "systemd-sysv,udev,dbus,kmod,rpm";

/// Room for a file system, in MiB; the files are sparse.
const SIZE: u32 = 1600;

/// The versions of the cumulative patch, with their patches.
const VERSIONS: [(&str, &[&str]); 2] = [("1-1", &["one"]), ("2-1", &["one", "two"])];

/// Builds everything and runs it.
pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Judged>> {
    let work = bench.work.join("system");
    if work.exists() {
        fs_err::remove_dir_all(&work)?;
    }
    let shared = work.join("shared");
    fs_err::create_dir_all(&shared)?;
    packages(bench, &shared)?;
    let scripts = script::read_all(&script::directory().join("system"))?;
    stages(&scripts, &shared)?;
    let (root, initrd) = root(bench)?;
    let (image, shared_image) = (work.join("disk"), work.join("shared.img"));
    // Not fs::copy, which fills the holes.
    run_tool(&duct::cmd!("cp", "--sparse=always", &root, &image))?;
    file_system(&shared, &shared_image)?;

    let mut options = Options::new(PathBuf::new());
    options.processors = 2;
    // A boot of systemd under the emulator, and what apt does, take a minute each where the host is busy.
    options.slack = Duration::from_mins(4);
    let mut judged = Vec::new();
    for (number, session) in (1..).zip(scripts.split_inclusive(|script| script.then == Then::Off)) {
        options.logs = bench.work.join(format!("logs-system-{number}"));
        options.append = session.iter().find_map(|script| script.boot.clone()).unwrap_or_default();
        let cases: Vec<Case> = session
            .iter()
            .map(|script| Case { name: format!("{PREFIX}{}", script.name), ..Case::default() })
            .collect();
        let run = guest::run_disks(bench.kernel, &[&image, &shared_image], &initrd, &cases, &options)?;
        judged.extend(run.outcomes.iter().map(|outcome| (outcome.name.clone(), script::failures(outcome))));
    }
    // The image is as large as all the rest of the tests; what is kept of a failure are the logs.
    fs_err::remove_dir_all(&work)?;
    Ok(judged)
}

/// Fills the directory that is `/shared` in the system: a repository for each state of the world (`0`: the tools and
/// the empty version; each further number adds a version of the patch), the rpm packages, and a foreign module.
fn packages(bench: &Bench<'_>, shared: &Path) -> Result<()> {
    let mut known = vec![dist::write_deb(&dist::kpatch()?, shared)?];
    fs_err::create_dir_all(shared.join("rpm"))?;
    dist::write_rpm(&dist::kpatch()?, &shared.join("rpm"))?;
    for (number, (version, patches)) in (1..).zip(VERSIONS) {
        for format in ["deb", "rpm"] {
            let name = format!("{format}-{version}");
            let module = module(bench, &name, patches, &["--package", format, "--package-version", version])?;
            let directory = module.parent().unwrap_or(&module);
            for path in files(directory, format)? {
                let file = path.file_name().unwrap_or_default().to_owned();
                if format == "rpm" {
                    fs_err::copy(&path, shared.join("rpm").join(file))?;
                } else if !known.iter().any(|other| other.file_name() == Some(&file)) {
                    known.push(path);
                }
            }
            if number == 1 && format == "deb" {
                let foreign =
                    altered(&fs_err::read(&module)?, &format!("vermagic={}", bench.kernel.release))?;
                fs_err::write(shared.join("foreign.ko"), foreign)?;
                // Of the first version's packages, the empty one stands alone in the first repository.
                let part = format!("_{version}_");
                let empty = |path: &&PathBuf| {
                    path.file_name().is_some_and(|name| !name.to_string_lossy().contains(&part))
                };
                repository(&known.iter().filter(empty).collect::<Vec<_>>(), &shared.join("0"))?;
            }
        }
        repository(&known.iter().collect::<Vec<_>>(), &shared.join(number.to_string()))?;
    }
    Ok(())
}

/// The files of a directory that end so.
fn files(directory: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == end) {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// A repository in the flat form: packages, and their index.
fn repository(debs: &[&PathBuf], directory: &Path) -> Result<()> {
    fs_err::create_dir_all(directory)?;
    for deb in debs {
        fs_err::copy(deb, directory.join(deb.file_name().unwrap_or_default()))?;
    }
    let index = run_tool(&duct::cmd!("dpkg-scanpackages", "--multiversion", ".").dir(directory))?;
    fs_err::write(directory.join("Packages"), index)?;
    Ok(())
}

/// Writes the scripts as the system runs them.
fn stages(scripts: &[Script], shared: &Path) -> Result<()> {
    let common = script::directory().join("system/common.sh");
    let library = format!("{}\n{}", script::library()?, fs_err::read_to_string(common)?);
    let directory = shared.join("stages");
    fs_err::create_dir_all(&directory)?;
    fs_err::write(shared.join("system.sh"), include_str!("system.sh"))?;
    let mut number = 0;
    let mut list = String::new();
    for script in scripts {
        let then = match script.then {
            Then::Next => "next",
            Then::Reboot => "reboot",
            Then::Off => "off",
        };
        let file = format!("{number}-{}", script.name);
        let _ = writeln!(list, "{number} {file} {then}");
        fs_err::write(directory.join(file), format!("{library}\n{}", script.text))?;
        // Each session counts its cases from 0.
        number = if script.then == Then::Off { 0 } else { number + 1 };
    }
    fs_err::write(shared.join("list"), list)?;
    Ok(())
}

/// The root file system, and the initramfs that initramfs-tools made in it. They are made once for a kernel.
fn root(bench: &Bench<'_>) -> Result<(PathBuf, PathBuf)> {
    let release = &bench.kernel.release;
    let directory = crate::target_directory().join("system");
    let image_package = kernels::image_package(bench.resolved, &bench.builder.cache)?;
    let name = image_package.file_stem().unwrap_or_default().to_string_lossy();
    let (image, initrd) =
        (directory.join(format!("{name}.img")), directory.join(format!("initrd.img-{release}")));
    if image.exists() && initrd.exists() {
        return Ok((image, initrd));
    }
    println!("  making a root file system of {SUITE}");
    fs_err::create_dir_all(&directory)?;
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(&directory)?;
    let tree = work.path().join("root");
    let (test, early) = (work.path().join("kpatch-test.service"), work.path().join("early.service"));
    fs_err::write(&test, UNIT)?;
    fs_err::write(&early, EARLY)?;
    let show = |path: &Path| dist::quoted(path);
    let package = image_package.file_name().unwrap_or_default().to_string_lossy();
    let hooks = [
        format!("copy-in {} /tmp", show(&image_package)),
        format!("chroot \"$1\" apt-get -qq install --no-install-recommends -y /tmp/{package}"),
        format!("copy-out /boot/initrd.img-{release} {}", show(&directory)),
        "rm -f \"$1\"/tmp/*.deb \"$1\"/boot/initrd.img*".to_owned(),
        format!("copy-in {} {} /etc/systemd/system", show(&test), show(&early)),
        "chroot \"$1\" systemctl --quiet enable kpatch-test early systemd-networkd".to_owned(),
        "chroot \"$1\" systemctl --quiet mask serial-getty@ttyS0 apt-daily.timer apt-daily-upgrade.timer"
            .to_owned(),
        // Only what the tests bring is offered.
        "rm \"$1\"/etc/apt/sources.list".to_owned(),
    ];
    let mut words = vec!["--variant=apt".to_owned(), "--quiet".to_owned(), format!("--include={INCLUDE}")];
    words.extend(hooks.iter().map(|hook| format!("--customize-hook={hook}")));
    words.extend([SUITE.to_owned(), tree.display().to_string()]);
    run_tool(&duct::cmd("mmdebstrap", words))?;
    let unfinished = work.path().join("image");
    file_system(&tree, &unfinished)?;
    fs_err::rename(unfinished, &image)?;
    Ok((image, initrd))
}

/// Makes the image of a file system with the content of a directory.
fn file_system(directory: &Path, image: &Path) -> Result<()> {
    run_tool(&duct::cmd!("mke2fs", "-q", "-t", "ext4", "-d", directory, image, format!("{SIZE}M"))).map(drop)
}

/// Runs the tests, which come on a disk of their own.
const UNIT: &str = "\
[Unit]
After=multi-user.target

[Service]
ExecStartPre=/bin/mount -m /dev/vdb /shared
ExecStart=/bin/sh /shared/system.sh

[Install]
WantedBy=multi-user.target
";

/// As cloud-init.service, which comes after the network and before everything that has the usual dependencies.
const EARLY: &str = "\
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true

[Install]
WantedBy=sysinit.target
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_is_switched_off() {
        let scripts = script::read_all(&script::directory().join("system")).unwrap();
        assert_eq!(scripts.last().map(|script| script.then), Some(Then::Off));
        for session in scripts.split_inclusive(|script| script.then == Then::Off) {
            // The command line is that of a whole session.
            assert!(session.iter().skip(1).all(|script| script.boot.is_none()), "{session:?}");
        }
    }
}
