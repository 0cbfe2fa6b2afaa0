//! The checks if every event comes in time: after each step, the sessions of the delivered events are the oracle's.

use std::sync::Arc;

use session_tracking::config::Boundary;
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Session};
use session_tracking::timeline::{Applied, Assignment, Closing};
use uuid::Uuid;

use super::consumer::{CheckResult, Consumer, content, ensure, id_of};
use super::run::{Clock, Run};
use super::walk::Check;
use super::world::{Expected, MAX_DURATION, TIMEOUT, World, members, uuid_of};
use crate::consumer::is_end_reason;
use crate::oracle::OracleSession;

#[derive(Debug, Clone, Copy)]
pub struct Exact;

impl Check for Exact {
    fn clock(&self) -> Clock {
        Clock::Latest
    }

    fn delivered(
        &self,
        before: &Run,
        after: &Run,
        batch: &[usize],
        applied: &Applied,
        sessions: &[Session],
    ) -> CheckResult {
        ensure!(applied.changed && after.late == 0, "new events changed nothing, or are late");
        let (corrections, due_at) = (&after.timeline.corrections, after.timeline.due_at);
        let is_due = corrections.is_empty() || due_at.is_some_and(|due_at| due_at <= after.now);
        ensure!(is_due, "corrections wait until {due_at:?}: {corrections:?}");
        sessions_match_the_oracle(after, sessions)?;
        unchanged_sessions_keep_their_version(before, after, sessions)?;
        ids_lead_to_their_events(after, sessions)?;
        a_duplicate_changes_nothing(after, batch, applied, sessions)
    }

    fn holds(&self, run: &Run) -> CheckResult {
        sessions_match_the_oracle(run, &run.sessions())
    }

    fn closed(&self, emitted: &[SessionState], run: &mut Run, closing: &Closing) -> CheckResult {
        run.consumer.apply_corrections(&closing.corrections, run.world)?;
        let is_new = run.emitted.len() == emitted.len() + closing.ended.len();
        ensure!(is_new, "a session ended twice: {:?}", closing.ended);
        for state in &closing.ended {
            run.versions.record(&state.ended_session(&run.world.visitor))?;
            run.versions.record_end(state, &run.world.rules)?;
        }
        // Emitted sessions are compared with the oracle again after each later step: they must have been final.
        Ok(())
    }

    fn finished(&self, run: &Run) -> CheckResult {
        let expected = run.expected().sessions.len();
        ensure!(run.emitted.len() == expected, "{} of {expected} sessions ended", run.emitted.len());
        let mut ended: Vec<&SessionState> = run.emitted.iter().collect();
        ended.sort_by_key(|state| state.number);
        for (number, state) in ended.iter().enumerate() {
            let next = ended.get(number + 1).map(|next| next.facts.reason.name());
            let reason = state.end_reason(&run.world.rules).name();
            ensure!(is_end_reason(reason, next), "it ended by {reason}, and the next began by {next:?}: {state:?}");
        }
        ids_lead_to_their_events(run, &run.sessions())
    }
}

/// The sessions are the oracle's, field by field. Each names the one before it. Once corrections are applied, a consumer has each
/// event in its session.
fn sessions_match_the_oracle(run: &Run, sessions: &[Session]) -> CheckResult {
    let expected = run.expected();
    let count = expected.sessions.len();
    ensure!(sessions.len() == count, "{} sessions instead of {count}: {sessions:?}", sessions.len());
    let mut consumer = run.consumer.clone();
    consumer.apply_corrections(&run.timeline.corrections, run.world)?;
    let mut previous: Option<&str> = None;
    let wanted = &expected.sessions;
    for (number, (session, expected)) in sessions.iter().zip(wanted).enumerate() {
        session_matches(run.world, session, expected)?;
        let is_next = session.number as usize == number + 1 && session.previous_session_id.as_deref() == previous;
        ensure!(is_next, "the chain is broken at {session:?}");
        previous = Some(&session.id);
        let is_active = is_live(run, expected, wanted.get(number + 1));
        ensure!(session.is_active == is_active, "is_active is wrong at {}: {session:?}", run.now);
        let ended_at = (!is_active).then_some(session.last_activity);
        ensure!(session.ended_at == ended_at, "ended_at is wrong: {session:?}");
    }
    events_are_in_their_sessions(&consumer, sessions, expected)
}

/// A session that a batch did not change keeps its version, so that consumers need no new one. (Two sessions have equal contents
/// only in worlds without extras. And a request that ended a session is not part of its content.)
fn unchanged_sessions_keep_their_version(before: &Run, after: &Run, sessions: &[Session]) -> CheckResult {
    if !after.world.has_extras() || after.ends != 0 {
        return Ok(());
    }
    // Why a session ended is part of its end.
    let ended_by = |sessions: &[Session], id: &str| {
        let next = sessions.iter().skip_while(|session| session.id != id).nth(1);
        next.map(|next| next.reason).filter(|reason| reason.is_of_source())
    };
    let old_sessions = before.sessions();
    for old in &old_sessions {
        let is_same = |session: &&Session| {
            let is_ended_alike = ended_by(sessions, &old.id) == ended_by(&old_sessions, &old.id);
            session.id == old.id && content(session) == content(old) && is_ended_alike
        };
        let same = sessions.iter().find(is_same);
        let keeps = same.is_none_or(|session| session.version == old.version);
        ensure!(keeps, "nothing changed but the version: {old:?}, {same:?}");
    }
    Ok(())
}

/// A consumer has the oracle's events in each session.
fn events_are_in_their_sessions(consumer: &Consumer, sessions: &[Session], expected: &Expected) -> CheckResult {
    for (session, &events) in sessions.iter().zip(&expected.sets) {
        let (id, found) = (id_of(session), consumer.events_of(id_of(session)));
        ensure!(found == events, "a consumer has the events {found:05b} in {id} instead of {events:05b}");
    }
    Ok(())
}

/// Returns whether an event at the time of the run, or at the session's last activity if that is later, would continue the session.
/// Of several sessions that is the last one, or the last one that has begun if the next one lies more than a second ahead.
fn is_live(run: &Run, session: &OracleSession, next: Option<&OracleSession>) -> bool {
    let rules = &run.world.rules;
    let now = run.now.max(session.last_activity);
    let gap = now - session.last_activity;
    let is_timeout = if rules.boundary == Boundary::Inclusive { gap > TIMEOUT } else { gap >= TIMEOUT };
    let is_full = rules.max_events.is_some_and(|max| session.event_count >= max);
    let until = next.map_or(Millis::MAX, |next| next.started_at);
    let is_ended = members(run.ends).any(|event| (session.last_activity..until).contains(&run.world.at(event)));
    let latest = run.now + 1_000;
    let is_last = next.is_none() || session.started_at <= latest && until > now.max(latest);
    is_last && !is_timeout && !is_full && !is_ended && now - session.started_at <= MAX_DURATION
}

/// A session has the oracle's content.
fn session_matches(world: &World, session: &Session, expected: &OracleSession) -> CheckResult {
    let equals = |value: &Option<String>, expected: Option<&str>| value.as_deref() == expected;
    let times = (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis());
    let last = session.properties.get("last").map(|value| value.get().trim_matches('"'));
    let device = session.device.as_ref().map(|device| device.device_type.as_str());
    let is_same = session.reason.name() == expected.reason
        && times == (expected.started_at, expected.last_activity)
        && (session.event_count, session.page_views) == (expected.event_count, expected.page_views)
        && equals(&session.entry_url, expected.entry_url)
        && equals(&session.landing_page, expected.landing_page)
        && equals(&session.exit_page, expected.exit_page)
        && equals(&session.referrer, expected.referrer)
        && session.utm == expected.utm
        && equals(&session.user_id, last)
        && last == expected.events.last().copied().filter(|_| world.has_extras())
        && device == expected.events.first().copied().filter(|_| world.has_extras());
    ensure!(is_same, "{session:?}\ninstead of {expected:?}");
    Ok(())
}

/// Every id that was given out leads to a session: to the session of that id, if there is one, and always to one with an event
/// that the id was given out for.
pub fn ids_lead_to_their_events(run: &Run, sessions: &[Session]) -> CheckResult {
    let mut consumer = run.consumer.clone();
    consumer.apply_corrections(&run.timeline.corrections, run.world)?;
    // Looking up all ids would be a large part of the work. In large worlds only ids that lead to another session are looked up.
    let is_looked_up = |id: Uuid| run.world.has_extras() || sessions.iter().all(|session| id_of(session) != id);
    for &(id, events) in consumer.given_out.iter().filter(|(id, _)| is_looked_up(*id)) {
        let Some(found) = run.session(id) else { return Err(format!("{id} leads nowhere")) };
        let found = id_of(&found);
        let is_own = found == id || sessions.iter().all(|session| id_of(session) != id);
        let has_its_event = consumer.events_of(found) & events != 0;
        ensure!(is_own && has_its_event, "{id} was given out for {events:b} and leads to {found}");
    }
    Ok(())
}

/// If all events are delivered again, nothing changes, and each gets the session that it is in.
fn a_duplicate_changes_nothing(run: &Run, batch: &[usize], first: &Applied, sessions: &[Session]) -> CheckResult {
    let delivered: Vec<usize> = members(run.delivered).collect();
    let (timeline, second) = run.applied(&delivered, &run.sources, run.now);
    ensure!(!second.changed && timeline == run.timeline, "a duplicate changed the timeline to {timeline:?}");
    let sets = &run.expected().sets;
    let mut consumer = run.consumer.clone();
    for (&event, assignment) in delivered.iter().zip(&second.assignments) {
        // A keep-alive event carries the session of its time, if any, but does not belong to it.
        if run.is_keep_alive(event) {
            let is_known =
                |assignment: &Assignment| sessions.iter().any(|session| id_of(session) == assignment.session_id);
            ensure!(
                assignment.as_ref().is_none_or(is_known),
                "event {event} is assigned to an unknown session: {assignment:?}"
            );
            continue;
        }
        let Some(assignment) = assignment else { return Err(format!("event {event} is not known")) };
        let number = sets.iter().position(|set| set >> event & 1 == 1).unwrap_or_default();
        let (id, previous) = (id_of(&sessions[number]), number.checked_sub(1).map(|before| id_of(&sessions[before])));
        ensure!((assignment.session_id, assignment.previous) == (id, previous), "event {event}: {assignment:?}");
        assignment_matches(run, event, assignment, number)?;
        if let Some(position) = batch.iter().position(|&other| other == event) {
            let original = first.assignments[position].as_ref();
            let is_same = original.is_some_and(|original| is_repeated(original, assignment));
            ensure!(is_same, "{original:?} became {assignment:?} with a duplicate");
        }
        consumer.record(event, assignment.session_id, assignment.version);
    }
    // A consumer that sees the duplicates before the corrections ends with the same.
    consumer.apply_corrections(&run.timeline.corrections, run.world)?;
    events_are_in_their_sessions(&consumer, sessions, run.expected())
}

/// A duplicate is answered as the event was, and known to be one.
pub fn is_repeated(original: &Assignment, duplicate: &Assignment) -> bool {
    duplicate.is_duplicate && Assignment { is_duplicate: false, ..duplicate.clone() } == *original
}

/// An assignment has the values of the session up to its event. If the event's place is finalized, it has those of the whole
/// session.
fn assignment_matches(run: &Run, event: usize, assignment: &Assignment, number: usize) -> CheckResult {
    let (expected, set) = (&run.expected().sessions[number], run.expected().sets[number]);
    let is_finalized = run.world.at(event) < run.timeline.watermark;
    // Without the keep-alive events in between, the session would be several sessions.
    let alive: usize = members(run.delivered).filter(|&event| run.is_keep_alive(event)).map(|event| 1 << event).sum();
    let up_to = (set | alive) & if is_finalized { usize::MAX } else { (2 << event) - 1 };
    // The session up to the event.
    let up_to_event = run.expected_of(up_to).sessions.first().unwrap_or(expected);
    let equals = |value: &Option<Arc<str>>, expected: Option<&str>| value.as_deref() == expected;
    let is_start = expected.events[0] == uuid_of(event);
    let is_right = assignment.reason.name() == expected.reason
        && assignment.number as usize == number + 1
        && (assignment.started_at, assignment.at) == (expected.started_at, run.world.at(event))
        && (assignment.page_views, equals(&assignment.exit_page, up_to_event.exit_page))
            == (up_to_event.page_views, true)
        && equals(&assignment.entry_url, expected.entry_url)
        && equals(&assignment.referrer, expected.referrer)
        && (assignment.is_start == is_start
            || is_finalized && (!assignment.is_start || assignment.at == expected.started_at))
        && !assignment.is_late;
    ensure!(is_right, "event {event} of {expected:?} is assigned {assignment:?}");
    Ok(())
}
