//! Units that no patch touches, but that read a touched file: which of them see a change.
//!
//! The textual graph names every unit that could. The compiler's own preprocessor tells: where it prints the same
//! text before and after, the object is the same too, and nothing needs to be compiled.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::compile::{self, Context, Job, Variant};
use super::plan::Unit;
use crate::error::Error;
use crate::events::{Event, Events, Phase};

/// Keeps the units that see a change. Units that patches touch themselves stay without being asked.
pub fn run(context: &Context<'_>, units: Vec<Unit>, events: Events<'_>) -> Result<Vec<Unit>, Vec<Error>> {
    let indirect = units.iter().filter(|unit| unit.indirect).count();
    if indirect == 0 {
        return Ok(units);
    }
    let pool = compile::pool(context.jobs)?;
    let done = AtomicUsize::new(0);
    let results: Vec<Result<Option<Unit>, Error>> = pool.install(|| {
        units
            .into_par_iter()
            .map(|unit| {
                if !unit.indirect {
                    return Ok(Some(unit));
                }
                let keep = sees_change(context, &unit)?;
                events(Event::Progress {
                    phase: Phase::Plan,
                    done: done.fetch_add(1, Ordering::Relaxed) + 1,
                    total: indirect,
                    what: unit.source.display().to_string(),
                });
                Ok(keep.then_some(unit))
            })
            .collect()
    });
    let mut kept = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(unit) => kept.extend(unit),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let changed = kept.iter().filter(|unit| unit.indirect).count();
    events(Event::note(format!(
        "{indirect} untouched units read touched files, {changed} of them see a change"
    )));
    Ok(kept)
}

fn sees_change(context: &Context<'_>, unit: &Unit) -> Result<bool, Error> {
    let (original, patched) =
        (text(context, unit, Variant::Original)?, text(context, unit, Variant::Patched)?);
    // What cannot be preprocessed is left to the compiler, which says why.
    Ok(original.is_none() || patched.is_none() || original != patched)
}

/// The preprocessed unit without line markers and empty lines; `None` where the preprocessor fails.
fn text(context: &Context<'_>, unit: &Unit, variant: Variant) -> Result<Option<Vec<u8>>, Error> {
    let job = Job { unit, variant, plain_runtime_constants: false };
    let words = compile::command(context, job).preprocessing_words();
    let Some((program, arguments)) = words.split_first() else { return Ok(None) };
    let output = context.root.command(program).args(arguments).directory(context.tree).output();
    let output = output.map_err(|error| match error {
        kbuild::root::RunError::Interrupted => Error::interrupted(Phase::Plan),
        error => {
            Error::new(Phase::Plan, "compiler", "the compiler does not start").file(&unit.source).cause(error)
        }
    })?;
    Ok(output.status.success().then(|| significant(&output.stdout)))
}

/// The lines that the compiler compiles.
fn significant(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        let bare = line.trim_ascii();
        let marker =
            bare.strip_prefix(b"# ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
        if !bare.is_empty() && !marker {
            lines.extend_from_slice(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_markers_and_empty_lines_are_no_change() {
        let text = b"# 1 \"fs/a.c\"\n\n   \nint a;\n#pragma GCC x\n# 7 \"b.h\" 2\n  int b;\n";
        assert_eq!(significant(text), b"int a;\n#pragma GCC x\n  int b;\n");
    }
}
