//! A synthetic shop: visits of twenty events with a campaign and URLs of 80 bytes, in batches. The same seed gives the same
//! events.

use std::collections::VecDeque;
use std::fmt::Write;

use session_tracking::session::{Millis, datetime, rfc3339};

use crate::seeded::Seeded;

/// Events in a visit.
const VISIT_EVENTS: usize = 20;
/// The time between two events of a visit, in milliseconds.
const STEP_MS: Millis = 15_000;
/// The time between two visits of a visitor, in milliseconds: longer than every timeout.
const ABSENCE_MS: Millis = 7_200_000;
/// The time of the first event.
const BEGIN_MS: Millis = 1_773_136_800_000;
/// Concurrent visits.
const CONCURRENT_VISITS: usize = 400;

/// A batch of events.
pub struct Batch {
    /// When the service receives it.
    pub received_at: Millis,
    /// The JSON of each event.
    pub events: Vec<String>,
}

struct Visit {
    visitor: usize,
    /// How many events it has had.
    done: usize,
    /// The time of its next event.
    next: Millis,
    campaign: usize,
}

/// The shop, with its visitors and their visits.
pub struct Shop {
    random: Seeded,
    now: Millis,
    events: usize,
    visitors: usize,
    visits: VecDeque<Visit>,
    /// The visitors who left, and when.
    away: VecDeque<(usize, Millis)>,
    /// Whether no new visits begin.
    is_closing: bool,
}

impl Shop {
    /// Returns a shop with the usual number of concurrent visits.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, CONCURRENT_VISITS)
    }

    /// Returns a shop with this number of concurrent visits.
    pub fn with(seed: u64, concurrent_visits: usize) -> Self {
        let (visits, away) = (VecDeque::new(), VecDeque::new());
        let mut shop =
            Self { random: Seeded(seed), now: BEGIN_MS, events: 0, visitors: 0, visits, away, is_closing: false };
        for _ in 0..concurrent_visits {
            let visit = shop.arrive();
            shop.visits.push_back(visit);
        }
        shop
    }

    /// Returns batches of 100 events, with `per_visitor` events of each visitor, and then as many more as complete all visits.
    pub fn day(mut self, batches: usize, per_visitor: usize) -> Vec<Batch> {
        let mut day: Vec<Batch> = (0..batches).map(|_| self.batch(100, per_visitor)).collect();
        self.is_closing = true;
        while !self.visits.is_empty() {
            day.push(self.batch(100, per_visitor));
        }
        day
    }

    /// Returns the next batch of `size` events, with `per_visitor` events of each visitor. Visitors take turns.
    pub fn batch(&mut self, size: usize, per_visitor: usize) -> Batch {
        let mut events = Vec::with_capacity(size);
        while events.len() < size {
            let Some(mut visit) = self.visits.pop_front() else { break };
            for _ in 0..per_visitor.min(size - events.len()).min(VISIT_EVENTS - visit.done) {
                events.push(self.event(&visit));
                self.now = self.now.max(visit.next);
                visit.next += STEP_MS;
                visit.done += 1;
            }
            if visit.done == VISIT_EVENTS {
                self.away.push_back((visit.visitor, visit.next));
                if self.is_closing {
                    continue;
                }
                visit = self.arrive();
            }
            self.visits.push_back(visit);
        }
        Batch { received_at: self.now + 200, events }
    }

    /// Returns the next batch of `size` events of skewed visitors: a hundredth of the visitors have a tenth of the events.
    pub fn skewed_batch(&mut self, size: usize) -> Batch {
        let mut events = Vec::with_capacity(size);
        while events.len() < size {
            // The square of a uniform random number prefers small indexes.
            let draw = self.random.below(1 << 16) as f64 / f64::from(1 << 16);
            let index = (draw.powi(2) * self.visits.len() as f64) as usize;
            let Some(mut visit) = self.visits.remove(index) else { break };
            events.push(self.event(&visit));
            self.now = self.now.max(visit.next);
            visit.next = self.now + self.random.below(STEP_MS as usize) as Millis;
            visit.done += 1;
            if visit.done == VISIT_EVENTS {
                self.away.push_back((visit.visitor, visit.next));
                visit = self.arrive();
            }
            self.visits.insert(index, visit);
        }
        Batch { received_at: self.now + 200, events }
    }

    /// Returns batches of 100 events, a batch a second, each event of a new visitor who sends no other.
    pub fn sparse(mut self, batches: usize) -> Vec<Batch> {
        let mut batch = || {
            self.now += 1_000;
            let events = (0..100).map(|_| {
                let visit = self.arrive();
                self.event(&visit)
            });
            let events = events.collect();
            Batch { received_at: self.now + STEP_MS, events }
        };
        (0..batches).map(|_| batch()).collect()
    }

    /// Begins a visit of a new visitor, or of one who was away for long enough.
    fn arrive(&mut self) -> Visit {
        let is_back = self.away.front().is_some_and(|&(_, since)| self.now - since > ABSENCE_MS);
        let known = if is_back { self.away.pop_front() } else { None };
        let visitor = known.map_or(self.visitors, |(visitor, _)| visitor);
        self.visitors += usize::from(known.is_none());
        let next = self.now + self.random.below(STEP_MS as usize) as Millis;
        Visit { visitor, done: 0, next, campaign: self.random.below(40) }
    }

    fn event(&mut self, visit: &Visit) -> String {
        self.events += 1;
        let number = self.events;
        let (at, page) = (rfc3339(datetime(visit.next)), self.random.below(5_000));
        let name = if visit.done.is_multiple_of(2) { "$pageview" } else { "add_to_cart" };
        // As in reality, only the URL of the first page has the campaign.
        let url = match visit.done {
            0 => format!(
                "https://shop.example.com/c/{page:04}?utm_source=google&utm_medium=cpc&utm_campaign=spring-{:02}",
                visit.campaign
            ),
            _ => format!("https://shop.example.com/category/{page:04}/a-product-with-a-speaking-name-{page:04}.html"),
        };
        let referrer = if visit.done == 0 { "https://www.google.com/" } else { "https://shop.example.com/" };
        let mut event = format!(
            "{{\"uuid\":\"0198c5f0-{:04x}-7abc-8def-{number:012x}\",\"event\":\"{name}\",\"distinct_id\":\"visitor-{:08}\",\
             \"timestamp\":\"{at}\",\"properties\":{{\"$current_url\":\"{url}\",\"$referrer\":\"{referrer}\",\
             \"$device_type\":\"Desktop\",\"$os\":\"Mac OS X\",\"$browser\":\"Chrome\",\"$browser_version\":131,\
             \"$screen_width\":1728,\"$screen_height\":1117,\"$lib\":\"web\",\"$lib_version\":\"1.200.1\",\
             \"$insert_id\":\"{number:016x}\",\"$pathname\":\"/category/{page:04}\",\"token\":\"phc_0123456789abcdef\"",
            number & 0xffff,
            visit.visitor,
        );
        for extra in 0..8 {
            let _ = write!(event, ",\"attribute_{extra}\":\"value {} of the shop\"", (page * (extra + 3)) % 9_973);
        }
        let _ = write!(event, ",\"price\":{}.99,\"quantity\":{},\"is_member\":true", page % 200, page % 5 + 1);
        event.push_str("}}");
        event
    }
}
