//! The state on one way through a world: what was delivered so far, the timeline, the archive, and what a consumer of the output
//! has.

use std::fmt;

use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Session};
use session_tracking::timeline::{Applied, Arrival, ClosedSession, Closing, Recalled, Timeline};
use uuid::Uuid;

use super::consumer::{Consumer, SessionVersions, id_of};
use super::world::{Expected, MAX_EVENTS, SOURCES, Sources, World, members, uuid_of};

/// The number of fingerprints on a page. With one, each batch moves what was finalized before it.
const PAGE_SIZE: usize = 1;

/// When batches are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// As late as the allowed lateness of the oldest missing event permits. Every order of arrival is then in time, and the
    /// timeline may finalize as much as possible. (Events after that time are then from clocks that are ahead.)
    Latest,
    /// When the newest event so far happens. Other events come in time or late.
    Newest,
    /// When the newest event of the batch happens, even if batches that were received later came first: some deliveries take
    /// longer than others.
    Own,
}

#[derive(Debug, Clone)]
pub struct Run<'w> {
    pub world: &'w World,
    pub clock: Clock,
    pub timeline: Timeline,
    /// The sessions whose ends were emitted, in the order of their first end, each in its last version.
    pub emitted: Vec<SessionState>,
    /// The maximum number of closed sessions that stay in the timeline.
    max_closed: usize,
    /// The archive of the store. A session that came back into the timeline leaves an older version here.
    archive: Vec<SessionState>,
    /// The stored pages.
    pages: Vec<FingerprintPage>,
    pub consumer: Consumer,
    /// The set of events delivered so far.
    pub delivered: usize,
    /// The set of delivered events that were late.
    pub late: usize,
    /// The sources of the events delivered so far.
    pub sources: Sources,
    /// The set of events at whose times a request ended the session.
    pub ends: usize,
    pub now: Millis,
    /// All versions of sessions so far.
    pub versions: SessionVersions,
    /// The steps so far, in the notation of [`super::EXACT_WAYS`].
    steps: String,
}

impl<'w> Run<'w> {
    pub fn new(world: &'w World, clock: Clock, max_closed: usize) -> Self {
        let mut run = Self {
            world,
            clock,
            timeline: Timeline::new(world.visitor.clone()),
            emitted: Vec::new(),
            max_closed,
            archive: Vec::new(),
            pages: Vec::new(),
            consumer: Consumer::default(),
            delivered: 0,
            late: 0,
            sources: [0; MAX_EVENTS],
            ends: 0,
            now: Millis::MIN,
            versions: SessionVersions::default(),
            steps: String::new(),
        };
        run.now = run.time_for(0);
        run
    }

    /// Returns when a batch is received. For an empty batch: the current time.
    pub fn time_for(&self, batch: usize) -> Millis {
        let newest = |set: usize| members(set).map(|event| self.world.at(event)).max();
        let rest = self.world.all() & !self.delivered;
        let time = match self.clock {
            Clock::Latest => members(rest).map(|event| self.world.at(event) + self.world.lateness()).min(),
            Clock::Newest => newest(self.delivered | batch),
            Clock::Own if batch != 0 => return newest(batch).unwrap_or(self.now),
            Clock::Own => newest(self.delivered),
        };
        time.unwrap_or(self.now).max(self.now)
    }

    /// Returns the latest time at which something can happen before the next batch.
    pub fn latest(&self) -> Millis {
        if self.clock == Clock::Latest { self.time_for(0) } else { Millis::MAX }
    }

    /// Returns whether a delivered event is a keep-alive event.
    pub fn is_keep_alive(&self, event: usize) -> bool {
        SOURCES[self.sources[event]] == 'K'
    }

    /// Delivers a batch, in this order, with these sources.
    pub fn deliver(&mut self, batch: &[usize], sources: Sources) -> Applied {
        let set: usize = batch.iter().map(|event| 1 << event).sum();
        let received_at = self.time_for(set);
        self.now = self.now.max(received_at);
        self.delivered |= set;
        self.sources = sources;
        self.steps.push(' ');
        for &event in batch {
            self.steps.push_str(uuid_of(event));
        }
        let applied = self.apply(batch, &sources, received_at);
        for (&event, assignment) in batch.iter().zip(&applied.assignments) {
            // A keep-alive event does not belong to a session.
            if let Some(assignment) = assignment.as_ref().filter(|_| !self.is_keep_alive(event)) {
                self.late |= usize::from(assignment.is_late) << event;
                self.consumer.record(event, assignment.session_id, assignment.version);
            }
        }
        applied
    }

    /// Applies a batch to the timeline. Stores the pages, and archives the closed sessions that leave the timeline.
    pub fn apply(&mut self, batch: &[usize], sources: &Sources, received_at: Millis) -> Applied {
        let (timeline, applied, moved) = self.applied_with_pages(batch, sources, received_at);
        let is_closed = |closed: &&ClosedSession| timeline.finalized().all(|state| state.id != closed.state.id);
        let left: Vec<ClosedSession> = self.timeline.closed.iter().filter(is_closed).cloned().collect();
        left.iter().for_each(|closed| put(&mut self.archive, &closed.state));
        self.timeline = timeline;
        for page in moved {
            let is_same = |other: &&FingerprintPage| {
                other.session_id == page.session_id && other.number == page.number && other.is_late == page.is_late
            };
            match self.pages.iter().find(is_same) {
                Some(known) => assert_eq!(*known, page, "a page has two contents: {self}"),
                None => self.pages.push(page),
            }
        }
        applied
    }

    /// Returns the timeline as it would be after this batch.
    pub fn applied(&self, batch: &[usize], sources: &Sources, received_at: Millis) -> (Timeline, Applied) {
        let (timeline, applied, _) = self.applied_with_pages(batch, sources, received_at);
        (timeline, applied)
    }

    /// Returns the timeline as it would be after this batch, and the pages that are stored before it is.
    fn applied_with_pages(
        &self,
        batch: &[usize],
        sources: &Sources,
        received_at: Millis,
    ) -> (Timeline, Applied, Vec<FingerprintPage>) {
        let arrival = |&event: &usize| self.world.arrival(event, sources[event]).clone();
        let arrivals: Vec<Arrival> = batch.iter().map(|event| Arrival { received_at, ..arrival(event) }).collect();
        let mut timeline = self.timeline.clone();
        let sessions = match timeline.recall_range(&arrivals, &self.world.rules) {
            None => Vec::new(),
            Some((from, to)) => {
                let is_near = |state: &&SessionState| (from..=to).contains(&((state.id.as_u128() >> 80) as Millis));
                self.archive.iter().filter(is_near).cloned().collect()
            }
        };
        let ids = timeline.sessions_to_look_up(&arrivals, &sessions, &self.world.rules);
        let pages = self.pages.iter().filter(|page| ids.contains(&page.session_id)).cloned().collect();
        let mut recalled = Recalled { sessions, pages };
        let moved = timeline.move_to_pages(&mut recalled, PAGE_SIZE);
        let prepared = (!moved.is_empty()).then(|| timeline.clone());
        // One in four, because an explanation takes as long as applying the events.
        let is_explained = self.steps.bytes().map(usize::from).sum::<usize>() % 4 == 0;
        let explanations = is_explained.then(|| timeline.explain(&arrivals, recalled.clone(), &self.world.rules));
        let applied = timeline.apply(&arrivals, recalled, &self.world.rules);
        if let Some(explanations) = explanations {
            crate::explain::check_all(&explanations, &arrivals, &applied);
        }
        if prepared.is_some_and(|prepared| prepared == timeline) {
            // Nothing has to be written, so no pages are either.
            return (self.timeline.clone(), applied, Vec::new());
        }
        if applied.changed && timeline.closed.len() > self.max_closed {
            timeline.remove_archived();
        }
        (timeline, applied, moved)
    }

    /// Finalizes what lies before `now - lateness`, as a batch does once many events are unfinalized.
    pub fn finalize(&mut self, now: Millis) {
        self.now = now;
        self.steps.push_str(&format!(" ~{}", now - self.world.at(0)));
        self.timeline.finalize(now - self.world.lateness(), &self.world.rules);
    }

    /// Ends the last session by a request, unless it is over. Returns whether it did. The allowed lateness must be 0, so that the
    /// time of the request is that of an event.
    pub fn end(&mut self) -> bool {
        self.now = self.time_for(0);
        self.steps.push_str(" x");
        let Some(last) = self.sessions().pop() else { return false };
        let at = self.now.max(last.last_activity.timestamp_millis());
        let has_ended = self.timeline.end(id_of(&last), self.now, &self.world.rules);
        if has_ended {
            let event = (0..self.world.len()).find(|&event| self.world.at(event) == at);
            self.ends |= 1 << event.expect("requests need an allowed lateness of 0");
        }
        has_ended
    }

    /// Closes what is over: archives it or keeps it as closed. In the store of the service a session without pages may be kept.
    pub fn close(&mut self, now: Millis) -> Closing {
        self.now = now;
        self.steps.push_str(&format!(" !{}", now - self.world.at(0)));
        let closing = self.timeline.close(now, &self.world.rules);
        for state in &closing.ended {
            put(&mut self.emitted, state);
            if self.max_closed > 0 && !state.has_pages() {
                self.timeline.keep_closed(ClosedSession { state: state.clone(), closed_at: now });
            } else {
                put(&mut self.archive, state);
            }
        }
        closing
    }

    /// Returns all sessions by start: those of the timeline, and emitted ones that are not in it.
    pub fn sessions(&self) -> Vec<Session> {
        let here = self.timeline.sessions(self.now, &self.world.rules);
        assert!(here.is_sorted_by_key(|session| session.started_at), "the sessions are not in order: {self}");
        let emitted = self.emitted.iter().map(|state| state.ended_session(&self.world.visitor));
        let is_gone = |session: &Session| here.iter().all(|other| other.id != session.id);
        let mut sessions: Vec<Session> = emitted.filter(is_gone).collect();
        sessions.extend(here);
        sessions.sort_by_key(|session| (session.started_at, session.last_activity, session.number));
        sessions
    }

    /// Returns the session that an id leads to: its own, or the one that it was merged into.
    pub fn session(&self, id: Uuid) -> Option<Session> {
        self.timeline.session(id, self.now, &self.world.rules).or_else(|| {
            let state = self.emitted.iter().find(|state| state.ids().any(|other| other == id))?;
            Some(state.ended_session(&self.world.visitor))
        })
    }

    /// Returns the oracle's sessions of the events delivered so far.
    pub fn expected(&self) -> &'w Expected {
        self.world.expected(self.delivered, &self.sources, self.ends)
    }

    /// Returns the oracle's sessions of a subset of those events.
    pub fn expected_of(&self, set: usize) -> &'w Expected {
        self.world.expected(set, &self.sources, self.ends)
    }

    /// Returns whether events in time can no longer extend a session.
    pub fn is_over(&self, id: Uuid) -> bool {
        self.timeline.ended.iter().chain(&self.emitted).any(|state| state.id == id)
    }
}

/// Puts a session into an archive. It replaces an older version.
fn put(archive: &mut Vec<SessionState>, state: &SessionState) {
    match archive.iter_mut().find(|known| known.id == state.id) {
        Some(known) => known.clone_from(state),
        None => archive.push(state.clone()),
    }
}

/// Writes the run in the notation that reproduces it.
impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_here = |event| self.delivered >> event & 1 == 1;
        let source = |event| if is_here(event) { SOURCES[self.sources[event]] } else { '.' };
        let sources: String = (0..self.world.len()).map(source).collect();
        write!(f, "{} | {sources} |{}", self.world, self.steps)
    }
}
