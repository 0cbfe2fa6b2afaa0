//! The rule for late events: they join the session that they lie in or next to, or make one of their own; they never move a
//! session that may still grow.

use uuid::Uuid;

use super::ids::{lead_ids, unused_id};
use super::spots::{ByPrint, Spot};
use super::{Arrival, MAX_SEEN, Timeline};
use crate::config::SessionConfig;
use crate::rules::{Entry, Kind, Late, Previous, Tally, fold};
use crate::session::{Millis, Reason};

/// A session as the rule sees it.
struct Span {
    id: Uuid,
    start: Millis,
    last: Millis,
    number: u32,
    /// A session that is over grows by late events; one that follows from the journal stays where it is.
    is_over: bool,
}

impl Timeline {
    /// The span of time in which archived sessions could be needed to place these events: those that come too late and are not
    /// known here. None where nothing was archived or nothing is needed.
    pub fn recall_range(&self, arrivals: &[Arrival], config: &SessionConfig) -> Option<(Millis, Millis)> {
        if self.archived == 0 {
            return None;
        }
        let spots = self.spots(&[]);
        let unknown = arrivals
            .iter()
            .filter(|arrival| !arrival.passive && arrival.entry.kind != Kind::KeepAlive)
            .filter(|arrival| self.is_late(arrival, config))
            .filter(|arrival| !spots.contains_key(&arrival.entry.uuid.print()))
            .map(|arrival| arrival.entry.at);
        let (least, most) = unknown.fold(None, |range: Option<(Millis, Millis)>, at| {
            Some(range.map_or((at, at), |(least, most)| (least.min(at), most.max(at))))
        })?;
        // An id's time lies within its session, and that at most its maximum and a timeout away from an event that can join.
        let reach = config.max_duration_ms() + config.timeout_ms();
        Some((least - reach, most + reach))
    }

    /// Places late events, the oldest first.
    pub(super) fn place_late(
        &mut self,
        mut late: Vec<&Entry>,
        recalled: &mut [Tally],
        spots: &mut ByPrint<Spot>,
        config: &SessionConfig,
    ) {
        late.sort_by_key(|entry| (entry.at, &entry.uuid));
        let mut spans = self.spans(recalled, config);
        for entry in late {
            let id = match nearest(&mut spans, entry.at, config) {
                Some(id) => {
                    self.count_late(id, entry, recalled);
                    id
                }
                None => {
                    let tally = self.late_session(entry, &spans, recalled, config);
                    let (id, start, number) = (tally.id, tally.started_at, tally.number);
                    spans.push(Span { id, start, last: start, number, is_over: true });
                    spans.sort_by_key(|span| span.start);
                    let at = self.ended.partition_point(|other| other.started_at <= start);
                    self.ended.insert(at, tally);
                    id
                }
            };
            spots.insert(entry.uuid.print(), Spot::Late(id));
        }
    }

    /// All known sessions, by start.
    fn spans(&self, recalled: &[Tally], config: &SessionConfig) -> Vec<Span> {
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal, config);
        let ids = lead_ids(&self.heads, &drafts);
        let over = self.ended.iter().chain(recalled).map(|tally| Span {
            id: tally.id,
            start: tally.started_at,
            last: tally.last_activity,
            number: tally.number,
            is_over: true,
        });
        let live = drafts.iter().zip(ids).zip(self.first_number()..).map(|((draft, id), number)| Span {
            id,
            start: draft.started_at,
            last: draft.last_activity,
            number,
            is_over: false,
        });
        let mut spans: Vec<Span> = over.chain(live).collect();
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// Counts a late event in a session.
    fn count_late(&mut self, id: Uuid, entry: &Entry, recalled: &mut [Tally]) {
        if let Some(tally) = self.ended.iter_mut().chain(recalled).find(|tally| tally.id == id) {
            tally.version = self.seq;
            tally.grow(entry);
            tally.late.count(entry);
        } else if let Some(open) = self.open.as_mut().filter(|open| open.id == id) {
            open.version = self.seq;
            open.late.count(entry);
        } else if let Some(head) = self.heads.iter_mut().find(|head| head.id == id) {
            head.version = self.seq;
            head.late.count(entry);
        }
    }

    /// A session that a late event makes: over from its beginning. Sessions after it keep their numbers.
    fn late_session(&self, entry: &Entry, spans: &[Span], recalled: &[Tally], config: &SessionConfig) -> Tally {
        let id = unused_id(self.visitor.bits(), entry.at, &entry.uuid, 0, |id| {
            self.ended.iter().chain(&self.open).chain(recalled).any(|tally| tally.ids().any(|other| other == id))
                || self.heads.iter().any(|head| head.id == id)
        });
        let before = spans.iter().rev().find(|span| span.start <= entry.at);
        let known =
            |span: &Span| self.ended.iter().chain(recalled).find(|tally| tally.id == span.id).map(Previous::from);
        // Not in the timeout of a session before it, or it would have joined that.
        let reason = |span| known(span).and_then(|previous| previous.reason_for(entry.at, config));
        let mut tally = Tally {
            version: self.seq,
            reason: before.map_or(Reason::First, |span| reason(span).unwrap_or(Reason::Timeout)),
            number: before.map_or(1, |span| span.number + 1),
            previous: before.map(|span| span.id),
            started_at: entry.at,
            referrer: entry.context.referrer.clone(),
            utm: entry.context.utm.clone(),
            click: entry.click,
            ..Tally::empty(id)
        };
        tally.grow(entry);
        tally.late.count(entry);
        tally
    }

    /// Takes the recalled sessions that changed back into the timeline; the others stay archived as they are.
    pub(super) fn take_back(&mut self, recalled: Vec<Tally>) {
        for tally in recalled.into_iter().filter(|tally| tally.version == self.seq) {
            self.archived = self.archived.saturating_sub(1);
            let at = self.ended.partition_point(|other| other.started_at <= tally.started_at);
            self.ended.insert(at, tally);
        }
    }
}

/// The session that a late event at `at` joins: the one it lies in, else the one before it within the timeout, else the one
/// after it. One that is over grows to it, up to the maximum duration.
fn nearest(spans: &mut [Span], at: Millis, config: &SessionConfig) -> Option<Uuid> {
    let after = spans.partition_point(|span| span.start <= at);
    let fits = |span: &Span, start: Millis, last: Millis| !span.is_over || last - start <= config.max_duration_ms();
    if let Some(span) = after.checked_sub(1).and_then(|before| spans.get_mut(before)) {
        if at <= span.last {
            return Some(span.id);
        }
        if !config.is_timeout(at - span.last) && fits(span, span.start, at) {
            if span.is_over {
                span.last = at;
            }
            return Some(span.id);
        }
    }
    let span = spans.get_mut(after)?;
    if config.is_timeout(span.start - at) || !fits(span, at, span.last) {
        return None;
    }
    if span.is_over {
        span.start = at;
    }
    Some(span.id)
}

impl Late {
    fn count(&mut self, entry: &Entry) {
        self.event_count = self.event_count.saturating_add(1);
        self.page_views = self.page_views.saturating_add(u32::from(entry.kind == Kind::Pageview));
        self.remember(entry.uuid.print());
    }

    /// Adds what was counted in another session that became one with this.
    pub(super) fn add(&mut self, other: &Self) {
        self.event_count = self.event_count.saturating_add(other.event_count);
        self.page_views = self.page_views.saturating_add(other.page_views);
        for &print in &other.seen {
            self.remember(print);
        }
    }

    fn remember(&mut self, print: u64) {
        if self.seen.len() == MAX_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(print);
    }
}

impl Tally {
    /// Moves the edges of a session that is over out to a late event.
    fn grow(&mut self, entry: &Entry) {
        let url = entry.context.url.as_ref();
        let page = url.filter(|_| entry.kind == Kind::Pageview);
        if entry.at < self.started_at {
            self.entry_url = url.or(self.entry_url.as_ref()).cloned();
            self.landing_page = page.or(self.landing_page.as_ref()).cloned();
        } else {
            self.entry_url = self.entry_url.take().or_else(|| url.cloned());
            self.landing_page = self.landing_page.take().or_else(|| page.cloned());
        }
        if entry.at >= self.last_activity {
            self.exit_page = page.or(self.exit_page.as_ref()).cloned();
        } else {
            self.exit_page = self.exit_page.take().or_else(|| page.cloned());
        }
        self.device = self.device.take().or_else(|| entry.context.device.clone());
        self.geo = self.geo.take().or_else(|| entry.context.geo.clone());
        let is_last = entry.at >= self.last_activity;
        for (key, value) in &entry.properties {
            if is_last || !self.properties.contains_key(key) {
                self.set_property(key, value);
            }
        }
        self.started_at = self.started_at.min(entry.at);
        self.last_activity = self.last_activity.max(entry.at);
    }
}
