//! What must hold in a simulated world: after every step, at every acknowledgement, and at rest.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::FutureExt;
use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::model::{Kind, SessionState};
use session_tracking::session::{Millis, Visitor, fingerprint};
use session_tracking::storage::{DUE_SHARDS, SessionStorage};
use session_tracking::timeline::Timeline;

use super::faulty::FaultyStorage;
use super::source::SimEvent;
use super::world::INVOCATION_MS;
use crate::consumer::Consumer;
use crate::oracle::{self, OracleEvent};
use crate::support::FinalSession;

pub struct Checker<'w> {
    events: &'w [SimEvent],
    config: &'w SessionConfig,
    /// Whether every event arrives within the lateness, by clocks that are right enough.
    pub is_exact: bool,
    is_loud: bool,
    /// How many events of each visitor are stored: never fewer than before.
    stored: HashMap<Visitor, u64>,
    /// Annotated events that HTTP callers were answered.
    answered: Vec<String>,
    /// Events that HTTP callers were told are rejected.
    refused: HashSet<String>,
    /// How many calls to end a session were made for each visitor, retries included.
    calls: HashMap<Visitor, usize>,
    /// When calls ended sessions, by the marks that they set.
    marks: BTreeSet<(Visitor, Millis)>,
    /// How far a worker's clock is off at the most.
    skew: Millis,
}

/// The state of a visitor in the store.
struct Known {
    timeline: Option<Timeline>,
    /// Archived sessions that are not in the timeline.
    archived: Vec<SessionState>,
}

impl<'w> Checker<'w> {
    pub fn new(events: &'w [SimEvent], config: &'w SessionConfig, skew: Millis, is_exact: bool, is_loud: bool) -> Self {
        if is_loud {
            for event in events {
                println!("{event:?}");
            }
            println!("{config:?}");
        }
        Self {
            events,
            config,
            is_exact,
            is_loud,
            stored: HashMap::new(),
            answered: Vec::new(),
            refused: HashSet::new(),
            calls: HashMap::new(),
            marks: BTreeSet::new(),
            skew,
        }
    }

    /// Takes note of what an HTTP caller was answered.
    pub fn answered(&mut self, answer: &Value, sent: &[usize]) {
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        for rejected in body["rejected"].as_array().into_iter().flatten() {
            let event = sent[rejected["index"].as_u64().unwrap() as usize];
            self.refused.insert(self.events[event].uuid.clone());
        }
        let events = body["events"].as_array().into_iter().flatten();
        self.answered.extend(events.map(Value::to_string));
    }

    /// After a step: every timeline that was written holds what always holds.
    pub fn after_step(&mut self, storage: &FaultyStorage<'_>) {
        let now = storage.engine.state().now;
        let committed = std::mem::take(&mut *storage.committed.lock().unwrap());
        for visitor in committed {
            let known = known(storage, &visitor);
            let timeline = known.timeline.as_ref().unwrap();
            self.note_marks(timeline, now);
            self.check_sessions(&visitor, &known, now);
            if self.is_loud {
                println!("at {now}: {timeline:?}");
            }
            let here = timeline.sessions(timeline.watermark, self.config);
            let count = here.iter().map(|session| u64::from(session.event_count)).sum::<u64>()
                + known.archived.iter().map(|t| u64::from(t.facts.event_count + t.late.event_count)).sum::<u64>();
            let sent = self.events.iter().filter(|event| event.visitor == visitor && !event.is_poison).count();
            assert!(count <= sent as u64, "{count} events are counted of {sent}: {timeline:#?}");
            let before = self.stored.insert(visitor, count).unwrap_or(0);
            assert!(before <= count, "{count} events are left of {before}: {timeline:#?}");
        }
    }

    /// A call to end a session of this visitor is on its way.
    pub fn called(&mut self, visitor: &Visitor) {
        *self.calls.entry(visitor.clone()).or_default() += 1;
    }

    /// Takes note of the marks that calls set: the oracle has to know when. Each call sets one at the most, when it is made.
    fn note_marks(&mut self, timeline: &Timeline, now: Millis) {
        let visitor = &timeline.visitor;
        for mark in timeline.unfinalized.iter().filter(|entry| entry.kind == Kind::End) {
            if self.marks.insert((visitor.clone(), mark.at)) && self.is_exact {
                let is_now = mark.at <= now + self.skew && mark.at >= now - self.skew - INVOCATION_MS;
                assert!(is_now, "at {now} a call ended a session as of {}: {timeline:#?}", mark.at);
            }
        }
        let (marks, calls) = (self.marks.iter().filter(|(of, _)| of == visitor).count(), self.calls.get(visitor));
        assert!(marks <= calls.copied().unwrap_or(0), "{marks} marks of {calls:?} calls: {timeline:#?}");
    }

    /// The ids that a caller can mean: of the visitor's sessions in the timeline, and of the last one that was archived.
    pub fn ids(&self, storage: &FaultyStorage<'_>, visitor: &Visitor) -> Vec<String> {
        let Some(timeline) = known(storage, visitor).timeline else { return Vec::new() };
        let last = timeline.previous.iter().map(|previous| previous.id.to_string());
        last.chain(timeline.sessions(timeline.watermark, self.config).into_iter().map(|session| session.id)).collect()
    }

    /// A call to end a session was answered, by a worker whose clock says `now`: if it went well, the session is over.
    pub fn ended(&self, storage: &FaultyStorage<'_>, visitor: &Visitor, id: &str, answer: &Value, now: Millis) {
        if let Some(error) = answer.get("error") {
            assert_ne!(error["code"], "not_found", "{id} was given out and leads nowhere");
            return;
        }
        let timeline = known(storage, visitor).timeline.unwrap();
        let session = timeline.session(id.parse().unwrap(), now, self.config);
        let is_over = answer["is_active"] == false && session.is_none_or(|session| !session.is_active);
        assert!(is_over, "a call at {now} ended {id} and was answered {answer}: {timeline:#?}");
    }

    /// Sessions do not overlap, and at most the last is live.
    fn check_sessions(&self, visitor: &Visitor, known: &Known, now: Millis) {
        let timeline = known.timeline.as_ref().unwrap();
        let mut sessions = timeline.sessions(now, self.config);
        sessions.extend(known.archived.iter().map(|state| state.ended_session(visitor)));
        sessions.sort_by_key(|session| (session.started_at, session.number));
        for pair in sessions.windows(2) {
            // An event that was on time when it was received, and delivered long after, may bridge a session of late ones.
            let do_overlap = self.is_exact && pair[0].last_activity > pair[1].started_at;
            assert!(!do_overlap, "sessions overlap: {pair:#?}");
            assert!(!(self.is_exact && pair[0].is_active), "an earlier session is live: {pair:#?}");
        }
        let live: Vec<_> = sessions.iter().filter(|session| session.is_active).collect();
        assert!(live.len() <= 1, "several sessions are live: {live:#?}");
        // A call ends what began before it, whatever comes later.
        let last_mark = self.marks.iter().filter(|(of, _)| of == visitor).map(|(_, at)| *at).max();
        let is_ended = live.iter().any(|session| Some(session.started_at.timestamp_millis()) <= last_mark);
        assert!(!is_ended, "a call at {last_mark:?} ended what is live: {live:#?}");
        let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids.len(), sessions.len(), "two sessions have one id: {sessions:#?}");
    }

    /// A source was told that these events are applied: then they are stored.
    pub fn acknowledged(&self, storage: &FaultyStorage<'_>, events: &[usize]) {
        let counted = |event: &&SimEvent| !event.is_poison && !self.is_beside(event.name);
        for event in events.iter().map(|&index| &self.events[index]).filter(counted) {
            let known = known(storage, &event.visitor);
            let fingerprint = fingerprint(&event.uuid);
            let in_timeline = known.timeline.as_ref().is_some_and(|timeline| {
                timeline.unfinalized.iter().any(|entry| *entry.uuid == *event.uuid)
                    || timeline.anchors.iter().any(|anchor| anchor.late.fingerprints.contains(&fingerprint))
                    || timeline.ended.iter().chain(&timeline.open).any(|state| has(state, fingerprint))
            });
            let in_archive = known.archived.iter().any(|state| has(state, fingerprint));
            assert!(in_timeline || in_archive, "{event:?} was acknowledged and is lost");
        }
    }

    /// When the first timeline is due.
    pub fn next_due(&self, storage: &FaultyStorage<'_>) -> Option<Millis> {
        let due = |shard| storage.inner.due(shard, None, Millis::MAX, 100).now_or_never().unwrap().unwrap();
        (0..DUE_SHARDS).flat_map(due).map(|due| due.due_at).min()
    }

    /// At rest: what a consumer of the output has is what the plain definition says, and every event ended in one place.
    /// Returns the lines that the consumer has read.
    pub fn at_rest(&self, storage: &FaultyStorage<'_>, output: &[String], rejects: &[String]) -> Vec<Value> {
        let lines: Vec<Value> =
            output.iter().chain(&self.answered).map(|line| serde_json::from_str(line).unwrap()).collect();
        if self.is_loud {
            lines.iter().for_each(|line| println!("{line}"));
        }
        let is_counted = |line: &Value| !self.is_beside(line["event"].as_str().unwrap());
        let annotated: HashSet<String> =
            lines.iter().filter_map(|line| Some(line["uuid"].as_str()?.to_owned())).collect();
        let lines: Vec<Value> = lines.into_iter().filter(is_counted).collect();
        let consumer = Consumer::read(&lines);
        let sessions = consumer.sessions();
        for session in &sessions {
            // The service counts what its consumers have, late events included.
            assert_eq!(session.event_count, session.events.len() as u64, "{session:?}");
        }
        if self.is_exact {
            assert_eq!(sessions, self.expected());
        }
        for event in self.events {
            let is_annotated = annotated.contains(&event.uuid);
            let is_rejected =
                self.refused.contains(&event.uuid) || rejects.iter().any(|line| line.contains(&event.uuid));
            assert_eq!((is_annotated, is_rejected), (!event.is_poison, event.is_poison), "{event:?}");
        }
        for session in consumer.ends.values() {
            let id = session["$session_id"].as_str().unwrap().parse().unwrap();
            let found = storage.inner.find(id).now_or_never().unwrap().unwrap();
            assert!(!found.archived.is_empty(), "{session} is said to have ended and is not archived");
        }
        lines
    }

    /// Whether an event of this name is passive or a keep-alive event: annotated, and none of a session's events.
    fn is_beside(&self, name: &str) -> bool {
        self.config.passive_events.iter().chain(&self.config.keep_alive_events).any(|other| other == name)
    }

    fn expected(&self) -> Vec<FinalSession> {
        let events: Vec<OracleEvent<'_>> =
            self.events.iter().filter(|event| !event.is_poison).map(oracle_event).collect();
        let marks: Vec<(&str, Millis)> =
            self.marks.iter().map(|(visitor, at)| (visitor.distinct_id.as_str(), *at)).collect();
        oracle::sessions_with_ends(&events, &marks, self.config).into_iter().map(FinalSession::from).collect()
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

fn has(state: &SessionState, fingerprint: u64) -> bool {
    state.fingerprints.contains(&fingerprint) || state.late.fingerprints.contains(&fingerprint)
}

fn known(storage: &FaultyStorage<'_>, visitor: &Visitor) -> Known {
    // The store in memory never waits.
    let timeline = storage.inner.read(visitor).now_or_never().unwrap().unwrap().map(|stored| stored.timeline);
    let mut archived = storage.inner.archived(visitor, 0, Millis::MAX >> 16).now_or_never().unwrap().unwrap();
    if let Some(timeline) = &timeline {
        // What a closer archived and had no time to take out is still the timeline's.
        archived.retain(|state| {
            timeline.anchors.iter().all(|anchor| anchor.id != state.id)
                && timeline.ended.iter().chain(&timeline.open).all(|ended| ended.id != state.id)
        });
    }
    Known { timeline, archived }
}
