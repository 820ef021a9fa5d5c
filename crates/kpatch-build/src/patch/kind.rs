//! What kind of file a patch touches, told from its path.

use std::path::Path;

/// What a change to a file can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// C source. Whether it is a unit, or included by one, the kernel's build knows.
    Source,
    /// A file that is included by C source.
    Header,
    /// A makefile of kbuild, which may list objects.
    Makefile,
    /// Not part of the kernel: documentation, tests, tools.
    Inert,
    /// A live patch cannot be made of it.
    Unsupported(Reason),
}

/// Why a kind of file is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Assembly, or a linker script.
    Assembly,
    /// Rust source.
    Rust,
    /// Kconfig, and makefiles that hold more than lists of objects.
    BuildDescription,
    /// A script or program that the kernel's build runs.
    BuildTool,
    /// Device tree, firmware, certificates: what the bootloader or the build puts in.
    Data,
    /// No kind that is known.
    Unknown,
}

impl Reason {
    /// The reason in words.
    pub fn message(self) -> &'static str {
        match self {
            Reason::Assembly => "unsupported patch to assembly",
            Reason::Rust => "unsupported patch to Rust code",
            Reason::BuildDescription => {
                "unsupported patch to the kernel's configuration or build description"
            }
            Reason::BuildTool => "unsupported patch to a program that the kernel's build runs",
            Reason::Data => "unsupported patch to data that is loaded at start",
            Reason::Unknown => "unsupported patch to a file of unknown kind",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Reason::Assembly => {
                "change the C code that calls it; assembly has no ftrace entry by which it could be replaced"
            }
            Reason::Rust => "leave it out of the live patch",
            Reason::BuildDescription => {
                "leave it out of the live patch: make the change in the C code that the option or rule governs"
            }
            Reason::BuildTool | Reason::Data => {
                "leave it out of the live patch: it has done its work before the kernel runs"
            }
            Reason::Unknown => "leave it out of the patch if the C code does not depend on it",
        }
    }
}

/// Directories at the top of the tree that hold nothing of the kernel.
const INERT_DIRECTORIES: [&str; 5] = ["Documentation", "LICENSES", "samples", "tools", "debian"];

/// Files without a telling extension that hold nothing of the kernel.
const INERT_FILES: [&str; 11] = [
    "MAINTAINERS",
    "CREDITS",
    "COPYING",
    "README",
    "TODO",
    ".mailmap",
    ".gitignore",
    ".gitattributes",
    ".clang-format",
    ".editorconfig",
    ".rustfmt.toml",
];

/// Tells the kind of a file from its path below the source tree.
pub fn classify(path: &Path) -> FileKind {
    use FileKind::{Header, Inert, Makefile, Source, Unsupported};
    let text = path.to_string_lossy();
    let top = text.split('/').next().unwrap_or_default();
    let name = text.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if INERT_DIRECTORIES.contains(&top) || INERT_FILES.contains(&name) {
        return Inert;
    }
    if matches!(name, "Makefile" | "Kbuild") && top != name && top != "scripts" {
        return Makefile;
    }
    if ["Makefile", "Kbuild", "Kconfig", "Platform"].iter().any(|stem| {
        name == *stem || name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(['.', '-', '_']))
    }) {
        return Unsupported(Reason::BuildDescription);
    }
    if top == "scripts" {
        return Unsupported(Reason::BuildTool);
    }
    match extension {
        "c" => Source,
        "h" | "inc" | "def" => Header,
        "S" | "s" | "lds" | "asm" => Unsupported(Reason::Assembly),
        "rs" => Unsupported(Reason::Rust),
        "rst" | "txt" | "md" | "svg" | "yaml" => Inert,
        "config" => Unsupported(Reason::BuildDescription),
        "sh" | "pl" | "py" | "awk" | "sed" | "tbl" | "lex" | "l" | "y" | "gperf" => {
            Unsupported(Reason::BuildTool)
        }
        "dts" | "dtsi" | "dtso" | "its" | "fw" | "hex" | "ihex" | "bin" | "pem" | "x509" | "ppm" | "pbm" => {
            Unsupported(Reason::Data)
        }
        _ if name.starts_with("defconfig") || name.ends_with("_defconfig") => {
            Unsupported(Reason::BuildDescription)
        }
        _ => Unsupported(Reason::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_paths() {
        use FileKind::{Header, Inert, Makefile, Source, Unsupported};
        for (path, kind) in [
            ("fs/proc/meminfo.c", Source),
            ("include/linux/sched.h", Header),
            ("lib/string.c", Source),
            ("arch/x86/entry/entry_64.S", Unsupported(Reason::Assembly)),
            ("arch/x86/kernel/vmlinux.lds.S", Unsupported(Reason::Assembly)),
            ("rust/kernel/lib.rs", Unsupported(Reason::Rust)),
            ("fs/Kconfig", Unsupported(Reason::BuildDescription)),
            ("lib/Kconfig.debug", Unsupported(Reason::BuildDescription)),
            ("fs/xfs/Makefile", Makefile),
            ("arch/x86/Kbuild", Makefile),
            ("Makefile", Unsupported(Reason::BuildDescription)),
            ("scripts/Makefile.build", Unsupported(Reason::BuildDescription)),
            ("scripts/mod/modpost.c", Unsupported(Reason::BuildTool)),
            ("arch/x86/entry/syscalls/syscall_64.tbl", Unsupported(Reason::BuildTool)),
            ("arch/arm64/boot/dts/a.dts", Unsupported(Reason::Data)),
            ("arch/x86/configs/x86_64_defconfig", Unsupported(Reason::BuildDescription)),
            ("fs/strange", Unsupported(Reason::Unknown)),
            ("Documentation/admin-guide/a.c", Inert),
            ("tools/testing/selftests/x.sh", Inert),
            ("drivers/staging/README", Inert),
        ] {
            assert_eq!(classify(Path::new(path)), kind, "{path}");
        }
    }
}
