//! A visitor's timeline: the sessions that are not archived yet, and what is needed to place the next events.
//!
//! [`Timeline::apply`] inserts what is new into the unfinalized events, folds again, and gives every event its session. Applying the
//! same events again changes nothing: a retry, a redelivery and a conflict are all the same case. Pure: no clock, no
//! await, no randomness.
//!
//! ```text
//!   ended … | open (finalized part) | unfinalized events (events not finalized yet, sorted by time, then uuid)
//!                                   ^ watermark (the watermark): an event behind it is late, any other is placed exactly
//! ```

mod closing;
mod fast_path;
mod finalize;
mod ids;
mod known_events;
mod late;
mod sessions;
mod slow_path;
mod watermark;

pub use closing::Closing;
pub use finalize::{MAX_PROPERTIES, MAX_PROPERTY_BYTES};

use std::sync::Arc;

use uuid::Uuid;

use crate::config::SessionConfig;
use crate::model::{Entry, Kind, LateEvents, Position, PreviousSession, SessionState, SessionView};
use crate::rules::fold;
use crate::session::{EventId, Millis, Reason, SessionContext, Visitor};
use ids::primary_ids;

/// Unfinalized entries that are kept although they could be finalized: an item with so few stays within its first kilobyte,
/// and deliveries that took longer than `lateness` are still placed exactly.
const MIN_UNFINALIZED_EVENTS: usize = 8;
/// Unfinalized entries at the most; more are finalized early, the oldest first, and counted.
pub const MAX_UNFINALIZED_EVENTS: usize = 768;
/// Bytes of text in the unfinalized events at the most; likewise.
pub const MAX_UNFINALIZED_BYTES: usize = 64 * 1024;
/// Fingerprints a session keeps at the most; beyond it a repeat of the oldest events would be counted again.
pub const MAX_FINGERPRINTS: usize = 1024;

/// How far ahead of a library call something may lie and still be taken to have happened before it, in milliseconds: the
/// clocks of several processes differ by as much.
const MAX_CALL_AHEAD_MS: Millis = 1_000;

/// What the id of an end mark begins with. It sorts behind every other: events of the same time still belong to the session.
pub const MARK: char = char::MAX;

/// A visitor's recent sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    pub visitor: Visitor,
    /// How many writes have changed a session; the version of what the last one changed.
    pub seq: u64,
    /// The watermark: every event before this time is finalized, and one that arrives behind it is late.
    pub watermark: Millis,
    /// Where the bounds cut the unfinalized events: of the events at that very time, those up to this id are finalized, too.
    pub watermark_id: Option<EventId>,
    /// Nothing is finalized before this time, but for the bounds: a backdated event was received `timeout` before it, and
    /// others like it may follow.
    pub held_until: Option<Millis>,
    /// How many sessions were archived.
    pub archived: u32,
    /// The last session that is over.
    pub previous: Option<PreviousSession>,
    /// Sessions that are over and wait to be closed, by start.
    pub ended: Vec<SessionState>,
    /// The finalized part of the session at the watermark.
    pub open: Option<SessionState>,
    /// Events that are not finalized, by time, then uuid.
    pub unfinalized: Vec<Entry>,
    /// The ids that primary, or led before a merge, a session beginning at an entry of the unfinalized events; by entry.
    pub anchors: Vec<SessionAnchor>,
    /// What changed for events already handed out, and is not said yet.
    pub corrections: Vec<Correction>,
    /// When the close function has to look again; none if there is nothing to close.
    pub due_at: Option<Millis>,
}

/// What is remembered of a session that follows from the unfinalized events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAnchor {
    /// The index in the unfinalized events of the session's first entry. (Of an id that was merged: of the entry it stood on then.)
    pub entry: usize,
    pub id: Uuid,
    /// Whether it is a session's id now, or was merged into the one before it.
    pub is_primary: bool,
    /// The write that last changed the session.
    pub version: u64,
    /// LateEvents events that were counted in without moving the session.
    pub late: LateEvents,
}

/// A change for events that were already handed out. `version` orders the corrections of a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// All events of `from` belong to `into`.
    Merged { from: Uuid, into: Uuid, version: u64 },
    /// The events of `from` that are not before the event `uuid` at `at` belong to `into`.
    Split { from: Uuid, into: Uuid, at: Millis, uuid: EventId, version: u64 },
}

/// An event for the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub entry: Entry,
    pub received_at: Millis,
    /// Annotated with the session at its time, never part of one.
    pub passive: bool,
    /// Whether `sent_at` had a part in its time: a duplicate that is sent later then has a later time.
    pub timed_by_sent_at: bool,
}

/// The session that an event belongs to, and what it amounts to with that event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub session_id: Uuid,
    pub reason: Reason,
    pub number: u32,
    pub previous: Option<Uuid>,
    pub started_at: Millis,
    /// The time of this event as it was counted. Of a duplicate of a finalized event it is not known any more: its own time,
    /// within the finalized part of the session.
    pub at: Millis,
    pub page_views: u32,
    pub entry_url: Option<Arc<str>>,
    pub exit_page: Option<Arc<str>>,
    pub referrer: Option<Arc<str>>,
    /// Whether this is the session's first event.
    pub is_start: bool,
    /// Whether the event came too late to be placed exactly.
    pub is_late: bool,
    /// The write that this is as of: what is said with a higher version changes it.
    pub version: u64,
}

/// What [`Timeline::apply`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// One for each arrival, in order; none for a passive event outside any session.
    pub assignments: Vec<Option<Assignment>>,
    /// Whether the timeline must be written.
    pub changed: bool,
    pub overflow: Overflow,
}

/// What the timeline did before its time, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Entries finalized early because the unfinalized events was full.
    pub finalized_early: usize,
    /// Fingerprints let go because a session has too many events.
    pub forgotten: usize,
}

impl Timeline {
    /// A visitor never seen before.
    pub fn new(visitor: Visitor) -> Self {
        Self {
            visitor,
            seq: 0,
            watermark: Millis::MIN,
            watermark_id: None,
            held_until: None,
            archived: 0,
            previous: None,
            ended: Vec::new(),
            open: None,
            unfinalized: Vec::new(),
            anchors: Vec::new(),
            corrections: Vec::new(),
            due_at: None,
        }
    }

    /// Places events. `recalled` are the archived sessions near the late ones ([`Timeline::recall_range`]); those that change
    /// join the timeline again.
    pub fn apply(&mut self, arrivals: &[Arrival], recalled: Vec<SessionState>, config: &SessionConfig) -> Applied {
        let appended = if recalled.is_empty() { self.apply_fast(arrivals, config) } else { None };
        appended.unwrap_or_else(|| self.apply_slow(arrivals, recalled, config))
    }

    /// Ends the session that an id means, if an event at `now` would continue it; says whether it did.
    pub fn end(&mut self, id: Uuid, now: Millis, config: &SessionConfig) -> bool {
        self.realign(config);
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let Some(last) = views.last() else { return false };
        let at = now.max(last.facts.last_activity).max(self.watermark);
        let primary = primary_ids(&self.anchors, &views)[views.len() - 1];
        let is_meant = last.base.is_some_and(|base| base.ids().any(|other| other == id))
            || self.anchors.iter().any(|anchor| anchor.id == id && anchor.entry >= last.first);
        if !is_meant || last.reason_for(at, config).is_some() {
            return false;
        }
        self.seq += 1;
        self.set_version(primary);
        let uuid = EventId::new(&format!("{MARK}{}", self.seq));
        let (kind, context, properties) = (Kind::End, SessionContext::default(), Vec::new());
        self.merge(vec![Entry { at, uuid, kind, context, click: None, properties }]);
        self.due_at = self.due_at.into_iter().chain(self.next_due(config)).min();
        true
    }

    /// Returns when a library call at `now` is taken to happen, with an event of this id: behind everything that is known of that
    /// moment. Usually that is `now`; it is a millisecond behind what was there if the ids would put the call before it.
    pub fn time_of_call(&self, now: Millis, uuid: &str) -> Millis {
        // What lies further ahead comes from a wrong clock. Only an end that was asked for is before every later call.
        let is_before = |entry: &&Entry| entry.at <= now + MAX_CALL_AHEAD_MS || entry.kind == Kind::End;
        let at = match self.unfinalized.iter().rev().find(is_before) {
            Some(last) if last.at >= now && &*last.uuid >= uuid => last.at + 1,
            Some(last) => last.at.max(now),
            None => now,
        };
        // A call within a session that is over would be late.
        let over = self
            .ended
            .iter()
            .map(|state| state.facts.last_activity)
            .filter(|last| (at..=at + MAX_CALL_AHEAD_MS).contains(last));
        over.max().map_or(at, |last| last + 1).max(self.first_time())
    }

    /// Whether an entry, if it came now, would begin a session.
    pub fn would_begin(&self, entry: &Entry, config: &SessionConfig) -> bool {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        views.last().is_none_or(|view| view.reason_to_end(entry, config).is_some())
    }

    /// Whether a session with this id is in the timeline, not counting ids that were merged.
    fn holds(&self, id: Uuid) -> bool {
        self.ended.iter().chain(&self.open).any(|state| state.id == id)
            || self.anchors.iter().any(|anchor| anchor.id == id)
    }

    /// Merges sorted new entries into the unfinalized events; says of each entry which one it was before.
    fn merge(&mut self, mut fresh: Vec<Entry>) -> Vec<Option<usize>> {
        fresh.sort_by(|a, b| (a.at, &a.uuid).cmp(&(b.at, &b.uuid)));
        let is_behind =
            |last: &Entry| fresh.first().is_none_or(|first| (last.at, &last.uuid) < (first.at, &first.uuid));
        if self.unfinalized.last().is_none_or(is_behind) {
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

    /// The number of the first session that follows from the unfinalized events.
    fn first_number(&self) -> u32 {
        match (&self.open, &self.previous) {
            (Some(open), _) => open.number,
            (None, Some(previous)) => previous.number + 1,
            (None, None) => 1,
        }
    }

    /// The session before the view `number`.
    fn previous_of(&self, number: usize, ids: &[Uuid]) -> Option<Uuid> {
        match (number, &self.open) {
            (0, Some(open)) => open.previous,
            (0, None) => self.previous.as_ref().map(|previous| previous.id),
            _ => Some(ids[number - 1]),
        }
    }

    /// The page views among the late events that are counted in a view.
    fn late_page_views(&self, view: &SessionView<'_>) -> u32 {
        let begun = || {
            self.anchors
                .iter()
                .find(|anchor| anchor.is_primary && anchor.entry == view.first)
                .map(|anchor| &anchor.late)
        };
        view.base.map(|base| &base.late).or_else(begun).map_or(0, |late| late.page_views)
    }

    /// The assignment of an event at `at` to the view `number`; to the whole of it where its place there is not known.
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
            is_start: position.is_some_and(|position| position.is_start),
            is_late: false,
            version,
        }
    }
}
