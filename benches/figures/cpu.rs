//! The CPU of the pure path (decode, group, apply, annotate), beside that of `serde_json`'s parse of the same bytes.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, USUAL_ADDED_BYTES};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, Partition, Reading, SessionError, SessionStorage, Stored,
};
use session_tracking::timeline::Timeline;
use session_tracking::trigger::body::{Form, Limits};
use session_tracking::trigger::split_body::split_body;

use crate::shop::{Batch, Shop};

/// Events in a batch.
const BATCH_EVENTS: usize = 100;
/// Batches before the first measured one, so that most visitors are known.
const WARM_UP_BATCHES: usize = 200;
/// Rounds, of which the shortest time counts.
const ROUNDS: usize = 200;
/// Batches in a round.
const ROUND_BATCHES: usize = 4;

/// A clock that always shows this time.
pub struct StoppedClock(pub Millis);

impl Clock for &StoppedClock {
    fn now(&self) -> Millis {
        self.0
    }

    async fn sleep(&self, _time: std::time::Duration) {}

    fn random(&self) -> u64 {
        7
    }
}

/// A batch, and the stored timelines of its visitors. Items are not read or written, because that is not part of the pure path.
pub struct PreparedBatch {
    body: String,
    received_at: Millis,
    stored: Mutex<HashMap<Visitor, Stored>>,
}

impl SessionStorage for &PreparedBatch {
    async fn load(&self, visitors: &[Visitor], _reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        let Ok(mut stored) = self.stored.lock() else { return Vec::new() };
        visitors.iter().map(|visitor| Ok(stored.remove(visitor))).collect()
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        black_box(commit.timeline);
        Ok(CommitOutcome::Done)
    }

    async fn due(
        &self,
        _shard: u8,
        _after: Option<&Due>,
        _now: Millis,
        _limit: usize,
    ) -> Result<Vec<Due>, SessionError> {
        Ok(Vec::new())
    }

    async fn archive(&self, _visitor: &Visitor, _session: &SessionState, _at: Millis) -> Result<(), SessionError> {
        Ok(())
    }

    async fn archived(
        &self,
        _visitor: &Visitor,
        _from: Millis,
        _to: Millis,
    ) -> Result<Vec<SessionState>, SessionError> {
        Ok(Vec::new())
    }

    async fn put_pages(
        &self,
        _visitor: &Visitor,
        _pages: &[FingerprintPage],
        _expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        Ok(())
    }

    async fn pages(&self, _visitor: &Visitor, _session_id: uuid::Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        Ok(Vec::new())
    }

    async fn find(&self, _session: uuid::Uuid) -> Result<Partition, SessionError> {
        Err(SessionError::NotFound)
    }

    async fn erase(&self, _visitor: &Visitor) -> Result<Erased, SessionError> {
        Ok(Erased::default())
    }
}

/// Makes batches that are ready to be applied.
pub struct Batches {
    shop: Shop,
    known: HashMap<Visitor, Stored>,
    /// Events of each visitor in a batch.
    per_visitor: usize,
    config: SessionConfig,
}

impl Batches {
    /// Returns batches with `per_visitor` events of each visitor.
    pub fn new(per_visitor: usize) -> Self {
        let mut batches =
            Self { shop: Shop::new(1), known: HashMap::new(), per_visitor, config: SessionConfig::default() };
        (0..WARM_UP_BATCHES).for_each(|_| drop(batches.prepare()));
        batches
    }

    /// Returns the next batch.
    pub fn prepare(&mut self) -> PreparedBatch {
        let Batch { received_at, events } = self.shop.batch(BATCH_EVENTS, self.per_visitor);
        let config = &self.config;
        let mut stored = HashMap::new();
        let mut arrivals: HashMap<Visitor, Vec<_>> = HashMap::new();
        let delivery = Delivery { received_at, trusts_received_at: false };
        for json in &events {
            let Ok(event) = Event::parse(json.as_bytes(), delivery, config) else { continue };
            arrivals.entry(event.visitor()).or_default().extend(event.arrival(config));
        }
        for (visitor, arrivals) in arrivals {
            let new = || Stored { timeline: Timeline::new(visitor.clone()), etag: 1 };
            let known = self.known.entry(visitor.clone()).or_insert_with(new);
            if known.timeline.seq > 0 {
                stored.insert(visitor, known.clone());
            }
            known.timeline.apply(&arrivals, Vec::new(), config);
            known.timeline.close(received_at - 60_000, config);
        }
        let body = format!("{{\"events\":[{}]}}", events.join(","));
        PreparedBatch { body, received_at, stored: Mutex::new(stored) }
    }
}

/// Decodes, groups, applies and annotates a batch; returns the bytes of the annotated events.
#[inline(never)]
pub fn ours(batch: &PreparedBatch) -> usize {
    let clock = StoppedClock(batch.received_at);
    let manager = SessionManager::with_clock(SessionConfig::default(), batch, &clock);
    let origin = Delivery { received_at: batch.received_at, trusts_received_at: false }.into();
    let body = split_body(batch.body.as_bytes(), Form::Any, Limits::REQUEST.events);
    let raw_events = body.map(|body| body.raw_events).unwrap_or_default();
    let mut events: Vec<Event<'_>> = Vec::with_capacity(raw_events.len());
    events.extend(raw_events.into_iter().filter_map(|raw_event| raw_event.parse(origin, manager.config()).ok()));
    let outcomes = manager.resolve(&events, Millis::MAX).now_or_never().unwrap_or_default();
    let mut answer = String::with_capacity(batch.body.len() + BATCH_EVENTS * USUAL_ADDED_BYTES);
    for (event, outcome) in events.iter().zip(&outcomes) {
        let Outcome::Placed(Some(assignment)) = outcome else { continue };
        event.annotate_into(Some(assignment), &mut answer);
    }
    black_box(answer).len()
}

/// An event of which only the envelope is parsed.
#[derive(Deserialize)]
#[allow(dead_code, reason = "the fields are parsed but not used")]
struct Envelope<'a> {
    #[serde(borrow)]
    uuid: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    distinct_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    timestamp: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    properties: &'a RawValue,
}

/// Parses the same bytes with `serde_json`; returns the number of events.
#[inline(never)]
pub fn parse(batch: &PreparedBatch) -> usize {
    #[derive(Deserialize)]
    struct Events<'a> {
        #[serde(borrow)]
        events: Vec<Envelope<'a>>,
    }
    let body: Result<Events<'_>, _> = serde_json::from_str(&batch.body);
    black_box(body.map_or(0, |body| body.events.len()))
}

/// Returns a queue's payload: a message for each event of a batch, as SQS delivers it.
fn queue_payload(batch: &PreparedBatch) -> String {
    let events: Vec<&RawValue> =
        serde_json::from_str::<Body<'_>>(&batch.body).map(|body| body.events).unwrap_or_default();
    let record = |(number, event): (usize, &RawValue)| {
        serde_json::json!({
            "messageId": format!("059f36b4-87a3-44ab-83d2-{number:012}"),
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": event.get(),
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": batch.received_at.to_string(),
                "SenderId": "AROAEXAMPLE:collector",
                "ApproximateFirstReceiveTimestamp": batch.received_at.to_string(),
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:events",
            "awsRegion": "eu-central-1",
        })
    };
    serde_json::json!({ "Records": events.into_iter().enumerate().map(record).collect::<Vec<_>>() }).to_string()
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Reads a queue's payload as the function does, up to its messages' bodies; returns their bytes.
#[inline(never)]
pub fn envelope(payload: &str, now: Millis) -> usize {
    black_box(session_tracking::trigger::read_queue(payload, now))
}

/// Reads the same members with `serde_json` into owned strings, in one pass; returns the bodies' bytes.
#[inline(never)]
pub fn envelope_parse(payload: &str) -> usize {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Payload {
        records: Vec<Record>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[allow(dead_code, reason = "the fields are parsed but not used")]
    struct Record {
        message_id: String,
        body: String,
        attributes: Attributes,
        event_source: String,
        #[serde(rename = "eventSourceARN")]
        queue: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    #[allow(dead_code, reason = "the fields are parsed but not used")]
    struct Attributes {
        sent_timestamp: String,
        message_group_id: Option<String>,
    }
    let payload: Result<Payload, _> = serde_json::from_str(payload);
    black_box(payload.map_or(0, |payload| payload.records.iter().map(|record| record.body.len()).sum()))
}

/// Does work on so many batches for callgrind, which counts only the instructions inside of the function named.
pub fn count(what: &str, batch_count: usize) -> usize {
    let work = match what {
        "ours" => ours,
        "parse" => parse,
        "envelope" => |batch: &PreparedBatch| envelope(&queue_payload(batch), batch.received_at),
        "envelope_parse" => |batch: &PreparedBatch| envelope_parse(&queue_payload(batch)),
        _ => |_: &PreparedBatch| 0,
    };
    let mut batches = Batches::new(3);
    (0..batch_count).map(|_| work(&batches.prepare())).sum()
}

/// Prints the time of the pure path and its ratio to that of the parse. Both are the shortest of several rounds, in turns.
pub fn print() {
    for per_visitor in [1, 3, 10] {
        let mut batches = Batches::new(per_visitor);
        let (mut least_ours, mut least_parse) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            // Prepares a few batches at a time, so that their bytes are still in the CPU's cache, like bytes from the network.
            let prepared: Vec<PreparedBatch> = (0..ROUND_BATCHES).map(|_| batches.prepare()).collect();
            least_parse = least_parse.min(micros_per_event(&prepared, parse));
            least_ours = least_ours.min(micros_per_event(&prepared, ours));
        }
        println!(
            "CPU of decode, group, apply and annotate, {per_visitor} events of a visitor a batch: {least_ours:.2} us an event, \
             {:.2} of serde_json's parse",
            least_ours / least_parse
        );
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn micros_per_event(prepared: &[PreparedBatch], work: fn(&PreparedBatch) -> usize) -> f64 {
    let began = std::time::Instant::now();
    for batch in prepared {
        black_box(work(batch));
    }
    began.elapsed().as_secs_f64() * 1e6 / (prepared.len() * BATCH_EVENTS) as f64
}
