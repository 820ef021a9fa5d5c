//! The package of a patch module: `kpatch-patch-RELEASE`.
//!
//! Its version and release number the cumulative patches for one kernel release. Version 0-0 is empty: it
//! subscribes a host, which then gets the first patch as an upgrade. Each version's module has a name of its
//! own, so that the kernel can have the new one take over from the old.

use crate::{Needs, Package, Scripts};

/// Version and release of the package that is empty.
pub const EMPTY: (&str, &str) = ("0", "0");

/// What is to be packaged.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a> {
    /// The kernel release.
    pub kernel: &'a str,
    /// Number of the cumulative patch.
    pub version: &'a str,
    /// Number of its packaging.
    pub release: &'a str,
    /// The machine as `uname -m` prints it.
    pub machine: &'a str,
    /// The module's name, and its file; none for the empty package.
    pub module: Option<(&'a str, &'a [u8])>,
    /// What it fixes, one line each.
    pub fixes: &'a [String],
    /// Version of Debian's kernel package, where it is known.
    pub debian_kernel: Option<&'a str>,
}

/// A kernel release taken apart: without the machine, and without the distribution's mark of rpm worlds
/// (`.el9_4`, `.fc40`), which goes into the package's release.
fn parts<'k>(kernel: &'k str, machine: &str) -> (&'k str, &'k str) {
    let base = kernel.strip_suffix(machine).and_then(|rest| rest.strip_suffix('.')).unwrap_or(kernel);
    for mark in [".el", ".fc"] {
        if let Some(at) = base.rfind(mark)
            && base[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit())
        {
            return base.split_at(at);
        }
    }
    (base, "")
}

/// The name of the module for a version: `kpatch_6_1_0_56_cloud_amd64_1_2`.
pub fn module_name(kernel: &str, machine: &str, version: &str, release: &str) -> String {
    let (base, _) = parts(kernel, machine);
    let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let (base, tail) = (plain(base), format!("_{}_{}", plain(version), plain(release)));
    // The kernel allows 55 bytes; the numbers at the end are what tells versions apart.
    let room = 55usize.saturating_sub("kpatch_".len() + tail.len());
    format!("kpatch_{}{tail}", &base[..base.len().min(room)])
}

/// The package for machines with deb.
pub fn deb(patch: &Patch<'_>) -> Package {
    let image = format!("linux-image-{}", patch.kernel);
    let image = match patch.debian_kernel {
        Some(version) => format!("{image} (= {version})"),
        None => image,
    };
    Package {
        name: format!("kpatch-patch-{}", patch.kernel),
        release: patch.release.to_owned(),
        needs: vec![Needs::deb("kpatch"), Needs::deb(&image)],
        ..common(patch)
    }
}

/// The package for machines with rpm: `kpatch-patch-3_10_0-1062-1-1.el7`.
pub fn rpm(patch: &Patch<'_>) -> Package {
    let (base, mark) = parts(patch.kernel, patch.machine);
    let kernel = ("kernel-uname-r".to_owned(), Some(patch.kernel.to_owned()));
    Package {
        name: format!("kpatch-patch-{}", base.replace('.', "_")),
        release: format!("{}{mark}", patch.release),
        needs: vec![Needs::rpm("kpatch"), Needs { deb: None, rpm: Some(kernel) }],
        ..common(patch)
    }
}

fn common(patch: &Patch<'_>) -> Package {
    let mut package = Package {
        version: patch.version.to_owned(),
        machine: Some(patch.machine.to_owned()),
        summary: format!("Live patch for Linux {}", patch.kernel),
        description: match patch.module {
            Some(_) => format!("Fixes in force without a reboot:\n{}", patch.fixes.join("\n")),
            None => "This version is empty: it subscribes a host to the live patches to come.".to_owned(),
        },
        ..Package::default()
    };
    if let Some((name, bytes)) = patch.module {
        let path = format!("/var/lib/kpatch/{}/{name}.ko", patch.kernel);
        package.scripts = scripts(patch.kernel, &path);
        package.add(path, 0o644, bytes);
    }
    package
}

/// Loading takes over from the version before. A failure is no failure of the installation: the module is
/// where the next boot finds it. Nothing is unloaded on removal: the kernel stays patched until it is booted
/// again, rather than being opened to what was fixed.
fn scripts(kernel: &str, path: &str) -> Scripts {
    Scripts {
        installed: Some(format!(
            "if [ \"$(uname -r)\" = \"{kernel}\" ] && [ -d /sys/kernel/livepatch ] \\\n    \
             && ! grep -qw kpatch.enable=0 /proc/cmdline; then\n    \
             kpatch load \"{path}\" || echo \"kpatch: the live patch is loaded at the next boot\" >&2\n\
             fi\nexit 0\n"
        )),
        removing: None,
        removed: Some(
            "[ ! -d /sys/kernel/livepatch ] || echo \"kpatch: the running kernel stays patched until it is \
             booted again\" >&2\nexit 0\n"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch<'a>(kernel: &'a str, module: Option<(&'a str, &'a [u8])>) -> Patch<'a> {
        Patch {
            kernel,
            version: "1",
            release: "1",
            machine: "x86_64",
            module,
            fixes: &[],
            debian_kernel: Some("6.1.192-2"),
        }
    }

    #[test]
    fn names_are_those_of_the_rpm_world() {
        let name = |kernel| {
            let package = rpm(&patch(kernel, None));
            format!("{}-{}-{}", package.name, package.version, package.release)
        };
        assert_eq!(name("3.10.0-1062.el7.x86_64"), "kpatch-patch-3_10_0-1062-1-1.el7");
        assert_eq!(name("5.14.0-427.13.1.el9_4.x86_64"), "kpatch-patch-5_14_0-427_13_1-1-1.el9_4");
        assert_eq!(name("6.1.0-56-cloud-amd64"), "kpatch-patch-6_1_0-56-cloud-amd64-1-1");
    }

    #[test]
    fn module_names_differ_between_versions_however_long() {
        assert_eq!(
            module_name("6.1.0-56-cloud-amd64", "x86_64", "1", "2"),
            "kpatch_6_1_0_56_cloud_amd64_1_2"
        );
        let long = "6.12.117+deb13+a-very-long-flavour-of-a-kernel-amd64-rt";
        let (one, two) = (module_name(long, "x86_64", "1", "1"), module_name(long, "x86_64", "2", "1"));
        assert_ne!(one, two);
        assert!(one.len() <= 55 && one.ends_with("_1_1"));
    }

    #[test]
    fn the_exact_kernel_is_needed() {
        let package = deb(&patch("6.1.0-56-cloud-amd64", Some(("kpatch_x", b"module"))));
        let needs: Vec<_> = package.needs.iter().filter_map(|n| n.deb.as_deref()).collect();
        assert_eq!(needs, ["kpatch", "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"]);
        assert!(package.files.contains_key("/var/lib/kpatch/6.1.0-56-cloud-amd64/kpatch_x.ko"));
        assert!(package.scripts.installed.is_some());
        let empty = deb(&patch("6.1.0-56-cloud-amd64", None));
        assert!(empty.files.is_empty() && empty.scripts.installed.is_none());
    }
}
