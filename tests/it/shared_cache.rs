//! Several invocations at once in one process, which share its cache of timelines, beside as many processes. What they count is in
//! virtual time on a store whose calls take 5 to 15 ms, so it does not depend on the machine. `docs/performance.md` has the table.

use std::collections::HashMap;
use std::sync::Mutex;

use futures_util::future::join_all;
use serde_json::json;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Counted, Outcome, SessionManager};
use session_tracking::session::{Millis, datetime, rfc3339};

use crate::cases::NOON;
use crate::closing::{SlowStorage, VirtualClock};
use crate::support::Seeded;

/// The batches of a run.
const BATCHES: usize = 300;
/// The events of a batch, each of another visitor.
const BATCH: usize = 16;
/// The visitors. Each is in one batch of eight, so that there are many conflicts.
const VISITORS: usize = 128;
/// The event time from one batch to the next. A visitor sends an event every 16 seconds, on average.
const STEP_MS: Millis = 2_000;

type Manager<'m> = SessionManager<&'m SlowStorage, &'m VirtualClock>;

/// Returns the visitors of each batch.
fn batches() -> Vec<Vec<usize>> {
    let mut random = Seeded(7);
    let mut batch = || {
        let mut visitors: Vec<usize> = Vec::new();
        while visitors.len() < BATCH {
            let visitor = random.below(VISITORS);
            if !visitors.contains(&visitor) {
                visitors.push(visitor);
            }
        }
        visitors
    };
    (0..BATCHES).map(|_| batch()).collect()
}

/// Applies a batch. All of its events must be placed.
async fn apply(manager: &Manager<'_>, number: usize, visitors: &[usize]) {
    let at = NOON + number as Millis * STEP_MS;
    let json = |visitor: &usize| {
        let event = json!({
            "uuid": format!("{number}-{visitor}"), "event": "$pageview", "distinct_id": format!("v{visitor}"),
            "timestamp": rfc3339(datetime(at)),
        });
        event.to_string()
    };
    let lines: Vec<String> = visitors.iter().map(json).collect();
    let delivery = Delivery { received_at: at, trusts_received_at: false };
    let events: Vec<Event<'_>> =
        lines.iter().map(|line| Event::parse(line.as_bytes(), delivery, manager.config()).unwrap()).collect();
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(Some(_)))), "{outcomes:?}");
}

/// Runs all batches in as many processes, with as many invocations at once in each. Returns what all of them counted.
async fn run(processes: usize, invocations: usize) -> Counted {
    let (mut storage, clock) = (SlowStorage::new(3), VirtualClock::new(5));
    storage.jitter_ms = 10;
    let rules = SessionConfig::from_rules(json!({ "lateness_seconds": 60 })).unwrap();
    let managers: Vec<Manager<'_>> =
        (0..processes).map(|_| SessionManager::with_clock(rules.clone(), &storage, &clock)).collect();
    let batches = batches();
    let next = Mutex::new(batches.iter().enumerate());
    let invoke = async |manager: &Manager<'_>| {
        loop {
            let Some((number, visitors)) = next.lock().unwrap().next() else { break };
            apply(manager, number, visitors).await;
        }
    };
    join_all((0..processes * invocations).map(|slot| invoke(&managers[slot % processes]))).await;

    // Each event is counted once, in its visitor's only session.
    let mut expected: HashMap<usize, u32> = HashMap::new();
    batches.iter().flatten().for_each(|&visitor| *expected.entry(visitor).or_default() += 1);
    for (visitor, events) in expected {
        let session = managers[0].get_by_user(format!("v{visitor}").as_str()).await.unwrap();
        assert_eq!(session.event_count, events, "v{visitor}");
    }
    let counted = managers.iter().map(SessionManager::take_counted);
    counted.fold(Counted::default(), |sum, counted| Counted {
        conflicts: sum.conflicts + counted.conflicts,
        speculative_right: sum.speculative_right + counted.speculative_right,
        speculative_wrong: sum.speculative_wrong + counted.speculative_wrong,
        ..sum
    })
}

#[tokio::test(start_paused = true)]
async fn invocations_that_share_a_cache_conflict_no_more_than_processes() {
    let writes = (BATCHES * BATCH) as f64;
    let performance = include_str!("../../docs/performance.md");
    let mut conflicts = HashMap::new();
    let mut missing = Vec::new();
    for (processes, invocations) in [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (8, 1), (16, 1), (24, 1)] {
        let counted = run(processes, invocations).await;
        let percent = |count: u64| format!("{:.1} %", 100.0 * count as f64 / writes);
        let [right, wrong, lost] =
            [counted.speculative_right, counted.speculative_wrong, counted.conflicts].map(percent);
        let row = format!("| {processes} | {invocations} | {right} | {wrong} | {lost} |");
        println!("{row}");
        if !performance.contains(&row) {
            missing.push(row);
        }
        conflicts.insert((processes, invocations), counted.conflicts);
        if (processes, invocations) == (1, 1) {
            let hits = counted.speculative_right as f64 / writes;
            assert!(counted.conflicts == 0 && hits > 0.9, "alone: {counted:?}");
        }
    }
    assert!(conflicts[&(1, 8)] <= conflicts[&(8, 1)] && conflicts[&(1, 16)] <= conflicts[&(16, 1)], "{conflicts:?}");
    assert!(missing.is_empty(), "not in docs/performance.md: {missing:#?}");
}
