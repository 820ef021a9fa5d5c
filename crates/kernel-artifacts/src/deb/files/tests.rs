//! A release of small packages, unpacked from a cache of its own.

use std::cell::RefCell;

use super::super::index::Package;
use super::*;
use crate::run::Program;

const RELEASE: &str = "6.1.0-1-amd64";
const VERSION: &str = "6.1.9-1";

/// A release made of small packages, all of them in the cache; nothing may be fetched.
struct Fixture {
    dir: tempfile::TempDir,
    kernel: DebKernel,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let image = [
            ("boot/config-6.1.0-1-amd64", "CONFIG_X=y"),
            ("boot/vmlinuz-6.1.0-1-amd64", "image"),
            ("lib/modules/6.1.0-1-amd64/kernel/a-b.ko", "module"),
        ];
        let debug = [
            ("usr/lib/debug/boot/vmlinux-6.1.0-1-amd64", "ELF"),
            ("usr/lib/debug/lib/modules/6.1.0-1-amd64/kernel/a-b.ko", "debug"),
        ];
        let headers = [
            (
                "usr/src/linux-headers-6.1.0-1-amd64/Makefile",
                "include /usr/src/linux-headers-6.1.0-1-common/Makefile\n",
            ),
            ("usr/src/linux-headers-6.1.0-1-amd64/Module.symvers", ""),
        ];
        let package = |name: &str, files: &[(&str, &str)]| package(dir.path(), &store, name, files);
        let image = package("linux-image-6.1.0-1-amd64", &image);
        let selection = Selection {
            release: RELEASE.into(),
            version: VERSION.into(),
            base: image.clone(),
            modules: image.clone(),
            image,
            headers: package("linux-headers-6.1.0-1-amd64", &headers),
            common: package(
                "linux-headers-6.1.0-1-common",
                &[("usr/src/linux-headers-6.1.0-1-common/Makefile", "all:\n")],
            ),
            kbuild: package("linux-kbuild-6.1", &[("usr/lib/linux-kbuild-6.1/scripts/x", "")]),
            debug: package("linux-image-6.1.0-1-amd64-dbg", &debug),
            source: package("linux-source-6.1", &[("usr/src/nothing", "")]),
        };
        let mut settings = Settings::new(store.root());
        settings.offline = true;
        Fixture { kernel: DebKernel::new(store, settings, selection), dir }
    }

    fn deb(&self, package: &Package) -> PathBuf {
        self.dir.path().join("cache/debs").join(package.file_name())
    }
}

fn package(dir: &Path, store: &Store, name: &str, files: &[(&str, &str)]) -> Package {
    let tree = dir.join("tree").join(name);
    for (path, content) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control =
        format!("Package: {name}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: x\nDescription: x\n");
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::create_dir_all(store.path("debs")).unwrap();
    let filename = format!("{name}_{VERSION}_all.deb");
    let deb = store.path("debs").join(&filename);
    Program::new("dpkg-deb", "dpkg", "test").arg("-b").arg(&tree).arg(&deb).run().unwrap();
    Package {
        name: name.into(),
        version: VERSION.into(),
        architecture: "all".into(),
        suite: "s".into(),
        filename: format!("pool/{filename}"),
        size: fs::metadata(&deb).unwrap().len(),
        sha256: super::super::sha256(&deb).unwrap(),
        depends: Vec::new(),
    }
}

#[test]
fn every_part_is_found_and_unpacked_once() {
    let fixture = Fixture::new();
    let kernel = &fixture.kernel;
    let seen = RefCell::new(Vec::new());
    let events = |event: Event| seen.borrow_mut().push(event);
    for round in 0..2 {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(kernel.config(&events).unwrap()), "CONFIG_X=y");
        assert_eq!(read(kernel.image(&events).unwrap()), "image");
        assert_eq!(read(kernel.vmlinux(&events).unwrap()), "ELF");
        assert_eq!(read(kernel.module("a-b", &events).unwrap()), "module");
        let debug = kernel.module_debug(&["a_b", "a-b"], &events).unwrap();
        assert_eq!(debug.len(), 1);
        assert_eq!(read(debug["a_b"].clone()), "debug");
        let headers = kernel.headers(&events).unwrap();
        let include = read(headers.dir.join("Makefile"));
        assert_eq!(include, format!("include {}\n", headers.common.join("Makefile").display()));
        assert_eq!(seen.borrow().len(), 7, "round {round}");
    }
    assert!(matches!(kernel.module("none", &events), Err(Error::NoModule { .. })));
    assert!(matches!(kernel.module_debug(&["none"], &events), Err(Error::NoModule { .. })));
}

#[test]
fn an_entry_that_lost_a_file_is_made_again() {
    let fixture = Fixture::new();
    let file = fixture.kernel.vmlinux(&|_| {}).unwrap();
    fs::remove_file(&file).unwrap();
    let seen = RefCell::new(Vec::new());
    assert_eq!(fixture.kernel.vmlinux(&|event| seen.borrow_mut().push(event)).unwrap(), file);
    assert!(file.exists());
    assert!(
        matches!(&seen.borrow()[0], Event::Warning { message } if message.contains("vmlinux is missing"))
    );
}

#[test]
fn a_damaged_package_is_named_and_leaves_nothing() {
    let fixture = Fixture::new();
    let package = fixture.kernel.selection().debug.clone();
    let deb = fixture.deb(&package);
    let content = fs::read(&deb).unwrap();
    let mut damaged = content.clone();
    damaged[content.len() - 40..].fill(0);
    fs::write(&deb, &damaged).unwrap();
    let error = fixture.kernel.vmlinux(&|_| {}).unwrap_err();
    assert!(error.to_string().contains(package.file_name()), "{error}");
    assert!(!fixture.kernel.work_dir().join("vmlinux").exists());
    // A truncated one counts as absent.
    fs::write(&deb, &content[..content.len() / 2]).unwrap();
    assert!(matches!(fixture.kernel.vmlinux(&|_| {}), Err(Error::Offline { .. })));
    fs::write(&deb, &content).unwrap();
    assert!(fixture.kernel.vmlinux(&|_| {}).is_ok());
}

#[test]
fn a_package_that_became_another_is_never_mixed_with_what_was_made_of_it() {
    let mut fixture = Fixture::new();
    let old = fixture.kernel.selection().image.clone();
    fixture.kernel.config(&|_| {}).unwrap();
    // The archive has made it anew, under the same name and version and of the same size.
    let files = [
        ("boot/config-6.1.0-1-amd64", "CONFIG_X=m"),
        ("boot/vmlinuz-6.1.0-1-amd64", "other"),
        ("lib/modules/6.1.0-1-amd64/kernel/a-b.ko", "modulo"),
    ];
    let new = package(fixture.dir.path(), &fixture.kernel.store, &old.name, &files);
    assert_ne!(new.sha256, old.sha256);
    fixture.kernel.selection.image.size = new.size;
    // What is made already stays; nothing more is made of the other one.
    assert_eq!(fs::read_to_string(fixture.kernel.config(&|_| {}).unwrap()).unwrap(), "CONFIG_X=y");
    let error = fixture.kernel.image(&|_| {}).unwrap_err();
    assert!(error.to_string().contains(old.file_name()), "{error}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("--refresh")), "{error}");
    assert!(!fixture.kernel.work_dir().join("image").exists());

    // Resolved anew, everything is made of the new one.
    let mut kernel = fixture.kernel.clone();
    for package in [&mut kernel.selection.base, &mut kernel.selection.image, &mut kernel.selection.modules] {
        *package = new.clone();
    }
    assert_ne!(kernel.identity(), fixture.kernel.identity());
    assert_eq!(fs::read_to_string(kernel.config(&|_| {}).unwrap()).unwrap(), "CONFIG_X=m");
    assert_eq!(fs::read_to_string(kernel.image(&|_| {}).unwrap()).unwrap(), "other");
    assert_eq!(fs::read_to_string(kernel.module("a-b", &|_| {}).unwrap()).unwrap(), "modulo");
}

#[test]
fn a_package_without_the_expected_file_says_so() {
    let fixture = Fixture::new();
    let error = fixture.kernel.source(&|_| {}).unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }), "{error}");
}

#[test]
fn the_identity_follows_the_packages() {
    let fixture = Fixture::new();
    let mut other = fixture.kernel.clone();
    assert_eq!(other.identity(), fixture.kernel.identity());
    other.selection.kbuild.sha256 = "1".repeat(64);
    assert_ne!(other.identity(), fixture.kernel.identity());
}

#[test]
fn boot_files_of_both_layouts() {
    let release = "6.1.0-1-amd64";
    assert!(is_boot_file("boot/config-6.1.0-1-amd64", "config", release));
    assert!(is_boot_file("usr/lib/debug/boot/vmlinux-6.1.0-1-amd64", "vmlinux", release));
    assert!(is_boot_file("usr/lib/debug/lib/modules/6.1.0-1-amd64/vmlinux", "vmlinux", release));
    assert!(is_boot_file("usr/lib/modules/6.1.0-1-amd64/vmlinuz", "vmlinuz", release));
    assert!(!is_boot_file("boot/config-6.1.0-2-amd64", "config", release));
    assert!(!is_boot_file("usr/share/doc/config-6.1.0-1-amd64", "config", release));
}

#[test]
fn module_names() {
    assert_eq!(module_of_file("virtio-net.ko.xz").as_deref(), Some("virtio_net"));
    assert_eq!(module_of_file("modules.dep"), None);
    let path = "usr/lib/debug/lib/modules/6.1/kernel/fs/nls/nls-utf8.ko";
    assert_eq!(debug_module(path).as_deref(), Some("nls_utf8"));
    assert_eq!(debug_module("usr/lib/debug/boot/vmlinux-6.1"), None);
}
