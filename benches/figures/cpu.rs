//! The CPU of the pure path, decode, group, apply and annotate, beside serde_json's own parse of the same bytes.

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
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{Commit, CommitOutcome, Due, Partition, Reading, SessionError, SessionStorage, Stored};
use session_tracking::timeline::Timeline;
use session_tracking::trigger::body::{Form, Limits};
use session_tracking::trigger::split_body::split_body;

use crate::trace::{Batch, Shop};

/// Events of a batch.
const BATCH: usize = 100;
/// Batches before the measured ones: the shop is open already.
const BEFORE: usize = 200;

/// Rounds of which the least time counts.
const ROUNDS: usize = 200;
/// Batches of a round.
const AT_ONCE: usize = 4;

/// A clock that stands still.
pub struct Still(pub Millis);

impl Clock for &Still {
    fn now(&self) -> Millis {
        self.0
    }

    async fn sleep(&self, _time: std::time::Duration) {}

    fn random(&self) -> u64 {
        7
    }
}

/// A batch, and what the store holds of its visitors when it comes. Reading and writing items is no part of the pure path.
pub struct Prepared {
    body: String,
    received_at: Millis,
    stored: Mutex<HashMap<Visitor, Stored>>,
}

impl SessionStorage for &Prepared {
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

    async fn find(&self, _session: uuid::Uuid) -> Result<Partition, SessionError> {
        Err(SessionError::NotFound)
    }
}

/// Makes batches, one after the other, ready to be applied.
pub struct Batches {
    shop: Shop,
    known: HashMap<Visitor, Stored>,
    each: usize,
    config: SessionConfig,
}

impl Batches {
    /// Batches with `each` events of a visitor.
    pub fn new(each: usize) -> Self {
        let mut batches = Self { shop: Shop::new(1), known: HashMap::new(), each, config: SessionConfig::default() };
        (0..BEFORE).for_each(|_| drop(batches.prepare()));
        batches
    }

    /// The next batch.
    pub fn prepare(&mut self) -> Prepared {
        let Batch { received_at, events } = self.shop.batch(BATCH, self.each);
        let config = &self.config;
        let mut stored = HashMap::new();
        let mut arrivals: HashMap<Visitor, Vec<_>> = HashMap::new();
        let delivery = Delivery { received_at, trusts_received_at: false };
        for text in &events {
            let Ok(event) = Event::parse(text.as_bytes(), delivery, config) else { continue };
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
        Prepared { body, received_at, stored: Mutex::new(stored) }
    }
}

/// Decodes, groups, applies and annotates a batch; the annotated bytes.
#[inline(never)]
pub fn ours(batch: &Prepared) -> usize {
    let clock = Still(batch.received_at);
    let manager = SessionManager::with_clock(SessionConfig::default(), batch, &clock);
    let origin = Delivery { received_at: batch.received_at, trusts_received_at: false }.into();
    let body = split_body(batch.body.as_bytes(), Form::Any, Limits::REQUEST.events, manager.config());
    let raw_events = body.map(|body| body.raw_events).unwrap_or_default();
    let mut events: Vec<Event<'_>> = Vec::with_capacity(raw_events.len());
    events.extend(raw_events.into_iter().filter_map(|raw_event| raw_event.parse(origin, manager.config()).ok()));
    let outcomes = manager.resolve(&events, Millis::MAX).now_or_never().unwrap_or_default();
    let mut answer = String::with_capacity(batch.body.len() + BATCH * USUAL_ADDED_BYTES);
    for (event, outcome) in events.iter().zip(&outcomes) {
        let Outcome::Placed(Some(assignment)) = outcome else { continue };
        event.annotate_into(Some(assignment), &mut answer);
    }
    black_box(answer).len()
}

/// An event as a consumer that needs its envelope alone would take it.
#[derive(Deserialize)]
#[allow(dead_code, reason = "what is parsed is not used")]
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

/// serde_json's own parse of the same bytes.
#[inline(never)]
pub fn parse(batch: &Prepared) -> usize {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        events: Vec<Envelope<'a>>,
    }
    let body: Result<Body<'_>, _> = serde_json::from_str(&batch.body);
    black_box(body.map_or(0, |body| body.events.len()))
}

/// Does the work for callgrind, which counts the instructions of `ours` or `parse` alone.
pub fn count(what: &str, number: usize) -> usize {
    let work = match what {
        "ours" => ours,
        "parse" => parse,
        _ => |_: &Prepared| 0,
    };
    let mut batches = Batches::new(3);
    (0..number).map(|_| work(&batches.prepare())).sum()
}

/// Prints the times of both, each the least of several rounds taken in turn, and their ratio.
pub fn print() {
    for each in [1, 3, 10] {
        let mut batches = Batches::new(each);
        let (mut least_ours, mut least_parse) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            // Few at a time: what is prepared for long is cold, which what comes over the network is not.
            let prepared: Vec<Prepared> = (0..AT_ONCE).map(|_| batches.prepare()).collect();
            least_parse = least_parse.min(micros_an_event(&prepared, parse));
            least_ours = least_ours.min(micros_an_event(&prepared, ours));
        }
        println!(
            "CPU of decode, group, apply and annotate, {each} events a visitor: {least_ours:.2} us an event, \
             {:.2} of serde_json's parse",
            least_ours / least_parse
        );
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn micros_an_event(prepared: &[Prepared], work: fn(&Prepared) -> usize) -> f64 {
    let began = std::time::Instant::now();
    for batch in prepared {
        black_box(work(batch));
    }
    began.elapsed().as_secs_f64() * 1e6 / (prepared.len() * BATCH) as f64
}
