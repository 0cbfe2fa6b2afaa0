//! A consumer of the output, by the rules of `docs/output.md`: lines come in any order and more than once.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use session_tracking::session::{Millis, datetime, rfc3339};

use crate::oracle::OracleSession;
use crate::support::{FinalSession, millis};

/// The events and sessions that a consumer has.
pub struct Consumer {
    /// The copy of each event with the highest version, by uuid.
    pub events: HashMap<String, EventCopy>,
    /// The end of each session with the highest version, by visitor and id. (Two visitors may share an id.)
    pub ends: BTreeMap<(String, String), Value>,
}

/// An event as a consumer keeps it.
pub struct EventCopy {
    /// Its visitor and the id of its session.
    session: (String, String),
    version: u64,
    at: Millis,
    is_late: bool,
}

impl EventCopy {
    /// Returns the id of the event's session.
    pub fn session(&self) -> &str {
        &self.session.1
    }
}

impl Consumer {
    /// Reads all lines, then applies the corrections.
    pub fn read(lines: &[Value]) -> Self {
        let mut consumer = Self { events: HashMap::new(), ends: BTreeMap::new() };
        let mut corrections: BTreeMap<(String, u64), &Value> = BTreeMap::new();
        let mut ends: HashMap<&str, &Value> = HashMap::new();
        for line in lines {
            let properties = &line["properties"];
            let version = properties["$session_version"].as_u64().unwrap();
            match line["event"].as_str().unwrap() {
                "$session_end" => {
                    consumer.end(line, version);
                    let uuid = line["uuid"].as_str().unwrap();
                    assert_eq!(*ends.entry(uuid).or_insert(line), line, "one uuid has two contents");
                }
                "$session_merged" | "$session_split" => {
                    corrections.insert((string(line, "distinct_id"), version), line);
                }
                _ => consumer.event(line, version),
            }
        }
        for line in corrections.into_values() {
            consumer.apply_correction(line);
        }
        consumer
    }

    fn end(&mut self, line: &Value, version: u64) {
        let properties = &line["properties"];
        let session = (string(line, "distinct_id"), string(properties, "$session_id"));
        let known = self.ends.entry(session).or_insert_with(|| properties.clone());
        let before = known["$session_version"].as_u64().unwrap();
        if version > before {
            *known = properties.clone();
        } else if version == before {
            assert_eq!(known, properties, "one version has two contents");
        }
    }

    fn event(&mut self, line: &Value, version: u64) {
        let properties = &line["properties"];
        let at = properties["$event_time"].as_str().or(line["timestamp"].as_str()).unwrap();
        let copy = EventCopy {
            session: (string(line, "distinct_id"), string(properties, "$session_id")),
            version,
            at: millis(at),
            is_late: properties["$late"] == true,
        };
        let uuid = string(line, "uuid");
        if self.events.get(&uuid).is_none_or(|known| known.version < version) {
            self.events.insert(uuid, copy);
        }
    }

    fn apply_correction(&mut self, line: &Value) {
        let properties = &line["properties"];
        let version = properties["$session_version"].as_u64().unwrap();
        let of_visitor = |id| (string(line, "distinct_id"), string(properties, id));
        let (from, into) = (of_visitor("from"), of_visitor("into"));
        let first_moved = properties["at"].as_str().map(|at| (millis(at), string(properties, "from_event")));
        // The end of a session that was emitted before the session was merged no longer counts.
        if first_moved.is_none()
            && self.ends.get(&from).is_some_and(|end| end["$session_version"].as_u64() < Some(version))
        {
            self.ends.remove(&from);
        }
        for (uuid, copy) in &mut self.events {
            // A late event stays in the session that counted it when that session is split.
            let moves =
                |first_moved: &(Millis, String)| !copy.is_late && (copy.at, uuid) >= (first_moved.0, &first_moved.1);
            if copy.session == from && copy.version < version && first_moved.as_ref().is_none_or(moves) {
                copy.session.clone_from(&into);
            }
        }
    }

    /// Checks why sessions ended by why the next ones began.
    pub fn check_end_reasons(&self) {
        let mut by_number: BTreeMap<(&str, &str, u64), &Value> = BTreeMap::new();
        for ((visitor, _), end) in &self.ends {
            let project = end["$session"]["project"].as_str().unwrap_or_default();
            by_number.insert((project, visitor, end["$session_number"].as_u64().unwrap()), end);
        }
        for (&(project, visitor, number), end) in &by_number {
            let next = by_number.get(&(project, visitor, number + 1));
            let next = next.map(|next| next["$session_start_reason"].as_str().unwrap());
            assert!(is_end_reason(end["$session_end_reason"].as_str().unwrap(), next), "{end}, then {next:?}");
        }
    }

    /// Returns the final sessions, sorted by visitor and start.
    pub fn sessions(&self) -> Vec<FinalSession> {
        let mut events: HashMap<&(String, String), Vec<(Millis, &str)>> = HashMap::new();
        for (uuid, copy) in &self.events {
            events.entry(&copy.session).or_default().push((copy.at, uuid));
        }
        let mut sessions = Vec::new();
        for (id, properties) in &self.ends {
            let mut uuids = events.remove(id).unwrap_or_default();
            uuids.sort_unstable();
            let mut session = properties["$session"].clone();
            session["duration_seconds"] = properties["$session_duration"].clone();
            session["events"] = uuids.into_iter().map(|(_, uuid)| uuid).collect();
            let number = session["number"].as_u64();
            sessions.push((number, serde_json::from_value::<FinalSession>(session).unwrap()));
        }
        assert!(events.is_empty(), "events of sessions whose end was never emitted: {events:?}");
        let key = |(number, session): &(Option<u64>, FinalSession)| {
            (session.distinct_id.clone(), session.started_at.clone(), *number)
        };
        sessions.sort_by_key(key);
        sessions.into_iter().map(|(_, session)| session).collect()
    }
}

/// Returns whether a session can have ended for this reason, if the next session began for that one. A source and a request end the
/// session before; of the other rules, the first one that held need not be the one that the next event met.
pub fn is_end_reason(end: &str, next: Option<&str>) -> bool {
    let is_of_time = ["timeout", "max_duration", "midnight", "max_events"].contains(&end);
    match next {
        Some("timeout" | "max_duration" | "midnight") => is_of_time,
        Some(next) => end == next,
        None => is_of_time || end == "explicit",
    }
}

fn string(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

impl From<OracleSession<'_>> for FinalSession {
    fn from(session: OracleSession<'_>) -> Self {
        let time = |at| rfc3339(datetime(at));
        let owned = |value: Option<&str>| value.map(str::to_owned);
        Self {
            distinct_id: session.visitor.to_owned(),
            reason: session.reason.to_owned(),
            started_at: time(session.started_at),
            last_activity: time(session.last_activity),
            duration_seconds: (session.last_activity - session.started_at) / 1000,
            event_count: session.event_count.into(),
            page_views: session.page_views.into(),
            entry_url: owned(session.entry_url),
            landing_page: owned(session.landing_page),
            exit_page: owned(session.exit_page),
            referrer: owned(session.referrer),
            utm: session.utm.map(|utm| serde_json::to_value(utm).unwrap()),
            events: session.events.into_iter().map(str::to_owned).collect(),
        }
    }
}
