//! The table of phases that `--time` prints.

use std::fmt::Write;
use std::time::Duration;

use crate::events::Event;
use crate::phase::Phase;

/// How long each phase took. A phase that runs in several parts is counted as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    phases: Vec<(Phase, Duration)>,
}

impl Times {
    /// Takes note of a phase that is over.
    pub(super) fn event(&mut self, event: &Event) {
        let Event::PhaseFinished { phase, elapsed } = event else { return };
        match self.phases.iter_mut().find(|(known, _)| known == phase) {
            Some((_, total)) => *total += *elapsed,
            None => self.phases.push((*phase, *elapsed)),
        }
    }

    /// Phases in the order in which they first ended.
    pub(super) fn phases(&self) -> impl Iterator<Item = (Phase, Duration)> {
        self.phases.iter().copied()
    }

    /// The table, a line for each phase and one for all.
    pub(super) fn table(&self) -> String {
        let total: Duration = self.phases.iter().map(|(_, elapsed)| elapsed).sum();
        let mut table = format!("{:<12}{:>9}\n", "phase", "seconds");
        let rows = self.phases.iter().map(|(phase, elapsed)| (phase.name(), *elapsed));
        for (name, elapsed) in rows.chain([("total", total)]) {
            let _ = writeln!(table, "{name:<12}{:>9.3}", elapsed.as_secs_f64());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_phase_add_up() {
        let mut times = Times::default();
        for (phase, millis) in [(Phase::Parse, 5), (Phase::Compile, 1200), (Phase::Parse, 2)] {
            times.event(&Event::PhaseStarted { phase });
            times.event(&Event::PhaseFinished { phase, elapsed: Duration::from_millis(millis) });
        }
        insta::assert_snapshot!(times.table(), @r"
        phase         seconds
        parse           0.007
        compile         1.200
        total           1.207
        ");
    }
}
