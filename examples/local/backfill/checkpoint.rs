//! How far a run is, in a file, so that a later run goes on there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// The table that the events were sent to.
    table: String,
    /// The hash of the whole input.
    input: String,
    /// How many of its events were applied, in the order in which they are sent.
    applied: u64,
}

/// A checkpoint, which is kept in a file if there is one.
pub struct Checkpoint {
    path: Option<PathBuf>,
    table: String,
    input: String,
    /// How many events were applied.
    pub applied: u64,
}

impl Checkpoint {
    /// Opens a checkpoint of this input. A file that does not exist yet is one of nothing.
    ///
    /// # Errors
    /// The file cannot be read, or it is that of another table or another input.
    pub fn open(path: Option<&Path>, table: &str, hash: u128) -> Result<Self, Failure> {
        let input = format!("{hash:032x}");
        let new = Self { path: path.map(Path::to_owned), table: table.to_owned(), input, applied: 0 };
        let Some(path) = path else { return Ok(new) };
        let json = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A place that cannot be written is told before anything is sent.
                new.write()?;
                return Ok(new);
            }
            json => json.map_err(|error| Failure::file("--checkpoint", path, &error))?,
        };
        let wrong = |what: &str| {
            let name = path.display();
            Failure::work(format!("--checkpoint: `{name}` {what}; delete it to begin anew, which is safe"))
        };
        let Content { table, input, applied } = serde_json::from_str(&json).map_err(|_| wrong("is no checkpoint"))?;
        if table != new.table {
            return Err(wrong(&format!("is of the table `{table}`")));
        }
        if input != new.input {
            return Err(wrong("is of another input, or of other rules"));
        }
        Ok(Self { applied, ..new })
    }

    /// Keeps that this many more events were applied.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn advance(&mut self, events: u64) -> Result<(), Failure> {
        self.applied += events;
        self.write()
    }

    /// Writes the file. It is replaced as a whole, so that a crash leaves the one before.
    fn write(&self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let content = Content { table: self.table.clone(), input: self.input.clone(), applied: self.applied };
        let json = serde_json::to_string(&content).map_err(|error| Failure::work(error.to_string()))?;
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let written = fs::write(&new, json + "\n").and_then(|()| fs::rename(&new, path));
        written.map_err(|error| Failure::file("--checkpoint", path, &error))
    }
}
