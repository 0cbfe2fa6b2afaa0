//! The manager's bounds: how often it asks the store, how long it pauses, when it stops, and what it reports of a run.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use session_tracking::clock::Clock;
use session_tracking::config::{GivenRules, Projects, SessionConfig};
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CloseReport, DEADLINE_MARGIN_MS, Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::output::{MemoryOutput, Output};
use session_tracking::session::{DeviceInfo, EventType, Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{
    Commit, CommitOutcome, DUE_SHARDS, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError,
    SessionStorage, StorageErrorKind, Stored, due_shard,
};
use uuid::Uuid;

use crate::cases::{MINUTE, NOON};

/// A store that records its operations. It can be told to return conflicts, to fail, or to be small.
#[derive(Default)]
struct ProbeStorage {
    inner: InMemorySessionStorage,
    /// How many of the next commits return a conflict.
    conflicts: AtomicUsize,
    /// The maximum number of unfinalized events in a timeline; 0 for any number.
    room: AtomicUsize,
    /// Whether `archive` fails.
    archive_fails: bool,
    /// Whether `due` fails.
    due_fails: bool,
    /// Visitors whose timelines cannot be read.
    broken: Mutex<HashSet<Visitor>>,
    /// Stale entries that `due` lists once.
    stale: Mutex<Vec<Due>>,
    /// The devices of the unfinalized events in the last commit.
    devices: Mutex<Vec<Option<Arc<DeviceInfo>>>>,
    /// The `expires_at` of each commit.
    commits: Mutex<Vec<Millis>>,
    /// The number of commits in flight, and its maximum.
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    /// The `expires_at` of each archived session.
    archived_until: Mutex<Vec<Millis>>,
    /// The number of visitors in each `load`.
    loads: Mutex<Vec<usize>>,
    /// The limit of each `due`.
    dues: Mutex<Vec<usize>>,
}

impl SessionStorage for ProbeStorage {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.loads.lock().unwrap().push(visitors.len());
        let broken = self.broken.lock().unwrap().clone();
        let corrupt = || Err(SessionError::Corrupt { item: "x".to_owned(), reason: "broken".to_owned() });
        let mut loaded = self.inner.load(visitors, reading).await;
        for (_, stored) in visitors.iter().zip(&mut loaded).filter(|(visitor, _)| broken.contains(visitor)) {
            *stored = corrupt();
        }
        loaded
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.commits.lock().unwrap().push(commit.expires_at);
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let devices = commit.timeline.unfinalized.iter().map(|entry| entry.context.device.clone());
        *self.devices.lock().unwrap() = devices.collect();
        let room = self.room.load(Ordering::Relaxed);
        if room > 0 && commit.timeline.unfinalized.len() > room {
            return Err(SessionError::Full);
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.conflicts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Ok(CommitOutcome::Conflict(self.inner.read(&commit.timeline.visitor).await?.map(Box::new)));
        }
        self.inner.commit(commit).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.dues.lock().unwrap().push(limit);
        if self.due_fails {
            return Err(SessionError::storage(StorageErrorKind::Other, "refused"));
        }
        let is_here = |due: &mut Due| due_shard(&due.visitor) == shard;
        let mut due: Vec<Due> = self.stale.lock().unwrap().extract_if(.., is_here).collect();
        due.extend(self.inner.due(shard, after, now, limit).await?);
        Ok(due)
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        if self.archive_fails {
            return Err(SessionError::storage(StorageErrorKind::Other, "refused"));
        }
        self.archived_until.lock().unwrap().push(expires_at);
        self.inner.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.inner.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.inner.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.inner.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.inner.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.inner.erase(visitor).await
    }
}

/// A clock that records how long callers sleep. Its random numbers are almost the same.
struct RecordingClock {
    now: AtomicI64,
    /// By how much each reading advances the clock.
    tick: Millis,
    random: u64,
    etag: AtomicI64,
    /// The pauses, in milliseconds.
    slept: Mutex<Vec<u64>>,
}

impl RecordingClock {
    fn at(now: Millis) -> Self {
        Self { now: now.into(), tick: 0, random: u64::MAX / 3, etag: 0.into(), slept: Mutex::default() }
    }
}

impl Clock for &RecordingClock {
    fn now(&self) -> Millis {
        self.now.fetch_add(self.tick, Ordering::Relaxed)
    }

    async fn sleep(&self, time: Duration) {
        self.slept.lock().unwrap().push(time.as_millis() as u64);
    }

    fn random(&self) -> u64 {
        // Etags must differ; the increment is too small to change a pause.
        self.random + 5_000_000_000 * self.etag.fetch_add(1, Ordering::Relaxed) as u64
    }
}

type Manager<'a> = SessionManager<&'a ProbeStorage, &'a RecordingClock>;

fn manager<'a>(store: &'a ProbeStorage, clock: &'a RecordingClock) -> Manager<'a> {
    SessionManager::with_clock(SessionConfig::default(), store, clock)
}

/// Returns a manager that archives each session when it is closed.
fn archiving_manager<'a>(store: &'a ProbeStorage, clock: &'a RecordingClock) -> Manager<'a> {
    manager(store, clock).with_closed_bytes(0, 0)
}

/// After a conflict the closer closes the item of the other writer: by the rules of its project, under which the visits below are
/// two sessions. By the service's, they are one.
#[tokio::test]
async fn a_conflict_of_the_closer_is_resolved_by_the_rules_of_the_project() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let projects = r#"{"short": {"rules": {"timeout_seconds": 60}}}"#;
    let projects = Projects::from_json(&GivenRules::default(), projects).unwrap();
    let manager = SessionManager::with_clock(projects, &store, &clock);
    let json = [(0, "a"), (2, "b")].map(|(minute, uuid)| {
        let timestamp = rfc3339(datetime(NOON + minute * MINUTE));
        format!(r#"{{"uuid":"{uuid}","event":"x","distinct_id":"u","project":"short","timestamp":"{timestamp}"}}"#)
    });
    let delivery = Delivery { received_at: NOON + 2 * MINUTE, trusts_received_at: false };
    let parse = |json: &'static str| Event::parse(json.as_bytes(), delivery, manager.projects()).unwrap();
    let events = json.map(|json| parse(json.leak()));
    clock.now.store(NOON + 2 * MINUTE, Ordering::Relaxed);
    manager.resolve(&events, Millis::MAX).await;
    let output = MemoryOutput::default();
    clock.now.store(NOON + 30 * MINUTE, Ordering::Relaxed);
    store.conflicts.store(1, Ordering::Relaxed);
    assert_eq!(manager.cleanup(&output, Millis::MAX).await.closed, 2);
    let emitted = output.take();
    assert!(emitted.len() == 2 && emitted.iter().all(|line| line.contains(r#""event":"$session_end""#)), "{emitted:?}");
    let visitor = Visitor { project: "short".to_owned(), distinct_id: "u".to_owned() };
    let left = store.inner.read(&visitor).await.unwrap().unwrap().timeline;
    assert!(left.ended.is_empty() && left.open.is_none() && left.corrections.is_empty(), "{left:?}");
    assert_eq!((left.due_at, left.archived, left.closed.len()), (None, 0, 2), "both stay, as closed ones");
}

/// Applies page views at noon, each given as visitor and event number.
async fn resolve(manager: &Manager<'_>, events: &[(String, usize)], deadline: Millis) -> Vec<Outcome> {
    let timestamp = rfc3339(datetime(NOON));
    let json = |(visitor, number): &(String, usize)| {
        format!(
            r#"{{"uuid":"e{number}","event":"$pageview","distinct_id":"{visitor}","timestamp":"{timestamp}","properties":{{"$os":"Linux"}}}}"#
        )
    };
    let events: Vec<String> = events.iter().map(json).collect();
    let delivery = Delivery { received_at: NOON, trusts_received_at: false };
    let parse = |json: &'static str| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
    let events: Vec<Event<'_>> = events.into_iter().map(|json| parse(json.leak())).collect();
    manager.resolve(&events, deadline).await
}

/// Returns `count` page views of one visitor.
fn of_one(count: usize) -> Vec<(String, usize)> {
    (0..count).map(|number| ("u1".to_owned(), number)).collect()
}

/// Returns the error of each outcome.
fn errors(outcomes: &[Outcome]) -> Vec<Option<&SessionError>> {
    let error = |outcome| match outcome {
        &Outcome::Placed(_) => None,
        Outcome::Failed(error) => Some(error),
    };
    outcomes.iter().map(error).collect()
}

#[tokio::test]
async fn items_are_kept_as_long_as_they_can_be_asked_for() {
    for (days, retention) in [(30, None), (7, Some(TimeDelta::days(7)))] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        let manager = archiving_manager(&store, &clock);
        let manager = match retention {
            None => manager,
            Some(retention) => manager.with_retention(retention),
        };
        resolve(&manager, &of_one(1), Millis::MAX).await;
        let later = NOON + 40 * MINUTE;
        clock.now.store(later, Ordering::Relaxed);
        manager.cleanup(&MemoryOutput::default(), Millis::MAX).await;
        let day = 1440 * MINUTE;
        assert_eq!(*store.commits.lock().unwrap(), [NOON, later].map(|now| now + (days + 1) * day));
        assert_eq!(*store.archived_until.lock().unwrap(), [later + days * day]);
    }
}

#[tokio::test]
async fn conflicts_are_retried_after_a_pause_and_not_for_ever() {
    for (conflicts, is_placed) in [(15, true), (16, false)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        store.conflicts.store(conflicts, Ordering::Relaxed);
        let outcomes = resolve(&manager(&store, &clock), &of_one(1), Millis::MAX).await;
        assert_eq!(errors(&outcomes), [(!is_placed).then_some(&SessionError::Contention)]);
        assert_eq!(store.commits.lock().unwrap().len(), 16);
        // After the first conflict there is no pause, and none after the last attempt. Each pause is followed by a read.
        let max_ms = [50, 100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000];
        let slept = clock.slept.lock().unwrap().clone();
        assert_eq!((slept.len(), store.loads.lock().unwrap().len()), (14, 15));
        assert!(slept.iter().zip(max_ms).all(|(slept, max_ms)| *slept <= max_ms), "{slept:?}");
        // A pause can be 0 ms long, but there is always one.
        let (store, clock) = (ProbeStorage::default(), RecordingClock { random: 0, ..RecordingClock::at(NOON) });
        store.conflicts.store(2, Ordering::Relaxed);
        resolve(&manager(&store, &clock), &of_one(1), Millis::MAX).await;
        assert_eq!(clock.slept.lock().unwrap().len(), 1);
    }
    // Over many random numbers, every pause from 0 to the longest occurs.
    for (conflicts, max_ms) in [(2, 50), (3, 100), (7, 1_600), (8, 2_000), (11, 2_000)] {
        let mut seen = std::collections::BTreeSet::new();
        for random in 0..=max_ms {
            let (store, clock) = (ProbeStorage::default(), RecordingClock { random, ..RecordingClock::at(NOON) });
            store.conflicts.store(conflicts, Ordering::Relaxed);
            resolve(&manager(&store, &clock), &of_one(1), Millis::MAX).await;
            seen.insert(clock.slept.lock().unwrap()[conflicts - 2]);
        }
        assert!(seen.iter().copied().eq(0..=max_ms), "{conflicts}: {seen:?}");
    }
}

#[tokio::test]
async fn ending_a_session_is_retried_after_conflicts_too() {
    for (conflicts, is_ended) in [(15, true), (16, false)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        let manager = manager(&store, &clock);
        resolve(&manager, &of_one(1), Millis::MAX).await;
        let id = manager.get_by_user(&Visitor::new("u1")).await.unwrap().id;
        store.conflicts.store(conflicts, Ordering::Relaxed);
        let ended = manager.end_session(&id).await.map(|session| session.is_active);
        assert_eq!(ended, if is_ended { Ok(false) } else { Err(SessionError::Contention) });
        assert_eq!(clock.slept.lock().unwrap().len(), 15, "none after the last attempt");
    }
}

/// A pause that would end too late for another attempt is not made.
#[tokio::test]
async fn nothing_waits_for_the_end_of_the_time() {
    for (left, pauses, error) in [
        (DEADLINE_MARGIN_MS + 2_000, 14, Some(&SessionError::Contention)),
        (DEADLINE_MARGIN_MS, 0, Some(&SessionError::Deadline)),
    ] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        store.conflicts.store(16, Ordering::Relaxed);
        let outcomes = resolve(&manager(&store, &clock), &of_one(1), NOON + left).await;
        assert_eq!((errors(&outcomes), clock.slept.lock().unwrap().len()), (vec![error], pauses));
        assert_eq!(store.loads.lock().unwrap().len(), 1 + pauses);
    }
}

#[tokio::test]
async fn nothing_begins_when_the_time_is_up() {
    for (left, is_placed) in [(DEADLINE_MARGIN_MS, true), (DEADLINE_MARGIN_MS - 1, false)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        let outcomes = resolve(&manager(&store, &clock), &of_one(2), NOON + left).await;
        assert_eq!(errors(&outcomes), [(!is_placed).then_some(&SessionError::Deadline); 2]);
        assert_eq!(store.loads.lock().unwrap().len(), usize::from(is_placed));
    }
    // The deadline is checked again before each write. The first reading of the clock is for the cache.
    let (store, clock) = (ProbeStorage::default(), RecordingClock { tick: 1, ..RecordingClock::at(NOON) });
    let outcomes = resolve(&manager(&store, &clock), &of_one(1), NOON + 1 + DEADLINE_MARGIN_MS).await;
    assert_eq!(errors(&outcomes), [Some(&SessionError::Deadline)]);
    assert_eq!((store.loads.lock().unwrap().len(), store.commits.lock().unwrap().len()), (1, 0));
}

#[tokio::test]
async fn a_full_timeline_takes_as_many_events_as_it_can() {
    for (room, count, placed) in [(3, 8, 2), (3, 3, 3), (1, 3, 1), (8, 8, 8)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        store.room.store(room, Ordering::Relaxed);
        let outcomes = resolve(&manager(&store, &clock), &of_one(count), Millis::MAX).await;
        let expected: Vec<_> = (0..count).map(|at| (at >= placed).then_some(&SessionError::Full)).collect();
        assert_eq!(errors(&outcomes), expected, "{count} events, room for {room}");
        let stored = store.inner.read(&Visitor::new("u1")).await.unwrap().unwrap();
        assert_eq!(stored.timeline.unfinalized.len(), placed);
        assert_eq!(clock.slept.lock().unwrap().len(), 0);
        // The events that were placed are stored, and are known when they are sent again.
        let duplicates = resolve(&manager(&store, &clock), &of_one(placed), Millis::MAX).await;
        assert_eq!(errors(&duplicates), vec![None; placed]);
        // A single event that does not fit is tried once.
        let loads = store.loads.lock().unwrap().len();
        store.room.store(placed, Ordering::Relaxed);
        let one_more = resolve(&manager(&store, &clock), &[("u1".to_owned(), 99)], Millis::MAX).await;
        assert_eq!(errors(&one_more), [Some(&SessionError::Full)]);
        assert_eq!(store.loads.lock().unwrap().len(), loads + 1);
    }
}

#[tokio::test]
async fn visitors_are_loaded_in_chunks_and_answered_in_order() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let events: Vec<(String, usize)> = (0..201).map(|n| (format!("u{}", n / 2), n)).collect();
    let outcomes = resolve(&manager(&store, &clock), &events, Millis::MAX).await;
    assert_eq!(*store.loads.lock().unwrap(), [25, 25, 25, 25, 1]);
    assert_eq!(store.commits.lock().unwrap().len(), 101);
    assert_eq!(store.max_in_flight.load(Ordering::Relaxed), 50, "two chunks at once");
    for ((visitor, _), outcome) in events.iter().zip(&outcomes) {
        let Outcome::Placed(Some(assignment)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(assignment.session_id.as_u64_pair().1, Visitor::new(visitor).bits());
    }
}

#[tokio::test]
async fn events_of_a_visitor_share_their_device() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    resolve(&manager(&store, &clock), &of_one(3), Millis::MAX).await;
    let devices: Vec<_> = store.devices.lock().unwrap().iter().flatten().cloned().collect();
    assert_eq!(devices.len(), 3);
    assert!(devices.iter().all(|device| Arc::ptr_eq(device, &devices[0])));
}

#[tokio::test]
async fn speculative_writes_need_no_read_until_another_process_writes() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let manager = manager(&store, &clock);
    let events = of_one(20);
    let mut sent = events.iter();
    let mut send = async || {
        let before = store.loads.lock().unwrap().len();
        let event = sent.next().unwrap().clone();
        assert_eq!(errors(&resolve(&manager, &[event], Millis::MAX).await), [None]);
        store.loads.lock().unwrap().len() - before
    };
    // The first read finds nothing. The second one shows that a speculative write would have succeeded. From then on no reads.
    assert_eq!([send().await, send().await, send().await, send().await], [1, 1, 0, 0]);
    // A stale speculative write costs a conflict, but no pause and no read. The timeline is not kept, and 10 are taken from the cache's
    // score of 3. So the next batch is read, and eight more until the score is positive again.
    store.conflicts.store(1, Ordering::Relaxed);
    assert_eq!((send().await, store.commits.lock().unwrap().len()), (0, 6));
    for _ in 0..9 {
        assert_eq!(send().await, 1);
    }
    assert_eq!([send().await, send().await], [0, 0]);
    assert_eq!(clock.slept.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_library_call_may_take_as_long_as_ten_storage_calls() {
    // Each attempt reads the clock twice: for the deadline, and for the time until which the item is kept.
    for (tick, is_recorded) in [(3 * DEADLINE_MARGIN_MS, true), (3 * DEADLINE_MARGIN_MS + 1, false)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock { tick, ..RecordingClock::at(NOON) });
        let manager = manager(&store, &clock);
        resolve(&manager, &of_one(1), Millis::MAX).await;
        let id = manager.get_by_user(&Visitor::new("u1")).await.unwrap().id;
        store.conflicts.store(1, Ordering::Relaxed);
        let recorded = manager.update(&id, EventType::Event).await.map(|session| session.event_count);
        assert_eq!(recorded, if is_recorded { Ok(2) } else { Err(SessionError::Deadline) });
        assert_eq!(store.commits.lock().unwrap().len(), if is_recorded { 3 } else { 2 });
    }
}

/// Returns the ids of `count` visitors of one shard.
fn visitors_of_one_shard(count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("n{number}"));
    names.filter(|name| due_shard(&Visitor::new(name)) == 3).take(count).collect()
}

/// An output that takes no line.
struct FailingOutput;

impl Output for FailingOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        (0..lines.len()).collect()
    }
}

#[tokio::test]
async fn a_run_closes_a_full_shard_and_reports_what_it_did() {
    let visitors = visitors_of_one_shard(65);
    let events: Vec<(String, usize)> = visitors.into_iter().zip(0..).collect();
    let later = NOON + 36 * MINUTE + 1;

    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let service = archiving_manager(&store, &clock);
    resolve(&service, &events, Millis::MAX).await;
    clock.now.store(later, Ordering::Relaxed);
    let output = MemoryOutput::default();
    let report = service.cleanup(&output, Millis::MAX).await;
    assert_eq!((report.examined, report.closed, report.rescheduled), (65, 65, 0));
    assert_eq!((report.corrections, report.conflicts, report.failed, report.is_incomplete), (0, 0, 0, false));
    assert_eq!(output.take().len(), 65);
    // A page that is not full is the last one, so each shard is listed once.
    assert_eq!(*store.dues.lock().unwrap(), [100; DUE_SHARDS as usize]);
    assert_eq!(store.archived_until.lock().unwrap().len(), 65);

    // If the output or the archive fails, each timeline is tried once in a run, and the run goes on.
    for (output_fails, archive_fails) in [(true, false), (false, true)] {
        let (store, clock) = (ProbeStorage { archive_fails, ..ProbeStorage::default() }, RecordingClock::at(NOON));
        let service = archiving_manager(&store, &clock);
        resolve(&service, &events, Millis::MAX).await;
        clock.now.store(later, Ordering::Relaxed);
        let report = match output_fails {
            true => service.cleanup(&FailingOutput, Millis::MAX).await,
            false => service.cleanup(&MemoryOutput::default(), Millis::MAX).await,
        };
        assert_eq!((report.examined, report.failed, report.closed), (65, 65, 0), "{report:?}");
        assert_eq!((report.is_failure(), report.oldest_due_seconds), (true, Some(60)), "{report:?}");
        assert_eq!(store.dues.lock().unwrap().len(), usize::from(DUE_SHARDS));
    }

    // A shard that cannot be listed is tried once in a run.
    let store = ProbeStorage { due_fails: true, ..ProbeStorage::default() };
    let report = manager(&store, &clock).cleanup(&MemoryOutput::default(), Millis::MAX).await;
    assert_eq!((report.examined, report.unlisted, report.is_incomplete), (0, usize::from(DUE_SHARDS), false));
    assert!(report.is_failure() && report.has_left_work());
    assert_eq!(store.dues.lock().unwrap().len(), usize::from(DUE_SHARDS));

    // A run whose deadline is too close does not begin.
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let service = archiving_manager(&store, &clock);
    resolve(&service, &events, Millis::MAX).await;
    clock.now.store(later, Ordering::Relaxed);
    let report = service.cleanup(&MemoryOutput::default(), later + DEADLINE_MARGIN_MS - 1).await;
    assert!(report.is_incomplete && report.examined == 0 && report.has_left_work(), "{report:?}");

    // After a conflict the closer takes the archived sessions out of the timeline that won, without emitting them again. After
    // three conflicts it leaves them to the next run.
    store.conflicts.store(2, Ordering::Relaxed);
    let output = MemoryOutput::default();
    let report = service.cleanup(&output, later + DEADLINE_MARGIN_MS).await;
    assert_eq!(
        (report.examined, report.conflicts, report.closed, report.is_incomplete),
        (65, 0, 65, false),
        "{report:?}"
    );
    assert_eq!(output.take().len(), 65);
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let service = archiving_manager(&store, &clock);
    resolve(&service, &events[..1], Millis::MAX).await;
    clock.now.store(later, Ordering::Relaxed);
    store.conflicts.store(3, Ordering::Relaxed);
    let report = service.cleanup(&output, Millis::MAX).await;
    assert_eq!((report.conflicts, report.closed, report.oldest_due_seconds), (1, 0, Some(60)), "{report:?}");
    assert_eq!(service.cleanup(&output, Millis::MAX).await.closed, 1);
}

#[tokio::test]
async fn a_run_counts_unreadable_timelines_and_skips_stale_index_entries() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let service = manager(&store, &clock);
    let visitors: Vec<Visitor> = visitors_of_one_shard(4).iter().map(|name| Visitor::new(name)).collect();
    let events: Vec<(String, usize)> = visitors_of_one_shard(4).into_iter().zip(0..).collect();
    resolve(&service, &events, Millis::MAX).await;
    store.broken.lock().unwrap().extend(visitors[..2].iter().cloned());
    // A stale entry whose session is not over yet; below, one whose timeline has nothing left to close.
    let list_stale = |visitor: &Visitor| store.stale.lock().unwrap().push(Due { visitor: visitor.clone(), due_at: 0 });
    list_stale(&visitors[3]);
    clock.now.store(NOON + 20 * MINUTE, Ordering::Relaxed);
    let report = service.cleanup(&MemoryOutput::default(), Millis::MAX).await;
    assert_eq!(report, CloseReport { examined: 1, ..CloseReport::default() });
    clock.now.store(NOON + 36 * MINUTE + 1, Ordering::Relaxed);
    let report = service.cleanup(&MemoryOutput::default(), Millis::MAX).await;
    assert_eq!((report.examined, report.closed, report.failed, report.corrupt), (4, 2, 2, 2), "{report:?}");
    assert!(!report.is_failure() && report.oldest_due_seconds == Some(60), "{report:?}");
    let commits = store.commits.lock().unwrap().len();
    list_stale(&visitors[3]);
    let report = service.cleanup(&MemoryOutput::default(), Millis::MAX).await;
    assert_eq!((report.examined, report.closed, report.failed), (3, 0, 2), "{report:?}");
    assert_eq!(store.commits.lock().unwrap().len(), commits);
}

/// Nothing is read or written for an id that stands for nobody. The other visitors of the batch are not affected.
#[tokio::test]
async fn ids_that_stand_for_nobody_cost_nothing() {
    let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
    let manager = manager(&store, &clock);
    let nobody = |count: usize| (0..count).map(|number| ("undefined".to_owned(), number));
    let outcomes = resolve(&manager, &nobody(1_000).collect::<Vec<_>>(), Millis::MAX).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(None))), "{outcomes:?}");
    assert_eq!((store.loads.lock().unwrap().len(), store.commits.lock().unwrap().len()), (0, 0));
    let mixed: Vec<_> = nobody(3).chain(of_one(2)).chain(nobody(2)).collect();
    let outcomes = resolve(&manager, &mixed, Millis::MAX).await;
    let placed: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Placed(Some(_)))).collect();
    assert_eq!(placed, [false, false, false, true, true, false, false]);
    assert_eq!((store.loads.lock().unwrap().as_slice(), store.commits.lock().unwrap().len()), ([1].as_slice(), 1));
}

/// A real visitor with that many events costs what any visitor costs: one write a batch, and one read for each of the first two
/// batches, until the process may write speculatively, and for each write that moves fingerprints to a page.
#[tokio::test]
async fn a_thousand_events_of_one_visitor_cost_a_write_a_batch_and_hardly_a_read() {
    for (batch, reads, writes) in [(1_000, 1, 1), (100, 3, 10), (10, 5, 100)] {
        let (store, clock) = (ProbeStorage::default(), RecordingClock::at(NOON));
        let manager = manager(&store, &clock);
        for events in of_one(1_000).chunks(batch) {
            let outcomes = resolve(&manager, events, Millis::MAX).await;
            assert!(errors(&outcomes).iter().all(Option::is_none), "{outcomes:?}");
        }
        let calls = (store.loads.lock().unwrap().len(), store.commits.lock().unwrap().len());
        assert_eq!(calls, (reads, writes), "{batch} events a batch");
    }
}
