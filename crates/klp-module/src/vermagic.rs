//! The string by which the module loader tells kernels apart (`include/linux/vermagic.h`).

use kpatch_elf::arch::Machine;

use crate::check::ModuleView;

/// The vermagic string of a shipped module, which is the surest way to know that of its kernel.
pub fn of_module(module: &[u8]) -> Option<String> {
    ModuleView::parse(module).ok()?.info("vermagic").next().map(str::to_owned)
}

/// The vermagic string of a kernel's modules, from its release and configuration.
///
/// `enabled` says whether a `CONFIG_` symbol (named without that prefix) is `y`. `None` where the
/// configuration does not tell: kernels with randomised structures add a hash, and some machines words of
/// their own.
pub fn of_config(release: &str, machine: Machine, enabled: impl Fn(&str) -> bool) -> Option<String> {
    if enabled("RANDSTRUCT") || enabled("GCC_PLUGIN_RANDSTRUCT") {
        return None;
    }
    let machine = match machine {
        Machine::X86_64 | Machine::S390x => "",
        Machine::Aarch64 => "aarch64",
        Machine::Ppc64le | Machine::LoongArch64 => return None,
    };
    let mut out = format!("{release} ");
    let mut word = |set: bool, word: &str| out.push_str(if set { word } else { "" });
    word(enabled("SMP"), "SMP ");
    let preempt = enabled("PREEMPT_BUILD") || enabled("PREEMPT");
    word(preempt, "preempt ");
    word(!preempt && enabled("PREEMPT_RT"), "preempt_rt ");
    word(enabled("MODULE_UNLOAD"), "mod_unload ");
    word(enabled("MODVERSIONS"), "modversions ");
    word(true, machine);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_configuration() {
        let debian = ["SMP", "MODULE_UNLOAD", "MODVERSIONS", "PREEMPT_VOLUNTARY"];
        let of = |set: &[&str], machine| of_config("6.1.0", machine, |name| set.contains(&name));
        assert_eq!(of(&debian, Machine::X86_64).unwrap(), "6.1.0 SMP mod_unload modversions ");
        assert_eq!(of(&["SMP", "PREEMPT_BUILD"], Machine::Aarch64).unwrap(), "6.1.0 SMP preempt aarch64");
        assert_eq!(of(&["PREEMPT_RT"], Machine::X86_64).unwrap(), "6.1.0 preempt_rt ");
        assert_eq!(of(&["RANDSTRUCT"], Machine::X86_64), None);
    }
}
