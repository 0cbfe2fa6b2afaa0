//! Messages that come back from the dead-letter queue a day later: with the time and the id that they were first sent with, as
//! `ops/redrive` sends them, and without.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::cases::NOON;
use crate::support::{ManualClock, Sink};

const MINUTE: Millis = 60_000;
const DAY: Millis = 86_400_000;

#[derive(Default)]
struct Service {
    storage: InMemorySessionStorage,
    clock: ManualClock,
}

impl Service {
    fn manager(&self) -> SessionManager<&InMemorySessionStorage, &ManualClock> {
        SessionManager::with_clock(SessionConfig::default(), &self.storage, &self.clock)
    }

    /// Handles a message of the queue. Returns the lines that go to the output queue.
    async fn handle(&self, now: Millis, record: &Value) -> Vec<Value> {
        self.clock.set(now);
        let (output, rejects) = (MemoryOutput::default(), MemoryOutput::default());
        let manager = self.manager();
        let ingest = Ingest { manager, output, rejects, origins: Default::default(), public: Default::default() };
        let payload = json!({ "Records": [record] }).to_string();
        let answer = ingest.handle_as("", &payload, Millis::MAX).await.unwrap();
        assert_eq!(answer, r#"{"batchItemFailures":[]}"#);
        ingest.output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn close(&self, now: Millis) {
        self.clock.set(now);
        let sink = Sink::default();
        assert_eq!(self.manager().cleanup(&&sink, Millis::MAX).await.failed, 0);
    }
}

/// A message of the input queue.
fn record(id: &str, sent_at: Millis, body: &str, attributes: Value) -> Value {
    json!({"messageId": id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
        "attributes": {"SentTimestamp": sent_at.to_string()}, "messageAttributes": attributes})
}

/// The attributes of a message that was first sent at noon as `m1`.
fn first_sent(mut attributes: Value) -> Value {
    for (name, value) in
        [("session-tracking-received-at", NOON.to_string()), ("session-tracking-message-id", "m1".to_owned())]
    {
        attributes[name] = json!({ "stringValue": value, "dataType": "String" });
    }
    attributes
}

fn at(time: Millis) -> String {
    rfc3339(datetime(time))
}

/// Yesterday's visit: three views, sent by a device at noon. None has a `uuid`, and the last has no time either.
fn visit() -> String {
    let view = |minutes: Millis| json!({"event": "$pageview", "distinct_id": "ada", "timestamp": at(NOON - minutes * MINUTE), "sent_at": at(NOON)});
    json!([view(10), view(5), { "event": "$pageview", "distinct_id": "ada" }]).to_string()
}

/// A body in each of its forms, with the attributes that it is sent with.
fn forms(events: &str) -> Vec<(&'static str, String, Value)> {
    let lines: Vec<String> =
        serde_json::from_str::<Vec<Value>>(events).unwrap().iter().map(|event| event.to_string()).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(events.as_bytes()).unwrap();
    let gzip = BASE64_STANDARD.encode(encoder.finish().unwrap());
    let topic = json!({"Type": "Notification", "MessageId": "n", "TopicArn": "arn:aws:sns:x:1:t", "Message": events,
        "Timestamp": at(NOON)});
    let bus = json!({"id": "b", "detail-type": "visit", "source": "shop", "time": at(NOON),
        "detail": { "events": serde_json::from_str::<Value>(events).unwrap() }});
    vec![
        ("array", events.to_owned(), json!({})),
        ("lines", lines.join("\n"), json!({})),
        ("gzip", gzip, json!({ "content-encoding": { "stringValue": "gzip", "dataType": "String" } })),
        ("topic", topic.to_string(), json!({})),
        ("bus", bus.to_string(), json!({})),
    ]
}

/// What a line tells: its id, its time if it is not its `timestamp`, its session, and whether it is late.
fn facts(lines: &[Value]) -> Vec<[Value; 4]> {
    let fact = |line: &Value| {
        let property = |name: &str| line["properties"][name].clone();
        [line["uuid"].clone(), property("$event_time"), property("$session_id"), property("$late")]
    };
    lines.iter().map(fact).collect()
}

/// The dead letter was never applied. A day later it makes the session that it would have made.
#[tokio::test]
async fn a_redriven_message_is_placed_in_its_own_time() {
    for (form, body, attributes) in forms(&visit()) {
        let in_time = Service::default();
        let expected = in_time.handle(NOON, &record("m1", NOON, &body, attributes.clone())).await;

        let service = Service::default();
        let redriven = record("m2", NOON + DAY, &body, first_sent(attributes));
        let lines = service.handle(NOON + DAY, &redriven).await;
        assert_eq!(facts(&lines), facts(&expected), "{form}");
        let session = service.manager().get_by_user(&Visitor::new("ada")).await.unwrap();
        assert_eq!(session.started_at, datetime(NOON - 10 * MINUTE), "{form}");
        assert_eq!((session.event_count, session.duration_seconds()), (3, 600), "{form}");
    }
}

/// The dead letter is one that was applied before it failed. It changes nothing, and neither does a second redrive.
#[tokio::test]
async fn a_redriven_message_is_known_if_it_was_applied() {
    for (form, body, attributes) in forms(&visit()) {
        let service = Service::default();
        let first = service.handle(NOON, &record("m1", NOON, &body, attributes.clone())).await;
        service.close(NOON + DAY / 2).await;
        for id in ["m2", "m3"] {
            let redriven = record(id, NOON + DAY, &body, first_sent(attributes.clone()));
            let lines = service.handle(NOON + DAY, &redriven).await;
            let ids = |lines: &[Value]| {
                facts(lines).into_iter().map(|[uuid, _, session, _]| [uuid, session]).collect::<Vec<_>>()
            };
            assert_eq!(ids(&lines), ids(&first), "{form}");
        }
        let session = service.manager().get_by_user(&Visitor::new("ada")).await.unwrap();
        assert_eq!(session.event_count, 3, "{form}");
    }
}

/// Today's visit is not lengthened by yesterday's events, and its own session is made beside it.
#[tokio::test]
async fn a_redriven_message_leaves_later_sessions_alone() {
    let service = Service::default();
    let today = |minutes: Millis| {
        let time = NOON + DAY + minutes * MINUTE;
        let event =
            json!({"uuid": format!("t{minutes}"), "event": "$pageview", "distinct_id": "ada", "timestamp": at(time)});
        (time, record(&format!("t{minutes}"), time, &event.to_string(), json!({})))
    };
    let (time, message) = today(0);
    let first = service.handle(time, &message).await;
    let lines = service.handle(time, &record("m2", time, &visit(), first_sent(json!({})))).await;
    let (time, message) = today(5);
    let second = service.handle(time, &message).await;
    let session = |line: &Value| line["properties"]["$session_id"].clone();
    assert_eq!(session(&first[0]), session(&second[0]));
    assert!(lines.iter().all(|line| session(line) == session(&lines[0]) && session(line) != session(&first[0])));
}

/// What `aws sqs start-message-move-task` does: the message gets a new id and a new sending time. The time that it lay in the
/// dead-letter queue is then taken for an error of the sender's clock, and events without a time are new ones.
#[tokio::test]
async fn without_the_first_time_events_move_by_a_day_and_count_twice() {
    let service = Service::default();
    service.handle(NOON, &record("m1", NOON, &visit(), json!({}))).await;
    let lines = service.handle(NOON + DAY, &record("m2", NOON + DAY, &visit(), json!({}))).await;
    let session = service.manager().get_by_user(&Visitor::new("ada")).await.unwrap();
    assert_eq!(session.started_at, datetime(NOON + DAY), "the last event begins a session of its own");
    assert_ne!(lines[2]["properties"]["$session_id"], lines[0]["properties"]["$session_id"]);

    let service = Service::default();
    let lines = service.handle(NOON + DAY, &record("m2", NOON + DAY, &visit(), json!({}))).await;
    assert_eq!(lines[0]["properties"]["$event_time"], at(NOON + DAY - 10 * MINUTE));
}
