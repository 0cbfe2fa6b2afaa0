//! A synthetic shop: visits of twenty events with a campaign and addresses of 80 bytes, in batches; the same for the same seed.

use std::collections::VecDeque;
use std::fmt::Write;

use session_tracking::session::{Millis, datetime, time_text};

use crate::seeded::Seeded;

/// Events of a visit.
pub const VISIT: usize = 20;
/// Between two events of a visit, in milliseconds.
const STEP_MS: Millis = 15_000;
/// Between two visits of a visitor: beyond every timeout.
const AWAY_MS: Millis = 7_200_000;
/// The first event's time.
const BEGIN: Millis = 1_773_136_800_000;
/// Visits under way at the same time.
const AT_ONCE: usize = 400;

/// A batch of events as they come.
pub struct Batch {
    pub received_at: Millis,
    pub events: Vec<String>,
}

struct Visit {
    visitor: usize,
    done: usize,
    /// When its next event happens.
    next: Millis,
    campaign: usize,
}

/// The shop's visitors as they come and go.
pub struct Shop {
    random: Seeded,
    now: Millis,
    events: usize,
    visitors: usize,
    visits: VecDeque<Visit>,
    /// Who left, and when.
    away: VecDeque<(usize, Millis)>,
    /// Nobody comes any more.
    is_closing: bool,
}

impl Shop {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, AT_ONCE)
    }

    /// A shop with so many visits at the same time.
    pub fn with(seed: u64, at_once: usize) -> Self {
        let (visits, away) = (VecDeque::new(), VecDeque::new());
        let mut shop =
            Self { random: Seeded(seed), now: BEGIN, events: 0, visitors: 0, visits, away, is_closing: false };
        for _ in 0..at_once {
            let visit = shop.arrive();
            shop.visits.push_back(visit);
        }
        shop
    }

    /// So many batches of 100 events, `each` of a visitor, and what it takes until everybody has left: all visits are whole.
    pub fn day(mut self, batches: usize, each: usize) -> Vec<Batch> {
        let mut day: Vec<Batch> = (0..batches).map(|_| self.batch(100, each)).collect();
        self.is_closing = true;
        while !self.visits.is_empty() {
            day.push(self.batch(100, each));
        }
        day
    }

    /// The next batch of `size` events, `each` of a visitor: visitors take turns.
    pub fn batch(&mut self, size: usize, each: usize) -> Batch {
        let mut events = Vec::with_capacity(size);
        while events.len() < size {
            let Some(mut visit) = self.visits.pop_front() else { break };
            for _ in 0..each.min(size - events.len()).min(VISIT - visit.done) {
                events.push(self.event(&visit));
                self.now = self.now.max(visit.next);
                visit.next += STEP_MS;
                visit.done += 1;
            }
            if visit.done == VISIT {
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

    /// The next batch of `size` events of skewed visitors: a hundredth of those who are there have a tenth of the events.
    pub fn skewed_batch(&mut self, size: usize) -> Batch {
        let mut events = Vec::with_capacity(size);
        while events.len() < size {
            // The square of an even draw.
            let draw = self.random.below(1 << 16) as f64 / f64::from(1 << 16);
            let place = (draw.powi(2) * self.visits.len() as f64) as usize;
            let Some(mut visit) = self.visits.remove(place) else { break };
            events.push(self.event(&visit));
            self.now = self.now.max(visit.next);
            visit.next = self.now + self.random.below(STEP_MS as usize) as Millis;
            visit.done += 1;
            if visit.done == VISIT {
                self.away.push_back((visit.visitor, visit.next));
                visit = self.arrive();
            }
            self.visits.insert(place, visit);
        }
        Batch { received_at: self.now + 200, events }
    }

    /// Somebody new, or somebody who was away for long.
    fn arrive(&mut self) -> Visit {
        let is_back = self.away.front().is_some_and(|&(_, since)| self.now - since > AWAY_MS);
        let known = if is_back { self.away.pop_front() } else { None };
        let visitor = known.map_or(self.visitors, |(visitor, _)| visitor);
        self.visitors += usize::from(known.is_none());
        let next = self.now + self.random.below(STEP_MS as usize) as Millis;
        Visit { visitor, done: 0, next, campaign: self.random.below(40) }
    }

    fn event(&mut self, visit: &Visit) -> String {
        self.events += 1;
        let number = self.events;
        let (at, page) = (time_text(datetime(visit.next)), self.random.below(5_000));
        let name = if visit.done.is_multiple_of(2) { "$pageview" } else { "add_to_cart" };
        // The campaign stands in the address of the first page only, as in life.
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
