//! The checks if some events come late: they are placed by the rule for late events, and never disturb the live session.

use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Reason, Session};
use session_tracking::timeline::{Applied, Closing};

use super::consumer::{CheckResult, Consumer, ensure, id_of};
use super::exact::{ids_lead_to_their_events, is_repeated};
use super::run::{Clock, Run};
use super::walk::Check;
use super::world::{MAX_DURATION, TIMEOUT, is_page_view, members, page_of, url_of};
use crate::oracle::OracleSession;

#[derive(Debug, Clone, Copy)]
pub struct Late(pub Clock);

impl Check for Late {
    fn clock(&self) -> Clock {
        self.0
    }

    fn delivered(
        &self,
        before: &Run,
        after: &Run,
        batch: &[usize],
        applied: &Applied,
        sessions: &[Session],
    ) -> CheckResult {
        ensure!(applied.changed, "new events changed nothing");
        late_events_are_behind_the_watermark(before, after, batch, applied)?;
        backdated_events_hold_the_watermark(before, after, batch)?;
        sessions_are_consistent(after, sessions)?;
        if batch.iter().all(|event| after.late >> event & 1 == 1) {
            let old = before.sessions();
            nothing_moved(before, after, &old, sessions)?;
            match batch {
                // If sessions overlap, which only overtaken deliveries cause, the rule has no single answer.
                _ if old.windows(2).any(|pair| span(&pair[0]).1 > span(&pair[1]).0) => {}
                [event] => joined_by_the_rule(before, &old, after, *event)?,
                _ => joined_as_one_by_one(before, after, batch)?,
            }
        }
        a_duplicate_changes_nothing(after, batch, applied, sessions)
    }

    fn holds(&self, run: &Run) -> CheckResult {
        sessions_are_consistent(run, &run.sessions())
    }

    fn closed(&self, emitted: &[SessionState], run: &mut Run, closing: &Closing) -> CheckResult {
        run.consumer.apply_corrections(&closing.corrections, run.world)?;
        for state in &closing.ended {
            let corrected = emitted.iter().find(|old| old.id == state.id);
            let is_higher = corrected.is_none_or(|old| old.version < state.version);
            ensure!(is_higher, "{} is emitted again with its old version {}", state.id, state.version);
            run.versions.record(&state.ended_session(&run.world.visitor))?;
            run.versions.record_end(state, &run.world.rules)?;
        }
        Ok(())
    }

    fn finished(&self, run: &Run) -> CheckResult {
        let sessions = run.sessions();
        ensure!(sessions.len() == run.emitted.len(), "a session never ended: {sessions:?}");
        sessions_are_consistent(run, &sessions)
    }
}

/// An event is late if it lies behind the watermark, or if another late event of its batch moves the watermark past it.
fn late_events_are_behind_the_watermark(before: &Run, after: &Run, batch: &[usize], applied: &Applied) -> CheckResult {
    let (old, new) = (before.timeline.watermark, after.timeline.watermark);
    let is_behind = |event: &usize| after.world.at(*event) < old;
    for (event, assignment) in batch.iter().zip(&applied.assignments) {
        let Some(assignment) = assignment else { return Err(format!("event {event} has no session")) };
        let may_be = batch.iter().any(is_behind) && after.world.at(*event) < new;
        let is_right = if assignment.is_late { may_be } else { !is_behind(event) };
        // If no delivery overtakes another, an event that is received in time is never late.
        let received_at = before.time_for(batch.iter().map(|event| 1 << event).sum());
        let is_in_time = after.world.at(*event) >= received_at - after.world.lateness();
        let is_right = is_right && !(assignment.is_late && is_in_time && after.clock == Clock::Newest);
        ensure!(
            is_right,
            "is_late is wrong for event {event}, with the watermark at {old}, then {new}: {assignment:?}"
        );
    }
    Ok(())
}

/// A backdated event holds the watermark until one timeout after its receipt.
fn backdated_events_hold_the_watermark(before: &Run, after: &Run, batch: &[usize]) -> CheckResult {
    let received_at = before.time_for(batch.iter().map(|event| 1 << event).sum());
    let is_backdated = |event: &usize| {
        let at = after.world.at(*event);
        after.late >> event & 1 == 0 && at < received_at - after.world.lateness()
    };
    let until = after.timeline.held_until;
    let is_held = !batch.iter().any(is_backdated) || until >= Some(received_at + TIMEOUT);
    ensure!(is_held, "a backdated event of {batch:?} holds nothing: {until:?}");
    Ok(())
}

/// The checks after each step.
fn sessions_are_consistent(run: &Run, sessions: &[Session]) -> CheckResult {
    let mut consumer = run.consumer.clone();
    consumer.apply_corrections(&run.timeline.corrections, run.world)?;
    let ended = &run.timeline.ended;
    ensure!(ended.is_sorted_by_key(|state| state.facts.started_at), "what ended is not in order: {ended:?}");
    let is_recalled = |state: &&SessionState| ended.iter().any(|other| other.id == state.id);
    let emitted = run.emitted.len() - run.emitted.iter().filter(is_recalled).count();
    let (archived, closed) = (run.timeline.archived as usize, run.timeline.closed.len());
    ensure!(archived + closed == emitted, "{archived} sessions archived and {closed} closed instead of {emitted}");
    let mut all = 0;
    for session in sessions {
        let events = consumer.events_of(id_of(session));
        all |= events;
        counts_its_events(run, session, events)?;
    }
    ensure!(all == run.delivered, "of the events {:05b} only {all:05b} are in a session", run.delivered);
    for pair in sessions.windows(2) {
        ensure!(pair[0].id != pair[1].id, "an id stands for two sessions: {pair:?}");
        let is_all_late = |session: &Session| consumer.events_of(id_of(session)) & !run.late == 0;
        // Events that are placed exactly can enclose a session that late events made, and a late event of another source
        // makes a session of its own within one that is not over.
        let may_overlap = pair.iter().any(is_all_late);
        let is_apart = pair[0].last_activity <= pair[1].started_at;
        ensure!(is_apart || may_overlap, "sessions overlap: {pair:?}");
    }
    let expected = run.expected_of(run.delivered & !run.late);
    for (expected, &events) in expected.sessions.iter().zip(&expected.sets) {
        is_undisturbed(run, &consumer, sessions, expected, events)?;
    }
    ids_lead_to_their_events(run, sessions)
}

/// A session counts exactly its events, and its start and its last activity are times of its events.
fn counts_its_events(run: &Run, session: &Session, events: usize) -> CheckResult {
    let pages = members(events).filter(|&event| is_page_view(event)).count();
    let counts = (session.event_count, session.page_views);
    ensure!(counts == (events.count_ones(), pages as u32), "{session:?} does not count its events {events:05b}");
    let (start, last) = span(session);
    let is_event = |edge: Millis| members(events).any(|event| run.world.at(event) == edge);
    ensure!(is_event(start) && is_event(last) && start <= last, "no event at an edge of {session:?}");
    ensure!(last - start <= MAX_DURATION, "{session:?} is too long");
    // The pages at the edges are those of the events there. The edges of a live session are compared with the oracle elsewhere.
    let at = |edge: Millis| members(events).filter(move |&event| run.world.at(event) == edge);
    let is_first = |event| url_of(event).is_none() || session.entry_url.as_deref() == url_of(event);
    let is_last = |event| page_of(event).is_none() || session.exit_page.as_deref() == page_of(event);
    let is_right = !run.is_over(id_of(session)) || at(start).any(is_first) && at(last).any(is_last);
    ensure!(is_right, "the pages of {session:?} are not those of its first and last event");
    Ok(())
}

/// The events in time are in the same sessions as without the late ones. A live session equals the oracle's, except for its
/// counts. Late events may have extended a session that is over, at either end.
fn is_undisturbed(
    run: &Run,
    consumer: &Consumer,
    sessions: &[Session],
    expected: &OracleSession,
    events: usize,
) -> CheckResult {
    let holds = |session: &&Session| consumer.events_of(id_of(session)) & !run.late == events;
    let Some(session) = sessions.iter().find(holds) else { return Err(format!("no session for {expected:?}")) };
    let (start, last) = span(session);
    // A late event that extended the session before may have changed which of the rules of time began this one.
    let is_in_time = |reason: &str| ["first", "timeout", "max_duration"].contains(&reason);
    let reason = session.reason.name();
    let same_reason = reason == expected.reason || run.late != 0 && is_in_time(reason) && is_in_time(expected.reason);
    // A late event that became the first one gives the session its source.
    let same_source = (session.referrer.as_deref(), &session.utm) == (expected.referrer, &expected.utm);
    let is_right = same_reason && (same_source || run.is_over(id_of(session)) && start < expected.started_at);
    ensure!(is_right, "{session:?} instead of {expected:?}");
    let pages = (session.entry_url.as_deref(), session.landing_page.as_deref(), session.exit_page.as_deref());
    let is_same = (start, last) == (expected.started_at, expected.last_activity)
        && pages == (expected.entry_url, expected.landing_page, expected.exit_page);
    let has_grown = run.is_over(id_of(session)) && start <= expected.started_at && expected.last_activity <= last;
    ensure!(is_same || has_grown, "{session:?} is live, and moved from {expected:?}");
    Ok(())
}

/// A batch of late events leaves every session its id and its position; a live session also keeps its start, end and pages.
fn nothing_moved(before: &Run, after: &Run, before_batch: &[Session], sessions: &[Session]) -> CheckResult {
    for old in before_batch {
        let found = sessions.iter().find(|session| session.id == old.id);
        let Some(session) = found else { return Err(format!("{old:?} is gone")) };
        let position = |session: &Session| (session.reason, session.number, session.previous_session_id.clone());
        ensure!(position(session) == position(old), "{old:?} became {session:?}");
        let edges = |session: &Session| {
            let pages = [&session.entry_url, &session.landing_page, &session.exit_page].map(Option::clone);
            (span(session), pages, session.is_active)
        };
        // The write finalizes a session that is over before it places late events.
        let is_over = before.is_over(id_of(old)) || after.is_over(id_of(old));
        ensure!(is_over || edges(session) == edges(old), "the live {old:?} became {session:?}");
        let is_changed = session.event_count != old.event_count;
        ensure!(
            is_changed == (session.version > old.version),
            "the version does not follow the change from {old:?} to {session:?}"
        );
    }
    Ok(())
}

/// A late event joins the session that began last before it, if it contains the event or ended within the timeout before it; else
/// the one that begins within the timeout after it. It joins only if no campaign or referrer would begin a session in between.
/// Otherwise it makes a session of its own.
fn joined_by_the_rule(before: &Run, old: &[Session], after: &Run, event: usize) -> CheckResult {
    let at = after.world.at(event);
    let joined = old.iter().find(|session| after.consumer.events_of(id_of(session)) >> event & 1 == 1);
    // A session that is over grows to include the event, but not beyond its maximum duration.
    let reaches = |session: &&Session| {
        let (start, last) = span(session);
        let is_over = before.is_over(id_of(session)) || after.is_over(id_of(session));
        let fits = !is_over || last.max(at) - start.min(at) <= MAX_DURATION;
        start - TIMEOUT <= at && at <= last + TIMEOUT && fits
    };
    let has_begun = |session: &&Session| span(session).0 <= at;
    let context = &after.world.arrival(event, after.sources[event]).entry.context;
    let is_alike = |session: &&Session| {
        let utm = session.utm.as_ref().zip(context.utm.as_deref()).is_none_or(|(one, other)| one == other);
        let referrer = session.referrer.as_deref().zip(context.referrer.as_deref());
        utm && referrer.is_none_or(|(one, other)| one == other)
    };
    // Of sessions that began at the same time, the one that was made last comes last.
    let mut old: Vec<&Session> = old.iter().collect();
    old.sort_by_key(|session| (session.started_at, session.number));
    let last_before = old.iter().copied().rev().filter(has_begun).find(reaches).filter(is_alike);
    let first_after = old.iter().copied().find(|session| !has_begun(session)).filter(reaches).filter(is_alike);
    match (joined, last_before.or(first_after)) {
        (Some(session), Some(choice)) => ensure!(session.id == choice.id, "event {event} joined {session:?}"),
        (Some(session), None) => return Err(format!("event {event} joined {session:?}")),
        (None, Some(choice)) => return Err(format!("event {event} did not join {choice:?}")),
        (None, None) => follows_the_session_before(&old, after, event)?,
    }
    Ok(())
}

/// A session that a late event made is over, and follows the session before it.
fn follows_the_session_before(old: &[&Session], after: &Run, event: usize) -> CheckResult {
    let at = after.world.at(event);
    let previous = old.iter().copied().rfind(|session| span(session).0 <= at);
    // Archived sessions are looked up only as far back as the event could join one.
    let is_far = |session: &Session| at - span(session).0 > 2 * MAX_DURATION + TIMEOUT;
    if previous.is_some_and(is_far) {
        return Ok(());
    }
    let sessions = after.sessions();
    let own = sessions.iter().find(|session| after.consumer.events_of(id_of(session)) == 1 << event);
    let follows = |own: &Session| {
        own.number == previous.map_or(0, |session| session.number) + 1
            && own.previous_session_id.as_ref() == previous.map(|session| &session.id)
            && (own.reason == Reason::First) == previous.is_none()
            && !own.is_active
    };
    ensure!(own.is_some_and(follows), "{own:?} does not follow {previous:?}");
    Ok(())
}

/// Late events of one batch are where they would be if they had come one by one, the oldest first.
fn joined_as_one_by_one(before: &Run, after: &Run, batch: &[usize]) -> CheckResult {
    let received_at = before.time_for(batch.iter().map(|event| 1 << event).sum());
    let mut one_by_one = before.clone();
    // The batch is in time order.
    for event in batch {
        let applied = one_by_one.apply(&[*event], &after.sources, received_at);
        let id = applied.assignments[0].as_ref().map(|assignment| assignment.session_id);
        let is_same = id.is_some_and(|id| after.consumer.events_of(id) >> event & 1 == 1);
        ensure!(is_same, "event {event} alone joins {id:?}");
    }
    Ok(())
}

/// If the same batch, or all batches, are delivered again, nothing changes, and each event gets the session that it is in.
fn a_duplicate_changes_nothing(run: &Run, batch: &[usize], first: &Applied, sessions: &[Session]) -> CheckResult {
    let (_, second) = run.applied(batch, &run.sources, run.now);
    ensure!(!second.changed, "a duplicate changed the timeline");
    let pairs = first.assignments.iter().zip(&second.assignments).zip(batch);
    for ((original, duplicate), &event) in pairs {
        let is_same = match (original, duplicate) {
            (Some(original), Some(duplicate)) if !run.is_keep_alive(event) => is_repeated(original, duplicate),
            _ => original == duplicate,
        };
        ensure!(is_same, "{original:?}\nbecame {duplicate:?}");
    }
    let delivered: Vec<usize> = members(run.delivered).collect();
    let (_, third) = run.applied(&delivered, &run.sources, run.now);
    ensure!(!third.changed, "duplicates changed the timeline");
    let mut consumer = run.consumer.clone();
    consumer.apply_corrections(&run.timeline.corrections, run.world)?;
    for (&event, assignment) in delivered.iter().zip(&third.assignments) {
        let Some(assignment) = assignment else { return Err(format!("event {event} is not known")) };
        let is_there = consumer.events_of(assignment.session_id) >> event & 1 == 1;
        let is_late = run.late >> event & 1 == 1;
        let session = sessions.iter().find(|session| id_of(session) == assignment.session_id);
        // A late event, and an event of a session that is over, carries all page views of its session.
        let is_whole = session.is_some_and(|session| session.page_views == assignment.page_views);
        let is_whole_expected = is_late || run.is_over(assignment.session_id);
        let is_right = is_there && assignment.is_late == is_late && (is_whole || !is_whole_expected);
        ensure!(is_right, "event {event} became {assignment:?} with a duplicate");
    }
    Ok(())
}

fn span(session: &Session) -> (Millis, Millis) {
    (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis())
}
