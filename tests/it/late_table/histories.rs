//! Histories of one visitor: its events, by the clocks of its devices, and when the service receives them.

use std::ops::Range;

use session_tracking::session::Millis;

use super::run::rfc3339_of;
use crate::support::Seeded;

/// 2026-03-10T12:00:00Z.
const NOON: Millis = 1_773_144_000_000;
const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// An event as its device sends it.
#[derive(Debug, Clone)]
pub struct SentEvent {
    pub uuid: String,
    /// Its `timestamp`, by the device's clock.
    pub at: Millis,
    pub name: &'static str,
    pub url: String,
    pub referrer: Option<&'static str>,
    pub utm: Option<&'static str>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub received_at: Millis,
    /// The request's `sent_at`, by the device's clock, if it has one.
    pub sent_at: Option<Millis>,
    /// The indexes of its events.
    pub events: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct History {
    pub events: Vec<SentEvent>,
    /// Sorted by the time of receipt.
    pub requests: Vec<Request>,
    /// The time in which no closer runs.
    pub closer_down: Range<Millis>,
}

/// A function that draws the events and the requests of a history.
pub type Scenario = fn(&mut Maker);

/// The scenarios, by name.
pub const SCENARIOS: [(&str, Scenario); 20] = [
    ("1 all within the allowed lateness", Maker::in_time),
    ("2a offline for a day, new visitor", |maker| maker.offline_day(0)),
    ("2b ... with archived sessions", |maker| maker.offline_day(1)),
    ("2c ... live on another device", |maker| maker.offline_day(2)),
    ("2d ... another device's visits in that day, closed", |maker| maker.offline_day(3)),
    ("3a a clock two hours slow, for an hour", |maker| maker.slow_clock(false)),
    ("3b ... beside a device that is right", |maker| maker.slow_clock(true)),
    ("4 a clock up to 23 hours fast", Maker::fast_clock),
    ("5 offline, very active elsewhere", Maker::active_elsewhere),
    ("6a requests 3 to 20 minutes apart", |maker| maker.slow_upload(3 * MINUTE..20 * MINUTE)),
    ("6b requests 20 minutes to 6 hours apart", |maker| maker.slow_upload(20 * MINUTE..6 * HOUR)),
    ("7 uploads of up to 700 events", Maker::large_upload),
    ("8 duplicates timed by sent_at, after the archive", Maker::sent_again),
    ("9 over 24 hours, newest first, and again", Maker::a_long_stretch),
    ("10 a clock years back beside a right one", Maker::years_back),
    ("11 two offline phones, uploads hours apart", Maker::two_phones),
    ("12 closer down for 6 hours, an offline visit in it", Maker::closer_down),
    ("13 a pipeline 6 to 15 minutes behind", |maker| maker.lagging_pipeline(MINUTE)),
    ("13b ... by 6 to 15 minutes for each event anew", |maker| maker.lagging_pipeline(9 * MINUTE)),
    ("several of these at once", Maker::several),
];

/// Makes a history from a seed.
pub struct Maker {
    random: Seeded,
    history: History,
}

impl Maker {
    pub fn make(seed: u64, scenario: Scenario) -> History {
        let mut maker = Self { random: Seeded(seed), history: History::default() };
        scenario(&mut maker);
        maker.history.requests.sort_by_key(|request| request.received_at);
        maker.history
    }

    fn between(&mut self, range: Range<Millis>) -> Millis {
        range.start + self.random.below((range.end - range.start).max(1) as usize) as Millis
    }

    /// Adds an event on a page of its own. It may have a source. Returns its index.
    fn event(&mut self, at: Millis, may_have_source: bool) -> usize {
        let number = self.history.events.len();
        let source = if may_have_source { self.random.below(5) } else { 4 };
        self.history.events.push(SentEvent {
            // Events of one time are ordered by their ids.
            uuid: format!("{:04x}-{number}", self.random.below(0x10000)),
            at,
            name: ["$pageview", "click"][self.random.below(2)],
            url: format!("https://shop.test/{number}"),
            referrer: [None, Some("https://a.test/"), Some("https://b.test/"), None, None][source],
            utm: [Some("ads"), None, None, Some("mail"), None][source],
        });
        number
    }

    /// Adds a visit of `count` events, up to seven minutes apart. It may begin with a source. Returns its events.
    fn visit(&mut self, start: Millis, count: usize) -> Vec<usize> {
        let mut at = start;
        let mut events = Vec::new();
        for number in 0..count {
            at += if number == 0 { 0 } else { self.between(SECOND..7 * MINUTE) };
            // Sometimes an event inside a visit has a source, too.
            let may_have_source = number == 0 || self.random.below(20) == 0;
            events.push(self.event(at, may_have_source));
        }
        events
    }

    /// Adds visits within a span of time. Returns their events.
    fn visits(&mut self, span: Range<Millis>, count: usize) -> Vec<usize> {
        let mut events = Vec::new();
        for _ in 0..count {
            let start = self.between(span.start..(span.end - HOUR).max(span.start + 1));
            let length = 1 + self.random.below(8);
            events.extend(self.visit(start, length));
        }
        let is_within = |&event: &usize| self.history.events[event].at < span.end;
        let (within, after): (Vec<usize>, Vec<usize>) = events.into_iter().partition(is_within);
        // Events that would lie after the span are moved to its end.
        for &event in &after {
            self.history.events[event].at = span.end - 1;
        }
        within.into_iter().chain(after).collect()
    }

    /// Sends events one by one, each with a delay after its time.
    fn live(&mut self, events: &[usize], delay: Range<Millis>) {
        for &event in events {
            let received_at = self.history.events[event].at + self.between(delay.clone());
            self.history.requests.push(Request { received_at, sent_at: None, events: vec![event] });
        }
    }

    /// Uploads events in requests of up to `size` events, `apart` from each other: oldest first, newest first, or in random order.
    /// Returns the time after the last request.
    fn upload(&mut self, events: &[usize], mut at: Millis, size: usize, apart: Range<Millis>) -> Millis {
        let mut events = events.to_vec();
        events.sort_by_key(|&event| self.history.events[event].at);
        let order = self.random.below(3);
        let mut requests: Vec<Vec<usize>> = Vec::new();
        while !events.is_empty() {
            let count = (1 + self.random.below(size)).min(events.len());
            requests.push(events.drain(..count).collect());
        }
        match order {
            0 => {}
            1 => requests.reverse(),
            _ => (1..requests.len()).for_each(|last| requests.swap(last, self.random.below(last + 1))),
        }
        for events in requests {
            self.history.requests.push(Request { received_at: at, sent_at: None, events });
            at += self.between(apart.clone());
        }
        at
    }

    fn in_time(&mut self) {
        let events = self.visits(NOON..NOON + DAY, 6);
        self.live(&events, 0..5 * MINUTE);
        // Some are sent twice, both times within the allowed lateness.
        let duplicates: Vec<usize> = events.into_iter().filter(|_| self.random.below(6) == 0).collect();
        self.live(&duplicates, 0..5 * MINUTE);
    }

    /// A device is offline for a day, then uploads in some requests within a few minutes. `beside`: 1 for earlier sessions, which
    /// are archived; 2 for a live session on another device; 3 for visits of another device on that day.
    fn offline_day(&mut self, beside: usize) {
        let upload_at = NOON + DAY;
        if beside == 1 {
            let before = self.visits(NOON - 2 * DAY..NOON - 6 * HOUR, 3);
            self.live(&before, 0..MINUTE);
        }
        if beside == 3 {
            let other = self.visits(NOON + 4 * HOUR..NOON + 16 * HOUR, 2);
            self.live(&other, 0..MINUTE);
        }
        let count = 1 + self.random.below(4);
        let events = self.visits(NOON..upload_at - HOUR, count);
        if beside == 2 {
            let start = upload_at - self.between(MINUTE..10 * MINUTE);
            let length = 1 + self.random.below(4);
            let live = self.visit(start, length);
            self.live(&live, 0..SECOND);
        }
        self.upload(&events, upload_at, 10, SECOND..MINUTE);
    }

    fn slow_clock(&mut self, has_other_device: bool) {
        let events = self.visit(NOON - 2 * HOUR, 12);
        for &event in &events {
            let received_at = self.history.events[event].at + 2 * HOUR + self.between(0..SECOND);
            self.history.requests.push(Request { received_at, sent_at: None, events: vec![event] });
        }
        if has_other_device {
            let start = NOON + self.between(0..HOUR);
            let length = 2 + self.random.below(10);
            let right = self.visit(start, length);
            self.live(&right, 0..SECOND);
        }
    }

    fn fast_clock(&mut self) {
        let ahead = self.between(MINUTE..23 * HOUR);
        let start = NOON + ahead;
        let fast = self.visit(start, 8);
        for &event in &fast {
            let received_at = self.history.events[event].at - ahead + self.between(0..SECOND);
            self.history.requests.push(Request { received_at, sent_at: None, events: vec![event] });
        }
        let right = self.visits(NOON..NOON + DAY, 4);
        self.live(&right, 0..MINUTE);
    }

    fn active_elsewhere(&mut self) {
        let events = self.visits(NOON..NOON + 20 * HOUR, 3);
        let start = NOON + 22 * HOUR;
        let length = 20 + self.random.below(101);
        let active = self.visit(start, length);
        self.live(&active, 0..SECOND);
        let upload_at = start + self.between(HOUR..2 * HOUR);
        self.upload(&events, upload_at, 10, SECOND..MINUTE);
    }

    fn slow_upload(&mut self, apart: Range<Millis>) {
        let events = self.visits(NOON..NOON + 20 * HOUR, 3);
        self.upload(&events, NOON + DAY, 5, apart);
    }

    fn large_upload(&mut self) {
        let count = 30 + self.random.below(671);
        let mut events = Vec::new();
        let mut start = NOON;
        while events.len() < count {
            let length = (1 + self.random.below(120)).min(count - events.len());
            let visit = self.visit(start, length);
            start = self.history.events[visit[visit.len() - 1]].at + self.between(20 * MINUTE..5 * HOUR);
            events.extend(visit);
        }
        self.upload(&events, start + HOUR, 100, SECOND..20 * SECOND);
    }

    fn sent_again(&mut self) {
        // The device's clock is off by hours, and its requests have a `sent_at`.
        let off = self.between(-5 * HOUR..5 * HOUR);
        let events = self.visits(NOON..NOON + 6 * HOUR, 2);
        let mut send = |events: &[usize], received_at: Millis, sent_at: Millis| {
            let sent_at = Some(sent_at + off);
            self.history.requests.push(Request { received_at, sent_at, events: events.to_vec() });
        };
        let first = NOON + 8 * HOUR;
        send(&events, first + SECOND, first);
        // The answer was lost, so the same request is received again, long after.
        send(&events, first + 12 * HOUR, first);
        self.history.events.iter_mut().for_each(|event| event.at += off);
    }

    fn a_long_stretch(&mut self) {
        let mut events = Vec::new();
        let mut at = NOON;
        while at < NOON + 30 * HOUR {
            events.push(self.event(at, false));
            at += self.between(5 * MINUTE..29 * MINUTE);
        }
        let upload = |maker: &mut Self, mut received_at: Millis| {
            for events in events.rchunks(10) {
                maker.history.requests.push(Request { received_at, sent_at: None, events: events.to_vec() });
                received_at += maker.between(SECOND..10 * SECOND);
            }
        };
        upload(self, NOON + 32 * HOUR);
        upload(self, NOON + 60 * HOUR);
    }

    fn years_back(&mut self) {
        let back = 3 * 365 * DAY;
        let start = NOON + self.between(0..HOUR) - back;
        let wrong = self.visit(start, 8);
        for &event in &wrong {
            let received_at = self.history.events[event].at + back + self.between(0..SECOND);
            self.history.requests.push(Request { received_at, sent_at: None, events: vec![event] });
        }
        let right = self.visits(NOON..NOON + 8 * HOUR, 3);
        self.live(&right, 0..SECOND);
    }

    fn two_phones(&mut self) {
        for upload_at in [NOON + DAY, NOON + DAY + self.between(HOUR..12 * HOUR)] {
            let count = 1 + self.random.below(3);
            let events = self.visits(NOON..NOON + 20 * HOUR, count);
            self.upload(&events, upload_at, 10, SECOND..MINUTE);
        }
    }

    fn closer_down(&mut self) {
        self.history.closer_down = NOON..NOON + 6 * HOUR;
        let before = self.visits(NOON - 5 * HOUR..NOON, 2);
        self.live(&before, 0..SECOND);
        let offline = self.visits(NOON + HOUR..NOON + 4 * HOUR, 1);
        let live = self.visits(NOON..NOON + 6 * HOUR, 3);
        self.live(&live, 0..SECOND);
        self.upload(&offline, NOON + 5 * HOUR, 10, SECOND..MINUTE);
    }

    /// Every event arrives 6 to 15 minutes late, by a delay that varies by `jitter`.
    fn lagging_pipeline(&mut self, jitter: Millis) {
        let events = self.visits(NOON..NOON + 12 * HOUR, 4);
        let behind = 6 * MINUTE + self.between(0..9 * MINUTE - jitter);
        self.live(&events, behind..behind + jitter);
    }

    fn several(&mut self) {
        let lagging = |maker: &mut Self| maker.lagging_pipeline(9 * MINUTE);
        let scenarios: [Scenario; 4] = [Self::closer_down, Self::two_phones, Self::active_elsewhere, lagging];
        let first = self.random.below(scenarios.len());
        scenarios[first](self);
        scenarios[(first + 1 + self.random.below(scenarios.len() - 1)) % scenarios.len()](self);
        if self.random.below(2) == 0 {
            self.slow_clock(true);
        }
    }
}

impl SentEvent {
    pub fn json(&self, request: &Request) -> String {
        let mut properties = serde_json::json!({ "$current_url": self.url });
        for (name, value) in [("$referrer", self.referrer), ("utm_source", self.utm)] {
            if let Some(value) = value {
                properties[name] = value.into();
            }
        }
        let mut event = serde_json::json!({
            "uuid": self.uuid, "event": self.name, "distinct_id": "v", "timestamp": rfc3339_of(self.at),
            "received_at": rfc3339_of(request.received_at), "properties": properties,
        });
        if let Some(sent_at) = request.sent_at {
            event["sent_at"] = rfc3339_of(sent_at).into();
        }
        event.to_string()
    }
}
