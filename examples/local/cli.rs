//! The command line. Each command declares its options once. The parser, the help and the errors use that declaration.

mod help;
mod suggest;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::failure::Failure;
pub use help::{command_help, overview};
pub use suggest::suggestion;

/// The kind of value that an option takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// A whole number from the first to the second, both included.
    Whole(u64, u64),
    /// A price in dollars, from a hundredth of a cent to a thousand dollars.
    Dollars,
    /// The path of a file to write, or `-` for standard output.
    Output,
    /// The rules: JSON, or the path of a file with JSON.
    Rules,
    /// The projects: JSON, or the path of a file with JSON.
    Projects,
    /// The name of a profile.
    Profile,
    /// What an answer tells about sessions.
    Answer,
    /// What becomes of the values of inputs.
    #[cfg(feature = "replay")]
    Inputs,
    /// A time, in any spelling that an event's time may have.
    Time,
    /// A name or a path.
    Text,
    /// No value: the option is given or not.
    Nothing,
}

impl Takes {
    /// Describes the value as a part of a sentence.
    pub fn sentence(self) -> String {
        match self {
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Dollars => "a price in dollars from 0.0001 to 1000".to_owned(),
            Self::Output => "the path of a file, or `-` for standard output".to_owned(),
            Self::Rules => {
                "a JSON object such as '{\"timeout_seconds\":600}', or the path of a file with one".to_owned()
            }
            Self::Projects => {
                "a JSON object such as '{\"shop\":{\"profile\":\"ga4\"}}', or the path of a file with one".to_owned()
            }
            Self::Profile => {
                let names: Vec<&str> = session_tracking::config::GivenRules::profile_names().collect();
                format!("one of {}", names.join(", "))
            }
            Self::Answer => "`full` or `ids`".to_owned(),
            #[cfg(feature = "replay")]
            Self::Inputs => "`mask` or `keep`".to_owned(),
            Self::Text => "a name or a path".to_owned(),
            Self::Time => "a time such as 2026-03-10T12:00:00Z".to_owned(),
            Self::Nothing => "no value".to_owned(),
        }
    }
}

/// An option of a command.
#[derive(Debug)]
pub struct Opt {
    /// Its name without the dashes.
    pub name: &'static str,
    /// The name of its value in the help.
    pub value: &'static str,
    /// The kind of value that it takes.
    pub takes: Takes,
    /// The default, for the help. For a number it is the number itself, which the command uses.
    pub default: &'static str,
    /// What the option does, for the help.
    pub about: &'static str,
}

/// How many files a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// No file.
    None,
    /// Exactly one file.
    One,
    /// One file or more.
    Many,
}

/// The declaration of a command.
#[derive(Debug)]
pub struct Command {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// How many files it takes.
    pub files: Files,
    /// Its options, apart from `--help`.
    pub options: &'static [Opt],
    /// The end of its help.
    pub notes: &'static str,
}

/// The arguments that a command was given.
#[derive(Debug)]
pub struct Words {
    command: &'static Command,
    values: BTreeMap<&'static str, OsString>,
    files: Vec<PathBuf>,
}

impl Opt {
    /// Returns the option's value: the next argument.
    fn value_of(&self, parser: &mut lexopt::Parser) -> Result<OsString, Failure> {
        match self.takes {
            // What `--option=value` brings, the parser refuses at the next argument.
            Takes::Nothing => Ok(OsString::new()),
            _ => parser
                .value()
                .map_err(|_| Failure::usage(format!("`--{}` needs a value: {}", self.name, self.takes.sentence()))),
        }
    }
}

impl Command {
    /// Parses the arguments after the command's name. Returns `None` for `--help`.
    ///
    /// # Errors
    /// An option or a file that the command does not take, or that is missing.
    pub fn read(&'static self, mut parser: lexopt::Parser) -> Result<Option<Words>, Failure> {
        let mut read = Words { command: self, values: BTreeMap::new(), files: Vec::new() };
        while let Some(word) = parser.next().map_err(|error| Failure::usage(error.to_string()))? {
            match word {
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                Arg::Long(name) => {
                    let option = self.option(name)?;
                    let value = option.value_of(&mut parser)?;
                    if read.values.insert(option.name, value).is_some() {
                        return Err(Failure::usage(format!("`--{}` is given twice; give it once", option.name)));
                    }
                }
                Arg::Short(letter) => return Err(self.unknown(&format!("-{letter}"), &letter.to_string())),
                Arg::Value(path) => read.files.push(path.into()),
            }
        }
        self.check_files(&read.files)?;
        Ok(Some(read))
    }

    fn option(&self, name: &str) -> Result<&'static Opt, Failure> {
        self.options.iter().find(|option| option.name == name).ok_or_else(|| self.unknown(&format!("--{name}"), name))
    }

    fn unknown(&self, option: &str, name: &str) -> Failure {
        let names = self.options.iter().map(|option| option.name).chain(["help"]);
        let hint = match suggestion(name, names) {
            Some(near) => format!("did you mean `--{near}`?"),
            None => format!("`local {} --help` lists its options", self.name),
        };
        Failure::usage(format!("`{}` has no option `{option}`; {hint}", self.name))
    }

    fn check_files(&self, files: &[PathBuf]) -> Result<(), Failure> {
        let name = self.name;
        match (self.files, files) {
            (Files::None, [first, ..]) => {
                Err(Failure::usage(format!("`{name}` takes no file; `{}` is one too many", first.display())))
            }
            (Files::One, [_, second, ..]) => {
                Err(Failure::usage(format!("`{name}` takes one file; `{}` is a second one", second.display())))
            }
            (Files::One | Files::Many, []) => {
                Err(Failure::usage(format!("`{name}` needs a file, or `-` for standard input")))
            }
            _ => Ok(()),
        }
    }
}

impl Words {
    /// Returns the files that the command was given.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns an option's number, or its default.
    ///
    /// # Errors
    /// It is not a whole number within the option's bounds.
    pub fn whole(&self, name: &'static str) -> Result<u64, Failure> {
        let Some(option) = self.command.options.iter().find(|option| option.name == name) else {
            return Err(Failure::usage(format!("`--{name}` is no option")));
        };
        let Takes::Whole(least, most) = option.takes else {
            return Err(Failure::usage(format!("`--{name}` is no number")));
        };
        let value = self.text(name)?.unwrap_or(option.default);
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.wrong(name, value))
    }

    /// Returns an option's value as dollars, or its default.
    ///
    /// # Errors
    /// It is not a price that [`Takes::Dollars`] takes.
    pub fn dollars(&self, name: &'static str) -> Result<f64, Failure> {
        let default = self.command.options.iter().find(|option| option.name == name).map(|option| option.default);
        let value = self.text(name)?.or(default).unwrap_or_default();
        let dollars = value.parse().ok().filter(|dollars| (0.0001..=1000.0).contains(dollars));
        dollars.ok_or_else(|| self.wrong(name, value))
    }

    /// Returns an option's value as a string, if it is given.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, Failure> {
        match self.values.get(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).ok_or_else(|| self.wrong(name, &value.to_string_lossy())),
        }
    }

    /// Returns whether an option is given.
    pub fn is_given(&self, name: &'static str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns an option's value as a path, if it is given.
    pub fn path(&self, name: &'static str) -> Option<&Path> {
        self.values.get(name).map(Path::new)
    }

    /// Returns the error for a value that an option does not take.
    pub fn wrong(&self, name: &'static str, value: &str) -> Failure {
        let takes =
            self.command.options.iter().find(|option| option.name == name).map(|option| option.takes.sentence());
        Failure::usage(format!("`--{name}` takes {}, not `{value}`", takes.unwrap_or_default()))
    }
}
