//! What the close function takes out of a timeline, and puts back where it does not get done with it.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Notice, Timeline};
use crate::rules::Tally;
use crate::session::Millis;

/// What the close function has to emit of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closing {
    /// Sessions that are over.
    pub ended: Vec<Tally>,
    pub notices: Vec<Notice>,
}

impl Closing {
    /// How many sessions and corrections there are.
    pub fn len(&self) -> usize {
        self.ended.len() + self.notices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps so many sessions at the most, those that began first, and so many corrections; returns the others.
    #[must_use]
    pub fn split_off(&mut self, most: usize) -> Self {
        let (ended, notices) = (self.ended.len().min(most), self.notices.len().min(most));
        Self { ended: self.ended.split_off(ended), notices: self.notices.split_off(notices) }
    }

    /// Keeps the corrections and sessions for which it is `true`; returns the others.
    #[must_use]
    pub fn split(&mut self, notices: &[bool], ended: &[bool]) -> Self {
        Self { ended: split(&mut self.ended, ended), notices: split(&mut self.notices, notices) }
    }

    /// What of this is not in `done` exactly as it is here.
    #[must_use]
    pub fn without(mut self, done: &Self) -> Self {
        let by_id: HashMap<Uuid, &Tally> = done.ended.iter().map(|tally| (tally.id, tally)).collect();
        self.ended.retain(|tally| by_id.get(&tally.id) != Some(&tally));
        self.notices.retain(|notice| !done.notices.contains(notice));
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
        self.ended.sort_by_key(|tally| tally.started_at);
        self.notices.splice(..0, rest.notices);
        self.due_at = self.due_at.into_iter().chain(due_at).min();
    }
}
