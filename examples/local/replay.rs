//! Replays a file of events through the ingest path, in the input's own time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, Role};
use session_tracking::manager::{CLOSE_GRACE_MS, Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::{Consumed, DynamoDbSessionStorage};

use crate::AnyError;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::ledger::Ledger;
use crate::report::{Report, Totals};

/// How often the close function runs, in the input's time.
const CLOSE_EVERY_MS: Millis = 60_000;

pub struct Options {
    pub file: PathBuf,
    /// Events a batch.
    pub batch: usize,
    pub rules: SessionConfig,
    pub annotated: Option<PathBuf>,
    pub sessions: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let rules = SessionConfig::default();
        Self { file: PathBuf::new(), batch: 100, rules, annotated: None, sessions: None }
    }
}

/// The input's time.
#[derive(Default)]
struct InputClock(AtomicI64);

impl Clock for &InputClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }

    async fn sleep(&self, time: Duration) {
        SystemClock.sleep(time).await;
    }

    fn random(&self) -> u64 {
        SystemClock.random()
    }
}

/// A line of the input and when it was received, by the input's time.
struct Line {
    text: String,
    received_at: Millis,
}

/// The times of an event, if it says any.
#[derive(Deserialize, Default)]
struct Times {
    received_at: Option<String>,
    timestamp: Option<String>,
}

struct Replay<'a> {
    manager: SessionManager<DynamoDbSessionStorage, &'a InputClock>,
    clock: &'a InputClock,
    output: MemoryOutput,
    ledger: Ledger,
    annotated: Option<BufWriter<File>>,
    report: Report,
    visitors: HashSet<(String, String)>,
    known: HashSet<u128>,
    closed_at: Millis,
}

pub async fn run(options: Options) -> Result<(), AnyError> {
    let lines = read(&options.file)?;
    let database = EmbeddedDynamoDb::start(0)?;
    let consumed = Arc::new(Consumed::default());
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE).counting(Arc::clone(&consumed));
    let clock = InputClock::default();
    let mut replay = Replay {
        manager: SessionManager::with_clock(options.rules.clone(), storage, &clock),
        clock: &clock,
        output: MemoryOutput::default(),
        ledger: Ledger::default(),
        annotated: options.annotated.as_deref().map(create).transpose()?,
        report: Report::new(lines.len()),
        visitors: HashSet::new(),
        known: HashSet::new(),
        closed_at: 0,
    };
    #[allow(clippy::disallowed_methods, reason = "the rate that is shown is of real time")]
    let began = Instant::now();
    for batch in lines.chunks(options.batch) {
        replay.batch(batch).await?;
    }
    let took = began.elapsed();
    replay.run_on(&options.rules).await?;
    if let Some(mut file) = replay.annotated.take() {
        file.flush()?;
    }
    let totals = Totals { visitors: replay.visitors.len(), took, consumed };
    let sessions = replay.ledger.sessions();
    if let Some(path) = &options.sessions {
        let mut file = create(path)?;
        for session in &sessions {
            writeln!(file, "{}", serde_json::to_string(session)?)?;
        }
        file.flush()?;
    }
    replay.report.finish(&sessions, &totals);
    Ok(())
}

impl Replay<'_> {
    /// Applies a batch at the time of its last event; before that, the close function has run up to its first.
    async fn batch(&mut self, lines: &[Line]) -> Result<(), AnyError> {
        let first = lines.first().map_or(0, |line| line.received_at);
        if first - self.closed_at >= CLOSE_EVERY_MS {
            self.close(first).await?;
        }
        let last = lines.iter().map(|line| line.received_at).max().unwrap_or(first);
        self.clock.0.fetch_max(last, Ordering::Relaxed);
        let mut events = Vec::with_capacity(lines.len());
        let mut texts: Vec<Option<String>> = lines.iter().map(|_| None).collect();
        for (at, line) in lines.iter().enumerate() {
            let delivery = Delivery { received_at: line.received_at, trusts_received_at: false };
            match Event::parse(line.text.as_bytes(), delivery, self.manager.config()) {
                Ok(event) => events.push((at, event)),
                Err(rejection) => {
                    self.report.rejected += 1;
                    let (code, message) = (rejection.code.name(), &rejection.message);
                    let verdict = serde_json::json!({ "rejected": { "code": code, "message": message } });
                    texts[at] = Some(verdict.to_string());
                }
            }
        }
        let (places, events): (Vec<usize>, Vec<Event<'_>>) = events.into_iter().unzip();
        let outcomes = self.manager.resolve(&events, Millis::MAX).await;
        for ((&at, event), outcome) in places.iter().zip(&events).zip(outcomes) {
            let Outcome::Placed(assignment) = outcome else {
                return Err(format!("an event failed: {outcome:?}").into());
            };
            let text = event.annotate(assignment.as_ref());
            self.report.annotated(&text);
            texts[at] = Some(text);
            let visitor = (event.project.to_string(), event.distinct_id.to_string());
            let Some(assignment) = assignment.filter(|_| matches!(event.role, Role::Activity(_))) else { continue };
            // Which session a repeated event is in, the ledger knows from its first answer.
            if self.known.insert(event_key(&visitor, &event.uuid)) {
                self.ledger.add(assignment.session_id.to_string(), assignment.at, event.uuid.to_string());
            }
            self.visitors.insert(visitor);
        }
        if let Some(file) = &mut self.annotated {
            for text in texts.into_iter().flatten() {
                writeln!(file, "{text}")?;
            }
        }
        self.report.progress(lines.len());
        Ok(())
    }

    /// Runs the close function at a time, and takes note of what it says.
    async fn close(&mut self, now: Millis) -> Result<(), AnyError> {
        self.clock.0.fetch_max(now, Ordering::Relaxed);
        self.closed_at = now;
        let report = self.manager.cleanup(&self.output, Millis::MAX).await;
        if report.failed > 0 {
            return Err(format!("the close function failed: {report:?}").into());
        }
        for line in self.output.take() {
            self.ledger.follow(&line)?;
        }
        Ok(())
    }

    /// Lets time run on until every session is final.
    async fn run_on(&mut self, rules: &SessionConfig) -> Result<(), AnyError> {
        // An event may lie a day ahead of its receipt; then a timeout and the lateness pass. Twice: what the first
        // run reschedules, the second closes.
        let reach = rules.timeout.num_milliseconds() + rules.lateness.num_milliseconds() + CLOSE_GRACE_MS;
        for days in [1, 2] {
            let now = self.clock.now() + days * 86_400_000 + reach;
            self.close(now).await?;
        }
        Ok(())
    }
}

fn event_key(visitor: &(String, String), uuid: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(format!("{}#{}#{uuid}", visitor.0, visitor.1).as_bytes())
}

fn create(path: &Path) -> Result<BufWriter<File>, AnyError> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// Reads the input. An event was received at its `received_at`, else when the newest so far happened.
fn read(path: &Path) -> Result<Vec<Line>, AnyError> {
    let input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Box::new(BufReader::new(file))
    };
    let mut newest = 0;
    let mut lines = Vec::new();
    for text in input.split(b'\n') {
        // Bytes that are not UTF-8 are for the event parser to reject: here they only must not end the reading.
        let text = String::from_utf8_lossy(&text?).into_owned();
        if text.trim().is_empty() {
            continue;
        }
        let times: Times = serde_json::from_str(&text).unwrap_or_default();
        let parse = |text: Option<String>| Some(chrono::DateTime::parse_from_rfc3339(&text?).ok()?.timestamp_millis());
        let stated = parse(times.received_at);
        newest = newest.max(stated.or_else(|| parse(times.timestamp)).unwrap_or(newest));
        lines.push(Line { text, received_at: stated.unwrap_or(newest) });
    }
    Ok(lines)
}
