//! Random mixes of what the simulation leaves out: library calls beside events, two sets of rules during a deployment, several of
//! them at once, on a store whose calls take time and fail before or after they take effect.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use serde_json::{Value, json};
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, Kind, SessionState};
use session_tracking::session::{EventType, Millis, Session, SessionContext, UtmParams, Visitor, datetime, rfc3339};
use session_tracking::storage::{
    Commit, CommitOutcome, DUE_SHARDS, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError,
    SessionStorage, StorageErrorKind, Stored,
};
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::storage::COLLIDING_IDS;
use crate::support::{ManualClock, Seeded, Sink};

const DAY: Millis = 86_400_000;
/// The night of a clock change in Berlin: 2026-03-29, midnight.
pub const START: Millis = 1_774_738_800_000;
/// The number of seeds that `cargo test` runs. `MIX_SEEDS=20000` runs as many as asked, `MIX_SEED=7` one.
const SEEDS: u64 = 600;

type Manager<'w> = SessionManager<&'w Jittery<'w>, &'w ManualClock>;

/// A store whose calls take turns and time, and fail at random.
pub struct Jittery<'c> {
    clock: &'c ManualClock,
    pub inner: InMemorySessionStorage,
    random: Mutex<Seeded>,
    /// How many of a thousand calls fail before they take effect, and as many after it.
    faults: Mutex<usize>,
}

impl<'c> Jittery<'c> {
    /// Returns an empty store, of whose calls `faults` in a thousand fail before they take effect, and as many after it.
    pub fn new(clock: &'c ManualClock, seed: u64, faults: usize) -> Self {
        let (random, faults) = (Mutex::new(Seeded(seed)), Mutex::new(faults));
        Self { clock, inner: InMemorySessionStorage::new(), random, faults }
    }

    pub fn set_faults(&self, faults: usize) {
        *self.faults.lock().unwrap() = faults;
    }

    async fn call<T>(&self, operation: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
        self.turns().await;
        self.fail()?;
        let result = operation.await;
        self.fail()?;
        self.turns().await;
        result
    }

    fn below(&self, limit: usize) -> usize {
        self.random.lock().unwrap().below(limit)
    }

    async fn turns(&self) {
        for _ in 0..self.below(4) {
            let passed = if self.below(30) == 0 { 20_000 } else { [0, 0, 1, 5][self.below(4)] };
            self.clock.set(self.clock.now() + passed);
            tokio::task::yield_now().await;
        }
    }

    fn fail(&self) -> Result<(), SessionError> {
        let fails = self.below(1000) < *self.faults.lock().unwrap();
        if fails { Err(SessionError::storage(StorageErrorKind::Throttled, "throttled")) } else { Ok(()) }
    }
}

impl SessionStorage for Jittery<'_> {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        let loaded = self.call(async { Ok(self.inner.load(visitors, reading).await) }).await;
        loaded.unwrap_or_else(|error| visitors.iter().map(|_| Err(error.clone())).collect())
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.call(self.inner.commit(commit)).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.inner.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.call(self.inner.archive(visitor, session, expires_at)).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.call(self.inner.archived(visitor, from, to)).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.call(self.inner.put_pages(visitor, pages, expires_at)).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.call(self.inner.pages(visitor, session_id)).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.call(self.inner.find(session_id)).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.call(self.inner.erase(visitor)).await
    }
}

/// The number of fingerprints on a page. Sessions are short here, so pages are, too. Sessions without pages can stay in their
/// timeline.
const PAGE_SIZES: [usize; 2] = [1, 64];

/// The maximum sizes of timelines with closed sessions: at rest, and with events.
const CLOSED_BYTES: [(usize, usize); 4] = [(512, 928), (400, 300), (2_000, 2_000), (0, 0)];

#[derive(Debug, Clone)]
pub struct SentEvent {
    pub uuid: String,
    visitor: &'static str,
    name: &'static str,
    pub at: Millis,
    utm: Option<&'static str>,
    referrer: Option<&'static str>,
}

impl SentEvent {
    pub fn json(&self) -> String {
        let url = format!("https://shop.test/{}", self.uuid);
        let mut properties = json!({ "$current_url": url, "value": self.tenths() as f64 / 10.0 });
        let named = [("utm_source", self.utm), ("$referrer", self.referrer)];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            properties[name] = value.into();
        }
        let (uuid, name, visitor, at) = (&self.uuid, self.name, self.visitor, rfc3339(datetime(self.at)));
        json!({ "uuid": uuid, "event": name, "distinct_id": visitor, "timestamp": at, "properties": properties })
            .to_string()
    }

    /// Returns ten times the value that the event brings.
    fn tenths(&self) -> u64 {
        self.at as u64 % 17 + self.uuid.bytes().map(u64::from).sum::<u64>() % 5
    }

    fn is_counted(&self) -> bool {
        !["$pageleave", "passive"].contains(&self.name)
    }
}

pub fn pick<T: Clone>(random: &mut Seeded, of: &[T]) -> T {
    of[random.below(of.len())].clone()
}

/// Returns random rules. Two sets of rules of a world have one maximum duration: see `docs/limits.md`.
pub fn rules(random: &mut Seeded, lateness: i64, max_duration: i64) -> SessionConfig {
    SessionConfig::from_rules(json!({
        "timeout_seconds": pick(random, &[1, 10, 60, 1800]),
        "max_duration_seconds": max_duration,
        "lateness_seconds": lateness,
        "boundary": pick(random, &["inclusive", "exclusive"]),
        "direct_then_source": pick(random, &["continue", "split", "upgrade"]),
        "first_campaign": pick(random, &["continue", "split"]),
        "passive_events": ["passive"],
        "counted_events": ["click:value", "$pageview"],
        "max_events": pick(random, &[None, None, None, Some(1), Some(2), Some(3)]),
        "midnight": pick(random, &[None, None, Some("Europe/Berlin")]),
    }))
    .unwrap()
}

/// What a world keeps of its answers.
#[derive(Default)]
struct Answers {
    /// Annotated events.
    lines: Vec<String>,
    applied: HashSet<String>,
    /// The ids that were given out.
    ids: Vec<String>,
    /// The number of library calls that recorded an event, and of those that failed and may have recorded one.
    recorded: u64,
    maybe_recorded: u64,
}

/// Keeps the answer to a library call. Returns whether it succeeded.
fn keep(answers: &Mutex<Answers>, answer: Result<Session, SessionError>) -> bool {
    match answer {
        Ok(session) => answers.lock().unwrap().ids.push(session.id),
        Err(SessionError::NotFound) => panic!("an id that was given out is not found"),
        Err(SessionError::Corrupt { reason, .. }) => panic!("{reason}"),
        Err(_) => return false,
    }
    true
}

async fn deliver(manager: &Manager<'_>, batch: &[SentEvent], received_at: Millis, answers: &Mutex<Answers>) {
    let json: Vec<String> = batch.iter().map(SentEvent::json).collect();
    let delivery = Delivery { received_at, trusts_received_at: false };
    let parse = |json| Event::parse(str::as_bytes(json), delivery, manager.config()).unwrap();
    let events: Vec<Event<'_>> = json.iter().map(|json| parse(json)).collect();
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    let mut answers = answers.lock().unwrap();
    for (event, outcome) in events.iter().zip(outcomes) {
        match outcome {
            Outcome::Placed(assignment) => {
                answers.applied.insert(event.uuid.to_string());
                answers.ids.extend(assignment.as_ref().map(|assignment| assignment.session_id.to_string()));
                answers.lines.push(event.annotate(assignment.as_ref()));
            }
            Outcome::Failed(SessionError::Corrupt { reason, .. }) => panic!("{reason}"),
            Outcome::Failed(_) => {}
        }
    }
}

async fn run(seed: u64) {
    let mut random = Seeded(seed ^ 0xa77a_c4ed);
    let (clock, sink, answers) = (ManualClock::default(), Sink::default(), Mutex::<Answers>::default());
    clock.set(START);
    let storage = Jittery::new(&clock, seed, pick(&mut random, &[0, 20, 100]));
    let (lateness, max_duration) = (pick(&mut random, &[0, 5, 300, 3600]), pick(&mut random, &[60, 1800, 86_400]));
    let has_calls = random.below(2) == 0;
    let (page_size, sizes) = (PAGE_SIZES[seed as usize % 2], seed as usize / 2);
    let managers: Vec<Manager<'_>> = (0..1 + random.below(2))
        .map(|number| {
            let rules = rules(&mut random, lateness, max_duration);
            let (at_rest, with_events) = CLOSED_BYTES[(sizes + number) % CLOSED_BYTES.len()];
            SessionManager::with_clock(rules, &storage, &clock)
                .with_page_size(page_size)
                .with_closed_bytes(at_rest, with_events)
        })
        .collect();
    let timeout = managers[0].config().timeout.num_milliseconds();
    let visitors: &[&'static str] = if random.below(3) == 0 { &COLLIDING_IDS } else { &["v"] };
    let mut sent: Vec<SentEvent> = Vec::new();
    for _ in 0..3 + random.below(25) {
        let waits = [0, 1, 500, timeout / 3, timeout, timeout + 1, 3 * timeout, 90_000, 400_000, 4_000_000];
        let now = (&clock).now() + pick(&mut random, &waits);
        clock.set(now);
        let mut jobs: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
        for _ in 0..1 + random.below(3) {
            let (manager, answers) = (&managers[random.below(managers.len())], &answers);
            let visitor = Visitor::new(pick(&mut random, visitors));
            let ids = answers.lock().unwrap().ids.clone();
            let id = (!ids.is_empty()).then(|| pick(&mut random, &ids));
            match (random.below(if has_calls { 10 } else { 6 }), id) {
                (0..4, _) => {
                    let batch: Vec<SentEvent> = (0..1 + random.below(4))
                        .map(|_| event(&mut random, &mut sent, now, timeout, visitors))
                        .collect();
                    jobs.push(async move { deliver(manager, &batch, now, answers).await }.boxed_local());
                }
                (4 | 5, _) => {
                    let deadline = pick(&mut random, &[Millis::MAX, now + 3_000, now + 6_000]);
                    let sink = &sink;
                    let close = async move { manager.cleanup(&sink, deadline).await }.map(|_| ());
                    jobs.push(close.boxed_local());
                }
                (6, _) => {
                    let source = random.below(3) == 0;
                    let utm = source.then(|| UtmParams { source: Some("ads".to_owned()), ..UtmParams::default() });
                    let context = SessionContext { utm: utm.map(Arc::new), ..SessionContext::default() };
                    let call = async move { keep(answers, manager.get_or_create(&visitor, context).await) };
                    jobs.push(call.map(|_| ()).boxed_local());
                }
                (7, Some(id)) => jobs.push(
                    async move {
                        let is_done = keep(answers, manager.update(&id, EventType::Event).await);
                        let mut answers = answers.lock().unwrap();
                        *(if is_done { &mut answers.recorded } else { &mut answers.maybe_recorded }) += 1;
                    }
                    .boxed_local(),
                ),
                (_, Some(id)) => jobs.push(
                    async move {
                        let ended = manager.end_session(&id).await;
                        assert!(ended.as_ref().map_or(true, |session| !session.is_active), "{ended:?}");
                        keep(answers, ended);
                    }
                    .boxed_local(),
                ),
                (_, None) => {}
            }
        }
        join_all(jobs).await;
        for visitor in visitors {
            // It can be read back.
            storage.inner.read(&Visitor::new(visitor)).await.unwrap();
        }
    }
    storage.set_faults(0);
    finish(&managers[0], &clock, &sink, &sent, &answers).await;
    for visitor in visitors {
        let Some(stored) = storage.inner.read(&Visitor::new(visitor)).await.unwrap() else { continue };
        let timeline = stored.timeline;
        let is_closed = timeline.ended.is_empty() && timeline.corrections.is_empty() && timeline.open.is_none();
        let is_empty = timeline.unfinalized.iter().all(|entry| entry.kind == Kind::KeepAlive);
        assert!(is_closed && is_empty && timeline.due_at.is_none(), "not closed: {timeline:#?}");
    }
    check(&sent, &sink, &answers.into_inner().unwrap(), has_calls);
}

/// Draws an event, or one that was sent before.
pub fn event(
    random: &mut Seeded,
    sent: &mut Vec<SentEvent>,
    now: Millis,
    timeout: Millis,
    visitors: &[&'static str],
) -> SentEvent {
    if !sent.is_empty() && random.below(5) == 0 {
        return pick(random, sent);
    }
    let near = if !sent.is_empty() && random.below(2) == 0 { pick(random, sent).at } else { now };
    let offset = pick(random, &[0, 1, timeout / 2, timeout, timeout + 1, 2 * timeout + 1]);
    let event = SentEvent {
        uuid: format!("{:02}-{}", random.below(100), sent.len()),
        visitor: pick(random, visitors),
        name: pick(random, &["$pageview", "$pageview", "click", "$pageleave", "passive"]),
        at: (if random.below(4) == 0 { near + offset } else { near - offset }).min(now + 3_600_000),
        utm: pick(random, &[None, None, None, Some("ads"), Some("mail")]),
        referrer: pick(random, &[None, None, None, Some("https://a.test/")]),
    };
    sent.push(event.clone());
    event
}

/// Sends again what was not applied, closes everything, and looks up every id that was given out.
async fn finish(manager: &Manager<'_>, clock: &ManualClock, sink: &Sink, sent: &[SentEvent], answers: &Mutex<Answers>) {
    let applied = answers.lock().unwrap().applied.clone();
    let open: Vec<SentEvent> = sent.iter().filter(|event| !applied.contains(&event.uuid)).cloned().collect();
    deliver(manager, &open, clock.now(), answers).await;
    assert_eq!(answers.lock().unwrap().applied.len(), sent.len());
    for _ in 0..6 {
        clock.set(clock.now() + 4 * DAY);
        let report = manager.cleanup(&sink, Millis::MAX).await;
        assert_eq!((report.failed, report.unlisted), (0, 0), "{report:?}");
    }
    for shard in 0..DUE_SHARDS {
        assert_eq!(manager.storage().due(shard, None, Millis::MAX, 10).await, Ok(Vec::new()));
    }
    let ids = answers.lock().unwrap().ids.clone();
    for id in ids {
        let found = manager.get(&id).await;
        let is_found = found.as_ref().map_or_else(|error| *error == SessionError::Ambiguous, |found| !found.is_active);
        assert!(is_found, "{id} was given out: {found:?}");
    }
}

/// Checks that every event was counted once, and that a consumer has the events that the service counted.
fn check(sent: &[SentEvent], sink: &Sink, answers: &Answers, has_calls: bool) {
    let is_counted: HashMap<&str, bool> = sent.iter().map(|event| (event.uuid.as_str(), event.is_counted())).collect();
    // Two sets of rules can give one version of a session two reasons or sources, if a run of the closer emitted it under one of
    // them, died, and the next run has the other ones. The last one is archived.
    let mut lines: HashMap<(String, u64), Value> = HashMap::new();
    for line in answers.lines.iter().chain(&*sink.0.lock().unwrap()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let uuid = line["uuid"].as_str().unwrap().to_owned();
        if is_counted.get(uuid.as_str()) != Some(&false) {
            let version = line["properties"]["$session_version"].as_u64().unwrap();
            lines.insert((uuid, version), line);
        }
    }
    let lines: Vec<Value> = lines.into_values().collect();
    let consumer = Consumer::read(&lines);
    let counted = is_counted.values().filter(|is_counted| **is_counted).count();
    assert_eq!(consumer.events.len(), counted);
    if !has_calls {
        for session in consumer.sessions() {
            assert_eq!(session.event_count, session.events.len() as u64, "{session:#?}");
        }
    }
    if !has_calls {
        check_counts(sent, &consumer);
    }
    let total: u64 = consumer.ends.values().map(|end| end["$session"]["event_count"].as_u64().unwrap()).sum();
    let least = counted as u64 + answers.recorded;
    assert!((least..=least + answers.maybe_recorded).contains(&total), "{total} counted, {least} sent");
}

/// Checks that each session counts the named events that a consumer has in it, late ones included.
fn check_counts(sent: &[SentEvent], consumer: &Consumer) {
    let by_uuid: HashMap<&str, &SentEvent> = sent.iter().map(|event| (event.uuid.as_str(), event)).collect();
    let mut wanted: HashMap<(&str, &str, &str), (u64, u64)> = HashMap::new();
    for (uuid, copy) in &consumer.events {
        let event = by_uuid[uuid.as_str()];
        let sum = wanted.entry((event.visitor, copy.session(), event.name)).or_default();
        *sum = (sum.0 + 1, sum.1 + event.tenths());
    }
    for ((visitor, id), end) in &consumer.ends {
        for name in ["click", "$pageview"] {
            let total = &end["$session"]["counts"][name];
            let (count, tenths) = wanted.remove(&(visitor.as_str(), id.as_str(), name)).unwrap_or_default();
            assert_eq!(total["count"].as_u64().unwrap_or(0), count, "{name}: {end}");
            assert_eq!(end["$session_counts"][name], *total);
            let sum = total["sum"].as_f64().map(|sum| (sum * 10.0).round() as u64);
            assert_eq!(sum, (name == "click" && count > 0).then_some(tenths), "{name}: {end}");
        }
    }
    assert!(wanted.is_empty(), "{wanted:?}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn mixes_of_events_calls_and_rules_count_once() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("MIX_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("MIX_SEEDS").unwrap_or(SEEDS),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        if std::panic::catch_unwind(run).is_err() {
            panic!("to reproduce: MIX_SEED={seed} cargo test --test it mixes -- --nocapture");
        }
    }
}
