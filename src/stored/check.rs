//! What holds for every timeline and every session: a stored one that breaks it is not ours.

use std::collections::HashSet;

use crate::rules::{Kind, Late, Tally};
use crate::timeline::{MAX_PROPERTIES, MAX_SEEN, Timeline};

/// Checks a session.
pub(super) fn session(session: &Tally) -> Result<(), &'static str> {
    let late_fits = |late: &Late| late.page_views <= late.event_count && late.seen.len() <= MAX_SEEN;
    let holds = [
        (session.started_at <= session.last_activity, "a session ends before it begins"),
        (session.page_views <= session.event_count, "a session has more page views than events"),
        (late_fits(&session.late), "a session's late events do not add up"),
        (session.seen.len() <= MAX_SEEN, "a session keeps too many fingerprints"),
        (session.properties.len() <= MAX_PROPERTIES, "a session has too many properties"),
        (session.properties.values().all(|value| is_json(value)), "a session property is not JSON"),
        (session.number > 0, "a session has no number"),
        (session.id.get_version_num() == 7, "a session id is not of version 7"),
    ];
    first_broken(&holds)
}

/// Checks a timeline.
pub(super) fn timeline(timeline: &Timeline) -> Result<(), &'static str> {
    timeline.ended.iter().chain(&timeline.open).try_for_each(session)?;
    let journal = &timeline.journal;
    let heads = &timeline.heads;
    let mut ids = HashSet::new();
    let sessions = timeline.ended.iter().chain(&timeline.open).map(|tally| tally.id);
    let starts_with_a_session = timeline.open.is_some()
        || journal.is_empty()
        || (journal[0].kind != Kind::End && heads.first().is_some_and(|head| head.entry == 0));
    let holds = [
        (journal.is_sorted_by(|a, b| (a.at, &a.uuid) < (b.at, &b.uuid)), "the journal is not in order"),
        (journal.first().is_none_or(|entry| entry.at >= timeline.frontier), "the journal reaches behind the frontier"),
        (starts_with_a_session, "the journal begins outside any session"),
        (timeline.ended.is_sorted_by_key(|tally| tally.started_at), "the sessions are not in order"),
        (heads.is_sorted_by(|a, b| a.entry < b.entry), "the heads are not in order"),
        (heads.iter().all(|head| head.entry < journal.len()), "a head stands on no entry"),
        (heads.iter().all(|head| head.late.page_views <= head.late.event_count), "late events do not add up"),
        (sessions.chain(heads.iter().map(|head| head.id)).all(|id| ids.insert(id)), "two sessions have one id"),
        (journal.iter().all(|e| e.properties.iter().all(|(_, v)| is_json(v))), "a session property is not JSON"),
        (timeline.previous.is_none_or(|p| p.started_at <= p.last_activity), "the last session ends before it begins"),
    ];
    first_broken(&holds)
}

fn first_broken(holds: &[(bool, &'static str)]) -> Result<(), &'static str> {
    holds.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
