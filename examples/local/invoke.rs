//! Runs payloads through the functions' own handlers, in virtual time, and prints a line of JSON for each.

mod payloads;
mod time;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::config::{AllowedOrigins, Projects, PublicAccess};
use session_tracking::event::time_of_json;
use session_tracking::manager::{CloseReport, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, datetime, rfc3339};
use session_tracking::storage::DynamoDbSessionStorage;
use session_tracking::trigger::Ingest;

use crate::cli::{Command, Files, Opt, Takes, Words};
use crate::clock::VirtualClock;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::failure::{Failure, reason};
use crate::rules::{PROFILE, PROJECTS, RULES, projects};
use payloads::{Payload, Payloads};

/// The declaration of `invoke`.
pub const COMMAND: Command = Command {
    name: "invoke",
    about: "Runs payloads of any trigger through the functions' own handlers, and prints a line for each.",
    files: Files::Many,
    options: &[
        PROFILE,
        RULES,
        PROJECTS,
        Opt {
            name: "now",
            value: "TIME",
            takes: Takes::Time,
            default: "the first payload's time of receipt; if it has none, 2026-03-10T12:01:00Z",
            about: "the time at the beginning",
        },
    ],
    notes: "
A file holds one payload (JSON, over any number of lines), or one per line. All of them use one table. Each is answered with a
line of JSON:
  {\"answer\":…,\"output\":[…],\"rejects\":[…]}   the function's answer, and what it sent to its queues
  {\"error\":\"…\"}                              the invocation failed, or the payload is not JSON
A payload {\"advance_seconds\":N} moves time forward and closes what is due; `output` has what was emitted. A schedule's payload
(events/close.json) runs the closer once. Time is virtual, never goes back, and moves to each payload's time of receipt. The
same input gives the same lines in every run.",
};

/// The time at the beginning if the first payload has none: shortly after the samples in `events/` were received.
const DEFAULT_NOW: Millis = 1_773_144_060_000;
/// Limit of the seconds by which one payload moves time forward: ten years.
const MAX_ADVANCE_SECONDS: f64 = 10.0 * 366.0 * 86_400.0;
/// Limit of the runs of the closer at one time. Several may be needed, because each run emits only a part.
const MAX_CLOSER_RUNS: usize = 1_000;

/// The options of `invoke`.
pub struct Options {
    files: Vec<PathBuf>,
    projects: Projects,
    now: Option<Millis>,
}

impl Options {
    /// Reads the options of the command line.
    ///
    /// # Errors
    /// An invalid value.
    pub fn read(words: &Words) -> Result<Self, Failure> {
        let now = match words.text("now")? {
            None => None,
            Some(time) => Some(time_of_json(&Value::from(time).to_string()).ok_or_else(|| words.wrong("now", time))?),
        };
        Ok(Self { files: words.files().to_vec(), projects: projects(words)?, now })
    }
}

/// The functions, with one table.
struct Functions<'a> {
    ingest: Ingest<DynamoDbSessionStorage, &'a VirtualClock, &'a MemoryOutput>,
    clock: &'a VirtualClock,
    output: &'a MemoryOutput,
    rejects: &'a MemoryOutput,
    /// Whether the time at the beginning is set.
    is_time_set: bool,
}

/// Runs `invoke`.
///
/// # Errors
/// A file cannot be read, or standard output cannot be written.
pub async fn run(options: Options) -> Result<(), Failure> {
    // Opens all files first, so that nothing is printed if one of them cannot be read.
    let files = options.files.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let database = EmbeddedDynamoDb::start(0)?;
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
    let clock = VirtualClock::default();
    let (output, rejects) = (MemoryOutput::default(), MemoryOutput::default());
    options.now.into_iter().for_each(|now| clock.move_to(now));
    let manager = SessionManager::with_clock(options.projects, storage, &clock);
    let ingest = Ingest {
        manager,
        output: &output,
        rejects: &rejects,
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    };
    let mut functions =
        Functions { ingest, clock: &clock, output: &output, rejects: &rejects, is_time_set: options.now.is_some() };
    for (path, file) in options.files.iter().zip(files) {
        let mut payloads = Payloads::new(file);
        let unreadable = |error: io::Error| unreadable(path, &error);
        while let Some(payload) = payloads.next_payload().map_err(unreadable)? {
            let line = match payload {
                Payload::Json(json) => functions.line(&json).await,
                Payload::Invalid { line, why } => error_line(&format!("{}, line {line}: {why}", path.display())),
            };
            print(&line)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    match file.metadata() {
        Ok(data) if data.is_dir() => Err(unreadable(path, &io::ErrorKind::IsADirectory.into())),
        _ => Ok(Box::new(BufReader::new(file))),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::work(format!("the file `{}` cannot be read: {}", path.display(), reason(error)))
}

/// Prints a line and flushes it, because a reader may wait for it.
fn print(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    written.map_err(|error| Failure::output("standard output", &error))
}

/// The members that identify a payload of this tool or of the schedule.
#[derive(Default, Deserialize)]
struct SpecialMembers {
    advance_seconds: Option<Value>,
    #[serde(rename = "detail-type")]
    detail_type: Option<Value>,
}

impl Functions<'_> {
    /// Handles a payload; returns the line of JSON with the result.
    async fn line(&mut self, payload: &str) -> String {
        // Serde would read an array as the values of the members, in order.
        let object = Some(payload).filter(|payload| payload.starts_with('{'));
        let special: SpecialMembers = object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default();
        let answer = match special {
            SpecialMembers { advance_seconds: Some(seconds), .. } => self.advance(&seconds).await,
            special => {
                self.receive(payload);
                match special.detail_type {
                    Some(what) if what == "Scheduled Event" => {
                        let report = self.ingest.manager.cleanup(&self.output, Millis::MAX).await;
                        serde_json::to_string(&report).map_err(|error| error.to_string())
                    }
                    _ => self.ingest.handle(payload, Millis::MAX).await.map_err(|error| error.to_string()),
                }
            }
        };
        let (output, rejects) = (self.output.take(), self.rejects.take());
        match answer {
            // Events are unchanged in an answer, so they may contain line breaks.
            Ok(answer) => format!(
                "{{\"answer\":{},\"output\":[{}],\"rejects\":[{}]}}",
                answer.replace(['\n', '\r'], " "),
                output.join(","),
                rejects.join(",")
            ),
            Err(message) => error_line(&message),
        }
    }

    /// Moves time to a payload's time of receipt.
    fn receive(&mut self, payload: &str) {
        let stated = time::received_at(payload, self.is_time_set.then(|| self.clock.now()));
        self.begin(stated);
        stated.into_iter().for_each(|now| self.clock.move_to(now));
    }

    /// Sets the time at the beginning, if none is set.
    fn begin(&mut self, now: Option<Millis>) {
        if !std::mem::replace(&mut self.is_time_set, true) {
            self.clock.move_to(now.unwrap_or(DEFAULT_NOW));
        }
    }

    /// Moves time forward and closes what is due.
    async fn advance(&mut self, seconds: &Value) -> Result<String, String> {
        let seconds = seconds.as_f64().filter(|seconds| (0.0..=MAX_ADVANCE_SECONDS).contains(seconds));
        let seconds = seconds.ok_or("`advance_seconds` takes a number of seconds from 0 to ten years")?;
        self.begin(None);
        self.clock.move_to(self.clock.now() + (seconds * 1000.0).round() as Millis);
        let mut lines: Vec<String> = Vec::new();
        for _ in 0..MAX_CLOSER_RUNS {
            let report: CloseReport = self.ingest.manager.cleanup(&self.output, Millis::MAX).await;
            let emitted = self.output.take();
            let is_done = emitted.is_empty() && !report.is_incomplete;
            lines.extend(emitted);
            if report.failed > 0 {
                return Err(format!("the closer failed for {} timelines", report.failed));
            }
            if is_done {
                break;
            }
        }
        // Timelines are closed concurrently, in any order. Sorting makes every run the same.
        lines.sort_by_cached_key(|line| visitor_key(line));
        session_tracking::output::Output::send(self.output, &lines).await;
        Ok(serde_json::json!({ "now": rfc3339(datetime(self.clock.now())) }).to_string())
    }
}

/// Returns the visitor of a line. The sort is stable, so the lines of one visitor keep their order.
fn visitor_key(line: &str) -> (String, String) {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    let string = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (string("project"), string("distinct_id"))
}

fn error_line(message: &str) -> String {
    serde_json::json!({ "error": message }).to_string()
}
