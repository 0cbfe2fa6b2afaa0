//! The step that all triggers share: takes the raw events of bodies and returns the outcome of each event.

use std::collections::BTreeMap;

use super::bounds::{Bounds, Exceeded, Excess, exceeded, within};
use super::explain::ExplainedEvent;
#[cfg(feature = "replay")]
use super::recordings::Recordings;
use super::rewritten::{Rewritten, insert_rewritten, repair};
use super::split_body::RawEvent;
use crate::clock::Clock;
use crate::dialect::Standing;
use crate::event::{Event, Origin, Rejection, Stripped};
use crate::manager::{Outcome, SessionManager};
use crate::session::{Millis, id_time};
use crate::storage::{SessionError, SessionStorage, StorageErrorKind};
use crate::timeline::Assignment;

/// A raw event, and where it came from.
#[derive(Debug)]
pub(super) struct IncomingEvent<'a> {
    pub raw_event: RawEvent<'a>,
    pub origin: Origin<'a>,
}

/// The outcome of an event.
#[derive(Debug)]
pub(super) enum EventOutcome<T> {
    /// It is applied, now or earlier. The value is what `annotate` of [`resolve_events`] made of it.
    Applied(T),
    /// It is invalid, and sending it again does not help.
    Rejected(Rejection),
    /// It may not be applied; its source has to send it again.
    Failed(SessionError),
}

/// How many of the events that are applied were known, late, or began a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub duplicates: usize,
    pub late: usize,
    /// The sessions that these events began, by reason.
    pub started: BTreeMap<&'static str, usize>,
    /// What became of the events of each project that has metrics of its own.
    pub by_project: BTreeMap<String, ProjectCounts>,
}

/// What became of a project's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProjectCounts {
    pub applied: usize,
    pub failed: usize,
    pub duplicates: usize,
    pub late: usize,
    pub started: usize,
}

impl Placed {
    fn count(&mut self, assignment: &Assignment) {
        if assignment.is_duplicate {
            self.duplicates += 1;
            return;
        }
        self.late += usize::from(assignment.is_late);
        if begins_session(assignment) {
            *self.started.entry(assignment.reason.name()).or_default() += 1;
        }
    }

    /// Counts an event of a project that has metrics of its own.
    fn count_of_project(&mut self, project: &str, outcome: &Outcome) {
        let counts = self.by_project.entry(project.to_owned()).or_default();
        let Outcome::Placed(assignment) = outcome else {
            counts.failed += 1;
            return;
        };
        counts.applied += 1;
        if let Some(assignment) = assignment {
            counts.duplicates += usize::from(assignment.is_duplicate);
            counts.late += usize::from(!assignment.is_duplicate && assignment.is_late);
            counts.started += usize::from(!assignment.is_duplicate && begins_session(assignment));
        }
    }

    fn add(&mut self, other: Self) {
        for (project, other) in other.by_project {
            let counts = self.by_project.entry(project).or_default();
            counts.applied += other.applied;
            counts.failed += other.failed;
            counts.duplicates += other.duplicates;
            counts.late += other.late;
            counts.started += other.started;
        }
        self.duplicates += other.duplicates;
        self.late += other.late;
        for (reason, count) in other.started {
            *self.started.entry(reason).or_default() += count;
        }
    }
}

/// Returns whether an event began its session. A session's id holds the time of the event that began it. An event that is placed
/// before that one begins no session.
fn begins_session(assignment: &Assignment) -> bool {
    assignment.is_start && id_time(assignment.session_id) == assignment.at
}

/// Parses raw events, assigns them to sessions, and calls `annotate` for each event that is applied. Returns one outcome for
/// each raw event, in order, and what became of the applied ones.
pub(super) async fn resolve_events<'a, S: SessionStorage, C: Clock, T>(
    manager: &SessionManager<S, C>,
    incoming: impl ExactSizeIterator<Item = IncomingEvent<'a>>,
    deadline: Millis,
    annotate: impl FnMut(&Event<'_>, Option<&Assignment>) -> T,
) -> (Vec<EventOutcome<T>>, Placed) {
    resolve_bounded(manager, incoming, Bounds::NONE, deadline, annotate).await.unwrap_or_default()
}

/// Does the same within bounds. If the events exceed them, what becomes of them is up to the bounds.
///
/// # Errors
/// The bound that the events exceed, if the request is refused. Then nothing is applied.
pub(super) async fn resolve_bounded<'a, S: SessionStorage, C: Clock, T>(
    manager: &SessionManager<S, C>,
    incoming: impl ExactSizeIterator<Item = IncomingEvent<'a>>,
    bounds: Bounds,
    deadline: Millis,
    mut annotate: impl FnMut(&Event<'_>, Option<&Assignment>) -> T,
) -> Result<(Vec<EventOutcome<T>>, Placed), Exceeded> {
    let mut placed = Placed::default();
    let parsed = parse(incoming, manager);
    #[cfg(feature = "replay")]
    let recordings = parsed.recordings;
    let Parsed { events, mut rejections, rewrites, .. } = parsed;
    let mut events = if rewrites.is_empty() {
        events
    } else {
        insert_rewritten(events, &mut rejections, &rewrites, manager.projects())
    };
    match (exceeded(&events, &bounds.access, manager.projects()), bounds.excess) {
        (None, _) => {}
        (Some(exceeded), Excess::Refused) => return Err(exceeded),
        (Some(_), Excess::Rejected) => {
            events = within(events, &mut rejections, &bounds.access, manager.projects());
        }
    }
    #[cfg_attr(not(feature = "replay"), allow(unused_mut, reason = "only recordings change outcomes"))]
    let mut outcomes = if events.is_empty() { Vec::new() } else { manager.resolve(&events, deadline).await };
    debug_assert_eq!(outcomes.len(), events.len(), "one outcome for each event");
    #[cfg(feature = "replay")]
    recordings.keep(manager, &rejections, &events, &mut outcomes, deadline).await;
    let of_projects =
        events.iter().zip(&outcomes).filter(|(event, _)| manager.projects().have_metrics_of(&event.project));
    of_projects.for_each(|(event, outcome)| placed.count_of_project(&event.project, outcome));
    let mut outcomes = events.iter().zip(outcomes);
    let outcome = |rejection| match rejection {
        Some(rejection) => EventOutcome::Rejected(rejection),
        None => match outcomes.next() {
            Some((event, Outcome::Placed(assignment))) => {
                assignment.iter().for_each(|assignment| placed.count(assignment));
                EventOutcome::Applied(annotate(event, assignment.as_ref()))
            }
            Some((_, Outcome::Failed(error))) => EventOutcome::Failed(error),
            None => EventOutcome::Failed(SessionError::storage(StorageErrorKind::Other, "no outcome")),
        },
    };
    let outcomes: Vec<_> = rejections.into_iter().map(outcome).collect();
    log_failures(&outcomes);
    Ok((outcomes, placed))
}

/// The events of a body that were parsed.
struct Parsed<'a> {
    events: Vec<Event<'a>>,
    /// For each raw event why it is none of `events`, if it is not.
    rejections: Vec<Option<Rejection>>,
    /// The raw events that have to be written anew.
    rewrites: Vec<(usize, Origin<'a>, Standing, Rewritten)>,
    /// The recorded events that were taken out of them.
    #[cfg(feature = "replay")]
    recordings: Recordings,
}

fn parse<'a, S: SessionStorage, C: Clock>(
    incoming: impl ExactSizeIterator<Item = IncomingEvent<'a>>,
    manager: &SessionManager<S, C>,
) -> Parsed<'a> {
    let projects = manager.projects();
    #[cfg(feature = "replay")]
    let mut recordings = Recordings::of(manager);
    let mut events = Vec::with_capacity(incoming.len());
    let mut rejections = Vec::with_capacity(incoming.len());
    let mut rewrites = Vec::new();
    for (at, IncomingEvent { raw_event, origin }) in incoming.enumerate() {
        #[cfg(feature = "replay")]
        if let Some(taken_out) = recordings.take_out(at, &raw_event, origin, projects) {
            let rejection = match taken_out {
                Ok(rewritten) => {
                    rewrites.push((at, origin, Standing::Recorded, rewritten));
                    Stripped::rejection()
                }
                Err(rejection) => rejection,
            };
            rejections.push(Some(rejection));
            continue;
        }
        let (bytes, standing) = (raw_event.bytes(), raw_event.standing());
        match raw_event.parse(origin, projects) {
            Ok(event) => match Stripped::of(&event, projects) {
                None => {
                    events.push(event);
                    rejections.push(None);
                }
                Some(stripped) => {
                    rewrites.push((at, origin, standing, Rewritten::Stripped(stripped)));
                    rejections.push(Some(Stripped::rejection()));
                }
            },
            Err(rejection) => {
                if let Some(repaired) = repair(&rejection, bytes, origin, projects) {
                    rewrites.push((at, origin, standing, repaired));
                }
                rejections.push(Some(rejection));
            }
        }
    }
    Parsed {
        events,
        rejections,
        rewrites,
        #[cfg(feature = "replay")]
        recordings,
    }
}

/// Parses raw events and explains what would become of each. Writes nothing. Returns one outcome for each raw event, in order; one
/// that would be applied has its explanation.
pub(super) async fn explain_events<'a, S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    incoming: impl ExactSizeIterator<Item = IncomingEvent<'a>>,
    deadline: Millis,
) -> Vec<EventOutcome<ExplainedEvent>> {
    let Parsed { events, mut rejections, rewrites, .. } = parse(incoming, manager);
    let events = insert_rewritten(events, &mut rejections, &rewrites, manager.projects());
    let explanations = manager.explain(&events, deadline).await;
    let mut explained = events.iter().zip(explanations);
    let outcome = |rejection| match rejection {
        Some(rejection) => Some(EventOutcome::Rejected(rejection)),
        None => explained.next().map(|(event, explanation)| match explanation {
            Ok(explanation) => EventOutcome::Applied(ExplainedEvent::of(event, explanation)),
            Err(error) => EventOutcome::Failed(error),
        }),
    };
    let outcomes: Vec<_> = rejections.into_iter().filter_map(outcome).collect();
    log_failures(&outcomes);
    outcomes
}

/// The counts of an invocation, for its log line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub applied: usize,
    pub rejected: usize,
    pub failed: usize,
    /// Messages of a queue that are reported as failed, and will be redelivered.
    pub redelivered: usize,
    /// What became of the events that are applied.
    pub placed: Placed,
    /// How often events and bodies were rejected or failed, by code.
    pub codes: BTreeMap<&'static str, usize>,
}

impl Counts {
    pub fn of<T>(outcomes: &[EventOutcome<T>], placed: Placed) -> Self {
        let mut counts = Self { placed, ..Self::default() };
        for outcome in outcomes {
            match outcome {
                EventOutcome::Applied(_) => counts.applied += 1,
                EventOutcome::Rejected(rejection) => {
                    counts.rejected += 1;
                    counts.code(rejection.code.name());
                }
                EventOutcome::Failed(error) => {
                    counts.failed += 1;
                    counts.code(error.code());
                }
            }
        }
        counts
    }

    /// Adds the counts of a chunk of the invocation.
    pub fn add(&mut self, chunk: Self) {
        self.applied += chunk.applied;
        self.rejected += chunk.rejected;
        self.failed += chunk.failed;
        self.redelivered += chunk.redelivered;
        self.placed.add(chunk.placed);
        for (code, count) in chunk.codes {
            *self.codes.entry(code).or_default() += count;
        }
    }

    /// Returns the counts of an invocation that stopped before it read an event.
    pub fn only(code: &'static str) -> Self {
        let mut counts = Self::default();
        counts.code(code);
        counts
    }

    /// Counts events that were applied, and that the output did not accept, as failed: they have to be sent again.
    pub fn not_accepted(&mut self, events: usize) {
        if events > 0 {
            self.applied = self.applied.saturating_sub(events);
            self.failed += events;
            *self.codes.entry("output_unavailable").or_default() += events;
        }
    }

    /// Counts a code once.
    pub fn code(&mut self, code: &'static str) {
        *self.codes.entry(code).or_default() += 1;
    }
}

/// Logs why events failed, once for each code and kind.
fn log_failures<T>(outcomes: &[EventOutcome<T>]) {
    let errors = outcomes.iter().filter_map(|outcome| match outcome {
        EventOutcome::Failed(error) => Some(((error.code(), error.kind_name()), error)),
        _ => None,
    });
    errors.collect::<BTreeMap<_, _>>().into_values().for_each(log_failure);
}

/// Logs a storage error with its cause, which callers do not get: see [`advice`].
pub(super) fn log_failure(error: &SessionError) {
    if !matches!(error, SessionError::NotFound) {
        let (code, kind, error) = (error.code(), error.kind_name(), error.with_causes());
        tracing::warn!(code, kind, %error, "the store failed");
    }
}

/// What a failure of the store means to a caller.
fn storage_advice(kind: StorageErrorKind) -> &'static str {
    match kind {
        StorageErrorKind::Throttled => {
            "the store takes no more requests now; send the request again later, with a longer pause each time"
        }
        StorageErrorKind::TimedOut => "the store did not answer in time; send the request again",
        StorageErrorKind::Denied => {
            "the store does not let the service in; its operator has to check the function's role and the table's policies"
        }
        StorageErrorKind::Other => "the store did not answer; send the request again",
    }
}

/// Returns what a caller can do about an error. The sentence discloses nothing about the store.
pub(super) fn advice(error: &SessionError) -> &'static str {
    match error {
        SessionError::NotFound => "no session has this id; use a `$session_id` that the service assigned",
        SessionError::Storage { kind, .. } => storage_advice(*kind),
        SessionError::Corrupt { .. } => "the stored item cannot be read; the operator has to repair it",
        SessionError::Newer { .. } => {
            "a newer version of the service wrote the stored item; send the request again once that version runs"
        }
        SessionError::Ambiguous => {
            "two visitors have a session with this id; use the sessions in the answers to their events"
        }
        SessionError::Contention => "concurrent requests changed the visitor's sessions; send the request again",
        SessionError::Deadline => "the invocation's time ran out; send the request again, or fewer events at once",
        SessionError::Full => {
            "the visitor has too many sessions that are not closed yet; send the request again in a minute"
        }
    }
}
