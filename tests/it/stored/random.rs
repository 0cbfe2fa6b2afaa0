//! Random timelines as the service makes them: random events, requests that end sessions, and closes, through the real parser and
//! `apply`.

use proptest::prelude::*;
use serde_json::json;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, datetime};
use session_tracking::timeline::{ClosedSession, Timeline};

use crate::support::Seeded;

/// 2026-03-10T12:00:00Z.
pub const NOON: Millis = 1_773_144_000_000;

/// A batch of events, and what happens after it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The time since the step before.
    gap: Millis,
    events: Vec<RandomEvent>,
    action: Action,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Nothing,
    /// A request ends the latest session.
    End,
    /// The closer runs.
    Close,
}

/// The choices that make an event.
#[derive(Debug, Clone)]
struct RandomEvent {
    /// Its age at its receipt.
    age: Millis,
    name: &'static str,
    /// 0 for no URL.
    page: u8,
    /// 0 for no source.
    source: u8,
    /// 0 for no device.
    device: u8,
    /// One of a few ids, or `None` for a UUID of its own.
    uuid: Option<u8>,
    properties: Vec<(String, String)>,
}

/// A timeline, and the sessions that were closed in it.
#[derive(Debug, Clone)]
pub struct World {
    pub timeline: Timeline,
    pub closed: Vec<SessionState>,
}

pub fn world() -> impl Strategy<Value = World> {
    prop::collection::vec(step(), 1..8).prop_map(|steps| build(&steps))
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![0_i64..5_000, 0_i64..600_000, 1_700_000_i64..4_000_000, Just(90_000_000)];
    let action = prop_oneof![4 => Just(Action::Nothing), 1 => Just(Action::End), 1 => Just(Action::Close)];
    (gap, prop::collection::vec(random_event(), 1..5), action).prop_map(|(gap, events, action)| Step {
        gap,
        events,
        action,
    })
}

fn random_event() -> impl Strategy<Value = RandomEvent> {
    let age = prop_oneof![3 => Just(0_i64), 2 => 0_i64..300_000, 1 => 300_000_i64..8_000_000];
    let name = prop_oneof![Just("$pageview"), Just("click"), Just("$pageleave"), Just("$session_end")];
    let properties = prop::collection::vec(("[a-c]", "[ -~é€😀]{0,8}"), 0..3);
    let choices = (age, name, 0_u8..4, 0_u8..5, 0_u8..3, prop::option::weighted(0.2, 0_u8..6), properties);
    choices.prop_map(|(age, name, page, source, device, uuid, properties)| RandomEvent {
        age,
        name,
        page,
        source,
        device,
        uuid,
        properties,
    })
}

fn build(steps: &[Step]) -> World {
    let config = SessionConfig::default();
    let mut world = World { timeline: Timeline::new(Visitor::new("u")), closed: Vec::new() };
    let mut now = NOON;
    for (number, step) in steps.iter().enumerate() {
        now += step.gap;
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let json = step.events.iter().enumerate().map(|(index, event)| event.json(number * 10 + index, now));
        let json: Vec<String> = json.collect();
        let events = json.iter().map(|json| Event::parse(json.as_bytes(), delivery, &config).unwrap());
        let arrivals: Vec<_> = events.filter_map(|event| event.arrival(&config)).collect();
        world.timeline.apply(&arrivals, Vec::new(), &config);
        match step.action {
            Action::Nothing => {}
            Action::End => {
                let last = world.timeline.sessions(now, &config).pop();
                last.map(|session| world.timeline.end(session.id.parse().unwrap(), now, &config));
            }
            Action::Close => {
                for state in world.timeline.close(now, &config).ended {
                    world.closed.push(state.clone());
                    if state.number % 2 == 0 {
                        world.timeline.keep_closed(ClosedSession { state, closed_at: now });
                    }
                }
            }
        }
    }
    world
}

impl RandomEvent {
    fn json(&self, number: usize, now: Millis) -> String {
        let uuid = match self.uuid {
            None => format!("0190a6f2-0c0a-7cfa-8d8a-{number:012x}"),
            Some(shared) => format!("event-{shared}"),
        };
        let mut properties = json!({"$session_properties": self.properties.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()});
        let mut set = |name: &str, value: &str| properties[name] = value.into();
        if self.page > 0 {
            set("$current_url", &format!("https://shop.test/{}", ["", "cart", "käse/😀"][usize::from(self.page - 1)]));
        }
        match self.source {
            1 => set("$referrer", "https://www.google.com/search"),
            2 => set("$referrer", "https://blog.test/"),
            3 => set("utm_source", "ads"),
            4 => ["utm_source", "utm_medium", "utm_content"].into_iter().for_each(|name| set(name, "mail")),
            _ => {}
        }
        match self.device {
            1 => set("$os", "Linux"),
            2 => ["$device_type", "$browser", "$geoip_city_name", "$user_id"]
                .into_iter()
                .for_each(|name| set(name, "Bern")),
            _ => {}
        }
        let timestamp = datetime(now - self.age).to_rfc3339();
        json!({"uuid": uuid, "event": self.name, "distinct_id": "u", "timestamp": timestamp, "properties": properties})
            .to_string()
    }
}

/// Returns a random string of `length` characters.
pub fn noise(seed: u64, length: usize) -> String {
    let mut random = Seeded(seed);
    (0..length).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789-_"[random.below(38)])).collect()
}
