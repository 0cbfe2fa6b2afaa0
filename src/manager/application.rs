//! How a visitor's events are applied, decided without a store: each method takes what the store answered and returns what to ask
//! it for next. [`super::SessionManager::apply`] is the loop that asks.
//!
//! ```text
//!   Begin ─> Recall ─> Write ─> Done
//!     ^         │        └────> Pause ─> Begin     another writer was first: apply to what it wrote
//!     │         └────> Read ──> Begin              nothing to write, but what it was applied to may be stale
//!     └─────────────── Read <── Write              the item has no room: apply fewer events
//! ```

use super::{Base, Resolved};
use crate::config::SessionConfig;
use crate::model::SessionState;
use crate::session::{Millis, Visitor};
use crate::storage::{CommitOutcome, SessionError, Stored};
use crate::timeline::{Applied, Arrival, Timeline};

/// Attempts to write one timeline. Each conflict means that another writer won it: with ten writers on one visitor
/// the unluckiest needs ten.
pub(super) const MAX_ATTEMPTS: u32 = 16;

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Begin an attempt, if there is time for one.
    Begin,
    /// Read the archived sessions that began between these times.
    Recall(Millis, Millis),
    /// Write the timeline under the condition that it is still the one that was read.
    Write,
    /// Read the timeline as it is now.
    Read,
    /// Wait before the attempt after this one, then begin it.
    Pause(u32),
    /// Nothing: this became of the events.
    Done(Resolved),
}

/// A visitor's events on their way into its timeline. Timelines are large: this one changes where it is.
#[derive(Debug)]
pub(super) struct Application<'a> {
    pub visitor: &'a Visitor,
    arrivals: &'a [Arrival],
    base: &'a mut Base,
    /// The etag that a write replaces; none where there is no timeline.
    pub replaces: Option<u64>,
    /// What the arrivals came to in this attempt.
    applied: Option<Applied>,
    /// How many of the arrivals are applied: all, unless the item cannot hold what they make.
    count: usize,
    /// What became of the others.
    rest: Option<SessionError>,
    attempt: u32,
}

impl<'a> Application<'a> {
    pub fn new(visitor: &'a Visitor, arrivals: &'a [Arrival], base: &'a mut Base) -> Self {
        let count = arrivals.len();
        Self { visitor, arrivals, base, replaces: None, applied: None, count, rest: None, attempt: 0 }
    }

    /// Begins an attempt, unless the time is up.
    pub fn begin(&mut self, is_time_up: bool, config: &SessionConfig) -> Step {
        if self.attempt == MAX_ATTEMPTS {
            return failed(SessionError::Contention);
        }
        if is_time_up {
            return failed(SessionError::Deadline);
        }
        self.attempt += 1;
        self.replaces = self.base.stored.as_ref().map(|stored| stored.etag);
        let arrivals = &self.arrivals[..self.count];
        match self.stored().timeline.recall_range(arrivals, config) {
            Some((from, to)) => Step::Recall(from, to),
            None => self.decide(Vec::new(), config),
        }
    }

    /// Applies the events, given the archived sessions that late ones among them may belong to.
    pub fn recalled(&mut self, sessions: Result<Vec<SessionState>, SessionError>, config: &SessionConfig) -> Step {
        match sessions {
            Ok(sessions) => self.decide(sessions, config),
            Err(error) => failed(error),
        }
    }

    fn decide(&mut self, recalled: Vec<SessionState>, config: &SessionConfig) -> Step {
        let arrivals = &self.arrivals[..self.count];
        let applied = self.stored().timeline.apply(arrivals, recalled, config);
        let has_changed = applied.changed;
        self.applied = Some(applied);
        match (has_changed, self.base.is_speculative) {
            (true, _) => Step::Write,
            // No write will prove that the cached timeline is the stored one.
            (false, true) => Step::Read,
            (false, false) => self.done(),
        }
    }

    /// Goes on after a write.
    pub fn written(&mut self, outcome: Result<CommitOutcome, SessionError>) -> Step {
        match outcome {
            Ok(CommitOutcome::Done) => self.done(),
            Ok(CommitOutcome::Conflict(winner)) => {
                let was_speculative = self.go_on_with(winner.map(|winner| *winner));
                // A stale cache is no race with others at work.
                if was_speculative { Step::Begin } else { Step::Pause(self.attempt - 1) }
            }
            Err(SessionError::Full) if self.count > 1 => {
                (self.count, self.rest) = (self.count / 2, Some(SessionError::Full));
                Step::Read
            }
            Err(error) => failed(error),
        }
    }

    /// Goes on with what was read.
    pub fn read(&mut self, stored: Result<Option<Stored>, SessionError>) -> Step {
        match stored {
            Ok(stored) => {
                self.go_on_with(stored);
                Step::Begin
            }
            Err(error) => failed(error),
        }
    }

    /// The timeline that the events are applied to; a new one where the visitor has none.
    pub fn stored(&mut self) -> &mut Stored {
        let visitor = self.visitor;
        self.base.stored.get_or_insert_with(|| Stored { timeline: Timeline::new(visitor.clone()), etag: 0 })
    }

    /// Takes the timeline out, once nothing more is applied to it.
    pub fn take_stored(&mut self) -> Option<Stored> {
        self.base.stored.take()
    }

    /// Whether the timeline is from the cache, and may be stale.
    pub fn is_speculative(&self) -> bool {
        self.base.is_speculative
    }

    /// Takes this as the stored timeline; returns whether the one before was from the cache.
    fn go_on_with(&mut self, stored: Option<Stored>) -> bool {
        self.base.stored = stored;
        std::mem::replace(&mut self.base.is_speculative, false)
    }

    fn done(&mut self) -> Step {
        let assignments = self.applied.take().map(|applied| {
            log_overflow(&applied.overflow);
            applied.assignments
        });
        Step::Done(Resolved { assignments: assignments.unwrap_or_default(), rest: self.rest.take() })
    }
}

fn failed(error: SessionError) -> Step {
    Step::Done(Resolved::failed(error))
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
