//! The latency of batches with a store that takes 5 ms a call. Time is virtual, so the figures do not depend on the machine.
#![allow(clippy::disallowed_methods, reason = "tokio's clock is virtual here")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    StorageErrorKind, Stored,
};
use tokio::time::Instant;

use crate::AnyError;
use crate::seeded::Seeded;

/// 2026-03-10T12:00:00Z: the time at the beginning of each run.
pub const NOON: Millis = 1_773_144_000_000;
/// How long each call of the store takes.
pub const CALL_TIME: Duration = Duration::from_millis(5);
/// Writes of a key that the store accepts in a second; more are throttled. A key saves up unused writes of one second.
const WRITES_A_SECOND: f64 = 1_000.0;

/// Virtual time, and random bits that are the same in every run.
pub struct VirtualClock {
    began: Instant,
    random: Mutex<Seeded>,
}

impl VirtualClock {
    /// Returns a clock that starts at [`NOON`].
    pub fn new() -> Self {
        Self { began: Instant::now(), random: Mutex::new(Seeded(5)) }
    }
}

impl Clock for &VirtualClock {
    fn now(&self) -> Millis {
        NOON + self.began.elapsed().as_millis() as Millis
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(usize::MAX) as u64
    }
}

/// A store in memory in which each call takes [`CALL_TIME`] and each key has a limit of writes.
#[derive(Default)]
pub struct SlowStore {
    store: InMemorySessionStorage,
    /// How many writes each key has saved up, and when that was computed.
    saved: Mutex<HashMap<Visitor, (f64, Option<Instant>)>>,
}

impl SlowStore {
    async fn wait(&self) {
        tokio::time::sleep(CALL_TIME).await;
    }

    fn is_throttled(&self, visitor: &Visitor) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = saved.entry(visitor.clone()).or_insert((WRITES_A_SECOND, None));
        let now = Instant::now();
        let passed = since.map_or(0.0, |since| (now - since).as_secs_f64());
        *left = (*left + passed * WRITES_A_SECOND).min(WRITES_A_SECOND) - 1.0;
        *since = Some(now);
        let is_throttled = *left < 0.0;
        *left = left.max(0.0);
        is_throttled
    }
}

impl SessionStorage for &SlowStore {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.wait().await;
        self.store.load(visitors, reading).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.wait().await;
        if self.is_throttled(&commit.timeline.visitor) {
            return Err(SessionError::storage(StorageErrorKind::Throttled, "ThrottlingException"));
        }
        self.store.commit(commit).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.wait().await;
        self.store.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.wait().await;
        self.store.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.wait().await;
        self.store.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.store.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: uuid::Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.store.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: uuid::Uuid) -> Result<Partition, SessionError> {
        self.wait().await;
        self.store.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.wait().await;
        self.store.erase(visitor).await
    }
}

/// Returns the JSON of a page view.
pub fn event(visitor: &str, uuid: &str, at: Millis) -> String {
    let at = rfc3339(datetime(at));
    format!(r#"{{"uuid":"{uuid}","event":"$pageview","distinct_id":"{visitor}","timestamp":"{at}"}}"#)
}

/// Returns the duration of a batch of 100 visitors with an empty cache, in multiples of a call of the store.
async fn wide_batch() -> Result<f64, AnyError> {
    let (store, clock) = (SlowStore::default(), VirtualClock::new());
    let manager = SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let events: Vec<String> = (0..100).map(|n| event(&format!("v{n}"), &format!("e{n}"), NOON)).collect();
    let began = Instant::now();
    apply(&manager, &events).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    Ok(began.elapsed().as_secs_f64() / CALL_TIME.as_secs_f64())
}

/// Applies events.
///
/// # Errors
/// The JSON of the events that failed.
pub async fn apply(
    manager: &SessionManager<&SlowStore, &VirtualClock>,
    json_events: &[String],
) -> Result<(), Vec<String>> {
    let now = manager.clock().now();
    let delivery = Delivery { received_at: now, trusts_received_at: false };
    let events: Vec<Event<'_>> =
        json_events.iter().filter_map(|json| Event::parse(json.as_bytes(), delivery, manager.config()).ok()).collect();
    let outcomes = manager.resolve(&events, now + 30_000).await;
    let failed: Vec<String> = json_events
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
        .map(|(json, _)| json.clone())
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// The result of ten seconds with a hot visitor.
struct HotVisitorResult {
    /// Events of the hot visitor that were sent.
    sent: u32,
    /// Events in the hot visitor's session at the end.
    counted: u32,
    /// How often batches of the hot visitor were sent, with retries.
    attempts: usize,
    /// The 99th percentile of the time that batches of other visitors took.
    others_p99: Duration,
}

/// Runs ten seconds in which one visitor has `batches` of 100 events a second, beside 100 batches a second of other visitors. A
/// failed batch is sent again a second later, like a queue redelivers it.
async fn hot_visitor(batches: u64) -> Result<HotVisitorResult, AnyError> {
    let (store, clock): (&'static SlowStore, &'static VirtualClock) =
        (Box::leak(Box::default()), Box::leak(Box::new(VirtualClock::new())));
    let manager = Arc::new(SessionManager::with_clock(SessionConfig::default(), store, clock));
    let (mut hot, mut others) = (Vec::new(), Vec::new());
    for tick in 0..1_000_u64 {
        let wait = Duration::from_millis(10 * tick);
        if tick * batches / 100 < (tick + 1) * batches / 100 {
            hot.push(tokio::spawn(send_until_applied(Arc::clone(&manager), wait, "hot".to_owned(), tick)));
        }
        others.push(tokio::spawn(send_until_applied(Arc::clone(&manager), wait, format!("o{tick}"), tick)));
    }
    let sent = 100 * hot.len() as u32;
    let mut attempts = 0;
    for batch in hot {
        attempts += batch.await?.1;
    }
    let mut times = Vec::new();
    for batch in others {
        times.push(batch.await?.0);
    }
    times.sort_unstable();
    let counted = match manager.get_by_user(&Visitor::new("hot")).await {
        Ok(session) => session.event_count,
        Err(_) => 0,
    };
    Ok(HotVisitorResult { sent, counted, attempts, others_p99: times[times.len() * 99 / 100] })
}

/// Sends a batch after `wait`, until it is applied. Returns how long that took, and the number of attempts.
async fn send_until_applied(
    manager: Arc<SessionManager<&'static SlowStore, &'static VirtualClock>>,
    wait: Duration,
    visitor: String,
    tick: u64,
) -> (Duration, usize) {
    tokio::time::sleep(wait).await;
    let now = manager.clock().now();
    let events: Vec<String> = (0..100).map(|n| event(&visitor, &format!("{visitor}-{tick}-{n}"), now)).collect();
    let began = Instant::now();
    for attempt in 1.. {
        if apply(&manager, &events).await.is_ok() {
            return (began.elapsed(), attempt);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    (began.elapsed(), 0)
}

/// Prints the rows of latency: what, figure, target.
pub fn print() -> Result<(), AnyError> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let wide = runtime()?.block_on(wide_batch())?;
    println!("batch of 100 visitors, store of 5 ms, cold, in calls of the store | {wide:.1} | <= 6");
    let quiet = runtime()?.block_on(hot_visitor(0))?;
    let busy = runtime()?.block_on(hot_visitor(100))?;
    println!(
        "hot visitor, 10,000 events a second: counted of sent | {} of {} ({} attempts of {} batches) | none lost",
        busy.counted,
        busy.sent,
        busy.attempts,
        busy.sent / 100
    );
    let (before, after) = (quiet.others_p99.as_millis(), busy.others_p99.as_millis());
    println!("hot visitor: p99 of other visitors' batches, without and with | {before} and {after} ms | unchanged");
    for closers in [1, 2, 4, 8] {
        let rate = runtime()?.block_on(crate::closing::rate(closers))?;
        println!("timelines closed a second, store and output of 5 ms, {closers} closers | {rate:.0} | >= 5,000 each");
    }
    let (took, sessions) = runtime()?.block_on(crate::closing::large())?;
    println!("a visitor of {sessions} ended sessions, store of 5 ms | {:.1} s | < 60 s", took.as_secs_f64());
    Ok(())
}
