//! A service with an empty store, and a consumer that keeps what the service emits.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::support::{ManualClock, millis};

/// 2026-03-10T12:00:00Z.
const NOON: Millis = 1_773_144_000_000;
const MINUTE: Millis = 60_000;

pub struct World {
    config: SessionConfig,
    storage: InMemorySessionStorage,
    clock: ManualClock,
    closed_at: Millis,
    /// Each event's session, time and uuid, in the order of arrival.
    assigned: Vec<Assigned>,
    /// The last version of each session's end.
    ended: BTreeMap<String, Value>,
    flags: serde_json::Map<String, Value>,
    rejected: Vec<Value>,
    late: usize,
}

struct Assigned {
    session: String,
    at: Millis,
    uuid: String,
}

impl World {
    pub fn new(config: &SessionConfig) -> Self {
        let clock = ManualClock::default();
        clock.set(NOON);
        Self {
            config: config.clone(),
            storage: InMemorySessionStorage::new(),
            clock,
            closed_at: 0,
            assigned: Vec::new(),
            ended: BTreeMap::new(),
            flags: serde_json::Map::new(),
            rejected: Vec::new(),
            late: 0,
        }
    }

    fn ingest(&self) -> Ingest<&InMemorySessionStorage, &ManualClock, MemoryOutput> {
        let manager = SessionManager::with_clock(self.config.clone(), &self.storage, &self.clock);
        Ingest {
            manager,
            output: MemoryOutput::default(),
            rejects: MemoryOutput::default(),
            origins: Default::default(),
            public: Default::default(),
        }
    }

    /// Hands over payloads one after the other. Returns the result of each.
    pub async fn payloads(&mut self, input: &[Value]) -> Value {
        let mut found = Vec::new();
        for step in input {
            found.push(match step.as_str() {
                Some(payload) => self.payload(payload).await,
                None => {
                    let lines = self.close(millis(step["now"].as_str().unwrap())).await;
                    let emitted = lines.iter().map(Value::to_string).collect::<String>();
                    assert!(step["close"] == true);
                    let is_clean = !emitted.contains("\\u0000");
                    json!({"close_lines": if is_clean { json!(lines.len()) } else { json!("a NUL") }})
                }
            });
        }
        found.into()
    }

    async fn payload(&self, payload: &str) -> Value {
        let ingest = self.ingest();
        let raw_answer;
        let answer = match ingest.handle(payload, NOON + 60_000).await {
            // `1E400` does not fit in a number. It does not matter here: `bytes` below compares the answer as it is.
            Ok(answer) => {
                raw_answer = answer;
                serde_json::from_str::<Value>(&raw_answer.replace("1E400", "0")).unwrap()
            }
            Err(error) => return json!({"invocation_fails": error.to_string()}),
        };
        let events = |answer: &Value| answer["events"].as_array().cloned().unwrap_or_default();
        let ids = |answer: &Value| events(answer).iter().map(|event| event["uuid"].clone()).collect::<Value>();
        if let Some(elements) = answer.as_array() {
            return json!({"array": elements.iter().map(|one| json!({"events": ids(one)})).collect::<Value>()});
        }
        if let Some(failures) = answer.get("batchItemFailures") {
            let codes = ingest
                .rejects
                .take()
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["code"].clone())
                .collect::<Value>();
            return json!({"again": failures, "rejects": codes, "output": ingest.output.take().len()});
        }
        let body = answer["body"].as_str().map(|body| serde_json::from_str(body).unwrap());
        let body = body.unwrap_or_else(|| answer.clone());
        let rejected = body["rejected"].as_array().cloned().unwrap_or_default();
        let mut found = json!({
            "status": answer["statusCode"],
            "error": body["error"]["code"],
            "applied": ids(&body),
            "properties": events(&body).iter().map(|event| (event["uuid"].as_str().unwrap().to_owned(), event["properties"].clone())).collect::<Value>(),
            "event_time": events(&body).first().map(|event| event["properties"]["$event_time"].clone()),
            "session": events(&body).first().map(|event| event["properties"]["$session_id"].clone()),
        });
        if !rejected.is_empty() {
            found["rejected"] = rejected.iter().map(|one| json!([one["index"], one["code"]])).collect();
        }
        // If there is one event, all its bytes before the added properties are unchanged.
        if payload.rsplit_once("}}").is_some_and(|(own, _)| raw_answer.contains(own)) {
            found["bytes"] = "as they came".into();
        }
        found
    }

    /// Sends events in order, in requests of `batch` events, and closes everything. Returns the final sessions.
    pub async fn events(&mut self, input: &[Value], batch: usize) -> Value {
        let received = |event: &Value| millis(event["received_at"].as_str().unwrap());
        self.clock.set(input.iter().map(received).min().unwrap());
        for batch in input.chunks(batch) {
            let first = received(&batch[0]);
            if first - self.closed_at >= MINUTE {
                self.close(first).await;
            }
            let now = batch.iter().map(received).max().unwrap();
            self.clock.set(now.max(session_tracking::clock::Clock::now(&&self.clock)));
            self.request(batch).await;
        }
        let end = session_tracking::clock::Clock::now(&&self.clock);
        let wait = (self.config.timeout + self.config.lateness).num_milliseconds() + 2 * 86_400_000;
        for days in [1, 2, 3] {
            self.close(end + days * wait).await;
        }
        self.result()
    }

    async fn request(&mut self, batch: &[Value]) {
        let payload = json!({ "events": batch }).to_string();
        let answer = self.ingest().handle(&payload, Millis::MAX).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["failed"].is_null(), "{answer}");
        let rejected = answer["rejected"].as_array().unwrap().iter().map(|one| one["code"].clone());
        self.rejected.extend(rejected);
        for event in answer["events"].as_array().unwrap() {
            let properties = &event["properties"];
            let uuid = event["uuid"].as_str().unwrap().to_owned();
            self.flags.insert(uuid.clone(), properties["$time_flag"].clone());
            self.late += usize::from(properties["$late"] == true);
            let time = properties.get("$event_time").unwrap_or(&event["timestamp"]);
            // Passive and keep-alive events carry the session of their time, but do not belong to it.
            let mut not_counted = self.config.passive_events.iter().chain(&self.config.keep_alive_events);
            if not_counted.any(|name| event["event"] == **name) {
                continue;
            }
            let Some(session) = properties["$session_id"].as_str().map(str::to_owned) else { continue };
            self.assigned.push(Assigned { session, at: millis(time.as_str().unwrap()), uuid });
        }
    }

    /// Runs the closer and follows the lines that it emits.
    async fn close(&mut self, now: Millis) -> Vec<Value> {
        self.clock.set(now);
        self.closed_at = now;
        let output = MemoryOutput::default();
        let report = self.ingest().manager.cleanup(&output, Millis::MAX).await;
        assert_eq!(report.failed, 0, "{report:?}");
        let lines: Vec<Value> = output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().for_each(|line| self.follow(line));
        lines
    }

    /// Follows an emitted line as a consumer does.
    fn follow(&mut self, line: &Value) {
        let properties = &line["properties"];
        let string = |name: &str| properties[name].as_str().unwrap().to_owned();
        match line["event"].as_str().unwrap() {
            "$session_end" => {
                let version = |value: &Value| value["$session_version"].as_u64().unwrap();
                let known = self.ended.entry(string("$session_id")).or_insert_with(|| properties.clone());
                if version(properties) >= version(known) {
                    *known = properties.clone();
                }
            }
            "$session_merged" => {
                let (from, into) = (string("from"), string("into"));
                self.ended.remove(&from);
                self.assigned
                    .iter_mut()
                    .filter(|one| one.session == from)
                    .for_each(|one| one.session.clone_from(&into));
            }
            "$session_split" => {
                let (from, into, at, first) =
                    (string("from"), string("into"), millis(&string("at")), string("from_event"));
                let moved = |one: &&mut Assigned| one.session == from && (one.at, &*one.uuid) >= (at, &*first);
                self.assigned.iter_mut().filter(moved).for_each(|one| one.session.clone_from(&into));
            }
            other => panic!("{other}"),
        }
    }

    /// Returns the final sessions, sorted by visitor and start, with the member names of the reports.
    fn result(&self) -> Value {
        let mut sessions: Vec<(String, String, u64, Value)> = Vec::new();
        for (id, properties) in &self.ended {
            let session = &properties["$session"];
            let mut events: Vec<(Millis, &str)> =
                self.assigned.iter().filter(|one| one.session == *id).map(|one| (one.at, one.uuid.as_str())).collect();
            events.sort_unstable();
            events.dedup();
            let string = |name: &str| session[name].as_str().unwrap().to_owned();
            let found = json!({
                "visitor": session["distinct_id"],
                "reason": session["reason"],
                "start": session["started_at"],
                "duration": properties["$session_duration"],
                "events": events.iter().map(|(_, uuid)| *uuid).collect::<Value>(),
                "event_count": session["event_count"],
                "page_views": session["page_views"],
                "referrer": session["referrer"],
                "utm": session["utm"],
                "entry_url": session["entry_url"],
                "exit_page": session["exit_page"],
            });
            sessions.push((string("distinct_id"), string("started_at"), session["number"].as_u64().unwrap(), found));
        }
        sessions.sort_by(|one, other| (&one.0, &one.1, one.2).cmp(&(&other.0, &other.1, other.2)));
        let sessions: Value = sessions.into_iter().map(|(.., found)| found).collect();
        json!({"sessions": sessions, "flags": self.flags, "rejected": self.rejected, "late": self.late})
    }
}
