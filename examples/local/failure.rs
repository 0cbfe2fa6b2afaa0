//! Why a command fails: one sentence for its user, and the process's exit status.

use std::fmt;
use std::io;
use std::path::Path;

/// The exit status of an invalid command line.
const USAGE: u8 = 2;
/// The exit status of a valid command that failed.
const WORK: u8 = 1;

/// Why a command fails.
#[derive(Debug)]
pub struct Failure {
    /// One sentence for the user; empty if nothing is printed.
    pub message: String,
    /// The exit status.
    pub status: u8,
}

impl Failure {
    /// Returns the failure of an invalid command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: USAGE }
    }

    /// Returns the failure of a valid command.
    pub fn work(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: WORK }
    }

    /// Returns the failure for a file that cannot be used. It names the option, the file and the reason.
    pub fn file(option: &str, path: &Path, error: &io::Error) -> Self {
        Self::work(format!("{option}: `{}` cannot be used: {}", path.display(), reason(error)))
    }

    /// Returns the failure for lines that cannot be written. If the reader closed the pipe (`… | head`), it is a success, because
    /// the reader needs no more.
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

/// Returns an I/O error as a part of a sentence, without its number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder, not a file".to_owned(),
        io::ErrorKind::NotADirectory => "a part of its path is a file, not a folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission is denied".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => {
            let message = error.to_string();
            message.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}
