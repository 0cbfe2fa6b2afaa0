//! A process with a warm cache never answers from its cache alone.

use std::sync::Arc;

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::storage::{Consumed, SessionStorage};
use session_tracking::timeline::Assignment;

use super::{NOON, embedded, event};
use crate::support::ManualClock;
use session_tracking::session::Millis;

async fn send<S: SessionStorage>(
    manager: &SessionManager<S, &ManualClock>,
    uuid: &str,
    at: Millis,
    received_at: Millis,
) -> Assignment {
    manager.clock().set(received_at);
    let json = event("v", uuid, at);
    let delivery = Delivery { received_at, trusts_received_at: false };
    let event = Event::parse(json.as_bytes(), delivery, &SessionConfig::default()).unwrap();
    match manager.resolve(&[event], Millis::MAX).await.pop() {
        Some(Outcome::Placed(Some(assignment))) => assignment,
        other => panic!("{other:?}"),
    }
}

/// The stored timeline decides whether an event is known. While the process writes speculatively, a duplicate costs a read and no
/// write, and its answer includes what another process has written in between.
#[tokio::test]
async fn a_duplicate_is_answered_from_what_is_stored() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let (here, there) = (manager(), manager());
    for second in 0..6 {
        send(&here, &format!("e{second}"), NOON + second * 1000, NOON + second * 1000).await;
    }
    // The last four were speculative writes that succeeded. The first read found nothing, the second showed that the cache was
    // right.
    assert_eq!((consumed.read_units(), consumed.conflicts()), (1.0, 0));
    // Another process receives an event that lies before all of them.
    let earlier = send(&there, "earlier", NOON - 60_000, NOON + 7_000).await;
    let (reads, writes) = (consumed.read_units(), consumed.table_write_units());
    let duplicate = send(&here, "e5", NOON + 5_000, NOON + 8_000).await;
    assert_eq!(consumed.table_write_units(), writes, "nothing is new");
    assert!(consumed.read_units() > reads, "a duplicate was answered from the cache");
    assert_eq!((duplicate.session_id, duplicate.started_at), (earlier.session_id, NOON - 60_000));
    assert_eq!((duplicate.page_views, duplicate.entry_url), (7, earlier.entry_url));
}

/// The same after a speculative write got a conflict, while the process does not write speculatively.
#[tokio::test]
async fn a_duplicate_is_answered_from_what_is_stored_after_a_stale_cache() {
    let store = embedded();
    let clock = ManualClock::default();
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let (here, there) = (manager(), manager());
    for second in 0..6 {
        send(&here, &format!("e{second}"), NOON + second * 1000, NOON + second * 1000).await;
    }
    send(&there, "other", NOON + 6_500, NOON + 6_500).await;
    // The cache is stale: the write gets a conflict, and the event is applied to the item that won.
    assert_eq!(send(&here, "e7", NOON + 7_000, NOON + 7_000).await.page_views, 8);
    send(&there, "earlier", NOON - 60_000, NOON + 8_000).await;
    let duplicate = send(&here, "e7", NOON + 7_000, NOON + 9_000).await;
    assert_eq!((duplicate.started_at, duplicate.page_views), (NOON - 60_000, 9));
}
