//! Closing at scale, in virtual time on a slow store: the rate, that no visitor delays the others, and that runs with any deadline
//! make progress.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CloseReport, DEADLINE_MARGIN_MS, Outcome, SessionManager, Share};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::output::Output;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, Found, InMemorySessionStorage, Partition, Reading, SessionError,
    SessionStorage, StorageErrorKind, Stored, due_shard,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cases::NOON;
use crate::support::Seeded;

/// What a call of the store or the output takes.
const CALL: Duration = Duration::from_millis(5);
const DAY: Millis = 86_400_000;

/// A clock on tokio's virtual time.
pub struct VirtualClock {
    began: Instant,
    random: Mutex<Seeded>,
}

impl VirtualClock {
    pub fn new(seed: u64) -> Self {
        Self { began: Instant::now(), random: Mutex::new(Seeded(seed)) }
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
        self.random.lock().unwrap().below(usize::MAX) as u64
    }
}

/// A store whose calls take time. Some fail, and some hang.
pub struct SlowStorage {
    store: Arc<InMemorySessionStorage>,
    /// What a call takes at least.
    pub call: Duration,
    /// The maximum that a call takes in addition.
    pub jitter_ms: usize,
    /// How many of a thousand calls fail, half of them after they took effect.
    faults: usize,
    /// A visitor whose writes hang, and a shard whose listing does.
    hangs: (Option<Visitor>, Option<u8>),
    random: Mutex<Seeded>,
    /// The maximum number of timelines in one `load_within`.
    max_read: Mutex<usize>,
    /// For each visitor, the number of sessions that are being archived, and its maximum.
    archiving: Mutex<HashMap<Visitor, (usize, usize)>>,
    /// The number of calls that load timelines, and of those that write one.
    calls: Mutex<(usize, usize)>,
}

impl SlowStorage {
    pub fn new(seed: u64) -> Self {
        Self {
            store: Arc::default(),
            call: CALL,
            jitter_ms: 0,
            faults: 0,
            hangs: (None, None),
            random: Mutex::new(Seeded(seed)),
            max_read: Mutex::default(),
            archiving: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// Returns another way to the same items, which counts its own calls.
    pub fn another(&self, seed: u64) -> Self {
        Self { store: Arc::clone(&self.store), call: self.call, jitter_ms: self.jitter_ms, ..Self::new(seed) }
    }

    /// Returns how often timelines were loaded, and how often one was written.
    pub fn calls(&self) -> (usize, usize) {
        *self.calls.lock().unwrap()
    }

    fn below(&self, limit: usize) -> usize {
        self.random.lock().unwrap().below(limit)
    }

    async fn wait(&self, is_stuck: bool) {
        let time = self.call + Duration::from_millis(self.below(self.jitter_ms + 1) as u64);
        tokio::time::sleep(if is_stuck { Duration::from_secs(50) } else { time }).await;
    }

    async fn faulty<T>(&self, work: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
        let roll = self.below(1000);
        if roll < self.faults && roll.is_multiple_of(2) {
            return Err(SessionError::storage(StorageErrorKind::Throttled, "throttled"));
        }
        let result = work.await;
        if roll < self.faults { Err(SessionError::storage(StorageErrorKind::TimedOut, "timed out")) } else { result }
    }
}

impl SessionStorage for &SlowStorage {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.calls.lock().unwrap().0 += 1;
        self.wait(false).await;
        self.store.load(visitors, reading).await
    }

    async fn load_within(&self, visitors: &[Visitor], max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        {
            let mut max = self.max_read.lock().unwrap();
            *max = visitors.len().max(*max);
        }
        self.wait(false).await;
        if self.below(1000) < self.faults {
            return visitors
                .iter()
                .map(|_| Err(SessionError::storage(StorageErrorKind::TimedOut, "timed out")))
                .collect();
        }
        self.store.load_within(visitors, max_bytes).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.calls.lock().unwrap().1 += 1;
        self.wait(self.hangs.0.as_ref() == Some(&commit.timeline.visitor)).await;
        self.faulty(self.store.commit(commit)).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.wait(self.hangs.1 == Some(shard)).await;
        self.faulty(self.store.due(shard, after, now, limit)).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        {
            let mut archiving = self.archiving.lock().unwrap();
            let (now, max) = archiving.entry(visitor.clone()).or_default();
            *now += 1;
            *max = (*now).max(*max);
        }
        self.wait(self.hangs.0.as_ref() == Some(visitor)).await;
        self.archiving.lock().unwrap().get_mut(visitor).unwrap().0 -= 1;
        self.faulty(self.store.archive(visitor, session, expires_at)).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.store.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.faulty(self.store.put_pages(visitor, pages, expires_at)).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.store.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.store.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.store.erase(visitor).await
    }
}

/// A queue whose calls take time. It keeps the lines that it was sent.
#[derive(Default)]
struct SlowOutput {
    /// Each line with the time at which it was sent.
    lines: Mutex<Vec<(Instant, String)>>,
    /// The maximum number of lines in a batch.
    max_batch: Mutex<usize>,
    batches: Mutex<usize>,
}

impl Output for &SlowOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        tokio::time::sleep(CALL).await;
        {
            let mut max = self.max_batch.lock().unwrap();
            *max = lines.len().max(*max);
        }
        *self.batches.lock().unwrap() += 1;
        self.lines.lock().unwrap().extend(lines.iter().map(|line| (Instant::now(), line.clone())));
        Vec::new()
    }
}

type Manager<'a> = SessionManager<&'a SlowStorage, &'a VirtualClock>;

fn manager<'a>(store: &'a SlowStorage, clock: &'a VirtualClock) -> Manager<'a> {
    SessionManager::with_clock(SessionConfig::default(), store, clock)
}

/// Applies page views, each given as visitor and time, directly to the store in memory. Returns how many were placed; the others
/// do not fit in their timelines.
async fn apply(store: &InMemorySessionStorage, clock: &VirtualClock, views: &[(String, Millis)]) -> usize {
    let mut placed = 0;
    let manager = SessionManager::with_clock(SessionConfig::default(), store, clock);
    for (number, views) in views.chunks(1000).enumerate() {
        let events: Vec<String> = views
            .iter()
            .enumerate()
            .map(|(at, (visitor, time))| {
                let time = rfc3339(datetime(*time));
                format!(
                    r#"{{"uuid":"{number}-{at}","event":"$pageview","distinct_id":"{visitor}","timestamp":"{time}"}}"#
                )
            })
            .collect();
        let delivery = Delivery { received_at: manager.clock().now(), trusts_received_at: true };
        let events: Vec<Event<'_>> =
            events.iter().map(|json| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap()).collect();
        let outcomes = manager.resolve(&events, Millis::MAX).await;
        let is_full = |outcome: &&Outcome| matches!(outcome, Outcome::Failed(SessionError::Full));
        let is_placed = |outcome: &&Outcome| matches!(outcome, Outcome::Placed(Some(_)));
        placed += outcomes.iter().filter(is_placed).count();
        assert_eq!(outcomes.iter().filter(|outcome| !is_placed(outcome) && !is_full(outcome)).count(), 0);
    }
    // After a day all their sessions are due.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    placed
}

/// Adds `count` visitors with a session each, of two hours ago.
async fn visits(store: &InMemorySessionStorage, clock: &VirtualClock, count: usize) {
    let views: Vec<(String, Millis)> = (0..count).map(|at| (format!("v{at}"), NOON - 2 * 3_600_000)).collect();
    assert_eq!(apply(store, clock, &views).await, count);
}

/// Adds page views of one visitor, each a session of its own. They are backdated, so that all sessions are over. Returns how many
/// fit in the timeline.
async fn many_sessions(store: &InMemorySessionStorage, clock: &VirtualClock, visitor: &str, count: usize) -> usize {
    let at = |number: usize| NOON - 2 * DAY - number as Millis * 4_000_000;
    let views: Vec<(String, Millis)> = (0..count).map(|number| (visitor.to_owned(), at(number))).collect();
    apply(store, clock, &views).await
}

/// Returns how often each session was emitted, by visitor and id. Checks that one version has one content.
fn emitted(output: &SlowOutput) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut sessions: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut contents: HashMap<(String, u64), String> = HashMap::new();
    for (_, line) in output.lines.lock().unwrap().iter() {
        let end: Value = serde_json::from_str(line).unwrap();
        assert_eq!(end["event"], "$session_end", "{line}");
        let id = end["properties"]["$session_id"].as_str().unwrap().to_owned();
        let version = end["properties"]["$session_version"].as_u64().unwrap();
        let content = contents.entry((id.clone(), version)).or_insert_with(|| line.clone());
        assert_eq!(content, line, "one version has two contents");
        let visitor = end["distinct_id"].as_str().unwrap().to_owned();
        *sessions.entry(visitor).or_default().entry(id).or_default() += 1;
    }
    sessions
}

/// Returns the ids of the sessions that are kept after they were emitted, in the archive or as closed ones.
async fn kept(store: &InMemorySessionStorage, visitor: &str) -> BTreeSet<String> {
    let visitor = Visitor::new(visitor);
    let archived = store.archived(&visitor, 0, Millis::MAX >> 16).await.unwrap();
    let timeline = store.read(&visitor).await.unwrap().unwrap().timeline;
    archived.iter().chain(timeline.finalized()).map(|state| state.id.to_string()).collect()
}

async fn is_all_closed(store: &InMemorySessionStorage) -> bool {
    for shard in 0..session_tracking::storage::DUE_SHARDS {
        if !store.due(shard, None, Millis::MAX, 1).await.unwrap().is_empty() {
            return false;
        }
    }
    true
}

/// Returns how many timelines a second some closers close together.
async fn rate(closers: u8, timelines: usize) -> f64 {
    let (store, clock) = (SlowStorage::new(1), VirtualClock::new(1));
    visits(&store.store, &clock, timelines).await;
    let output = SlowOutput::default();
    let sink = &output;
    let managers: Vec<Manager<'_>> = (0..closers).map(|_| manager(&store, &clock)).collect();
    let began = Instant::now();
    let runs = managers
        .iter()
        .zip(0..)
        .map(|(manager, index)| manager.cleanup_share(&sink, Millis::MAX, Share::new(index, closers).unwrap()));
    let reports: Vec<CloseReport> = join_all(runs).await;
    let rate = timelines as f64 / began.elapsed().as_secs_f64();
    assert_eq!(reports.iter().map(|report| report.closed).sum::<usize>(), timelines);
    assert!(reports.iter().all(|report| !report.has_left_work()), "{reports:?}");
    assert!(emitted(&output).values().all(|sessions| sessions.values().all(|&times| times == 1)));
    assert!(is_all_closed(&store.store).await);
    let batches = *output.batches.lock().unwrap();
    println!("{closers} closers: {rate:.0} timelines a second, {batches} batches to the output");
    rate
}

/// With calls of 5 ms each, one closer closes 5,000 timelines a second, two closers at least 1.8 times and four at least 3.2
/// times as many.
#[tokio::test(start_paused = true)]
async fn five_thousand_timelines_a_second_a_closer() {
    let one = rate(1, 10_000).await;
    assert!(one >= 5_000.0, "{one:.0} a second");
    for (closers, factor) in [(2, 1.8), (4, 3.2)] {
        let together = rate(closers, 10_000 * usize::from(closers)).await;
        assert!(together >= factor * one, "{closers} closers: {together:.0} a second, one: {one:.0}");
    }
}

/// Closers that overlap do some work twice, with the same result.
#[tokio::test(start_paused = true)]
async fn closers_that_overlap_do_no_harm() {
    let (store, clock) = (SlowStorage { jitter_ms: 7, ..SlowStorage::new(2) }, VirtualClock::new(2));
    visits(&store.store, &clock, 500).await;
    assert_eq!(many_sessions(&store.store, &clock, "many", 700).await, 700);
    let output = SlowOutput::default();
    let managers = [manager(&store, &clock), manager(&store, &clock), manager(&store, &clock)];
    let sink = &output;
    let shares = [Share::WHOLE, Share::new(1, 2).unwrap(), Share::WHOLE];
    let runs = managers.iter().zip(shares).map(|(manager, share)| manager.cleanup_share(&sink, Millis::MAX, share));
    let reports = join_all(runs).await;
    assert!(reports.iter().all(|report| report.failed == 0), "{reports:?}");
    assert!(
        is_all_closed(&store.store).await || manager(&store, &clock).cleanup(&&output, Millis::MAX).await.failed == 0
    );
    let sessions = emitted(&output);
    assert_eq!((sessions.len(), sessions["many"].len()), (501, 700));
}

/// One visitor has thousands of ended sessions. The other visitors are closed as fast as without it, and it is closed in the same
/// run.
#[tokio::test(start_paused = true)]
async fn a_visitor_of_thousands_of_sessions_stops_nobody() {
    let (store, clock) = (SlowStorage::new(3), VirtualClock::new(3));
    // As many as fit in an item.
    let many = many_sessions(&store.store, &clock, "many", 15_500).await;
    assert!(many > 10_000, "{many}");
    visits(&store.store, &clock, 1_000).await;
    let output = SlowOutput::default();
    let began = Instant::now();
    let deadline = (&clock).now() + 60_000;
    let report = manager(&store, &clock).cleanup(&&output, deadline).await;
    let took = began.elapsed();
    assert_eq!(
        (report.closed, report.failed, report.is_incomplete),
        (many + 1_000, 0, false),
        "{report:?} in {took:?}"
    );
    println!("{many} sessions of one visitor and 1,000 of others: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let is_other = |line: &&(Instant, String)| !line.1.contains(r#""distinct_id":"many""#);
    let last = output.lines.lock().unwrap().iter().filter(is_other).map(|(at, _)| *at).max().unwrap();
    assert!(last - began < Duration::from_millis(500), "{:?}", last - began);
    // Steps are bounded: lines sent at once, sessions archived at once, timelines read at once.
    assert!(*output.max_batch.lock().unwrap() <= 1_000, "{:?}", output.max_batch);
    assert!(store.archiving.lock().unwrap().values().all(|(_, max)| *max <= 16));
    assert!(*store.max_read.lock().unwrap() <= 8);
    let sessions = emitted(&output);
    assert_eq!((sessions.len(), sessions["many"].len()), (1_001, many));
    assert!(sessions.values().all(|sessions| sessions.values().all(|&times| times == 1)));
    assert!(is_all_closed(&store.store).await);
    assert_eq!(kept(&store.store, "many").await.len(), many);
}

/// A visitor whose writes hang, and a shard whose listing takes most of a minute, delay no others.
#[tokio::test(start_paused = true)]
async fn what_hangs_holds_up_nobody() {
    let stuck = Visitor::new("v7");
    let shard = (0..).map(|at| due_shard(&Visitor::new(&format!("v{at}")))).find(|&shard| shard != due_shard(&stuck));
    let (store, clock) =
        (SlowStorage { hangs: (Some(stuck.clone()), shard), ..SlowStorage::new(4) }, VirtualClock::new(4));
    visits(&store.store, &clock, 2_000).await;
    let output = SlowOutput::default();
    let began = Instant::now();
    manager(&store, &clock).cleanup(&&output, Millis::MAX).await;
    let late = |line: &&(Instant, String)| line.0 - began > Duration::from_millis(600);
    let lines = output.lines.lock().unwrap();
    let is_in_shard = |line: &str| {
        let end: Value = serde_json::from_str(line).unwrap();
        Some(due_shard(&Visitor::new(end["distinct_id"].as_str().unwrap()))) == shard
    };
    assert!(lines.iter().filter(late).all(|(_, line)| is_in_shard(line)));
    assert_eq!(lines.len(), 2_000);
}

/// Runs of random length make progress although calls fail. In the end everything is closed, and each session was emitted with one
/// content.
#[tokio::test(start_paused = true)]
async fn runs_of_any_length_come_to_an_end() {
    for seed in 0..24 {
        let mut random = Seeded(seed);
        let faults = [0, 0, 50, 200][random.below(4)];
        let jitter_ms = [0, 20, 300, 1_000][random.below(4)];
        let clock = VirtualClock::new(seed);
        let store = SlowStorage { faults, jitter_ms, ..SlowStorage::new(seed) };
        let mut expected = BTreeMap::new();
        for visitor in 0..1 + random.below(3) {
            let max = [3, 60, 1_500][random.below(3)];
            let count = 1 + random.below(max);
            assert_eq!(many_sessions(&store.store, &clock, &format!("m{visitor}"), count).await, count);
            expected.insert(format!("m{visitor}"), count);
        }
        let others = random.below(200);
        visits(&store.store, &clock, others).await;
        let output = SlowOutput::default();
        let (mut runs, mut idle) = (0, 0);
        while !is_all_closed(&store.store).await {
            let before = output.lines.lock().unwrap().len();
            let time = DEADLINE_MARGIN_MS + random.below(8_000) as Millis;
            let deadline = (&clock).now() + time;
            let report = manager(&store, &clock).cleanup(&&output, deadline).await;
            let now = (&clock).now();
            // A call takes at most about a second, and up to three of them in a row can have begun in time.
            assert!(now <= deadline + 1_500, "seed {seed}: {} ms too late", now - deadline);
            if report.has_left_work() {
                let is_reported = report.oldest_due_seconds.is_some() || report.examined == 0 || report.unlisted > 0;
                assert!(is_reported, "seed {seed}: {report:?}");
            }
            let has_progress = report.closed > 0;
            idle = if has_progress { 0 } else { idle + 1 };
            assert!(
                faults > 0 || time < DEADLINE_MARGIN_MS + 3_100 || has_progress,
                "seed {seed}: {time} ms, {report:?}"
            );
            assert!(output.lines.lock().unwrap().len() >= before);
            assert!(idle < 40, "seed {seed} makes no progress: {report:?}");
            runs += 1;
            assert!(runs < 2_000, "seed {seed} does not end: {report:?}");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let sessions = emitted(&output);
        for (visitor, count) in expected {
            assert_eq!(sessions[&visitor].len(), count, "seed {seed}, {visitor}");
            assert!(sessions[&visitor].keys().eq(&kept(&store.store, &visitor).await), "seed {seed}, {visitor}");
        }
        assert_eq!(sessions.keys().filter(|visitor| visitor.starts_with('v')).count(), others, "seed {seed}");
    }
}
