//! Visits with long and repetitive strings, through the real handler. What one process writes is read by a process that has never
//! seen the visitor, by the closer and by queries.

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime};
use session_tracking::storage::{DynamoDbSessionStorage, InMemorySessionStorage, SessionStorage};
use session_tracking::trigger::Ingest;

use super::NOON;
use super::random::noise;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Sink};

/// Sends events to a new process. Each of them must be applied. Returns the session of the last event.
async fn send<S: SessionStorage>(store: &S, visitor: &str, first: Millis, all: &[Value]) -> String {
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let (output, rejects) = (MemoryOutput::default(), MemoryOutput::default());
    let ingest =
        Ingest { manager, output: &output, rejects: &rejects, origins: Default::default(), public: Default::default() };
    let mut session = None;
    // A request holds a megabyte at most.
    for (batch, events) in all.chunks(100).enumerate() {
        let lines = events.iter().enumerate().map(|(n, properties)| {
            let at = first + 1000 * (100 * batch + n) as Millis;
            clock.set(at);
            json!({"uuid": format!("{visitor}-{at}"), "event": "$pageview", "distinct_id": visitor,
                "timestamp": datetime(at).to_rfc3339(), "properties": properties})
            .to_string()
        });
        let body = lines.collect::<Vec<String>>().join("\n");
        let payload = json!({
            "version": "2.0", "rawPath": "/events", "headers": { "content-type": "application/x-ndjson" },
            "requestContext": { "http": { "method": "POST", "path": "/events" }, "timeEpoch": first + 1000 * all.len() as Millis },
            "body": body, "isBase64Encoded": false,
        });
        let answer: Value =
            serde_json::from_str(&ingest.handle(&payload.to_string(), Millis::MAX).await.unwrap()).unwrap();
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(answer["statusCode"], 200, "{visitor}: {}", body["error"]);
        assert_eq!(body["events"].as_array().unwrap().len(), events.len(), "{visitor}");
        session = body["events"][events.len() - 1]["properties"]["$session_id"].as_str().map(str::to_owned);
    }
    session.unwrap()
}

/// Returns visits: a name, and the properties of each event.
fn visits() -> Vec<(String, Vec<Value>)> {
    let page = |n: usize, length| json!({ "$current_url": format!("https://shop.test/{n}?{}", noise(1, length)) });
    let mut visits = Vec::new();
    for (count, length) in [(20, 1_900), (100, 1_900), (60, 700), (200, 700), (400, 300), (30, 20_000), (600, 8_000)] {
        visits.push((format!("{count}x{length}"), (0..count).map(|n| page(n, length)).collect()));
    }
    for (count, length) in [(12, 1_500), (20, 1_500), (60, 600)] {
        let campaign = |n| {
            json!({
                "utm_source": format!("s{n}"), "$current_url": format!("https://shop.test/{n}?{}", noise(1, length)),
                "$referrer": format!("https://blog.test/{n}?{}", noise(2, length)),
            })
        };
        visits.push((format!("{count} campaigns of {length}"), (0..count).map(campaign).collect()));
    }
    let source = |n| json!({ "utm_source": format!("{}{n:06}", noise(3, 60)) });
    visits.push(("1,000 sources".to_owned(), (0..1_000).map(source).collect()));
    visits
}

async fn long_visits<S: SessionStorage>(store: &S) {
    let mut sessions = Vec::new();
    for (name, events) in visits() {
        send(store, &name, NOON, &events).await;
        let next = NOON + 1000 * events.len() as Millis;
        sessions.push((name.clone(), send(store, &name, next, &[json!({})]).await));
    }
    // One page view a request, each in a process of its own.
    for (length, pages) in [(1_900, 25), (1_000, 40), (500, 80)] {
        let name = format!("{pages} requests of {length}");
        let mut last = String::new();
        for n in 0..pages {
            let page = json!({ "$current_url": format!("https://shop.test/{n}?{}", noise(1, length)) });
            last = send(store, &name, NOON + 4_000 * n, &[page]).await;
        }
        sessions.push((name, last));
    }
    let (clock, sink) = (ManualClock::default(), Sink::default());
    clock.set(NOON + 86_400_000);
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    for (name, id) in &sessions {
        let session = manager.get(id).await.unwrap();
        assert_eq!(session.distinct_id, *name);
        assert_eq!(manager.get_by_user(&Visitor::new(name)).await.unwrap().id, *id);
    }
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.examined, report.failed, report.is_incomplete), (sessions.len(), 0, false), "{report:?}");
    for (_, id) in &sessions {
        assert!(!manager.get(id).await.unwrap().is_active);
    }
}

#[tokio::test]
async fn long_visits_are_read_back_in_memory() {
    long_visits(&InMemorySessionStorage::new()).await;
}

#[tokio::test]
async fn long_visits_are_read_back_in_dynamodb() {
    long_visits(&DynamoDbSessionStorage::new(EmbeddedDynamoDb::start(0).unwrap().client(), TABLE)).await;
}
