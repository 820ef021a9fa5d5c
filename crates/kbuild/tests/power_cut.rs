//! What the disk holds when the power goes: an item whose stamp is there must be there, too. Mounting needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use kbuild::store::{Item, StoreError};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}; this test must run as root");
}

/// A file system in a file, mounted until dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn mount(image: &Path, place: &Path) -> Disk {
        std::fs::create_dir(place).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), place.to_str().unwrap()]);
        Disk { place: place.to_owned() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}

#[test]
fn a_stamp_is_never_on_the_disk_before_what_it_vouches_for() {
    const FILES: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run("/usr/sbin/mke2fs", &["-q", "-t", "ext4", image.to_str().unwrap()]);
    let disk = Disk::mount(&image, &dir.path().join("disk"));
    let fill = |path: &Path| {
        std::fs::create_dir(path).unwrap();
        for number in 0..FILES {
            std::fs::write(path.join(number.to_string()), [b'x'; 3000]).unwrap();
        }
        Ok::<_, StoreError>(())
    };
    let item = |below: &Path, name: &str| Item::new(below.join(name), "key");
    item(&disk.place, "moved").ensure(fill).unwrap();
    item(&disk.place, "in-place").ensure_in_place(fill).unwrap();
    // The file behind the disk is what a machine without power has left.
    std::fs::copy(&image, &copy).unwrap();
    let later = Disk::mount(&copy, &dir.path().join("later"));
    let mut complete = 0;
    for name in ["moved", "in-place"] {
        let item = item(&later.place, name);
        // One that lacks its stamp is made anew.
        if item.is_complete() {
            complete += 1;
            let content =
                |number: usize| std::fs::read(item.path().join(number.to_string())).unwrap_or_default();
            let damaged: Vec<usize> = (0..FILES).filter(|&number| content(number) != [b'x'; 3000]).collect();
            assert!(damaged.is_empty(), "{name}: {damaged:?}");
        }
    }
    // The stamp of the first was on its way before the second was filled.
    assert!(complete > 0);
}
