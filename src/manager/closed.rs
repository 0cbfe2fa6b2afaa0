//! Which closed sessions stay in their timeline, and when they are archived after all.
//!
//! A closed session that stays saves the write to the archive, as long as no write of the timeline costs a second unit for it. So
//! the close function leaves it there only if the timeline is small, and a write of events archives it before the item would leave
//! its first kilobyte. At worst a session is archived later than without this, and for the same price.

use futures_util::{StreamExt, stream};

use super::SessionManager;
use crate::clock::Clock;
use crate::model::SessionState;
use crate::session::{Millis, Visitor};
use crate::storage::{SessionError, SessionStorage};
use crate::stored::encode_timeline;
use crate::timeline::{ClosedSession, Timeline};

/// The maximum number of closed sessions of a timeline that are archived concurrently. Hardly more fit into a small timeline.
const ARCHIVED_AT_ONCE: usize = 8;

/// How large a timeline with closed sessions may be. Functions with different limits do no harm.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedLimits {
    /// When the close function leaves it, in bytes of its stored form.
    pub at_rest_bytes: usize,
    /// When events are added, in bytes of its stored form and of the visitor's ids.
    pub with_events_bytes: usize,
}

impl Default for ClosedLimits {
    fn default() -> Self {
        // At rest, half of the first kilobyte is left to the next visit. With events, all of it may be used: the other attributes
        // of the item take up to 96 bytes.
        Self { at_rest_bytes: 512, with_events_bytes: 1024 - 96 }
    }
}

impl ClosedLimits {
    /// Returns whether the closed sessions have to be archived before the timeline is written.
    pub fn are_exceeded(&self, timeline: &Timeline) -> bool {
        let Visitor { project, distinct_id } = &timeline.visitor;
        !timeline.closed.is_empty()
            && encode_timeline(timeline).len() + project.len() + distinct_id.len() > self.with_events_bytes
    }
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Sets the maximum sizes of timelines with closed sessions, in bytes: when the close function leaves them, and when events
    /// are added. It is for tests only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_closed_bytes(self, at_rest_bytes: usize, with_events_bytes: usize) -> Self {
        Self { closed_limits: ClosedLimits { at_rest_bytes, with_events_bytes }, ..self }
    }

    /// Returns the time before which sessions were closed that are no longer kept at `now`.
    pub(super) fn kept_since(&self, now: Millis) -> Millis {
        now.saturating_sub(self.retention)
    }

    /// Moves sessions from `ended` to the closed ones of the timeline, while that stays small. Returns copies of them.
    pub(super) fn keep_closed(&self, timeline: &mut Timeline, ended: &mut Vec<SessionState>) -> Vec<ClosedSession> {
        let closed_at = self.clock.now();
        // If more is over than the step closes, the timeline is not small.
        let mut is_full = !timeline.ended.is_empty();
        let may_stay = |state: &mut SessionState| {
            if is_full || state.may_have_stored_pages(self.page_size) {
                return false;
            }
            let mut larger = timeline.clone();
            larger.keep_closed(ClosedSession { state: state.clone(), closed_at });
            is_full = encode_timeline(&larger).len() > self.closed_limits.at_rest_bytes;
            if !is_full {
                *timeline = larger;
            }
            !is_full
        };
        ended.extract_if(.., may_stay).map(|state| ClosedSession { state, closed_at }).collect()
    }

    /// Archives the closed sessions of a timeline and takes them out. Each expires as if it had been archived when it was closed.
    ///
    /// They are archived concurrently, because the batch waits for them, and an attempt to write has the time for one call more.
    pub(super) async fn archive_closed(&self, timeline: &mut Timeline) -> Result<(), SessionError> {
        let archive = |ClosedSession { state, closed_at }: &ClosedSession| {
            let (visitor, state) = (timeline.visitor.clone(), state.clone());
            let expires_at = closed_at.saturating_add(self.retention);
            async move { self.storage.archive(&visitor, &state, expires_at).await }
        };
        let archives: Vec<_> = timeline.closed.iter().map(archive).collect();
        let archived: Vec<_> = stream::iter(archives).buffer_unordered(ARCHIVED_AT_ONCE).collect().await;
        for result in archived {
            match result {
                Ok(()) => {}
                // An item in the archive that cannot be replaced must not stop the visitor's events.
                Err(error @ (SessionError::Corrupt { .. } | SessionError::Newer { .. })) => {
                    let (kind, error) = (error.kind_name(), error.with_causes());
                    tracing::error!(kind, %error, "a closed session cannot be archived; it stays in the timeline");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        timeline.remove_archived();
        Ok(())
    }
}
