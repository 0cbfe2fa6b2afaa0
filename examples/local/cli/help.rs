//! The output of `--help`, from the declarations that the command line is parsed by.

use super::{Command, Files, Opt, Takes};

/// Returns the help of all commands.
pub fn overview(commands: &[&Command]) -> String {
    let mut help = "The whole service on one machine, on an embedded DynamoDB.\n\n".to_owned();
    help += "usage: local COMMAND [OPTIONS]\n\n";
    help += "Without a command it shows two visits as they arise, then real traffic.\n\ncommands:\n";
    for command in commands {
        help += &format!("  {:<8} {}\n", command.name, command.about);
    }
    help += "\n`local COMMAND --help` prints its options. `local --version` prints the version.\n";
    help
}

/// Returns the help of one command.
pub fn command_help(command: &Command) -> String {
    let files = match command.files {
        Files::None => "",
        Files::One => " FILE",
        Files::Many => " FILE…",
    };
    let mut help = format!("{}\n\nusage: local {}{files} [OPTIONS]\n", command.about, command.name);
    if command.files != Files::None {
        help += "       FILE may be `-` for standard input\n";
    }
    help += "\noptions:\n";
    for option in command.options {
        help += &option_help(option);
    }
    help += "  --help\n      print this\n";
    if !command.notes.is_empty() {
        help += &format!("\n{}\n", command.notes.trim());
    }
    help
}

fn option_help(option: &Opt) -> String {
    let Opt { name, value, takes, default, about } = option;
    let takes = match takes {
        Takes::Whole(..)
        | Takes::Dollars
        | Takes::Rules
        | Takes::Projects
        | Takes::Profile
        | Takes::Answer
        | Takes::Output => {
            format!("\n      takes {}", takes.sentence())
        }
        Takes::Time | Takes::Text | Takes::Nothing => String::new(),
        #[cfg(feature = "replay")]
        Takes::Inputs => String::new(),
    };
    let value = if value.is_empty() { String::new() } else { format!(" {value}") };
    format!("  --{name}{value}\n      {about}{takes}\n      default: {default}\n")
}
