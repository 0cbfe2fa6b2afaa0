//! Why a command ends early: one sentence for whoever typed it, and the process's exit status.

use std::fmt;
use std::io;
use std::path::Path;

/// The exit status of a command line that cannot be understood.
const USAGE: u8 = 2;
/// The exit status of work that could not be done.
const WORK: u8 = 1;

/// A sentence, and the exit status.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub status: u8,
}

impl Failure {
    /// A command line that cannot be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: USAGE }
    }

    /// Work that could not be done.
    pub fn work(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: WORK }
    }

    /// A file that cannot be used: which one, what for, and why.
    pub fn file(option: &str, path: &Path, error: &io::Error) -> Self {
        Self::work(format!("{option}: `{}` cannot be used: {}", path.display(), reason(error)))
    }

    /// Lines that cannot be written. A reader that went away (`… | head`) has what it wanted: that is no failure.
    pub fn output(option: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { message: String::new(), status: 0 };
        }
        Self::work(format!("{option}: the output cannot be written: {}", reason(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::work(message)
    }
}

/// Returns an error of the system as a part of a sentence, without its number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder, not a file".to_owned(),
        io::ErrorKind::NotADirectory => "a part of its path is a file, not a folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission is denied".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}
