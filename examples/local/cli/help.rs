//! What `--help` prints, from the same declarations that the command line is read by.

use super::{Command, Files, Opt, Takes};

/// Returns the help of all commands.
pub fn overview(commands: &[&Command]) -> String {
    let mut text = "The whole service on one machine, on an embedded DynamoDB.\n\n".to_owned();
    text += "usage: local COMMAND [OPTIONS]\n\n";
    text += "Without a command it shows two visits as they arise, then real traffic.\n\ncommands:\n";
    for command in commands {
        text += &format!("  {:<8} {}\n", command.name, command.about);
    }
    text += "\n`local COMMAND --help` says more. `local --version` prints the version.\n";
    text
}

/// Returns the help of one command.
pub fn command_help(command: &Command) -> String {
    let files = match command.files {
        Files::None => "",
        Files::One => " FILE",
        Files::Many => " FILE…",
    };
    let mut text = format!("{}\n\nusage: local {}{files} [OPTIONS]\n", command.about, command.name);
    if command.files != Files::None {
        text += "       FILE may be `-` for standard input\n";
    }
    text += "\noptions:\n";
    for option in command.options {
        text += &option_help(option);
    }
    text += "  --help\n      print this\n";
    if !command.notes.is_empty() {
        text += &format!("\n{}\n", command.notes.trim());
    }
    text
}

fn option_help(option: &Opt) -> String {
    let Opt { name, value, takes, default, about } = option;
    let takes = match takes {
        Takes::Whole(..) | Takes::Rules | Takes::Output => format!("\n      takes {}", takes.sentence()),
        Takes::Time => String::new(),
    };
    format!("  --{name} {value}\n      {about}{takes}\n      default: {default}\n")
}
