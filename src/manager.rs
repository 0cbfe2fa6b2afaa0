//! The session manager: decides purely what becomes of a visitor's timeline, then acts in one place.
//!
//! However many events of a visitor a batch holds, they cost one conditional write; a batch that brings nothing new costs
//! none. A conflict is applied again to the item that came back with it.

mod application;
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
use crate::session::{Millis, SessionContext, Visitor};
use crate::storage::{Commit, CommitOutcome, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::stored::Room;
use crate::timeline::{Arrival, Assignment, Timeline};
use application::{Application, MAX_ATTEMPTS, Step};
pub(crate) use close::CLOSE_CALLS_AT_ONCE;
pub use close::{CLOSE_GRACE_MS, CloseReport, Share};
use timeline_cache::TimelineCache;

/// Visitors that are read at once, and then written: the sooner a timeline is written after it was read, the fewer races are
/// lost, each of which costs a write.
const CHUNK: usize = 25;
const _: () = assert!(CHUNK <= MAX_LOAD);
/// Calls of the store under way at once: a chunk is read by one, then written by one for each visitor.
pub(crate) const CALLS_AT_ONCE: usize = 50;
/// Chunks of a batch under way at once.
const CHUNKS_AT_ONCE: usize = CALLS_AT_ONCE / CHUNK;
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

    /// Applies a visitor's events with one conditional write, again after each conflict: asks the store for what
    /// [`Application`] decides on.
    async fn apply(&self, visitor: &Visitor, arrivals: &[Arrival], base: &mut Base, deadline: Millis) -> Resolved {
        let mut application = Application::new(visitor, arrivals, base);
        let mut step = Step::Begin;
        loop {
            step = match step {
                Step::Begin => application.begin(self.is_late(deadline), &self.config),
                Step::Recall(from, to) => {
                    application.recalled(self.storage.archived(visitor, from, to).await, &self.config)
                }
                Step::Write => self.write_applied(&mut application).await,
                Step::Read => application.read(self.storage.read(visitor).await),
                Step::Pause(attempt) => {
                    self.pause(attempt).await;
                    Step::Begin
                }
                Step::Done(resolved) => return resolved,
            }
        }
    }

    /// Writes the timeline to which events were applied, in the place of the one that was read.
    async fn write_applied(&self, application: &mut Application<'_>) -> Step {
        let (replaces, is_speculative) = (application.replaces, application.is_speculative());
        let stored = application.stored();
        stored.etag = self.clock.random();
        let written = self.write_within(Room::ToGrow, &stored.timeline, replaces, stored.etag).await;
        let is_done = written == Ok(CommitOutcome::Done);
        if is_speculative && written.is_ok() {
            self.cache.judge(is_done);
        }
        let step = application.written(written);
        if is_done && let Some(stored) = application.take_stored() {
            self.cache.put(stored);
        }
        step
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

    /// Waits before the attempt after `attempt`: a random share of a pause that doubles.
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
#[derive(Debug)]
struct Base {
    stored: Option<Stored>,
    /// Whether it is what this process wrote last, and may be overtaken; see [`TimelineCache`].
    is_speculative: bool,
}

/// What became of a visitor's events: the first so many are placed, the rest failed.
#[derive(Debug)]
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
