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
        if !self.is_held(now) {
            self.settle_what_is_over(now - config.lateness_ms(), config);
        }
        let closing = Closing { ended: std::mem::take(&mut self.ended), notices: std::mem::take(&mut self.notices) };
        self.archived = self.archived.saturating_add(closing.ended.len() as u32);
        self.due_at = self.next_due(config);
        closing
    }

    /// Settles the sessions that no event from `horizon` on can change. One that may go on keeps its events in the journal,
    /// but for the first where that one's source ended the session before: only so is it known why that is over.
    fn settle_what_is_over(&mut self, horizon: Millis, config: &SessionConfig) {
        let cut = self.journal.partition_point(|entry| entry.at < horizon);
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal[..cut], config);
        let Some((last, before)) = drafts.split_last() else {
            self.settle(horizon, config);
            return;
        };
        let horizon = match before.last() {
            _ if self.is_over(last, cut, horizon, config) => horizon,
            // Of events at the time of its first one, some may belong to the session before.
            Some(over) if over.reason_for(last.started_at, config).is_none() => last.started_at + 1,
            Some(over) if over.end.checked_sub(1).is_some_and(|end| self.journal[end].at == last.started_at) => {
                last.started_at + 1
            }
            Some(_) => last.started_at,
            None => return,
        };
        self.settle(horizon, config);
    }

    /// Whether the session of the journal's first `cut` entries is over at `horizon`. One that a call ends behind the horizon
    /// stays open till then, also where it is over for another reason: only so does what follows begin for the call.
    fn is_over(&self, last: &Draft<'_>, cut: usize, horizon: Millis, config: &SessionConfig) -> bool {
        let mut following = self.journal[cut..].iter().filter(|entry| entry.kind != Kind::KeepAlive);
        let has_mark = following.next().is_some_and(|next| next.kind == Kind::End);
        !has_mark && last.reason_for(horizon, config).is_some()
    }

    /// Settles every event before `horizon`. Returns how many fingerprints had to be let go.
    pub fn settle(&mut self, horizon: Millis, config: &SessionConfig) -> usize {
        if horizon <= self.frontier {
            return 0;
        }
        let cut = self.journal.partition_point(|entry| entry.at < horizon);
        // Keep-alive events in no session among them: they are not remembered, so one that comes again must be late.
        let last = cut.checked_sub(1).map(|last| self.journal[last].at);
        let forgotten = self.settle_first(cut, horizon, config);
        // What is over needs no more than that nothing can join it; what may go on, no more than that nothing comes before.
        let is_over = self.open.is_none();
        let over_from = self.previous.filter(|_| is_over).map(|previous| previous.over_from(config).min(horizon));
        self.advance(last.map_or(Millis::MIN, |at| at + 1).max(over_from.unwrap_or(Millis::MIN)));
        forgotten
    }

    /// Settles the journal's first `count` entries: there is no room for them. Returns how many fingerprints had to be let go.
    fn settle_excess(&mut self, count: usize, config: &SessionConfig) -> usize {
        let last = &self.journal[count - 1];
        let (at, id) = (last.at, last.uuid.clone());
        let forgotten = self.settle_first(count, at, config);
        self.advance_behind(at, id);
        forgotten
    }

    /// Settles the journal's first `cut` entries, and the last session among them, if it is over at `horizon`. The watermark
    /// is for the caller to move.
    fn settle_first(&mut self, cut: usize, horizon: Millis, config: &SessionConfig) -> usize {
        let drafts = fold(self.previous.as_ref(), self.open.as_ref(), &self.journal[..cut], config);
        let Some(last) = drafts.last() else {
            // Nothing but keep-alive events in no session.
            self.drop_entries(cut);
            return 0;
        };
        let last_is_over = self.is_over(last, cut, horizon, config);
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
        if !self.is_held(newest) && self.journal.len() > FREE_JOURNAL {
            overflow.forgotten += self.settle(newest - config.lateness_ms(), config);
        }
        let mut excess = self.journal.len().saturating_sub(MAX_JOURNAL);
        let mut bytes: usize = self.journal[excess..].iter().map(Entry::weight).sum();
        while bytes > MAX_JOURNAL_BYTES {
            bytes -= self.journal[excess].weight();
            excess += 1;
        }
        if excess > 0 {
            overflow.forgotten += self.settle_excess(excess, config);
            overflow.settled_early = excess;
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

    /// The first time at which something of the journal is over and may be finalized, if nothing more comes.
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
        Some((first + 1 + config.lateness_ms()).max(self.held_until.unwrap_or(Millis::MIN)))
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
