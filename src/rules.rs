//! The sessionization rules: which event begins a session, and why. Pure.
//!
//! This is the definition of a session: sort a visitor's events by time and id, and fold them once with [`fold`].

use crate::attribution::{Attribution, SourceChange};
use crate::config::{DirectThenSource, SessionConfig};
use crate::model::{
    Activity, Decision, Entry, Kind, Position, PreviousSession, SessionBeforeEntry, SessionFacts, SessionState,
    SessionView,
};
use crate::session::{Millis, Reason};

impl Activity {
    /// Returns the first reason of time or counts for which an event at `at` begins another session. Returns `None` if there is
    /// no such reason.
    pub fn reason_for(&self, at: Millis, config: &SessionConfig) -> Option<Reason> {
        if self.ended_by_request {
            Some(Reason::Explicit)
        } else if config.is_timeout(at - self.last_activity) {
            Some(Reason::Timeout)
        } else if config.is_too_long(at - self.started_at) {
            Some(Reason::MaxDuration)
        } else if config.is_other_day(self.last_activity, at) {
            Some(Reason::Midnight)
        } else if config.is_full(self.event_count) {
            Some(Reason::MaxEvents)
        } else {
            None
        }
    }

    /// Returns the first time at which every event begins another session.
    pub fn over_from(&self, config: &SessionConfig) -> Millis {
        let is_over = |at: Millis| self.reason_for(at, config).is_some();
        let (mut before, mut after) = (self.last_activity, self.last_activity + config.timeout_ms() + 1);
        if is_over(before + 1) {
            return before + 1;
        }
        after = after.min(self.started_at + config.max_duration_ms() + 1);
        // The configured timeout boundary and midnight can make it earlier. A binary search finds it, because a session that is
        // over at one time is over at every later time.
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if is_over(middle) { after = middle } else { before = middle }
        }
        after
    }
}

impl SessionState {
    /// Returns why a session that is over ended: the source of the next session, or else the first of the rules of time and counts
    /// that held. It does not depend on when the next event comes, so it is known when the session is over.
    pub fn end_reason(&self, config: &SessionConfig) -> Reason {
        let activity = self.facts.activity();
        let of_activity = || activity.reason_for(activity.over_from(config), config);
        self.ended_by.or_else(of_activity).unwrap_or(Reason::Timeout)
    }
}

/// Returns the reason of the session after the view with this index, if its source ended that view.
pub(crate) fn ended_by(views: &[SessionView<'_>], number: usize) -> Option<Reason> {
    views.get(number + 1).map(|next| next.facts.reason).filter(|reason| reason.is_of_source())
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
    /// Returns a session that begins with this entry.
    fn begin(reason: Reason, entry: &Entry, index: usize, config: &SessionConfig) -> Self {
        let facts = SessionFacts::begin(reason, entry.at, Attribution::from(entry.source()));
        let mut view = Self { facts, base: None, first: index, end: index };
        view.absorb(entry, index, config);
        view
    }

    /// Returns a session that continues this finalized state.
    fn resume(base: &'a SessionState) -> Self {
        Self { facts: base.facts.clone(), base: Some(base), first: 0, end: 0 }
    }

    /// Returns why an event at `at` that names no source would begin another session. Returns `None` if it would not.
    pub fn reason_for(&self, at: Millis, config: &SessionConfig) -> Option<Reason> {
        self.facts.activity().reason_for(at, config)
    }

    /// Returns why an entry ends this session; `None` if it belongs to it. This is the only place that decides it. An entry that
    /// ends the session begins another one, unless it is a keep-alive event.
    pub fn reason_to_end(&self, entry: &Entry, config: &SessionConfig) -> Option<Reason> {
        if entry.kind == Kind::End {
            return None;
        }
        let reason = self.reason_for(entry.at, config);
        if entry.kind == Kind::KeepAlive {
            return reason;
        }
        reason.or_else(|| self.facts.attribution.source().change(&entry.source(), config).map(Reason::from))
    }

    /// Adds an entry to the session.
    fn absorb(&mut self, entry: &Entry, index: usize, config: &SessionConfig) {
        // Not `self.end += 1`: keep-alive events that belong to no session can lie in between.
        self.end = index + 1;
        let facts = &mut self.facts;
        if entry.kind == Kind::End {
            facts.ended_by_request = true;
            return;
        }
        facts.last_activity = entry.at;
        if entry.kind == Kind::KeepAlive {
            return;
        }
        let context = &entry.context;
        if config.direct_then_source == DirectThenSource::Upgrade && facts.attribution.source().is_none() {
            facts.attribution = entry.source().into();
        }
        set_first(&mut facts.entry_url, context.url.as_ref());
        set_first(&mut facts.device, context.device.as_ref());
        set_first(&mut facts.geo, context.geo.as_ref());
        if context.user_id.is_some() {
            facts.user_id.clone_from(&context.user_id);
        }
        if matches!(entry.kind, Kind::Pageview | Kind::Event) {
            facts.event_count = facts.event_count.saturating_add(1);
        }
        if entry.kind == Kind::Pageview {
            facts.page_views = facts.page_views.saturating_add(1);
            set_first(&mut facts.landing_page, context.url.as_ref());
            if context.url.is_some() {
                facts.exit_page.clone_from(&context.url);
            }
        }
    }
}

/// Sets a value that the first event with such a value decides.
pub(crate) fn set_first<T: Clone>(fact: &mut Option<T>, value: Option<&T>) {
    if fact.is_none() {
        *fact = value.cloned();
    }
}

/// Returns the sessions that follow from the unfinalized events, in order of time. The first one continues the open session, if
/// there is one.
///
/// An end mark never comes first. It is set only behind the events of a live session, and that session stays open until its mark
/// is finalized, too.
pub fn fold<'a>(
    previous: Option<&PreviousSession>,
    open: Option<&'a SessionState>,
    unfinalized: &[Entry],
    config: &SessionConfig,
) -> Vec<SessionView<'a>> {
    fold_each(previous, open, unfinalized, config, |_, _| (), |_, _| ())
}

/// Returns the sessions like [`fold`], and for each entry what it was compared with and what was decided.
pub fn fold_with_decisions<'a>(
    previous: Option<&PreviousSession>,
    open: Option<&'a SessionState>,
    unfinalized: &[Entry],
    config: &SessionConfig,
) -> (Vec<SessionView<'a>>, Vec<Decision>) {
    let mut decisions = Vec::with_capacity(unfinalized.len());
    let decide = |views: &[SessionView<'a>], reason| {
        let (view, activity) = (views.len().checked_sub(1), |view: &SessionView<'_>| view.facts.activity());
        let before = views.last().map(activity).or_else(|| Some(previous?.activity));
        let attribution = views.last().map(|view| view.facts.attribution.clone());
        let before = before.map(|activity| SessionBeforeEntry { view, activity, attribution });
        decisions.push(Decision { before, reason });
    };
    let views = fold_each(previous, open, unfinalized, config, decide, |_, _| ());
    (views, decisions)
}

/// Returns the sessions like [`fold`], and the position of each entry from the index `from` on.
pub fn fold_with_positions<'a>(
    previous: Option<&PreviousSession>,
    open: Option<&'a SessionState>,
    unfinalized: &[Entry],
    from: usize,
    config: &SessionConfig,
) -> (Vec<SessionView<'a>>, Vec<Position>) {
    let mut positions = Vec::with_capacity(unfinalized.len() - from);
    let place = |index, view: Option<(usize, &SessionView<'a>)>| {
        if index < from {
            return;
        }
        positions.push(match view {
            None => Position { view: None, page_views: 0, exit_page: None, user_id: None, is_start: false },
            Some((number, view)) => Position {
                view: Some(number),
                page_views: view.facts.page_views,
                exit_page: view.facts.exit_page.clone(),
                user_id: view.facts.user_id.clone(),
                is_start: view.base.is_none() && view.first == index,
            },
        });
    };
    let views = fold_each(previous, open, unfinalized, config, |_, _| (), place);
    (views, positions)
}

/// Folds the unfinalized events. Before each entry, calls `decide` with the views before it, and with the reason for which the entry
/// ends the last of them, if any. After each entry, calls `each` with the entry's index, and with the index and the current state of
/// the view that the entry belongs to, if any.
fn fold_each<'a>(
    previous: Option<&PreviousSession>,
    open: Option<&'a SessionState>,
    unfinalized: &[Entry],
    config: &SessionConfig,
    mut decide: impl FnMut(&[SessionView<'a>], Option<Reason>),
    mut each: impl FnMut(usize, Option<(usize, &SessionView<'a>)>),
) -> Vec<SessionView<'a>> {
    let mut views: Vec<SessionView<'a>> = open.map(SessionView::resume).into_iter().collect();
    for (index, entry) in unfinalized.iter().enumerate() {
        let reason =
            match views.last() {
                Some(view) => view.reason_to_end(entry, config),
                // Without an open session, the previous one was finalized because time or counts ended it (see
                // `Timeline::finalize`). So one of these reasons holds, unless the configuration has changed since.
                None => Some(previous.map_or(Reason::First, |last| {
                    last.activity.reason_for(entry.at, config).unwrap_or(Reason::Timeout)
                })),
            };
        decide(&views, reason);
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
