//! Finalization: an event that no event within the allowed lateness can affect any more leaves the unfinalized events.

use uuid::Uuid;

use super::ids::primary_ids;
use super::{
    Arrival, Closing, MAX_UNFINALIZED_BYTES, MAX_UNFINALIZED_EVENTS, MAX_UNFINALIZED_LATE_EVENTS,
    MIN_UNFINALIZED_EVENTS, Overflow, SessionAnchor, Timeline,
};
use crate::config::SessionConfig;
use crate::model::{Entry, Kind, PreviousSession, SessionState, SessionView, counts};
use crate::rules::{ended_by, fold};
use crate::session::Millis;

/// The maximum number of custom properties that a session keeps. Further keys are dropped.
pub const MAX_PROPERTIES: usize = 16;
/// The maximum size of a session's custom properties in bytes, keys and values together.
pub const MAX_PROPERTY_BYTES: usize = 1024;

/// An upper bound of what an entry takes in the store beside its strings: its fields, its fingerprint, and the session that it may
/// begin.
const ENTRY_BYTES: usize = 100;

impl Timeline {
    /// Takes out the sessions that are over at `now`, and the corrections. The caller emits and archives them before it writes
    /// the remaining timeline. The result depends on nothing but the timeline, `now` and the configuration.
    pub fn close(&mut self, now: Millis, config: &SessionConfig) -> Closing {
        self.realign(config);
        if !self.is_held(now) {
            self.finalize_what_is_over(now - config.lateness_ms(), config);
        }
        let closing =
            Closing { ended: std::mem::take(&mut self.ended), corrections: std::mem::take(&mut self.corrections) };
        self.archived = self.archived.saturating_add(closing.ended.len() as u32);
        self.due_at = self.next_due(config);
        closing
    }

    /// Finalizes the open session before late events are placed, if it is over and nothing holds it. A late event can extend a
    /// session and give it its source only once that session is over. Usually the close function has finalized it by then, but
    /// it may be down. Returns whether anything was finalized.
    pub(super) fn finalize_for_late(&mut self, new: &[&Arrival], config: &SessionConfig) -> bool {
        let Some(open) = &self.open else { return false };
        if !new.iter().any(|arrival| self.is_late(&arrival.entry)) {
            return false;
        }
        let newest = new.iter().map(|arrival| arrival.received_at).max().unwrap_or(self.watermark);
        let watermark = newest - config.lateness_ms();
        let over_from = PreviousSession::from(open).activity.over_from(config);
        if over_from > watermark || self.is_held(newest) {
            return false;
        }
        self.finalize_what_is_over(watermark, config);
        true
    }

    /// Finalizes the sessions that are over and that no event from `watermark` on can change. A session that may continue keeps
    /// its events unfinalized. The exception is its first event, if the source of that event ended the session before: without
    /// that event, the session before would not be over.
    fn finalize_what_is_over(&mut self, watermark: Millis, config: &SessionConfig) {
        let cut = self.unfinalized.partition_point(|entry| entry.at < watermark);
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized[..cut], config);
        let Some((last, before)) = views.split_last() else {
            self.finalize(watermark, config);
            return;
        };
        let watermark = match before.last() {
            _ if self.is_over(last, cut, watermark, config) => watermark,
            // Neither time nor counts ended the session before: the first event's source did, so that event is finalized, too.
            Some(over) if over.reason_for(last.facts.started_at, config).is_none() => last.facts.started_at + 1,
            // The session before has an event at that same time, so the watermark has to come after it.
            Some(over)
                if over.end.checked_sub(1).is_some_and(|end| self.unfinalized[end].at == last.facts.started_at) =>
            {
                last.facts.started_at + 1
            }
            Some(_) => last.facts.started_at,
            None => return,
        };
        self.finalize(watermark, config);
    }

    /// Returns whether the last session of the first `cut` unfinalized entries is over at `watermark`. If an end mark follows it,
    /// the session stays open until the mark is finalized, even if it is over for another reason. Otherwise the next session
    /// would not begin with the reason `explicit`.
    fn is_over(&self, last: &SessionView<'_>, cut: usize, watermark: Millis, config: &SessionConfig) -> bool {
        let mut following = self.unfinalized[cut..].iter().filter(|entry| entry.kind != Kind::KeepAlive);
        let has_mark = following.next().is_some_and(|next| next.kind == Kind::End);
        !has_mark && last.reason_for(watermark, config).is_some()
    }

    /// Finalizes every event before `watermark`.
    ///
    /// The timeline's own watermark moves no further than needed: behind the last finalized event, or to the time at which the
    /// last session is over.
    pub fn finalize(&mut self, watermark: Millis, config: &SessionConfig) {
        if watermark <= self.watermark {
            return;
        }
        let cut = self.unfinalized.partition_point(|entry| entry.at < watermark);
        // This can be a keep-alive event outside of any session. Such events leave no fingerprint, so a duplicate must be late.
        let last = cut.checked_sub(1).map(|last| self.unfinalized[last].at);
        self.finalize_first(cut, watermark, config);
        // No event may join a session that is over, so the watermark moves to where that session is over. For a session that may
        // continue, it is enough that no event comes before the last finalized one.
        let is_over = self.open.is_none();
        let over_from =
            self.previous.filter(|_| is_over).map(|previous| previous.activity.over_from(config).min(watermark));
        self.advance(last.map_or(Millis::MIN, |at| at + 1).max(over_from.unwrap_or(Millis::MIN)));
    }

    /// Finalizes the first `count` unfinalized entries, because there is no room for them.
    fn finalize_excess(&mut self, count: usize, config: &SessionConfig) {
        let last = &self.unfinalized[count - 1];
        let (at, id) = (last.at, last.uuid.clone());
        self.finalize_first(count, at, config);
        self.advance_behind(at, id);
    }

    /// Finalizes the first `cut` unfinalized entries. The last session among them stays open unless it is over at `watermark`.
    /// The caller moves the timeline's watermark.
    fn finalize_first(&mut self, cut: usize, watermark: Millis, config: &SessionConfig) {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized[..cut], config);
        let Some(last) = views.last() else {
            // There are only keep-alive events outside of any session.
            self.drop_entries(cut);
            return;
        };
        let last_is_over = self.is_over(last, cut, watermark, config);
        let ids = primary_ids(&self.anchors, &views);
        let state = |(number, view): (usize, &SessionView<'_>)| SessionState {
            ended_by: ended_by(&views, number),
            ..self.state(view, ids[number], number, &ids)
        };
        let mut states: Vec<SessionState> = views.iter().enumerate().map(state).collect();
        let open = if last_is_over { None } else { states.pop() };
        if let Some(over) = states.last() {
            self.previous = Some(PreviousSession::from(over));
        }
        self.ended.extend(states);
        self.ended.sort_by_key(|state| state.facts.started_at);
        self.open = open;
        self.drop_entries(cut);
    }

    /// Removes the first `cut` unfinalized entries and their anchors.
    fn drop_entries(&mut self, cut: usize) {
        self.unfinalized.drain(..cut);
        self.anchors.retain_mut(|anchor| match anchor.entry.checked_sub(cut) {
            Some(entry) => {
                anchor.entry = entry;
                true
            }
            None => false,
        });
    }

    /// Returns the state of a view as if all its entries were finalized.
    pub(super) fn state(&self, view: &SessionView<'_>, id: Uuid, number: usize, ids: &[Uuid]) -> SessionState {
        let mut state = view.base.cloned().unwrap_or_else(|| SessionState::empty(id));
        state.facts = view.facts.clone();
        state.number = self.first_number() + number as u32;
        state.previous = self.previous_of(number, ids);
        for anchor in self.anchors.iter().filter(|anchor| (view.first..view.end).contains(&anchor.entry)) {
            if anchor.id == id {
                state.version = anchor.version;
            } else {
                state.aliases.push(anchor.id);
            }
            state.late.add(&anchor.late);
        }
        for entry in &self.unfinalized[view.first..view.end] {
            // A duplicate of a keep-alive event changes nothing, so it needs no fingerprint.
            if !matches!(entry.kind, Kind::End | Kind::KeepAlive) {
                state.set_properties(entry);
                state.fingerprints.push(entry.uuid.fingerprint());
            }
        }
        state.settle_counts();
        state
    }

    /// Keeps the timeline within its limits and updates `due_at`. `corrected` is the number of corrections before the events were
    /// applied.
    pub(super) fn bound(&mut self, arrivals: &[Arrival], corrected: usize, config: &SessionConfig) -> Overflow {
        let newest = arrivals.iter().map(|arrival| arrival.received_at).max().unwrap_or(self.watermark);
        let mut overflow = Overflow::default();
        if !self.is_held(newest) && self.unfinalized.len() > MIN_UNFINALIZED_EVENTS {
            self.finalize(newest - config.lateness_ms(), config);
        }
        let mut excess = self.unfinalized.len().saturating_sub(MAX_UNFINALIZED_EVENTS);
        let mut bytes: usize = self.unfinalized[excess..].iter().map(Entry::string_bytes).sum();
        while bytes > MAX_UNFINALIZED_BYTES {
            bytes -= self.unfinalized[excess].string_bytes();
            excess += 1;
        }
        let is_full = |anchor: &&SessionAnchor| anchor.late.fingerprints.len() > MAX_UNFINALIZED_LATE_EVENTS;
        excess = excess.max(self.anchors.iter().rfind(is_full).map_or(0, |anchor| anchor.entry + 1));
        if excess > 0 {
            self.finalize_excess(excess, config);
            overflow.finalized_early = excess;
        }
        self.schedule(newest, self.corrections.len() > corrected, config);
        overflow
    }

    /// Updates `due_at`. An existing time is kept where that does no harm, because a new time is also written to the index, at
    /// twice the price of the write itself.
    fn schedule(&mut self, now: Millis, has_corrections: bool, config: &SessionConfig) {
        let reach = config.timeout_ms() + config.lateness_ms();
        // A cheap check comes first: if `due_at` is near the first event, it can stay.
        let first =
            self.open.as_ref().map(|open| open.facts.last_activity).or_else(|| Some(self.unfinalized.first()?.at));
        let is_near = self.due_at.zip(first).is_some_and(|(due, first)| due - first <= reach + config.lateness_ms());
        if is_near && !has_corrections && self.ended.is_empty() {
            return;
        }
        // A session that late events made or changed waits for more of them, because every new version is emitted and archived
        // again.
        let next = if self.ended.is_empty() { self.next_due(config) } else { Some(now + config.lateness_ms()) };
        self.due_at = match (self.due_at, next) {
            (due, _) if has_corrections => due.into_iter().chain([now]).min(),
            (due, next) if !self.ended.is_empty() => due.into_iter().chain(next).min(),
            // Only an event far in the future can have set `due_at` so late.
            (Some(due), Some(next)) if due - next > reach => Some(next),
            (due, next) => due.or(next),
        };
    }

    /// Returns the first time at which a session of the unfinalized events is over and may be finalized, if no more events come.
    /// Returns `None` if there is no such session.
    pub fn next_due(&self, config: &SessionConfig) -> Option<Millis> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let over_at = |number: usize, view: &SessionView<'_>| {
            let alone = if view.facts.ended_by_request {
                // The end mark is the session's last entry, or it is finalized.
                self.unfinalized[..view.end].last().map_or(self.watermark, |entry| entry.at)
            } else {
                view.facts.last_activity + config.timeout_ms()
            };
            views.get(number + 1).map_or(alone, |next| alone.min(next.facts.started_at))
        };
        let first = views.iter().enumerate().map(|(number, view)| over_at(number, view)).min()?;
        Some((first + 1 + config.lateness_ms()).max(self.held_until.unwrap_or(Millis::MIN)))
    }
}

impl Entry {
    /// Returns the size in bytes of the strings that count towards [`MAX_UNFINALIZED_BYTES`]: all except device and location.
    fn string_bytes(&self) -> usize {
        let context = &self.context;
        let strings: usize =
            [&context.url, &context.referrer, &context.user_id].into_iter().flatten().map(|value| value.len()).sum();
        let utm: usize = context.utm.iter().flat_map(|utm| utm.strings()).flatten().map(str::len).sum();
        let properties: usize = self.properties.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.uuid.len() + strings + utm + properties
    }

    /// Returns an upper bound of the bytes that the entry takes in the store, without compression.
    pub(crate) fn state_bytes(&self) -> usize {
        let device = self.context.device.iter().flat_map(|device| device.strings());
        let geo = self.context.geo.iter().flat_map(|geo| geo.strings());
        let context: usize = device.chain(geo).flatten().map(str::len).sum();
        ENTRY_BYTES + self.string_bytes() + context
    }
}

impl SessionState {
    /// Sets an event's custom properties.
    pub(super) fn set_properties(&mut self, entry: &Entry) {
        for (key, value) in &entry.properties {
            if counts::is_count(key) {
                counts::add(&mut self.properties, key, value);
            } else {
                self.set_property(key, value);
            }
        }
    }

    /// Adds the counts of late events to those of the session.
    pub(super) fn settle_counts(&mut self) {
        if !self.late.counts.is_empty() {
            counts::settle(&mut self.late.counts, &mut self.properties);
        }
    }

    /// Sets a custom property. Drops it if it would exceed [`MAX_PROPERTIES`] or [`MAX_PROPERTY_BYTES`].
    pub(super) fn set_property(&mut self, key: &str, value: &str) {
        let own = || self.properties.iter().filter(|(key, _)| !counts::is_count(key));
        let is_full = own().count() >= MAX_PROPERTIES && !self.properties.contains_key(key);
        let others = own().filter(|(other, _)| *other != key);
        let bytes: usize = others.map(|(key, value)| key.len() + value.len()).sum();
        if !is_full && bytes + key.len() + value.len() <= MAX_PROPERTY_BYTES {
            self.properties.insert(key.to_owned(), value.to_owned());
        }
    }
}
