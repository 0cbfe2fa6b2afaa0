//! Settling: what no event that arrives in time can change any more leaves the journal.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::ids::lead_ids;
use super::{Arrival, Closing, FREE_JOURNAL, MAX_JOURNAL, MAX_JOURNAL_BYTES, MAX_SEEN, Overflow, Timeline};
use crate::config::SessionConfig;
use crate::rules::{Draft, Entry, Kind, Late, Previous, Tally, fold};
use crate::session::{Millis, Reason};

/// Custom properties a session keeps at the most, by number; later keys are left out.
pub const MAX_PROPERTIES: usize = 16;
/// Bytes of a session's custom properties at the most, keys and values together.
pub const MAX_PROPERTY_BYTES: usize = 1024;

impl Timeline {
    /// Takes out what is over at `now`: everything about it can be said, its sessions archived, before the timeline that
    /// remains is written. What it returns depends on the timeline and `now` alone.
    pub fn close(&mut self, now: Millis, config: &SessionConfig) -> Closing {
        self.realign(config);
        self.settle(now - config.lateness_ms(), config);
        let closing = Closing { ended: std::mem::take(&mut self.ended), notices: std::mem::take(&mut self.notices) };
        self.archived = self.archived.saturating_add(closing.ended.len() as u32);
        self.due_at = self.next_due(config);
        closing
    }

    /// Settles every event before `horizon`. Returns how many fingerprints had to be let go.
    pub fn settle(&mut self, horizon: Millis, config: &SessionConfig) -> usize {
        if horizon <= self.frontier {
            return 0;
        }
        self.frontier = horizon;
        let cut = self.journal.partition_point(|entry| entry.at < horizon);
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal[..cut], config);
        let Some(last) = drafts.last() else {
            // Nothing but keep-alive events in no session.
            self.drop_entries(cut);
            return 0;
        };
        // One that a call ends behind the horizon stays open till then, also where it is over for another reason: only so
        // does what follows begin for the call.
        let mut following = self.journal[cut..].iter().filter(|entry| entry.kind != Kind::KeepAlive);
        let has_mark = following.next().is_some_and(|next| next.kind == Kind::End);
        let last_is_over = !has_mark && last.reason_for(horizon, config).is_some();
        let ids = lead_ids(&self.heads, &drafts);
        let mut tallies = Vec::with_capacity(drafts.len());
        let mut forgotten = 0;
        for (number, draft) in drafts.iter().enumerate() {
            let mut tally = self.tally(draft, ids[number], number, &ids);
            forgotten += tally.forget();
            tallies.push(tally);
        }
        let open = if last_is_over { None } else { tallies.pop() };
        if let Some(over) = tallies.last() {
            self.previous = Some(Previous::from(over));
        }
        self.ended.extend(tallies);
        self.ended.sort_by_key(|tally| tally.started_at);
        self.open = open;
        self.drop_entries(cut);
        forgotten
    }

    /// Takes the first entries out of the journal, with the heads that stand on them.
    fn drop_entries(&mut self, cut: usize) {
        self.journal.drain(..cut);
        self.heads.retain_mut(|head| match head.entry.checked_sub(cut) {
            Some(entry) => {
                head.entry = entry;
                true
            }
            None => false,
        });
    }

    /// Adds up a draft whose entries are all being settled.
    pub(super) fn tally(&self, draft: &Draft<'_>, id: Uuid, number: usize, ids: &[Uuid]) -> Tally {
        let mut tally = draft.base.cloned().unwrap_or_else(|| Tally::empty(id));
        tally.reason = draft.reason;
        tally.number = self.first_number() + number as u32;
        tally.previous = self.previous_of(number, ids);
        tally.started_at = draft.started_at;
        tally.last_activity = draft.last_activity;
        tally.event_count = draft.event_count;
        tally.page_views = draft.page_views;
        tally.entry_url = draft.entry_url.cloned();
        tally.landing_page = draft.landing_page.cloned();
        tally.exit_page = draft.exit_page.cloned();
        tally.referrer = draft.source.referrer.cloned();
        tally.utm = draft.source.utm.cloned();
        tally.click = draft.source.click;
        tally.device = draft.device.cloned();
        tally.geo = draft.geo.cloned();
        tally.ended_by_call = draft.ended_by_call;
        for head in self.heads.iter().filter(|head| (draft.first..draft.end).contains(&head.entry)) {
            if head.id == id {
                tally.version = head.version;
            } else {
                tally.aliases.push(head.id);
            }
            tally.late.add(&head.late);
        }
        for entry in &self.journal[draft.first..draft.end] {
            // A keep-alive event that comes again later changes nothing, so none is remembered.
            if !matches!(entry.kind, Kind::End | Kind::KeepAlive) {
                tally.set_properties(entry);
                tally.seen.push(entry.uuid.print());
            }
        }
        tally
    }

    /// Keeps the timeline within its bounds and says when to look at it again.
    pub(super) fn bound(&mut self, arrivals: &[Arrival], noticed: usize, config: &SessionConfig) -> Overflow {
        let newest = arrivals.iter().map(|arrival| arrival.received_at).max().unwrap_or(self.frontier);
        let mut overflow = Overflow::default();
        if self.journal.len() > FREE_JOURNAL {
            overflow.forgotten += self.settle(newest - config.lateness_ms(), config);
        }
        let mut excess = self.journal.len().saturating_sub(MAX_JOURNAL);
        let mut bytes: usize = self.journal[excess..].iter().map(Entry::weight).sum();
        while bytes > MAX_JOURNAL_BYTES {
            bytes -= self.journal[excess].weight();
            excess += 1;
        }
        if excess > 0 {
            let before = self.journal.len();
            // One past the last of the excess: entries of one time settle together.
            overflow.forgotten += self.settle(self.journal[excess - 1].at + 1, config);
            overflow.settled_early = before - self.journal.len();
        }
        self.schedule(newest, self.notices.len() > noticed, config);
        overflow
    }

    /// Says when to look at the timeline again. What stands is kept where it does no harm: another time is another entry in
    /// the index, at twice the price of the write.
    fn schedule(&mut self, now: Millis, has_news: bool, config: &SessionConfig) {
        let reach = config.timeout_ms() + config.lateness_ms();
        // Nothing is over before its first event, and the lateness: most times that says enough.
        let first = self.open.as_ref().map(|open| open.last_activity).or_else(|| Some(self.journal.first()?.at));
        let is_near = self.due_at.zip(first).is_some_and(|(due, first)| due - first <= reach + config.lateness_ms());
        if is_near && !has_news && self.ended.is_empty() {
            return;
        }
        let next = if self.ended.is_empty() { self.next_due(config) } else { Some(now) };
        self.due_at = match (self.due_at, next) {
            (due, _) if has_news => due.into_iter().chain([now]).min(),
            // Only an event far ahead puts it off so long.
            (Some(due), Some(next)) if due - next > reach => Some(next),
            (due, next) => due.or(next),
        };
    }

    /// The first time at which something of the journal is over, if nothing more comes.
    pub fn next_due(&self, config: &SessionConfig) -> Option<Millis> {
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal, config);
        let over_at = |number: usize, draft: &Draft<'_>| {
            let alone = if draft.ended_by_call {
                // The mark is its last entry, or settled.
                self.journal[..draft.end].last().map_or(self.frontier, |entry| entry.at)
            } else {
                draft.last_activity + config.timeout_ms()
            };
            drafts.get(number + 1).map_or(alone, |next| alone.min(next.started_at))
        };
        let first = drafts.iter().enumerate().map(|(number, draft)| over_at(number, draft)).min()?;
        Some(first + 1 + config.lateness_ms())
    }
}

impl Entry {
    /// The bytes of text it holds.
    fn weight(&self) -> usize {
        let context = &self.context;
        let texts: usize = [&context.url, &context.referrer].into_iter().flatten().map(|text| text.len()).sum();
        let utm: usize = context.utm.iter().flat_map(|utm| utm.texts()).flatten().map(str::len).sum();
        let properties: usize = self.properties.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.uuid.len() + texts + utm + properties
    }
}

impl Tally {
    /// A session of which nothing is known but its id.
    pub fn empty(id: Uuid) -> Self {
        Self {
            id,
            version: 0,
            reason: Reason::First,
            number: 0,
            previous: None,
            started_at: 0,
            last_activity: 0,
            event_count: 0,
            page_views: 0,
            entry_url: None,
            landing_page: None,
            exit_page: None,
            referrer: None,
            utm: None,
            click: None,
            device: None,
            geo: None,
            properties: BTreeMap::new(),
            ended_by_call: false,
            aliases: Vec::new(),
            seen: Vec::new(),
            late: Late::default(),
        }
    }

    /// Its id and those merged into it.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        std::iter::once(self.id).chain(self.aliases.iter().copied())
    }

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
        let excess = self.seen.len().saturating_sub(MAX_SEEN);
        self.seen.drain(..excess);
        excess
    }
}
