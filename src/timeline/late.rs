//! The rule for late events. A late event joins the session around its time or next to it, or makes a session of its own. It
//! never moves a session that may continue.

use uuid::Uuid;

use super::ids::{primary_ids, unused_id};
use super::known_events::{ByFingerprint, EventLocation};
use super::{Arrival, Timeline};
use crate::attribution::{Attribution, Source};
use crate::config::{DirectThenSource, SessionConfig};
use crate::model::{Entry, Kind, LateEvents, PreviousSession, SessionFacts, SessionState, counts};
use crate::rules::{fold, set_first};
use crate::session::{Millis, Reason};

/// What the rule needs to know about a session.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub id: Uuid,
    pub start: Millis,
    pub last: Millis,
    number: u32,
    pub attribution: Attribution,
    /// Whether the session is over. Only then can a late event extend it.
    pub is_over: bool,
}

/// How a late event was placed.
pub(super) struct LateDecision {
    pub fingerprint: u64,
    /// The session that began last before the event, or one before that, if only that one reaches to the event.
    pub before: Option<Span>,
    /// The session that begins first after the event.
    pub after: Option<Span>,
    /// Whether the event joined one of them.
    pub joins: bool,
}

impl Timeline {
    /// Returns the range of session id times in which archived sessions can be needed to apply these events. Returns `None` if no
    /// session is archived or none is needed.
    ///
    /// Archived sessions are needed for an unknown event that is late. They are also needed for one that is backdated by
    /// `sent_at`, because it can be a duplicate of an event with an earlier time.
    pub fn recall_range(&self, arrivals: &[Arrival], config: &SessionConfig) -> Option<(Millis, Millis)> {
        if self.archived == 0 {
            return None;
        }
        let needs_recall = |arrival: &&Arrival| {
            let may_be_duplicate = arrival.timed_by_sent_at && arrival.is_backdated(config);
            let is_counted = !arrival.passive && arrival.entry.kind != Kind::KeepAlive;
            is_counted && (may_be_duplicate || self.is_late(&arrival.entry))
        };
        let mut candidates = arrivals.iter().filter(needs_recall).peekable();
        candidates.peek()?;
        let known_events = self.known_events(&[], &[]);
        let unknown = candidates
            .filter(|arrival| !known_events.contains_key(&arrival.entry.uuid.fingerprint()))
            .map(|arrival| arrival.entry.at);
        let (earliest, latest) = unknown.fold(None, |range: Option<(Millis, Millis)>, at| {
            Some(range.map_or((at, at), |(earliest, latest)| (earliest.min(at), latest.max(at))))
        })?;
        let reach = reach_ms(config);
        Some((earliest - reach, latest + reach))
    }

    /// Places the late events among new events, which are sorted by time. Returns the other events. `recalled` are the archived
    /// sessions that were read, and the closed ones. Those that change wait for the close function again; the others stay as they
    /// are.
    pub(super) fn place_late<'a>(
        &mut self,
        new: Vec<&'a Arrival>,
        recalled: &mut Vec<SessionState>,
        known_events: &mut ByFingerprint<EventLocation>,
        config: &SessionConfig,
        mut decisions: Option<&mut Vec<LateDecision>>,
    ) -> Vec<&'a Arrival> {
        let received_at = new.iter().map(|arrival| arrival.received_at).max().unwrap_or(self.watermark);
        let mut spans: Option<Vec<Span>> = None;
        let mut fresh = Vec::new();
        for arrival in new {
            let entry = &arrival.entry;
            if !self.is_late(entry) {
                fresh.push(arrival);
                continue;
            }
            if entry.kind == Kind::KeepAlive {
                known_events.remove(&entry.uuid.fingerprint());
                continue;
            }
            let spans = spans.get_or_insert_with(|| self.spans(recalled, config));
            let decision = decisions.is_some().then(|| LateDecision::of(spans, entry, config));
            let joined = session_to_join(spans, entry, config);
            if let (Some(decisions), Some(decision)) = (decisions.as_deref_mut(), decision) {
                decisions.push(LateDecision { joins: joined.is_ok(), ..decision });
            }
            let id = match joined {
                Ok(id) => {
                    self.count_late(id, entry, recalled, config);
                    id
                }
                Err(change) => {
                    let state = self.late_session(entry, change, spans, recalled, config);
                    let at = spans.partition_point(|span| span.start <= state.facts.started_at);
                    spans.insert(at, Span::over(&state));
                    let id = state.id;
                    self.ended.push(state);
                    id
                }
            };
            known_events.insert(entry.uuid.fingerprint(), EventLocation::Late(id));
            self.advance_to_late_session(id, received_at - config.lateness_ms(), recalled, config);
        }
        if spans.is_some() {
            self.take_back_changed(recalled);
            self.ended.sort_by_key(|state| state.facts.started_at);
        }
        fresh
    }

    /// Returns all known sessions, ordered by start.
    fn spans(&self, recalled: &[SessionState], config: &SessionConfig) -> Vec<Span> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let ids = primary_ids(&self.anchors, &views);
        let live = views.iter().zip(ids).zip(self.first_number()..).map(|((view, id), number)| Span {
            id,
            start: view.facts.started_at,
            last: view.facts.last_activity,
            number,
            attribution: view.facts.attribution.clone(),
            is_over: false,
        });
        let mut spans: Vec<Span> = self.ended.iter().chain(recalled).map(Span::over).chain(live).collect();
        // Sessions of one start are in the order in which they were made.
        spans.sort_by_key(|span| (span.start, span.number));
        spans
    }

    /// Counts a late event in a session.
    fn count_late(&mut self, id: Uuid, entry: &Entry, recalled: &mut [SessionState], config: &SessionConfig) {
        if let Some(state) = self.ended.iter_mut().chain(recalled).find(|state| state.id == id) {
            state.version = self.seq;
            state.grow(entry, config);
            state.late.count(entry);
            state.settle_counts();
        } else if let Some(open) = self.open.as_mut().filter(|open| open.id == id) {
            open.version = self.seq;
            open.late.count(entry);
            open.settle_counts();
        } else if let Some(anchor) = self.anchors.iter_mut().find(|anchor| anchor.id == id) {
            anchor.version = self.seq;
            anchor.late.count(entry);
        }
    }

    /// Returns the session that a late event makes. `change` is the reason if the event's source kept it from joining another
    /// session. The new session is over from its beginning. Sessions after it keep their numbers.
    fn late_session(
        &self,
        entry: &Entry,
        change: Option<Reason>,
        spans: &[Span],
        recalled: &[SessionState],
        config: &SessionConfig,
    ) -> SessionState {
        let id = unused_id(self.visitor.bits(), entry.at, &entry.uuid, 0, |id| {
            self.ended.iter().chain(&self.open).chain(recalled).any(|state| state.ids().any(|other| other == id))
                || self.anchors.iter().any(|anchor| anchor.id == id)
        });
        let before = spans.iter().rev().find(|span| span.start <= entry.at);
        let known = |span: &Span| {
            self.ended.iter().chain(recalled).find(|state| state.id == span.id).map(PreviousSession::from)
        };
        // If neither a rule nor the source gives a reason, it is the timeout: an event within the timeout of the session before
        // would have joined that session.
        let reason = |span| known(span).and_then(|previous| previous.activity.reason_for(entry.at, config)).or(change);
        let reason = before.map_or(Reason::First, |span| reason(span).unwrap_or(Reason::Timeout));
        let mut state = SessionState {
            version: self.seq,
            number: before.map_or(1, |span| span.number + 1),
            previous: before.map(|span| span.id),
            facts: SessionFacts::begin(reason, entry.at, entry.source().into()),
            ..SessionState::empty(id)
        };
        // The session after it can be near enough to join, but for its source.
        let after = spans.get(spans.partition_point(|span| span.start <= entry.at));
        let after = after.filter(|after| state.facts.activity().reason_for(after.start, config).is_none());
        state.ended_by =
            after.and_then(|after| entry.source().change(&after.attribution.source(), config)).map(Reason::from);
        state.grow(entry, config);
        state.late.count(entry);
        state.settle_counts();
        state
    }

    /// Moves the recalled sessions that changed to those that wait for the close function. These are the ones with the version of
    /// this write.
    fn take_back_changed(&mut self, recalled: &mut Vec<SessionState>) {
        let (changed, same) = std::mem::take(recalled).into_iter().partition(|state| state.version == self.seq);
        *recalled = same;
        let changed: Vec<SessionState> = changed;
        let closed = self.closed.len();
        self.closed.retain(|closed| changed.iter().all(|state| state.id != closed.state.id));
        let from_archive = changed.len() - (closed - self.closed.len());
        self.archived = self.archived.saturating_sub(from_archive as u32);
        self.ended.extend(changed);
    }
}

/// Returns how far the time of an event can be from the time of the id of a session that it can join, in milliseconds.
///
/// A session that an event can join is at most one timeout away from the event. The time of the session's id is not before
/// the session's start. It is at most the maximum duration after the start that the session had before late events
/// extended it; see `ids::primary`. Late events can move the start back by another maximum duration.
pub(super) fn reach_ms(config: &SessionConfig) -> Millis {
    2 * config.max_duration_ms() + config.timeout_ms()
}

impl Span {
    /// Returns the span of a session that is over.
    fn over(state: &SessionState) -> Self {
        Self {
            id: state.id,
            start: state.facts.started_at,
            last: state.facts.last_activity,
            number: state.number,
            attribution: state.facts.attribution.clone(),
            is_over: true,
        }
    }

    /// Returns whether the session may have these edges under the maximum duration. A session that is not over always may,
    /// because a late event does not extend it.
    pub fn fits(&self, start: Millis, last: Millis, config: &SessionConfig) -> bool {
        !self.is_over || !config.is_too_long(last - start)
    }

    /// Returns whether an event at `at`, not before the session's start, lies in the session or within the timeout after it.
    fn reaches(&self, at: Millis, config: &SessionConfig) -> bool {
        at <= self.last || !config.is_timeout(at - self.last) && self.fits(self.start, at, config)
    }
}

/// Returns the session that a late event joins: the session that began last before it, if it contains the event's time or ended
/// within the timeout before it; else the session that begins within the timeout after it. A session that is over grows to include
/// the event, up to the maximum duration.
///
/// The event does not join if its source, or that of the session after it, would begin another session.
///
/// # Errors
///
/// If there is no such session: the reason that the event's source gives against the session before it, if any.
fn session_to_join(spans: &mut [Span], entry: &Entry, config: &SessionConfig) -> Result<Uuid, Option<Reason>> {
    let at = entry.at;
    let source = entry.source();
    let (before, after) = neighbors(spans, at, config);
    let mut reason = None;
    if let Some(span) = before.map(|before| &mut spans[before]).filter(|span| span.reaches(at, config)) {
        reason = span.attribution.source().change(&source, config).map(Reason::from);
        if reason.is_none() {
            if span.is_over {
                span.last = span.last.max(at);
            }
            return Ok(span.id);
        }
    }
    let Some(span) = spans.get_mut(after) else { return Err(reason) };
    let is_near = !config.is_timeout(span.start - at) && span.fits(at, span.last, config);
    if !is_near || source.change(&span.attribution.source(), config).is_some() {
        return Err(reason);
    }
    if span.is_over {
        span.start = at;
        if gives_source(&source, config) {
            span.attribution = source.into();
        }
    }
    Ok(span.id)
}

/// Returns the indexes of the sessions that a late event is compared with: of the last one before it that reaches to it, or else of
/// the last one before it; and of the first one after it, which can be missing.
fn neighbors(spans: &[Span], at: Millis, config: &SessionConfig) -> (Option<usize>, usize) {
    let after = spans.partition_point(|span| span.start <= at);
    let reaching = spans[..after].iter().rposition(|span| span.reaches(at, config));
    (reaching.or(after.checked_sub(1)), after)
}

impl LateDecision {
    /// Returns the sessions that [`session_to_join`] is about to compare with the event. It changes them.
    fn of(spans: &[Span], entry: &Entry, config: &SessionConfig) -> Self {
        let (before, after) = neighbors(spans, entry.at, config);
        let (before, after) = (before.map(|before| spans[before].clone()), spans.get(after).cloned());
        Self { fingerprint: entry.uuid.fingerprint(), before, after, joins: false }
    }
}

/// Returns whether a session takes over the source of an event that becomes its first one. An event without a source clears the
/// session's source, unless the session would be upgraded to the later source anyway.
fn gives_source(source: &Source<'_>, config: &SessionConfig) -> bool {
    !source.is_none() || config.direct_then_source != DirectThenSource::Upgrade
}

impl LateEvents {
    /// Counts a late event. A library call that asks for a session is none, so it leaves no fingerprint either.
    fn count(&mut self, entry: &Entry) {
        if entry.kind == Kind::Touch {
            return;
        }
        self.event_count = self.event_count.saturating_add(1);
        self.page_views = self.page_views.saturating_add(u32::from(entry.kind == Kind::Pageview));
        self.fingerprints.push(entry.uuid.fingerprint());
        entry.properties.iter().for_each(|(key, json)| counts::add_late(&mut self.counts, key, json));
    }

    /// Adds the late events of a session that was merged into this one. That session was not finalized, so it has no pages.
    pub(super) fn add(&mut self, other: &Self) {
        self.event_count = self.event_count.saturating_add(other.event_count);
        self.page_views = self.page_views.saturating_add(other.page_views);
        self.fingerprints.extend(&other.fingerprints);
        other.counts.iter().for_each(|(key, json)| counts::add(&mut self.counts, key, json));
    }
}

impl SessionState {
    /// Extends a session that is over to include a late event, and updates its properties.
    fn grow(&mut self, entry: &Entry, config: &SessionConfig) {
        let is_last = entry.at >= self.facts.last_activity;
        for (key, value) in entry.properties.iter().filter(|(key, _)| !counts::is_count(key)) {
            if is_last || !self.properties.contains_key(key) {
                self.set_property(key, value);
            }
        }
        self.facts.grow(entry, config);
    }
}

impl SessionFacts {
    /// Extends a session that is over to include a late event. The counts do not change: see [`LateEvents`].
    fn grow(&mut self, entry: &Entry, config: &SessionConfig) {
        let (is_first, is_last) = (entry.at < self.started_at, entry.at >= self.last_activity);
        let source = entry.source();
        let is_upgrade = self.attribution.source().is_none() && config.direct_then_source == DirectThenSource::Upgrade;
        if is_upgrade || is_first && gives_source(&source, config) {
            self.attribution = source.into();
        }
        let url = entry.context.url.as_ref();
        let page = url.filter(|_| entry.kind == Kind::Pageview);
        set(&mut self.entry_url, url, is_first);
        set(&mut self.landing_page, page, is_first);
        set(&mut self.exit_page, page, is_last);
        set_first(&mut self.device, entry.context.device.as_ref());
        set_first(&mut self.geo, entry.context.geo.as_ref());
        set(&mut self.user_id, entry.context.user_id.as_ref(), is_last);
        self.started_at = self.started_at.min(entry.at);
        self.last_activity = self.last_activity.max(entry.at);
    }
}

/// Sets a value of a session to that of a late event, if the session has none or the event's value takes precedence.
fn set<T: Clone>(fact: &mut Option<T>, value: Option<&T>, takes_precedence: bool) {
    if value.is_some() && (takes_precedence || fact.is_none()) {
        *fact = value.cloned();
    }
}
