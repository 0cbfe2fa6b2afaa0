//! The state machine that applies a visitor's events. It makes no storage calls: each method takes the result of the last call
//! and returns the next [`Step`]. [`super::SessionManager::apply`] is the loop that makes the calls.
//!
//! ```text
//!   Begin ─> Recall ─> LookUp ─> Write ─> Done
//!     ^                   │        ├────> Begin              first conflict: apply to the item of the other writer
//!     │                   │        └────> Pause ─> Read      more conflicts: let the other writers finish, then read
//!     │                   └────> Read ──> Begin              nothing to write, but the cached timeline may be stale
//!     └───────────────────────── Read <── Write              the item would be too large: apply fewer events
//! ```

use super::closed::ClosedLimits;
use super::{Base, Resolved};
use crate::config::SessionConfig;
use crate::model::{FingerprintPage, SessionState};
use crate::session::{Millis, Visitor};
use crate::storage::{CommitOutcome, SessionError, Stored};
use crate::timeline::{Applied, Arrival, Recalled, Timeline};
use uuid::Uuid;

/// The maximum number of attempts to write one timeline. Each conflict means that another writer succeeded, so with ten
/// concurrent writes of one visitor no writer needs more than ten. With more, the pauses spread the attempts out.
pub(super) const MAX_ATTEMPTS: u32 = 16;

/// The next step.
#[derive(Debug)]
pub(super) enum Step {
    /// Begin an attempt, if there is time for one.
    Begin,
    /// Read the archived sessions whose ids have a time in this range.
    Recall(Millis, Millis),
    /// Read the pages of these sessions.
    LookUp(Vec<Uuid>),
    /// Write the pages, then the timeline on the condition that the stored one is still the one that was read.
    Write,
    /// Read the timeline as it is now.
    Read,
    /// Wait, after this many pauses before, then read the timeline.
    Pause(u32),
    /// Return these outcomes.
    Done(Resolved),
}

/// A visitor's events while they are applied. The timeline is changed in place, because timelines are large.
#[derive(Debug)]
pub(super) struct Application<'a> {
    visitor: &'a Visitor,
    arrivals: &'a [Arrival],
    base: &'a mut Base,
    /// The etag that a write replaces; `None` if there is no timeline.
    pub replaces: Option<u64>,
    /// The archived sessions that this attempt has read.
    recalled: Vec<SessionState>,
    /// The pages that must be stored before the timeline is.
    pages: Vec<FingerprintPage>,
    /// Whether the closed sessions must be archived before the timeline is stored.
    archives_closed: bool,
    /// The number of fingerprints on a page.
    page_size: usize,
    closed_limits: ClosedLimits,
    /// The result of this attempt.
    applied: Option<Applied>,
    /// The number of arrivals that are applied: all, unless the item would be too large.
    count: usize,
    /// The error of the other arrivals.
    rest: Option<SessionError>,
    /// The number of attempts that met a conflict.
    conflicts: u32,
}

impl<'a> Application<'a> {
    /// Prepares to apply all arrivals to the base.
    pub fn new(
        visitor: &'a Visitor,
        arrivals: &'a [Arrival],
        base: &'a mut Base,
        page_size: usize,
        closed_limits: ClosedLimits,
    ) -> Self {
        let count = arrivals.len();
        let (recalled, pages) = (Vec::new(), Vec::new());
        let (replaces, applied, rest, conflicts) = (None, None, None, 0);
        Self {
            visitor,
            arrivals,
            base,
            replaces,
            recalled,
            pages,
            archives_closed: false,
            page_size,
            closed_limits,
            applied,
            count,
            rest,
            conflicts,
        }
    }

    /// Begins an attempt, unless the time is up. Sessions that were closed before `kept_since` are no longer kept.
    pub fn begin(&mut self, is_time_up: bool, kept_since: Millis, config: &SessionConfig) -> Step {
        if is_time_up {
            return failed(SessionError::Deadline);
        }
        self.replaces = self.base.stored.as_ref().map(|stored| stored.etag);
        let arrivals = &self.arrivals[..self.count];
        let timeline = &mut self.stored().timeline;
        timeline.remove_closed_before(kept_since);
        match timeline.recall_range(arrivals, config) {
            Some((from, to)) => Step::Recall(from, to),
            None => self.look_up(Vec::new(), config),
        }
    }

    /// Applies the events, after the archived sessions were read that they can belong to.
    pub fn recalled(&mut self, sessions: Result<Vec<SessionState>, SessionError>, config: &SessionConfig) -> Step {
        match sessions {
            Ok(sessions) => self.look_up(sessions, config),
            Err(error) => failed(error),
        }
    }

    /// Asks for the pages that an event may be on; if there are none, applies the events.
    fn look_up(&mut self, recalled: Vec<SessionState>, config: &SessionConfig) -> Step {
        let arrivals = &self.arrivals[..self.count];
        let sessions = self.stored().timeline.sessions_to_look_up(arrivals, &recalled, config);
        self.recalled = recalled;
        if sessions.is_empty() { self.decide(Vec::new(), config) } else { Step::LookUp(sessions) }
    }

    /// Applies the events, after the pages were read that they may be on.
    pub fn looked_up(&mut self, pages: Result<Vec<FingerprintPage>, SessionError>, config: &SessionConfig) -> Step {
        match pages {
            Ok(pages) => self.decide(pages, config),
            Err(error) => failed(error),
        }
    }

    /// Applies the events and decides whether to write the result.
    fn decide(&mut self, pages: Vec<FingerprintPage>, config: &SessionConfig) -> Step {
        let (arrivals, page_size, limits) = (&self.arrivals[..self.count], self.page_size, self.closed_limits);
        let mut recalled = Recalled { sessions: std::mem::take(&mut self.recalled), pages };
        let timeline = &mut self.stored().timeline;
        let moved = timeline.move_to_pages(&mut recalled, page_size);
        let applied = timeline.apply(arrivals, recalled, config);
        let has_changed = applied.changed;
        self.archives_closed = has_changed && limits.are_exceeded(timeline);
        self.pages = moved;
        self.applied = Some(applied);
        match (has_changed, self.base.is_speculative) {
            // What an outdated timeline still has can be erased by now, so nothing of it is archived or put on pages. These are
            // written before the timeline, whose condition would come too late.
            (true, true) if self.archives_closed || !self.pages.is_empty() => Step::Read,
            (true, _) => Step::Write,
            // There is no write whose condition would show that the cached timeline is still the stored one.
            (false, true) => Step::Read,
            (false, false) => self.done(),
        }
    }

    /// Returns what followed from the events in this attempt.
    pub fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    /// Returns the pages that must be stored before the timeline is.
    pub fn pages(&self) -> &[FingerprintPage] {
        &self.pages
    }

    /// Returns whether the closed sessions must be archived before the timeline is stored.
    pub fn archives_closed(&self) -> bool {
        self.archives_closed
    }

    /// Returns the step after a write, or after its pages could not be stored.
    pub fn written(&mut self, outcome: Result<CommitOutcome, SessionError>) -> Step {
        match outcome {
            Ok(CommitOutcome::Done) => self.done(),
            Ok(CommitOutcome::Conflict(winner)) => self.after_conflict(winner.map(|winner| *winner)),
            Err(SessionError::Full) if self.count > 1 => {
                (self.count, self.rest) = (self.count / 2, Some(SessionError::Full));
                Step::Read
            }
            Err(error) => failed(error),
        }
    }

    /// Returns the step after a conflict with another writer, whose item is `winner`.
    fn after_conflict(&mut self, winner: Option<Stored>) -> Step {
        self.conflicts += 1;
        match self.conflicts {
            // The other writer can be the only one, and done. Its item is as current as one that is read now.
            1 => {
                self.replace_base(winner);
                Step::Begin
            }
            MAX_ATTEMPTS.. => failed(SessionError::Contention),
            // There are several writers, so this item is likely to be outdated after the pause.
            conflicts => Step::Pause(conflicts - 2),
        }
    }

    /// Returns the step after a read.
    pub fn read(&mut self, stored: Result<Option<Stored>, SessionError>) -> Step {
        match stored {
            Ok(stored) => {
                self.replace_base(stored);
                Step::Begin
            }
            Err(error) => failed(error),
        }
    }

    /// Returns the timeline that the events are applied to. It is a new one if the visitor has none.
    pub fn stored(&mut self) -> &mut Stored {
        let visitor = self.visitor;
        self.base.stored.get_or_insert_with(|| Stored { timeline: Timeline::new(visitor.clone()), etag: 0 })
    }

    /// Takes the timeline out, after all events were applied to it.
    pub fn take_stored(&mut self) -> Option<Stored> {
        self.base.stored.take()
    }

    /// Returns whether the timeline is from the cache and may be stale.
    pub fn is_speculative(&self) -> bool {
        self.base.is_speculative
    }

    /// Returns whether an attempt met a conflict: the visitor has other writers.
    pub fn has_met_conflict(&self) -> bool {
        self.conflicts > 0
    }

    /// Replaces the base by the stored timeline.
    fn replace_base(&mut self, stored: Option<Stored>) {
        *self.base = Base { stored, is_speculative: false };
    }

    /// Ends with the assignments of this attempt.
    fn done(&mut self) -> Step {
        let assignments = self.applied.take().map(|applied| {
            log_overflow(&applied.overflow);
            applied.assignments
        });
        Step::Done(Resolved { assignments: assignments.unwrap_or_default(), rest: self.rest.take() })
    }
}

/// Ends with an error for all events.
fn failed(error: SessionError) -> Step {
    Step::Done(Resolved::failed(error))
}

/// Logs what the timeline's limits made it finalize early.
fn log_overflow(overflow: &crate::timeline::Overflow) {
    let finalized_early = overflow.finalized_early;
    if finalized_early > 0 {
        tracing::warn!(finalized_early, "a visitor has more events than a timeline can hold");
    }
}

#[cfg(test)]
mod tests;
