//! What holds where events come too late: they are placed by the rule for late events and never disturb the live session.

use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Reason, Session};
use session_tracking::timeline::{Applied, Closing};

use super::consumer::{Consumer, Verdict, ensure, id_of};
use super::exact::ids_lead_to_their_events;
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
    ) -> Verdict {
        ensure!(applied.changed, "new events changed nothing");
        late_behind_the_watermark(before, after, batch, applied)?;
        held_while_others_may_follow(before, after, batch)?;
        hold_together(after, sessions)?;
        if batch.iter().all(|event| after.late >> event & 1 == 1) {
            let known = before.sessions();
            nothing_moved(before, &known, sessions)?;
            match batch {
                // Where sessions overlap, which only overtaken deliveries bring about, the rule has no one answer.
                _ if known.windows(2).any(|pair| span(&pair[0]).1 > span(&pair[1]).0) => {}
                [event] => joined_by_the_rule(before, &known, after, *event)?,
                _ => joined_as_one_by_one(before, after, batch)?,
            }
        }
        a_duplicate_changes_nothing(after, batch, applied, sessions)
    }

    fn holds(&self, run: &Run) -> Verdict {
        hold_together(run, &run.sessions())
    }

    fn closed(&self, archived: &[SessionState], run: &mut Run, closing: &Closing) -> Verdict {
        run.consumer.hear(&closing.corrections, run.world)?;
        for state in &closing.ended {
            let corrected = archived.iter().find(|known| known.id == state.id);
            let is_higher = corrected.is_none_or(|known| known.version < state.version);
            ensure!(is_higher, "a correction of {} keeps its version {}", state.id, state.version);
            run.accounts.take(&state.ended_session(&run.world.visitor))?;
        }
        Ok(())
    }

    fn finished(&self, run: &Run) -> Verdict {
        let sessions = run.sessions();
        ensure!(sessions.len() == run.archive.len(), "a session never ended: {sessions:?}");
        hold_together(run, &sessions)
    }
}

/// An event is late if it lies behind the watermark, or falls behind it as another late event of its batch takes it along.
fn late_behind_the_watermark(before: &Run, after: &Run, batch: &[usize], applied: &Applied) -> Verdict {
    let (old, new) = (before.timeline.watermark, after.timeline.watermark);
    let is_behind = |event: &usize| after.world.at(*event) < old;
    for (event, assignment) in batch.iter().zip(&applied.assignments) {
        let Some(assignment) = assignment else { return Err(format!("event {event} has no session")) };
        let may_be = batch.iter().any(is_behind) && after.world.at(*event) < new;
        let is_right = if assignment.is_late { may_be } else { !is_behind(event) };
        // Where no delivery overtakes another, what is received in time is never late.
        let received_at = before.time_for(batch.iter().map(|event| 1 << event).sum());
        let is_in_time = after.world.at(*event) >= received_at - after.world.lateness();
        let is_right = is_right && !(assignment.is_late && is_in_time && after.clock == Clock::Newest);
        ensure!(is_right, "event {event} is late or not, with the watermark at {old}, then {new}: {assignment:?}");
    }
    Ok(())
}

/// A backdated event holds the watermark: nothing that was placed exactly is finalized until a timeout after its receipt.
fn held_while_others_may_follow(before: &Run, after: &Run, batch: &[usize]) -> Verdict {
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

/// What holds after each step.
fn hold_together(run: &Run, sessions: &[Session]) -> Verdict {
    let mut consumer = run.consumer.clone();
    consumer.hear(&run.timeline.corrections, run.world)?;
    let ended = &run.timeline.ended;
    ensure!(ended.is_sorted_by_key(|state| state.facts.started_at), "what ended is not in order: {ended:?}");
    let is_back = |state: &&SessionState| ended.iter().any(|other| other.id == state.id);
    let archived = run.archive.len() - run.archive.iter().filter(is_back).count();
    ensure!(run.timeline.archived as usize == archived, "{} archived, not {archived}", run.timeline.archived);
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
        // Events that are placed exactly may come to lie around a session that late ones made, and a late one of another
        // source makes a session of its own within one that is not over.
        let may_overlap = pair.iter().any(is_all_late);
        let is_apart = pair[0].last_activity <= pair[1].started_at;
        ensure!(is_apart || may_overlap, "sessions overlap: {pair:?}");
    }
    let known = run.known_of(run.delivered & !run.late);
    for (known, &events) in known.sessions.iter().zip(&known.sets) {
        is_undisturbed(run, &consumer, sessions, known, events)?;
    }
    ids_lead_to_their_events(run, sessions)
}

/// A session counts the events that it was said of, and its edges are the times of events of it.
fn counts_its_events(run: &Run, session: &Session, events: usize) -> Verdict {
    let pages = members(events).filter(|&event| is_page_view(event)).count();
    let counts = (session.event_count, session.page_views);
    ensure!(counts == (events.count_ones(), pages as u32), "{session:?} counts not its events {events:05b}");
    let (start, last) = span(session);
    let is_event = |edge: Millis| members(events).any(|event| run.world.at(event) == edge);
    ensure!(is_event(start) && is_event(last) && start <= last, "no event at an edge of {session:?}");
    ensure!(last - start <= MAX_DURATION, "{session:?} is too long");
    // The pages at the edges are those of the events there; a live session's edges are held against the oracle.
    let at = |edge: Millis| members(events).filter(move |&event| run.world.at(event) == edge);
    let is_first = |event| url_of(event).is_none() || session.entry_url.as_deref() == url_of(event);
    let is_last = |event| page_of(event).is_none() || session.exit_page.as_deref() == page_of(event);
    let is_right = !run.is_over(id_of(session)) || at(start).any(is_first) && at(last).any(is_last);
    ensure!(is_right, "the pages of {session:?} are not those of its first and last event");
    Ok(())
}

/// The events in time are in sessions as if the late ones had never been. A live session is altogether the oracle's, its counts
/// aside; late events may have moved the edges of one that is over, outwards.
fn is_undisturbed(
    run: &Run,
    consumer: &Consumer,
    sessions: &[Session],
    known: &OracleSession,
    events: usize,
) -> Verdict {
    let holds = |session: &&Session| consumer.events_of(id_of(session)) & !run.late == events;
    let Some(session) = sessions.iter().find(holds) else { return Err(format!("no session for {known:?}")) };
    let (start, last) = span(session);
    // A late event that made a session before it longer may have changed which of the rules in time began it.
    let is_in_time = |reason: &str| ["first", "timeout", "max_duration"].contains(&reason);
    let reason = session.reason.name();
    let same_reason = reason == known.reason || run.late != 0 && is_in_time(reason) && is_in_time(known.reason);
    // One that comes first gives its source.
    let same_source = (session.referrer.as_deref(), &session.utm) == (known.referrer, &known.utm);
    let is_right = same_reason && (same_source || run.is_over(id_of(session)) && start < known.started_at);
    ensure!(is_right, "{session:?} instead of {known:?}");
    let pages = (session.entry_url.as_deref(), session.landing_page.as_deref(), session.exit_page.as_deref());
    let is_same = (start, last) == (known.started_at, known.last_activity)
        && pages == (known.entry_url, known.landing_page, known.exit_page);
    let has_grown = run.is_over(id_of(session)) && start <= known.started_at && known.last_activity <= last;
    ensure!(is_same || has_grown, "{session:?} is live, and moved from {known:?}");
    Ok(())
}

/// Late events alone leave every session its id, its place and, where it is live, its edges.
fn nothing_moved(before: &Run, known: &[Session], sessions: &[Session]) -> Verdict {
    for known in known {
        let found = sessions.iter().find(|session| session.id == known.id);
        let Some(session) = found else { return Err(format!("{known:?} is gone")) };
        let place = |session: &Session| (session.reason, session.number, session.previous_session_id.clone());
        ensure!(place(session) == place(known), "{known:?} became {session:?}");
        let edges = |session: &Session| {
            let pages = [&session.entry_url, &session.landing_page, &session.exit_page].map(Option::clone);
            (span(session), pages, session.is_active)
        };
        let is_over = before.is_over(id_of(known));
        ensure!(is_over || edges(session) == edges(known), "the live {known:?} became {session:?}");
        let is_changed = session.event_count != known.event_count;
        ensure!(is_changed == (session.version > known.version), "{known:?} changed, or not, to {session:?}");
    }
    Ok(())
}

/// A late event joins the session over that it lies in; else the one that lies around it or ended last before it, or the one
/// after it, within the timeout, unless a campaign or a referrer would begin a session in between; else it makes one of its own.
fn joined_by_the_rule(before: &Run, known: &[Session], after: &Run, event: usize) -> Verdict {
    let at = after.world.at(event);
    let joined = known.iter().find(|session| after.consumer.events_of(id_of(session)) >> event & 1 == 1);
    // One that is over would grow to it: not beyond its maximum duration.
    let reaches = |session: &&Session| {
        let (start, last) = span(session);
        let fits = !before.is_over(id_of(session)) || last.max(at) - start.min(at) <= MAX_DURATION;
        start - TIMEOUT <= at && at <= last + TIMEOUT && fits
    };
    let has_begun = |session: &&Session| span(session).0 <= at;
    let context = &after.world.arrival(event, after.sources[event]).entry.context;
    let is_alike = |session: &&Session| {
        let is_inside = before.is_over(id_of(session)) && has_begun(session) && at <= span(session).1;
        let utm = session.utm.as_ref().zip(context.utm.as_deref()).is_none_or(|(one, other)| one == other);
        let referrer = session.referrer.as_deref().zip(context.referrer.as_deref());
        is_inside || utm && referrer.is_none_or(|(one, other)| one == other)
    };
    let last_before = known.iter().rev().filter(has_begun).find(reaches).filter(is_alike);
    let first_after = known.iter().find(|session| !has_begun(session)).filter(reaches).filter(is_alike);
    match (joined, last_before.or(first_after)) {
        (Some(session), Some(choice)) => ensure!(session.id == choice.id, "event {event} joined {session:?}"),
        (Some(session), None) => return Err(format!("event {event} joined {session:?}")),
        (None, Some(choice)) => return Err(format!("event {event} did not join {choice:?}")),
        (None, None) => follows_the_one_before(known, after, event)?,
    }
    Ok(())
}

/// A session that a late event made is over, and follows the one before it.
fn follows_the_one_before(known: &[Session], after: &Run, event: usize) -> Verdict {
    let at = after.world.at(event);
    let previous = known.iter().rfind(|session| span(session).0 <= at);
    // One that was archived is looked up only as far back as its events could join it.
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
    ensure!(own.is_some_and(follows), "{own:?} follows not {previous:?}");
    Ok(())
}

/// Late events that come together are where they would be had they come one by one, the oldest first.
fn joined_as_one_by_one(before: &Run, after: &Run, batch: &[usize]) -> Verdict {
    let received_at = before.time_for(batch.iter().map(|event| 1 << event).sum());
    let mut one_by_one = before.clone();
    // In time order already.
    for event in batch {
        let (timeline, applied) = one_by_one.applied(&[*event], &after.sources, received_at);
        one_by_one.timeline = timeline;
        let id = applied.assignments[0].as_ref().map(|assignment| assignment.session_id);
        let is_same = id.is_some_and(|id| after.consumer.events_of(id) >> event & 1 == 1);
        ensure!(is_same, "event {event} alone joins {id:?}");
    }
    Ok(())
}

/// The same batch again, and all batches again, change nothing and say the same.
fn a_duplicate_changes_nothing(run: &Run, batch: &[usize], first: &Applied, sessions: &[Session]) -> Verdict {
    let (_, again) = run.applied(batch, &run.sources, run.now);
    ensure!(!again.changed, "a repeat changed the timeline");
    ensure!(again.assignments == first.assignments, "{:?}\nbecame {:?}", first.assignments, again.assignments);
    let delivered: Vec<usize> = members(run.delivered).collect();
    let (_, again) = run.applied(&delivered, &run.sources, run.now);
    ensure!(!again.changed, "repeats changed the timeline");
    let mut consumer = run.consumer.clone();
    consumer.hear(&run.timeline.corrections, run.world)?;
    for (&event, assignment) in delivered.iter().zip(&again.assignments) {
        let Some(assignment) = assignment else { return Err(format!("event {event} is not known")) };
        let is_there = consumer.events_of(assignment.session_id) >> event & 1 == 1;
        let is_late = run.late >> event & 1 == 1;
        let session = sessions.iter().find(|session| id_of(session) == assignment.session_id);
        // Of a session that is over, and as a late one, an event says all pages.
        let is_whole = session.is_some_and(|session| session.page_views == assignment.page_views);
        let emits_all = is_late || run.is_over(assignment.session_id);
        let is_right = is_there && assignment.is_late == is_late && (is_whole || !emits_all);
        ensure!(is_right, "event {event} became {assignment:?} with a repeat");
    }
    Ok(())
}

fn span(session: &Session) -> (Millis, Millis) {
    (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis())
}
