//! Recorded events: keeps those of a batch, and reads the replay of a session.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::SessionManager;
use super::visitors::max_id_after_start_ms;
use crate::clock::Clock;
use crate::replay::chunk::{StoredEvent, pack};
use crate::replay::page::{MAX_LEAD_MS, PageLimits, ReplayPosition, Span};
use crate::replay::{ReplayEvent, ReplayStore, SessionReplay};
use crate::session::{Millis, Visitor, datetime};
use crate::storage::{SessionError, SessionStorage};

/// A page of a session's replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayPage {
    /// The events.
    #[serde(flatten)]
    pub replay: SessionReplay,
    /// Where the next page begins: what to pass as `after` to get it. `None` if this page is the last one.
    pub after: Option<String>,
}

/// A session as far as the place of recorded events depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    id: Uuid,
    start: Millis,
    last: Millis,
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Turns session replay on: recorded events are kept in this store.
    #[must_use]
    pub fn with_replay(self, store: ReplayStore) -> Self {
        Self { replay: Some(store), ..self }
    }

    /// Returns the store of recorded events, if replay is on.
    pub fn replay_store(&self) -> Option<&ReplayStore> {
        self.replay.as_ref()
    }

    /// Keeps the recorded events of visitors. Returns an outcome for each visitor, in order.
    pub(crate) async fn keep_replay(
        &self,
        recordings: BTreeMap<Visitor, Vec<StoredEvent>>,
        deadline: Millis,
    ) -> Vec<Result<(), SessionError>> {
        let Some(store) = &self.replay else { return recordings.into_iter().map(|_| Ok(())).collect() };
        let mut outcomes = Vec::with_capacity(recordings.len());
        let puts = recordings.into_iter().map(|(visitor, events)| async move {
            if self.is_time_up(deadline) {
                return Err(SessionError::Deadline);
            }
            let (count, chunks) = (events.len(), pack(events));
            let bytes = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            store.put(&visitor, chunks).await?;
            self.counters.count_replay(count, bytes);
            Ok(())
        });
        let puts: Vec<_> = puts.collect();
        let mut done = futures_util::StreamExt::buffered(futures_util::stream::iter(puts), super::VISITORS_PER_CHUNK);
        while let Some(outcome) = futures_util::StreamExt::next(&mut done).await {
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Counts recorded events that are not kept, because their visitor is nobody or an excluded bot.
    pub(crate) fn drop_replay(&self, count: usize) {
        self.counters.count_dropped_replay(count);
    }

    /// Returns a page of the replay of a session, or of the session that it was merged into: the recorded events that belong to it
    /// now, ordered by time, each once. `after` is the last page's [`ReplayPage::after`].
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`] if no session has this id or replay is off, and storage errors.
    pub async fn replay(
        &self,
        session_id: &str,
        after: Option<ReplayPosition>,
        limits: PageLimits,
    ) -> Result<ReplayPage, SessionError> {
        let store = self.replay.as_ref().ok_or(SessionError::NotFound)?;
        let session = self.get(session_id).await?;
        let visitor = Visitor { project: session.project, distinct_id: session.distinct_id };
        let id = Uuid::try_parse(&session.id).map_err(|_| SessionError::NotFound)?;
        let config = self.rules_of(&visitor);
        let (start, last) = (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis());
        let timeout = config.timeout.num_milliseconds();
        let reach = config.max_duration.num_milliseconds() + timeout + MAX_LEAD_MS;
        // The archive is read by the times of the sessions' ids.
        let until = last + timeout + max_id_after_start_ms(config);
        let places = self.places(&visitor, (start - reach, until)).await?;
        let place = *places.iter().find(|place| place.id == id).ok_or(SessionError::NotFound)?;
        // The session of a time is what `Timeline::apply` finds for a passive event of that time.
        let session_at = |at: Millis| {
            let covers = |place: &&Place| place.start <= at && !config.is_timeout(at - place.last);
            places.iter().rev().find(covers).map(|place| place.id)
        };
        // Whether a time that is as far from an activity as the timeout is in the session is a rule of its own.
        let covered = timeout + Millis::from(!config.is_timeout(timeout));
        let before = places.iter().filter(|other| other.start < place.start).map(|other| other.last + covered);
        let free_from = before.max().unwrap_or(Millis::MIN).min(place.start);
        let span = Span { free_from, start: place.start, end: place.last + timeout };
        let page = store.page(&visitor, span, |at| session_at(at) == Some(id), after, limits).await?;
        let events = page.events.into_iter().map(replay_event).collect::<Option<_>>();
        let corrupt = || SessionError::Corrupt { item: "replay".to_owned(), reason: "an event is not JSON".to_owned() };
        let replay = SessionReplay { session_id: session.id, events: events.ok_or_else(corrupt)? };
        Ok(ReplayPage { replay, after: page.after.map(|after| after.write()) })
    }

    /// Returns the sessions of a visitor that are in its timeline, or that are archived and whose ids have a time in this range, oldest
    /// first.
    async fn places(&self, visitor: &Visitor, ids: (Millis, Millis)) -> Result<Vec<Place>, SessionError> {
        let stored = self.read(visitor, self.clock.now()).await?;
        let states = self.states_between(visitor, stored.as_ref(), (ids.0.max(0), ids.1)).await?;
        let place = |state: &crate::model::SessionState| {
            let facts = &state.facts;
            Place { id: state.id, start: facts.started_at, last: facts.last_activity }
        };
        // Sessions are newest first there.
        Ok(states.iter().rev().map(|(state, _)| place(state)).collect())
    }
}

fn replay_event(event: StoredEvent) -> Option<ReplayEvent> {
    let data = serde_json::from_str(&event.data).ok()?;
    Some(ReplayEvent { timestamp: datetime(event.at), event_type: event.event_type, data })
}
