//! What the close function takes out of a timeline, and puts back if it cannot finish it.

use std::collections::HashMap;

use uuid::Uuid;

use super::{ClosedSession, Correction, Timeline};
use crate::model::SessionState;
use crate::session::Millis;

/// The sessions and corrections of a timeline that the close function has to emit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closing {
    /// Sessions that are over. They are archived or kept as closed ones, too.
    pub ended: Vec<SessionState>,
    /// Corrections.
    pub corrections: Vec<Correction>,
}

impl Closing {
    /// Returns the number of sessions and corrections.
    pub fn len(&self) -> usize {
        self.ended.len() + self.corrections.len()
    }

    /// Returns whether there are no sessions and no corrections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `max` sessions and the first `max` corrections, and returns the others.
    #[must_use]
    pub fn split_off(&mut self, max: usize) -> Self {
        let (ended, corrections) = (self.ended.len().min(max), self.corrections.len().min(max));
        Self { ended: self.ended.split_off(ended), corrections: self.corrections.split_off(corrections) }
    }

    /// Keeps the corrections and sessions whose flag is `true`, and returns the others.
    #[must_use]
    pub fn split(&mut self, corrections: &[bool], ended: &[bool]) -> Self {
        Self { ended: split(&mut self.ended, ended), corrections: split(&mut self.corrections, corrections) }
    }

    /// Returns the sessions and corrections that are not in `done`. A session that has changed since `done` is returned, too.
    #[must_use]
    pub fn without(mut self, done: &Self) -> Self {
        let by_id: HashMap<Uuid, &SessionState> = done.ended.iter().map(|state| (state.id, state)).collect();
        self.ended.retain(|state| by_id.get(&state.id) != Some(&state));
        self.corrections.retain(|correction| !done.corrections.contains(correction));
        self
    }
}

/// Keeps the items whose flag is `true`, and returns the others.
fn split<T>(items: &mut Vec<T>, is_kept: &[bool]) -> Vec<T> {
    let mut flags = is_kept.iter();
    items.extract_if(.., |_| flags.next() == Some(&false)).collect()
}

impl Timeline {
    /// Moves the sessions of `closing` that are the same in `kept` to the closed ones. Those that have changed stay in `closing`.
    pub fn keep_closed_again(&mut self, kept: &[ClosedSession], closing: &mut Closing) {
        for closed in kept {
            if let Some(at) = closing.ended.iter().position(|state| *state == closed.state) {
                closing.ended.remove(at);
                self.keep_closed(closed.clone());
            }
        }
    }

    /// Puts back what [`Timeline::close`] took out and the close function could not finish. `due_at` is the timeline's due time
    /// before it was closed.
    pub fn put_back(&mut self, rest: Closing, due_at: Option<Millis>) {
        if rest.is_empty() {
            return;
        }
        self.archived = self.archived.saturating_sub(rest.ended.len() as u32);
        self.ended.extend(rest.ended);
        self.ended.sort_by_key(|state| state.facts.started_at);
        self.corrections.splice(..0, rest.corrections);
        self.due_at = self.due_at.into_iter().chain(due_at).min();
    }
}
