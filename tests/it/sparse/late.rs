//! Late sessions: which session is then the visitor's latest, and what they know of archived sessions.

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Reason, Session, datetime, rfc3339};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::timeline::Assignment;

use super::{DAY, HOUR, Service};
use crate::cases::{MINUTE, NOON};
use crate::support::ManualClock;

/// A service that archives every closed session at once, or one that keeps them all in the timeline.
struct Kept<'s> {
    manager: SessionManager<&'s InMemorySessionStorage, &'s ManualClock>,
    clock: &'s ManualClock,
}

impl<'s> Kept<'s> {
    fn new(storage: &'s InMemorySessionStorage, clock: &'s ManualClock, is_archived: bool) -> Self {
        let bytes = if is_archived { 0 } else { 10_000 };
        let manager = SessionManager::with_clock(SessionConfig::default(), storage, clock);
        Self { manager: manager.with_closed_bytes(bytes, bytes), clock }
    }

    /// Applies an event of `ada`. Returns the id of its session.
    async fn send(&self, name: &str, at: Millis, received_at: Millis, campaign: &str) -> Option<String> {
        self.place(name, at, received_at, campaign).await.map(|assignment| assignment.session_id.to_string())
    }

    async fn place(&self, name: &str, at: Millis, received_at: Millis, campaign: &str) -> Option<Assignment> {
        self.clock.set(received_at);
        let timestamp = rfc3339(datetime(at));
        let json = format!(
            r#"{{"uuid":"{at}-{name}","event":"{name}","distinct_id":"ada","timestamp":"{timestamp}","properties":{{{campaign}}}}}"#
        );
        let delivery = Delivery { received_at, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, self.manager.config()).unwrap();
        match self.manager.resolve(&[event], Millis::MAX).await.remove(0) {
            Outcome::Placed(assignment) => assignment,
            failed => panic!("{failed:?}"),
        }
    }

    async fn close(&self, now: Millis) {
        self.clock.set(now);
        let report = self.manager.cleanup(&MemoryOutput::default(), Millis::MAX).await;
        assert_eq!((report.failed, report.left()), (0, 0), "{report:?}");
    }

    async fn latest(&self) -> Session {
        self.manager.get_by_user("ada").await.unwrap()
    }
}

/// The visitor's last session can be archived while an older one is closed.
#[tokio::test]
async fn the_latest_session_is_found_in_the_archive() {
    let clock = ManualClock::default();
    let service = Service::new(&clock);
    service.send(&["ada"], NOON).await;
    service.close(NOON + HOUR).await;
    for number in 0..70 {
        service.send(&["ada"], NOON + 2 * HOUR + number * 10_000).await;
    }
    let id = service.manager.get_by_user("ada").await.unwrap().id;
    service.close(NOON + 5 * HOUR).await;
    // The long visit has pages, so it is archived. A late event reopens the first one, which then is the last to be closed.
    let late = service.send(&["ada"], NOON + MINUTE).await.remove(0);
    assert_ne!(late.session_id.to_string(), id);
    service.close(NOON + 6 * HOUR).await;
    let timeline = service.timeline("ada").await;
    assert_eq!((timeline.closed.len(), service.archived("ada").await.contains(&id)), (1, true));
    assert_eq!(service.manager.get_by_user("ada").await.unwrap().id, id);
}

/// A late event begins the last session, while a keep-alive event outside of any session is not finalized.
#[tokio::test]
async fn a_late_session_is_the_latest_beside_a_keep_alive_event() {
    for is_archived in [true, false] {
        let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
        let service = Kept::new(&storage, &clock, is_archived);
        service.send("$pageview", NOON, NOON, "").await;
        // The watermark moves behind this one.
        assert_eq!(service.send("$pageleave", NOON + HOUR, NOON + HOUR, "").await, None);
        service.close(NOON + HOUR + 10 * MINUTE).await;
        assert_eq!(service.send("$pageleave", NOON + 2 * HOUR, NOON + 2 * HOUR, "").await, None);
        let late = service.send("$pageview", NOON + 45 * MINUTE, NOON + 2 * HOUR + MINUTE, "").await.unwrap();
        assert_eq!(service.latest().await.id, late, "waits for the close function");
        service.close(NOON + 2 * HOUR + 10 * MINUTE).await;
        let latest = service.latest().await;
        assert_eq!((&latest.id, latest.number), (&late, 2), "archived: {is_archived}");
        // So the next session follows it.
        let next = service.send("$pageview", NOON + 3 * HOUR, NOON + 3 * HOUR, "").await.unwrap();
        let latest = service.latest().await;
        assert_eq!((latest.id, latest.number, latest.previous_session_id), (next, 3, Some(late)));
    }
}

/// A late event of another campaign makes a session within the live one. The live one stays the latest.
#[tokio::test]
async fn a_late_session_within_the_live_one_is_not_the_latest() {
    for is_archived in [true, false] {
        let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
        let service = Kept::new(&storage, &clock, is_archived);
        let mut live = None;
        for minute in 0..30 {
            let at = NOON + minute * MINUTE;
            live = service.send("$pageview", at, at, r#""utm_source":"news""#).await;
        }
        let (live, now) = (live.unwrap(), NOON + 30 * MINUTE);
        let late = service.send("$pageview", NOON + 5 * MINUTE + 1, now, r#""utm_source":"ads""#).await.unwrap();
        assert_ne!(late, live);
        let latest = service.latest().await;
        assert_eq!((&latest.id, latest.is_active), (&live, true));
        for closed_at in [now + 10 * MINUTE, now + 2 * HOUR] {
            service.close(closed_at).await;
            assert_eq!(service.latest().await.id, live, "archived: {is_archived}");
        }
    }
}

/// The limit of `docs/limits.md`: two maximum durations and a timeout away, 48.5 hours, a late event does not look for archived sessions.
#[tokio::test]
async fn a_late_session_far_from_archived_ones_is_a_first_session() {
    let reach = 2 * DAY + 30 * MINUTE;
    for (distance, is_archived, number, reason) in [
        (reach, true, 2, Reason::Timeout),
        (reach + 1, true, 1, Reason::First),
        // A closed session in the timeline is known, however far it is.
        (reach + 1, false, 2, Reason::Timeout),
    ] {
        let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
        let service = Kept::new(&storage, &clock, is_archived);
        for day in [0, 10] {
            service.send("$pageview", NOON + day * DAY, NOON + day * DAY, "").await;
            service.close(NOON + day * DAY + HOUR).await;
        }
        let late = service.place("$pageview", NOON + distance, NOON + 10 * DAY + 2 * HOUR, "").await.unwrap();
        assert_eq!((late.is_late, late.number, late.reason), (true, number, reason), "{distance}");
        assert_eq!(late.previous.is_some(), number == 2);
    }
}
