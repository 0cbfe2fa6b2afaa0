//! Each rule that a stored timeline or session has to keep, with one that breaks it.

use session_tracking::model::{Kind, LateEvents, SessionState};
use session_tracking::session::{EventId, Millis};
use session_tracking::stored::{FORMAT, FormatError, decode_session, decode_timeline, encode_session, encode_timeline};
use session_tracking::timeline::{Correction, MAX_PROPERTIES, Timeline};
use uuid::Uuid;

use super::{sample, sample_with_closed};

type Break<T> = (&'static str, fn(&mut T));

const TIME: &str = "a time lies outside of the years 1999 to 2199";
const COUNT: &str = "a count is out of range";
const NUMBER: &str = "a session's number is out of range";
const VERSION: &str = "a version is higher than the timeline's";
const ID: &str = "a session id is not of version 7";
const LATE: &str = "late events do not add up";
const PROPERTIES: &str = "a session has too many properties";

/// The year 1998, which nothing that arithmetic could still bear would give away.
const TOO_EARLY: Millis = 900_000_000_000;
const TOO_LATE: Millis = 7_258_118_400_000;
/// What the ids of marks begin with.
const END_MARK_PREFIX: char = char::MAX;

const SESSION: [Break<SessionState>; 24] = [
    (TIME, |s| s.facts.started_at = TOO_EARLY),
    (TIME, |s| s.facts.last_activity = TOO_LATE),
    ("a session has more page views than events", |s| s.facts.page_views = s.facts.event_count + 1),
    (COUNT, |s| s.facts.event_count = u32::MAX),
    (COUNT, |s| s.late.event_count = u32::MAX),
    (LATE, |s| {
        s.late = LateEvents { event_count: 1, page_views: 2, fingerprints: vec![1], pages: 0, ..LateEvents::default() }
    }),
    (LATE, |s| {
        s.late =
            LateEvents { event_count: 1, page_views: 0, fingerprints: vec![1, 2], pages: 0, ..LateEvents::default() }
    }),
    (LATE, |s| {
        s.late = LateEvents { event_count: 2, page_views: 0, fingerprints: vec![1], pages: 2, ..LateEvents::default() }
    }),
    (COUNT, |s| s.pages = u32::MAX),
    (PROPERTIES, |s| s.properties = (0..=MAX_PROPERTIES).map(|n| (n.to_string(), "1".to_owned())).collect()),
    (PROPERTIES, |s| s.properties = [("k".to_owned(), format!("\"{}\"", "v".repeat(1_024)))].into()),
    ("a session property is not JSON", |s| s.properties = [("k".to_owned(), "{".to_owned())].into()),
    ("a session property is not JSON", |s| s.properties = [("k".to_owned(), String::new())].into()),
    (NUMBER, |s| s.number = 0),
    (NUMBER, |s| s.number = u32::MAX),
    ("a version is out of range", |s| s.version = u64::MAX),
    (ID, |s| s.id = other_version(s.id)),
    (ID, |s| s.previous = Some(other_version(s.id))),
    (ID, |s| s.aliases.push(other_version(s.id))),
    ("a session has one id twice", |s| s.aliases.push(s.id)),
    ("a session has one id twice", |s| s.aliases = vec![next_id(s.id); 2]),
    (TIME, |s| s.facts.started_at = 0),
    (TIME, |s| (s.facts.started_at, s.facts.last_activity) = (Millis::MAX, Millis::MAX)),
    (NUMBER, |s| s.number = u32::MAX / 2 + 1),
];

const TIMELINE: [Break<Timeline>; 38] = [
    ("a session's number is out of range", |t| t.ended[0].number = 0),
    ("a session has more page views than events", |t| t.open.as_mut().unwrap().facts.page_views = 9),
    (VERSION, |t| t.ended[0].version = t.seq + 1),
    (VERSION, |t| t.open.as_mut().unwrap().version = t.seq + 1),
    (VERSION, |t| t.anchors[0].version = t.seq + 1),
    (VERSION, |t| t.corrections.push(merged(t, t.seq + 1))),
    ("a version is out of range", |t| t.seq = u64::MAX),
    (TIME, |t| t.watermark = TOO_LATE),
    (TIME, |t| t.watermark = 0),
    (TIME, |t| t.held_until = Some(TOO_LATE)),
    ("an unfinalized event is behind the watermark", |t| {
        (t.watermark, t.watermark_id) = (t.unfinalized[0].at, Some(t.unfinalized[0].uuid.clone()));
    }),
    (TIME, |t| t.previous.as_mut().unwrap().activity.started_at = TOO_EARLY),
    (TIME, |t| t.previous.as_mut().unwrap().activity.last_activity = TOO_LATE),
    (NUMBER, |t| t.previous.as_mut().unwrap().number = u32::MAX),
    (NUMBER, |t| t.previous.as_mut().unwrap().number = 0),
    (ID, |t| t.previous.as_mut().unwrap().id = Uuid::from_u64_pair(1, t.visitor.bits())),
    (TIME, |t| t.unfinalized.last_mut().unwrap().at = TOO_LATE),
    ("the unfinalized events are not in order", |t| t.unfinalized[1] = t.unfinalized[0].clone()),
    ("the unfinalized events are not in order", |t| {
        (t.unfinalized[1].at, t.unfinalized[1].uuid) = (t.unfinalized[0].at, EventId::new("a"))
    }),
    ("an unfinalized event is there twice", |t| {
        t.unfinalized[2].uuid = t.unfinalized[0].uuid.clone();
    }),
    ("an unfinalized event is behind the watermark", |t| t.watermark = t.unfinalized[0].at + 1),
    ("a finalized event is ahead of the watermark", |t| t.watermark = t.open.as_ref().unwrap().facts.last_activity),
    ("a finalized event is ahead of the watermark", |t| {
        let previous = t.previous.as_mut().unwrap();
        previous.activity.last_activity = t.watermark;
    }),
    ("the unfinalized events begin outside any session", |t| t.open = None),
    ("the unfinalized events begin outside any session", |t| {
        t.open = None;
        t.anchors[0].entry = 0;
        t.unfinalized[0].kind = Kind::End;
    }),
    ("the unfinalized events begin outside any session", |t| {
        t.open = None;
        (t.anchors[0].entry, t.anchors[0].is_primary) = (0, false);
    }),
    ("a session property is not JSON", |t| t.unfinalized[0].properties = vec![("k".to_owned(), "NaN".to_owned())]),
    ("an end mark has an invalid id", |t| t.unfinalized[1].kind = Kind::End),
    ("an end mark has an invalid id", |t| t.unfinalized[1].uuid = EventId::new(&format!("{END_MARK_PREFIX}1"))),
    ("an end mark has an invalid id", |t| {
        (t.unfinalized[1].kind, t.unfinalized[1].uuid) =
            (Kind::End, EventId::new(&format!("{END_MARK_PREFIX}{}", t.seq + 1)));
    }),
    ("an anchor refers to no entry", |t| t.anchors.last_mut().unwrap().entry = t.unfinalized.len()),
    ("a session begins with a keep-alive event", |t| {
        let entry = t.anchors[0].entry;
        t.unfinalized[entry].kind = Kind::KeepAlive;
    }),
    ("the anchors are not in order", |t| t.anchors.push(t.anchors[0].clone())),
    (LATE, |t| t.anchors[0].late.page_views = 1),
    ("the sessions are not in order", |t| t.ended.reverse()),
    ("two sessions have one id", |t| t.anchors[0].id = t.open.as_ref().unwrap().id),
    ("a correction changes nothing", |t| {
        let id = t.ended[0].id;
        t.corrections.push(Correction::Merged { from: id, into: id, version: 1 });
    }),
    (TIME, |t| {
        let (from, into) = (t.ended[0].id, t.ended[1].id);
        t.corrections.push(Correction::Split { from, into, at: 0, uuid: EventId::new("e"), version: 1 });
    }),
];

fn other_version(id: Uuid) -> Uuid {
    let (high, low) = id.as_u64_pair();
    Uuid::from_u64_pair(high ^ 0x1000, low)
}

fn next_id(id: Uuid) -> Uuid {
    let (high, low) = id.as_u64_pair();
    Uuid::from_u64_pair(high ^ 1, low)
}

fn merged(timeline: &Timeline, version: u64) -> Correction {
    Correction::Merged { from: timeline.ended[0].id, into: timeline.ended[1].id, version }
}

#[test]
fn a_timeline_that_breaks_a_rule_is_refused_by_name() {
    for (number, (sentence, breaks)) in TIMELINE.iter().enumerate() {
        let mut timeline = sample();
        breaks(&mut timeline);
        let read = decode_timeline(FORMAT, &encode_timeline(&timeline), timeline.visitor.clone());
        assert_eq!(read, Err(FormatError::Rule(sentence)), "rule {number}");
    }
}

/// What breaks a rule in a timeline with closed sessions.
const CLOSED: [Break<Timeline>; 7] = [
    (TIME, |t| t.closed[0].closed_at = TOO_EARLY),
    (TIME, |t| t.closed[1].closed_at = TOO_LATE),
    ("a closed session has pages", |t| t.closed[1].state.pages = 1),
    ("a closed session has pages", |t| {
        t.closed[0].state.late =
            LateEvents { event_count: 9, fingerprints: vec![1], pages: 1, ..LateEvents::default() };
    }),
    (VERSION, |t| t.closed[0].state.version = t.seq + 1),
    ("the sessions are not in order", |t| t.closed.reverse()),
    ("two sessions have one id", |t| t.closed[0].state.id = t.open.as_ref().unwrap().id),
];

#[test]
fn closed_sessions_that_break_a_rule_are_refused_by_name() {
    for (number, (sentence, breaks)) in CLOSED.iter().enumerate() {
        let mut timeline = sample_with_closed();
        breaks(&mut timeline);
        let read = decode_timeline(FORMAT, &encode_timeline(&timeline), timeline.visitor.clone());
        assert_eq!(read, Err(FormatError::Rule(sentence)), "rule {number}");
    }
}

#[test]
fn a_session_that_breaks_a_rule_is_refused_by_name() {
    let timeline = sample();
    for (number, (sentence, breaks)) in SESSION.iter().enumerate() {
        let mut session = timeline.ended[0].clone();
        breaks(&mut session);
        let read = decode_session(FORMAT, &encode_session(&session), timeline.visitor.bits());
        assert_eq!(read, Err(FormatError::Rule(sentence)), "rule {number}");
        // As part of a timeline it breaks the same rule.
        let mut timeline = timeline.clone();
        breaks(&mut timeline.ended[0]);
        let read = decode_timeline(FORMAT, &encode_timeline(&timeline), timeline.visitor.clone());
        assert_eq!(read, Err(FormatError::Rule(sentence)), "rule {number} in a timeline");
        let mut timeline = sample_with_closed();
        breaks(&mut timeline.closed[0].state);
        let read = decode_timeline(FORMAT, &encode_timeline(&timeline), timeline.visitor.clone());
        assert_eq!(read, Err(FormatError::Rule(sentence)), "rule {number} as a closed session");
    }
}
