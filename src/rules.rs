//! The rules: which event begins a session, and why. Sorting a visitor's events and folding them once with [`fold`] is
//! the plain definition of the product's sessions. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::attribution::{Source, SourceChange};
use crate::config::{DirectThenSource, SessionConfig};
use crate::session::{DeviceInfo, EventId, GeoInfo, Millis, Reason, SessionContext, UtmParams};

/// What an entry of the unfinalized events stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A page view: counts as an event and as a page view.
    Pageview,
    /// Any other event.
    Event,
    /// A visitor was seen: may begin a session, counts as no event (`SessionManager::get_or_create`).
    Touch,
    /// A call ended the session: what follows begins another.
    End,
    /// A keep-alive event: keeps a live session alive, counts as nothing, opens none. Outside of a live session it is in none.
    KeepAlive,
}

/// One event as the rules need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it happened.
    pub at: Millis,
    /// The event's id; orders events of the same time.
    pub uuid: EventId,
    pub kind: Kind,
    pub context: SessionContext,
    /// A hash of the click id, where the click id rule is on.
    pub click: Option<u64>,
    /// Custom session properties: keys and values as JSON text, as the event says them.
    pub properties: Vec<(String, String)>,
}

/// Late events that count in a session but do not move it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late {
    pub event_count: u32,
    pub page_views: u32,
    /// Their fingerprints.
    pub fingerprints: Vec<u64>,
}

/// The finalized part of a session: what its finalized events add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub id: Uuid,
    pub version: u64,
    pub reason: Reason,
    pub number: u32,
    pub previous: Option<Uuid>,
    pub started_at: Millis,
    pub last_activity: Millis,
    pub event_count: u32,
    pub page_views: u32,
    pub entry_url: Option<Arc<str>>,
    pub landing_page: Option<Arc<str>>,
    pub exit_page: Option<Arc<str>>,
    pub referrer: Option<Arc<str>>,
    pub utm: Option<Arc<UtmParams>>,
    pub click: Option<u64>,
    pub device: Option<Arc<DeviceInfo>>,
    pub geo: Option<Arc<GeoInfo>>,
    pub properties: BTreeMap<String, String>,
    /// A call ended it.
    pub ended_by_call: bool,
    /// Ids that were merged into this one.
    pub aliases: Vec<Uuid>,
    /// Fingerprints of its finalized events, the oldest first.
    pub fingerprints: Vec<u64>,
    /// Late events counted in. Kept apart, so that they do not move the rule for `max_events`.
    pub late: Late,
}

/// What the rules need of the session before the first one that follows from the unfinalized events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    pub id: Uuid,
    pub started_at: Millis,
    pub last_activity: Millis,
    pub event_count: u32,
    pub ended_by_call: bool,
    /// Its place among the visitor's sessions.
    pub number: u32,
}

impl From<&SessionState> for Previous {
    fn from(state: &SessionState) -> Self {
        Self {
            id: state.id,
            started_at: state.started_at,
            last_activity: state.last_activity,
            event_count: state.event_count,
            ended_by_call: state.ended_by_call,
            number: state.number,
        }
    }
}

/// A session as it follows from the unfinalized events, by reference to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView<'a> {
    pub reason: Reason,
    pub started_at: Millis,
    pub last_activity: Millis,
    pub event_count: u32,
    pub page_views: u32,
    pub entry_url: Option<&'a Arc<str>>,
    pub landing_page: Option<&'a Arc<str>>,
    pub exit_page: Option<&'a Arc<str>>,
    pub source: Source<'a>,
    pub device: Option<&'a Arc<DeviceInfo>>,
    pub geo: Option<&'a Arc<GeoInfo>>,
    pub ended_by_call: bool,
    /// The finalized part, where the session began before the unfinalized events.
    pub base: Option<&'a SessionState>,
    /// Its entries: `unfinalized events[first..end]`.
    pub first: usize,
    pub end: usize,
}

/// Where an entry lies: in which view, and what the session amounted to with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position<'a> {
    /// The view's index; none for a keep-alive event outside of any session.
    pub view: Option<usize>,
    /// The session's page views up to this entry.
    pub page_views: u32,
    /// The last page viewed up to this entry.
    pub exit_page: Option<&'a Arc<str>>,
    /// Whether this is the session's first event.
    pub is_start: bool,
}

/// What the gap rules look at in the session so far.
struct SoFar {
    started_at: Millis,
    last_activity: Millis,
    event_count: u32,
    ended_by_call: bool,
}

/// The first reason, of those that time and counts alone decide, for which something at `at` begins a session.
fn reason_in_time(so_far: &SoFar, at: Millis, config: &SessionConfig) -> Option<Reason> {
    if so_far.ended_by_call {
        Some(Reason::Explicit)
    } else if config.is_timeout(at - so_far.last_activity) {
        Some(Reason::Timeout)
    } else if at - so_far.started_at > config.max_duration_ms() {
        Some(Reason::MaxDuration)
    } else if config.is_other_day(so_far.last_activity, at) {
        Some(Reason::Midnight)
    } else if config.max_events.is_some_and(|most| so_far.event_count >= most) {
        Some(Reason::MaxEvents)
    } else {
        None
    }
}

impl Previous {
    /// Why an event at `at` would begin a session after this one, as far as time and counts decide.
    pub fn reason_for(&self, at: Millis, config: &SessionConfig) -> Option<Reason> {
        let so_far = SoFar {
            started_at: self.started_at,
            last_activity: self.last_activity,
            event_count: self.event_count,
            ended_by_call: self.ended_by_call,
        };
        reason_in_time(&so_far, at, config)
    }

    /// The first time at which any event would begin a session after this one.
    pub fn over_from(&self, config: &SessionConfig) -> Millis {
        let is_over = |at: Millis| self.reason_for(at, config).is_some();
        let (mut before, mut after) = (self.last_activity, self.last_activity + config.timeout_ms() + 1);
        if is_over(before + 1) {
            return before + 1;
        }
        after = after.min(self.started_at + config.max_duration_ms() + 1);
        // The boundary, and midnight, can make it sooner; once over, a session stays so.
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if is_over(middle) { after = middle } else { before = middle }
        }
        after
    }
}

impl From<SourceChange> for Reason {
    fn from(change: SourceChange) -> Self {
        match change {
            SourceChange::Utm => Self::UtmChange,
            SourceChange::Referrer => Self::ReferrerChange,
            SourceChange::Click => Self::ClickIdChange,
        }
    }
}

impl<'a> SessionView<'a> {
    fn begin(reason: Reason, entry: &'a Entry, at_index: usize, config: &SessionConfig) -> Self {
        let mut view = Self {
            reason,
            started_at: entry.at,
            last_activity: entry.at,
            event_count: 0,
            page_views: 0,
            entry_url: None,
            landing_page: None,
            exit_page: None,
            source: Source::of(&entry.context, entry.click),
            device: None,
            geo: None,
            ended_by_call: false,
            base: None,
            first: at_index,
            end: at_index,
        };
        view.absorb(entry, at_index, config);
        view
    }

    fn resume(base: &'a SessionState) -> Self {
        Self {
            reason: base.reason,
            started_at: base.started_at,
            last_activity: base.last_activity,
            event_count: base.event_count,
            page_views: base.page_views,
            entry_url: base.entry_url.as_ref(),
            landing_page: base.landing_page.as_ref(),
            exit_page: base.exit_page.as_ref(),
            source: Source::new(base.referrer.as_ref(), base.utm.as_ref(), base.click),
            device: base.device.as_ref(),
            geo: base.geo.as_ref(),
            ended_by_call: base.ended_by_call,
            base: Some(base),
            first: 0,
            end: 0,
        }
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            started_at: self.started_at,
            last_activity: self.last_activity,
            event_count: self.event_count,
            ended_by_call: self.ended_by_call,
        }
    }

    /// Why an event at `at` that says nothing of its source would begin a session after this one.
    pub fn reason_for(&self, at: Millis, config: &SessionConfig) -> Option<Reason> {
        reason_in_time(&self.so_far(), at, config)
    }

    /// The one place that decides whether an entry ends this session: it begins another, unless it is a keep-alive event.
    pub fn reason_to_end(&self, entry: &Entry, config: &SessionConfig) -> Option<Reason> {
        if entry.kind == Kind::End {
            return None;
        }
        let reason = self.reason_for(entry.at, config);
        if entry.kind == Kind::KeepAlive {
            return reason;
        }
        reason.or_else(|| self.source.change(&Source::of(&entry.context, entry.click), config).map(Reason::from))
    }

    fn absorb(&mut self, entry: &'a Entry, index: usize, config: &SessionConfig) {
        // Keep-alive events in no session may lie between.
        self.end = index + 1;
        if entry.kind == Kind::End {
            self.ended_by_call = true;
            return;
        }
        self.last_activity = entry.at;
        if entry.kind == Kind::KeepAlive {
            return;
        }
        let context = &entry.context;
        if config.direct_then_source == DirectThenSource::Upgrade && self.source.is_none() {
            self.source = Source::of(context, entry.click);
        }
        self.entry_url = self.entry_url.or(context.url.as_ref());
        self.device = self.device.or(context.device.as_ref());
        self.geo = self.geo.or(context.geo.as_ref());
        if matches!(entry.kind, Kind::Pageview | Kind::Event) {
            self.event_count = self.event_count.saturating_add(1);
        }
        if entry.kind == Kind::Pageview {
            self.page_views = self.page_views.saturating_add(1);
            self.landing_page = self.landing_page.or(context.url.as_ref());
            self.exit_page = context.url.as_ref().or(self.exit_page);
        }
    }
}

/// The sessions of a timeline: its finalized, still open one continued by the unfinalized events, in time order.
/// An end mark always follows a session: one is set only there, and nothing before it ever goes.
pub fn fold<'a>(
    previous: Option<&Previous>,
    open: Option<&'a SessionState>,
    unfinalized: &'a [Entry],
    config: &SessionConfig,
) -> Vec<SessionView<'a>> {
    fold_each(previous, open, unfinalized, config, |_, _| ())
}

/// The same, and the place of each entry from `from` on.
pub fn fold_with_positions<'a>(
    previous: Option<&Previous>,
    open: Option<&'a SessionState>,
    unfinalized: &'a [Entry],
    from: usize,
    config: &SessionConfig,
) -> (Vec<SessionView<'a>>, Vec<Position<'a>>) {
    let mut positions = Vec::with_capacity(unfinalized.len() - from);
    let views = fold_each(previous, open, unfinalized, config, |index, view| {
        if index < from {
            return;
        }
        positions.push(match view {
            None => Position { view: None, page_views: 0, exit_page: None, is_start: false },
            Some((number, view)) => Position {
                view: Some(number),
                page_views: view.page_views,
                exit_page: view.exit_page,
                is_start: view.base.is_none() && view.first == index,
            },
        });
    });
    (views, positions)
}

/// Folds, and shows after each entry which view it is in, if any, and what that amounts to by then.
fn fold_each<'a>(
    previous: Option<&Previous>,
    open: Option<&'a SessionState>,
    unfinalized: &'a [Entry],
    config: &SessionConfig,
    mut each: impl FnMut(usize, Option<(usize, &SessionView<'a>)>),
) -> Vec<SessionView<'a>> {
    let mut views: Vec<SessionView<'a>> = open.map(SessionView::resume).into_iter().collect();
    for (index, entry) in unfinalized.iter().enumerate() {
        let reason = match views.last() {
            Some(view) => view.reason_to_end(entry, config),
            // A session follows a finalized one only when time or counts ended that: see `Timeline::finalize`.
            None => Some(previous.map_or(Reason::First, |p| p.reason_for(entry.at, config).unwrap_or(Reason::Timeout))),
        };
        match (reason, views.last_mut()) {
            (None, Some(view)) => view.absorb(entry, index, config),
            (Some(_), _) if entry.kind == Kind::KeepAlive => {
                each(index, None);
                continue;
            }
            (reason, _) => views.push(SessionView::begin(reason.unwrap_or(Reason::First), entry, index, config)),
        }
        each(index, views.last().map(|view| (views.len() - 1, view)));
    }
    views
}
