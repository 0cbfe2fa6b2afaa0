//! The rules that every stored timeline and session must keep. One that breaks a rule was not written by this service.
//!
//! After these checks, arithmetic cannot overflow: times and counts are far enough from the limits of their types.

use std::collections::HashSet;

use uuid::Uuid;

use crate::model::{Entry, Kind, LateEvents, PreviousSession, SessionState, counts};
use crate::session::Millis;
use crate::timeline::{
    ClosedSession, Correction, END_MARK_PREFIX, MAX_PROPERTIES, MAX_PROPERTY_BYTES, SessionAnchor, Timeline,
};

/// The earliest valid time: 1999-01-01T00:00:00Z. Events are not before the year 2000, and no rule reaches back a year.
const MIN_TIME: Millis = 915_148_800_000;
/// The first time that is too late: 2200-01-01T00:00:00Z.
const TIME_END: Millis = 7_258_118_400_000;
/// The maximum number of events of a session, and of sessions of a visitor. Two such numbers can be added.
const MAX_COUNT: u32 = u32::MAX / 2;
/// The maximum version: JSON readers that use doubles count exactly up to 2⁵³.
const MAX_VERSION: u64 = 1 << 53;

/// Whether a rule holds, and the error if it does not.
type Rule = (bool, &'static str);

const TIME: &str = "a time lies outside of the years 1999 to 2199";
const COUNT: &str = "a count is out of range";
const NUMBER: &str = "a session's number is out of range";
const VERSION: &str = "a version is out of range";
const ID: &str = "a session id is not of version 7";
const BACKWARDS: &str = "a session ends before it begins";
const ORDER: &str = "the sessions are not in order";
const LATE: &str = "late events do not add up";

/// Checks a session.
pub(super) fn session(session: &SessionState) -> Result<(), &'static str> {
    let properties = &session.properties;
    let own = || properties.iter().filter(|(key, _)| !counts::is_count(key));
    let bytes: usize = own().map(|(key, value)| key.len() + value.len()).sum();
    let mut ids = HashSet::new();
    first_broken(&[
        (are_times(&[session.facts.started_at, session.facts.last_activity]), TIME),
        (session.facts.started_at <= session.facts.last_activity, BACKWARDS),
        (session.facts.event_count <= MAX_COUNT, COUNT),
        (session.pages <= MAX_COUNT, COUNT),
        (session.facts.page_views <= session.facts.event_count, "a session has more page views than events"),
        (own().count() <= MAX_PROPERTIES && bytes <= MAX_PROPERTY_BYTES, "a session has too many properties"),
        (properties.values().all(|value| is_json(value)), "a session property is not JSON"),
        (properties.iter().all(|(key, value)| counts::is_readable(key, value)), "a count of events cannot be read"),
        ((1..=MAX_COUNT).contains(&session.number), NUMBER),
        (session.version <= MAX_VERSION, VERSION),
        (session.ids().chain(session.previous).all(is_session_id), ID),
        (session.ids().all(|id| ids.insert(id)), "a session has one id twice"),
    ])?;
    late(&session.late)
}

/// Checks a timeline.
pub(super) fn timeline(timeline: &Timeline) -> Result<(), &'static str> {
    first_broken(&[
        (timeline.seq <= MAX_VERSION, VERSION),
        (timeline.watermark == Millis::MIN || are_times(&[timeline.watermark]), TIME),
        (timeline.held_until.is_none_or(|until| are_times(&[until])), TIME),
    ])?;
    timeline.finalized().try_for_each(session)?;
    timeline.finalized().try_for_each(|session| version(session.version, timeline))?;
    timeline.closed.iter().try_for_each(closed)?;
    timeline.previous.iter().try_for_each(previous)?;
    unfinalized(timeline)?;
    timeline.anchors.iter().try_for_each(|one| anchor(one, timeline))?;
    timeline.corrections.iter().try_for_each(|one| correction(one, timeline))?;
    let anchors = &timeline.anchors;
    let mut ids = HashSet::new();
    first_broken(&[
        (timeline.ended.is_sorted_by_key(|session| session.facts.started_at), ORDER),
        (timeline.closed.is_sorted_by_key(|closed| closed.state.facts.started_at), ORDER),
        (
            anchors.is_sorted_by(|a, b| (a.entry, 0) < (b.entry, u8::from(!b.is_primary))),
            "the anchors are not in order",
        ),
        (
            timeline
                .finalized()
                .flat_map(SessionState::ids)
                .chain(anchors.iter().map(|anchor| anchor.id))
                .all(|id| ids.insert(id)),
            "two sessions have one id",
        ),
    ])
}

/// Checks the unfinalized events, and that they lie after what is finalized.
fn unfinalized(timeline: &Timeline) -> Result<(), &'static str> {
    let Timeline { unfinalized, anchors, open, .. } = timeline;
    // Keep-alive events can lie outside of any session.
    let first = unfinalized.iter().position(|entry| entry.kind != Kind::KeepAlive);
    let has_id = |first| anchors.first().is_some_and(|anchor| anchor.entry == first && anchor.is_primary);
    let begins_a_session = first.is_none_or(|first| unfinalized[first].kind != Kind::End && has_id(first));
    let finalized = open
        .iter()
        .map(|open| open.facts.last_activity)
        .chain(timeline.previous.map(|last| last.activity.last_activity));
    // With a watermark id, events at the watermark's own time are finalized up to that id.
    let watermark_id = timeline.watermark_id.as_ref();
    let is_after_watermark = |entry: &Entry| (entry.at, Some(&entry.uuid)) > (timeline.watermark, watermark_id);
    let end = timeline.watermark.saturating_add(Millis::from(watermark_id.is_some()));
    let mut uuids = HashSet::new();
    let properties = || unfinalized.iter().flat_map(|entry| &entry.properties);
    first_broken(&[
        (unfinalized.iter().all(|entry| are_times(&[entry.at])), TIME),
        (unfinalized.is_sorted_by(|a, b| (a.at, &a.uuid) < (b.at, &b.uuid)), "the unfinalized events are not in order"),
        (unfinalized.iter().all(|entry| uuids.insert(&entry.uuid)), "an unfinalized event is there twice"),
        (unfinalized.first().is_none_or(is_after_watermark), "an unfinalized event is behind the watermark"),
        (finalized.max().is_none_or(|last| last < end), "a finalized event is ahead of the watermark"),
        (open.is_some() || begins_a_session, "the unfinalized events begin outside any session"),
        (properties().all(|(_, value)| is_json(value)), "a session property is not JSON"),
        (properties().all(|(key, value)| counts::is_readable(key, value)), "a count of events cannot be read"),
        (unfinalized.iter().all(|entry| is_mark_or_event(entry, timeline.seq)), "an end mark has an invalid id"),
    ])
}

/// Returns whether an entry is an end mark with a mark's id, or an event with an ordinary id. A mark's id has the prefix [`END_MARK_PREFIX`]
/// and the number of the write that set it.
fn is_mark_or_event(entry: &Entry, seq: u64) -> bool {
    match entry.uuid.strip_prefix(END_MARK_PREFIX) {
        Some(write) => entry.kind == Kind::End && write.parse().is_ok_and(|write: u64| write <= seq),
        None => entry.kind != Kind::End,
    }
}

/// Checks what a closed session has beyond its state.
fn closed(closed: &ClosedSession) -> Result<(), &'static str> {
    first_broken(&[(are_times(&[closed.closed_at]), TIME), (!closed.state.has_pages(), "a closed session has pages")])
}

/// Checks the previous session.
fn previous(previous: &PreviousSession) -> Result<(), &'static str> {
    first_broken(&[
        (are_times(&[previous.activity.started_at, previous.activity.last_activity]), TIME),
        (previous.activity.started_at <= previous.activity.last_activity, BACKWARDS),
        ((1..=MAX_COUNT).contains(&previous.number), NUMBER),
        (is_session_id(previous.id), ID),
    ])
}

/// Checks an anchor.
fn anchor(anchor: &SessionAnchor, timeline: &Timeline) -> Result<(), &'static str> {
    let entry = timeline.unfinalized.get(anchor.entry);
    first_broken(&[
        (entry.is_some(), "an anchor refers to no entry"),
        (entry.is_none_or(|entry| entry.kind != Kind::KeepAlive), "a session begins with a keep-alive event"),
        (is_session_id(anchor.id), ID),
    ])?;
    version(anchor.version, timeline)?;
    late(&anchor.late)
}

/// Checks a correction.
fn correction(correction: &Correction, timeline: &Timeline) -> Result<(), &'static str> {
    let (from, into, at, correction_version) = match correction {
        Correction::Merged { from, into, version } => (from, into, None, version),
        Correction::Split { from, into, at, version, .. } => (from, into, Some(*at), version),
    };
    first_broken(&[
        (at.is_none_or(|at| are_times(&[at])), TIME),
        (from != into, "a correction changes nothing"),
        (is_session_id(*from) && is_session_id(*into), ID),
    ])?;
    version(*correction_version, timeline)
}

/// Checks that a version is not higher than the timeline's.
fn version(version: u64, timeline: &Timeline) -> Result<(), &'static str> {
    first_broken(&[(version <= timeline.seq, "a version is higher than the timeline's")])
}

/// Checks the late events of a session.
fn late(late: &LateEvents) -> Result<(), &'static str> {
    // Every page has at least one fingerprint.
    let are_few = late.fingerprints.len() as u64 + u64::from(late.pages) <= u64::from(late.event_count);
    first_broken(&[(late.event_count <= MAX_COUNT, COUNT), (late.page_views <= late.event_count && are_few, LATE)])
}

fn are_times(times: &[Millis]) -> bool {
    times.iter().all(|time| (MIN_TIME..TIME_END).contains(time))
}

fn is_session_id(id: Uuid) -> bool {
    id.get_version_num() == 7
}

fn is_json(value: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok()
}

/// Returns the error of the first rule that does not hold.
fn first_broken(rules: &[Rule]) -> Result<(), &'static str> {
    rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
}
