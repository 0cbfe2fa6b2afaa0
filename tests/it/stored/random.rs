//! Timelines as the service makes them: random events, ends by call and closes, through the real parser and `apply`.

use proptest::prelude::*;
use serde_json::json;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, datetime};
use session_tracking::timeline::Timeline;

use crate::support::Seeded;

/// 2026-03-10T12:00:00Z.
pub const NOON: Millis = 1_773_144_000_000;

/// A batch of events, and what happens after it.
#[derive(Debug, Clone)]
pub struct Step {
    /// Time since the step before.
    gap: Millis,
    events: Vec<Sketch>,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// A call ends the latest session.
    End,
    /// What is over is closed.
    Close,
}

/// An event in a few numbers.
#[derive(Debug, Clone)]
struct Sketch {
    /// How long it was on its way.
    late: Millis,
    name: &'static str,
    /// 0: none.
    page: u8,
    source: u8,
    device: u8,
    /// Which of a few ids, or one of its own.
    uuid: Option<u8>,
    properties: Vec<(String, String)>,
}

/// Timelines, and sessions that left them.
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
    let then = prop_oneof![4 => Just(Then::Nothing), 1 => Just(Then::End), 1 => Just(Then::Close)];
    (gap, prop::collection::vec(sketch(), 1..5), then).prop_map(|(gap, events, then)| Step { gap, events, then })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..300_000, 1 => 300_000_i64..8_000_000];
    let name = prop_oneof![Just("$pageview"), Just("click"), Just("$pageleave"), Just("$session_end")];
    let properties = prop::collection::vec(("[a-c]", "[ -~é€😀]{0,8}"), 0..3);
    let parts = (late, name, 0_u8..4, 0_u8..5, 0_u8..3, prop::option::weighted(0.2, 0_u8..6), properties);
    parts.prop_map(|(late, name, page, source, device, uuid, properties)| Sketch {
        late,
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
        let texts = step.events.iter().enumerate().map(|(place, event)| event.text(number * 10 + place, now));
        let texts: Vec<String> = texts.collect();
        let events = texts.iter().map(|text| Event::parse(text.as_bytes(), delivery, &config).unwrap());
        let arrivals: Vec<_> = events.filter_map(|event| event.arrival(&config)).collect();
        world.timeline.apply(&arrivals, Vec::new(), &config);
        match step.then {
            Then::Nothing => {}
            Then::End => {
                let last = world.timeline.sessions(now, &config).pop();
                last.map(|session| world.timeline.end(session.id.parse().unwrap(), now, &config));
            }
            Then::Close => world.closed.extend(world.timeline.close(now, &config).ended),
        }
    }
    world
}

impl Sketch {
    fn text(&self, number: usize, now: Millis) -> String {
        let uuid = match self.uuid {
            None => format!("0190a6f2-0c0a-7cfa-8d8a-{number:012x}"),
            Some(own) => format!("event-{own}"),
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
            2 => ["$device_type", "$browser", "$geoip_city_name"].into_iter().for_each(|name| set(name, "Bern")),
            _ => {}
        }
        let timestamp = datetime(now - self.late).to_rfc3339();
        json!({"uuid": uuid, "event": self.name, "distinct_id": "u", "timestamp": timestamp, "properties": properties})
            .to_string()
    }
}

/// Text that does not repeat itself.
pub fn noise(seed: u64, length: usize) -> String {
    let mut random = Seeded(seed);
    (0..length).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789-_"[random.below(38)])).collect()
}
