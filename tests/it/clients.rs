//! Requests that were recorded from real tracking clients (`tests/data/clients`), through the real handler, with the answers,
//! events and sessions that have to result: `tests/data/clients.jsonl`.
//!
//! A run that finds something else prints the line that it would need.

mod cases;
mod hostile;
mod request;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use session_tracking::config::{GivenRules, Projects, SessionConfig};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::support::ManualClock;
use request::{Payload, Recorded, recordings};

/// A session: visitor, user, reason, events, page views, entry page, source of the campaign, referrer, and duration in seconds.
type Session = (String, Value, String, u64, u64, Value, Value, Value, u64);

/// What has to result from a client's requests.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    client: String,
    /// The status and body of each answer.
    answers: Vec<String>,
    /// The events that come out: name, visitor, user, the client's session, and the number of our session (0: none).
    events: Vec<(String, String, Value, Value, usize)>,
    /// How many events came out again because their requests were sent again.
    duplicates: usize,
    /// The codes of the rejected events.
    rejected: Vec<String>,
    sessions: Vec<Session>,
}

/// The ingest function, on a clock that is set to the time of each request.
pub struct World<'c> {
    pub ingest: Ingest<InMemorySessionStorage, &'c ManualClock, MemoryOutput>,
    clock: &'c ManualClock,
}

impl<'c> World<'c> {
    pub fn new(clock: &'c ManualClock) -> Self {
        Self::with(clock, SessionConfig::default())
    }

    pub fn with(clock: &'c ManualClock, projects: impl Into<Projects>) -> Self {
        let manager = SessionManager::with_clock(projects, InMemorySessionStorage::new(), clock);
        let ingest = Ingest {
            manager,
            output: MemoryOutput::default(),
            rejects: MemoryOutput::default(),
            origins: Default::default(),
            public: Default::default(),
        };
        Self { ingest, clock }
    }

    /// Sends a request in API Gateway's envelope, and returns the answer's envelope.
    pub async fn send(&self, request: &Recorded, payload: Payload, at: Millis) -> Value {
        self.clock.set(at);
        let answer = self.ingest.handle(&request.payload(payload, at), Millis::MAX).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Returns the lines that came out since the last call.
    pub fn lines(&self) -> Vec<Value> {
        self.ingest.output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Replays a client's requests and returns what results.
async fn replay(client: &str, payload: Payload) -> Expected {
    let clock = ManualClock::default();
    replay_in(&World::new(&clock), None, client, payload).await
}

/// Replays a client's requests, whose events must come out with this project.
async fn replay_in(world: &World<'_>, project: Option<&str>, client: &str, payload: Payload) -> Expected {
    let mut found = Expected {
        client: client.to_owned(),
        answers: Vec::new(),
        events: Vec::new(),
        duplicates: 0,
        rejected: Vec::new(),
        sessions: Vec::new(),
    };
    let mut now = clock_time();
    for request in recordings(client) {
        now = request.sent_at().unwrap_or(now);
        let answer = world.send(&request, payload, now).await;
        let is_image = answer["headers"]["content-type"] == "image/gif";
        let body = if is_image { "a pixel" } else { answer["body"].as_str().unwrap() };
        found.answers.push(format!("{} {body}", answer["statusCode"]));
    }
    let (mut numbers, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for event in world.lines() {
        let properties = &event["properties"];
        assert_eq!(event["project"].as_str(), project, "{event}");
        let id = event["uuid"].as_str().unwrap().to_owned();
        *seen.entry(id).or_insert(0) += 1;
        let next = numbers.len() + 1;
        let number = match properties["$no_session"].is_null().then(|| properties["$session_id"].as_str()).flatten() {
            Some(session) => *numbers.entry(session.to_owned()).or_insert(next),
            None => 0,
        };
        let string = |value: &Value| value.as_str().unwrap().to_owned();
        found.events.push((
            string(&event["event"]),
            string(&event["distinct_id"]),
            properties["$user_id"].clone(),
            properties["$client_session_id"].clone(),
            number,
        ));
    }
    found.duplicates = seen.values().map(|count| count - 1).sum();
    let rejects = world.ingest.rejects.take();
    let code = |line: &String| serde_json::from_str::<Value>(line).unwrap()["code"].as_str().unwrap().to_owned();
    found.rejected = rejects.iter().map(code).collect();
    found.sessions = sessions(world, now).await;
    found
}

/// Closes all sessions and returns them.
async fn sessions(world: &World<'_>, now: Millis) -> Vec<Session> {
    world.clock.set(now + 48 * 3_600_000);
    world.ingest.manager.cleanup(&world.ingest.output, Millis::MAX).await;
    let mut sessions = Vec::new();
    for end in world.lines() {
        let session = &end["properties"]["$session"];
        let string = |name: &str| session[name].as_str().unwrap().to_owned();
        let start = string("started_at");
        sessions.push((
            start,
            (
                string("distinct_id"),
                session["user_id"].clone(),
                string("reason"),
                session["event_count"].as_u64().unwrap(),
                session["page_views"].as_u64().unwrap(),
                session["entry_url"].clone(),
                session["utm"]["source"].clone(),
                session["referrer"].clone(),
                end["properties"]["$session_duration"].as_u64().unwrap(),
            ),
        ));
    }
    sessions.sort_by_key(|(start, session)| (start.clone(), session.0.clone()));
    sessions.into_iter().map(|(_, session)| session).collect()
}

fn expected() -> Vec<Expected> {
    include_str!("../data/clients.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn recorded_clients_get_what_they_need_and_make_the_sessions_that_a_person_would_see() {
    let expected = expected();
    let clients: Vec<&str> = expected.iter().map(|expected| expected.client.as_str()).collect();
    assert_eq!(clients, request::CLIENTS);
    let mut other = Vec::new();
    for wanted in &expected {
        let found = replay(&wanted.client, Payload::Two).await;
        if found != *wanted {
            other.push(serde_json::to_string(&found).unwrap());
        }
    }
    assert!(other.is_empty(), "other results:\n{}\n", other.join("\n"));
}

/// A REST API hands over the same requests in another envelope.
#[tokio::test]
async fn the_envelope_changes_nothing() {
    for wanted in expected().iter().filter(|expected| !expected.client.starts_with("segment-")) {
        assert_eq!(replay(&wanted.client, Payload::One).await, *wanted);
    }
}

/// The key that each client was recorded with names the project, and changes nothing else. Without it, no event is applied.
#[tokio::test]
async fn a_clients_key_names_its_project() {
    let keys = json!({
        "amplitude": {"keys": ["amp-key-test"]},
        "matomo": {"keys": ["1"]},
        "mixpanel": {"keys": ["mp-token-test"]},
        "posthog": {"keys": ["phc_test"]},
        "rudderstack": {"keys": ["write-key-test"]},
        "snowplow": {"keys": ["shop"]},
    });
    let projects = |json: &Value| Projects::from_json(&GivenRules::default(), &json.to_string()).unwrap();
    for client in request::CLIENTS {
        let wanted = replay(client, Payload::Two).await;
        let name = client.split('-').next().unwrap();
        let mut own = keys.clone();
        if name == "segment" {
            own["segment"] = own["rudderstack"].take();
            own.as_object_mut().unwrap().remove("rudderstack");
        }
        let clock = ManualClock::default();
        let found = replay_in(&World::with(&clock, projects(&own)), Some(name), client, Payload::Two).await;
        assert_eq!(found, wanted);
        own.as_object_mut().unwrap().remove(name);
        let found = replay_in(&World::with(&clock, projects(&own)), None, client, Payload::Two).await;
        assert!(found.events.is_empty() && found.sessions.is_empty() && found.rejected.is_empty(), "{found:?}");
        let refused = found.answers.iter().filter(|answer| answer.starts_with("401 ")).count();
        let answered = found.answers.iter().zip(&wanted.answers).filter(|(found, wanted)| found == wanted).count();
        assert!(refused > 0 && refused + answered == found.answers.len(), "{found:?}");
    }
}

/// Every request comes a second time, as after an answer that was lost.
#[tokio::test]
async fn requests_that_are_sent_again_change_no_session() {
    for wanted in expected() {
        // Matomo's requests have no ids. Equal ones cannot be told from requests that are sent again.
        if wanted.client == "matomo-node" {
            continue;
        }
        let clock = ManualClock::default();
        let world = World::new(&clock);
        let mut now = clock_time();
        for request in recordings(&wanted.client) {
            now = request.sent_at().unwrap_or(now);
            for _ in 0..2 {
                world.send(&request, Payload::Two, now).await;
            }
        }
        world.lines();
        assert_eq!(sessions(&world, now).await, wanted.sessions, "{}", wanted.client);
    }
}

/// A page must get the permission that it asks for, by a preflight and with the answer.
#[tokio::test]
async fn pages_may_send_what_their_clients_send() {
    let clock = ManualClock::default();
    let world = World::new(&clock);
    let mut preflights = 0;
    for request in request::CLIENTS.iter().flat_map(|client| recordings(client)) {
        let Some(origin) = request.headers.get("origin") else { continue };
        let answer = world.send(&request, Payload::Two, request.sent_at().unwrap_or(clock_time())).await;
        let headers = &answer["headers"];
        let allowed = headers["access-control-allow-origin"].as_str().unwrap();
        let has_credentials = headers["access-control-allow-credentials"] == "true";
        assert!(allowed == origin || (allowed == "*" && !has_credentials), "{headers}");
        if request.method != "OPTIONS" {
            assert_eq!(headers["access-control-expose-headers"], "retry-after");
            continue;
        }
        preflights += 1;
        assert_eq!(answer["statusCode"], 204);
        let list = |name: &str| {
            let list = headers[name].as_str().unwrap().split(',');
            list.map(|entry| entry.trim().to_ascii_lowercase()).collect::<Vec<_>>()
        };
        let methods = list("access-control-allow-methods");
        assert!(methods.contains(&request.headers["access-control-request-method"].to_ascii_lowercase()));
        let names = list("access-control-allow-headers");
        for name in request.headers["access-control-request-headers"].split(',') {
            assert!(names.contains(&name.trim().to_ascii_lowercase()), "{name}");
        }
    }
    assert!(preflights >= 8, "{preflights}");
}

/// 2026-11-26T10:30:00Z, when the recordings begin.
fn clock_time() -> Millis {
    1_795_689_000_000
}

/// Clients read fields of the answers; a few are checked by name, because a changed answer loses events.
#[tokio::test]
async fn answers_have_what_the_clients_read() {
    let clock = ManualClock::default();
    let world = World::new(&clock);
    let get = |method: &str, path: &str, query: &str, body: &str| Recorded::new(method, path, query, body);
    for (request, pointer, wanted) in [
        (get("GET", "/array/phc/config", "", ""), "/hasFeatureFlags", json!(false)),
        (get("POST", "/flags/", "v=2", "{}"), "/featureFlags", json!({})),
        (get("POST", "/decide/", "v=3", "data=e30%3D"), "/flags", json!({})),
        (get("GET", "/v1/projects/key/settings", "", ""), "/integrations/Segment.io/apiKey", json!("key")),
        (get("GET", "/sourceConfig/", "writeKey=key", ""), "/source/writeKey", json!("key")),
        (get("GET", "/prod//sourceConfig", "writeKey=key", ""), "/source/enabled", json!(true)),
        (get("POST", "/batch/", "", r#"{"api_key":"k","batch":[]}"#), "/status", json!(1)),
        (get("POST", "/batch", "", r#"{"api_key":"k","events":[]}"#), "/code", json!(200)),
        (get("POST", "/i/v1/analytics/events", "", r#"{"batch":[]}"#), "/results", json!({})),
        (get("POST", "/v1/batch", "", "nonsense"), "/success", json!(true)),
        (get("POST", "/track", "", "data=%5B%5D&verbose=1"), "/status", json!(1)),
        (get("POST", "/track", "", "data=%5B%5D"), "", json!(1)),
        (get("POST", "/engage", "verbose=1", "data=%7B%7D"), "/error", json!("")),
        (get("POST", "/matomo.php", "", r#"{"requests":["?idsite=1&rec=1"]}"#), "/invalid", json!(1)),
    ] {
        let answer = world.send(&request, Payload::Two, clock_time()).await;
        assert_eq!(answer["statusCode"], 200, "{request:?}: {answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(body.pointer(pointer), Some(&wanted), "{request:?}: {body}");
    }
    let silent = get("GET", "/matomo.php", "idsite=1&rec=1&_id=0123456789abcdef&url=x&send_image=0", "");
    assert_eq!(world.send(&silent, Payload::Two, clock_time()).await["statusCode"], 204);
}
