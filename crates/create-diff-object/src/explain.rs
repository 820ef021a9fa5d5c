//! What the differ found, as lines for people.

use create_diff_object::{ElementReport, FirstDifference, Reason, Report, Status};

/// The lines that the predecessor prints.
pub(crate) fn changes(unit: &str, report: &Report) {
    for name in &report.ignored_functions {
        println!("{unit}: ignoring function: {name}");
    }
    for name in &report.ignored_sections {
        println!("{unit}: ignoring section: {name}");
    }
    for name in &report.changed {
        println!("{unit}: changed function: {name}");
    }
    for name in &report.new {
        println!("{unit}: new function: {name}");
    }
    for name in &report.callbacks {
        println!("{unit}: found callback: {name}");
    }
    for warning in &report.warnings {
        println!("{unit}: WARNING: {warning}");
    }
}

/// For each element of the extract why it is there, and for each changed one where it differs.
pub(crate) fn reasons(unit: &str, report: &Report) {
    for element in &report.elements {
        println!("{unit}: {}", sentence(element));
        if let Some(difference) = &element.difference {
            difference_lines(difference);
        }
    }
    for name in &report.line_only {
        println!("{unit}: function {name}: only line numbers differ");
    }
}

fn sentence(element: &ElementReport) -> String {
    let status = match element.status {
        Status::Same => "unchanged",
        Status::Changed => "changed",
        Status::New => "new",
    };
    let because = match &element.included {
        None => "not taken".to_owned(),
        Some(Reason::Changed) => "it changed".to_owned(),
        Some(Reason::NewGlobal) => "other units may refer to it".to_owned(),
        Some(Reason::Callback) => "it is a callback".to_owned(),
        Some(Reason::PartOf { function }) => format!("part of function {function}"),
        Some(Reason::ContainsChanged { part }) => format!("its part {part} changed"),
        Some(Reason::ReferencedBy { element }) => format!("referenced by {element}"),
        Some(Reason::About { function }) => format!("about function {function}"),
    };
    format!("{status} {} {} in {}: {because}", element.kind, element.name, element.section)
}

fn difference_lines(difference: &FirstDifference) {
    println!("    first difference: {}", difference.what);
    let side = |sign: char, offset: u64, instruction: Option<&String>, source: Option<String>| {
        let instruction = instruction.map_or("", String::as_str);
        let source = source.map(|s| format!("  ({s})")).unwrap_or_default();
        println!("    {sign} +{offset:#06x}  {instruction}{source}");
    };
    side(
        '-',
        difference.original_offset,
        difference.original_instruction.as_ref(),
        difference.original_source.as_ref().map(ToString::to_string),
    );
    side(
        '+',
        difference.patched_offset,
        difference.patched_instruction.as_ref(),
        difference.patched_source.as_ref().map(ToString::to_string),
    );
}
