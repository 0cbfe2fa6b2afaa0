//! Replays a file of events through the ingest path, in the input's own time.

pub mod input;
mod ledger;
mod options;
mod picture;
mod progress;
mod report;
mod sinks;
pub mod spool;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::config::{ProjectRules, Projects};
use session_tracking::event::{
    Delivery, Event, MAX_EVENT_BYTES, Origin, RejectCode, Rejection, Repaired, Role, Stripped,
};
use session_tracking::manager::{CLOSE_GRACE_MS, Outcome, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionError};
use session_tracking::timeline::{Assignment, Explanation};

use crate::clock::VirtualClock;
use crate::dynamodb::TABLE;
use crate::failure::Failure;
use crate::stop::Stop;
use input::{Input, Line, MAX_LINE_BYTES};
use ledger::Ledgers;
pub use options::{COMMAND, Options};
use picture::Picture;
use progress::Progress;
use report::Report;
use sinks::Sinks;

/// How often the closer runs, in the input's time.
const CLOSE_EVERY_MS: Millis = 60_000;
/// Attempts to apply an event that the store cannot take; the closer makes room between them.
const ATTEMPTS: u32 = 3;

struct Replay<'a> {
    manager: SessionManager<DynamoDbSessionStorage, &'a VirtualClock>,
    clock: &'a VirtualClock,
    ledgers: Ledgers,
    /// What `--html` shows, if it is given.
    picture: Option<Picture>,
    sinks: Sinks,
    report: Report,
    progress: Progress,
    closed_at: Millis,
}

pub async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let mut input = Input::open(&options.file)?;
    // On disk beyond a few megabytes: sessions of the input's last 30 days stay in the table.
    let consumed = Arc::new(Consumed::default());
    let storage = DynamoDbSessionStorage::new(crate::table::client()?, TABLE).counting(Arc::clone(&consumed));
    let clock = VirtualClock::default();
    let mut replay = Replay {
        manager: SessionManager::with_clock(options.projects.clone(), storage, &clock),
        clock: &clock,
        ledgers: Ledgers::default(),
        picture: options.sinks.html.is_some().then(Picture::default),
        sinks: options.sinks,
        report: Report::default(),
        progress: Progress::new(input.bytes),
        closed_at: 0,
    };
    let name = options.file.display();
    replay.sinks.report.line(&format!("replaying {name} through the ingest path, on an embedded DynamoDB …"))?;
    let stopped = replay.all(&mut input, options.batch, &stop).await?;
    let took = replay.progress.took();
    replay.progress.clear();
    replay.run_on(&options.projects).await?;
    replay.write_picture(&options.file)?;
    replay.finish(took, &consumed)?;
    match stopped {
        // A stream has no other end.
        Some(line) if input.bytes.is_some() => {
            Err(Failure { message: format!("stopped behind line {line} of {name}"), status: 130 })
        }
        _ => Ok(()),
    }
}

impl Replay<'_> {
    /// Applies batch after batch, until the input ends or somebody stops it; then returns the last line.
    async fn all(&mut self, input: &mut Input, size: usize, stop: &Stop) -> Result<Option<u64>, Failure> {
        let mut last = 0;
        loop {
            let batch = tokio::select! {
                batch = input.batch(size) => batch?,
                () = stop.wait() => {
                    let rest = input.pending();
                    last = rest.last().map_or(last, |line| line.number);
                    self.batch(&rest).await?;
                    return Ok(Some(last));
                }
            };
            let Some(batch) = batch else { return Ok(None) };
            last = batch.last().map_or(last, |line| line.number);
            self.batch(&batch).await?;
            if input.bytes.is_none() {
                self.flush()?;
            }
        }
    }

    /// Applies a batch at the time of its last event; before that, the closer has run up to its first.
    #[expect(clippy::needless_late_init, reason = "what is read borrows from the two, so they have to outlive it")]
    async fn batch(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let Some(end) = lines.last().map(|line| line.end) else { return Ok(()) };
        let first = lines.first().map_or(0, |line| line.received_at);
        if first.saturating_sub(self.closed_at) >= CLOSE_EVERY_MS {
            self.close(first).await?;
        }
        let last = lines.iter().map(|line| line.received_at).max().unwrap_or(first);
        self.clock.move_to(last);
        let repairs: Vec<(usize, Repaired)>;
        let stripped: Vec<(usize, Stripped)>;
        let projects = self.manager.projects();
        let mut read: Vec<_> = lines.iter().map(|line| parse(line, projects)).collect();
        repairs = read.iter().enumerate().filter_map(|(at, event)| Some((at, repaired(event, &lines[at])?))).collect();
        for (at, repaired) in &repairs {
            if let Some(event) = repaired.parse(origin(&lines[*at]), projects) {
                read[*at] = event;
            }
        }
        let of = |event: &Result<Event<'_>, Rejection>| Stripped::of(event.as_ref().ok()?, projects);
        stripped = read.iter().enumerate().filter_map(|(at, event)| Some((at, of(event)?))).collect();
        for (at, stripped) in &stripped {
            read[*at] = stripped.parse(origin(&lines[*at]), projects);
        }
        let mut events = Vec::with_capacity(lines.len());
        let mut texts: Vec<Option<String>> = lines.iter().map(|_| None).collect();
        for (at, event) in read.into_iter().enumerate() {
            match event {
                Ok(event) => events.push((at, event)),
                Err(rejection) => texts[at] = Some(self.rejected(&lines[at], &rejection)),
            }
        }
        let (places, events): (Vec<usize>, Vec<Event<'_>>) = events.into_iter().unzip();
        let explanations = self.explain(&events).await;
        let outcomes = self.resolve(&events).await;
        for (number, (event, outcome)) in events.iter().zip(outcomes).enumerate() {
            let at = places[number];
            let assignment = outcome.map_err(|error| {
                let (code, why) = (error.code(), error.with_causes());
                Failure::work(format!("line {} cannot be applied: {code}: {why}", lines[at].number))
            })?;
            let text = self.placed(event, assignment)?;
            if let Some(picture) = &self.picture {
                picture.event(&text, lines[at].received_at, explanations.get(number));
            }
            texts[at] = Some(text);
        }
        if let Some(sink) = &mut self.sinks.annotated {
            texts.iter().flatten().try_for_each(|text| sink.line(text))?;
        }
        self.report.events += lines.len() as u64;
        self.progress.show(self.report.events, end);
        Ok(())
    }

    /// Returns what the service explains about events, if a page shows it.
    async fn explain(&self, events: &[Event<'_>]) -> Vec<Value> {
        if self.picture.is_none() {
            return Vec::new();
        }
        let explanations = self.manager.explain(events, Millis::MAX).await;
        let value = |explanation: Result<Explanation, SessionError>| {
            explanation.ok().and_then(|explanation| serde_json::to_value(explanation).ok()).unwrap_or_default()
        };
        explanations.into_iter().map(value).collect()
    }

    /// Resolves events; those that the store cannot take are sent again, as their source would.
    async fn resolve(&mut self, events: &[Event<'_>]) -> Vec<Result<Option<Assignment>, SessionError>> {
        let mut results: Vec<_> = events.iter().map(|_| Err(SessionError::NotFound)).collect();
        let mut left: Vec<usize> = (0..events.len()).collect();
        for attempt in 1..=ATTEMPTS {
            let some: Vec<Event<'_>> = left.iter().map(|&at| events[at].clone()).collect();
            let all = if left.len() == events.len() { events } else { &some };
            for (&at, outcome) in left.iter().zip(self.manager.resolve(all, Millis::MAX).await) {
                results[at] = match outcome {
                    Outcome::Placed(assignment) => Ok(assignment),
                    Outcome::Failed(error) => Err(error),
                };
            }
            left.retain(|&at| results[at].is_err());
            // Where closing fails, too, the events' own errors say why.
            if left.is_empty() || attempt == ATTEMPTS || self.close(self.clock.now()).await.is_err() {
                break;
            }
        }
        results
    }

    /// Takes note of an event's session; returns its line.
    fn placed(&mut self, event: &Event<'_>, assignment: Option<Assignment>) -> Result<String, Failure> {
        let text = event.annotate(assignment.as_ref());
        self.report.annotated(&text);
        if let Some(assignment) = assignment.filter(|_| matches!(event.role, Role::Activity(_))) {
            let (session_id, uuid) = (assignment.session_id.to_string(), event.uuid.to_string());
            self.ledgers.placed((&event.project, &event.distinct_id), session_id, assignment.at, uuid)?;
        }
        Ok(text)
    }

    /// Says that a line is rejected; returns the line that takes its place.
    fn rejected(&mut self, line: &Line, rejection: &Rejection) -> String {
        let (code, message) = (rejection.code.name(), &rejection.message);
        if let Some(picture) = &self.picture {
            picture.rejected(code, line.received_at);
        }
        if let Some(text) = self.report.rejected(line.number, code, message) {
            self.progress.clear();
            eprintln!("{text}");
        }
        serde_json::json!({ "rejected": { "code": code, "message": message } }).to_string()
    }

    /// Runs the closer at a time, and takes note of what it emits; returns how many lines.
    async fn close(&mut self, now: Millis) -> Result<usize, Failure> {
        self.clock.move_to(now);
        self.closed_at = now;
        let output = picture::Tee { ledgers: &self.ledgers, picture: self.picture.as_ref(), now };
        let report = self.manager.cleanup(&output, Millis::MAX).await;
        let emitted = self.ledgers.take_emitted()?;
        match report.failed {
            0 => Ok(emitted),
            failed => Err(Failure::work(format!("the closer failed for {failed} timelines"))),
        }
    }

    /// Lets time run on until every session is final.
    async fn run_on(&mut self, projects: &Projects) -> Result<(), Failure> {
        // An event may lie a day ahead of its receipt; then a timeout and the lateness pass. Twice: what the first
        // run reschedules, the second closes.
        let reach = projects.all_rules().map(|rules| (rules.timeout + rules.lateness).num_milliseconds()).max();
        let reach = reach.unwrap_or_default() + CLOSE_GRACE_MS;
        for days in [1, 2] {
            let now = self.clock.now() + days * 86_400_000 + reach;
            while self.close(now).await? > 0 {}
        }
        Ok(())
    }

    /// Writes the page, if one is asked for.
    fn write_picture(&mut self, file: &Path) -> Result<(), Failure> {
        let (Some(picture), Some(sink)) = (&self.picture, &mut self.sinks.html) else { return Ok(()) };
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        sink.line(&picture.html(&name))?;
        sink.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.sinks.annotated.as_mut().map_or(Ok(()), sinks::Sink::flush)
    }

    /// Writes the final sessions, and what is for people.
    fn finish(mut self, took: std::time::Duration, consumed: &Consumed) -> Result<(), Failure> {
        self.flush()?;
        let mut visitors = self.ledgers.into_visitors()?;
        while let Some(visitor) = visitors.next_visitor()? {
            if let Some(sink) = &mut self.sinks.sessions {
                for session in &visitor.sessions {
                    sink.line(&serde_json::to_string(session).map_err(|error| Failure::work(error.to_string()))?)?;
                }
            }
            self.report.visitor(&visitor);
        }
        if let Some(sink) = &mut self.sinks.sessions {
            sink.flush()?;
        }
        self.report.finish(took, consumed, &mut self.sinks.report)
    }
}

/// Reads an event. A line that is cut is too long, whatever stands in it.
fn parse<'a>(line: &'a Line, rules: &impl ProjectRules) -> Result<Event<'a>, Rejection> {
    if line.bytes > MAX_LINE_BYTES as u64 {
        let message = format!("the event has {} bytes; at most {MAX_EVENT_BYTES} are allowed", line.bytes);
        return Err(Rejection { code: RejectCode::TooLarge, message });
    }
    Event::parse(&line.text, origin(line), rules)
}

/// Returns what can be made of a line that was rejected for text that others choke on, as the functions do.
fn repaired(event: &Result<Event<'_>, Rejection>, line: &Line) -> Option<Repaired> {
    event.as_ref().err().filter(|rejection| rejection.is_text()).and_then(|_| Repaired::of(&line.text))
}

/// Returns where a line came from. The file is the delivery: equal lines that say no time are as many events.
fn origin(line: &Line) -> Origin<'static> {
    let delivery = Delivery { received_at: line.received_at, trusts_received_at: false };
    Origin { index: usize::try_from(line.number).unwrap_or(usize::MAX), ..delivery.into() }
}
