//! Closing at scale, in virtual time on a slow store: how fast it is, that nobody holds up others, and that runs with any
//! deadline come to an end.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CloseReport, DEADLINE_MARGIN_MS, Outcome, SessionManager, Share};
use session_tracking::model::SessionState;
use session_tracking::output::Output;
use session_tracking::session::{Millis, Visitor, datetime, time_text};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Found, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    StorageErrorKind, Stored, due_shard,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cases::NOON;
use crate::support::Seeded;

const CALL: Duration = Duration::from_millis(5);
const DAY: Millis = 86_400_000;

/// Virtual time.
struct Virtual {
    began: Instant,
    random: Mutex<Seeded>,
}

impl Virtual {
    fn new(seed: u64) -> Self {
        Self { began: Instant::now(), random: Mutex::new(Seeded(seed)) }
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
        self.random.lock().unwrap().below(usize::MAX) as u64
    }
}

/// A store of which every call takes its time, some fail, and some seem never to end.
struct Slow {
    store: InMemorySessionStorage,
    /// The longest that a call takes beyond 5 ms.
    jitter_ms: usize,
    /// How many calls of a thousand fail, half of them after they took effect.
    faults: usize,
    /// A visitor whose writes hang, and a shard whose listing does.
    hangs: (Option<Visitor>, Option<u8>),
    random: Mutex<Seeded>,
    /// How many timelines were read at once at the most, and sessions archived at once.
    most_read: Mutex<usize>,
    archiving: Mutex<HashMap<Visitor, (usize, usize)>>,
}

impl Slow {
    fn new(seed: u64) -> Self {
        Self {
            store: InMemorySessionStorage::new(),
            jitter_ms: 0,
            faults: 0,
            hangs: (None, None),
            random: Mutex::new(Seeded(seed)),
            most_read: Mutex::default(),
            archiving: Mutex::default(),
        }
    }

    fn below(&self, limit: usize) -> usize {
        self.random.lock().unwrap().below(limit)
    }

    async fn wait(&self, is_stuck: bool) {
        let time = CALL + Duration::from_millis(self.below(self.jitter_ms + 1) as u64);
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

impl SessionStorage for &Slow {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.wait(false).await;
        self.store.load(visitors, reading).await
    }

    async fn load_within(&self, visitors: &[Visitor], max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        {
            let mut most = self.most_read.lock().unwrap();
            *most = visitors.len().max(*most);
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
            let (now, most) = archiving.entry(visitor.clone()).or_default();
            *now += 1;
            *most = (*now).max(*most);
        }
        self.wait(self.hangs.0.as_ref() == Some(visitor)).await;
        self.archiving.lock().unwrap().get_mut(visitor).unwrap().0 -= 1;
        self.faulty(self.store.archive(visitor, session, expires_at)).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.store.archived(visitor, from, to).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.store.find(session_id).await
    }
}

/// A queue that takes its time; what it was sent, and when.
#[derive(Default)]
struct SlowOutput {
    lines: Mutex<Vec<(Instant, String)>>,
    /// Lines of the largest sending, and how many sendings there were.
    largest: Mutex<(usize, usize)>,
}

impl Output for &SlowOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        tokio::time::sleep(CALL).await;
        let mut largest = self.largest.lock().unwrap();
        *largest = (largest.0.max(lines.len()), largest.1 + 1);
        self.lines.lock().unwrap().extend(lines.iter().map(|line| (Instant::now(), line.clone())));
        Vec::new()
    }
}

type Manager<'a> = SessionManager<&'a Slow, &'a Virtual>;

fn manager<'a>(store: &'a Slow, clock: &'a Virtual) -> Manager<'a> {
    SessionManager::with_clock(SessionConfig::default(), store, clock)
}

/// Applies page views (visitor, time), straight into the store below; returns how many its timelines had room for.
async fn apply(store: &InMemorySessionStorage, clock: &Virtual, views: &[(String, Millis)]) -> usize {
    let mut placed = 0;
    let manager = SessionManager::with_clock(SessionConfig::default(), store, clock);
    for (number, views) in views.chunks(1000).enumerate() {
        let texts: Vec<String> = views
            .iter()
            .enumerate()
            .map(|(at, (visitor, time))| {
                let time = time_text(datetime(*time));
                format!(
                    r#"{{"uuid":"{number}-{at}","event":"$pageview","distinct_id":"{visitor}","timestamp":"{time}"}}"#
                )
            })
            .collect();
        let delivery = Delivery { received_at: manager.clock().now(), trusts_received_at: true };
        let events: Vec<Event<'_>> =
            texts.iter().map(|text| Event::parse(text.as_bytes(), delivery, manager.config()).unwrap()).collect();
        let outcomes = manager.resolve(&events, Millis::MAX).await;
        let is_full = |outcome: &&Outcome| matches!(outcome, Outcome::Failed(SessionError::Full));
        let is_placed = |outcome: &&Outcome| matches!(outcome, Outcome::Placed(Some(_)));
        placed += outcomes.iter().filter(is_placed).count();
        assert_eq!(outcomes.iter().filter(|outcome| !is_placed(outcome) && !is_full(outcome)).count(), 0);
    }
    // Whatever they wait for, it is over then.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    placed
}

/// As many visitors with a session each, of two hours ago.
async fn visits(store: &InMemorySessionStorage, clock: &Virtual, count: usize) {
    let views: Vec<(String, Millis)> = (0..count).map(|at| (format!("v{at}"), NOON - 2 * 3_600_000)).collect();
    assert_eq!(apply(store, clock, &views).await, count);
}

/// Views of one visitor, each a session of its own: backdated, so that all are over. Returns how many
/// its timeline has room for.
async fn many_sessions(store: &InMemorySessionStorage, clock: &Virtual, visitor: &str, count: usize) -> usize {
    let at = |number: usize| NOON - 2 * DAY - number as Millis * 4_000_000;
    let views: Vec<(String, Millis)> = (0..count).map(|number| (visitor.to_owned(), at(number))).collect();
    apply(store, clock, &views).await
}

/// The sessions that were emitted, by visitor, each with how often; one version has one content.
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

async fn is_all_closed(store: &InMemorySessionStorage) -> bool {
    for shard in 0..session_tracking::storage::DUE_SHARDS {
        if !store.due(shard, None, Millis::MAX, 1).await.unwrap().is_empty() {
            return false;
        }
    }
    true
}

/// How many timelines a second so many closers close together.
async fn rate(closers: u8, timelines: usize) -> f64 {
    let (store, clock) = (Slow::new(1), Virtual::new(1));
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
    let sendings = output.largest.lock().unwrap().1;
    println!("{closers} closers: {rate:.0} timelines a second, {sendings} sendings of the output");
    rate
}

/// Calls of 5 ms each, the output's too: one closer closes 5,000 timelines a second, and more closers so many more.
#[tokio::test(start_paused = true)]
async fn five_thousand_timelines_a_second_a_closer() {
    let one = rate(1, 10_000).await;
    assert!(one >= 5_000.0, "{one:.0} a second");
    for (closers, factor) in [(2, 1.8), (4, 3.2)] {
        let together = rate(closers, 10_000 * usize::from(closers)).await;
        assert!(together >= factor * one, "{closers} closers: {together:.0} a second, one: {one:.0}");
    }
}

/// Closers that overlap repeat work, and the end is the same.
#[tokio::test(start_paused = true)]
async fn closers_that_overlap_do_no_harm() {
    let (store, clock) = (Slow { jitter_ms: 7, ..Slow::new(2) }, Virtual::new(2));
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

/// One visitor has as many ended sessions as a dozen requests make; the others are closed as fast as without it, and it is
/// closed in this very run.
#[tokio::test(start_paused = true)]
async fn a_visitor_of_thousands_of_sessions_stops_nobody() {
    let (store, clock) = (Slow::new(3), Virtual::new(3));
    // As many as the item holds.
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
    // Bounded steps: of what is sent at once, and of what is archived at once.
    assert!(output.largest.lock().unwrap().0 <= 1_000, "{:?}", output.largest);
    assert!(store.archiving.lock().unwrap().values().all(|(_, most)| *most <= 16));
    assert!(*store.most_read.lock().unwrap() <= 8);
    let sessions = emitted(&output);
    assert_eq!((sessions.len(), sessions["many"].len()), (1_001, many));
    assert!(sessions.values().all(|sessions| sessions.values().all(|&times| times == 1)));
    assert!(is_all_closed(&store.store).await);
    let kept = store.store.archived(&Visitor::new("many"), 0, Millis::MAX >> 16).await.unwrap();
    assert_eq!(kept.len(), many);
}

/// A visitor whose writes hang, and a shard that cannot be listed for most of a minute, hold up no other.
#[tokio::test(start_paused = true)]
async fn what_hangs_holds_up_nobody() {
    let stuck = Visitor::new("v7");
    let shard = (0..).map(|at| due_shard(&Visitor::new(&format!("v{at}")))).find(|&shard| shard != due_shard(&stuck));
    let (store, clock) = (Slow { hangs: (Some(stuck.clone()), shard), ..Slow::new(4) }, Virtual::new(4));
    visits(&store.store, &clock, 2_000).await;
    let output = SlowOutput::default();
    let began = Instant::now();
    manager(&store, &clock).cleanup(&&output, Millis::MAX).await;
    let late = |line: &&(Instant, String)| line.0 - began > Duration::from_millis(600);
    let lines = output.lines.lock().unwrap();
    let is_held = |line: &str| {
        let end: Value = serde_json::from_str(line).unwrap();
        Some(due_shard(&Visitor::new(end["distinct_id"].as_str().unwrap()))) == shard
    };
    assert!(lines.iter().filter(late).all(|(_, line)| is_held(line)));
    assert_eq!(lines.len(), 2_000);
}

/// Whatever time runs are given and whatever fails meanwhile, each comes further, and in the end all is closed, each session
/// emitted with one content.
#[tokio::test(start_paused = true)]
async fn runs_of_any_length_come_to_an_end() {
    for seed in 0..24 {
        let mut random = Seeded(seed);
        let faults = [0, 0, 50, 200][random.below(4)];
        let jitter_ms = [0, 20, 300, 1_000][random.below(4)];
        let clock = Virtual::new(seed);
        let store = Slow { faults, jitter_ms, ..Slow::new(seed) };
        let mut wanted = BTreeMap::new();
        for visitor in 0..1 + random.below(3) {
            let most = [3, 60, 1_500][random.below(3)];
            let count = 1 + random.below(most);
            assert_eq!(many_sessions(&store.store, &clock, &format!("m{visitor}"), count).await, count);
            wanted.insert(format!("m{visitor}"), count);
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
            // A call takes a second at the most, and three of them one behind the other may have begun in time.
            assert!(now <= deadline + 1_500, "seed {seed}: {} ms too late", now - deadline);
            if report.has_left_work() {
                let is_known = report.oldest_due_seconds.is_some() || report.examined == 0 || report.unlisted > 0;
                assert!(is_known, "seed {seed}: {report:?}");
            }
            let is_further = report.closed > 0;
            idle = if is_further { 0 } else { idle + 1 };
            assert!(
                faults > 0 || time < DEADLINE_MARGIN_MS + 3_100 || is_further,
                "seed {seed}: {time} ms, {report:?}"
            );
            assert!(output.lines.lock().unwrap().len() >= before);
            assert!(idle < 40, "seed {seed} comes no further: {report:?}");
            runs += 1;
            assert!(runs < 2_000, "seed {seed} does not end: {report:?}");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let sessions = emitted(&output);
        for (visitor, count) in wanted {
            assert_eq!(sessions[&visitor].len(), count, "seed {seed}, {visitor}");
            let kept = store.store.archived(&Visitor::new(&visitor), 0, Millis::MAX >> 16).await.unwrap();
            let ids: BTreeSet<String> = kept.iter().map(|state| state.id.to_string()).collect();
            assert!(sessions[&visitor].keys().eq(ids.iter()), "seed {seed}, {visitor}");
        }
        assert_eq!(sessions.keys().filter(|visitor| visitor.starts_with('v')).count(), others, "seed {seed}");
    }
}
