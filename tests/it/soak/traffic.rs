//! Steady traffic of a shop: visits of 21 events in seven steps, visitors that come back, and campaigns within visits.

use serde_json::json;
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::{Millis, datetime, rfc3339};

use super::queue::Message;
use crate::oracle::OracleEvent;

pub const EVENTS_A_SECOND: usize = 1_000;
/// The allowed lateness. It is longer than all events take, so that none is late, whatever is redelivered when.
pub const LATENESS_S: Millis = 86_400;
/// A second of the load is a minute of the visitors' time, so that visitors come back within it.
const STEP_MS: Millis = 60_000;
/// The visits that are under way at a time.
const SLOTS: usize = 333;
/// A visit's steps. There are three events in each.
const STEPS: usize = 7;
const EVENTS_A_STEP: usize = 3;
/// A visitor comes back after this many visits of others, which take longer than the timeout.
const RETURNS_AFTER: usize = 6;
/// The events of a message.
const MESSAGE_EVENTS: usize = 10;

/// An event of the traffic.
pub struct Event {
    visitor: String,
    uuid: String,
    at: Millis,
    url: String,
}

pub struct Traffic {
    pub events: Vec<Event>,
}

impl Traffic {
    /// Returns the events of these seconds, in the order in which they are sent. All sessions are over by now.
    pub fn of(seconds: usize) -> Self {
        let begin = SystemClock.now() - 2 * LATENESS_S * 1000 - seconds as Millis * STEP_MS;
        let mut events = Vec::with_capacity(seconds * EVENTS_A_SECOND);
        for second in 0..seconds {
            let before = events.len();
            for slot in 0..SLOTS {
                for part in 0..EVENTS_A_STEP {
                    events.push(event(begin, second, slot, part));
                }
            }
            // The rest of a thousand.
            for part in 0..EVENTS_A_SECOND - (events.len() - before) {
                events.push(event(begin, second, SLOTS, part));
            }
        }
        Self { events }
    }

    pub fn oracle(&self) -> Vec<OracleEvent<'_>> {
        self.events.iter().map(Event::oracle).collect()
    }

    /// Returns the messages, with when each is sent. One in twenty is sent twice.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for (number, events) in self.events.chunks(MESSAGE_EVENTS).enumerate() {
            let sent_ms = (number * MESSAGE_EVENTS * 1_000 / EVENTS_A_SECOND) as u64;
            let lines: Vec<String> = events.iter().map(Event::json).collect();
            let received_at = events.iter().map(|event| event.at).max().unwrap();
            let message = Message::new(messages.len(), lines.join("\n"), received_at, sent_ms);
            if number % 20 == 0 {
                messages.push(message.again_as(messages.len() + 1));
            }
            messages.push(message);
        }
        messages
    }
}

fn event(begin: Millis, second: usize, slot: usize, part: usize) -> Event {
    // Visits do not begin all at once.
    let step = second + slot % STEPS;
    let visit = step / STEPS;
    let at = begin + second as Millis * STEP_MS + part as Millis * (STEP_MS / 4) + slot as Millis;
    // In one visit of five, another campaign in the middle begins a session.
    let campaign = if (slot + visit).is_multiple_of(5) && step % STEPS == STEPS / 2 {
        "?utm_source=ads"
    } else {
        "?utm_source=news"
    };
    Event {
        visitor: format!("v{slot}-{}", visit % RETURNS_AFTER),
        uuid: format!("e{second}-{slot}-{part}"),
        at,
        url: format!("https://shop.test/{slot}/{second}/{part}{campaign}"),
    }
}

impl Event {
    fn oracle(&self) -> OracleEvent<'_> {
        let Self { visitor, uuid, at, url } = self;
        OracleEvent { visitor, uuid, at: *at, name: "$pageview", url: Some(url), ..OracleEvent::default() }
    }

    fn json(&self) -> String {
        let text = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr. ".repeat(8);
        json!({
            "uuid": self.uuid, "event": "$pageview", "distinct_id": self.visitor, "timestamp": rfc3339(datetime(self.at)),
            "properties": { "$current_url": self.url, "title": text },
        })
        .to_string()
    }
}
