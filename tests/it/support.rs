//! What the tests share: a clock that is set by hand, an output that keeps its lines, and a pump that feeds events through the
//! real manager and returns the final sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::event::{Delivery, Event, Role};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::Kind;
use session_tracking::output::Output;
use session_tracking::session::Millis;
use session_tracking::storage::SessionStorage;

pub use crate::seeded::Seeded;

/// A clock that stands still until it is set. Sleeping takes no time.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    drawn: AtomicU64,
}

impl ManualClock {
    pub fn set(&self, now: Millis) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl Clock for &ManualClock {
    fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    async fn sleep(&self, _time: Duration) {
        tokio::task::yield_now().await;
    }

    fn random(&self) -> u64 {
        // A Weyl sequence: every draw is different.
        self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// An output that keeps the lines that are sent to it.
#[derive(Debug, Default)]
pub struct Sink(pub std::sync::Mutex<Vec<String>>);

impl Output for &Sink {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        self.0.lock().unwrap().extend_from_slice(lines);
        Vec::new()
    }
}

/// A final session, with the fields of the data files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FinalSession {
    pub distinct_id: String,
    pub reason: String,
    pub started_at: String,
    pub last_activity: String,
    pub duration_seconds: i64,
    pub event_count: u64,
    pub page_views: u64,
    pub entry_url: Option<String>,
    pub landing_page: Option<String>,
    pub exit_page: Option<String>,
    pub referrer: Option<String>,
    pub utm: Option<Value>,
    pub events: Vec<String>,
}

/// Returns an RFC 3339 time in milliseconds since the epoch.
pub fn millis(time: &str) -> Millis {
    chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis()
}

/// Feeds events through a manager as a pipeline would, and keeps what a consumer of the output would keep.
pub struct Pump<'a, S> {
    pub manager: SessionManager<S, &'a ManualClock>,
    pub clock: &'a ManualClock,
    pub sink: &'a Sink,
    /// Each event's session id and event time, by uuid.
    assigned: HashMap<String, (String, Millis)>,
    /// How many lines of the sink were read.
    read: usize,
    /// The newest version of each session's end, by session id.
    ended: BTreeMap<String, Value>,
    /// The newest time of receipt.
    newest: Millis,
}

impl<'a, S: SessionStorage> Pump<'a, S> {
    pub fn new(manager: SessionManager<S, &'a ManualClock>, clock: &'a ManualClock, sink: &'a Sink) -> Self {
        let (assigned, ended) = (HashMap::new(), BTreeMap::new());
        Self { manager, clock, sink, assigned, read: 0, ended, newest: 0 }
    }

    /// Applies a batch of events, each as JSON. Sets the clock to the newest `received_at`.
    pub async fn apply(&mut self, batch: &[&str]) {
        let received = |json: &&str| {
            let value: Value = serde_json::from_str(json).unwrap();
            millis(value.get("received_at").unwrap_or(&value["timestamp"]).as_str().unwrap())
        };
        self.newest = batch.iter().map(received).max().unwrap_or(self.newest).max(self.newest);
        self.clock.set(self.newest);
        let delivery = Delivery { received_at: self.newest, trusts_received_at: true };
        let events: Vec<Event<'_>> =
            batch.iter().map(|json| Event::parse(json.as_bytes(), delivery, self.manager.config()).unwrap()).collect();
        let outcomes = self.manager.resolve(&events, Millis::MAX).await;
        for (event, outcome) in events.iter().zip(outcomes) {
            let Outcome::Placed(assignment) = outcome else { panic!("{outcome:?}") };
            // Passive and keep-alive events carry the session of their time, but do not belong to it.
            let counts = !matches!(event.role, Role::Passive | Role::Activity(Kind::KeepAlive));
            if let Some(assignment) = assignment.filter(|_| counts) {
                self.assigned.insert(event.uuid.to_string(), (assignment.session_id.to_string(), event.at));
            }
        }
    }

    /// Applies a batch, then runs the closer if the clock has passed a multiple of ten minutes.
    pub async fn apply_and_close(&mut self, batch: &[&str]) {
        let before = self.newest;
        self.apply(batch).await;
        if self.newest / 600_000 > before / 600_000 {
            self.close(self.newest).await;
        }
    }

    /// Runs the closer at `now` and follows the lines that it emits.
    pub async fn close(&mut self, now: Millis) {
        self.clock.set(now);
        let report = self.manager.cleanup(&self.sink, Millis::MAX).await;
        assert_eq!(report.failed, 0, "{report:?}");
        let lines: Vec<String> = self.sink.0.lock().unwrap()[self.read..].to_vec();
        self.read += lines.len();
        for line in lines {
            let emitted: Value = serde_json::from_str(&line).unwrap();
            let properties = &emitted["properties"];
            let string = |name: &str| properties[name].as_str().unwrap().to_owned();
            match emitted["event"].as_str().unwrap() {
                "$session_end" => {
                    let version = |value: &Value| value["$session_version"].as_u64().unwrap();
                    let known = self.ended.entry(string("$session_id")).or_insert_with(|| properties.clone());
                    if version(properties) >= version(known) {
                        *known = properties.clone();
                    }
                }
                "$session_merged" => {
                    let (from, into) = (string("from"), string("into"));
                    for (session, _) in self.assigned.values_mut().filter(|(session, _)| *session == from) {
                        session.clone_from(&into);
                    }
                }
                "$session_split" => {
                    let (from, into, at, first) =
                        (string("from"), string("into"), millis(&string("at")), string("from_event"));
                    for (uuid, (session, time)) in &mut self.assigned {
                        if *session == from && (*time, uuid.as_str()) >= (at, first.as_str()) {
                            session.clone_from(&into);
                        }
                    }
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Closes everything. Returns the final sessions, sorted by visitor and start.
    pub async fn finish(mut self) -> Vec<FinalSession> {
        let config = self.manager.config();
        let wait = config.timeout + config.lateness + chrono::TimeDelta::days(2);
        let end = self.newest + wait.num_milliseconds();
        self.close(end).await;
        self.close(end + wait.num_milliseconds()).await;
        let mut events: HashMap<String, Vec<(Millis, String)>> = HashMap::new();
        for (uuid, (session, at)) in self.assigned {
            events.entry(session).or_default().push((at, uuid));
        }
        let mut sessions = Vec::new();
        for (id, properties) in self.ended {
            let mut uuids = events.remove(&id).unwrap_or_default();
            uuids.sort();
            let mut session = properties["$session"].clone();
            session["duration_seconds"] = properties["$session_duration"].clone();
            session["events"] = uuids.into_iter().map(|(_, uuid)| uuid).collect();
            let number = session["number"].as_u64();
            sessions.push((number, serde_json::from_value::<FinalSession>(session).unwrap()));
        }
        assert!(events.is_empty(), "events of sessions whose end was never emitted: {events:?}");
        // Sessions that begin in the same millisecond are sorted by their numbers.
        sessions.sort_by_key(|(number, s)| (s.distinct_id.clone(), s.started_at.clone(), *number));
        sessions.into_iter().map(|(_, session)| session).collect()
    }
}
