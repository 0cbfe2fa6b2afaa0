//! Query 11 of the Nexmark benchmark: the bids of each bidder, in sessions with a gap of ten seconds. The rules have to find
//! the sessions that a plain loop finds, and as many as other programs do. `benches/peers` compares all sessions with DuckDB's
//! and Flink's.

use std::collections::BTreeMap;

use serde_json::json;
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::model::{Entry, Kind};
use session_tracking::rules::fold;
use session_tracking::session::{EventId, Millis, SessionContext};
use session_tracking::storage::InMemorySessionStorage;

use crate::nexmark_bids::{bids, event};
use crate::support::{ManualClock, Pump, Sink, millis};

const GAP_MS: Millis = 10_000;

/// A session: its bidder, its first and its last bid, and the number of bids.
type Found = (String, Millis, Millis, u32);

/// Returns the rules of query 11: a timeout, and no rule about traffic sources.
fn rules(boundary: &str) -> SessionConfig {
    SessionConfig::from_rules(json!({
        "timeout_seconds": GAP_MS / 1000, "boundary": boundary,
        "new_session_on_utm_change": false, "new_session_on_referrer_change": false,
    }))
    .unwrap()
}

/// Returns the times of each bidder's bids, in order.
fn times(events: usize) -> BTreeMap<String, Vec<Millis>> {
    let mut times: BTreeMap<String, Vec<Millis>> = BTreeMap::new();
    for bid in bids(events) {
        times.entry(bid.bidder.to_string()).or_default().push(bid.date_time as Millis);
    }
    times
}

/// Finds the sessions with a plain loop.
fn by_loop(times: &BTreeMap<String, Vec<Millis>>, ends: impl Fn(Millis) -> bool) -> Vec<Found> {
    let mut sessions: Vec<Found> = Vec::new();
    for (bidder, times) in times {
        for &at in times {
            match sessions.last_mut() {
                Some((last, _, end, bids)) if last == bidder && !ends(at - *end) => (*end, *bids) = (at, *bids + 1),
                _ => sessions.push((bidder.clone(), at, at, 1)),
            }
        }
    }
    sessions
}

/// Finds the sessions with the rules.
fn by_rules(times: &BTreeMap<String, Vec<Millis>>, config: &SessionConfig) -> Vec<Found> {
    let entry = |(number, &at): (usize, &Millis)| Entry {
        at,
        uuid: EventId::new(&number.to_string()),
        kind: Kind::Event,
        context: SessionContext::default(),
        click: None,
        properties: Vec::new(),
    };
    let mut sessions = Vec::new();
    for (bidder, times) in times {
        let entries: Vec<Entry> = times.iter().enumerate().map(entry).collect();
        let views = fold(None, None, &entries, config);
        let found = views.iter().map(|view| &view.facts);
        sessions.extend(found.map(|facts| (bidder.clone(), facts.started_at, facts.last_activity, facts.event_count)));
    }
    sessions
}

#[test]
fn query_11_has_the_known_number_of_sessions() {
    let times = times(250_000);
    assert_eq!((times.len(), times.values().map(Vec::len).sum()), (4_917, 230_000));
    let inclusive = by_rules(&times, &rules("inclusive"));
    assert!(inclusive == by_loop(&times, |gap| gap > GAP_MS), "the sessions are not those of the loop");
    assert_eq!(inclusive.len(), 43_102);
    let exclusive = by_rules(&times, &rules("exclusive"));
    assert!(exclusive == by_loop(&times, |gap| gap >= GAP_MS), "the sessions are not those of the loop");
    assert_eq!(exclusive.len(), 43_114);
}

/// The same for a small part of the events, through the manager and the close function.
#[tokio::test]
async fn query_11_has_the_same_sessions_in_batches() {
    let times = times(10_000);
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let manager = SessionManager::with_clock(rules("inclusive"), InMemorySessionStorage::default(), &clock);
    let mut pump = Pump::new(manager, &clock, &sink);
    let events: Vec<String> = bids(10_000).enumerate().map(|(number, bid)| event(number, &bid)).collect();
    for batch in events.chunks(100) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        pump.apply_and_close(&batch).await;
    }
    let sessions = pump.finish().await.into_iter();
    let found: Vec<Found> = sessions
        .map(|one| (one.distinct_id, millis(&one.started_at), millis(&one.last_activity), one.event_count as u32))
        .collect();
    assert_eq!(found, by_loop(&times, |gap| gap > GAP_MS));
}
