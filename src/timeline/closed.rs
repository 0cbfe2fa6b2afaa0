//! Closed sessions: their ends were emitted, and they stay in the timeline instead of being archived.
//!
//! When a session is closed, its timeline has to be written anyway, to leave the due index. A small session that stays in it
//! costs nothing more, while the archive costs a write. For late events a closed session is like an archived one that is always
//! recalled: one that changes waits for the close function again, and the others stay.
//!
//! A closed session has no pages, because those would have to expire with it.

use super::Timeline;
use crate::model::SessionState;
use crate::session::Millis;

/// A session whose end was emitted, and that is not archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSession {
    /// The session.
    pub state: SessionState,
    /// When it was closed. It is kept as long as if it had been archived then.
    pub closed_at: Millis,
}

impl Timeline {
    /// Keeps a session that [`Timeline::close`] took out and whose end was emitted. It is not archived.
    pub fn keep_closed(&mut self, closed: ClosedSession) {
        self.archived = self.archived.saturating_sub(1);
        let start = closed.state.facts.started_at;
        let at = self.closed.partition_point(|other| other.state.facts.started_at <= start);
        self.closed.insert(at, closed);
    }

    /// Removes the closed sessions, which are archived now.
    pub fn remove_archived(&mut self) {
        self.archived = self.archived.saturating_add(self.closed.len() as u32);
        self.closed.clear();
    }

    /// Removes the sessions that were closed before this time, because they are not kept any longer.
    pub fn remove_closed_before(&mut self, time: Millis) {
        self.closed.retain(|closed| closed.closed_at >= time);
    }

    /// Returns the number of sessions that a late event can reopen.
    pub(super) fn emitted(&self) -> u32 {
        self.archived.saturating_add(self.closed.len() as u32)
    }
}
