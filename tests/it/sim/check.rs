//! The checks of a simulated world: after every step, at every acknowledgement, and at rest.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::FutureExt;
use serde_json::Value;
use session_tracking::config::{ProjectRules, Projects, SessionConfig};
use session_tracking::model::{FingerprintPage, Kind, SessionState};
use session_tracking::session::{Millis, Visitor, fingerprint};
use session_tracking::storage::{DUE_SHARDS, SessionStorage};
use session_tracking::timeline::Timeline;

use super::erased::{Generation, of_visitor};
use super::faulty::FaultyStorage;
use super::source::SimEvent;
use super::world::{INVOCATION_MS, OTHER_PROJECT};
use crate::consumer::Consumer;
use crate::oracle::{self, OracleEvent};
use crate::support::FinalSession;

pub struct Checker<'w> {
    pub(super) events: &'w [SimEvent],
    projects: &'w Projects,
    /// Whether every event arrives within the allowed lateness, by clocks that are right to within seconds.
    pub is_exact: bool,
    is_verbose: bool,
    /// How many events of each visitor are counted in the store. The number never falls, unless the visitor is erased.
    pub(super) event_counts: HashMap<Visitor, u64>,
    /// Annotated events in answers to HTTP callers.
    answered: Vec<String>,
    /// The uuids of events that were rejected in answers to HTTP callers.
    rejected: HashSet<String>,
    /// How many requests to end a session were sent for each visitor, retries included.
    end_requests: HashMap<Visitor, usize>,
    /// The marks that requests to end a session have set, and that were not erased.
    pub(super) marks: BTreeSet<(Visitor, Millis)>,
    /// The largest error of a worker's clock.
    pub(super) max_skew_ms: Millis,
    /// The visitors that were erased.
    pub(super) erased: HashMap<Visitor, Generation>,
}

/// What the store holds of a visitor.
pub(super) struct StoredVisitor {
    pub timeline: Option<Timeline>,
    /// Archived sessions that are not in the timeline.
    pub archived: Vec<SessionState>,
    /// The pages of all these sessions.
    pages: Vec<FingerprintPage>,
}

impl<'w> Checker<'w> {
    pub fn new(
        events: &'w [SimEvent],
        projects: &'w Projects,
        max_skew_ms: Millis,
        is_exact: bool,
        is_verbose: bool,
    ) -> Self {
        if is_verbose {
            for event in events {
                println!("{event:?}");
            }
            println!("{projects:?}");
        }
        Self {
            events,
            projects,
            is_exact,
            is_verbose,
            event_counts: HashMap::new(),
            answered: Vec::new(),
            rejected: HashSet::new(),
            end_requests: HashMap::new(),
            marks: BTreeSet::new(),
            max_skew_ms,
            erased: HashMap::new(),
        }
    }

    /// Records an answer to an HTTP caller. `sent` holds the indexes of the events in the request.
    pub fn answered(&mut self, answer: &Value, sent: &[usize]) {
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        for rejected in body["rejected"].as_array().into_iter().flatten() {
            let event = sent[rejected["index"].as_u64().unwrap() as usize];
            self.rejected.insert(self.events[event].uuid.clone());
        }
        let events = body["events"].as_array().into_iter().flatten();
        self.answered.extend(events.map(Value::to_string));
    }

    /// Checks every timeline that was written in a step.
    pub fn after_step(&mut self, storage: &FaultyStorage<'_>) {
        let now = storage.engine.state().now;
        let committed = std::mem::take(&mut *storage.committed.lock().unwrap());
        for visitor in committed {
            let stored = stored_visitor(storage, &visitor);
            let timeline = stored.timeline.as_ref().unwrap();
            if self.is_verbose {
                println!("at {now}: {timeline:?}");
            }
            self.record_marks(timeline, now);
            self.check_generation(storage, &visitor, &stored);
            if !self.is_clean(&visitor) {
                continue;
            }
            self.check_sessions(&visitor, &stored, now);
            stored.check_pages();
            let here = timeline.sessions(timeline.watermark, self.rules_of(&timeline.visitor));
            let count = here.iter().map(|session| u64::from(session.event_count)).sum::<u64>()
                + stored.archived.iter().map(|t| u64::from(t.facts.event_count + t.late.event_count)).sum::<u64>();
            let sent = self.events.iter().filter(|event| event.visitor == visitor && !event.is_poison).count();
            assert!(count <= sent as u64, "{count} events are counted, but {sent} were sent: {timeline:#?}");
            let before = self.event_counts.insert(visitor, count).unwrap_or(0);
            assert!(before <= count, "only {count} of {before} events are left: {timeline:#?}");
        }
    }

    /// Records that a request to end a session of this visitor is sent.
    pub fn end_requested(&mut self, visitor: &Visitor) {
        *self.end_requests.entry(visitor.clone()).or_default() += 1;
    }

    /// Records the marks that requests have set, because the oracle needs their times. Each request sets at most one mark, at its
    /// own time.
    fn record_marks(&mut self, timeline: &Timeline, now: Millis) {
        let visitor = &timeline.visitor;
        for mark in timeline.unfinalized.iter().filter(|entry| entry.kind == Kind::End) {
            if self.marks.insert((visitor.clone(), mark.at)) && self.is_exact {
                let is_now = mark.at <= now + self.max_skew_ms && mark.at >= now - self.max_skew_ms - INVOCATION_MS;
                assert!(is_now, "at {now} a request ended a session at {}: {timeline:#?}", mark.at);
            }
        }
        let marks = self.marks.iter().filter(|(of, _)| of == visitor).count();
        let requests = self.end_requests.get(visitor).copied().unwrap_or(0);
        assert!(marks <= requests, "{marks} marks, but {requests} requests: {timeline:#?}");
    }

    /// Returns the ids that a caller can name: those of the visitor's sessions in the timeline, and of the last archived session.
    pub fn ids(&self, storage: &FaultyStorage<'_>, visitor: &Visitor) -> Vec<String> {
        let Some(timeline) = stored_visitor(storage, visitor).timeline else { return Vec::new() };
        let last = timeline.previous.iter().map(|previous| previous.id.to_string());
        last.chain(
            timeline
                .sessions(timeline.watermark, self.rules_of(&timeline.visitor))
                .into_iter()
                .map(|session| session.id),
        )
        .collect()
    }

    /// Checks the answer to a request to end a session, by a worker whose clock shows `now`: unless it is an error, the session
    /// is over.
    pub fn end_answered(&self, storage: &FaultyStorage<'_>, visitor: &Visitor, id: &str, answer: &Value, now: Millis) {
        if let Some(error) = answer.get("error") {
            let may_be_gone = self.erased.contains_key(visitor);
            assert!(may_be_gone || error["code"] != "not_found", "{id} was given out, but is not found");
            return;
        }
        let timeline = stored_visitor(storage, visitor).timeline;
        let rules = self.rules_of(visitor);
        let session = timeline.as_ref().and_then(|timeline| timeline.session(id.parse().unwrap(), now, rules));
        let is_over = answer["is_active"] == false && session.is_none_or(|session| !session.is_active);
        assert!(is_over, "a request at {now} to end {id} was answered with {answer}: {timeline:#?}");
    }

    /// Checks that sessions do not overlap and that at most the last one is live.
    fn check_sessions(&self, visitor: &Visitor, stored: &StoredVisitor, now: Millis) {
        let timeline = stored.timeline.as_ref().unwrap();
        let mut sessions = timeline.sessions(now, self.rules_of(visitor));
        sessions.extend(stored.archived.iter().map(|state| state.ended_session(visitor)));
        sessions.sort_by_key(|session| (session.started_at, session.number));
        // An event that comes again long after its visitor was erased is new, and late.
        let is_exact = self.is_exact && self.erased.get(visitor).is_none_or(|generation| !generation.has_late);
        for pair in sessions.windows(2) {
            // An event that was on time when it was received, but was delivered long after, can bridge a session of late events.
            let do_overlap = is_exact && pair[0].last_activity > pair[1].started_at;
            assert!(!do_overlap, "sessions overlap: {pair:#?}");
            assert!(!(is_exact && pair[0].is_active), "an earlier session is live: {pair:#?}");
        }
        let live: Vec<_> = sessions.iter().filter(|session| session.is_active).collect();
        assert!(live.len() <= 1, "several sessions are live: {live:#?}");
        // A request ends every session that began before it.
        let last_mark = self.marks.iter().filter(|(of, _)| of == visitor).map(|(_, at)| *at).max();
        let is_ended = live.iter().any(|session| Some(session.started_at.timestamp_millis()) <= last_mark);
        assert!(!is_ended, "a session is live that a request at {last_mark:?} ended: {live:#?}");
        let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids.len(), sessions.len(), "two sessions have one id: {sessions:#?}");
    }

    /// Checks that events are stored once their source was told that they are applied, by an invocation that began at this step and
    /// time.
    pub fn acknowledged(&self, storage: &FaultyStorage<'_>, events: &[usize], began: (u64, Millis)) {
        let counted =
            |event: &&SimEvent| !event.is_poison && !self.is_never_counted(&event.visitor.project, event.name);
        for event in events.iter().map(|&index| &self.events[index]).filter(counted) {
            if self.may_see_erased(&event.visitor, began) {
                continue;
            }
            let stored = stored_visitor(storage, &event.visitor);
            let fingerprint = fingerprint(&event.uuid);
            let in_timeline = stored.timeline.as_ref().is_some_and(|timeline| {
                timeline.unfinalized.iter().any(|entry| *entry.uuid == *event.uuid)
                    || timeline.anchors.iter().any(|anchor| anchor.late.fingerprints.contains(&fingerprint))
                    || timeline.finalized().any(|state| stored.has(state, fingerprint))
            });
            let in_archive = stored.archived.iter().any(|state| stored.has(state, fingerprint));
            assert!(in_timeline || in_archive, "{event:?} was acknowledged, but is not stored");
        }
    }

    /// Returns when the first timeline is due.
    pub fn next_due(&self, storage: &FaultyStorage<'_>) -> Option<Millis> {
        let due = |shard| storage.inner.due(shard, None, Millis::MAX, 100).now_or_never().unwrap().unwrap();
        (0..DUE_SHARDS).flat_map(due).map(|due| due.due_at).min()
    }

    /// Checks a world at rest: a consumer of the output has the oracle's sessions, and every event was either annotated or
    /// rejected. Returns the lines that the consumer has read: all but those of erased visitors.
    pub fn at_rest(&self, storage: &FaultyStorage<'_>, lines: Vec<Value>, rejects: &[String]) -> Vec<Value> {
        let is_counted = |line: &Value| {
            !self.is_never_counted(line["project"].as_str().unwrap_or_default(), line["event"].as_str().unwrap())
        };
        let annotated: HashSet<String> =
            lines.iter().filter_map(|line| Some(line["uuid"].as_str()?.to_owned())).collect();
        let is_erased = |line: &Value| self.erased.keys().any(|visitor| of_visitor(line, visitor));
        let lines: Vec<Value> = lines.into_iter().filter(|line| !is_erased(line) && is_counted(line)).collect();
        let consumer = Consumer::read(&lines);
        let sessions = consumer.sessions();
        for session in &sessions {
            // The service counts what its consumers have, late events included.
            assert_eq!(session.event_count, session.events.len() as u64, "{session:?}");
        }
        if self.is_exact {
            assert_eq!(sessions, self.expected());
            consumer.check_end_reasons();
        }
        for event in self.events {
            let is_annotated = annotated.contains(&event.uuid);
            let is_rejected =
                self.rejected.contains(&event.uuid) || rejects.iter().any(|line| line.contains(&event.uuid));
            assert_eq!((is_annotated, is_rejected), (!event.is_poison, event.is_poison), "{event:?}");
        }
        for session in consumer.ends.values() {
            let id = session["$session_id"].as_str().unwrap().parse().unwrap();
            let found = storage.inner.find(id).now_or_never().unwrap().unwrap();
            let is_closed = |timeline: &Timeline| timeline.closed.iter().any(|closed| closed.state.id == id);
            let is_kept = !found.archived.is_empty() || found.timelines.iter().any(is_closed);
            assert!(is_kept, "the end of {session} was emitted, but it is neither archived nor closed");
        }
        lines
    }

    /// Returns all lines: those of the output, and the events in answers.
    pub fn lines(&self, output: &[String]) -> Vec<Value> {
        let lines = output.iter().chain(&self.answered).map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        if self.is_verbose {
            lines.iter().for_each(|line| println!("{line}"));
        }
        lines
    }

    /// Returns whether an event of this name is passive or a keep-alive event: it is annotated, but no session counts it.
    pub(super) fn is_never_counted(&self, project: &str, name: &str) -> bool {
        let rules = self.projects.rules_of(project);
        rules.passive_events.iter().chain(&rules.keep_alive_events).any(|other| other == name)
    }

    pub(super) fn rules_of(&self, visitor: &Visitor) -> &SessionConfig {
        self.projects.rules_of(&visitor.project)
    }

    /// Returns the oracle's sessions of all visitors that were not erased.
    fn expected(&self) -> Vec<FinalSession> {
        let marks: Vec<(&str, Millis)> =
            self.marks.iter().map(|(visitor, at)| (visitor.distinct_id.as_str(), *at)).collect();
        let of_project = |project: &str| {
            let is_of_project = |event: &&SimEvent| {
                !event.is_poison && event.visitor.project == project && !self.erased.contains_key(&event.visitor)
            };
            let events = self.events.iter().filter(is_of_project);
            let events: Vec<OracleEvent<'_>> = events.map(oracle_event).collect();
            let sessions = oracle::sessions_with_ends(&events, &marks, self.projects.rules_of(project));
            sessions.into_iter().map(FinalSession::from).collect::<Vec<_>>()
        };
        // No two projects have a visitor of the same id. The sort is stable, so the order within a visitor stays.
        let mut sessions: Vec<FinalSession> = ["", OTHER_PROJECT].into_iter().flat_map(of_project).collect();
        sessions.sort_by(|a, b| a.distinct_id.cmp(&b.distinct_id));
        sessions
    }
}

pub(super) fn oracle_event(event: &SimEvent) -> OracleEvent<'_> {
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

impl StoredVisitor {
    /// Checks that every page of a session is stored.
    fn check_pages(&self) {
        let timeline = self.timeline.iter().flat_map(Timeline::finalized);
        for state in timeline.chain(&self.archived) {
            for (is_late, count) in [(false, state.pages), (true, state.late.pages)] {
                let is_here = |page: &&FingerprintPage| {
                    page.session_id == state.id && page.is_late == is_late && page.number < count
                };
                let stored = self.pages.iter().filter(is_here).count();
                assert_eq!(stored, count as usize, "pages are not stored: {state:#?}");
            }
        }
    }

    /// Returns whether a session counts the event with this fingerprint: itself, or on one of its pages.
    fn has(&self, state: &SessionState, fingerprint: u64) -> bool {
        self.fingerprints(state).any(|of| of == fingerprint)
    }

    /// Returns the fingerprints of the events that a session counts, also those on its pages.
    pub fn fingerprints<'s>(&'s self, state: &'s SessionState) -> impl Iterator<Item = u64> + 's {
        let counts = |page: &&FingerprintPage| {
            let pages = if page.is_late { state.late.pages } else { state.pages };
            page.session_id == state.id && page.number < pages
        };
        let on_pages = self.pages.iter().filter(counts).flat_map(|page| &page.fingerprints);
        state.fingerprints.iter().chain(&state.late.fingerprints).chain(on_pages).copied()
    }
}

pub(super) fn stored_visitor(storage: &FaultyStorage<'_>, visitor: &Visitor) -> StoredVisitor {
    // No store waits here: see `super::store`.
    let timeline = storage.inner.read(visitor).now_or_never().unwrap().unwrap().map(|stored| stored.timeline);
    let mut archived = storage.inner.archived(visitor, 0, Millis::MAX >> 16).now_or_never().unwrap().unwrap();
    if let Some(timeline) = &timeline {
        // A session that a closer archived, but could not take out of the timeline, still belongs to the timeline, also if it was
        // merged into another session since.
        archived.retain(|state| {
            timeline.anchors.iter().all(|anchor| anchor.id != state.id)
                && timeline.finalized().all(|here| here.ids().all(|id| id != state.id))
        });
    }
    let here = timeline.iter().flat_map(Timeline::finalized);
    let pages = here.chain(&archived).filter(|state| state.has_pages());
    let pages =
        pages.flat_map(|state| storage.inner.pages(visitor, state.id).now_or_never().unwrap().unwrap()).collect();
    StoredVisitor { timeline, archived, pages }
}
