//! What is stored about a visitor: its sessions, all of it as JSON, and its erasure.

mod export;

use std::collections::HashSet;

use uuid::Uuid;

use super::SessionManager;
use crate::clock::Clock;
use crate::emitted::erased_line;
use crate::model::SessionState;
use crate::output::Output;
use crate::session::{Millis, Session, Visitor, datetime};
use crate::storage::{Erased, SessionError, SessionStorage, StorageErrorKind, Stored};
pub use export::VisitorExport;

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
        let stored = self.storage.read(visitor).await?;
        let mut states = self.states_of(visitor, stored.as_ref()).await?;
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
        let stored = self.storage.read(visitor).await?;
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
    /// have deleted it and died before it emitted the event. Returns what was deleted, and when.
    ///
    /// An event that is applied at the same time is either erased, or begins the visitor anew.
    ///
    /// # Errors
    ///
    /// Storage errors, also if the output does not accept the event. Then the call has to be repeated.
    pub async fn erase<O: Output>(&self, visitor: &Visitor, output: &O) -> Result<(Erased, Millis), SessionError> {
        let now = self.clock.now();
        self.cache.forget(visitor);
        let erased = self.storage.erase(visitor).await?;
        #[cfg(feature = "replay")]
        let erased = match &self.replay {
            Some(replay) => Erased { replay_chunks: replay.erase(visitor).await?, ..erased },
            None => erased,
        };
        let line = erased_line(visitor, &erased, datetime(now));
        if !output.send(&[line]).await.is_empty() {
            return Err(SessionError::storage(StorageErrorKind::Other, "the output did not accept `$visitor_erased`"));
        }
        Ok((erased, now))
    }

    /// Returns all sessions of a visitor, live and archived, newest first, each with whether an event now would continue it.
    async fn states_of(
        &self,
        visitor: &Visitor,
        stored: Option<&Stored>,
    ) -> Result<Vec<(SessionState, bool)>, SessionError> {
        self.states_between(visitor, stored, (0, TIME_END)).await
    }

    /// Returns the live sessions of a visitor, and the archived ones that began in this time, newest first, as [`Self::states_of`].
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

fn position(state: &SessionState) -> ListPosition {
    (state.facts.started_at, state.id)
}
