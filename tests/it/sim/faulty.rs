//! The storage, the outputs and the clocks of a simulated world. They behave as the real ones, but any step can fail.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use session_tracking::clock::Clock;
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::output::Output;
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, Found, Partition, Reading, SessionError, SessionStorage, StorageErrorKind,
    Stored, due_shard,
};
use uuid::Uuid;

use super::deletion::Deletion;
use super::engine::{Engine, Fault};
use super::store::Store;

/// How long after an erasure an eventually consistent read can return the deleted timeline.
pub const STALE_MS: Millis = 1_000;

/// A store that throttles, loses answers, reads old items and commits twice.
pub struct FaultyStorage<'e> {
    pub engine: &'e Engine,
    pub inner: Store,
    /// The earlier states of each timeline. Eventually consistent reads may return one of them.
    history: Mutex<HashMap<Visitor, Vec<Option<Stored>>>>,
    /// The visitors of commits that took effect since the last check.
    pub committed: Mutex<Vec<Visitor>>,
    /// The earlier states that cannot be read any more after a time, because an erasure deleted them: how many, and that time.
    stale: Mutex<HashMap<Visitor, (usize, Millis)>>,
    /// The sessions of which a visitor ever had pages.
    pub(super) paged: Mutex<HashMap<Visitor, BTreeSet<Uuid>>>,
    /// The number of erasures that began.
    pub(super) erasures: Mutex<usize>,
    /// The steps of erasures that took effect since the last check.
    pub deletions: Mutex<Vec<Deletion>>,
}

impl<'e> FaultyStorage<'e> {
    pub fn new(engine: &'e Engine, inner: Store) -> Self {
        Self {
            engine,
            inner,
            history: Mutex::default(),
            committed: Mutex::default(),
            stale: Mutex::default(),
            paged: Mutex::default(),
            erasures: Mutex::default(),
            deletions: Mutex::default(),
        }
    }

    /// Makes the earlier states of a timeline, and the one that is deleted now, unreadable after [`STALE_MS`].
    pub(super) fn make_stale(&self, visitor: &Visitor, deleted: Option<Stored>) {
        let mut history = self.history.lock().unwrap();
        let Some(states) = history.get_mut(visitor) else { return };
        states.extend(deleted.map(Some));
        let until = self.engine.state().now + STALE_MS;
        self.stale.lock().unwrap().insert(visitor.clone(), (states.len(), until));
    }

    /// Returns an earlier state of a timeline, if there is one.
    fn old_state(&self, visitor: &Visitor) -> Option<Option<Stored>> {
        let mut history = self.history.lock().unwrap();
        let states = history.get_mut(visitor)?;
        let mut stale = self.stale.lock().unwrap();
        if let Some(&(count, until)) = stale.get(visitor)
            && until < self.engine.state().now
        {
            states.drain(..count);
            stale.remove(visitor);
        }
        if states.is_empty() { None } else { Some(states[self.engine.below(states.len())].clone()) }
    }

    pub(super) async fn faulty<T>(
        &self,
        operation: impl AsyncFnOnce() -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        self.engine.step(0).await;
        let fault = self.engine.fault();
        if fault == Fault::Before {
            return Err(SessionError::storage(StorageErrorKind::Throttled, "throttled"));
        }
        let result = operation().await;
        if fault == Fault::After {
            // The caller waits until its timeout.
            self.engine.step(1_000).await;
            return Err(SessionError::storage(StorageErrorKind::TimedOut, "timed out"));
        }
        result
    }
}

impl SessionStorage for FaultyStorage<'_> {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.engine.step(0).await;
        if self.engine.fault() != Fault::None {
            return visitors
                .iter()
                .map(|_| Err(SessionError::storage(StorageErrorKind::Throttled, "throttled")))
                .collect();
        }
        let mut loaded = self.inner.load(visitors, reading).await;
        for (visitor, stored) in visitors.iter().zip(&mut loaded) {
            if self.engine.fault() != Fault::None {
                *stored = Err(SessionError::storage(StorageErrorKind::Throttled, "left unread"));
            } else if reading == Reading::Eventual
                && self.engine.below(4) == 0
                && let Some(old) = self.old_state(visitor)
            {
                *stored = Ok(old);
            }
        }
        loaded
    }

    async fn load_within(&self, visitors: &[Visitor], _max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        let loaded = self.load(visitors, Reading::Strong).await;
        // Any timeline can be taken for a large one, which the closer has to read by itself.
        let is_large = |_: &Stored| self.engine.below(4) == 0;
        let found = |stored: Stored| if is_large(&stored) { Found::TooLarge } else { Found::Timeline(stored) };
        loaded.into_iter().map(|stored| Ok(stored?.map(found))).collect()
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        let visitor = &commit.timeline.visitor;
        let mut committed = Ok(CommitOutcome::Done);
        let took_effect = |was: Option<Stored>| {
            self.history.lock().unwrap().entry(visitor.clone()).or_default().push(was);
            self.committed.lock().unwrap().push(visitor.clone());
        };
        let result = self
            .faulty(async || {
                let was = self.inner.read(visitor).await?;
                committed = self.inner.commit(commit).await;
                if committed == Ok(CommitOutcome::Done) {
                    took_effect(was);
                }
                committed.clone()
            })
            .await;
        // As the SDK does, a failed attempt is retried. It may find its own write.
        if result.is_err() && self.engine.below(2) == 0 && !matches!(result, Err(SessionError::Full)) {
            self.engine.step(25).await;
            let was = self.inner.read(visitor).await?;
            let retried = self.inner.commit(commit).await;
            if retried == Ok(CommitOutcome::Done) && was.as_ref().map(|was| was.etag) != Some(commit.etag) {
                took_effect(was);
            }
            return retried;
        }
        result
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        // Skips shards without a visitor of this world. Listing all shards would take most of the time of a run.
        if !self.history.lock().unwrap().keys().any(|visitor| due_shard(visitor) == shard) {
            return Ok(Vec::new());
        }
        self.faulty(async || self.inner.due(shard, after, now, limit).await).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.faulty(async || self.inner.archive(visitor, session, expires_at).await).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.faulty(async || self.inner.archived(visitor, from, to).await).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        for page in pages {
            self.paged.lock().unwrap().entry(visitor.clone()).or_default().insert(page.session_id);
            let is_same = |other: &FingerprintPage| (other.is_late, other.number) == (page.is_late, page.number);
            let stored = self.inner.pages(visitor, page.session_id).await?.into_iter().find(is_same);
            assert!(
                stored.as_ref().is_none_or(|stored| stored == page),
                "a page has two contents: {stored:?}, {page:?}"
            );
        }
        self.faulty(async || self.inner.put_pages(visitor, pages, expires_at).await).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.faulty(async || self.inner.pages(visitor, session_id).await).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.faulty(async || self.inner.find(session_id).await).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.erase_in_steps(visitor).await
    }
}

/// A queue that takes only some lines, or takes lines and reports that it did not.
pub struct FaultyOutput<'e> {
    pub engine: &'e Engine,
    pub lines: Mutex<Vec<String>>,
}

impl<'e> FaultyOutput<'e> {
    pub fn new(engine: &'e Engine) -> Self {
        Self { engine, lines: Mutex::default() }
    }
}

impl Output for FaultyOutput<'_> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        if lines.is_empty() {
            return Vec::new();
        }
        self.engine.step(0).await;
        let mut failed = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let fault = self.engine.fault();
            if fault != Fault::Before {
                self.lines.lock().unwrap().push(line.clone());
            }
            if fault != Fault::None {
                failed.push(index);
            }
        }
        self.engine.step(0).await;
        failed
    }
}

/// A worker's clock. It differs from the true time by `skew` milliseconds.
pub struct SkewedClock<'e> {
    pub engine: &'e Engine,
    pub skew: Mutex<Millis>,
}

impl Clock for &SkewedClock<'_> {
    fn now(&self) -> Millis {
        self.engine.state().now + *self.skew.lock().unwrap()
    }

    async fn sleep(&self, time: Duration) {
        self.engine.step(time.as_millis() as Millis).await;
    }

    fn random(&self) -> u64 {
        let high = self.engine.below(usize::MAX >> 1) as u64;
        high.rotate_left(32) ^ self.engine.below(usize::MAX >> 1) as u64
    }
}
