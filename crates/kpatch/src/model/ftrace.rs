//! Who else hooks functions: `enabled_functions` of tracefs and the list of kprobes.

/// A function with a hook, one line of `enabled_functions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Its name.
    pub function: String,
    /// The module it is in, if it is in one.
    pub module: Option<String>,
    /// A hook may change where the call goes (`I`); the kernel allows one such hook a function.
    pub redirects: bool,
    /// The hook is livepatch's, as far as the line tells.
    pub livepatch: bool,
    /// The line.
    pub line: String,
}

/// The livepatch core's handler, which the line names where it is a function's only hook.
const LIVEPATCH_HANDLER: &str = "klp_ftrace_handler";

/// Understands `/sys/kernel/tracing/enabled_functions` (`t_show` and `show_rec` in `kernel/trace/ftrace.c`).
pub fn parse_enabled_functions(text: &str) -> Vec<Hooked> {
    let mut out: Vec<Hooked> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        // What does not begin a function goes on with the last one.
        if line.starts_with(char::is_whitespace) {
            if let Some(last) = out.last_mut() {
                last.line.push(' ');
                last.line.push_str(line.trim());
                last.livepatch |= line.contains(LIVEPATCH_HANDLER);
            }
            continue;
        }
        let Some((who, rest)) = line.split_once(" (") else { continue };
        let (function, module) = match who.split_once(" [") {
            Some((function, module)) => (function, Some(module.trim_end_matches(']').to_owned())),
            None => (who, None),
        };
        let flags = rest.split_once(')').map_or("", |(_, flags)| flags);
        let flags = flags.split('\t').next().unwrap_or_default();
        out.push(Hooked {
            function: function.trim().to_owned(),
            module,
            redirects: flags.split_whitespace().any(|flag| flag == "I"),
            livepatch: line.contains(LIVEPATCH_HANDLER),
            line: line.trim().to_owned(),
        });
    }
    out
}

/// The line of a kprobe on a function in `/sys/kernel/debug/kprobes/list`.
pub fn kprobe_on<'t>(list: &'t str, function: &str) -> Option<&'t str> {
    list.lines().find(|line| {
        let place = line.split_whitespace().nth(2).unwrap_or_default();
        place.split('+').next() == Some(function)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_kernels() {
        let text = "meminfo_proc_show (1) R I     \ttramp: 0xffffffffc0 (klp_ftrace_handler+0x0/0x1f0) ->x\n\
                    xfs_read [xfs] (2) R I M  \n\ttramp: ERROR!\n\
                    do_exit (1)    D   \n\tdirect-->bpf_trampoline_1+0x0/0x9c\n";
        let hooks = parse_enabled_functions(text);
        let short: Vec<_> = hooks
            .iter()
            .map(|h| (h.function.as_str(), h.module.as_deref(), h.redirects, h.livepatch))
            .collect();
        assert_eq!(
            short,
            [
                ("meminfo_proc_show", None, true, true),
                ("xfs_read", Some("xfs"), true, false),
                ("do_exit", None, false, false)
            ]
        );
        assert!(hooks[2].line.contains("bpf_trampoline"));
        assert!(parse_enabled_functions("\n garbage\n").is_empty());
    }

    #[test]
    fn kprobes_are_found_by_function() {
        let list = "ffffffff81 k  meminfo_proc_show+0x0    [FTRACE]\nffffffff82 r  do_exit+0x4\n";
        assert!(kprobe_on(list, "meminfo_proc_show").unwrap().contains("FTRACE"));
        assert!(kprobe_on(list, "do_exit").is_some());
        assert!(kprobe_on(list, "meminfo").is_none());
    }
}
