//! A table that is slow.

use std::time::Duration;

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    Stored,
};
use uuid::Uuid;

use super::HOUR;
use crate::cases::NOON;
use crate::support::{ManualClock, Sink};

/// A store whose writes take a second each.
#[derive(Default)]
struct Slow(InMemorySessionStorage);

#[allow(clippy::disallowed_methods, reason = "the time of the test's own calls")]
async fn second() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

impl SessionStorage for Slow {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.0.load(visitors, reading).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        second().await;
        self.0.commit(commit).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.0.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        second().await;
        self.0.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.0.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.0.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.0.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.0.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.0.erase(visitor).await
    }
}

/// An attempt that begins in time ends in time: closed sessions are archived at once, not one after the other.
#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "the time of the test's own calls")]
async fn closed_sessions_delay_a_batch_by_one_call() {
    let (clock, sink, storage) = (ManualClock::default(), Sink::default(), Slow::default());
    let mut elapsed = Vec::new();
    // With the last event there is no room for the others' sessions.
    for (number, with_events_bytes) in (0..).zip([928, 928, 928, 928, 0]) {
        let manager = SessionManager::with_clock(SessionConfig::default(), &storage, &clock)
            .with_closed_bytes(928, with_events_bytes);
        let now = NOON + number * 5 * HOUR;
        clock.set(now);
        let json = format!(r#"{{"uuid":"e{number}","event":"a","distinct_id":"ada"}}"#);
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
        let begun = tokio::time::Instant::now();
        let outcome = manager.resolve(&[event], Millis::MAX).await.pop();
        assert!(matches!(outcome, Some(Outcome::Placed(Some(_)))), "{outcome:?}");
        elapsed.push(begun.elapsed().as_secs());
        clock.set(now + HOUR);
        manager.cleanup(&&sink, Millis::MAX).await;
    }
    assert_eq!(storage.0.archived(&Visitor::new("ada"), 0, Millis::MAX >> 16).await.unwrap().len(), 4);
    assert_eq!(elapsed, [1, 1, 1, 1, 2]);
}
