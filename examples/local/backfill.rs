//! Sends history to a table by the same rules as live traffic: each visitor's events in the order of their time, each received when
//! it happened.

mod checkpoint;
mod pace;
mod parsed;
mod sorted;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::{Projects, Settings};
use session_tracking::event::Event;
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionError};
use session_tracking::timeline::Assignment;

use crate::cli::{Command, Files, Opt, Takes, Words};
use crate::cost::backfill_dollars;
use crate::failure::Failure;
use crate::rules::{PROFILE, PROJECTS, RULES, projects};
use crate::stop::Stop;
use checkpoint::Checkpoint;
use pace::Pace;
use parsed::{RawLine, with_events};
use sorted::{Sorted, Summary};

pub const COMMAND: Command = Command {
    name: "backfill",
    about: "Sends history (NDJSON, one event a line) to a table, by the same rules as live traffic.",
    files: Files::Many,
    options: &[
        Opt {
            name: "table",
            value: "NAME",
            takes: Takes::Text,
            default: "none; without it, only the costs are printed",
            about: "the table of the deployed functions",
        },
        Opt {
            name: "checkpoint",
            value: "FILE",
            takes: Takes::Text,
            default: "none; a run that was stopped begins anew",
            about: "keeps how far it is; a later run with the same input goes on there",
        },
        Opt {
            name: "annotated",
            value: "FILE",
            takes: Takes::Text,
            default: "not written",
            about: "appends each event with its session on it, one a line, for the consumers of the output",
        },
        Opt { name: "batch", value: "N", takes: Takes::Whole(1, 600), default: "200", about: "events a batch, or some more: a session stays in one" },
        Opt {
            name: "rate",
            value: "UNITS",
            takes: Takes::Whole(1, 1_000_000),
            default: "500",
            about: "the write units a second that it uses, on average",
        },
        PROFILE,
        RULES,
        PROJECTS,
    ],
    notes: "
Give it the rules that the functions have. Credentials and region come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION), and so does the address of another DynamoDB (AWS_ENDPOINT_URL_DYNAMODB).
An event is received when it happened: at its `timestamp`, corrected by `sent_at` if it has a `received_at`. An event without a
time is skipped, and is printed with its number, like one that cannot be used. The deployed close function ends the sessions
and emits them. To send the same input again changes nothing, as long as its sessions are in the archive (RETENTION_DAYS).",
};

/// How long it waits for a table that takes nothing, or for the close function to make room, before it gives up.
const PATIENCE: Duration = Duration::from_mins(10);
/// The first pause before failed events are sent again, and the longest. Each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The attempts before anything was applied. A table that cannot be used at all is told soon.
const FIRST_ATTEMPTS: u32 = 3;

/// The options of `backfill`.
pub struct Options {
    files: Vec<PathBuf>,
    table: Option<String>,
    checkpoint: Option<PathBuf>,
    annotated: Option<PathBuf>,
    batch: usize,
    rate: f64,
    projects: Projects,
}

impl Options {
    /// Reads the options of the command line.
    ///
    /// # Errors
    /// An invalid value, or an option that needs another one.
    pub fn read(words: &Words) -> Result<Self, Failure> {
        let path = |name| words.path(name).map(Path::to_owned);
        let (table, checkpoint, annotated) =
            (words.text("table")?.map(str::to_owned), path("checkpoint"), path("annotated"));
        if table.is_none() && (checkpoint.is_some() || annotated.is_some()) {
            return Err(Failure::usage("`--checkpoint` and `--annotated` need `--table`; without it nothing is sent"));
        }
        let batch = usize::try_from(words.whole("batch")?).unwrap_or(usize::MAX);
        let rate = words.whole("rate")? as f64;
        Ok(Self {
            files: words.files().to_vec(),
            table,
            checkpoint,
            annotated,
            batch,
            rate,
            projects: projects(words)?,
        })
    }
}

/// What a run has done.
#[derive(Debug, Default)]
struct Done {
    applied: u64,
    duplicates: u64,
    late: u64,
}

struct Backfill<'a> {
    manager: SessionManager<DynamoDbSessionStorage, SystemClock>,
    consumed: Arc<Consumed>,
    projects: &'a Projects,
    annotated: Option<(BufWriter<File>, &'a Path)>,
    now: Millis,
    done: Done,
}

/// Sorts the input, prints what it costs, and sends it if there is a table.
///
/// # Errors
/// A file cannot be read or written, or the table does not take the events.
pub async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let now = SystemClock.now();
    let mut sorted = Sorted::of(&options.files, &options.projects, options.batch, now).await?;
    println!("{}", estimate(&sorted.summary, options.rate));
    let Some(table) = &options.table else { return Ok(()) };
    let mut checkpoint = Checkpoint::open(options.checkpoint.as_deref(), table, sorted.summary.hash)?;
    sorted.skip(checkpoint.applied)?;
    let consumed = Arc::new(Consumed::default());
    let storage = DynamoDbSessionStorage::new(client().await?, table.as_str()).counting(Arc::clone(&consumed));
    let annotated = options.annotated.as_deref().map(|path| Ok::<_, Failure>((appended(path)?, path))).transpose()?;
    let manager = SessionManager::new(options.projects.clone(), storage);
    let mut backfill =
        Backfill { manager, consumed, projects: &options.projects, annotated, now, done: Done::default() };
    let mut pace = Pace::new(options.rate);
    let mut is_stopped = false;
    while let Some(lines) = sorted.batch()? {
        let batch = backfill.send(&lines);
        tokio::select! {
            sent = batch => sent?,
            // What of the batch was applied is known when it is sent again.
            () = stop.wait() => is_stopped = true,
        }
        if is_stopped {
            break;
        }
        checkpoint.advance(lines.len() as u64)?;
        pace.wait(&backfill.consumed).await;
    }
    println!("{}", backfill.report());
    if is_stopped {
        let again = match options.checkpoint {
            Some(_) => "run it again to go on there",
            None => "run it again to begin anew, which changes nothing of what was sent",
        };
        return Err(Failure { message: format!("stopped behind event {}; {again}", checkpoint.applied), status: 130 });
    }
    Ok(())
}

impl Backfill<'_> {
    /// Applies a batch, and writes the annotated events.
    async fn send(&mut self, lines: &[RawLine]) -> Result<(), Failure> {
        let (projects, now) = (self.projects, self.now);
        with_events(lines, projects, now, async |events| {
            // All of them could be read before they were sorted.
            let events: Vec<Event<'_>> = events.into_iter().filter_map(Result::ok).collect();
            let assignments = self.apply(&events).await?;
            for (event, assignment) in events.iter().zip(&assignments) {
                self.done.applied += 1;
                self.done.duplicates += u64::from(assignment.as_ref().is_some_and(|known| known.is_duplicate));
                self.done.late += u64::from(assignment.as_ref().is_some_and(|placed| placed.is_late));
                if let Some((file, path)) = &mut self.annotated {
                    let line = event.annotate(assignment.as_ref()).replace(['\n', '\r'], " ");
                    writeln!(file, "{line}").map_err(|error| Failure::file("--annotated", path, &error))?;
                }
            }
            match &mut self.annotated {
                Some((file, path)) => file.flush().map_err(|error| Failure::file("--annotated", path, &error)),
                None => Ok(()),
            }
        })
        .await
    }

    /// Applies events. Those that failed are sent again: the table may be throttled, or a visitor may have too many sessions that
    /// wait for the close function.
    async fn apply(&self, events: &[Event<'_>]) -> Result<Vec<Option<Assignment>>, Failure> {
        let mut assignments: Vec<Option<Assignment>> = vec![None; events.len()];
        let mut left: Vec<usize> = (0..events.len()).collect();
        let (mut attempts, mut waited, mut pause) = (0, Duration::ZERO, PAUSE);
        loop {
            let some: Vec<Event<'_>> = left.iter().map(|&at| events[at].clone()).collect();
            let mut failed = Vec::new();
            let mut first_error = None;
            for (&at, outcome) in left.iter().zip(self.manager.resolve(&some, Millis::MAX).await) {
                match outcome {
                    Outcome::Placed(assignment) => assignments[at] = assignment,
                    Outcome::Failed(error) => {
                        failed.push(at);
                        first_error.get_or_insert(error);
                    }
                }
            }
            let Some(error) = first_error else { return Ok(assignments) };
            attempts += 1;
            let is_hopeless = matches!(error, SessionError::Corrupt { .. } | SessionError::Newer { .. });
            let is_first = self.done.applied == 0 && failed.len() == events.len();
            if is_hopeless || waited >= PATIENCE || (is_first && attempts >= FIRST_ATTEMPTS) {
                let (code, why) = (error.code(), error.with_causes());
                return Err(Failure::work(format!("{} events could not be applied: {code}: {why}", failed.len())));
            }
            if failed.len() < left.len() {
                (waited, pause) = (Duration::ZERO, PAUSE);
            }
            left = failed;
            SystemClock.sleep(pause).await;
            (waited, pause) = (waited + pause, (2 * pause).min(MAX_PAUSE));
        }
    }

    /// Returns what was done, as a sentence.
    fn report(&self) -> String {
        let Done { applied, duplicates, late } = self.done;
        let units = self.consumed.table_write_units() + self.consumed.index_write_units();
        format!("applied {applied} events; {duplicates} were known, {late} late; {units:.0} write units")
    }
}

/// Returns what the input is and what it costs, in lines.
fn estimate(summary: &Summary, rate: f64) -> String {
    let Summary { events, visitors, sessions, writes, skipped, .. } = *summary;
    let (units, dollars) = backfill_dollars(writes as f64, sessions as f64);
    let minutes = units / rate / 60.0;
    format!(
        "{events} events of {visitors} visitors, in about {sessions} sessions; {skipped} lines skipped\n\
         at least {units:.0} write units, ${dollars:.2} at DynamoDB, with the ends of the sessions; {minutes:.0} minutes at {rate:.0} units a second"
    )
}

/// Returns a variable of a function's environment. Certificates and endpoints are the user's own; the rest belongs to the functions.
#[allow(clippy::disallowed_methods, reason = "certificates and endpoints are settings of the machine")]
fn variable(name: &str) -> Option<String> {
    match name {
        _ if name.starts_with("AWS_") => std::env::var(name).ok(),
        "TABLE" | "OUTPUT" => Some("stdout".to_owned()),
        _ => None,
    }
}

/// Returns a client with the timeouts and the certificates of the functions.
async fn client() -> Result<aws_sdk_dynamodb::Client, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::work(error.to_string());
    let settings =
        Settings::from_variables(variable, |path| std::fs::read_to_string(path)).map_err(|error| failed(&error))?;
    let config = session_tracking::aws::sdk_config(&settings).await.map_err(|error| failed(&error))?;
    if config.region().is_none() {
        return Err(Failure::usage("no region is set; set AWS_REGION to the table's region"));
    }
    Ok(session_tracking::aws::dynamodb(&config, settings.endpoints.dynamodb.as_deref()))
}

/// Opens a file to append to. A line that a killed run left unfinished is cut off: its batch is sent again.
fn appended(path: &Path) -> Result<BufWriter<File>, Failure> {
    let open = || -> io::Result<BufWriter<File>> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let end = end_of_lines(&mut file)?;
        file.set_len(end)?;
        Ok(BufWriter::new(file))
    };
    open().map_err(|error| Failure::file("--annotated", path, &error))
}

/// Returns where the last whole line of a file ends.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(64 * 1024);
        file.seek(io::SeekFrom::Start(start))?;
        bytes.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut bytes)?;
        if let Some(at) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
