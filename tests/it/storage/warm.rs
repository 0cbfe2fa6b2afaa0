//! A process that guesses what is stored never answers from its guess alone.

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
    let text = event("v", uuid, at);
    let delivery = Delivery { received_at, trusts_received_at: false };
    let event = Event::parse(text.as_bytes(), delivery, &SessionConfig::default()).unwrap();
    match manager.resolve(&[event], Millis::MAX).await.pop() {
        Some(Outcome::Placed(Some(assignment))) => assignment,
        other => panic!("{other:?}"),
    }
}

/// Whether an event is known is decided by what is stored now: while guesses are on, a duplicate costs a read and no write, and is
/// answered as of what another process wrote meanwhile.
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
    // The last four were guesses, and right: one read for nothing that was there, one that showed what a guess is worth.
    assert_eq!((consumed.read_units(), consumed.conflicts()), (1.0, 0));
    // Elsewhere an event comes that lies before all of them.
    let earlier = send(&there, "earlier", NOON - 60_000, NOON + 7_000).await;
    let (reads, writes) = (consumed.read_units(), consumed.table_write_units());
    let again = send(&here, "e5", NOON + 5_000, NOON + 8_000).await;
    assert_eq!(consumed.table_write_units(), writes, "nothing is new");
    assert!(consumed.read_units() > reads, "a guess was answered without a read");
    assert_eq!((again.session_id, again.started_at), (earlier.session_id, NOON - 60_000));
    assert_eq!((again.page_views, again.entry_url), (7, earlier.entry_url));
}

/// The same after a guess has gone wrong, and while nothing is guessed.
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
    // Wrong: it loses, and is applied to what won.
    assert_eq!(send(&here, "e7", NOON + 7_000, NOON + 7_000).await.page_views, 8);
    send(&there, "earlier", NOON - 60_000, NOON + 8_000).await;
    let again = send(&here, "e7", NOON + 7_000, NOON + 9_000).await;
    assert_eq!((again.started_at, again.page_views), (NOON - 60_000, 9));
}
