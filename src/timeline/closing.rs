//! What the close function takes out of a timeline, and puts back where it does not get done with it.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Correction, Timeline};
use crate::model::SessionState;
use crate::session::Millis;

/// What the close function has to emit of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closing {
    /// Sessions that are over.
    pub ended: Vec<SessionState>,
    pub corrections: Vec<Correction>,
}

impl Closing {
    /// How many sessions and corrections there are.
    pub fn len(&self) -> usize {
        self.ended.len() + self.corrections.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps so many sessions at the most, those that began first, and so many corrections; returns the others.
    #[must_use]
    pub fn split_off(&mut self, most: usize) -> Self {
        let (ended, corrections) = (self.ended.len().min(most), self.corrections.len().min(most));
        Self { ended: self.ended.split_off(ended), corrections: self.corrections.split_off(corrections) }
    }

    /// Keeps the corrections and sessions for which it is `true`; returns the others.
    #[must_use]
    pub fn split(&mut self, corrections: &[bool], ended: &[bool]) -> Self {
        Self { ended: split(&mut self.ended, ended), corrections: split(&mut self.corrections, corrections) }
    }

    /// What of this is not in `done` exactly as it is here.
    #[must_use]
    pub fn without(mut self, done: &Self) -> Self {
        let by_id: HashMap<Uuid, &SessionState> = done.ended.iter().map(|state| (state.id, state)).collect();
        self.ended.retain(|state| by_id.get(&state.id) != Some(&state));
        self.corrections.retain(|correction| !done.corrections.contains(correction));
        self
    }
}

/// Keeps what is marked, and returns the others.
fn split<T>(all: &mut Vec<T>, is_kept: &[bool]) -> Vec<T> {
    let mut marks = is_kept.iter();
    all.extract_if(.., |_| marks.next() == Some(&false)).collect()
}

impl Timeline {
    /// Puts back what [`Timeline::close`] took out and the close function did not get done with: it is due as it was then.
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
