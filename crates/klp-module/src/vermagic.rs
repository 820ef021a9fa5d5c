//! The string by which the module loader tells kernels apart (`include/linux/vermagic.h`).

use kpatch_elf::arch::Machine;

/// The vermagic string of a kernel's modules, from its release and configuration.
///
/// `enabled` says whether a `CONFIG_` symbol (named without that prefix) is `y`. The same from 5.10 to 7.3;
/// arm64 puts `aarch64` behind the common part, the other machines nothing.
pub fn vermagic(release: &str, machine: Machine, enabled: impl Fn(&str) -> bool) -> String {
    let mut out = format!("{release} ");
    if enabled("SMP") {
        out.push_str("SMP ");
    }
    // Kernels that choose the model of preemption at boot are built for full preemption.
    if enabled("PREEMPT_RT") {
        out.push_str("preempt_rt ");
    } else if enabled("PREEMPT_BUILD") || enabled("PREEMPT") {
        out.push_str("preempt ");
    }
    if enabled("MODULE_UNLOAD") {
        out.push_str("mod_unload ");
    }
    if enabled("MODVERSIONS") {
        out.push_str("modversions ");
    }
    if machine == Machine::Aarch64 {
        out.push_str("aarch64");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_configuration() {
        let debian = ["SMP", "MODULE_UNLOAD", "MODVERSIONS", "PREEMPT_VOLUNTARY"];
        let of = |set: &[&str], machine| vermagic("6.1.0-56-amd64", machine, |name| set.contains(&name));
        assert_eq!(of(&debian, Machine::X86_64), "6.1.0-56-amd64 SMP mod_unload modversions ");
        assert_eq!(of(&["SMP", "PREEMPT_BUILD"], Machine::Aarch64), "6.1.0-56-amd64 SMP preempt aarch64");
        assert_eq!(of(&["PREEMPT_RT", "PREEMPT_BUILD"], Machine::X86_64), "6.1.0-56-amd64 preempt_rt ");
    }
}
