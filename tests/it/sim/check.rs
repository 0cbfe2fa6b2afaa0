//! What must hold in a simulated world: after every step, at every acknowledgement, and at rest.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::FutureExt;
use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::rules::Tally;
use session_tracking::session::{Millis, Visitor, datetime, fingerprint};
use session_tracking::storage::{DUE_SHARDS, SessionStorage};
use session_tracking::timeline::Timeline;

use super::faulty::FaultyStorage;
use super::source::SimEvent;
use crate::oracle::{self, OracleEvent, OracleSession};
use crate::support::{FinalSession, millis, round_trip};

pub struct Checker<'w> {
    events: &'w [SimEvent],
    config: &'w SessionConfig,
    is_loud: bool,
    /// How many events of each visitor are stored: never fewer than before.
    stored: HashMap<Visitor, u64>,
    /// Annotated events that HTTP callers were answered.
    answered: Vec<String>,
}

/// The state of a visitor in the store.
struct Known {
    timeline: Option<Timeline>,
    /// Archived sessions that are not in the timeline.
    archived: Vec<Tally>,
}

impl<'w> Checker<'w> {
    pub fn new(events: &'w [SimEvent], config: &'w SessionConfig, is_loud: bool) -> Self {
        if is_loud {
            for event in events {
                println!("{event:?}");
            }
            println!("{config:?}");
        }
        Self { events, config, is_loud, stored: HashMap::new(), answered: Vec::new() }
    }

    /// Takes note of what an HTTP caller was answered.
    pub fn answered(&mut self, answer: &Value) {
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let events = body["events"].as_array().into_iter().flatten();
        self.answered.extend(events.map(Value::to_string));
    }

    /// After a step: every timeline that was written holds what always holds.
    pub fn after_step(&mut self, storage: &FaultyStorage<'_>) {
        let now = storage.engine.state().now;
        let committed = std::mem::take(&mut *storage.committed.lock().unwrap());
        for visitor in committed {
            let known = known(storage, &visitor);
            self.check_sessions(&visitor, &known, now);
            let timeline = known.timeline.as_ref().unwrap();
            if self.is_loud {
                println!("{timeline:#?}");
            }
            let here = timeline.sessions(timeline.frontier, self.config);
            let count = here.iter().map(|session| u64::from(session.event_count)).sum::<u64>()
                + known.archived.iter().map(|t| u64::from(t.event_count + t.late.event_count)).sum::<u64>();
            let sent = self.events.iter().filter(|event| event.visitor == visitor && !event.is_poison).count();
            assert!(count <= sent as u64, "{count} events are counted of {sent}: {timeline:#?}");
            let before = self.stored.insert(visitor, count).unwrap_or(0);
            assert!(before <= count, "{count} events are left of {before}: {timeline:#?}");
        }
    }

    /// Sessions do not overlap, and at most the last is live.
    fn check_sessions(&self, visitor: &Visitor, known: &Known, now: Millis) {
        let timeline = known.timeline.as_ref().unwrap();
        let mut sessions = timeline.sessions(now, self.config);
        sessions.extend(known.archived.iter().map(|tally| tally.session(visitor, false)));
        sessions.sort_by_key(|session| (session.started_at, session.number));
        for pair in sessions.windows(2) {
            assert!(pair[0].last_activity <= pair[1].started_at, "sessions overlap: {pair:#?}");
            assert!(!pair[0].is_active, "an earlier session is live: {pair:#?}");
        }
        let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids.len(), sessions.len(), "two sessions have one id: {sessions:#?}");
    }

    /// A source was told that these events are applied: then they are stored.
    pub fn acknowledged(&self, storage: &FaultyStorage<'_>, events: &[usize]) {
        for event in events.iter().map(|&index| &self.events[index]).filter(|event| !event.is_poison) {
            let known = known(storage, &event.visitor);
            let print = fingerprint(&event.uuid);
            let in_timeline = known.timeline.as_ref().is_some_and(|timeline| {
                timeline.journal.iter().any(|entry| entry.uuid == event.uuid)
                    || timeline.heads.iter().any(|head| head.late.seen.contains(&print))
                    || timeline.ended.iter().chain(&timeline.open).any(|tally| has(tally, print))
            });
            let in_archive = known.archived.iter().any(|tally| has(tally, print));
            assert!(in_timeline || in_archive, "{event:?} was acknowledged and is lost");
        }
    }

    /// When the first timeline is due.
    pub fn next_due(&self, storage: &FaultyStorage<'_>) -> Option<Millis> {
        let due = |shard| storage.inner.due(shard, Millis::MAX, 100).now_or_never().unwrap().unwrap();
        (0..DUE_SHARDS).flat_map(due).map(|due| due.due_at).min()
    }

    /// At rest: what a consumer of the output has is what the plain definition says, and every event ended in one place.
    pub fn at_rest(&self, storage: &FaultyStorage<'_>, output: &[String], rejects: &[String]) {
        let lines: Vec<Value> = output.iter().chain(&self.answered).map(|line| serde_json::from_str(line).unwrap()).collect();
        let consumer = Consumer::read(&lines);
        let sessions = consumer.sessions(self.config);
        let expected = self.expected();
        assert_eq!(sessions, expected);
        let rejected: HashSet<String> = rejects.iter().map(|line| line.clone()).collect();
        for event in self.events {
            let is_annotated = consumer.events.contains_key(&event.uuid);
            let is_rejected = rejected.iter().any(|line| line.contains(&event.uuid));
            assert!(!(is_annotated && (is_rejected || event.is_poison)), "{event:?} ended in two places");
            assert!(is_annotated || event.is_poison, "{event:?} ended nowhere");
        }
        for session in consumer.ends.values() {
            let id = session["$session_id"].as_str().unwrap().parse().unwrap();
            let found = storage.inner.find(id).now_or_never().unwrap().unwrap();
            assert!(found.archived.is_some(), "{session} is said to have ended and is not archived");
        }
    }

    fn expected(&self) -> Vec<FinalSession> {
        let events: Vec<OracleEvent<'_>> =
            self.events.iter().filter(|event| !event.is_poison).map(oracle_event).collect();
        oracle::sessions(&events, self.config).into_iter().map(FinalSession::from).collect()
    }
}

fn oracle_event(event: &SimEvent) -> OracleEvent<'_> {
    OracleEvent {
        visitor: &event.visitor.distinct_id,
        uuid: &event.uuid,
        at: event.at,
        name: event.name,
        url: event.url.as_deref(),
        referrer: event.referrer,
        utm: [event.utm, None, None, None, None],
    }
}

impl From<OracleSession<'_>> for FinalSession {
    fn from(session: OracleSession<'_>) -> Self {
        let time = |at| datetime(at).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let owned = |text: Option<&str>| text.map(str::to_owned);
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

fn has(tally: &Tally, print: u64) -> bool {
    tally.seen.contains(&print) || tally.late.seen.contains(&print)
}

fn known(storage: &FaultyStorage<'_>, visitor: &Visitor) -> Known {
    // The store in memory never waits.
    let timeline = storage.inner.read(visitor).now_or_never().unwrap().unwrap().map(|stored| stored.timeline);
    let mut archived = storage.inner.archived(visitor, 0, Millis::MAX >> 16).now_or_never().unwrap().unwrap();
    if let Some(timeline) = &timeline {
        // What a closer archived and had no time to take out is still the timeline's.
        archived.retain(|tally| {
            timeline.heads.iter().all(|head| head.id != tally.id)
                && timeline.ended.iter().chain(&timeline.open).all(|ended| ended.id != tally.id)
        });
    }
    Known { timeline, archived }
}

/// A consumer of the output, by the rules of the README: lines come in any order and more than once.
struct Consumer {
    /// Of each event its copy with the highest version: session, version, visitor, time.
    events: HashMap<String, (String, u64, Millis)>,
    /// Of each session the account with the highest version.
    ends: BTreeMap<String, Value>,
}

impl Consumer {
    fn read(lines: &[Value]) -> Self {
        let mut consumer = Self { events: HashMap::new(), ends: BTreeMap::new() };
        let mut notices: BTreeMap<(String, u64), &Value> = BTreeMap::new();
        let mut said: HashMap<&str, &Value> = HashMap::new();
        for line in lines {
            let properties = &line["properties"];
            let version = properties["$session_version"].as_u64().unwrap();
            match line["event"].as_str().unwrap() {
                "$session_end" => {
                    consumer.end(properties, version);
                    let uuid = line["uuid"].as_str().unwrap();
                    assert_eq!(*said.entry(uuid).or_insert(line), line, "one id, two contents");
                }
                "$session_merged" | "$session_split" => {
                    notices.insert((text(line, "distinct_id"), version), line);
                }
                _ => consumer.event(line, version),
            }
        }
        for line in notices.into_values() {
            consumer.follow(line);
        }
        consumer
    }

    fn end(&mut self, properties: &Value, version: u64) {
        let known = self.ends.entry(text(properties, "$session_id")).or_insert_with(|| properties.clone());
        let before = known["$session_version"].as_u64().unwrap();
        if version > before {
            *known = properties.clone();
        } else if version == before {
            assert_eq!(known, properties, "one version, two contents");
        }
    }

    fn event(&mut self, line: &Value, version: u64) {
        let (session, at) = (text(&line["properties"], "$session_id"), millis(&text(line, "timestamp")));
        let copy = self.events.entry(text(line, "uuid")).or_insert_with(|| (session.clone(), version, at));
        if version > copy.1 {
            *copy = (session, version, at);
        }
    }

    fn follow(&mut self, line: &Value) {
        let properties = &line["properties"];
        let version = properties["$session_version"].as_u64().unwrap();
        let (from, into) = (text(properties, "from"), text(properties, "into"));
        let border = properties["at"].as_str().map(|at| (millis(at), text(properties, "from_event")));
        for (uuid, (session, as_of, at)) in &mut self.events {
            let is_behind = border.as_ref().is_none_or(|border| (*at, uuid.as_str()) >= (border.0, border.1.as_str()));
            if *session == from && *as_of < version && is_behind {
                session.clone_from(&into);
            }
        }
    }

    /// The final sessions, by visitor, then start.
    fn sessions(&self, _config: &SessionConfig) -> Vec<FinalSession> {
        let mut events: HashMap<&str, Vec<(Millis, &str)>> = HashMap::new();
        for (uuid, (session, _, at)) in &self.events {
            events.entry(session).or_default().push((*at, uuid));
        }
        let mut sessions = Vec::new();
        for (id, properties) in &self.ends {
            let mut uuids = events.remove(id.as_str()).unwrap_or_default();
            uuids.sort_unstable();
            let mut session = properties["$session"].clone();
            for name in ["started_at", "last_activity"] {
                session[name] = round_trip(&session[name]);
            }
            session["duration_seconds"] = properties["$session_duration"].clone();
            session["events"] = uuids.into_iter().map(|(_, uuid)| uuid).collect();
            let number = session["number"].as_u64();
            sessions.push((number, serde_json::from_value::<FinalSession>(session).unwrap()));
        }
        assert!(events.is_empty(), "events of sessions whose end was never said: {events:?}");
        let key = |(number, session): &(Option<u64>, FinalSession)| {
            (session.distinct_id.clone(), session.started_at.clone(), *number)
        };
        sessions.sort_by_key(key);
        sessions.into_iter().map(|(_, session)| session).collect()
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}
