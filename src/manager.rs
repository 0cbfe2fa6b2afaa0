//! The session manager: decides purely what becomes of a visitor's timeline, then acts in one place.
//!
//! However many events of a visitor a batch holds, they cost one conditional write; a batch that brings nothing new costs
//! none. A lost race is applied again to the item that came back with it.

mod close;
mod single;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::event::Event;
use crate::rules::Tally;
use crate::session::{Millis, Visitor};
use crate::storage::{Commit, Committed, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::timeline::{Arrival, Assignment, Timeline};
pub use close::{CLOSE_GRACE_MS, CloseReport};

/// Conditional writes under way at once, over all visitors of a batch.
const PARALLEL_WRITES: usize = 32;
/// Loads under way at once, of up to [`MAX_LOAD`] timelines each.
const PARALLEL_LOADS: usize = 8;
/// Attempts to write one timeline. Each lost race means that another writer won it: with ten writers on one visitor
/// the unluckiest needs ten.
const MAX_ATTEMPTS: u32 = 16;
/// The pause before the second attempt, doubled with each further one up to [`MAX_PAUSE_MS`], and jittered down to nothing.
const PAUSE_MS: u64 = 5;
const MAX_PAUSE_MS: u64 = 200;
/// No attempt begins with less time left than this, in milliseconds: a storage call may take as long.
pub const DEADLINE_MARGIN_MS: Millis = 3_000;
/// How long a timeline outlives the archived sessions it answers for, in milliseconds: a day.
const TIMELINE_MARGIN_MS: Millis = 86_400_000;

/// What became of an event.
#[derive(Debug)]
pub enum Outcome {
    /// It is applied, now or before; none where it belongs to no session.
    Placed(Option<Assignment>),
    /// It is not known to be applied: its source has to send it again.
    Failed(SessionError),
}

/// Resolves events to sessions, finds sessions, ends them, closes those that went stale.
#[derive(Debug)]
pub struct SessionManager<S, C> {
    config: SessionConfig,
    storage: S,
    clock: C,
    retention: Millis,
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// A manager that keeps archived sessions for 30 days.
    pub fn new(config: SessionConfig, storage: S, clock: C) -> Self {
        Self { config, storage, clock, retention: 30 * 86_400_000 }
    }

    /// Keeps archived sessions for this long.
    #[must_use]
    pub fn with_retention(self, retention: chrono::TimeDelta) -> Self {
        Self { retention: retention.num_milliseconds(), ..self }
    }

    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    pub fn clock(&self) -> &C {
        &self.clock
    }

    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Applies a batch of events and says what became of each, in order. Nothing begins less than
    /// [`DEADLINE_MARGIN_MS`] before `deadline`: what is not done by then has failed, what is done stands.
    pub async fn resolve(&self, events: &[Event<'_>], deadline: Millis) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = events.iter().map(|_| Outcome::Placed(None)).collect();
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of: HashMap<Visitor, usize> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let Some(arrival) = event.arrival(&self.config) else { continue };
            let visitor = event.visitor();
            let group = *group_of.entry(visitor).or_insert_with_key(|visitor| {
                groups.push(Group { visitor: visitor.clone(), arrivals: Vec::new(), indexes: Vec::new() });
                groups.len() - 1
            });
            groups[group].arrivals.push(arrival);
            groups[group].indexes.push(index);
        }
        // Futures are collected before they run: a lazy map of references would not be `Send`.
        let loads: Vec<_> = groups.chunks(MAX_LOAD).map(|groups| self.load(groups, deadline)).collect();
        let loaded: Vec<_> = stream::iter(loads).buffered(PARALLEL_LOADS).collect().await;
        let work = groups.iter().zip(loaded.into_iter().flatten());
        let writes: Vec<_> = work.map(|(group, stored)| self.settle(group, stored, deadline)).collect();
        let mut done = stream::iter(writes).buffer_unordered(PARALLEL_WRITES);
        while let Some((group, resolved)) = done.next().await {
            let mut assignments = resolved.assignments.into_iter();
            for &index in &group.indexes {
                outcomes[index] = match (assignments.next(), &resolved.rest) {
                    (Some(assignment), _) => Outcome::Placed(assignment),
                    (None, Some(error)) => Outcome::Failed(error.clone()),
                    (None, None) => Outcome::Placed(None),
                };
            }
        }
        outcomes
    }

    /// Applies a group's events to what was loaded.
    async fn settle<'g>(
        &self,
        group: &'g Group,
        stored: Result<Option<Stored>, SessionError>,
        deadline: Millis,
    ) -> (&'g Group, Resolved) {
        let resolved = match stored {
            // In a box of its own: all groups wait in one list, and of most of them it is not made yet.
            Ok(stored) => Box::pin(self.apply(&group.visitor, &group.arrivals, stored, deadline)).await,
            Err(error) => Resolved::failed(error),
        };
        (group, resolved)
    }

    async fn load(&self, groups: &[Group], deadline: Millis) -> Vec<Result<Option<Stored>, SessionError>> {
        if self.is_late(deadline) {
            return groups.iter().map(|_| Err(SessionError::Deadline)).collect();
        }
        let visitors: Vec<Visitor> = groups.iter().map(|group| group.visitor.clone()).collect();
        self.storage.load(&visitors, Reading::Eventual).await
    }

    fn is_late(&self, deadline: Millis) -> bool {
        self.clock.now() > deadline.saturating_sub(DEADLINE_MARGIN_MS)
    }

    /// Applies a visitor's events with one conditional write, again after each lost race.
    async fn apply(
        &self,
        visitor: &Visitor,
        arrivals: &[Arrival],
        mut current: Option<Stored>,
        deadline: Millis,
    ) -> Resolved {
        // All, unless the item cannot hold what they make; then as many as it can.
        let mut count = arrivals.len();
        let mut rest = None;
        for attempt in 0..MAX_ATTEMPTS {
            if self.is_late(deadline) {
                return Resolved::failed(SessionError::Deadline);
            }
            let replaces = current.as_ref().map(|stored| stored.etag);
            let base = current.as_ref().map(|stored| stored.timeline.clone());
            let mut timeline = base.unwrap_or_else(|| Timeline::new(visitor.clone()));
            let arrivals = &arrivals[..count];
            let recalled = match self.recall(&timeline, arrivals).await {
                Ok(recalled) => recalled,
                Err(error) => return Resolved::failed(error),
            };
            let applied = timeline.apply(arrivals, recalled, &self.config);
            if !applied.changed {
                return Resolved { assignments: applied.assignments, rest };
            }
            match self.commit(&timeline, replaces).await {
                Ok(Committed::Done) => {
                    log_overflow(&applied.overflow);
                    return Resolved { assignments: applied.assignments, rest };
                }
                Ok(Committed::Lost(stored)) => {
                    current = stored.map(|stored| *stored);
                    self.pause(attempt).await;
                }
                Err(SessionError::Full) if count > 1 => {
                    count /= 2;
                    rest = Some(SessionError::Full);
                }
                Err(error) => return Resolved::failed(error),
            }
        }
        Resolved::failed(SessionError::Contention)
    }

    /// Reads the archived sessions that late events could belong to.
    async fn recall(&self, timeline: &Timeline, arrivals: &[Arrival]) -> Result<Vec<Tally>, SessionError> {
        match timeline.recall_range(arrivals, &self.config) {
            None => Ok(Vec::new()),
            Some((from, to)) => self.storage.archived(&timeline.visitor, from, to).await,
        }
    }

    async fn commit(&self, timeline: &Timeline, replaces: Option<u64>) -> Result<Committed, SessionError> {
        let expires_at = self.clock.now() + self.retention + TIMELINE_MARGIN_MS;
        self.storage.commit(Commit { timeline, replaces, etag: self.clock.random(), expires_at }).await
    }

    /// Waits before the attempt after `attempt`: a random part of a pause that doubles.
    async fn pause(&self, attempt: u32) {
        let most = (PAUSE_MS << attempt.min(8)).min(MAX_PAUSE_MS);
        self.clock.sleep(Duration::from_millis(self.clock.random() % (most + 1))).await;
    }
}

/// A visitor's events in a batch.
struct Group {
    visitor: Visitor,
    arrivals: Vec<Arrival>,
    /// The event of each arrival.
    indexes: Vec<usize>,
}

/// What became of a visitor's events: the first so many are placed, the rest failed.
struct Resolved {
    assignments: Vec<Option<Assignment>>,
    rest: Option<SessionError>,
}

impl Resolved {
    fn failed(error: SessionError) -> Self {
        Self { assignments: Vec::new(), rest: Some(error) }
    }
}

fn log_overflow(overflow: &crate::timeline::Overflow) {
    if overflow.settled_early + overflow.forgotten > 0 {
        tracing::warn!(
            settled_early = overflow.settled_early,
            fingerprints_forgotten = overflow.forgotten,
            "a visitor has more recent events than a timeline holds"
        );
    }
}
