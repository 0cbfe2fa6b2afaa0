//! What is stored about a visitor: its sessions, all of it as JSON, and its erasure.

mod export;

use std::collections::HashSet;

use uuid::Uuid;

use super::SessionManager;
use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::emitted::erased_line;
use crate::model::SessionState;
use crate::output::Output;
use crate::session::{Millis, Session, Visitor, datetime};
use crate::storage::{Erased, SessionError, SessionStorage, StorageErrorKind, Stored};
pub use export::VisitorExport;

/// With at most this many archived sessions, the whole archive is read: one read costs less than several small ones.
const FEW_SESSIONS: usize = 50;
/// The length of the first range of the archive that is read for a list: a week.
const RANGE_MS: Millis = 7 * 86_400_000;

/// A time behind those of all session ids.
const TIME_END: Millis = (1 << 48) - 1;

/// The place of a session in a list, newest first: the time of its start, then its id.
pub type ListPosition = (Millis, Uuid);

/// A part of the list of a visitor's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// The sessions, newest first.
    pub sessions: Vec<Session>,
    /// The place of the last one, if there are more behind it.
    pub last: Option<ListPosition>,
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Returns a visitor's sessions, live and archived, newest first: at most `limit` of those behind `after`.
    ///
    /// # Errors
    ///
    /// Storage errors.
    pub async fn sessions_of(
        &self,
        visitor: &Visitor,
        after: Option<ListPosition>,
        limit: usize,
    ) -> Result<SessionPage, SessionError> {
        let stored = self.read(visitor, self.clock.now()).await?;
        let mut states = self.states_behind(visitor, stored.as_ref(), after, limit).await?;
        states.retain(|(state, _)| after.is_none_or(|after| position(state) < after));
        let has_more = states.len() > limit;
        states.truncate(limit);
        let last = states.last().filter(|_| has_more).map(|(state, _)| position(state));
        let sessions = states.iter().map(|(state, is_active)| state.session(visitor, *is_active)).collect();
        Ok(SessionPage { sessions, last })
    }

    /// Returns all that is stored about a visitor.
    ///
    /// # Errors
    ///
    /// Storage errors.
    pub async fn export(&self, visitor: &Visitor) -> Result<VisitorExport, SessionError> {
        let stored = self.read(visitor, self.clock.now()).await?;
        let states = self.states_of(visitor, stored.as_ref()).await?;
        let mut export = VisitorExport::new(visitor, stored.as_ref().map(|stored| &stored.timeline), &states);
        #[cfg(feature = "replay")]
        if let Some(replay) = &self.replay {
            export.add_replay(replay.summary(visitor).await?);
        }
        for (state, _) in states.iter().filter(|(state, _)| state.may_have_stored_pages(self.page_size)) {
            export.add_pages(&self.storage.pages(visitor, state.id).await?);
        }
        Ok(export)
    }

    /// Deletes all that is stored about a visitor, and emits `$visitor_erased`, also if nothing was stored: an earlier attempt can
    /// have deleted it and died before it emitted the event. Returns what was deleted, and the time after the deletion.
    ///
    /// An event that is applied at the same time is either erased, or begins the visitor anew.
    ///
    /// # Errors
    ///
    /// Storage errors, also if the output does not accept the event. Then the call has to be repeated.
    pub async fn erase<O: Output>(&self, visitor: &Visitor, output: &O) -> Result<(Erased, Millis), SessionError> {
        self.cache.forget(visitor);
        let erased = self.storage.erase(visitor).await?;
        #[cfg(feature = "replay")]
        let erased = match &self.replay {
            Some(replay) => Erased { replay_chunks: replay.erase(visitor).await?, ..erased },
            None => erased,
        };
        // Consumers delete what is not later than this time. So it is not before the deletion: the events that were deleted were
        // applied before it.
        let now = self.clock.now();
        let line = erased_line(visitor, &erased, datetime(now));
        if !output.send(&[line]).await.is_empty() {
            return Err(SessionError::storage(StorageErrorKind::Other, "the output did not accept `$visitor_erased`"));
        }
        Ok((erased, now))
    }

    /// Returns a visitor's sessions like [`Self::states_of`], but of a visitor with many archived sessions not those that lie behind
    /// the first `limit` sessions behind `after` and one more.
    ///
    /// The archive is read by the times of the sessions' ids, newest first, in ranges that become longer. A session does not begin
    /// after the time of its id. So one that is not read yet begins before the last range, and all behind that are known.
    async fn states_behind(
        &self,
        visitor: &Visitor,
        stored: Option<&Stored>,
        after: Option<ListPosition>,
        limit: usize,
    ) -> Result<Vec<(SessionState, bool)>, SessionError> {
        let Some(stored) = stored.filter(|stored| stored.timeline.archived as usize > FEW_SESSIONS) else {
            return self.states_of(visitor, stored).await;
        };
        let (now, config) = (self.clock.now(), self.rules_of(visitor));
        let mut states = stored.timeline.states(now, config);
        let known: HashSet<Uuid> = states.iter().flat_map(|(state, _)| state.ids()).collect();
        let newest = after.map_or(now, |(at, _)| at);
        let (mut to, mut range_ms) = (after.map_or(TIME_END, |(at, _)| at + max_id_after_start_ms(config)), RANGE_MS);
        loop {
            let from = (newest - range_ms).max(0);
            let archived = self.storage.archived(visitor, from, to).await?;
            let is_new = |state: &SessionState| !known.contains(&state.id);
            states.extend(archived.into_iter().filter(is_new).map(|state| (state, false)));
            let is_listed = |state: &SessionState| {
                state.facts.started_at >= from && after.is_none_or(|after| position(state) < after)
            };
            let listed = states.iter().filter(|(state, _)| is_listed(state)).count();
            if from == 0 || listed > limit {
                break;
            }
            (to, range_ms) = (from - 1, range_ms.saturating_mul(4));
        }
        states.sort_by_key(|(state, _)| std::cmp::Reverse(position(state)));
        Ok(states)
    }

    /// Returns all sessions of a visitor, live and archived, newest first, each with whether an event now would continue it.
    async fn states_of(
        &self,
        visitor: &Visitor,
        stored: Option<&Stored>,
    ) -> Result<Vec<(SessionState, bool)>, SessionError> {
        self.states_between(visitor, stored, (0, TIME_END)).await
    }

    /// Returns the sessions of a visitor's timeline, and the archived ones whose ids have a time in this range, newest first, as
    /// [`Self::states_of`].
    pub(super) async fn states_between(
        &self,
        visitor: &Visitor,
        stored: Option<&Stored>,
        (from, to): (Millis, Millis),
    ) -> Result<Vec<(SessionState, bool)>, SessionError> {
        let (now, config) = (self.clock.now(), self.rules_of(visitor));
        let mut states = stored.map_or_else(Vec::new, |stored| stored.timeline.states(now, config));
        // A session in the timeline is at least as new as in the archive, and so are the ids that were merged into it.
        let known: HashSet<Uuid> = states.iter().flat_map(|(state, _)| state.ids()).collect();
        let archived = self.storage.archived(visitor, from, to).await?;
        states.extend(archived.into_iter().filter(|state| !known.contains(&state.id)).map(|state| (state, false)));
        states.sort_by_key(|(state, _)| std::cmp::Reverse(position(state)));
        Ok(states)
    }
}

/// Returns how long after a session's start the time of its id can be; see `timeline::late`.
pub(super) fn max_id_after_start_ms(config: &SessionConfig) -> Millis {
    2 * config.max_duration_ms()
}

fn position(state: &SessionState) -> ListPosition {
    (state.facts.started_at, state.id)
}
