//! Events with neither a `uuid` nor a `timestamp`: each delivery brings new events, and each redelivery the same ones.

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Session, Visitor};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::cases::NOON;
use crate::support::ManualClock;

struct Service {
    storage: InMemorySessionStorage,
    clock: ManualClock,
}

impl Service {
    fn new() -> Self {
        let clock = ManualClock::default();
        clock.set(NOON);
        Self { storage: InMemorySessionStorage::new(), clock }
    }

    fn manager(&self) -> SessionManager<&InMemorySessionStorage, &ManualClock> {
        SessionManager::with_clock(SessionConfig::default(), &self.storage, &self.clock)
    }

    /// Handles a payload. Returns the lines that go to the output queue, and the answer.
    async fn handle(&self, request_id: &str, payload: &Value) -> (Vec<Value>, Value) {
        let (manager, output) = (self.manager(), MemoryOutput::default());
        let ingest = Ingest {
            manager,
            output,
            rejects: MemoryOutput::default(),
            origins: Default::default(),
            public: Default::default(),
        };
        let answer = ingest.handle_as(request_id, &payload.to_string(), Millis::MAX).await.unwrap();
        let lines = ingest.output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines, serde_json::from_str(&answer).unwrap())
    }

    async fn session(&self) -> Session {
        self.manager().get_by_user(&Visitor::new("hb")).await.unwrap()
    }
}

const HEARTBEAT: &str = r#"{"event":"heartbeat","distinct_id":"hb"}"#;

fn http(request_id: &str, now: Millis, body: &str) -> Value {
    json!({"version": "2.0", "rawPath": "/events", "body": body, "requestContext":
        {"http": {"method": "POST", "path": "/events"}, "timeEpoch": now, "requestId": request_id}})
}

fn record(message_id: &str, sent_at: Millis, body: &str) -> Value {
    json!({"messageId": message_id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
        "attributes": {"SentTimestamp": sent_at.to_string()}})
}

/// Four heartbeats in six seconds, as in the bug report: only one event was counted, at the time of the first.
#[tokio::test]
async fn four_heartbeats_over_http_are_four_events() {
    let service = Service::new();
    for number in 0..4 {
        let now = NOON + number * 2_000;
        service.clock.set(now);
        service.handle("", &http(&format!("request-{number}"), now, HEARTBEAT)).await;
    }
    let session = service.session().await;
    assert_eq!((session.event_count, session.duration_seconds()), (4, 6));
    // Two in one request, and so in one millisecond, are two events.
    service.handle("", &http("request-5", NOON + 6_000, &format!("[{HEARTBEAT},{HEARTBEAT}]"))).await;
    assert_eq!(service.session().await.event_count, 6);
    // If a gateway or an emulator gives no request ids, the times of receipt distinguish the events.
    for now in [NOON + 7_000, NOON + 8_000] {
        service.clock.set(now);
        service.handle("", &http("", now, HEARTBEAT)).await;
    }
    assert_eq!(service.session().await.event_count, 8);
}

#[tokio::test]
async fn a_redelivery_in_another_composition_brings_the_same_events() {
    let service = Service::new();
    let two = format!("{HEARTBEAT}\n{HEARTBEAT}");
    let messages = [record("a", NOON, &two), record("b", NOON, HEARTBEAT), record("c", NOON + 1_000, HEARTBEAT)];
    service.clock.set(NOON + 2_000);
    let mut ids = Vec::new();
    for composition in [&[0, 1][..], &[2, 1], &[0], &[1, 2, 0], &[2]] {
        let records: Vec<&Value> = composition.iter().map(|&at| &messages[at]).collect();
        let (lines, _) = service.handle("", &json!({ "Records": records })).await;
        ids.extend(lines.iter().map(|line| line["uuid"].as_str().unwrap().to_owned()));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), service.session().await.event_count), (4, 4));
}

/// SNS can deliver one notification in two messages of the queue.
#[tokio::test]
async fn a_notification_in_two_messages_is_one_event() {
    let service = Service::new();
    let notification = |id: &str| {
        json!({"Type": "Notification", "MessageId": id, "TopicArn": "arn:aws:sns:x:1:t", "Message": HEARTBEAT})
            .to_string()
    };
    for (message, id) in [("a", "n1"), ("b", "n1"), ("c", "n2")] {
        let records = json!({ "Records": [record(message, NOON, &notification(id))] });
        let (lines, _) = service.handle("", &records).await;
        assert_eq!(lines.len(), 1);
    }
    assert_eq!(service.session().await.event_count, 2);
}

#[tokio::test]
async fn a_retried_direct_invocation_brings_the_same_events() {
    let service = Service::new();
    let payload = json!({"events": [{"event": "heartbeat", "distinct_id": "hb"}]});
    for (request_id, now) in [("r1", NOON), ("r1", NOON + 60_000), ("r2", NOON + 60_000)] {
        service.clock.set(now);
        service.handle(request_id, &payload).await;
    }
    assert_eq!(service.session().await.event_count, 2);
}

#[tokio::test]
async fn a_uuid_in_capitals_is_the_same_event() {
    let service = Service::new();
    let event =
        |uuid: &str| json!({"uuid": uuid, "event": "x", "distinct_id": "hb", "timestamp": "2026-03-10T12:00:00Z"});
    let events = [event("5e551011-0000-4000-8000-00000000abcd"), event("5E551011-0000-4000-8000-00000000ABCD")];
    let (_, answer) = service.handle("r", &json!({ "events": events })).await;
    let uuids: Vec<&Value> = answer["events"].as_array().unwrap().iter().map(|event| &event["uuid"]).collect();
    assert_eq!(uuids, [&events[0]["uuid"], &events[1]["uuid"]], "each keeps its own bytes");
    assert_eq!(service.session().await.event_count, 1);
}
