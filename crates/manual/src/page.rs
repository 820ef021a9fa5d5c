//! The man page of a program: one for all of its commands, where `clap_mangen` would make one of each.

use std::io::{Result, Write};

use clap::Command;

/// What `clap_mangen` puts before every section, so that each could stand alone.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Writes the page.
pub(crate) fn write(definition: Command, section: &str, out: &mut dyn Write) -> Result<()> {
    let mut definition = definition.disable_help_subcommand(true);
    definition.build();
    let page = clap_mangen::Man::new(definition.clone()).section(section);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if definition.has_subcommands() {
        writeln!(text, ".SH COMMANDS")?;
        commands(&definition, &mut text)?;
    }
    page.render_extra_section(&mut text)?;
    if definition.get_version().is_some() {
        page.render_version_section(&mut text)?;
    }
    let text = String::from_utf8_lossy(&text).replace(PREAMBLE, "");
    write!(out, "{PREAMBLE}{text}")
}

/// The commands below `parent`, each before those below it.
fn commands(parent: &Command, out: &mut dyn Write) -> Result<()> {
    for command in parent.get_subcommands() {
        let usage = command.clone().render_usage().to_string().replace("Usage: ", "");
        writeln!(out, ".SS \"{}\"", roff(usage.trim()))?;
        writeln!(out, "{}.", roff(&command.get_about().map(ToString::to_string).unwrap_or_default()))?;
        let own = |a: &&clap::Arg| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help";
        for argument in command.get_arguments().filter(own) {
            let names = [
                argument.get_short().map(|short| format!("-{short}")),
                argument.get_long().map(|long| format!("--{long}")),
            ];
            let mut name = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
            if name.is_empty() {
                name = format!("[{}]", argument.get_id().as_str().to_uppercase());
            }
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(&name), roff(&help))?;
        }
        commands(command, out)?;
    }
    Ok(())
}

/// Text as roff takes it.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
