//! The checks of erased visitors at rest: what callers of the API and consumers of the output have of them.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::manager::SessionManager;
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{SessionError, SessionStorage};
use uuid::Uuid;

use super::{Generation, is_erasure_of, of_visitor};
use crate::consumer::Consumer;
use crate::oracle::{self, OracleEvent};
use crate::sim::check::{Checker, StoredVisitor, oracle_event, stored_visitor};
use crate::sim::faulty::FaultyStorage;
use crate::sim::source::SimEvent;
use crate::support::{FinalSession, millis};

/// How many erased visitors were checked in the end: all, those of whom certainly nothing was left, those whose later sessions are
/// the oracle's, and those of whom a consumer has the oracle's sessions.
pub static ERASED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

impl Checker<'_> {
    /// Checks erased visitors at rest. `lines` are all lines of the output, and `reader` reads as a caller of the API does.
    pub fn erased_at_rest<S: SessionStorage, C: Clock>(
        &self,
        storage: &FaultyStorage<'_>,
        reader: &SessionManager<S, C>,
        lines: &[Value],
    ) {
        for (visitor, generation) in &self.erased {
            assert!(generation.is_complete, "{visitor:?} is erased in part: {generation:?}");
            ERASED[0].fetch_add(1, Ordering::Relaxed);
            if !generation.is_clean() {
                continue;
            }
            ERASED[1].fetch_add(1, Ordering::Relaxed);
            let stored = stored_visitor(storage, visitor);
            let states: Vec<&SessionState> =
                stored.timeline.iter().flat_map(|timeline| timeline.finalized()).chain(&stored.archived).collect();
            check_what_is_read(visitor, generation, &states, reader);
            let counted = |event: &&usize| !self.is_never_counted(&visitor.project, self.events[**event].name);
            let here: Vec<usize> =
                states.iter().flat_map(|state| stored.fingerprints(state)).map(|of| self.event(visitor, of)).collect();
            let sent: BTreeSet<usize> = generation.stored.keys().filter(counted).copied().collect();
            assert_eq!(
                here.len(),
                sent.len(),
                "{here:?} are stored of {visitor:?}, instead of {sent:?}: {generation:?}"
            );
            assert_eq!(here.into_iter().collect::<BTreeSet<_>>(), sent, "{visitor:?}: {generation:?}");
            if self.is_exact && !generation.has_late {
                ERASED[2].fetch_add(1, Ordering::Relaxed);
                let expected = self.expected_of(visitor, generation);
                assert_eq!(self.sessions(visitor, &stored, &states), expected, "{visitor:?}: {generation:?}");
                self.check_consumer(visitor, generation, lines, expected);
            }
        }
    }

    /// Returns the oracle's sessions of what was applied since a visitor was erased.
    fn expected_of(&self, visitor: &Visitor, generation: &Generation) -> Vec<FinalSession> {
        let events: Vec<OracleEvent<'_>> =
            generation.stored.keys().map(|&event| oracle_event(&self.events[event])).collect();
        let marks = self.marks.iter().filter(|(of, _)| of == visitor);
        let marks: Vec<(&str, Millis)> = marks.map(|(_, at)| (visitor.distinct_id.as_str(), *at)).collect();
        let sessions = oracle::sessions_with_ends(&events, &marks, self.rules_of(visitor));
        sessions.into_iter().map(FinalSession::from).collect()
    }

    /// Returns the stored sessions, with their events.
    fn sessions(&self, visitor: &Visitor, stored: &StoredVisitor, states: &[&SessionState]) -> Vec<FinalSession> {
        let mut states = states.to_vec();
        states.sort_by_key(|state| (state.facts.started_at, state.number));
        let session = |state: &SessionState| {
            let session = state.ended_session(visitor);
            let mut events: Vec<&SimEvent> =
                stored.fingerprints(state).map(|of| &self.events[self.event(visitor, of)]).collect();
            events.sort_by_key(|event| (event.at, &event.uuid));
            let mut value = serde_json::to_value(&session).unwrap();
            value["duration_seconds"] = session.duration_seconds().into();
            value["events"] = events.into_iter().map(|event| event.uuid.as_str()).collect();
            serde_json::from_value(value).unwrap()
        };
        states.into_iter().map(session).collect()
    }

    /// Checks what a consumer has that deletes by the rule of `docs/output.md`. It has the oracle's sessions, if the time of the erasure
    /// parts the events: what was applied before it lies before it, and what was applied after it does not.
    fn check_consumer(&self, visitor: &Visitor, generation: &Generation, lines: &[Value], expected: Vec<FinalSession>) {
        let erasures = lines.iter().filter(|line| is_erasure_of(line, visitor));
        let erased_at = erasures.map(|line| millis(line["timestamp"].as_str().unwrap())).max().unwrap();
        // A worker can die between its deletion and the output, or its clock can be wrong.
        if self.max_skew_ms > 0 || !generation.is_answered {
            return;
        }
        let is_later = |event: &SimEvent| event.at > erased_at;
        let mut all = self.events.iter().enumerate();
        let is_counted = |event: &SimEvent| {
            event.visitor == *visitor && !event.is_poison && !self.is_never_counted(&visitor.project, event.name)
        };
        let lost =
            all.find(|(index, event)| is_counted(event) && is_later(event) && !generation.stored.contains_key(index));
        assert!(lost.is_none(), "{lost:?} is later than the erasure at {erased_at}, which deleted it: {generation:?}");
        let is_apart = generation.stored.keys().all(|&event| is_later(&self.events[event]));
        if !is_apart {
            return;
        }
        ERASED[3].fetch_add(1, Ordering::Relaxed);
        let time = |line: &Value| {
            let time = line["properties"]["$event_time"].as_str().or(line["timestamp"].as_str());
            millis(time.unwrap_or_else(|| panic!("no consumer knows whether to delete this: {line}")))
        };
        let is_kept = |line: &&Value| {
            of_visitor(line, visitor)
                && line["event"] != "$visitor_erased"
                && !self.is_never_counted(&visitor.project, line["event"].as_str().unwrap())
                && time(line) > erased_at
        };
        let kept: Vec<Value> = lines.iter().filter(is_kept).cloned().collect();
        assert_eq!(Consumer::read(&kept).sessions(), expected, "erased at {erased_at}: {generation:?}");
    }
}

/// Checks that callers of the API find these sessions of a visitor, and none of before.
fn check_what_is_read<S: SessionStorage, C: Clock>(
    visitor: &Visitor,
    generation: &Generation,
    states: &[&SessionState],
    reader: &SessionManager<S, C>,
) {
    let ids: HashSet<Uuid> = states.iter().map(|state| state.id).collect();
    let listed = reader.sessions_of(visitor, None, 1_000).now_or_never().unwrap().unwrap().sessions;
    let listed: Vec<Uuid> = listed.iter().map(|session| session.id.parse().unwrap()).collect();
    assert_eq!((listed.len(), listed.into_iter().collect()), (ids.len(), ids), "listed of {visitor:?}");
    let export = serde_json::to_string(&reader.export(visitor).now_or_never().unwrap().unwrap()).unwrap();
    let known: HashSet<Uuid> = states.iter().flat_map(|state| state.ids()).collect();
    for id in generation.gone.iter().filter(|id| !known.contains(id)) {
        assert!(!export.contains(&id.to_string()), "{id} was erased, but is exported: {export}");
        // Another visitor of the same hash bits may have a session with this id.
        match reader.get(&id.to_string()).now_or_never().unwrap() {
            Ok(session) => {
                assert_ne!((&session.project, &session.distinct_id), (&visitor.project, &visitor.distinct_id))
            }
            Err(error) => assert_eq!(error, SessionError::NotFound),
        }
    }
}
