//! The session manager: decides purely what becomes of a visitor's timeline, then acts in one place.
//!
//! However many events of a visitor a batch holds, they cost one conditional write; a batch that brings nothing new costs
//! none. A conflict is applied again to the item that came back with it.

mod calls;
mod close;
mod timeline_cache;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream;

use crate::clock::{Clock, SystemClock};
use crate::config::SessionConfig;
use crate::event::{Event, Role};
use crate::rules::SessionState;
use crate::session::{Millis, SessionContext, Visitor};
use crate::storage::{Commit, CommitOutcome, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::stored::Room;
use crate::timeline::{Arrival, Assignment, Timeline};
pub(crate) use close::CLOSE_CALLS_AT_ONCE;
pub use close::{CLOSE_GRACE_MS, CloseReport, Share};
use timeline_cache::TimelineCache;

/// Visitors that are read at once, and then written: the sooner a timeline is written after it was read, the fewer races are
/// lost, each of which costs a write.
const CHUNK: usize = 25;
const _: () = assert!(CHUNK <= MAX_LOAD);
/// Calls of the store under way at once: a chunk is read by one, then written by one for each visitor.
pub(crate) const CALLS_AT_ONCE: usize = 50;
/// Parts of a batch under way at once.
const CHUNKS_AT_ONCE: usize = CALLS_AT_ONCE / CHUNK;
/// Attempts to write one timeline. Each conflict means that another writer won it: with ten writers on one visitor
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
pub struct SessionManager<S, C = SystemClock> {
    config: SessionConfig,
    storage: S,
    clock: C,
    retention: Millis,
    /// See [`CLOSE_GRACE_MS`].
    close_grace: Millis,
    cache: TimelineCache,
    /// How many library calls recorded an event: their ids follow each other.
    calls: AtomicU64,
}

impl<S: SessionStorage> SessionManager<S> {
    /// A manager that goes by the machine's clock and keeps archived sessions for 30 days. A storage that is used elsewhere, too,
    /// is given as an [`std::sync::Arc`] or by reference.
    pub fn new(config: SessionConfig, storage: S) -> Self {
        Self::with_clock(config, storage, SystemClock)
    }
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// A manager that goes by a clock of the caller's, as tests and simulations do.
    pub fn with_clock(config: SessionConfig, storage: S, clock: C) -> Self {
        let (retention, close_grace) = (30 * 86_400_000, CLOSE_GRACE_MS);
        let (cache, calls) = (TimelineCache::default(), AtomicU64::new(0));
        Self { config, storage, clock, retention, close_grace, cache, calls }
    }

    /// Keeps archived sessions for this long.
    #[must_use]
    pub fn with_retention(self, retention: chrono::TimeDelta) -> Self {
        Self { retention: retention.num_milliseconds(), ..self }
    }

    /// Closes timelines this long after they are due, instead of [`CLOSE_GRACE_MS`]: less where one clock rules.
    #[must_use]
    pub fn with_close_grace(self, grace: chrono::TimeDelta) -> Self {
        Self { close_grace: grace.num_milliseconds(), ..self }
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
        let mut group_of: HashMap<(&str, &str), usize, RandomState> = HashMap::default();
        let mut nobody = 0_usize;
        for (index, event) in events.iter().enumerate() {
            match event.role {
                Role::Activity(_) | Role::Passive => {}
                Role::Nobody => {
                    nobody += 1;
                    continue;
                }
                // One of our own belongs to no session.
                Role::Lifecycle => continue,
            }
            let group = *group_of.entry((&event.project, &event.distinct_id)).or_insert_with(|| {
                groups.push(Group { visitor: event.visitor(), indexes: Vec::new() });
                groups.len() - 1
            });
            groups[group].indexes.push(index);
        }
        if nobody > 0 {
            tracing::warn!(nobody, "events have a `distinct_id` that stands for nobody; they get no session");
        }
        // Futures are collected before they run: a lazy map of references would not be `Send`.
        let chunks: Vec<_> = groups.chunks(CHUNK).map(|chunk| self.chunk(chunk, events, deadline)).collect();
        let mut done = stream::iter(chunks).buffer_unordered(CHUNKS_AT_ONCE);
        while let Some(resolved) = done.next().await {
            resolved.into_iter().for_each(|(group, resolved)| resolved.tell(&group.indexes, &mut outcomes));
        }
        outcomes
    }

    /// Resolves a chunk of a batch's groups.
    async fn chunk<'g>(
        &self,
        groups: &'g [Group],
        events: &[Event<'_>],
        deadline: Millis,
    ) -> Vec<(&'g Group, Resolved)> {
        let mut bases = self.bases(groups, deadline).await;
        let resolve_group = |(group, base)| self.resolve_group(group, events, base, deadline);
        let writes: Vec<_> = groups.iter().zip(&mut bases).map(resolve_group).collect();
        stream::iter(writes).buffer_unordered(CHUNK).collect().await
    }

    /// What each group's events are applied to: what this process wrote last, else what is read.
    async fn bases(&self, groups: &[Group], deadline: Millis) -> Vec<Result<Base, SessionError>> {
        let now = self.clock.now();
        let mut bases: Vec<_> = groups
            .iter()
            .map(|group| Ok(Base { stored: self.cache.take(&group.visitor, now), is_speculative: true }))
            .collect();
        let is_unknown = |base: &Result<Base, _>| base.as_ref().is_ok_and(|base| base.stored.is_none());
        let unknown: Vec<usize> = (0..groups.len()).filter(|&group| is_unknown(&bases[group])).collect();
        let visitors: Vec<Visitor> = unknown.iter().map(|&group| groups[group].visitor.clone()).collect();
        let loaded = if visitors.is_empty() { Vec::new() } else { self.load(&visitors, deadline).await };
        for ((group, visitor), stored) in unknown.into_iter().zip(&visitors).zip(loaded) {
            self.cache.learn(visitor, &stored, now);
            bases[group] = stored.map(|stored| Base { stored, is_speculative: false });
        }
        bases
    }

    /// Applies a group's events to their base.
    async fn resolve_group<'g>(
        &self,
        group: &'g Group,
        events: &[Event<'_>],
        base: &mut Result<Base, SessionError>,
        deadline: Millis,
    ) -> (&'g Group, Resolved) {
        let resolved = match base {
            // In a box of its own: all groups wait in one list, and of most of them it is not made yet. Nor are their arrivals.
            Ok(base) => {
                let arrivals = self.arrivals(group, events, base);
                Box::pin(self.apply(&group.visitor, &arrivals, base, deadline)).await
            }
            Err(error) => Resolved::failed(error.clone()),
        };
        (group, resolved)
    }

    /// A group's events as timelines take them. What they say again they share with those before them.
    fn arrivals(&self, group: &Group, events: &[Event<'_>], base: &Base) -> Vec<Arrival> {
        let mut arrivals: Vec<Arrival> = Vec::with_capacity(group.indexes.len());
        let nothing = SessionContext::default();
        for event in group.indexes.iter().map(|&index| &events[index]) {
            let stored = || base.stored.as_ref().and_then(|stored| stored.timeline.unfinalized.last());
            let known = arrivals.last().map(|arrival| &arrival.entry).or_else(stored);
            let known = known.map_or(&nothing, |entry| &entry.context);
            arrivals.extend(event.arrival_after(known, &self.config));
        }
        arrivals
    }

    async fn load(&self, visitors: &[Visitor], deadline: Millis) -> Vec<Result<Option<Stored>, SessionError>> {
        if self.is_late(deadline) {
            return visitors.iter().map(|_| Err(SessionError::Deadline)).collect();
        }
        self.storage.load(visitors, Reading::Eventual).await
    }

    fn is_late(&self, deadline: Millis) -> bool {
        self.clock.now() > deadline.saturating_sub(DEADLINE_MARGIN_MS)
    }

    /// Applies a visitor's events with one conditional write, again after each conflict. Timelines are large: this one changes
    /// where it is.
    async fn apply(&self, visitor: &Visitor, arrivals: &[Arrival], base: &mut Base, deadline: Millis) -> Resolved {
        let Base { stored, is_speculative } = base;
        // All, unless the item cannot hold what they make; then as many as it can.
        let mut count = arrivals.len();
        let mut rest = None;
        for attempt in 0..MAX_ATTEMPTS {
            if self.is_late(deadline) {
                return Resolved::failed(SessionError::Deadline);
            }
            let replaces = stored.as_ref().map(|stored| stored.etag);
            let current = stored.get_or_insert_with(|| Stored { timeline: Timeline::new(visitor.clone()), etag: 0 });
            let arrivals = &arrivals[..count];
            let recalled = match self.recall(&current.timeline, arrivals).await {
                Ok(recalled) => recalled,
                Err(error) => return Resolved::failed(error),
            };
            let applied = current.timeline.apply(arrivals, recalled, &self.config);
            if !applied.changed && !*is_speculative {
                return Resolved { assignments: applied.assignments, rest };
            }
            let committed = match applied.changed {
                true => self.commit(current, replaces, *is_speculative).await,
                // Nothing is written that would prove the speculative write: what is stored is read instead.
                false => self.storage.read(visitor).await.map(|stored| CommitOutcome::Conflict(stored.map(Box::new))),
            };
            match committed {
                Ok(CommitOutcome::Done) => {
                    log_overflow(&applied.overflow);
                    if let Some(written) = stored.take() {
                        self.cache.put(written);
                    }
                    return Resolved { assignments: applied.assignments, rest };
                }
                Ok(CommitOutcome::Conflict(winner)) => {
                    *stored = winner.map(|winner| *winner);
                    // A speculative write that failed is no race with others at work.
                    if !*is_speculative {
                        self.pause(attempt).await;
                    }
                }
                Err(SessionError::Full) if count > 1 => {
                    (count, rest) = (count / 2, Some(SessionError::Full));
                    *stored = match self.storage.read(visitor).await {
                        Ok(current) => current,
                        Err(error) => return Resolved::failed(error),
                    };
                }
                Err(error) => return Resolved::failed(error),
            }
            *is_speculative = false;
        }
        Resolved::failed(SessionError::Contention)
    }

    /// Reads the archived sessions that late events could belong to.
    async fn recall(&self, timeline: &Timeline, arrivals: &[Arrival]) -> Result<Vec<SessionState>, SessionError> {
        match timeline.recall_range(arrivals, &self.config) {
            None => Ok(Vec::new()),
            Some((from, to)) => self.storage.archived(&timeline.visitor, from, to).await,
        }
    }

    /// Writes a timeline in the place of the one with this etag; it has one of its own then.
    async fn commit(
        &self,
        stored: &mut Stored,
        replaces: Option<u64>,
        is_speculative: bool,
    ) -> Result<CommitOutcome, SessionError> {
        stored.etag = self.clock.random();
        let committed = self.write_within(Room::ToGrow, &stored.timeline, replaces, stored.etag).await?;
        if is_speculative {
            self.cache.judge(committed == CommitOutcome::Done);
        }
        Ok(committed)
    }

    /// Writes a timeline to which no events were added.
    fn write(
        &self,
        timeline: &Timeline,
        replaces: Option<u64>,
        etag: u64,
    ) -> impl Future<Output = Result<CommitOutcome, SessionError>> + Send {
        self.write_within(Room::ToClose, timeline, replaces, etag)
    }

    async fn write_within(
        &self,
        room: Room,
        timeline: &Timeline,
        replaces: Option<u64>,
        etag: u64,
    ) -> Result<CommitOutcome, SessionError> {
        let expires_at = self.clock.now() + self.retention + TIMELINE_MARGIN_MS;
        self.storage.commit(Commit { timeline, replaces, etag, expires_at, room }).await
    }

    /// Waits before the attempt after `attempt`: a random chunk of a pause that doubles.
    async fn pause(&self, attempt: u32) {
        let most = (PAUSE_MS << attempt.min(8)).min(MAX_PAUSE_MS);
        self.clock.sleep(Duration::from_millis(self.clock.random() % (most + 1))).await;
    }
}

/// A visitor's events in a batch.
struct Group {
    visitor: Visitor,
    /// Where they stand in the batch.
    indexes: Vec<usize>,
}

/// What events are applied to.
struct Base {
    stored: Option<Stored>,
    /// Whether it is what this process wrote last, and may be overtaken; see [`TimelineCache`].
    is_speculative: bool,
}

/// What became of a visitor's events: the first so many are placed, the rest failed.
struct Resolved {
    assignments: Vec<Option<Assignment>>,
    rest: Option<SessionError>,
}

impl Resolved {
    /// Tells the events at these places of the batch what became of them.
    fn tell(self, indexes: &[usize], outcomes: &mut [Outcome]) {
        let mut assignments = self.assignments.into_iter();
        for &index in indexes {
            outcomes[index] = match (assignments.next(), &self.rest) {
                (Some(assignment), _) => Outcome::Placed(assignment),
                (None, Some(error)) => Outcome::Failed(error.clone()),
                (None, None) => Outcome::Placed(None),
            };
        }
    }

    fn failed(error: SessionError) -> Self {
        Self { assignments: Vec::new(), rest: Some(error) }
    }
}

fn log_overflow(overflow: &crate::timeline::Overflow) {
    if overflow.finalized_early + overflow.forgotten > 0 {
        tracing::warn!(
            finalized_early = overflow.finalized_early,
            fingerprints_forgotten = overflow.forgotten,
            "a visitor has more recent events than a timeline holds"
        );
    }
}
