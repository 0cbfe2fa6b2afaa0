//! One session at a time: find it, begin it, record in it, end it.

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
    /// The session that an id means: its own, or the one it was merged into.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] where no session has this id, [`SessionError::Ambiguous`] where two visitors' sessions have it;
    /// storage errors.
    pub async fn get(&self, session_id: &str) -> Result<Session, SessionError> {
        let mut found = self.found(parse(session_id)?).await?;
        // Visitors with equal bits: to answer with the session of either would be a guess.
        if found.len() > 1 {
            return Err(SessionError::Ambiguous);
        }
        found.pop().ok_or(SessionError::NotFound)
    }

    /// The visitor's session that an id means.
    async fn get_of(&self, visitor: &Visitor, id: Uuid) -> Result<Session, SessionError> {
        let is_theirs =
            |session: &Session| session.project == visitor.project && session.distinct_id == visitor.distinct_id;
        self.found(id).await?.into_iter().find(is_theirs).ok_or(SessionError::NotFound)
    }

    /// The sessions that an id means: one for each visitor that has one.
    async fn found(&self, id: Uuid) -> Result<Vec<Session>, SessionError> {
        let partition = self.storage.find(id).await?;
        let now = self.clock.now();
        let here = partition.timelines.iter().filter_map(|timeline| timeline.session(id, now, &self.config));
        let mut found: Vec<Session> = here.collect();
        for (visitor, state) in &partition.archived {
            let is_theirs =
                |session: &Session| session.project == visitor.project && session.distinct_id == visitor.distinct_id;
            // What a timeline holds of a session is at least as new as the archive.
            if !found.iter().any(is_theirs) {
                found.push(state.ended_session(visitor));
            }
        }
        Ok(found)
    }

    /// The visitor's latest session, live or over.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] where the visitor has none; storage errors.
    pub async fn get_by_user(&self, visitor: impl Into<Visitor>) -> Result<Session, SessionError> {
        let visitor = visitor.into();
        let stored = self.storage.read(&visitor).await?.ok_or(SessionError::NotFound)?;
        let timeline = stored.timeline;
        if let Some(session) = timeline.sessions(self.clock.now(), &self.config).pop() {
            return Ok(session);
        }
        let last = timeline.previous.ok_or(SessionError::NotFound)?;
        self.get_of(&visitor, last.id).await
    }

    /// The session that an event of the visitor with this context would belong to now; begins one if there is none. It counts
    /// no event.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn get_or_create(
        &self,
        visitor: impl Into<Visitor>,
        context: SessionContext,
    ) -> Result<Session, SessionError> {
        let visitor = visitor.into();
        let touch = self.entry(Kind::Touch, context);
        let stored = self.storage.read(&visitor).await?;
        if let Some(stored) = stored.filter(|stored| !stored.timeline.would_begin(&touch, &self.config)) {
            let session = stored.timeline.sessions(touch.at, &self.config).pop();
            return session.ok_or(SessionError::NotFound);
        }
        self.record(&visitor, touch).await
    }

    /// Records an event, now, for the visitor of a session; returns the session that it belongs to.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] where no session has this id; storage errors.
    pub async fn update(&self, session_id: &str, event_type: EventType) -> Result<Session, SessionError> {
        let session = self.get(session_id).await?;
        let visitor = Visitor { project: session.project, distinct_id: session.distinct_id };
        let entry = match event_type {
            EventType::Pageview(url) => {
                self.entry(Kind::Pageview, SessionContext { url: Some(url.into()), ..SessionContext::default() })
            }
            EventType::Event => self.entry(Kind::Event, SessionContext::default()),
        };
        self.record(&visitor, entry).await
    }

    /// Ends a session: the visitor's next event begins another, with the reason `explicit`. Ending one that is over changes
    /// nothing.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] where no session has this id; storage errors.
    pub async fn end_session(&self, session_id: &str) -> Result<Session, SessionError> {
        let id = parse(session_id)?;
        for attempt in 0..MAX_ATTEMPTS {
            let found = self.get(session_id).await?;
            let visitor = Visitor { project: found.project.clone(), distinct_id: found.distinct_id.clone() };
            let Some(stored) = self.storage.read(&visitor).await? else { return Ok(found) };
            let mut timeline: Timeline = stored.timeline;
            let now = self.clock.now();
            if !timeline.end(id, now, &self.config) {
                // It is over by this item; the one that led here may be older. Or it was archived in between.
                return match timeline.session(id, now, &self.config) {
                    Some(session) => Ok(session),
                    None => self.get_of(&visitor, id).await,
                };
            }
            if self.write(&timeline, Some(stored.etag), self.clock.random()).await? == CommitOutcome::Done {
                return timeline.session(id, now, &self.config).ok_or(SessionError::NotFound);
            }
            self.pause(attempt).await;
        }
        Err(SessionError::Contention)
    }

    fn entry(&self, kind: Kind, context: SessionContext) -> Entry {
        let at = self.clock.now();
        let uuid = call_id(at, self.calls.fetch_add(1, Ordering::Relaxed), self.clock.random());
        let uuid = EventId::new(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        let context = bounded_context(context);
        Entry { at, uuid, kind, context, click: None, properties: Vec::new() }
    }

    async fn record(&self, visitor: &Visitor, entry: Entry) -> Result<Session, SessionError> {
        let now = entry.at;
        let stored = self.storage.read(visitor).await?;
        // Calls made one after the other stand in that order, whoever made them and whatever else happened in that millisecond.
        let at = stored.as_ref().map_or(now, |stored| stored.timeline.time_of_call(now, &entry.uuid));
        let entry = Entry { at, ..entry };
        let arrivals = [Arrival { entry, received_at: now, passive: false, timed_by_sent_at: false }];
        // No invocation to end: as long as all attempts may take.
        let deadline = now + 10 * DEADLINE_MARGIN_MS;
        let resolved = self.apply(visitor, &arrivals, &mut Base { stored, is_speculative: false }, deadline).await;
        if let Some(error) = resolved.rest {
            return Err(error);
        }
        let assignment = resolved.assignments.into_iter().next().flatten().ok_or(SessionError::NotFound)?;
        self.get_of(visitor, assignment.session_id).await
    }
}

/// Returns the id of a call's event, a UUID (version 7): the time, the number of the call within this process, random bits. So
/// the calls of a process are in order within a millisecond, too.
fn call_id(at: Millis, number: u64, random: u64) -> Uuid {
    let high = (at.max(0).unsigned_abs() << 16) | 0x7000 | ((number >> 30) & 0xfff);
    let low = (0b10 << 62) | ((number & 0x3fff_ffff) << 32) | (random & 0xffff_ffff);
    Uuid::from_u64_pair(high, low)
}

fn parse(session_id: &str) -> Result<Uuid, SessionError> {
    Uuid::try_parse(session_id).map_err(|_| SessionError::NotFound)
}
