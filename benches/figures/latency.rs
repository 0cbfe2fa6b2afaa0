//! How long batches take on a store that takes its time, in virtual time: nothing here depends on the machine.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, datetime, time_text};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    StorageErrorKind, Stored,
};
use tokio::time::Instant;

use crate::AnyError;
use crate::seeded::Seeded;

pub const NOON: Millis = 1_773_144_000_000;
/// A call of the store.
pub const CALL: Duration = Duration::from_millis(5);
/// Writes that the store takes for a key in a second; more are throttled. It saves up for a second, as DynamoDB does.
const WRITES_A_SECOND: f64 = 1_000.0;

/// Virtual time, and random bits that are the same in every run.
pub struct Virtual {
    began: Instant,
    random: Mutex<Seeded>,
}

impl Virtual {
    pub fn new() -> Self {
        Self { began: Instant::now(), random: Mutex::new(Seeded(5)) }
    }
}

impl Clock for &Virtual {
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

/// A store of which every call takes its time and every key its share.
#[derive(Default)]
pub struct Slow {
    pub store: InMemorySessionStorage,
    /// The writes saved up by each key, and when that was so.
    saved: Mutex<HashMap<Visitor, (f64, Option<Instant>)>>,
}

impl Slow {
    async fn wait(&self) {
        tokio::time::sleep(CALL).await;
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

impl SessionStorage for &Slow {
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

    async fn find(&self, session_id: uuid::Uuid) -> Result<Partition, SessionError> {
        self.wait().await;
        self.store.find(session_id).await
    }
}

pub fn event(visitor: &str, uuid: &str, at: Millis) -> String {
    let at = time_text(datetime(at));
    format!(r#"{{"uuid":"{uuid}","event":"$pageview","distinct_id":"{visitor}","timestamp":"{at}"}}"#)
}

/// The wall time of a batch of 100 visitors, cold, in calls of the store.
async fn wide_batch() -> Result<f64, AnyError> {
    let (store, clock) = (Slow::default(), Virtual::new());
    let manager = SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let texts: Vec<String> = (0..100).map(|n| event(&format!("v{n}"), &format!("e{n}"), NOON)).collect();
    let began = Instant::now();
    apply(&manager, &texts).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    Ok(began.elapsed().as_secs_f64() / CALL.as_secs_f64())
}

/// Applies texts; those that failed.
pub async fn apply(manager: &SessionManager<&Slow, &Virtual>, texts: &[String]) -> Result<(), Vec<String>> {
    let now = manager.clock().now();
    let delivery = Delivery { received_at: now, trusts_received_at: false };
    let events: Vec<Event<'_>> =
        texts.iter().filter_map(|text| Event::parse(text.as_bytes(), delivery, manager.config()).ok()).collect();
    let outcomes = manager.resolve(&events, now + 30_000).await;
    let failed: Vec<String> = texts
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
        .map(|(text, _)| text.clone())
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// What ten seconds of a hot visitor did.
struct Hot {
    sent: u32,
    counted: u32,
    sendings: usize,
    /// The 99th percentile of the time that batches of other visitors took.
    others_p99: Duration,
}

/// Ten seconds in which a visitor has `batches` of 100 events a second, beside 100 batches a second of other visitors. What
/// fails is sent again a second later, whole, as a queue does.
async fn hot(batches: u64) -> Result<Hot, AnyError> {
    let (store, clock): (&'static Slow, &'static Virtual) =
        (Box::leak(Box::default()), Box::leak(Box::new(Virtual::new())));
    let manager = Arc::new(SessionManager::with_clock(SessionConfig::default(), store, clock));
    let (mut hot, mut others) = (Vec::new(), Vec::new());
    for tick in 0..1_000_u64 {
        let wait = Duration::from_millis(10 * tick);
        if tick * batches / 100 < (tick + 1) * batches / 100 {
            hot.push(tokio::spawn(until_taken(Arc::clone(&manager), wait, "hot".to_owned(), tick)));
        }
        others.push(tokio::spawn(until_taken(Arc::clone(&manager), wait, format!("o{tick}"), tick)));
    }
    let sent = 100 * hot.len() as u32;
    let mut sendings = 0;
    for batch in hot {
        sendings += batch.await?.1;
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
    Ok(Hot { sent, counted, sendings, others_p99: times[times.len() * 99 / 100] })
}

/// Sends a batch until it is taken: how long that took, and how many sendings.
async fn until_taken(
    manager: Arc<SessionManager<&'static Slow, &'static Virtual>>,
    wait: Duration,
    visitor: String,
    tick: u64,
) -> (Duration, usize) {
    tokio::time::sleep(wait).await;
    let now = manager.clock().now();
    let texts: Vec<String> = (0..100).map(|n| event(&visitor, &format!("{visitor}-{tick}-{n}"), now)).collect();
    let began = Instant::now();
    for sending in 1.. {
        if apply(&manager, &texts).await.is_ok() {
            return (began.elapsed(), sending);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    (began.elapsed(), 0)
}

/// Prints the rows of time.
pub fn print() -> Result<(), AnyError> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let wide = runtime()?.block_on(wide_batch())?;
    println!("batch of 100 visitors, store of 5 ms, cold, in calls of the store | {wide:.1} | <= 6");
    let quiet = runtime()?.block_on(hot(0))?;
    let busy = runtime()?.block_on(hot(100))?;
    println!(
        "hot visitor, 10,000 events a second: counted of sent | {} of {} ({} sendings of {} batches) | none lost",
        busy.counted,
        busy.sent,
        busy.sendings,
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
