//! The data that the rules of [`crate::rules`] work on: a visitor's events, and the sessions that follow from them.
//!
//! A session has three shapes here. [`SessionState`] is stored. [`SessionView`] is derived from the unfinalized events by a fold.
//! [`PreviousSession`] is the little that is kept of a session that is over. The first two share [`SessionFacts`].

pub(crate) mod counts;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::attribution::{Attribution, Source};
use crate::session::{DeviceInfo, EventId, GeoInfo, Millis, Reason, SessionContext};
pub use counts::Counts;

/// The kind of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A page view. It counts as an event and as a page view.
    Pageview,
    /// Any other event.
    Event,
    /// A library call asked for the visitor's session (`SessionManager::get_or_create`). It can begin a session, but it is not
    /// counted as an event.
    Touch,
    /// A request ended the session. The next event begins another session.
    End,
    /// A keep-alive event. It extends a live session, is not counted, and never begins a session. Outside of a live session it
    /// belongs to no session.
    KeepAlive,
}

/// One event, reduced to what the rules need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The event time.
    pub at: Millis,
    /// The event's id. Events of the same time are ordered by their ids.
    pub uuid: EventId,
    /// Its kind.
    pub kind: Kind,
    /// Its URL, referrer, campaign, device and location.
    pub context: SessionContext,
    /// A hash of the click id; `None` if the event has none or the click id rule is off.
    pub click: Option<u64>,
    /// Custom session properties: key and JSON value, in the order of the event; then its count, if it is to be counted
    /// (`model/counts.rs`).
    pub properties: Vec<(String, String)>,
}

impl Entry {
    /// Returns the traffic source that the event names.
    pub fn source(&self) -> Source<'_> {
        Source::of(&self.context, self.click)
    }
}

/// What follows from a session's events, except late ones ([`SessionState::late`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Why the session began.
    pub reason: Reason,
    /// The time of its first event.
    pub started_at: Millis,
    /// The time of its last event that is not passive.
    pub last_activity: Millis,
    /// The number of its events, page views included.
    pub event_count: u32,
    /// The number of its page views.
    pub page_views: u32,
    /// The URL of the first event that has one.
    pub entry_url: Option<Arc<str>>,
    /// The URL of the first page view that has one.
    pub landing_page: Option<Arc<str>>,
    /// The URL of the last page view that has one.
    pub exit_page: Option<Arc<str>>,
    /// Its referrer, campaign and click id.
    pub attribution: Attribution,
    /// The device of the first event that has one.
    pub device: Option<Arc<DeviceInfo>>,
    /// The location of the first event that has one.
    pub geo: Option<Arc<GeoInfo>>,
    /// The user of the last event that names one.
    pub user_id: Option<Arc<str>>,
    /// Whether a request ended it.
    pub ended_by_request: bool,
}

impl SessionFacts {
    /// Returns a session that begins at `at` and has no event yet.
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
            user_id: None,
            ended_by_request: false,
        }
    }

    /// Returns the values that the rules of time and counts depend on.
    pub fn activity(&self) -> Activity {
        Activity {
            started_at: self.started_at,
            last_activity: self.last_activity,
            event_count: self.event_count,
            ended_by_request: self.ended_by_request,
        }
    }
}

/// The values of a session that the rules of time and counts depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// The time of its first event.
    pub started_at: Millis,
    /// The time of its last event that is not passive.
    pub last_activity: Millis,
    /// The number of its events, page views included.
    pub event_count: u32,
    /// Whether a request ended it.
    pub ended_by_request: bool,
}

/// The late events that are counted in a session. They are counted apart from the other events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateEvents {
    /// The number of late events, page views included.
    pub event_count: u32,
    /// The number of late page views.
    pub page_views: u32,
    /// Their fingerprints, in the order in which they were counted, without those on pages.
    pub fingerprints: Vec<u64>,
    /// The number of pages that the first fingerprints were moved to; see [`FingerprintPage`].
    pub pages: u32,
    /// Counts of named events among them (`model/counts.rs`), as long as their session has no state. A state has them among its properties.
    pub counts: Counts,
}

/// Fingerprints that were moved out of a session to an item of their own, so that a session's state stays small however many
/// events it has. [`Timeline::move_to_pages`](crate::timeline::Timeline::move_to_pages) states when that is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintPage {
    /// The session's id.
    pub session_id: Uuid,
    /// Whether the events were late. The two kinds are numbered apart.
    pub is_late: bool,
    /// The page's number among the session's pages of its kind, from 0.
    pub number: u32,
    /// The fingerprints.
    pub fingerprints: Vec<u64>,
}

/// A session as it is stored: the result of its finalized events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Its id.
    pub id: Uuid,
    /// The [`Timeline::seq`](crate::timeline::Timeline::seq) of the write that last changed it.
    pub version: u64,
    /// Its number among the visitor's sessions, from 1.
    pub number: u32,
    /// The id of the session before it.
    pub previous: Option<Uuid>,
    /// What follows from its events.
    pub facts: SessionFacts,
    /// The reason of the next session, if its source ended this one. The other reasons for an end follow from the facts.
    pub ended_by: Option<Reason>,
    /// Custom properties: key and JSON value. Counts of named events are among them (`model/counts.rs`).
    pub properties: BTreeMap<String, String>,
    /// Ids that were merged into this one.
    pub aliases: Vec<Uuid>,
    /// Fingerprints of its finalized events, in the order in which they were finalized, without those on pages.
    pub fingerprints: Vec<u64>,
    /// The number of pages that the first fingerprints were moved to; see [`FingerprintPage`].
    pub pages: u32,
    /// Its late events. They are counted apart, so that the rule for `max_events` does not depend on them.
    pub late: LateEvents,
}

impl SessionState {
    /// Returns a session with this id and no events.
    pub fn empty(id: Uuid) -> Self {
        Self {
            id,
            version: 0,
            number: 0,
            previous: None,
            facts: SessionFacts::begin(Reason::First, 0, Attribution::default()),
            ended_by: None,
            properties: BTreeMap::new(),
            aliases: Vec::new(),
            fingerprints: Vec::new(),
            pages: 0,
            late: LateEvents::default(),
        }
    }

    /// Returns its id, then the ids that were merged into it.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        std::iter::once(self.id).chain(self.aliases.iter().copied())
    }
}

/// What the rules need to know about the session before the unfinalized events, once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousSession {
    /// Its id.
    pub id: Uuid,
    /// Its number among the visitor's sessions, from 1.
    pub number: u32,
    /// Its times and counts.
    pub activity: Activity,
}

impl From<&SessionState> for PreviousSession {
    fn from(state: &SessionState) -> Self {
        Self { id: state.id, number: state.number, activity: state.facts.activity() }
    }
}

/// A session as [`crate::rules::fold`] derives it from the unfinalized events.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView<'a> {
    /// What follows from its events, finalized ones included.
    pub facts: SessionFacts,
    /// The state of its finalized events; `None` if all its events are unfinalized.
    pub base: Option<&'a SessionState>,
    /// The index of its first unfinalized event.
    pub first: usize,
    /// The index after its last unfinalized event.
    pub end: usize,
}

/// The position of an entry: its view, and the session's values after that entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The view's index; `None` for a keep-alive event outside of any session.
    pub view: Option<usize>,
    /// The number of page views in the session, up to and including this entry.
    pub page_views: u32,
    /// The URL of the last page view, up to and including this entry.
    pub exit_page: Option<Arc<str>>,
    /// The session's user, as far as this entry and those before it name one.
    pub user_id: Option<Arc<str>>,
    /// Whether this is the session's first event.
    pub is_start: bool,
}

/// What a fold compared an entry with, and what it decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The session before the entry; `None` if there was none.
    pub before: Option<SessionBeforeEntry>,
    /// Why the entry ends that session, or begins the first one. `None` if it belongs to the session before it.
    pub reason: Option<Reason>,
}

/// The values of the session before an entry that the rules compare with those of the entry.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionBeforeEntry {
    /// The index of its view; `None` if it is the [`PreviousSession`].
    pub view: Option<usize>,
    /// Its times and counts.
    pub activity: Activity,
    /// Its source. `None` if it is the previous session, because time or counts ended that one.
    pub attribution: Option<Attribution>,
}
