//! What holds where every event comes in time: after each step, the sessions of what was delivered are the oracle's.

use std::sync::Arc;

use session_tracking::config::Boundary;
use session_tracking::model::SessionState;
use session_tracking::session::Session;
use session_tracking::timeline::{Applied, Assignment, Closing};
use uuid::Uuid;

use super::consumer::{Consumer, Verdict, content, ensure, id_of};
use super::run::{Clock, Run};
use super::walk::Check;
use super::world::{Known, MAX_DURATION, TIMEOUT, World, members, uuid_of};
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
    ) -> Verdict {
        ensure!(applied.changed && after.late == 0, "new events changed nothing, or are late");
        let (corrections, due_at) = (&after.timeline.corrections, after.timeline.due_at);
        let is_due = corrections.is_empty() || due_at.is_some_and(|due_at| due_at <= after.now);
        ensure!(is_due, "notices wait until {due_at:?}: {corrections:?}");
        sessions_are_right(after, sessions)?;
        what_stays_keeps_its_version(before, after, sessions)?;
        ids_lead_to_their_events(after, sessions)?;
        a_duplicate_changes_nothing(after, batch, applied, sessions)
    }

    fn holds(&self, run: &Run) -> Verdict {
        sessions_are_right(run, &run.sessions())
    }

    fn closed(&self, archived: &[SessionState], run: &mut Run, closing: &Closing) -> Verdict {
        run.consumer.hear(&closing.corrections, run.world)?;
        let is_new = run.archive.len() == archived.len() + closing.ended.len();
        ensure!(is_new, "a session ended twice: {:?}", closing.ended);
        for state in &closing.ended {
            run.accounts.take(&state.ended_session(&run.world.visitor))?;
        }
        // What ended is looked at again, as it was then, after each step that follows: it must have been final.
        Ok(())
    }

    fn finished(&self, run: &Run) -> Verdict {
        let known = run.known().sessions.len();
        ensure!(run.archive.len() == known, "{} of {known} sessions ended", run.archive.len());
        ids_lead_to_their_events(run, &run.sessions())
    }
}

/// The sessions are the oracle's, field by field; their chain holds; each event is in its session once corrections are heard.
fn sessions_are_right(run: &Run, sessions: &[Session]) -> Verdict {
    let known = run.known();
    let count = known.sessions.len();
    ensure!(sessions.len() == count, "{} sessions instead of {count}: {sessions:?}", sessions.len());
    let mut consumer = run.consumer.clone();
    consumer.hear(&run.timeline.corrections, run.world)?;
    let mut previous: Option<&str> = None;
    for (number, (session, known)) in sessions.iter().zip(&known.sessions).enumerate() {
        same(run.world, session, known)?;
        let is_next = session.number as usize == number + 1 && session.previous_session_id.as_deref() == previous;
        ensure!(is_next, "the chain is broken at {session:?}");
        previous = Some(&session.id);
        let is_active = number + 1 == sessions.len() && continues(run, known);
        ensure!(session.is_active == is_active, "is_active is wrong at {}: {session:?}", run.now);
        let ended_at = (!is_active).then_some(session.last_activity);
        ensure!(session.ended_at == ended_at, "ended_at is wrong: {session:?}");
    }
    are_complete(&consumer, sessions, known)
}

/// Nobody has to hear again of a session that a batch did not change. (Where events say what they are, no two contents are
/// alike; that a call ended a session is not part of its content.)
fn what_stays_keeps_its_version(before: &Run, after: &Run, sessions: &[Session]) -> Verdict {
    if !after.world.has_extras() || after.ends != 0 {
        return Ok(());
    }
    for known in before.sessions() {
        let is_same = |session: &&Session| session.id == known.id && content(session) == content(&known);
        let same = sessions.iter().find(is_same);
        let keeps = same.is_none_or(|session| session.version == known.version);
        ensure!(keeps, "nothing changed but the version: {known:?}, {same:?}");
    }
    Ok(())
}

/// The events of each session are where the oracle has them.
fn are_complete(consumer: &Consumer, sessions: &[Session], known: &Known) -> Verdict {
    for (session, &events) in sessions.iter().zip(&known.sets) {
        let (id, emitted) = (id_of(session), consumer.events_of(id_of(session)));
        ensure!(emitted == events, "a consumer has the events {emitted:05b} in {id} instead of {events:05b}");
    }
    Ok(())
}

/// Whether an event that came now and says nothing of its source would continue the session.
fn continues(run: &Run, session: &OracleSession) -> bool {
    let rules = &run.world.rules;
    let now = run.now.max(session.last_activity);
    let gap = now - session.last_activity;
    let is_timeout = if rules.boundary == Boundary::Inclusive { gap > TIMEOUT } else { gap >= TIMEOUT };
    let is_full = rules.max_events.is_some_and(|most| session.event_count >= most);
    let is_ended = members(run.ends).any(|event| run.world.at(event) >= session.last_activity);
    !is_timeout && !is_full && !is_ended && now - session.started_at <= MAX_DURATION
}

/// Whether a session has the oracle's content.
fn same(world: &World, session: &Session, known: &OracleSession) -> Verdict {
    let text = |value: &Option<String>, known: Option<&str>| value.as_deref() == known;
    let times = (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis());
    let last = session.properties.get("last").map(|value| value.get().trim_matches('"'));
    let device = session.device.as_ref().map(|device| device.device_type.as_str());
    let is_same = session.reason.name() == known.reason
        && times == (known.started_at, known.last_activity)
        && (session.event_count, session.page_views) == (known.event_count, known.page_views)
        && text(&session.entry_url, known.entry_url)
        && text(&session.landing_page, known.landing_page)
        && text(&session.exit_page, known.exit_page)
        && text(&session.referrer, known.referrer)
        && session.utm == known.utm
        && last == known.events.last().copied().filter(|_| world.has_extras())
        && device == known.events.first().copied().filter(|_| world.has_extras());
    ensure!(is_same, "{session:?}\ninstead of {known:?}");
    Ok(())
}

/// Every id once said is primary to a session: its own if there is one, and always one with an event that it was said of.
pub fn ids_lead_to_their_events(run: &Run, sessions: &[Session]) -> Verdict {
    let mut consumer = run.consumer.clone();
    consumer.hear(&run.timeline.corrections, run.world)?;
    // One by one they would be a large part of the work: in large worlds only those that primary elsewhere.
    let is_worth_it = |id: Uuid| run.world.has_extras() || sessions.iter().all(|session| id_of(session) != id);
    for &(id, events) in consumer.emitted.iter().filter(|(id, _)| is_worth_it(*id)) {
        let Some(found) = run.session(id) else { return Err(format!("{id} leads nowhere")) };
        let found = id_of(&found);
        let is_own = found == id || sessions.iter().all(|session| id_of(session) != id);
        let is_meant = consumer.events_of(found) & events != 0;
        ensure!(is_own && is_meant, "{id} was said of {events:b} and leads to {found}");
    }
    Ok(())
}

/// All that was delivered, delivered again, changes nothing, and says of each event where it is.
fn a_duplicate_changes_nothing(run: &Run, batch: &[usize], first: &Applied, sessions: &[Session]) -> Verdict {
    let delivered: Vec<usize> = members(run.delivered).collect();
    let (timeline, again) = run.applied(&delivered, &run.sources, run.now);
    ensure!(!again.changed && timeline == run.timeline, "a repeat changed the timeline to {timeline:?}");
    let sets = &run.known().sets;
    let mut consumer = run.consumer.clone();
    for (&event, assignment) in delivered.iter().zip(&again.assignments) {
        // A keep-alive event is in the session of its time, if any, and none of its events.
        if run.is_keep_alive(event) {
            let is_known = |assignment: &Assignment| sessions.iter().any(|known| id_of(known) == assignment.session_id);
            ensure!(assignment.as_ref().is_none_or(is_known), "event {event} is in no session: {assignment:?}");
            continue;
        }
        let Some(assignment) = assignment else { return Err(format!("event {event} is not known")) };
        let number = sets.iter().position(|set| set >> event & 1 == 1).unwrap_or_default();
        let (id, previous) = (id_of(&sessions[number]), number.checked_sub(1).map(|before| id_of(&sessions[before])));
        ensure!((assignment.session_id, assignment.previous) == (id, previous), "event {event}: {assignment:?}");
        assigned(run, event, assignment, number)?;
        if let Some(place) = batch.iter().position(|&other| other == event) {
            let emitted = first.assignments[place].as_ref();
            ensure!(emitted == Some(assignment), "{emitted:?} became {assignment:?} with a repeat");
        }
        consumer.note(event, assignment.session_id, assignment.version);
    }
    // Whoever heard the repeat before the corrections ends with the same.
    consumer.hear(&run.timeline.corrections, run.world)?;
    are_complete(&consumer, sessions, run.known())
}

/// What is said of an event's session up to that event; of one whose part is finalized, of the session as a whole.
fn assigned(run: &Run, event: usize, assignment: &Assignment, number: usize) -> Verdict {
    let (known, set) = (&run.known().sessions[number], run.known().sets[number]);
    let is_finalized = run.world.at(event) < run.timeline.watermark;
    // Without the keep-alive events in between it would be several.
    let alive: usize = members(run.delivered).filter(|&event| run.is_keep_alive(event)).map(|event| 1 << event).sum();
    let up_to = (set | alive) & if is_finalized { usize::MAX } else { (2 << event) - 1 };
    // The same session as of that event: it begins alike.
    let part = run.known_of(up_to).sessions.first().unwrap_or(known);
    let text = |value: &Option<Arc<str>>, known: Option<&str>| value.as_deref() == known;
    let is_start = known.events[0] == uuid_of(event);
    let is_right = assignment.reason.name() == known.reason
        && assignment.number as usize == number + 1
        && (assignment.started_at, assignment.at) == (known.started_at, run.world.at(event))
        && (assignment.page_views, text(&assignment.exit_page, part.exit_page)) == (part.page_views, true)
        && text(&assignment.entry_url, known.entry_url)
        && text(&assignment.referrer, known.referrer)
        && (assignment.is_start == is_start
            || is_finalized && (!assignment.is_start || assignment.at == known.started_at))
        && !assignment.is_late;
    ensure!(is_right, "event {event} of {known:?} is assigned {assignment:?}");
    Ok(())
}
