//! Reads what `init.sh` reports on the second serial port.

use super::Failure;
use std::time::Duration;

/// Everything a boot reported.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The release the guest says it runs; none when it never got so far.
    pub(super) release: Option<String>,
    /// The cases that began, in order.
    pub(super) cases: Vec<CaseReport>,
    /// All cases were run.
    pub(super) done: bool,
    /// The guest asked for a new boot for the remaining cases.
    pub(super) restart: bool,
}

/// What was reported about one case.
#[derive(Debug, Default)]
pub(super) struct CaseReport {
    /// Which of the boot's cases.
    pub(super) index: usize,
    pub(super) failures: Vec<Failure>,
    pub(super) objects: Vec<ObjectState>,
    pub(super) transition: Option<Duration>,
    pub(super) output: Vec<String>,
    /// The case went through to its end.
    pub(super) finished: bool,
}

/// An object of a live patch in sysfs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ObjectState {
    /// `vmlinux` or a module's name.
    pub(crate) name: String,
    /// Content of the `patched` file; none where the kernel has no such file.
    pub(crate) patched: Option<bool>,
    /// Number of functions.
    pub(crate) functions: u32,
}

/// Understands a report, also one that breaks off anywhere.
pub(super) fn parse(text: &str) -> Report {
    let mut report = Report::default();
    let mut output = Vec::new();
    // A last line without its end may be half a fact.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in complete.lines().map(|line| line.trim_end_matches('\r')) {
        if let Some(quoted) = line.strip_prefix("@> ") {
            output.push(quoted.to_owned());
        } else if let Some(fact) = line.strip_prefix("@@ ") {
            report.take(fact, std::mem::take(&mut output));
        }
    }
    report
}

impl Report {
    fn take(&mut self, fact: &str, output: Vec<String>) {
        let mut words = fact.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let kind = word();
        match kind {
            "ready" => self.release = Some(word().to_owned()),
            "done" => self.done = true,
            "restart" => self.restart = true,
            "begin" => {
                if let Ok(index) = word().parse() {
                    self.cases.push(CaseReport { index, ..CaseReport::default() });
                }
            }
            _ => {
                let index = word().parse::<usize>();
                let Some(case) = self.cases.last_mut().filter(|case| Ok(case.index) == index) else { return };
                let (second, third, rest) = (word(), word(), word());
                match (kind, second, third) {
                    ("end", ..) => case.finished = true,
                    ("output", ..) => case.output = output,
                    ("step", "fail", step) => {
                        case.failures.push(Failure {
                            step: step.to_owned(),
                            reason: rest.to_owned(),
                            output,
                        });
                    }
                    ("object", name, patched) => case.objects.push(ObjectState {
                        name: name.to_owned(),
                        patched: match patched {
                            "0" => Some(false),
                            "1" => Some(true),
                            _ => None,
                        },
                        functions: rest.parse().unwrap_or(0),
                    }),
                    ("time", "transition", centiseconds) => {
                        case.transition =
                            centiseconds.parse().ok().map(|value: u64| Duration::from_millis(value * 10));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_report() {
        let report = parse(
            "@@ ready 6.1.0\r\n@@ begin 0\r\n@@ step 0 ok insmod\r\n@@ time 0 transition 123\r\n\
             @@ object 0 vmlinux 1 2\r\n@> what the\r\n@> test said\r\n@@ step 0 fail test-patched it fails\r\n\
             @@ end 0 1\r\n@@ begin 1\r\n@@ object 1 xfs unknown 1\r\n@@ end 1 0\r\n@@ done\r\n",
        );
        assert_eq!(report.release.as_deref(), Some("6.1.0"));
        assert!(report.done && !report.restart);
        assert_eq!(report.cases.len(), 2);
        let first = &report.cases[0];
        assert!(first.finished);
        assert_eq!(first.transition, Some(Duration::from_millis(1230)));
        assert_eq!(
            first.objects,
            [ObjectState { name: "vmlinux".into(), patched: Some(true), functions: 2 }]
        );
        assert_eq!(first.failures.len(), 1);
        assert_eq!(first.failures[0].step, "test-patched");
        assert_eq!(first.failures[0].reason, "it fails");
        assert_eq!(first.failures[0].output, ["what the", "test said"]);
        assert_eq!(report.cases[1].objects[0].patched, None);
        assert!(report.cases[1].failures.is_empty());
    }

    #[test]
    fn output_of_a_test() {
        let report = parse("@@ begin 0\n@> one\n@> two\n@@ output 0\n@@ end 0 0\n");
        assert_eq!(report.cases[0].output, ["one", "two"]);
        assert!(report.cases[0].failures.is_empty());
    }

    #[test]
    fn a_report_that_breaks_off() {
        let report = parse("@@ ready 6.1.0\n@@ begin 0\n@@ end 0");
        assert_eq!(report.cases.len(), 1);
        assert!(!report.cases[0].finished);
        assert!(!report.done);
        assert!(parse("").release.is_none());
    }

    #[test]
    fn facts_of_another_case_are_not_taken() {
        let report = parse("@@ begin 3\n@@ end 4 0\n@@ step x fail y z\n");
        assert!(!report.cases[0].finished);
        assert!(report.cases[0].failures.is_empty());
    }
}
