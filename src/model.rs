//! What the rules work on: a visitor's events, and the sessions that follow from them. Plain data; the rules themselves are in
//! [`crate::rules`].
//!
//! A session has three shapes here, which share [`SessionFacts`]: [`SessionState`] is the one that is kept, [`SessionView`] is the
//! one that a fold of the unfinalized events gives, [`PreviousSession`] is what is left of one that is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::attribution::{Attribution, Source};
use crate::session::{DeviceInfo, EventId, GeoInfo, Millis, Reason, SessionContext};

/// What an entry of a timeline stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A page view. It counts as an event and as a page view.
    Pageview,
    /// Any other event.
    Event,
    /// A visitor was seen (`SessionManager::get_or_create`). It may begin a session and counts as no event.
    Touch,
    /// A request ended the session: what follows begins another.
    End,
    /// A keep-alive event. It keeps a live session alive, counts as nothing and opens no session. Outside of a live session it is in
    /// none.
    KeepAlive,
}

/// One event as the rules need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it happened.
    pub at: Millis,
    /// The event's id. It orders events of the same time.
    pub uuid: EventId,
    /// What it stands for.
    pub kind: Kind,
    /// Where it came from.
    pub context: SessionContext,
    /// A hash of the click id, where the click id rule is on.
    pub click: Option<u64>,
    /// Custom session properties: keys, and values as JSON, as the event has them.
    pub properties: Vec<(String, String)>,
}

impl Entry {
    /// The source that the event names.
    pub fn source(&self) -> Source<'_> {
        Source::of(&self.context, self.click)
    }
}

/// What the events of a session add up to, apart from late ones ([`SessionState::late`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Why the session began.
    pub reason: Reason,
    /// The time of its first event.
    pub started_at: Millis,
    /// The time of its last event that is not passive.
    pub last_activity: Millis,
    /// Its events, page views included.
    pub event_count: u32,
    /// Its page views.
    pub page_views: u32,
    /// The first URL.
    pub entry_url: Option<Arc<str>>,
    /// The first page viewed.
    pub landing_page: Option<Arc<str>>,
    /// The last page viewed.
    pub exit_page: Option<Arc<str>>,
    /// Where it came from.
    pub attribution: Attribution,
    /// The first device that an event named.
    pub device: Option<Arc<DeviceInfo>>,
    /// The first place that an event named.
    pub geo: Option<Arc<GeoInfo>>,
    /// Whether a request ended it.
    pub ended_by_call: bool,
}

impl SessionFacts {
    /// A session that begins at `at` and has no event yet.
    pub fn begin(reason: Reason, at: Millis, attribution: Attribution) -> Self {
        Self {
            reason,
            started_at: at,
            last_activity: at,
            event_count: 0,
            page_views: 0,
            entry_url: None,
            landing_page: None,
            exit_page: None,
            attribution,
            device: None,
            geo: None,
            ended_by_call: false,
        }
    }

    /// What the rules of time and counts look at.
    pub fn activity(&self) -> Activity {
        Activity {
            started_at: self.started_at,
            last_activity: self.last_activity,
            event_count: self.event_count,
            ended_by_call: self.ended_by_call,
        }
    }
}

/// What the rules of time and counts look at in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// The time of its first event.
    pub started_at: Millis,
    /// The time of its last event that is not passive.
    pub last_activity: Millis,
    /// Its events, page views included.
    pub event_count: u32,
    /// Whether a request ended it.
    pub ended_by_call: bool,
}

/// Late events that count in a session but do not move it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateEvents {
    /// How many there are.
    pub event_count: u32,
    /// How many of them are page views.
    pub page_views: u32,
    /// Their fingerprints.
    pub fingerprints: Vec<u64>,
}

/// A session as it is kept: what its finalized events add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Its id.
    pub id: Uuid,
    /// The write that last changed it.
    pub version: u64,
    /// Its place among the visitor's sessions, from 1.
    pub number: u32,
    /// The session before it.
    pub previous: Option<Uuid>,
    /// What its events add up to.
    pub facts: SessionFacts,
    /// Custom properties: keys, and values as JSON.
    pub properties: BTreeMap<String, String>,
    /// Ids that were merged into this one.
    pub aliases: Vec<Uuid>,
    /// Fingerprints of its finalized events, the oldest first.
    pub fingerprints: Vec<u64>,
    /// Late events that count in it. They are kept apart, so that they do not move the rule for `max_events`.
    pub late: LateEvents,
}

impl SessionState {
    /// A session of which nothing is known but its id.
    pub fn empty(id: Uuid) -> Self {
        Self {
            id,
            version: 0,
            number: 0,
            previous: None,
            facts: SessionFacts::begin(Reason::First, 0, Attribution::default()),
            properties: BTreeMap::new(),
            aliases: Vec::new(),
            fingerprints: Vec::new(),
            late: LateEvents::default(),
        }
    }

    /// Its id and those that were merged into it.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        std::iter::once(self.id).chain(self.aliases.iter().copied())
    }
}

/// What the rules need of the session before the first one that follows from the unfinalized events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousSession {
    /// Its id.
    pub id: Uuid,
    /// Its place among the visitor's sessions, from 1.
    pub number: u32,
    /// Its times and counts.
    pub activity: Activity,
}

impl From<&SessionState> for PreviousSession {
    fn from(state: &SessionState) -> Self {
        Self { id: state.id, number: state.number, activity: state.facts.activity() }
    }
}

/// A session as it follows from the unfinalized events.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView<'a> {
    /// What its events add up to, finalized ones included.
    pub facts: SessionFacts,
    /// Its finalized part, where it began before the unfinalized events.
    pub base: Option<&'a SessionState>,
    /// The index of its first unfinalized event.
    pub first: usize,
    /// The index behind its last unfinalized event.
    pub end: usize,
}

/// Where an entry lies: in which view, and what the session amounted to with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The view's index; none for a keep-alive event outside of any session.
    pub view: Option<usize>,
    /// The session's page views up to this entry.
    pub page_views: u32,
    /// The last page viewed up to this entry.
    pub exit_page: Option<Arc<str>>,
    /// Whether this is the session's first event.
    pub is_start: bool,
}
