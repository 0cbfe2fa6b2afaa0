//! The library calls for a single session: find it, begin it, record an event in it, end it.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Arrival, Base, CommitOutcome, DEADLINE_MARGIN_MS, MAX_ATTEMPTS, SessionManager};
use crate::clock::Clock;
use crate::event::bounded_context;
use crate::model::{Entry, Kind};
use crate::session::{EventId, EventType, Millis, Session, SessionContext, Visitor};
use crate::storage::{SessionError, SessionStorage};
use crate::timeline::Timeline;

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Returns the session with this id, or the session that this id was merged into.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`] if no session has this id, [`SessionError::Ambiguous`] if sessions of two visitors have it, and
    /// storage errors.
    pub async fn get(&self, session_id: &str) -> Result<Session, SessionError> {
        let mut found = self.find(parse(session_id)?).await?;
        // Two visitors can have equal bits (`Visitor::bits`). Which of them the id is for is then unknown.
        if found.len() > 1 {
            return Err(SessionError::Ambiguous);
        }
        found.pop().ok_or(SessionError::NotFound)
    }

    /// Returns this visitor's session with this id.
    async fn get_of(&self, visitor: &Visitor, id: Uuid) -> Result<Session, SessionError> {
        let is_theirs =
            |session: &Session| session.project == visitor.project && session.distinct_id == visitor.distinct_id;
        self.find(id).await?.into_iter().find(is_theirs).ok_or(SessionError::NotFound)
    }

    /// Returns the sessions with this id: at most one for each visitor.
    async fn find(&self, id: Uuid) -> Result<Vec<Session>, SessionError> {
        let partition = Box::pin(self.storage.find(id)).await?;
        let now = self.clock.now();
        let kept_since = self.kept_since(now);
        let session = |mut timeline: Timeline| {
            timeline.remove_closed_before(kept_since);
            timeline.session(id, now, self.rules_of(&timeline.visitor))
        };
        let mut found: Vec<Session> = partition.timelines.into_iter().filter_map(session).collect();
        for (visitor, state) in &partition.archived {
            let is_theirs =
                |session: &Session| session.project == visitor.project && session.distinct_id == visitor.distinct_id;
            // A session in a timeline is at least as new as in the archive.
            if !found.iter().any(is_theirs) {
                found.push(state.ended_session(visitor));
            }
        }
        Ok(found)
    }

    /// Returns the visitor's latest session, live or over: the one that an event now would continue or follow.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`] if the visitor has no session, and storage errors.
    pub async fn get_by_user(&self, visitor: impl Into<Visitor>) -> Result<Session, SessionError> {
        let visitor = visitor.into();
        let (now, config) = (self.clock.now(), self.rules_of(&visitor));
        let timeline = self.read(&visitor, now).await?.ok_or(SessionError::NotFound)?.timeline;
        let id = timeline.latest_id(config).ok_or(SessionError::NotFound)?;
        if let Some(session) = timeline.session(id, now, config) {
            return Ok(session);
        }
        match self.get_of(&visitor, id).await {
            // It is not kept any more. A late event can have begun another one since, or changed it.
            Err(SessionError::NotFound) => timeline.sessions(now, config).pop().ok_or(SessionError::NotFound),
            archived => archived,
        }
    }

    /// Returns the session that an event of the visitor with this context would belong to now. Begins a session if there is none.
    /// Counts no event.
    ///
    /// # Errors
    ///
    /// Storage errors.
    pub async fn get_or_create(
        &self,
        visitor: impl Into<Visitor>,
        context: SessionContext,
    ) -> Result<Session, SessionError> {
        let visitor = visitor.into();
        let touch = self.entry(Kind::Touch, context);
        let stored = self.read(&visitor, touch.at).await?;
        let config = self.rules_of(&visitor);
        if let Some(session) = stored.and_then(|stored| stored.timeline.session_of_call(&touch, config)) {
            return Ok(session);
        }
        // Boxed, because a program that awaits this call would otherwise need a larger `recursion_limit`.
        Box::pin(self.record(&visitor, touch)).await
    }

    /// Records an event at the current time for the visitor of a session. Returns the session that the event belongs to, which
    /// can be another one.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`] if no session has this id, and the other errors of [`SessionManager::get`].
    pub async fn update(&self, session_id: &str, event_type: EventType) -> Result<Session, SessionError> {
        let session = self.get(session_id).await?;
        let visitor = Visitor { project: session.project, distinct_id: session.distinct_id };
        let entry = match event_type {
            EventType::Pageview(url) => {
                self.entry(Kind::Pageview, SessionContext { url: Some(url.into()), ..SessionContext::default() })
            }
            EventType::Event => self.entry(Kind::Event, SessionContext::default()),
        };
        // Boxed for the same reason as in `get_or_create`.
        Box::pin(self.record(&visitor, entry)).await
    }

    /// Ends a session and returns it. The visitor's next event begins another session, with the reason `explicit`. If the session
    /// is over already, nothing changes.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotFound`] if no session has this id, [`SessionError::Contention`] after too many conflicts, and the other
    /// errors of [`SessionManager::get`].
    pub async fn end_session(&self, session_id: &str) -> Result<Session, SessionError> {
        let id = parse(session_id)?;
        for attempt in 0..MAX_ATTEMPTS {
            if let Some(pauses) = attempt.checked_sub(1) {
                self.pause(pauses, Millis::MAX).await?;
            }
            let found = self.get(session_id).await?;
            let visitor = Visitor { project: found.project.clone(), distinct_id: found.distinct_id.clone() };
            let Some(stored) = self.read(&visitor, self.clock.now()).await? else {
                // A live session is in a timeline, so the visitor was erased between the two reads.
                return if found.is_active { Err(SessionError::NotFound) } else { Ok(found) };
            };
            let mut timeline: Timeline = stored.timeline;
            let (now, config) = (self.clock.now(), self.rules_of(&visitor));
            if !timeline.end(id, now, config) {
                // The session is over according to this read, which can be newer than the one in `get`. Or it was archived in
                // between.
                return match timeline.session(id, now, config) {
                    Some(session) => Ok(session),
                    None => self.get_of(&visitor, id).await,
                };
            }
            if self.write(&timeline, Some(stored.etag), self.clock.random()).await? == CommitOutcome::Done {
                return timeline.session(id, now, config).ok_or(SessionError::NotFound);
            }
        }
        Err(SessionError::Contention)
    }

    /// Returns an entry for a library call at the current time, with a new id.
    fn entry(&self, kind: Kind, context: SessionContext) -> Entry {
        let at = self.clock.now();
        let uuid = call_id(at, self.calls.fetch_add(1, Ordering::Relaxed), self.clock.random());
        let uuid = EventId::new(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        let context = bounded_context(context);
        Entry { at, uuid, kind, context, click: None, properties: Vec::new() }
    }

    /// Applies the entry of a library call. Returns the session that it belongs to.
    async fn record(&self, visitor: &Visitor, entry: Entry) -> Result<Session, SessionError> {
        let now = entry.at;
        let stored = self.read(visitor, now).await?;
        // Calls that are made one after the other must be placed in that order, also within a millisecond and from several
        // processes.
        let at = stored.as_ref().map_or(now, |stored| stored.timeline.time_of_call(now, &entry.uuid));
        let entry = Entry { at, ..entry };
        let arrivals =
            [Arrival { entry, received_at: now, passive: false, timed_by_sent_at: false, may_change_time: false }];
        // A library call has no invocation that ends, so this is simply enough time for all attempts.
        let deadline = now + 10 * DEADLINE_MARGIN_MS;
        let mut base = Base { stored, is_speculative: false };
        // Boxed, so that a caller's future is not nested deeper than the compiler's default limit.
        let resolved = Box::pin(self.apply(visitor, &arrivals, &mut base, deadline)).await;
        if let Some(error) = resolved.rest {
            return Err(error);
        }
        let assignment = resolved.assignments.into_iter().next().flatten().ok_or(SessionError::NotFound)?;
        self.get_of(visitor, assignment.session_id).await
    }
}

/// Returns the id of a call's event, a UUID of version 7. It holds the time, the number of the call in this process, and random
/// bits. So the ids of a process are in the order of its calls, also within a millisecond.
fn call_id(at: Millis, number: u64, random: u64) -> Uuid {
    let high = (at.max(0).unsigned_abs() << 16) | 0x7000 | ((number >> 30) & 0xfff);
    let low = (0b10 << 62) | ((number & 0x3fff_ffff) << 32) | (random & 0xffff_ffff);
    Uuid::from_u64_pair(high, low)
}

/// Parses a session id. No session has an id that is not a UUID.
fn parse(session_id: &str) -> Result<Uuid, SessionError> {
    Uuid::try_parse(session_id).map_err(|_| SessionError::NotFound)
}
