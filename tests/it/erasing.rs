//! Erasing a visitor while others write, on the slow and failing store of [`crate::mixes`]: nothing is left of what was applied before,
//! but for what `docs/api.md` says can race; after another erasure nothing is left at all, and the visitor begins anew.

use std::collections::HashSet;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join, join_all};
use serde_json::json;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::{Millis, Reason, SessionContext, Visitor, datetime, fingerprint, rfc3339};
use session_tracking::storage::{Erased, InMemorySessionStorage, SessionError, SessionStorage};
use uuid::Uuid;

use crate::mixes::{Jittery, START, pick};
use crate::storage::COLLIDING_IDS;
use crate::support::{ManualClock, Seeded, Sink};

/// The number of seeds. `ERASE_SEEDS=20000` runs as many as asked, `ERASE_SEED=7` one.
const SEEDS: u64 = 300;

type Manager<'w> = SessionManager<&'w Jittery<'w>, &'w ManualClock>;

/// Returns a batch of new events of a visitor: the uuid and the JSON of each.
fn batch(random: &mut Seeded, visitor: &str, now: Millis, sent: &mut Vec<String>) -> Vec<(String, String)> {
    let count = 1 + random.below(4);
    let mut one = || {
        let uuid = format!("{:02}-{}", random.below(100), sent.len());
        sent.push(uuid.clone());
        let at = now - pick(random, &[0, 1_000, 30_000, 90_000, 4_000_000]);
        page_view(visitor, uuid, at)
    };
    (0..count).map(|_| one()).collect()
}

/// Returns a page view of a visitor: its uuid and its JSON.
fn page_view(visitor: &str, uuid: String, at: Millis) -> (String, String) {
    let timestamp = rfc3339(datetime(at));
    let event = json!({ "uuid": uuid, "event": "$pageview", "distinct_id": visitor, "timestamp": timestamp });
    (uuid, event.to_string())
}

/// Applies a batch; returns whether all of it is applied.
async fn deliver(manager: &Manager<'_>, batch: &[(String, String)], now: Millis) -> bool {
    let delivery = Delivery { received_at: now, trusts_received_at: false };
    let parse = |json| Event::parse(str::as_bytes(json), delivery, manager.config()).unwrap();
    let events: Vec<Event<'_>> = batch.iter().map(|(_, json)| parse(json)).collect();
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(_)))
}

/// Returns the fingerprints of all events that are stored of a visitor: in its timeline, in its archived sessions, and on its pages.
async fn stored(storage: &InMemorySessionStorage, visitor: &Visitor) -> [HashSet<u64>; 3] {
    let (mut here, mut archived, mut on_pages) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut ids: HashSet<Uuid> = HashSet::new();
    if let Some(stored) = storage.read(visitor).await.unwrap() {
        let timeline = stored.timeline;
        here.extend(timeline.unfinalized.iter().map(|entry| entry.uuid.fingerprint()));
        for state in timeline.ended.iter().chain(&timeline.open) {
            here.extend(state.fingerprints.iter().chain(&state.late.fingerprints));
            ids.insert(state.id);
        }
        here.extend(timeline.anchors.iter().flat_map(|anchor| &anchor.late.fingerprints));
    }
    for state in storage.archived(visitor, 0, (1 << 48) - 1).await.unwrap() {
        archived.extend(state.fingerprints.iter().chain(&state.late.fingerprints));
        ids.insert(state.id);
    }
    for id in ids {
        on_pages.extend(storage.pages(visitor, id).await.unwrap().iter().flat_map(|page| page.fingerprints.clone()));
    }
    [here, archived, on_pages]
}

async fn run(seed: u64) {
    let mut random = Seeded(seed ^ 0xe4a5_ed00);
    let (clock, sink) = (ManualClock::default(), Sink::default());
    clock.set(START);
    let storage = Jittery::new(&clock, seed, pick(&mut random, &[0, 20, 100]));
    let rules = || SessionConfig::from_rules(json!({"timeout_seconds": 60, "lateness_seconds": 5})).unwrap();
    // Two processes, each with a cache of its own.
    let manager = || SessionManager::with_clock(rules(), &storage, &clock).with_page_size(1);
    let managers: [Manager<'_>; 2] = [manager(), manager()];
    // Another visitor shares the partition.
    let (visitor, other) = (Visitor::new(COLLIDING_IDS[0]), Visitor::new(COLLIDING_IDS[1]));
    let mut sent = Vec::new();
    for _ in 0..random.below(20) {
        clock.set((&clock).now() + pick(&mut random, &[0, 500, 30_000, 70_000, 200_000]));
        let now = (&clock).now();
        let of = pick(&mut random, &[&visitor, &visitor, &other]);
        let batch = batch(&mut random, &of.distinct_id, now, &mut sent);
        deliver(&managers[random.below(2)], &batch, now).await;
        if random.below(3) == 0 {
            managers[0].cleanup(&&sink, Millis::MAX).await;
        }
    }
    let earlier: HashSet<u64> = sent.iter().map(|uuid| fingerprint(uuid)).collect();
    let kept = stored(&storage.inner, &other).await;
    // An erasure, and what may happen at the same time.
    let (now, is_erased) = ((&clock).now(), Mutex::new(false));
    let mut jobs: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    let (batches, closes) = (random.below(3), random.below(2));
    for _ in 0..batches {
        let (manager, batch) = (&managers[random.below(2)], batch(&mut random, &visitor.distinct_id, now, &mut sent));
        jobs.push(async move { deliver(manager, &batch, now).await }.map(|_| ()).boxed_local());
    }
    if closes > 0 {
        jobs.push(async { managers[1].cleanup(&&sink, Millis::MAX).await }.map(|_| ()).boxed_local());
    }
    let at = random.below(jobs.len() + 1);
    let erase = async { *is_erased.lock().unwrap() = managers[0].erase(&visitor, &&sink).await.is_ok() };
    jobs.insert(at, erase.boxed_local());
    join_all(jobs).await;
    storage.set_faults(0);
    if !*is_erased.lock().unwrap() {
        managers[0].erase(&visitor, &&sink).await.unwrap();
    }
    let [here, archived, on_pages] = stored(&storage.inner, &visitor).await;
    assert!(here.is_disjoint(&earlier), "the timeline has events from before");
    assert!(closes > 0 || archived.is_disjoint(&earlier), "the archive has events from before");
    assert!(batches + closes > 0 || on_pages.is_empty(), "pages are left");
    if closes == 0 {
        assert_eq!(stored(&storage.inner, &other).await, kept, "another visitor was touched");
    }
    // Two minutes later nothing is in flight.
    clock.set(now + 120_000);
    managers[0].erase(&visitor, &&sink).await.unwrap();
    assert_eq!(managers[0].erase(&visitor, &&sink).await.unwrap().0, Erased::default());
    assert!(stored(&storage.inner, &visitor).await.iter().all(HashSet::is_empty));
    // The other process has a timeline in its cache, which is never written back.
    let now = (&clock).now();
    let batch = batch(&mut random, &visitor.distinct_id, now, &mut sent);
    assert!(deliver(&managers[1], &batch, now).await);
    let sessions = managers[0].sessions_of(&visitor, None, 100).await.unwrap().sessions;
    let events: u32 = sessions.iter().map(|session| session.event_count).sum();
    let first = sessions.last().unwrap();
    assert_eq!((events as usize, first.number, first.reason), (batch.len(), 1, Reason::First), "{sessions:?}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn an_erasure_leaves_nothing_of_what_was_before() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("ERASE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("ERASE_SEEDS").unwrap_or(SEEDS),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        if std::panic::catch_unwind(run).is_err() {
            panic!("to reproduce: ERASE_SEED={seed} cargo test --test it erasing -- --nocapture");
        }
    }
}

/// A request to end a session that is erased between the request's two reads is not answered with a live session.
#[test]
fn no_live_session_is_returned_of_an_erased_visitor() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut not_found = 0;
    for seed in 0..100 {
        let (clock, sink, visitor) = (ManualClock::default(), Sink::default(), Visitor::new("u"));
        clock.set(START);
        let storage = Jittery::new(&clock, seed, 0);
        let manager = SessionManager::with_clock(SessionConfig::default(), &storage, &clock);
        let ended = runtime.block_on(async {
            let session = manager.get_or_create("u", SessionContext::default()).await.unwrap();
            let (ended, erased) = join(manager.end_session(&session.id), manager.erase(&visitor, &&sink)).await;
            erased.unwrap();
            ended
        });
        match ended {
            Ok(session) => assert!(!session.is_active, "seed {seed}: {session:?}"),
            Err(error) => not_found += usize::from(error == SessionError::NotFound),
        }
    }
    assert!(not_found > 0, "no erasure came before the end of the request");
}

/// Consumers delete what is not later than `erased_at`. So that time is not before the deletion, however long the store takes.
#[test]
fn what_was_erased_is_not_later_than_the_erasure() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut erased_events = 0;
    for seed in 0..100 {
        let (clock, sink, visitor) = (ManualClock::default(), Sink::default(), Visitor::new("u"));
        clock.set(START);
        let storage = Jittery::new(&clock, seed, 0);
        let manager = SessionManager::with_clock(SessionConfig::default(), &storage, &clock);
        let event = async {
            clock.set((&clock).now() + 1);
            let now = (&clock).now();
            assert!(deliver(&manager, &[page_view("u", "e".to_owned(), now)], now).await);
            now
        };
        let (erased, event_at) = runtime.block_on(async { join(manager.erase(&visitor, &&sink), event).await });
        let (erased, erased_at) = erased.unwrap();
        erased_events += erased.timelines;
        assert!(erased.timelines == 0 || event_at <= erased_at, "seed {seed}: {event_at} is after {erased_at}");
    }
    assert!(erased_events > 0, "no event came before a deletion");
}

/// A process whose cache still has an erased visitor puts none of the visitor's fingerprints on pages, whichever batch comes next.
#[tokio::test]
async fn a_stale_cache_brings_no_page_back() {
    for events in 12..24 {
        let (storage, clock, sink) = (InMemorySessionStorage::default(), ManualClock::default(), Sink::default());
        let rules = || SessionConfig::from_rules(json!({ "lateness_seconds": 5 })).unwrap();
        let manager = || SessionManager::with_clock(rules(), &storage, &clock).with_page_size(4);
        let (cached, other, visitor) = (manager(), manager(), Visitor::new("u"));
        let mut session = Uuid::nil();
        for number in 0..=events {
            if number == events {
                other.erase(&visitor, &&sink).await.unwrap();
            }
            let now = START + number * 10_000;
            clock.set(now);
            let json = json!({ "uuid": format!("e{number}"), "event": "x", "distinct_id": "u" }).to_string();
            let delivery = Delivery { received_at: now, trusts_received_at: false };
            let event = Event::parse(json.as_bytes(), delivery, cached.config()).unwrap();
            let outcomes = cached.resolve(&[event], Millis::MAX).await;
            let [Outcome::Placed(Some(placed))] = &outcomes[..] else { panic!("{outcomes:?}") };
            if number == 0 {
                session = placed.session_id;
            }
            assert_eq!(placed.session_id == session, number < events, "event {number}");
        }
        assert_eq!(storage.pages(&visitor, session).await.unwrap(), [], "after {events} events");
    }
}
