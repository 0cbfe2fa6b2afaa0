//! The one step that every trigger shares: raw events of a body in, what became of each event out.

use std::collections::BTreeMap;

use super::split_body::RawEvent;
use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::event::{Event, Origin, Rejection, Repaired};
use crate::manager::{Outcome, SessionManager};
use crate::session::Millis;
use crate::storage::{SessionError, SessionStorage, StorageErrorKind};
use crate::timeline::Assignment;

/// An event's text, and how it came.
#[derive(Debug)]
pub(super) struct IncomingEvent<'a> {
    pub raw_event: RawEvent<'a>,
    pub origin: Origin<'a>,
}

/// What became of an event.
#[derive(Debug)]
pub(super) enum EventOutcome<T> {
    /// It is applied, now or before: what was made of it with its session.
    Applied(T),
    /// It can never be understood.
    Rejected(Rejection),
    /// It is not known to be applied: its source has to send it again.
    Failed(SessionError),
}

/// Reads events, has their sessions resolved, and has `annotated` put those on them. One outcome an item, in order.
pub(super) async fn resolve_events<'a, S: SessionStorage, C: Clock, T>(
    manager: &SessionManager<S, C>,
    items: impl ExactSizeIterator<Item = IncomingEvent<'a>>,
    deadline: Millis,
    mut annotated: impl FnMut(&Event<'_>, Option<&Assignment>) -> T,
) -> Vec<EventOutcome<T>> {
    let repairs;
    let mut events = Vec::with_capacity(items.len());
    let mut rejections = Vec::with_capacity(items.len());
    let mut broken = Vec::new();
    for (at, IncomingEvent { raw_event, origin }) in items.enumerate() {
        let bytes = raw_event.bytes();
        match raw_event.parse(origin, manager.config()) {
            Ok(event) => {
                events.push(event);
                rejections.push(None);
            }
            Err(rejection) => {
                if let Some(repaired) = repaired(&rejection, bytes) {
                    broken.push((at, origin, repaired));
                }
                rejections.push(Some(rejection));
            }
        }
    }
    if !broken.is_empty() {
        repairs = broken;
        events = with_repaired(events, &mut rejections, &repairs, manager.config());
    }
    let outcomes = if events.is_empty() { Vec::new() } else { manager.resolve(&events, deadline).await };
    debug_assert_eq!(outcomes.len(), events.len(), "one outcome an event");
    let mut outcomes = events.iter().zip(outcomes);
    let outcome = |rejection| match rejection {
        Some(rejection) => EventOutcome::Rejected(rejection),
        None => match outcomes.next() {
            Some((event, Outcome::Placed(assignment))) => EventOutcome::Applied(annotated(event, assignment.as_ref())),
            Some((_, Outcome::Failed(error))) => EventOutcome::Failed(error),
            None => EventOutcome::Failed(SessionError::storage(StorageErrorKind::Other, "no outcome")),
        },
    };
    let outcomes: Vec<_> = rejections.into_iter().map(outcome).collect();
    log_failures(&outcomes);
    outcomes
}

/// What can be made of an event that was rejected for text that others choke on.
fn repaired(rejection: &Rejection, bytes: &[u8]) -> Option<Repaired> {
    if rejection.is_text() { Repaired::of(bytes) } else { None }
}

/// The events with those among them that are repaired, in their order.
fn with_repaired<'r, 'a: 'r>(
    events: Vec<Event<'a>>,
    rejections: &mut [Option<Rejection>],
    repairs: &'r [(usize, Origin<'a>, Repaired)],
    config: &SessionConfig,
) -> Vec<Event<'r>> {
    let mut all = Vec::with_capacity(rejections.len());
    let (mut events, mut repairs) = (events.into_iter(), repairs.iter().peekable());
    for (at, rejection) in rejections.iter_mut().enumerate() {
        if rejection.is_none() {
            all.extend(events.next());
            continue;
        }
        let Some((_, origin, repaired)) = repairs.next_if(|(broken, ..)| *broken == at) else { continue };
        match repaired.parse(*origin, config) {
            Some(Ok(event)) => {
                *rejection = None;
                all.push(event);
            }
            Some(Err(why)) => *rejection = Some(why),
            None => {}
        }
    }
    all
}

/// What an invocation came to, for its line in the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub applied: usize,
    pub rejected: usize,
    pub failed: usize,
    /// Messages of a queue that were reported as failed.
    pub redelivered: usize,
    /// Why events and bodies were rejected or failed, by code.
    pub codes: BTreeMap<&'static str, usize>,
}

impl Counts {
    pub fn of<T>(outcomes: &[EventOutcome<T>]) -> Self {
        let mut counts = Self::default();
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

    /// Adds those of a chunk of the invocation.
    pub fn add(&mut self, chunk: Self) {
        self.applied += chunk.applied;
        self.rejected += chunk.rejected;
        self.failed += chunk.failed;
        self.redelivered += chunk.redelivered;
        for (code, count) in chunk.codes {
            *self.codes.entry(code).or_default() += count;
        }
    }

    /// Of an invocation in which no event was read.
    pub fn only(code: &'static str) -> Self {
        let mut counts = Self::default();
        counts.code(code);
        counts
    }

    /// Counts a code.
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

/// Logs why the store failed; callers get [`advice`] instead.
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

/// What an error means to a caller. It holds nothing of the store.
pub(super) fn advice(error: &SessionError) -> &'static str {
    match error {
        SessionError::NotFound => "no session has this id; use a `$session_id` that the service gave out",
        SessionError::Storage { kind, .. } => storage_advice(*kind),
        SessionError::Corrupt { .. } => "what is stored cannot be read; its operator has to repair it",
        SessionError::Newer { .. } => {
            "a newer version of the service wrote what is stored; send the request again once that version runs"
        }
        SessionError::Ambiguous => {
            "two visitors have a session of this id, so it names neither; use the events' own session"
        }
        SessionError::Contention => "others changed the visitor's sessions at once; send the request again",
        SessionError::Deadline => "the time ran out; send the request again, or fewer events at once",
        SessionError::Full => {
            "the visitor has too many sessions waiting to be closed; send the request again in a minute"
        }
    }
}
