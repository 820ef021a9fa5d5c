//! The one objtool run over the linked object, for kernels whose kbuild runs objtool on single objects.
//!
//! Such a kbuild has objtool annotate every object it compiles, and does not look at an object that comes
//! ready made. So the command that it recorded for a unit is run once more, on the linked object.

use thiserror::Error;

/// Why no objtool command can be derived.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ObjtoolError {
    /// The recorded command is another program's.
    #[error("{0:?} is no objtool command")]
    NotObjtool(String),
    /// No object at its end.
    #[error("the recorded objtool command names no object")]
    NoObject,
}

/// Turns the recorded command of a unit (program first, the unit's object last) into that for the linked
/// object.
///
/// All options are kept, since they follow from the configuration, and are the same for all units that
/// objtool looks at; but the linked object is part of a module, whatever the unit was (`--module`: indirect
/// jumps of init code, and static call keys that need not be exported), and it is changed in place.
pub fn arguments(recorded: &[String], object: &str) -> Result<Vec<String>, ObjtoolError> {
    let program = recorded.first().map(String::as_str).unwrap_or_default();
    if program.rsplit('/').next() != Some("objtool") {
        return Err(ObjtoolError::NotObjtool(program.to_owned()));
    }
    let Some((last, options)) = recorded[1..].split_last() else { return Err(ObjtoolError::NoObject) };
    if last.starts_with('-') || !last.rsplit('/').next().unwrap_or_default().contains(".o") {
        return Err(ObjtoolError::NoObject);
    }
    let mut out = vec![program.to_owned()];
    let mut skip = false;
    for option in options {
        if std::mem::take(&mut skip) {
            continue;
        }
        match option.as_str() {
            "-o" | "--output" => skip = true,
            option if option.starts_with("--output=") => {}
            "--module" | "-m" => {}
            option => out.push(option.to_owned()),
        }
    }
    out.push("--module".to_owned());
    out.push(object.to_owned());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn keeps_options_and_adds_module() {
        let recorded =
            words("./tools/objtool/objtool --hacks=jump_label --orc --static-call fs/proc/meminfo.o");
        assert_eq!(
            arguments(&recorded, "linked.o").unwrap(),
            words("./tools/objtool/objtool --hacks=jump_label --orc --static-call --module linked.o")
        );
        let module = words("objtool orc generate --module --retpoline -o x.o.new x.o");
        assert_eq!(
            arguments(&module, "linked.o").unwrap(),
            words("objtool orc generate --retpoline --module linked.o")
        );
        let short = words("objtool check -m x.o");
        assert_eq!(arguments(&short, "linked.o").unwrap(), words("objtool check --module linked.o"));
    }

    #[test]
    fn other_commands_are_refused() {
        assert!(matches!(arguments(&words("gcc -c x.o"), "l.o"), Err(ObjtoolError::NotObjtool(_))));
        assert_eq!(arguments(&words("objtool --orc"), "l.o"), Err(ObjtoolError::NoObject));
        assert_eq!(arguments(&words("objtool"), "l.o"), Err(ObjtoolError::NoObject));
        assert!(arguments(&[], "l.o").is_err());
    }
}
