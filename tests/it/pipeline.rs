//! A pipeline in front of the service, for the tests on the real engine. Visitors are skewed, events arrive out of order, and
//! messages are delivered at least once, in changing compositions. [`check`] compares the output with the oracle.

mod queue;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::session::{Millis, datetime, rfc3339};

use crate::consumer::Consumer;
use crate::oracle::{self, OracleEvent};
use crate::support::{FinalSession, Seeded};
#[cfg(feature = "managed-instances")]
pub use queue::Batch;
pub use queue::Queue;

/// A generated event.
#[derive(Debug, Clone)]
pub struct Event {
    pub visitor: String,
    pub uuid: String,
    pub at: Millis,
    pub arrives_at: Millis,
    name: &'static str,
    url: Option<String>,
    referrer: Option<&'static str>,
    utm: [Option<&'static str>; 5],
    os: Option<&'static str>,
    city: Option<&'static str>,
    /// The session property `plan`.
    plan: Option<usize>,
    /// It is invalid, and must be rejected.
    is_unusable: bool,
}

/// The parameters of the generated events.
pub struct Shape {
    pub seed: u64,
    /// The number of visitors. The first has the most events, the n-th has 1/n as many.
    pub visitors: usize,
    /// The number of events of the first visitor.
    pub max_events: usize,
    pub timeout: Millis,
    pub start: Millis,
    /// The maximum delay between an event and its arrival.
    pub disorder: Millis,
}

impl Shape {
    /// Returns the events in the order of their arrival.
    pub fn events(&self) -> Vec<Event> {
        let mut random = Seeded(self.seed);
        let mut events = Vec::new();
        // About as long as the visits of the first visitor, so that the other visitors overlap with it.
        let span = self.max_events * self.timeout as usize * 2 / 5;
        for rank in 0..self.visitors {
            let mut at = self.start + if rank == 0 { 0 } else { random.below(span) as Millis };
            for _ in 0..(self.max_events / (rank + 1)).max(2) {
                at += self.gap(&mut random);
                let arrives_at = at + random.below(2) as Millis * random.below(self.disorder as usize) as Millis;
                events.push(event(&mut random, rank, events.len(), at, arrives_at));
            }
        }
        events.sort_by_key(|event| event.arrives_at);
        events
    }

    fn gap(&self, random: &mut Seeded) -> Millis {
        let timeout = self.timeout;
        let short = [0, 1, 1000, timeout / 10, timeout / 5, timeout / 3];
        let all = [short.as_slice(), &short, &[timeout - 1, timeout, timeout + 1, 2 * timeout + 1]].concat();
        all[random.below(all.len())]
    }
}

fn event(random: &mut Seeded, rank: usize, index: usize, at: Millis, arrives_at: Millis) -> Event {
    let mut maybe =
        |odds: usize, among: &[&'static str]| (random.below(odds) == 0).then(|| among[random.below(among.len())]);
    let referrer =
        maybe(6, &["https://a.test/", "https://www.a.test/x", "https://b.test/", "https://shop.test/", "no address"]);
    let source = maybe(8, &["ads", "mail"]);
    let medium = maybe(12, &["cpc"]);
    let query = maybe(8, &["?utm_source=ads", "?utm_campaign=spring&utm_term=shoes", "?q=1"]);
    let (os, city) = (maybe(3, &["Linux", "iOS"]), maybe(3, &["Bern", "Lima"]));
    let name = ["$pageview", "$pageview", "$screen", "click"][random.below(4)];
    let url = || format!("https://shop.test/{index}{}", query.unwrap_or_default());
    Event {
        visitor: format!("v{rank}"),
        // The order of the ids is not that of the times.
        uuid: format!("{:03}-{index}", random.below(1000)),
        at,
        arrives_at,
        name,
        url: (random.below(4) > 0).then(url),
        referrer,
        utm: [source, medium, None, None, None],
        os,
        city,
        plan: (random.below(5) == 0).then_some(index),
        is_unusable: random.below(100) == 0,
    }
}

impl Event {
    /// Returns it as its sender writes it.
    pub fn json(&self) -> String {
        let timestamp = rfc3339(datetime(self.at));
        let mut event = json!({
            "uuid": self.uuid, "event": self.name, "distinct_id": self.visitor, "timestamp": timestamp,
            "properties": {
                "$current_url": self.url, "$referrer": self.referrer, "$os": self.os, "$geoip_city_name": self.city,
                "utm_source": self.utm[0], "utm_medium": self.utm[1],
            },
        });
        if let Some(plan) = self.plan {
            event["properties"]["$session_properties"] = json!({ "plan": plan });
        }
        if self.is_unusable {
            event["distinct_id"] = Value::Null;
        }
        event.to_string()
    }

    /// Returns it as the oracle reads it; `None` if it must be rejected.
    pub fn usable(&self) -> Option<OracleEvent<'_>> {
        (!self.is_unusable).then(|| self.oracle())
    }

    fn oracle(&self) -> OracleEvent<'_> {
        OracleEvent {
            visitor: &self.visitor,
            uuid: &self.uuid,
            at: self.at,
            name: self.name,
            url: self.url.as_deref(),
            referrer: self.referrer,
            utm: self.utm,
        }
    }
}

/// Checks that a consumer of these lines has the oracle's sessions, in every field, and every event in one of them, and that
/// unusable events were rejected. Returns the last version of each session.
pub fn check(events: &[Event], config: &SessionConfig, lines: &[String]) -> Vec<Value> {
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (emitted, rejected): (Vec<Value>, Vec<Value>) = lines.partition(|line| line["event"].is_string());
    for event in events.iter().filter(|event| event.is_unusable) {
        let is_rejected = |line: &Value| line["text"].as_str().unwrap().contains(&event.uuid);
        assert!(rejected.iter().any(is_rejected), "{event:?} is neither applied nor rejected");
    }
    let usable: Vec<&Event> = events.iter().filter(|event| !event.is_unusable).collect();
    let consumer = Consumer::read(&emitted);
    assert_eq!(consumer.events.len(), usable.len(), "the consumer does not have all events");
    let oracle_events: Vec<OracleEvent<'_>> = usable.iter().map(|event| event.oracle()).collect();
    let expected: Vec<FinalSession> =
        oracle::sessions(&oracle_events, config).into_iter().map(FinalSession::from).collect();
    let sessions = consumer.sessions();
    for (session, expected) in sessions.iter().zip(&expected) {
        assert_eq!(session, expected);
    }
    assert_eq!(sessions.len(), expected.len());
    let by_uuid: HashMap<&str, &Event> = usable.iter().map(|event| (event.uuid.as_str(), *event)).collect();
    check_rest(&consumer, &expected, &by_uuid);
    consumer.ends.into_values().map(|end| end["$session"].clone()).collect()
}

/// Checks what the oracle does not know of a session: its number, the session before it, that it is over, its device, its
/// location and its properties.
fn check_rest(consumer: &Consumer, expected: &[FinalSession], events: &HashMap<&str, &Event>) {
    let mut by_visitor: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for end in consumer.ends.values() {
        by_visitor.entry(end["$session"]["distinct_id"].as_str().unwrap()).or_default().push(&end["$session"]);
    }
    for (visitor, sessions) in &mut by_visitor {
        sessions.sort_by_key(|session| session["number"].as_u64());
        let expected = expected.iter().filter(|session| session.distinct_id == *visitor);
        let mut previous = &Value::Null;
        for (index, (session, expected)) in sessions.iter().zip(expected).enumerate() {
            let own = || expected.events.iter().map(|uuid| events[uuid.as_str()]);
            assert_eq!(session["number"], index + 1, "{session}");
            assert_eq!(&session["previous_session_id"], previous, "{session}");
            assert_eq!((&session["is_active"], &session["ended_at"]), (&json!(false), &session["last_activity"]));
            assert_eq!(session["device"]["os"], json!(own().find_map(|event| event.os)), "{session}");
            assert_eq!(session["geo"]["city"], json!(own().find_map(|event| event.city)), "{session}");
            let plan = own().rev().find_map(|event| event.plan);
            assert_eq!(session["properties"]["plan"], json!(plan), "{session}");
            previous = &session["id"];
        }
    }
}
