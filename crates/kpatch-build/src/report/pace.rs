//! How far long work is, for who has no bar to look at.

use std::time::{Duration, Instant};

use crate::events::Event;

/// How often a line is worth its place in a log.
const EVERY: Duration = Duration::from_mins(1);

/// Work of a known amount that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    told: Instant,
}

impl Pace {
    /// Work that begins now.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { began: now, told: now }
    }

    /// How far it is, if that is worth a line again.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Option<String> {
        let Event::Progress { phase, done, total, .. } = event else { return None };
        if *done <= 1 {
            // The estimate goes by this work alone.
            *self = Pace::new(now);
            return None;
        }
        if now - self.told < EVERY || done >= total {
            return None;
        }
        self.told = now;
        let left = left(*done, *total, now - self.began);
        Some(format!("{}: {done} of {total} units, about {left} to go", phase.name()))
    }
}

/// What is left at the pace so far, in words.
fn left(done: usize, total: usize, taken: Duration) -> String {
    let units = total.saturating_sub(done) as u128;
    let seconds = (taken.as_millis() * units).div_ceil(1000 * done.max(1) as u128);
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5400 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;

    #[test]
    fn a_line_a_minute_says_what_is_left() {
        let progress =
            |done| Event::Progress { phase: Phase::Plan, done, total: 4000, what: "fs/exec.c".into() };
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.event(&progress(1), at(100)), None);
        assert_eq!(pace.event(&progress(100), at(150)), None);
        let said = pace.event(&progress(400), at(160)).unwrap();
        assert_eq!(said, "plan: 400 of 4000 units, about 9 min to go");
        assert_eq!(pace.event(&progress(410), at(170)), None);
        assert!(pace.event(&progress(800), at(220)).is_some());
        assert_eq!(pace.event(&progress(4000), at(900)), None);
        assert_eq!(pace.event(&Event::note("x"), at(990)), None);
        for (done, taken, said) in [(1, 1, "9 s"), (5, 7200, "2 h 0 min"), (9, 1, "1 s"), (0, 60, "10 min")] {
            assert_eq!(left(done, 10, Duration::from_secs(taken)), said);
        }
    }
}
