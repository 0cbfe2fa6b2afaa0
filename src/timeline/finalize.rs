//! Settling: what no event that arrives in time can change any more leaves the unfinalized events.

use uuid::Uuid;

use super::ids::primary_ids;
use super::{
    Arrival, Closing, MAX_FINGERPRINTS, MAX_UNFINALIZED_BYTES, MAX_UNFINALIZED_EVENTS, MIN_UNFINALIZED_EVENTS,
    Overflow, Timeline,
};
use crate::config::SessionConfig;
use crate::model::{Entry, Kind, PreviousSession, SessionState, SessionView};
use crate::rules::fold;
use crate::session::Millis;

/// Custom properties a session keeps at the most, by number; later keys are left out.
pub const MAX_PROPERTIES: usize = 16;
/// Bytes of a session's custom properties at the most, keys and values together.
pub const MAX_PROPERTY_BYTES: usize = 1024;

impl Timeline {
    /// Takes out what is over at `now`: everything about it can be said, its sessions archived, before the timeline that
    /// remains is written. What it returns depends on the timeline and `now` alone.
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

    /// Settles the sessions that no event from `watermark` on can change. One that may go on keeps its events in the unfinalized events,
    /// but for the first where that one's source ended the session before: only so is it known why that is over.
    fn finalize_what_is_over(&mut self, watermark: Millis, config: &SessionConfig) {
        let cut = self.unfinalized.partition_point(|entry| entry.at < watermark);
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized[..cut], config);
        let Some((last, before)) = views.split_last() else {
            self.finalize(watermark, config);
            return;
        };
        let watermark = match before.last() {
            _ if self.is_over(last, cut, watermark, config) => watermark,
            // Of events at the time of its first one, some may belong to the session before.
            Some(over) if over.reason_for(last.facts.started_at, config).is_none() => last.facts.started_at + 1,
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

    /// Whether the session of the unfinalized events's first `cut` entries is over at `watermark`. One that a call ends behind the watermark
    /// stays open till then, also where it is over for another reason: only so does what follows begin for the call.
    fn is_over(&self, last: &SessionView<'_>, cut: usize, watermark: Millis, config: &SessionConfig) -> bool {
        let mut following = self.unfinalized[cut..].iter().filter(|entry| entry.kind != Kind::KeepAlive);
        let has_mark = following.next().is_some_and(|next| next.kind == Kind::End);
        !has_mark && last.reason_for(watermark, config).is_some()
    }

    /// Settles every event before `watermark`. Returns how many fingerprints had to be let go.
    pub fn finalize(&mut self, watermark: Millis, config: &SessionConfig) -> usize {
        if watermark <= self.watermark {
            return 0;
        }
        let cut = self.unfinalized.partition_point(|entry| entry.at < watermark);
        // Keep-alive events in no session among them: they are not remembered, so one that comes again must be late.
        let last = cut.checked_sub(1).map(|last| self.unfinalized[last].at);
        let forgotten = self.finalize_first(cut, watermark, config);
        // What is over needs no more than that nothing can join it; what may go on, no more than that nothing comes before.
        let is_over = self.open.is_none();
        let over_from =
            self.previous.filter(|_| is_over).map(|previous| previous.activity.over_from(config).min(watermark));
        self.advance(last.map_or(Millis::MIN, |at| at + 1).max(over_from.unwrap_or(Millis::MIN)));
        forgotten
    }

    /// Settles the unfinalized events's first `count` entries: there is no room for them. Returns how many fingerprints had to be let go.
    fn finalize_excess(&mut self, count: usize, config: &SessionConfig) -> usize {
        let last = &self.unfinalized[count - 1];
        let (at, id) = (last.at, last.uuid.clone());
        let forgotten = self.finalize_first(count, at, config);
        self.advance_behind(at, id);
        forgotten
    }

    /// Settles the unfinalized events's first `cut` entries, and the last session among them, if it is over at `watermark`. The watermark
    /// is for the caller to move.
    fn finalize_first(&mut self, cut: usize, watermark: Millis, config: &SessionConfig) -> usize {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized[..cut], config);
        let Some(last) = views.last() else {
            // Nothing but keep-alive events in no session.
            self.drop_entries(cut);
            return 0;
        };
        let last_is_over = self.is_over(last, cut, watermark, config);
        let ids = primary_ids(&self.anchors, &views);
        let mut states = Vec::with_capacity(views.len());
        let mut forgotten = 0;
        for (number, view) in views.iter().enumerate() {
            let mut state = self.state(view, ids[number], number, &ids);
            forgotten += state.forget();
            states.push(state);
        }
        let open = if last_is_over { None } else { states.pop() };
        if let Some(over) = states.last() {
            self.previous = Some(PreviousSession::from(over));
        }
        self.ended.extend(states);
        self.ended.sort_by_key(|state| state.facts.started_at);
        self.open = open;
        self.drop_entries(cut);
        forgotten
    }

    /// Takes the first entries out of the unfinalized events, with the anchors that stand on them.
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

    /// Adds up a view whose entries are all being finalized.
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
            // A keep-alive event that comes again later changes nothing, so none is remembered.
            if !matches!(entry.kind, Kind::End | Kind::KeepAlive) {
                state.set_properties(entry);
                state.fingerprints.push(entry.uuid.fingerprint());
            }
        }
        state
    }

    /// Keeps the timeline within its bounds and says when to look at it again.
    pub(super) fn bound(&mut self, arrivals: &[Arrival], corrected: usize, config: &SessionConfig) -> Overflow {
        let newest = arrivals.iter().map(|arrival| arrival.received_at).max().unwrap_or(self.watermark);
        let mut overflow = Overflow::default();
        if !self.is_held(newest) && self.unfinalized.len() > MIN_UNFINALIZED_EVENTS {
            overflow.forgotten += self.finalize(newest - config.lateness_ms(), config);
        }
        let mut excess = self.unfinalized.len().saturating_sub(MAX_UNFINALIZED_EVENTS);
        let mut bytes: usize = self.unfinalized[excess..].iter().map(Entry::weight).sum();
        while bytes > MAX_UNFINALIZED_BYTES {
            bytes -= self.unfinalized[excess].weight();
            excess += 1;
        }
        if excess > 0 {
            overflow.forgotten += self.finalize_excess(excess, config);
            overflow.finalized_early = excess;
        }
        self.schedule(newest, self.corrections.len() > corrected, config);
        overflow
    }

    /// Says when to look at the timeline again. What stands is kept where it does no harm: another time is another entry in
    /// the index, at twice the price of the write.
    fn schedule(&mut self, now: Millis, has_news: bool, config: &SessionConfig) {
        let reach = config.timeout_ms() + config.lateness_ms();
        // Nothing is over before its first event, and the lateness: most times that says enough.
        let first =
            self.open.as_ref().map(|open| open.facts.last_activity).or_else(|| Some(self.unfinalized.first()?.at));
        let is_near = self.due_at.zip(first).is_some_and(|(due, first)| due - first <= reach + config.lateness_ms());
        if is_near && !has_news && self.ended.is_empty() {
            return;
        }
        // What late events made or changed waits for others like them: each correction is said, and written, again.
        let next = if self.ended.is_empty() { self.next_due(config) } else { Some(now + config.lateness_ms()) };
        self.due_at = match (self.due_at, next) {
            (due, _) if has_news => due.into_iter().chain([now]).min(),
            (due, next) if !self.ended.is_empty() => due.into_iter().chain(next).min(),
            // Only an event far ahead puts it off so long.
            (Some(due), Some(next)) if due - next > reach => Some(next),
            (due, next) => due.or(next),
        };
    }

    /// The first time at which something of the unfinalized events is over and may be finalized, if nothing more comes.
    pub fn next_due(&self, config: &SessionConfig) -> Option<Millis> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let over_at = |number: usize, view: &SessionView<'_>| {
            let alone = if view.facts.ended_by_call {
                // The mark is its last entry, or finalized.
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
    /// The bytes of text it holds.
    fn weight(&self) -> usize {
        let context = &self.context;
        let strings: usize = [&context.url, &context.referrer].into_iter().flatten().map(|text| text.len()).sum();
        let utm: usize = context.utm.iter().flat_map(|utm| utm.strings()).flatten().map(str::len).sum();
        let properties: usize = self.properties.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.uuid.len() + strings + utm + properties
    }
}

impl SessionState {
    /// Sets an event's custom properties.
    pub(super) fn set_properties(&mut self, entry: &Entry) {
        for (key, value) in &entry.properties {
            self.set_property(key, value);
        }
    }

    /// Sets a custom property; one that would break a bound is left out.
    pub(super) fn set_property(&mut self, key: &str, value: &str) {
        let is_full = self.properties.len() >= MAX_PROPERTIES && !self.properties.contains_key(key);
        let others = self.properties.iter().filter(|(other, _)| *other != key);
        let bytes: usize = others.map(|(key, value)| key.len() + value.len()).sum();
        if !is_full && bytes + key.len() + value.len() <= MAX_PROPERTY_BYTES {
            self.properties.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Lets the oldest fingerprints go that are too many; says how many.
    fn forget(&mut self) -> usize {
        let excess = self.fingerprints.len().saturating_sub(MAX_FINGERPRINTS);
        self.fingerprints.drain(..excess);
        excess
    }
}
