//! Judges the kernel log of a guest.

use super::Failure;

/// The kernel log by case.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Up to the first case.
    pub(super) boot: String,
    cases: Vec<(usize, String)>,
}

impl Segments {
    /// What was logged from the beginning of a case to the beginning of the next.
    pub(super) fn of_case(&self, index: usize) -> &str {
        self.cases.iter().find(|(case, _)| *case == index).map_or("", |(_, log)| log)
    }
}

/// Cuts a console log at the marks that `init.sh` leaves.
pub(super) fn split(console: &str) -> Segments {
    let mut segments = Segments::default();
    for line in console.lines() {
        let line = line.trim_end_matches('\r');
        if let Some((_, mark)) = line.split_once("kpatch-guest: ") {
            if let Some(index) = mark.strip_prefix("begin ").and_then(|index| index.trim().parse().ok()) {
                segments.cases.push((index, String::new()));
            }
            continue;
        }
        let segment = segments.cases.last_mut().map_or(&mut segments.boot, |(_, log)| log);
        segment.push_str(line);
        segment.push('\n');
    }
    segments
}

/// A complaint of the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// The line that gave it away and some that follow.
    pub(crate) lines: Vec<String>,
}

impl Trouble {
    /// The line that gave it away.
    pub(crate) fn head(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }
}

/// What the kernel writes when something is wrong with it. `WARNING:` with the colon: a module's signature being absent
/// is told without.
const SIGNS: [&str; 14] = [
    "BUG:",
    "kernel BUG at",
    "WARNING:",
    "Oops:",
    "Call Trace:",
    "Kernel panic",
    "general protection fault",
    "unable to handle",
    "Unable to handle",
    "INFO: task ",
    "rcu_sched self-detected stall",
    "rcu_preempt self-detected stall",
    "detected stalls on CPUs",
    "unchecked MSR access",
];
const END_OF_REPORT: &str = "---[ end trace";
const SHOWN_LINES: usize = 40;

/// Finds complaints, except warnings whose first line contains an expected text.
pub(super) fn scan(log: &str, expected_warnings: &[String]) -> Vec<Trouble> {
    let mut found = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if !SIGNS.iter().any(|sign| line.contains(sign)) {
            continue;
        }
        let expected = line.contains("WARNING:") && expected_warnings.iter().any(|text| line.contains(text));
        let mut report = vec![line.to_owned()];
        // The rest of the report belongs to its first line, its call trace included.
        while let Some(next) = lines.next_if(|_| true) {
            let last = next.contains(END_OF_REPORT);
            if report.len() < SHOWN_LINES {
                report.push(next.to_owned());
            }
            if last {
                break;
            }
        }
        if !expected {
            found.push(Trouble { lines: report });
        }
    }
    found
}

/// What is wrong with the log of a case.
pub(super) fn check(log: &str, wanted: &[String], expected_warnings: &[String]) -> Vec<Failure> {
    let failure =
        |reason: String, output: Vec<String>| Failure { step: "kernel log".to_owned(), reason, output };
    let mut failures: Vec<Failure> = scan(log, expected_warnings)
        .into_iter()
        .map(|trouble| failure("the kernel complains".to_owned(), trouble.lines))
        .collect();
    for text in expected_warnings {
        if !log.lines().any(|line| line.contains("WARNING:") && line.contains(text)) {
            failures.push(failure(format!("no warning with `{text}`, which was expected"), Vec::new()));
        }
    }
    let mut rest = log;
    for text in wanted {
        if let Some(at) = rest.find(text.as_str()) {
            rest = &rest[at + text.len()..];
        } else {
            let note = if log.contains(text.as_str()) { " at this place in the order" } else { "" };
            failures.push(failure(format!("no `{text}`{note}"), Vec::new()));
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNING: &str = "[ 1.0] ------------[ cut here ]------------\n\
        [ 1.0] WARNING: CPU: 0 PID: 9 at fs/proc/meminfo.c:40 meminfo_proc_show+0x1/0x2 [lp]\n\
        [ 1.0] Call Trace:\n[ 1.0]  <TASK>\n[ 1.0] ---[ end trace 0000000000000000 ]---\n";

    #[test]
    fn every_sign_is_seen() {
        for sign in SIGNS {
            assert_eq!(scan(&format!("[ 1.0] before\n[ 1.0] {sign} x\n"), &[]).len(), 1, "{sign}");
        }
        assert!(scan("[ 1.0] lp: module verification failed: signature missing\n", &[]).is_empty());
    }

    #[test]
    fn a_report_is_one_complaint() {
        let found = scan(&format!("{WARNING}[ 1.1] fine\n{WARNING}"), &[]);
        assert_eq!(found.len(), 2);
        assert!(found[0].head().contains("meminfo_proc_show"));
    }

    #[test]
    fn expected_warnings_are_allowed_and_required() {
        let expected = ["meminfo_proc_show".to_owned()];
        assert!(check(WARNING, &[], &expected).is_empty());
        assert_eq!(check("[ 1.0] nothing\n", &[], &expected).len(), 1);
        assert_eq!(check(WARNING, &[], &["another".to_owned()]).len(), 2);
        // An expected warning does not excuse the next one.
        let other = WARNING.replace("meminfo_proc_show", "elsewhere");
        assert_eq!(check(&format!("{WARNING}{other}"), &[], &expected).len(), 1);
    }

    #[test]
    fn wanted_texts_come_in_order() {
        let log = "[ 1.0] one\n[ 1.1] two\n";
        assert!(check(log, &["one".into(), "two".into()], &[]).is_empty());
        let failures = check(log, &["two".into(), "one".into()], &[]);
        assert_eq!(failures.len(), 1);
        assert!(failures[0].reason.contains("order"));
    }

    #[test]
    fn logs_are_cut_at_the_marks() {
        let log = "boot\r\n[ 1.0] kpatch-guest: begin 7\r\nseven\r\n[ 1.1] kpatch-guest: end 7\r\nstill\n\
                   [ 1.2] kpatch-guest: begin 8\neight\n";
        let segments = split(log);
        assert_eq!(segments.boot, "boot\n");
        assert_eq!(segments.of_case(7), "seven\nstill\n");
        assert_eq!(segments.of_case(8), "eight\n");
        assert_eq!(segments.of_case(9), "");
    }
}
