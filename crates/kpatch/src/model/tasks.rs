//! Tasks that hold a transition up, and why.

use serde::Serialize;

/// `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A task that has not switched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Its thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its state as in `/proc/PID/stat`: `S` sleeping, `D` not interruptible, `R` running, `T` stopped.
    pub state: char,
    /// It is a thread of the kernel.
    pub kernel_thread: bool,
    /// Its stack, innermost function first, each as `name+0xOFFSET/0xSIZE [module]`; empty where it cannot
    /// be read.
    pub stack: Vec<String>,
}

/// Understands `/proc/PID/task/TID/stat`: name, state, is it a thread of the kernel.
pub fn parse_stat(text: &str) -> Option<(String, char, bool)> {
    // A name may hold blanks and parentheses, so the last one counts.
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let comm = text.get(start + 1..end)?.to_owned();
    let mut fields = text.get(end + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    Some((comm, state, flags & KERNEL_THREAD != 0))
}

/// Understands `/proc/PID/task/TID/stack`: the frames without their addresses, innermost first.
pub fn parse_stack(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_once(">] ").map_or(line, |(_, frame)| frame).trim())
        .filter(|frame| !frame.is_empty() && !frame.starts_with("0x"))
        .map(str::to_owned)
        .collect()
}

impl Task {
    /// The innermost of the functions that the transition changes and that the task is in.
    pub fn is_in<'a>(&self, functions: &'a [String]) -> Option<&'a str> {
        let name = |frame: &str| frame.split(['+', ' ']).next().unwrap_or_default().to_owned();
        let frames: Vec<String> = self.stack.iter().map(|frame| name(frame)).collect();
        frames.iter().find_map(|frame| functions.iter().find(|f| *f == frame)).map(String::as_str)
    }

    /// Why it does not switch and what would help, given the functions that the transition changes.
    pub fn explain(&self, functions: &[String]) -> String {
        let place = match self.is_in(functions) {
            Some(function) => format!("in {function}, which the patch changes"),
            None if self.stack.is_empty() => "with a stack that cannot be read".to_owned(),
            None => {
                "not in a function that the patch changes; it switches when it leaves the kernel".to_owned()
            }
        };
        match (self.state, self.kernel_thread) {
            ('R', _) => format!("runs, {place}"),
            ('D', _) => format!("waits {place}; no signal reaches it before what it waits for happens"),
            ('T' | 't', _) => format!("is stopped {place}; continue it (kill -CONT {})", self.tid),
            (_, true) => format!("sleeps {place}; a kernel thread switches when its work wakes it"),
            _ => format!("sleeps {place}; the kernel's signal makes it return and try again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_odd_name() {
        let stat = "42 (a) b (c) D 1 42 42 0 -1 2129984 0 0";
        assert_eq!(parse_stat(stat), Some(("a) b (c".to_owned(), 'D', true)));
        assert_eq!(parse_stat("42 (x) S 1 42 42 0 -1 4194304 0"), Some(("x".to_owned(), 'S', false)));
        assert_eq!(parse_stat("42 x S 1"), None);
        assert_eq!(parse_stat(") ("), None);
    }

    #[test]
    fn stacks_lose_their_addresses() {
        let text = "[<0>] hrtimer_nanosleep+0xc6/0x1b0\n[<0>] old+0x1/0x2 [m]\n[<0>] 0xffffffff81000000\n";
        assert_eq!(parse_stack(text), ["hrtimer_nanosleep+0xc6/0x1b0", "old+0x1/0x2 [m]"]);
    }

    #[test]
    fn the_reason_names_the_function() {
        let task = Task {
            tid: 7,
            comm: "sleep".into(),
            state: 'S',
            kernel_thread: false,
            stack: parse_stack("[<0>] do_nanosleep+0x1/0x2\n[<0>] hrtimer_nanosleep+0xc6/0x1b0\n"),
        };
        let functions = ["hrtimer_nanosleep".to_owned()];
        assert_eq!(task.is_in(&functions), Some("hrtimer_nanosleep"));
        assert!(task.explain(&functions).starts_with("sleeps in hrtimer_nanosleep, which"));
        assert!(Task { state: 'D', ..task.clone() }.explain(&functions).contains("no signal"));
        assert!(Task { state: 'T', ..task.clone() }.explain(&[]).contains("kill -CONT 7"));
        assert!(Task { kernel_thread: true, ..task }.explain(&functions).contains("kernel thread"));
    }
}
