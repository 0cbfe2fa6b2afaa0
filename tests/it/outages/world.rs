//! The deployed service in virtual time: the input queue with its visibility timeout and its dead-letter queue, both functions, the
//! table and the output. Each of them can be down for a while.

use std::sync::Mutex;

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::{CloseReport, SessionManager};
use session_tracking::output::Output;
use session_tracking::session::Millis;
use session_tracking::trigger::Ingest;

use super::table::Table;
use crate::oracle::OracleEvent;
use crate::pipeline::Event;
use crate::support::ManualClock;

pub const MINUTE: Millis = 60_000;
/// The template's visibility timeout.
const VISIBILITY_MS: Millis = 181_000;
/// The template's `maxReceiveCount`.
const MAX_RECEIVES: u32 = 10;
/// Messages of an invocation.
const BATCH: usize = 10;
/// Events of a message.
const MESSAGE_EVENTS: usize = 3;
/// How long a message waits for its next event.
const MESSAGE_MS: Millis = 30_000;
/// The time limit of an invocation, which virtual time never reaches.
const DEADLINE: Millis = Millis::MAX;

/// A part of the service that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Table,
    Output,
    /// The close function is not invoked.
    Closer,
}

/// A message of the input queue.
#[derive(Debug, Clone)]
struct Message {
    /// Its number, which is its id, too.
    id: usize,
    events: Vec<String>,
    /// When it was first sent.
    sent_at: Millis,
    visible_at: Millis,
    receives: u32,
    /// Whether it was sent again with the time and the id that it had first.
    is_redriven: bool,
}

impl Message {
    /// Returns a message of events, which is sent when the last of them arrives.
    fn of(id: usize, events: &[&Event]) -> Self {
        let sent_at = events.iter().map(|event| event.arrives_at).max().unwrap();
        let events = events.iter().map(|event| event.json()).collect();
        Self { id, events, sent_at, visible_at: sent_at, receives: 0, is_redriven: false }
    }

    /// Returns its id in the queue. SQS gives a message that is sent again another one.
    fn delivery_id(&self) -> String {
        format!("{}{}", if self.is_redriven { "redriven-" } else { "" }, self.id)
    }
}

/// The output and the rejects. Each line has the time at which it was taken.
#[derive(Debug, Default)]
pub struct Lines {
    is_down: Mutex<bool>,
    now: Mutex<Millis>,
    taken: Mutex<Vec<(Millis, String)>>,
}

impl Output for Lines {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        if *self.is_down.lock().unwrap() {
            return (0..lines.len()).collect();
        }
        let now = *self.now.lock().unwrap();
        self.taken.lock().unwrap().extend(lines.iter().map(|line| (now, line.clone())));
        Vec::new()
    }
}

pub struct World {
    pub config: SessionConfig,
    pub events: Vec<Event>,
    pub now: Millis,
    pub table: &'static Table,
    lines: &'static Lines,
    clock: &'static ManualClock,
    ingest: Ingest<&'static Table, &'static ManualClock, &'static Lines>,
    /// What no one has sent yet, by the time when it is sent.
    unsent: Vec<Message>,
    /// All that was sent, as the sender keeps it.
    sent: Vec<Message>,
    queue: Vec<Message>,
    dead: Vec<Message>,
    /// What the close function answered, and when.
    pub reports: Vec<(Millis, CloseReport)>,
    /// How many messages were reported as failed.
    pub redelivered: usize,
}

impl World {
    /// Returns a world in which these events arrive. They are in the order of their arrival.
    pub fn new(events: Vec<Event>, config: SessionConfig) -> Self {
        let table: &'static Table = Box::leak(Box::default());
        let lines: &'static Lines = Box::leak(Box::default());
        let clock: &'static ManualClock = Box::leak(Box::default());
        let manager = SessionManager::with_clock(config.clone(), table, clock);
        let (origins, public) = (Default::default(), Default::default());
        let ingest = Ingest { manager, output: lines, rejects: lines, origins, public };
        let is_full = |message: &[&Event], next: &Event| {
            message.len() == MESSAGE_EVENTS || next.arrives_at > message[0].arrives_at + MESSAGE_MS
        };
        let mut groups: Vec<Vec<&Event>> = Vec::new();
        for event in &events {
            match groups.last_mut().filter(|group| !is_full(group, event)) {
                Some(group) => group.push(event),
                None => groups.push(vec![event]),
            }
        }
        let unsent = groups.iter().enumerate().map(|(id, group)| Message::of(id, group)).rev().collect();
        // So that the times at which parts go down are those of a minute.
        let now = events[0].arrives_at / MINUTE * MINUTE;
        let (sent, queue, dead, reports) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { config, events, now, table, lines, clock, ingest, unsent, sent, queue, dead, reports, redelivered: 0 }
    }

    /// Runs until a time, while these parts are down.
    pub async fn run(&mut self, until: Millis, down: &[Part]) {
        self.table.set_down(down.contains(&Part::Table));
        *self.lines.is_down.lock().unwrap() = down.contains(&Part::Output);
        while self.now < until {
            self.now += MINUTE;
            self.clock.set(self.now);
            *self.lines.now.lock().unwrap() = self.now;
            while self.unsent.last().is_some_and(|message| message.sent_at <= self.now) {
                let message = self.unsent.pop().unwrap();
                self.sent.push(message.clone());
                self.queue.push(message);
            }
            self.deliver().await;
            if !down.contains(&Part::Closer) {
                let manager = SessionManager::with_clock(self.config.clone(), self.table, self.clock);
                let report = manager.cleanup(&self.lines, DEADLINE).await;
                self.reports.push((self.now, report));
            }
        }
    }

    /// Runs until everything is sent, processed and closed.
    pub async fn finish(&mut self) {
        let last = self.events.iter().map(|event| event.arrives_at.max(event.at)).max().unwrap();
        let end = self.now.max(last);
        self.run(end + 3 * 60 * MINUTE, &[]).await;
        assert!(self.queue.is_empty() && self.unsent.is_empty(), "messages are left");
    }

    /// Delivers all messages that are visible.
    async fn deliver(&mut self) {
        let now = self.now;
        let (mut visible, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(|message| message.visible_at <= now);
        self.queue = waiting;
        let (worn, left): (Vec<_>, Vec<_>) = visible.drain(..).partition(|message| message.receives >= MAX_RECEIVES);
        self.dead.extend(worn);
        for batch in left.chunks(BATCH) {
            let records: Vec<Value> = batch.iter().map(|message| self.record(message)).collect();
            let payload = json!({ "Records": records }).to_string();
            let answer = self.ingest.handle_as("", &payload, DEADLINE).await.unwrap();
            let is_failed = |message: &&Message| answer.contains(&format!("\"{}\"", message.delivery_id()));
            for message in batch.iter().filter(is_failed) {
                self.redelivered += 1;
                let (visible_at, receives) = (now + VISIBILITY_MS, message.receives + 1);
                self.queue.push(Message { visible_at, receives, ..message.clone() });
            }
        }
    }

    fn record(&self, message: &Message) -> Value {
        let mut record = json!({
            "messageId": message.delivery_id(), "body": message.events.join("\n"),
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
            "attributes": { "SentTimestamp": message.sent_at.to_string() },
        });
        if message.is_redriven {
            record["attributes"]["SentTimestamp"] = json!(self.now.to_string());
            record["messageAttributes"] = json!({
                "session-tracking-received-at": { "stringValue": message.sent_at.to_string() },
                "session-tracking-message-id": { "stringValue": message.id.to_string() },
            });
        }
        record
    }

    /// Returns the number of dead letters.
    pub fn dead_letters(&self) -> usize {
        self.dead.len()
    }

    /// Sends the dead letters again, as `ops/redrive` does.
    pub fn redrive(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        self.send_again(dead);
    }

    /// Sends again what was sent since a time, as a sender that keeps its input does.
    pub fn replay_since(&mut self, since: Millis) {
        let again = self.sent.iter().filter(|message| message.sent_at >= since).cloned().collect();
        self.send_again(again);
    }

    fn send_again(&mut self, messages: Vec<Message>) {
        let visible_at = self.now;
        let again = |message| Message { visible_at, receives: 0, is_redriven: true, ..message };
        self.queue.extend(messages.into_iter().map(again));
    }

    /// Returns the events that have to be in a session.
    pub fn usable(&self) -> Vec<OracleEvent<'_>> {
        self.events.iter().filter_map(Event::usable).collect()
    }

    /// Returns the lines that were taken, and when.
    pub fn lines(&self) -> Vec<(Millis, String)> {
        self.lines.taken.lock().unwrap().clone()
    }

    /// Returns the longest lag of closing that a run of the close function reported, in minutes.
    pub fn max_close_lag(&self) -> Millis {
        let lag = |(_, report): &(Millis, CloseReport)| report.oldest_due_seconds;
        self.reports.iter().filter_map(lag).max().unwrap_or_default() / 60
    }

    /// Returns how many runs of the close function failed as a whole, which Lambda counts as errors.
    pub fn failed_close_runs(&self) -> usize {
        self.reports.iter().filter(|(_, report)| report.is_failure()).count()
    }
}
