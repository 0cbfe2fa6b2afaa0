//! The session manager. It decides without side effects how a visitor's timeline changes, then writes it in one place.
//!
//! All events of a visitor in a batch cost one conditional write. A batch without new events costs none. After a conflict, the
//! events are applied again, to the item that won (optimistic concurrency).

mod application;
mod calls;
mod close;
mod closed;
mod counters;
mod explain;
#[cfg(feature = "replay")]
mod replay;
mod shared;
mod timeline_cache;
mod visitors;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::config::{ProjectRules, Projects, SessionConfig};
use crate::event::{Event, Role};
use crate::model::FingerprintPage;
use crate::session::{Millis, SessionContext, Visitor};
use crate::storage::{Commit, CommitOutcome, MAX_LOAD, Reading, SessionError, SessionStorage, Stored};
use crate::stored::Room;
use crate::timeline::{Arrival, Assignment, PAGE_FINGERPRINTS, Timeline};
use application::{Application, MAX_ATTEMPTS, Step};
pub(crate) use close::CLOSE_CALLS_AT_ONCE;
pub use close::{CLOSE_GRACE_MS, CloseReport, Share};
use closed::ClosedLimits;
pub use counters::Counted;
use counters::Counters;
#[cfg(feature = "replay")]
pub use replay::ReplayPage;
use shared::Shared;
use timeline_cache::TimelineCache;
pub use visitors::{ListPosition, SessionPage, VisitorExport};

/// The number of visitors that are read with one call, and then written. The sooner a timeline is written after it was read, the
/// fewer conflicts there are, and each conflict costs a write.
const VISITORS_PER_CHUNK: usize = 25;
const _: () = assert!(VISITORS_PER_CHUNK <= MAX_LOAD);
/// The maximum number of concurrent storage calls. A chunk is read with one call, then written with one call for each visitor.
pub(crate) const CALLS_AT_ONCE: usize = 50;
/// The maximum number of chunks of a batch that are processed concurrently.
const CHUNKS_AT_ONCE: usize = CALLS_AT_ONCE / VISITORS_PER_CHUNK;
/// The maximum of the first pause, in milliseconds. It doubles with each further pause, up to [`MAX_PAUSE_MS`]. The actual pause is
/// a random part of it.
const PAUSE_MS: u64 = 50;
/// The maximum of any pause, in milliseconds.
const MAX_PAUSE_MS: u64 = 2_000;
/// No attempt begins with less time left than this, in milliseconds, because a storage call can take as long.
pub const DEADLINE_MARGIN_MS: Millis = 3_000;
/// How much longer a timeline is kept than its visitor's archived sessions, in milliseconds: one day.
const TIMELINE_MARGIN_MS: Millis = 86_400_000;

/// The outcome of an event.
#[derive(Debug)]
pub enum Outcome {
    /// The event is applied, by this call or an earlier one. `None` if it belongs to no session.
    Placed(Option<Assignment>),
    /// The event may or may not be applied. Its source has to send it again.
    Failed(SessionError),
}

/// Assigns events to sessions, finds and ends sessions, and closes sessions that are over.
#[derive(Debug)]
pub struct SessionManager<S, C = SystemClock> {
    projects: Shared<Projects>,
    storage: S,
    clock: C,
    retention: Millis,
    /// See [`CLOSE_GRACE_MS`].
    close_grace: Millis,
    /// The number of fingerprints on a page.
    page_size: usize,
    closed_limits: ClosedLimits,
    cache: Shared<TimelineCache>,
    /// The number of library calls that recorded an event. The events' ids are in this order.
    calls: Shared<AtomicU64>,
    counters: Counters,
    /// Where recorded events are kept, if replay is on.
    #[cfg(feature = "replay")]
    replay: Option<crate::replay::ReplayStore>,
}

impl<S: SessionStorage> SessionManager<S> {
    /// Returns a manager that uses the machine's clock and keeps archived sessions for 30 days. `projects` are the rules of all
    /// visitors (a [`SessionConfig`]), or those of several projects. To share a storage, pass an [`std::sync::Arc`] or a reference.
    pub fn new(projects: impl Into<Projects>, storage: S) -> Self {
        Self::with_clock(projects, storage, SystemClock)
    }
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Returns a manager that uses the caller's clock, for tests and simulations.
    pub fn with_clock(projects: impl Into<Projects>, storage: S, clock: C) -> Self {
        let projects = shared::share(projects.into());
        let (retention, close_grace) = (30 * 86_400_000, CLOSE_GRACE_MS);
        let (cache, calls, counters) = (Shared::default(), Shared::default(), Counters::default());
        Self {
            projects,
            storage,
            clock,
            retention,
            close_grace,
            page_size: PAGE_FINGERPRINTS,
            closed_limits: ClosedLimits::default(),
            cache,
            calls,
            counters,
            #[cfg(feature = "replay")]
            replay: None,
        }
    }

    /// Sets how long archived sessions are kept.
    #[must_use]
    pub fn with_retention(self, retention: chrono::TimeDelta) -> Self {
        Self { retention: retention.num_milliseconds(), ..self }
    }

    /// Sets how long after it is due a timeline is closed, instead of [`CLOSE_GRACE_MS`]. With a single clock it can be shorter.
    #[must_use]
    pub fn with_close_grace(self, grace: chrono::TimeDelta) -> Self {
        Self { close_grace: grace.num_milliseconds(), ..self }
    }

    /// Sets the number of fingerprints on a page, instead of [`PAGE_FINGERPRINTS`]. It is for tests only: managers with different
    /// numbers would overwrite each other's pages.
    #[doc(hidden)]
    #[must_use]
    pub fn with_page_size(self, page_size: usize) -> Self {
        Self { page_size: page_size.max(1), ..self }
    }

    /// Returns the rules of events without a project, and of projects that are not configured.
    pub fn config(&self) -> &SessionConfig {
        self.projects.default_rules()
    }

    /// Returns the projects.
    pub fn projects(&self) -> &Projects {
        &self.projects
    }

    /// Returns the rules of a visitor. A timeline is always folded by these.
    fn rules_of(&self, visitor: &Visitor) -> &SessionConfig {
        self.projects.rules_of(&visitor.project)
    }

    /// Returns the clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Returns the storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns what was counted since the last call, for metrics.
    pub fn take_counted(&self) -> Counted {
        self.counters.take()
    }

    /// Applies a batch of events and returns the outcome of each, in order.
    ///
    /// No attempt begins less than [`DEADLINE_MARGIN_MS`] before `deadline`. Events that are not applied by then have failed;
    /// events that are applied stay so.
    pub async fn resolve(&self, events: &[Event<'_>], deadline: Millis) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = events.iter().map(|_| Outcome::Placed(None)).collect();
        let Groups { of_visitors: groups, nobody, bots } = Groups::of(events);
        if bots > 0 {
            tracing::info!(bots, "events of bots are excluded; they get no session");
        }
        if nobody > 0 {
            tracing::warn!(nobody, "events have a `distinct_id` that stands for nobody; they get no session");
        }
        // Futures are collected before they run, because a lazy map over references would not be `Send`.
        let chunks: Vec<_> =
            groups.chunks(VISITORS_PER_CHUNK).map(|chunk| self.resolve_chunk(chunk, events, deadline)).collect();
        let mut done = stream::iter(chunks).buffer_unordered(CHUNKS_AT_ONCE);
        while let Some(resolved) = done.next().await {
            resolved.into_iter().for_each(|(group, resolved)| resolved.write_outcomes(&group.indexes, &mut outcomes));
        }
        outcomes
    }

    /// Applies the events of a chunk of groups.
    async fn resolve_chunk<'g>(
        &self,
        groups: &'g [Group],
        events: &[Event<'_>],
        deadline: Millis,
    ) -> Vec<(&'g Group, Resolved)> {
        let mut bases = self.bases(groups, deadline).await;
        let resolve_group = |(group, base)| self.resolve_group(group, events, base, deadline);
        let writes: Vec<_> = groups.iter().zip(&mut bases).map(resolve_group).collect();
        stream::iter(writes).buffer_unordered(VISITORS_PER_CHUNK).collect().await
    }

    /// Returns the base of each group: the cached timeline that this process wrote last, else the stored one, which is read.
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
            // Boxed, because the futures of all groups wait in one list. This future is large, and it is made only when it is the
            // group's turn. So are the arrivals.
            Ok(base) => {
                let arrivals = self.arrivals(group, events, base);
                Box::pin(self.apply(&group.visitor, &arrivals, base, deadline)).await
            }
            Err(error) => Resolved::failed(error.clone()),
        };
        (group, resolved)
    }

    /// Returns a group's events in the form that a timeline takes. An event shares equal context values with the event before it,
    /// to save memory.
    fn arrivals(&self, group: &Group, events: &[Event<'_>], base: &Base) -> Vec<Arrival> {
        let mut arrivals: Vec<Arrival> = Vec::with_capacity(group.indexes.len());
        let empty = SessionContext::default();
        let config = self.rules_of(&group.visitor);
        for event in group.indexes.iter().map(|&index| &events[index]) {
            let stored = || base.stored.as_ref().and_then(|stored| stored.timeline.unfinalized.last());
            let before = arrivals.last().map(|arrival| &arrival.entry).or_else(stored);
            let context_before = before.map_or(&empty, |entry| &entry.context);
            arrivals.extend(event.arrival_after(context_before, config));
        }
        arrivals
    }

    /// Reads the visitors' timelines, unless the time is up.
    async fn load(&self, visitors: &[Visitor], deadline: Millis) -> Vec<Result<Option<Stored>, SessionError>> {
        if self.is_time_up(deadline) {
            return visitors.iter().map(|_| Err(SessionError::Deadline)).collect();
        }
        self.storage.load(visitors, Reading::Eventual).await
    }

    /// Returns whether less than [`DEADLINE_MARGIN_MS`] is left before the deadline.
    fn is_time_up(&self, deadline: Millis) -> bool {
        is_past(self.clock.now(), deadline)
    }

    /// Applies a visitor's events with one conditional write, and again after each conflict. [`Application`] decides on the
    /// steps; this loop makes the storage calls.
    async fn apply(&self, visitor: &Visitor, arrivals: &[Arrival], base: &mut Base, deadline: Millis) -> Resolved {
        let config = self.rules_of(visitor);
        let mut application = Application::new(visitor, arrivals, base, self.page_size, self.closed_limits);
        let mut step = Step::Begin;
        loop {
            step = match step {
                Step::Begin => {
                    let now = self.clock.now();
                    application.begin(is_past(now, deadline), self.kept_since(now), config)
                }
                Step::Recall(from, to) => application.recalled(self.storage.archived(visitor, from, to).await, config),
                Step::LookUp(sessions) => application.looked_up(self.pages(visitor, &sessions).await, config),
                Step::Write => self.write_applied(visitor, &mut application).await,
                Step::Read => application.read(self.storage.read(visitor).await),
                Step::Pause(number) => match self.pause(number, deadline).await {
                    Ok(()) => Step::Read,
                    Err(error) => Step::Done(Resolved::failed(error)),
                },
                Step::Done(resolved) => return resolved,
            }
        }
    }

    /// Reads a visitor's timeline with strong consistency, without the closed sessions that are no longer kept at `now`.
    async fn read(&self, visitor: &Visitor, now: Millis) -> Result<Option<Stored>, SessionError> {
        // Boxed, because the futures of the callers are nested deeply as it is.
        let mut stored = Box::pin(self.storage.read(visitor)).await?;
        if let Some(stored) = &mut stored {
            stored.timeline.remove_closed_before(self.kept_since(now));
        }
        Ok(stored)
    }

    /// Reads all pages of these sessions of a visitor.
    async fn pages(&self, visitor: &Visitor, sessions: &[Uuid]) -> Result<Vec<FingerprintPage>, SessionError> {
        let mut pages = Vec::new();
        for &session in sessions {
            pages.extend(self.storage.pages(visitor, session).await?);
        }
        Ok(pages)
    }

    /// Writes the timeline to which events were applied. It replaces the one that was read, or fails with a conflict. Pages and
    /// closed sessions that leave it come first, so that a crash in between loses nothing.
    async fn write_applied(&self, visitor: &Visitor, application: &mut Application<'_>) -> Step {
        if !application.pages().is_empty()
            && let Err(error) = self.storage.put_pages(visitor, application.pages(), None).await
        {
            return application.written(Err(error));
        }
        if application.archives_closed()
            && let Err(error) = Box::pin(self.archive_closed(&mut application.stored().timeline)).await
        {
            return application.written(Err(error));
        }
        let (replaces, is_speculative) = (application.replaces, application.is_speculative());
        let stored = application.stored();
        stored.etag = self.clock.random();
        let written = self.write_within(Room::ToGrow, &stored.timeline, replaces, stored.etag).await;
        let is_done = written == Ok(CommitOutcome::Done);
        if written.is_ok() {
            self.counters.count_write(is_done, is_speculative);
        }
        if is_speculative && written.is_ok() {
            self.cache.record(is_done);
        }
        if let Some(applied) = application.applied().filter(|_| is_done) {
            self.counters.count_applied(applied);
        }
        let step = application.written(written);
        if is_done && application.has_met_conflict() {
            // The other writer is likely to be at it again. So a few hot visitors do not stop the use of the cache for all.
            self.cache.forget(visitor);
        } else if is_done && let Some(stored) = application.take_stored() {
            self.cache.put(stored);
        }
        step
    }

    /// Writes a timeline to which no events were added: it was closed, or a request ended a session.
    fn write(
        &self,
        timeline: &Timeline,
        replaces: Option<u64>,
        etag: u64,
    ) -> impl Future<Output = Result<CommitOutcome, SessionError>> + Send {
        self.write_within(Room::ToClose, timeline, replaces, etag)
    }

    /// Writes a timeline within the size limits of `room`. `replaces` is the etag that must be stored; `None` if there must be no
    /// timeline.
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

    /// Waits for a random part of a maximum that doubles with each pause. `number` is the number of pauses before this one. Returns
    /// an error at once if the time would be up after the pause.
    async fn pause(&self, number: u32, deadline: Millis) -> Result<(), SessionError> {
        let max_ms = (PAUSE_MS << number.min(8)).min(MAX_PAUSE_MS);
        let pause_ms = self.clock.random() % (max_ms + 1);
        if is_past(self.clock.now() + pause_ms as Millis, deadline) {
            return Err(SessionError::Deadline);
        }
        self.clock.sleep(Duration::from_millis(pause_ms)).await;
        Ok(())
    }
}

/// Returns whether less than [`DEADLINE_MARGIN_MS`] is left before the deadline.
fn is_past(now: Millis, deadline: Millis) -> bool {
    now > deadline.saturating_sub(DEADLINE_MARGIN_MS)
}

/// The events of a batch by visitor, and the numbers of those that get no session.
struct Groups {
    of_visitors: Vec<Group>,
    nobody: usize,
    bots: usize,
}

impl Groups {
    fn of(events: &[Event<'_>]) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of: HashMap<(&str, &str), usize, RandomState> = HashMap::default();
        let (mut nobody, mut bots) = (0_usize, 0_usize);
        for (index, event) in events.iter().enumerate() {
            match event.role {
                Role::Activity(_) | Role::Passive => {}
                Role::Nobody => {
                    nobody += 1;
                    continue;
                }
                Role::Bot => {
                    bots += 1;
                    continue;
                }
                // An event that this service emits belongs to no session.
                Role::Lifecycle => continue,
            }
            let group = *group_of.entry((&event.project, &event.distinct_id)).or_insert_with(|| {
                groups.push(Group { visitor: event.visitor(), indexes: Vec::new() });
                groups.len() - 1
            });
            groups[group].indexes.push(index);
        }
        Self { of_visitors: groups, nobody, bots }
    }
}

/// A visitor's events in a batch.
struct Group {
    visitor: Visitor,
    /// The indexes of the events in the batch.
    indexes: Vec<usize>,
}

/// The timeline that events are applied to.
#[derive(Debug)]
struct Base {
    /// `None` if the visitor has no timeline.
    stored: Option<Stored>,
    /// Whether the timeline is from [`TimelineCache`], so that a write of it is speculative: another process can have changed the
    /// stored timeline since.
    is_speculative: bool,
}

/// The outcome of a visitor's events. The first events are placed, the rest failed.
#[derive(Debug)]
struct Resolved {
    /// The assignments of the events that are placed.
    assignments: Vec<Option<Assignment>>,
    /// The error of the events after them, if there are any.
    rest: Option<SessionError>,
}

impl Resolved {
    /// Writes the outcomes to these indexes of the batch.
    fn write_outcomes(self, indexes: &[usize], outcomes: &mut [Outcome]) {
        let mut assignments = self.assignments.into_iter();
        for &index in indexes {
            outcomes[index] = match (assignments.next(), &self.rest) {
                (Some(assignment), _) => Outcome::Placed(assignment),
                (None, Some(error)) => Outcome::Failed(error.clone()),
                (None, None) => Outcome::Placed(None),
            };
        }
    }

    /// Returns the outcome if all events failed.
    fn failed(error: SessionError) -> Self {
        Self { assignments: Vec::new(), rest: Some(error) }
    }
}
