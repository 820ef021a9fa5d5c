//! The compilers that tests compile C with, and the flags that each machine's kernel gives them.

use std::path::Path;
use std::process::Command;

/// A compiler for one machine with the flags of a kernel.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// `machine-compiler-version`, and a word for a variant of the flags.
    pub(crate) name: &'static str,
    program: &'static str,
    /// Flag lists, later ones win.
    flags: [&'static [&'static str]; 3],
    /// The linker that must take what comes out.
    pub(crate) linker: &'static str,
}

/// On every machine.
const COMMON: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-ffreestanding",
    "-fno-PIE",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-common",
    "-fno-strict-aliasing",
    "-ffunction-sections",
    "-fdata-sections",
];

const X86: &[&str] =
    &["-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fcf-protection=none", "-pg", "-mfentry"];
const AARCH64: &[&str] = &["-mgeneral-regs-only", "-fpatchable-function-entry=2"];
/// The code model and `-fplt` are the predecessor's: references then go through the table of contents, which
/// reaches everything.
const PPC64LE: &[&str] = &["-mabi=elfv2", "-mcmodel=large", "-fplt", "-msoft-float", "-mtraceback=no"];
const S390X: &[&str] = &["-m64", "-fPIE", "-march=z10", "-mpacked-stack", "-mbackchain", "-msoft-float"];
const LOONGARCH64: &[&str] = &["-mabi=lp64s", "-msoft-float", "-fpatchable-function-entry=2"];

const CLANG_AARCH64: &[&str] = &["--target=aarch64-linux-gnu"];
const CLANG_S390X: &[&str] =
    &["--target=s390x-linux-gnu", "-pg", "-mfentry", "-mnop-mcount", "-mrecord-mcount"];

const fn toolchain(
    name: &'static str,
    program: &'static str,
    machine: &'static [&'static str],
    own: &'static [&'static str],
    linker: &'static str,
) -> Toolchain {
    Toolchain { name, program, flags: [COMMON, machine, own], linker }
}

/// All of them. clang makes no live-patchable code for ppc64le: it knows neither `-mprofile-kernel` nor
/// patchable entries there.
pub(crate) const TOOLCHAINS: [Toolchain; 22] = [
    toolchain("x86_64-gcc-12", "gcc-12", X86, &["-mrecord-mcount"], "ld"),
    toolchain("x86_64-gcc-11", "gcc-11", X86, &["-mrecord-mcount"], "ld"),
    // IBT and FineIBT kernels: 16 bytes of padding in front of each function.
    toolchain(
        "x86_64-gcc-12-padded",
        "gcc-12",
        X86,
        &["-fcf-protection=branch", "-fno-jump-tables", "-fpatchable-function-entry=16,16"],
        "ld",
    ),
    toolchain("x86_64-clang-14", "clang-14", X86, &[], "ld"),
    toolchain("x86_64-clang-16", "clang-16", X86, &[], "ld"),
    toolchain("x86_64-clang-19", "clang-19", X86, &[], "ld"),
    toolchain(
        "x86_64-clang-16-kcfi",
        "clang-16",
        X86,
        &["-fsanitize=kcfi", "-fpatchable-function-entry=11,11"],
        "ld",
    ),
    toolchain(
        "x86_64-clang-19-kcfi",
        "clang-19",
        X86,
        &["-fsanitize=kcfi", "-fpatchable-function-entry=11,11"],
        "ld",
    ),
    toolchain(
        "aarch64-gcc-12",
        "aarch64-linux-gnu-gcc-12",
        AARCH64,
        &["-fno-section-anchors"],
        "aarch64-linux-gnu-ld",
    ),
    // DYNAMIC_FTRACE_WITH_CALL_OPS, and pointer authentication with branch targets.
    toolchain(
        "aarch64-gcc-12-callops",
        "aarch64-linux-gnu-gcc-12",
        AARCH64,
        &["-fpatchable-function-entry=4,2", "-mbranch-protection=pac-ret+leaf+bti", "-falign-functions=8"],
        "aarch64-linux-gnu-ld",
    ),
    toolchain("aarch64-clang-14", "clang-14", AARCH64, CLANG_AARCH64, "aarch64-linux-gnu-ld"),
    toolchain("aarch64-clang-16", "clang-16", AARCH64, CLANG_AARCH64, "aarch64-linux-gnu-ld"),
    toolchain("aarch64-clang-19", "clang-19", AARCH64, CLANG_AARCH64, "aarch64-linux-gnu-ld"),
    toolchain(
        "ppc64le-gcc-12",
        "powerpc64le-linux-gnu-gcc-12",
        PPC64LE,
        &["-pg", "-mprofile-kernel", "-fno-section-anchors"],
        "powerpc64le-linux-gnu-ld",
    ),
    toolchain(
        "ppc64le-gcc-12-patchable",
        "powerpc64le-linux-gnu-gcc-12",
        PPC64LE,
        &["-fpatchable-function-entry=2"],
        "powerpc64le-linux-gnu-ld",
    ),
    toolchain(
        "s390x-gcc-12",
        "s390x-linux-gnu-gcc-12",
        S390X,
        &["-pg", "-mfentry", "-mnop-mcount", "-mrecord-mcount", "-fno-section-anchors"],
        "s390x-linux-gnu-ld",
    ),
    toolchain(
        "s390x-gcc-12-hotpatch",
        "s390x-linux-gnu-gcc-12",
        S390X,
        &["-mhotpatch=0,3", "-fno-section-anchors"],
        "s390x-linux-gnu-ld",
    ),
    toolchain(
        "s390x-gcc-12-module",
        "s390x-linux-gnu-gcc-12",
        S390X,
        &["-fPIC", "-fno-section-anchors", "-pg", "-mfentry", "-mnop-mcount", "-mrecord-mcount"],
        "s390x-linux-gnu-ld",
    ),
    toolchain("s390x-clang-14", "clang-14", S390X, CLANG_S390X, "s390x-linux-gnu-ld"),
    toolchain("s390x-clang-16", "clang-16", S390X, CLANG_S390X, "s390x-linux-gnu-ld"),
    toolchain("s390x-clang-19", "clang-19", S390X, CLANG_S390X, "s390x-linux-gnu-ld"),
    toolchain(
        "loongarch64-clang-19",
        "clang-19",
        LOONGARCH64,
        &["--target=loongarch64-linux-gnusf", "-fno-direct-access-external-data"],
        "ld.lld-19",
    ),
];

impl Toolchain {
    /// Whether a word of a directive means this toolchain: its name, or some of the words of its name in
    /// a row.
    pub(crate) fn is(&self, word: &str) -> bool {
        word == "all" || format!("-{}-", self.name).contains(&format!("-{word}-"))
    }

    /// Whether gcc gives constants one common symbol and displacements from it, as it does on these machines
    /// unless it is told otherwise. Code then depends on constants of other functions.
    pub(crate) fn has_anchors(&self) -> bool {
        self.is("gcc") && !self.is("x86_64") && !self.flags.concat().contains(&"-fno-section-anchors")
    }

    /// Compiles a source.
    pub(crate) fn compile(&self, source: &Path, flags: &[String], output: &Path) -> Result<(), String> {
        let result = Command::new(self.program)
            .args(self.flags.concat())
            .args(flags)
            .arg("-o")
            .arg(output)
            .arg(source)
            .output()
            .map_err(|error| format!("{}: {error}; `cargo xtask test` installs it", self.program))?;
        if result.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}", self.program, String::from_utf8_lossy(&result.stderr)))
    }
}
