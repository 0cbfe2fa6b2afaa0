//! A page of a session's replay: which of a visitor's recorded events belong to it, in which order, and where the next page begins.

use std::collections::HashSet;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use super::chunk::{ChunkName, StoredEvent};
use super::rrweb::{FULL_SNAPSHOT, INCREMENTAL, META};
use crate::session::Millis;

/// How long before a session its replay may begin: ten minutes. See [`Span`].
pub const MAX_LEAD_MS: Millis = 600_000;
/// How far apart, at most, two copies of an event are placed whose recorder's clock is wrong, because each was sent at another time.
const COPIES_APART_MS: Millis = 60_000;

/// The time in which recorded events belong to a session.
///
/// A recorded event belongs to the session that a passive event of its time belongs to. Two rules make a replay playable: an event
/// in no session belongs to the session that begins next, if that is within [`MAX_LEAD_MS`]; and a replay that would begin in the
/// middle of a page, because a campaign or midnight began the session, begins with the last snapshot of the whole page before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The time since which events before the session belong to no other session.
    pub free_from: Millis,
    /// The time of the session's first event.
    pub start: Millis,
    /// The last time that can belong to the session.
    pub end: Millis,
}

impl Span {
    /// Returns the earliest time that matters.
    fn earliest(&self) -> Millis {
        self.start - MAX_LEAD_MS
    }
}

/// The place of an event in a replay: its time, then its chunk, then its number in the chunk.
type Place = (Millis, ChunkName, u32);

/// Where a page ends. Callers send it back to get the next page; to them it is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayPosition {
    /// Where the whole replay begins.
    begin: Millis,
    place: Place,
}

impl ReplayPosition {
    /// Writes the position.
    pub fn write(&self) -> String {
        let (at, ChunkName { first, last, hash }, number) = self.place;
        format!("{:012x}{at:012x}{first:012x}{last:012x}{hash:032x}{number:x}", self.begin.max(0))
    }

    /// Reads what [`ReplayPosition::write`] wrote.
    pub fn read(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let time = |part: usize| Millis::from_str_radix(text.get(12 * part..12 * (part + 1))?, 16).ok();
        let hash = u128::from_str_radix(text.get(48..80)?, 16).ok()?;
        let name = ChunkName { first: time(2)?, last: time(3)?, hash };
        Some(Self { begin: time(0)?, place: (time(1)?, name, u32::from_str_radix(text.get(80..)?, 16).ok()?) })
    }
}

/// The limits of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Limit of the number of events.
    pub events: usize,
    /// Limit of the bytes of the answer, as `size` measures an event's.
    pub bytes: usize,
    /// Returns the bytes that an event takes in the answer.
    pub size: fn(&StoredEvent) -> usize,
}

/// Gathers the events of chunks into a page. The chunks are added in the order of their names.
#[derive(Debug)]
pub struct Pager<F> {
    span: Span,
    /// Returns whether an event of this time belongs to the session.
    is_in: F,
    after: Option<ReplayPosition>,
    limits: PageLimits,
    events: Vec<(Place, StoredEvent)>,
}

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its events, ordered by time.
    pub events: Vec<StoredEvent>,
    /// Where it ends, if more events can follow.
    pub after: Option<ReplayPosition>,
}

impl<F: Fn(Millis) -> bool> Pager<F> {
    /// Begins a page.
    pub fn new(span: Span, is_in: F, after: Option<ReplayPosition>, limits: PageLimits) -> Self {
        Self { span, is_in, after, limits, events: Vec::new() }
    }

    /// Returns the times whose events are needed: the first and the last one.
    pub fn needs(&self) -> (Millis, Millis) {
        // Copies of an event before this page must not follow on it.
        let from = self.after.map_or(Millis::MIN, |after| after.place.0 - COPIES_APART_MS);
        (from.max(self.span.earliest()), self.span.end)
    }

    /// Adds a chunk.
    pub fn add(&mut self, name: ChunkName, events: Vec<StoredEvent>) {
        let (from, to) = self.needs();
        let placed = (0..).zip(events).map(|(number, event)| ((event.at, name, number), event));
        self.events.extend(placed.filter(|(_, event)| (from..=to).contains(&event.at)));
    }

    /// Returns whether the page is full with events before `next`, the first time in the chunks that were not added.
    pub fn is_full_before(&mut self, next: Millis) -> bool {
        let (_, chosen) = self.chosen(Some(next));
        chosen.len() > self.limits.events || self.cut(&chosen) < chosen.len()
    }

    /// Returns the page. `next` is the first time in the chunks that were not added, if there are some.
    pub fn finish(mut self, next: Option<Millis>) -> Page {
        let (begin, chosen) = self.chosen(next);
        let count = self.cut(&chosen);
        let has_more = count < chosen.len() || next.is_some();
        let chosen: Vec<usize> = chosen.into_iter().take(count).collect();
        let after =
            chosen.last().filter(|_| has_more).map(|&last| ReplayPosition { begin, place: self.events[last].0 });
        let mut taken: Vec<Option<StoredEvent>> = self.events.into_iter().map(|(_, event)| Some(event)).collect();
        Page { events: chosen.into_iter().filter_map(|index| taken[index].take()).collect(), after }
    }

    /// Returns where the replay begins, and the indexes of the events that belong to it, behind `after` and before `next`, in order
    /// and without copies.
    fn chosen(&mut self, next: Option<Millis>) -> (Millis, Vec<usize>) {
        self.events.sort_by_key(|(place, _)| *place);
        let mut seen = HashSet::new();
        let mut is_new =
            |event: &StoredEvent| seen.insert((event.stated_at, event.event_type, xxh3_128(event.data.as_bytes())));
        let is_complete = |event: &StoredEvent| next.is_none_or(|next| event.at < next);
        let is_known = |&index: &usize| is_new(&self.events[index].1) && is_complete(&self.events[index].1);
        let known: Vec<usize> = (0..self.events.len()).filter(is_known).collect();
        let begin = self.after.map_or_else(|| self.begin(&known), |after| after.begin);
        let belongs = |&index: &usize| {
            let (place, event) = &self.events[index];
            let is_behind = self.after.is_none_or(|after| *place > after.place);
            let is_in = if event.at < self.span.start { event.at >= begin } else { (self.is_in)(event.at) };
            is_behind && is_in
        };
        (begin, known.into_iter().filter(belongs).collect())
    }

    /// Returns where the replay begins: at the first event that is in no other session, or with the page that the session began in.
    fn begin(&self, known: &[usize]) -> Millis {
        let free_from = self.span.free_from.max(self.span.earliest());
        let kind = |index: &usize| kind(&self.events[*index].1);
        let first = known.partition_point(|&index| self.events[index].1.at < free_from);
        let changes = known[first..]
            .iter()
            .find_map(|index| kind(index).filter(|kind| [FULL_SNAPSHOT, INCREMENTAL].contains(kind)));
        if changes != Some(INCREMENTAL) {
            return free_from;
        }
        let Some(page) = known[..first].iter().rposition(|index| kind(index) == Some(FULL_SNAPSHOT)) else {
            return free_from;
        };
        let meta = page.checked_sub(1).filter(|&before| kind(&known[before]) == Some(META));
        self.events[known[meta.unwrap_or(page)]].1.at
    }

    /// Returns how many of the chosen events fit into the page: at least one.
    fn cut(&self, chosen: &[usize]) -> usize {
        let mut bytes = 0;
        let fits = |index: &&usize| {
            bytes += (self.limits.size)(&self.events[**index].1);
            bytes <= self.limits.bytes
        };
        let fitting = chosen.iter().take(self.limits.events).take_while(fits).count();
        fitting.max(1).min(chosen.len())
    }
}

/// Returns the `type` of an rrweb event.
fn kind(event: &StoredEvent) -> Option<u64> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: Option<serde_json::Value>,
    }
    serde_json::from_str::<Kind>(&event.data).ok()?.r#type?.as_u64()
}

#[cfg(test)]
mod tests;
