//! Session replay: recorded events through the function's own handler, into a store in memory, a folder or a server that speaks S3,
//! and back.

mod arrive;
mod bounds;
mod hostile;
mod posthog;
mod read;
mod s3;

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use session_tracking::config::{AllowedOrigins, Projects, PublicAccess, SessionConfig};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::replay::{Inputs, ReplayStore};
use session_tracking::session::Millis;
use session_tracking::{InMemorySessionStorage, Ingest};

use crate::support::ManualClock;

/// 2026-03-10T12:00:00Z.
const T0: Millis = 1_773_144_000_000;
const MINUTE: Millis = 60_000;

type Manager = SessionManager<Arc<InMemorySessionStorage>, &'static ManualClock>;
type Function = Ingest<Arc<InMemorySessionStorage>, &'static ManualClock, MemoryOutput>;

/// A function with a clock and a store of its own.
struct World {
    clock: &'static ManualClock,
    storage: Arc<InMemorySessionStorage>,
    function: Function,
}

impl World {
    fn new() -> Self {
        Self::with(SessionConfig::default(), ReplayStore::in_memory(Inputs::Mask))
    }

    fn with(rules: impl Into<Projects>, replay: ReplayStore) -> Self {
        Self::managed(rules, replay, |manager| manager)
    }

    /// Returns a world whose manager has other settings.
    fn managed(rules: impl Into<Projects>, replay: ReplayStore, settings: impl FnOnce(Manager) -> Manager) -> Self {
        let clock: &'static ManualClock = Box::leak(Box::default());
        clock.set(T0);
        let storage = Arc::new(InMemorySessionStorage::new());
        let manager = settings(SessionManager::with_clock(rules, Arc::clone(&storage), clock).with_replay(replay));
        let function = Ingest {
            manager,
            output: MemoryOutput::default(),
            rejects: MemoryOutput::default(),
            origins: AllowedOrigins::default(),
            public: PublicAccess::default(),
        };
        Self { clock, storage, function }
    }

    async fn handle(&self, payload: &Value) -> Value {
        let answer = self.function.handle(&payload.to_string(), Millis::MAX).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Sends a request without credentials. Returns its status and its body.
    async fn post(&self, path: &str, body: &str) -> (u64, Value) {
        answered(&self.handle(&request("POST", path, "", body, false)).await)
    }

    /// Sends events to `POST /events` and returns the answer's body.
    async fn send(&self, events: Value) -> Value {
        let (status, body) = self.post("/events", &json!({ "events": events }).to_string()).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Sends a page view and returns its session.
    async fn view(&self, visitor: &str, at: Millis, url: &str) -> String {
        let event = json!({"uuid": format!("{visitor}-{at}"), "event": "$pageview", "distinct_id": visitor, "timestamp": at,
            "properties": {"$current_url": url}});
        let answer = self.send(json!([event])).await;
        answer["events"][0]["properties"]["$session_id"].as_str().unwrap().to_owned()
    }

    /// Sends recorded events, and returns the session that the answer names.
    async fn record(&self, visitor: &str, recorded: &[Value]) -> Option<String> {
        let answer = self.send(json!([replay_event(visitor, recorded)])).await;
        assert_eq!(answer["rejected"], json!([]), "{answer}");
        answer["events"][0]["properties"]["$session_id"].as_str().map(str::to_owned)
    }

    /// Reads a page of a replay.
    async fn page(&self, session: &str, query: &str) -> (u64, Value) {
        let path = format!("/v1/sessions/{session}/replay");
        answered(&self.handle(&request("GET", &path, query, "", true)).await)
    }

    /// Reads a whole replay, in pages of `limit` events. Returns the recorder's events.
    async fn replay_in(&self, session: &str, limit: usize) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), String::new());
        for _ in 0..10_000 {
            let (status, page) = self.page(session, &format!("limit={limit}&after={after}")).await;
            assert_eq!(status, 200, "{page}");
            let found = page["events"].as_array().unwrap();
            assert!(found.len() <= limit);
            events.extend(found.iter().map(|event| event["data"].clone()));
            match page["after"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return events,
            }
        }
        panic!("the pages do not end");
    }

    async fn replay(&self, session: &str) -> Vec<Value> {
        self.replay_in(session, 1_000).await
    }
}

fn answered(answer: &Value) -> (u64, Value) {
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap_or(Value::Null);
    (answer["statusCode"].as_u64().unwrap(), body)
}

fn request(method: &str, path: &str, query: &str, body: &str, is_signed: bool) -> Value {
    let route = if is_signed { format!("{method} {path}") } else { "ANY /{proxy+}".to_owned() };
    json!({
        "version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": query, "body": body,
        "requestContext": {"http": {"method": method}, "requestId": "r", "authorizer": if is_signed { json!({"iam": {}}) } else { Value::Null }},
    })
}

fn replay_event(visitor: &str, recorded: &[Value]) -> Value {
    json!({"event": "$replay", "distinct_id": visitor, "properties": {"$replay_events": recorded}})
}

/// rrweb's event with the page's address.
fn meta(at: Millis) -> Value {
    json!({"type": 4, "timestamp": at, "data": {"href": "https://shop.test/", "width": 800, "height": 600}})
}

/// rrweb's event with the whole page, which has an input with this value.
fn full(at: Millis, value: &str) -> Value {
    let input = json!({"type": 2, "id": 3, "tagName": "input", "attributes": {"value": value}, "childNodes": []});
    json!({"type": 2, "timestamp": at, "data": {"node": {"type": 0, "id": 1, "childNodes": [input]}}})
}

/// rrweb's event of a change.
fn change(at: Millis, text: &str) -> Value {
    json!({"type": 3, "timestamp": at, "data": {"source": 0, "texts": [{"id": 9, "value": text}]}})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
