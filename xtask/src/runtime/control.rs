//! Tells a failure of the emulator from one of a live patch.
//!
//! QEMU's emulation runs each virtual processor by a thread of its own, and code that one rewrites while another runs it
//! may be seen half-written: a fault that hardware does not have. A live patch rewrites code as every user of ftrace and of
//! static keys does. Where a machine died, the same loop without any live patch shows whose fault that is.

use super::script;
use crate::error::Result;
use crate::guest::{self, Case, Options, Outcome};

/// Name of the case.
const NAME: &str = "kpatch:(without a live patch)";

/// Runs cases; those in which the machine died are run once more, by one thread, if the emulator fails without a live
/// patch, too.
pub(super) fn run(kernel: &guest::Kernel, cases: &[Case], options: &Options) -> Result<Vec<Outcome>> {
    let mut outcomes = guest::run(kernel, cases, options)?.outcomes;
    let dead: Vec<usize> = (0..outcomes.len()).filter(|&at| outcomes[at].died()).collect();
    if dead.is_empty() || options.processors == 1 {
        return Ok(outcomes);
    }
    let names: Vec<&str> = dead.iter().map(|&at| outcomes[at].name.as_str()).collect();
    let control = Case {
        name: NAME.to_owned(),
        test: Some(fs_err::read_to_string(script::directory().join("control.sh"))?),
        ..Case::default()
    };
    let control = guest::run(kernel, &[control], options)?.outcomes;
    // A mere complaint in the kernel's log is not what the case died of.
    let died = control.iter().filter(|outcome| outcome.died());
    let Some(failure) = died.flat_map(|outcome| &outcome.failures).find(|failure| failure.is_death()) else {
        println!("{}: the machine died; it does not in the same loop without a live patch", names.join(", "));
        return Ok(outcomes);
    };
    println!(
        "{}: the machine died; so it does in the same loop without a live patch ({}): run again by one thread",
        names.join(", "),
        failure.reason
    );
    let mut options = options.clone();
    options.one_thread = true;
    let again: Vec<Case> = dead.iter().map(|&at| cases[at].clone()).collect();
    for (at, outcome) in dead.into_iter().zip(guest::run(kernel, &again, &options)?.outcomes) {
        outcomes[at] = outcome;
    }
    Ok(outcomes)
}
