//! A visitor's timeline: the sessions that are not archived, and the data that is needed to place the next events.
//!
//! [`Timeline::apply`] inserts new events into the unfinalized events, folds those again, and assigns a session to every event.
//! Applying events is idempotent: the same events change nothing a second time. So a retry, a redelivery and a conflict are all
//! the same case. Pure: no clock, no await, no randomness.
//!
//! ```text
//!   closed … ended … | open (finalized part) | unfinalized events, sorted by time, then uuid
//!                                            ^ watermark: an event before it is late, any other event is placed exactly
//! ```

mod closed;
mod closing;
mod explain;
mod explanation;
mod fast_path;
mod finalize;
mod ids;
mod known_events;
mod late;
mod pages;
mod sessions;
mod slow_path;
mod watermark;

pub use closed::ClosedSession;
pub use closing::Closing;
pub use explanation::{Check, Compared, Comparison, ExplainedSession, Explanation, Rule, Split};
pub use finalize::{MAX_PROPERTIES, MAX_PROPERTY_BYTES};
pub use pages::{PAGE_FINGERPRINTS, Recalled};

use std::sync::Arc;

use uuid::Uuid;

use crate::config::SessionConfig;
use crate::model::{Entry, Kind, LateEvents, Position, PreviousSession, SessionState, SessionView};
use crate::rules::fold;
use crate::session::{EventId, Millis, Reason, Session, SessionContext, Visitor};
use ids::primary_ids;

/// The number of unfinalized entries that are kept although they could be finalized. With so few, an item stays within its first
/// kilobyte, and events that took longer than `lateness` to arrive can still be placed exactly.
const MIN_UNFINALIZED_EVENTS: usize = 8;
/// The maximum number of unfinalized entries. More are finalized early, the oldest first, and counted in
/// [`Overflow::finalized_early`].
pub const MAX_UNFINALIZED_EVENTS: usize = 768;
/// The maximum size of the strings in the unfinalized entries, in bytes. If they exceed it, the oldest entries are finalized
/// early, too.
pub const MAX_UNFINALIZED_BYTES: usize = 64 * 1024;
/// The maximum number of late events that are counted in a session of which no event is finalized. Its fingerprints cannot be
/// moved to pages, because its id may still change. Beyond the maximum its first event is finalized early.
pub const MAX_UNFINALIZED_LATE_EVENTS: usize = 1024;

/// How far ahead of a library call a known event may lie, in milliseconds, and still be treated as earlier than the call. The
/// clocks of several processes can differ by that much.
const MAX_CALL_AHEAD_MS: Millis = 1_000;

/// The first character of an end mark's id. Such an id sorts after every other, so events of the same time still belong to the
/// session that was ended.
pub const END_MARK_PREFIX: char = char::MAX;

/// A visitor's recent sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The visitor.
    pub visitor: Visitor,
    /// Rises with every write that changes a session, and with every correction. The versions of sessions, assignments and
    /// corrections are values of it.
    pub seq: u64,
    /// The watermark: every event before this time is finalized, and an event that arrives behind it is late.
    pub watermark: Millis,
    /// Set if a limit ([`MAX_UNFINALIZED_EVENTS`], [`MAX_UNFINALIZED_BYTES`]) moved the watermark: events at the watermark's own
    /// time with an id up to this one are finalized, too.
    pub watermark_id: Option<EventId>,
    /// Until this time nothing is finalized, unless a limit is exceeded. It is one timeout after the receipt of the last
    /// backdated event, because more backdated events may follow.
    pub held_until: Option<Millis>,
    /// The number of the visitor's archived sessions, without those that came back into the timeline.
    pub archived: u32,
    /// The last session before `open` and `unfinalized`.
    pub previous: Option<PreviousSession>,
    /// Sessions whose ends were emitted, and that are not archived; ordered by start.
    pub closed: Vec<ClosedSession>,
    /// Sessions that are over and wait for the close function, ordered by start.
    pub ended: Vec<SessionState>,
    /// The finalized part of the session at the watermark, if that session may continue.
    pub open: Option<SessionState>,
    /// Events that are not finalized, ordered by time, then uuid.
    pub unfinalized: Vec<Entry>,
    /// The ids of the sessions that begin in `unfinalized`, and the ids that were merged into one of them or into `open`. Ordered
    /// by entry; at one entry, the session's own id comes first.
    pub anchors: Vec<SessionAnchor>,
    /// Corrections that are not emitted yet.
    pub corrections: Vec<Correction>,
    /// When the close function has to look at this timeline; `None` if there is nothing to close.
    pub due_at: Option<Millis>,
}

/// A session id that was given out for unfinalized events, and the values that belong to the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAnchor {
    /// The index in [`Timeline::unfinalized`] of the session's first entry. For an id that was merged, it is the entry that was
    /// the session's first before the merge.
    pub entry: usize,
    /// The session id.
    pub id: Uuid,
    /// Whether this is the id of a session now. If not, it was merged into the session that its entry belongs to.
    pub is_primary: bool,
    /// The [`Timeline::seq`] of the write that last changed the session.
    pub version: u64,
    /// Late events that are counted in the session and did not move it.
    pub late: LateEvents,
}

/// A change of the session of events that were already handed out. `version` orders the corrections of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// All events of `from` belong to `into`.
    Merged {
        /// The id that is no longer a session's.
        from: Uuid,
        /// The session that it was merged into.
        into: Uuid,
        /// The correction's version, a [`Timeline::seq`].
        version: u64,
    },
    /// The events of `from` that are not before the event `uuid` at `at` belong to `into`.
    Split {
        /// The session that was split.
        from: Uuid,
        /// The session that its later events belong to.
        into: Uuid,
        /// The time of the first event that moves.
        at: Millis,
        /// The id of the first event that moves.
        uuid: EventId,
        /// The correction's version, a [`Timeline::seq`].
        version: u64,
    },
}

/// An event to be applied to a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The event.
    pub entry: Entry,
    /// The ingestion time.
    pub received_at: Millis,
    /// Whether the event is passive: it is annotated with the session of its time, but it is never part of a session.
    pub passive: bool,
    /// Whether the event time was computed with `sent_at`. A duplicate that is sent later then has a later event time.
    pub timed_by_sent_at: bool,
    /// Whether a duplicate of the event can have another event time, for any reason. So the event's time does not tell whether
    /// the event can be finalized already.
    pub may_change_time: bool,
}

/// The session that an event belongs to, with the session's values after that event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The session's id.
    pub session_id: Uuid,
    /// Why the session began.
    pub reason: Reason,
    /// The session's number among the visitor's sessions, from 1.
    pub number: u32,
    /// The id of the session before it.
    pub previous: Option<Uuid>,
    /// The time of the session's first event.
    pub started_at: Millis,
    /// The event time under which this event was counted. It is not known any more for a duplicate of a finalized event; then it
    /// is the duplicate's own time, limited to the finalized part of the session.
    pub at: Millis,
    /// The number of page views in the session, up to and including this event.
    pub page_views: u32,
    /// The session's first URL.
    pub entry_url: Option<Arc<str>>,
    /// The URL of the last page view, up to and including this event.
    pub exit_page: Option<Arc<str>>,
    /// The session's external referrer.
    pub referrer: Option<Arc<str>>,
    /// The session's user, up to and including this event.
    pub user_id: Option<Arc<str>>,
    /// Whether this is the session's first event.
    pub is_start: bool,
    /// Whether the event came too late to be placed exactly.
    pub is_late: bool,
    /// Whether the event was known before, so that it changed nothing.
    pub is_duplicate: bool,
    /// The timeline's [`Timeline::seq`] when this assignment was made. What is emitted with a higher version supersedes it.
    pub version: u64,
}

/// The result of [`Timeline::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// One assignment for each arrival, in order; `None` for a passive or keep-alive event outside of any session.
    pub assignments: Vec<Option<Assignment>>,
    /// Whether the timeline must be written.
    pub changed: bool,
    /// What the limits of a timeline made it do early.
    pub overflow: Overflow,
    /// How many closed and archived sessions late events changed, so that their ends are emitted again.
    pub reopened: u32,
}

/// What the limits of a timeline made it do early. It is logged as a warning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Entries that were finalized early, because there were too many unfinalized events or late ones.
    pub finalized_early: usize,
}

impl Timeline {
    /// Returns the timeline of a visitor who was never seen before.
    pub fn new(visitor: Visitor) -> Self {
        Self {
            visitor,
            seq: 0,
            watermark: Millis::MIN,
            watermark_id: None,
            held_until: None,
            archived: 0,
            previous: None,
            closed: Vec::new(),
            ended: Vec::new(),
            open: None,
            unfinalized: Vec::new(),
            anchors: Vec::new(),
            corrections: Vec::new(),
            due_at: None,
        }
    }

    /// Applies events to the timeline. `recalled` are the archived sessions within [`Timeline::recall_range`]; those that change
    /// become part of the timeline again. With them come the pages of [`Timeline::sessions_to_look_up`] and
    /// [`Timeline::move_to_pages`].
    pub fn apply(&mut self, arrivals: &[Arrival], recalled: impl Into<Recalled>, config: &SessionConfig) -> Applied {
        let recalled = recalled.into();
        let is_fast = recalled.sessions.is_empty();
        let appended = if is_fast { self.apply_fast(arrivals, &recalled.pages, config) } else { None };
        appended.unwrap_or_else(|| self.apply_slow(arrivals, recalled, config))
    }

    /// Ends the session with this id, if it is live at `now`. The id can also be one that was merged into that session. Returns
    /// whether it ended the session.
    pub fn end(&mut self, id: Uuid, now: Millis, config: &SessionConfig) -> bool {
        self.realign(config);
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let has_id = |view: &SessionView<'_>| {
            view.base.is_some_and(|base| base.ids().any(|other| other == id))
                || self.anchors.iter().any(|anchor| anchor.id == id && (view.first..view.end).contains(&anchor.entry))
        };
        let Some(number) = views.iter().position(has_id) else { return false };
        if !self.is_live(number, &views, now, config) {
            return false;
        }
        let at = self.end_time(&views[number], now);
        let primary = primary_ids(&self.anchors, &views)[number];
        self.seq += 1;
        self.set_version(primary);
        let uuid = EventId::new(&format!("{END_MARK_PREFIX}{}", self.seq));
        let (kind, context, properties) = (Kind::End, SessionContext::default(), Vec::new());
        self.insert_entries(vec![Entry { at, uuid, kind, context, click: None, properties }]);
        self.due_at = self.due_at.into_iter().chain(self.next_due(config)).min();
        true
    }

    /// Returns the time at which a request at `now` ends a session: behind all its events.
    fn end_time(&self, view: &SessionView<'_>, now: Millis) -> Millis {
        now.max(view.facts.last_activity).max(self.watermark)
    }

    /// Returns whether the session of the view with this index is live at `now`: it is not over, and no other session has begun
    /// since. Usually only the last session is live. If that lies ahead of `now`, because of a wrong clock, then the session at
    /// `now` is live, too.
    fn is_live(&self, number: usize, views: &[SessionView<'_>], now: Millis, config: &SessionConfig) -> bool {
        let (view, latest) = (&views[number], now + MAX_CALL_AHEAD_MS);
        let at = self.end_time(view, now);
        let is_last = match views.get(number + 1) {
            Some(next) => view.facts.started_at <= latest && next.facts.started_at > at.max(latest),
            None => true,
        };
        is_last && view.reason_for(at, config).is_none()
    }

    /// Returns the event time for a library call at `now` that records an event with this id. Usually that is `now`. It is later
    /// if a known event, from a process whose clock is ahead, would otherwise sort after the call.
    pub fn time_of_call(&self, now: Millis, uuid: &str) -> Millis {
        // An event that lies further ahead comes from a wrong clock and does not move the call. An end mark always does: a call
        // that follows a request to end a session must not fall before the mark.
        let is_before = |entry: &&Entry| entry.at <= now + MAX_CALL_AHEAD_MS || entry.kind == Kind::End;
        let at = match self.unfinalized.iter().rev().find(is_before) {
            Some(last) if last.at >= now && &*last.uuid >= uuid => last.at + 1,
            Some(last) => last.at.max(now),
            None => now,
        };
        // Within a session that is over the call would be late, so it has to come after that session.
        let over = self
            .ended
            .iter()
            .map(|state| state.facts.last_activity)
            .filter(|last| (at..=at + MAX_CALL_AHEAD_MS).contains(last));
        over.max().map_or(at, |last| last + 1).max(self.first_time())
    }

    /// Returns the session that a library call with this entry belongs to. Returns `None` if the call has to be recorded first:
    /// because it begins a session, or because other rules gave out the stored ids.
    pub fn session_of_call(&self, entry: &Entry, config: &SessionConfig) -> Option<Session> {
        self.sessions_before(config)?;
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        // A session that lies further ahead comes from a wrong clock: see `time_of_call`.
        let has_begun = |view: &SessionView<'_>| view.facts.started_at <= entry.at + MAX_CALL_AHEAD_MS;
        let number = views.iter().rposition(has_begun).or_else(|| views.len().checked_sub(1))?;
        if views[number].reason_to_end(entry, config).is_some() {
            return None;
        }
        self.session(primary_ids(&self.anchors, &views)[number], entry.at, config)
    }

    /// Returns the sessions that have finalized events.
    pub fn finalized(&self) -> impl Iterator<Item = &SessionState> {
        self.closed.iter().map(|closed| &closed.state).chain(&self.ended).chain(&self.open)
    }

    /// Returns the ids of all sessions, and the ids that were merged into one of them.
    fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.finalized().flat_map(SessionState::ids).chain(self.anchors.iter().map(|anchor| anchor.id))
    }

    /// Inserts new entries into the unfinalized events. Returns the index that each entry had before; `None` for a new entry.
    fn insert_entries(&mut self, mut fresh: Vec<Entry>) -> Vec<Option<usize>> {
        fresh.sort_by(|a, b| (a.at, &a.uuid).cmp(&(b.at, &b.uuid)));
        let is_before_fresh =
            |last: &Entry| fresh.first().is_none_or(|first| (last.at, &last.uuid) < (first.at, &first.uuid));
        if self.unfinalized.last().is_none_or(is_before_fresh) {
            let mut origin: Vec<Option<usize>> = (0..self.unfinalized.len()).map(Some).collect();
            origin.extend(std::iter::repeat_n(None, fresh.len()));
            self.unfinalized.extend(fresh);
            return origin;
        }
        let mut merged: Vec<Entry> = Vec::with_capacity(self.unfinalized.len() + fresh.len());
        let mut origin = Vec::with_capacity(merged.capacity());
        let mut index_now = Vec::with_capacity(self.unfinalized.len());
        let mut fresh = fresh.into_iter().peekable();
        for (index, old) in std::mem::take(&mut self.unfinalized).into_iter().enumerate() {
            while let Some(new) = fresh.next_if(|new| (new.at, &new.uuid) < (old.at, &old.uuid)) {
                merged.push(new);
                origin.push(None);
            }
            index_now.push(merged.len());
            merged.push(old);
            origin.push(Some(index));
        }
        origin.extend(std::iter::repeat_n(None, fresh.len()));
        merged.extend(fresh);
        self.unfinalized = merged;
        for anchor in &mut self.anchors {
            anchor.entry = index_now[anchor.entry];
        }
        origin
    }

    /// Returns the number of the first session that follows from the unfinalized events.
    fn first_number(&self) -> u32 {
        match (&self.open, &self.previous) {
            (Some(open), _) => open.number,
            (None, Some(previous)) => previous.number + 1,
            (None, None) => 1,
        }
    }

    /// Returns the id of the session before the view with this index. `ids` are the views' ids.
    fn previous_of(&self, number: usize, ids: &[Uuid]) -> Option<Uuid> {
        match (number, &self.open) {
            (0, Some(open)) => open.previous,
            (0, None) => self.previous.as_ref().map(|previous| previous.id),
            _ => Some(ids[number - 1]),
        }
    }

    /// Returns the number of page views among a view's late events.
    fn late_page_views(&self, view: &SessionView<'_>) -> u32 {
        let of_anchor = || {
            self.anchors
                .iter()
                .find(|anchor| anchor.is_primary && anchor.entry == view.first)
                .map(|anchor| &anchor.late)
        };
        view.base.map(|base| &base.late).or_else(of_anchor).map_or(0, |late| late.page_views)
    }

    /// Returns the assignment of an event at `at` to the view with the index `number`. Without a position, the assignment has the
    /// values of the whole session.
    fn assignment(
        &self,
        view: &SessionView<'_>,
        number: usize,
        ids: &[Uuid],
        at: Millis,
        position: Option<&Position>,
        version: u64,
    ) -> Assignment {
        Assignment {
            session_id: ids[number],
            reason: view.facts.reason,
            number: self.first_number() + number as u32,
            previous: self.previous_of(number, ids),
            started_at: view.facts.started_at,
            at,
            page_views: match position {
                Some(position) => position.page_views,
                None => view.facts.page_views.saturating_add(self.late_page_views(view)),
            },
            entry_url: view.facts.entry_url.clone(),
            exit_page: position.map_or(&view.facts.exit_page, |position| &position.exit_page).clone(),
            referrer: view.facts.attribution.referrer.clone(),
            user_id: position.map_or(&view.facts.user_id, |position| &position.user_id).clone(),
            is_start: position.is_some_and(|position| position.is_start),
            is_late: false,
            is_duplicate: false,
            version,
        }
    }
}
