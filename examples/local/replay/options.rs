//! The declaration of `replay`, and its options.

use std::path::PathBuf;

use session_tracking::config::Projects;

use super::input::Input;
use super::sinks::Sinks;
use crate::cli::{Command, Files, Opt, Takes, Words};
use crate::failure::Failure;
use crate::rules::{PROFILE, PROJECTS, RULES, projects};

pub const COMMAND: Command = Command {
    name: "replay",
    about: "Replays events (NDJSON, one a line) through the ingest path and the closer, and shows what comes of them.",
    files: Files::One,
    options: &[
        Opt { name: "batch", value: "N", takes: Takes::Whole(1, 1000), default: "100", about: "events a batch" },
        PROFILE,
        RULES,
        PROJECTS,
        Opt {
            name: "annotated",
            value: "OUT",
            takes: Takes::Output,
            default: "not written",
            about: "a line an event, in input order: the event with its session on it, or {\"rejected\":{…}}",
        },
        Opt {
            name: "sessions",
            value: "OUT",
            takes: Takes::Output,
            default: "not written",
            about: "a line a final session, by visitor, then start; written at the end",
        },
        Opt {
            name: "html",
            value: "OUT",
            takes: Takes::Output,
            default: "not written",
            about: "a page that shows the events and sessions as timelines, in one file; written at the end",
        },
    ],
    notes: "
Time is the input's own: an event is received at its `received_at`, else when the newest event so far happened; at the
end time runs on until every session is final. Rejected lines are printed on standard error, with number and code.
Memory does not grow with the input: `tail -f FILE | local replay - --annotated -` goes on for ever. Ctrl-C ends the input.",
};

pub struct Options {
    pub file: PathBuf,
    /// Events a batch.
    pub batch: usize,
    pub projects: Projects,
    pub sinks: Sinks,
}

impl Options {
    /// Reads the options of the command line.
    pub fn read(words: &Words) -> Result<Self, Failure> {
        let file = words.files().first().cloned().unwrap_or_default();
        let batch = usize::try_from(words.whole("batch")?).unwrap_or(usize::MAX);
        let projects = projects(words)?;
        // The input first: nothing is written for one that cannot be read.
        Input::check(&file)?;
        let sinks = Sinks::open(words, &file)?;
        Ok(Self { file, batch, projects, sinks })
    }
}
