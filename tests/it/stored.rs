//! Stored items: what is written is read back, and an invalid item is an error that names what is wrong.

mod corrupt;
mod fixtures;
mod formats;
mod hostile;
mod long;
mod newer;
mod random;
mod rules;

use std::collections::BTreeSet;

use proptest::prelude::*;
use session_tracking::config::SessionConfig;
use session_tracking::model::{Entry, Kind, SessionState};
use session_tracking::session::{EventId, Millis, SessionContext, Visitor};
use session_tracking::stored::{
    FORMAT, FormatError, NEWEST_FORMAT, decode_session, decode_timeline, encode_session, encode_timeline,
};
use session_tracking::timeline::{Arrival, ClosedSession, Timeline};

pub use random::{NOON, World, noise, world};

/// Returns a timeline with two sessions that are over, an open one, unfinalized events, an anchor and a previous session.
fn sample() -> Timeline {
    let config = SessionConfig::default();
    let mut timeline = Timeline::new(Visitor::new("u"));
    let minute = 60_000;
    for minutes in [0, 1, 100, 101, 200, 201] {
        apply(&mut timeline, NOON + minutes * minute, minutes, &config);
    }
    timeline.finalize(NOON + 202 * minute, &config);
    for minutes in [203, 204, 205, 290] {
        apply(&mut timeline, NOON + minutes * minute, minutes, &config);
    }
    assert!(timeline.ended.len() == 2 && timeline.open.is_some() && timeline.anchors.len() == 1, "{timeline:?}");
    assert_eq!(read(&timeline).unwrap(), Timeline { due_at: None, ..timeline.clone() });
    timeline
}

fn apply(timeline: &mut Timeline, at: Millis, number: i64, config: &SessionConfig) {
    let context =
        SessionContext { url: Some(format!("https://shop.test/{number}").into()), ..SessionContext::default() };
    let uuid = EventId::new(&format!("e{number}"));
    let entry = Entry { at, uuid, kind: Kind::Pageview, context, click: Some(7), properties: Vec::new() };
    timeline.apply(
        &[Arrival { entry, received_at: at, passive: false, timed_by_sent_at: false, may_change_time: false }],
        Vec::new(),
        config,
    );
}

fn read(timeline: &Timeline) -> Result<Timeline, FormatError> {
    decode_timeline(FORMAT, &encode_timeline(timeline), timeline.visitor.clone())
}

fn read_session(session: &SessionState) -> Result<SessionState, FormatError> {
    decode_session(FORMAT, &encode_session(session), Visitor::new("u").bits())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read_back(world in random::world()) {
        let World { timeline, closed } = world;
        prop_assert_eq!(read(&timeline), Ok(Timeline { due_at: None, ..timeline.clone() }));
        for session in closed.iter().chain(timeline.finalized()) {
            prop_assert_eq!(read_session(session), Ok(session.clone()));
        }
    }

    #[test]
    fn a_truncated_or_longer_item_is_refused(world in random::world(), at in any::<prop::sample::Index>(), more: u8) {
        let visitor = world.timeline.visitor.clone();
        let bytes = encode_timeline(&world.timeline);
        let refused = Err(FormatError::Bytes("timeline"));
        prop_assert_eq!(&decode_timeline(FORMAT, &bytes[..at.index(bytes.len())], visitor.clone()), &refused);
        prop_assert_eq!(&decode_timeline(FORMAT, &[&bytes[..], &[more]].concat(), visitor), &refused);
    }
}

#[test]
fn an_unknown_version_is_named() {
    let timeline = sample();
    let bytes = encode_timeline(&timeline);
    for version in [0, NEWEST_FORMAT + 1, u32::MAX] {
        let error = decode_timeline(version, &bytes, timeline.visitor.clone()).unwrap_err();
        assert_eq!(error, if version == 0 { FormatError::Version(0) } else { FormatError::Newer(version) });
        assert!(error.to_string().contains(&format!("version {version} ")), "{error}");
        let session = encode_session(&timeline.ended[0]);
        assert_eq!(decode_session(version, &session, timeline.visitor.bits()), Err(error));
    }
}

/// Returns [`sample`] with its sessions that are over as closed ones.
fn sample_with_closed() -> Timeline {
    let mut timeline = sample();
    for state in std::mem::take(&mut timeline.ended) {
        timeline.keep_closed(ClosedSession { state, closed_at: NOON + 250 * 60_000 });
    }
    timeline
}

/// Every byte of an item is set to every value. The result is an error, or a timeline that keeps the rules.
#[test]
fn no_changed_byte_is_misread() {
    let mut sentences = no_changed_byte_of(&sample());
    sentences.extend(no_changed_byte_of(&sample_with_closed()));
    for sentence in [
        "a string's shared prefix is out of range",
        "a string index is out of range",
        "a required string is missing",
        "a fingerprint is cut off",
        "an entry's context is not there",
        "the bytes are not a stored timeline",
        "a closed session has pages",
    ] {
        assert!(sentences.contains(sentence), "{sentence}: {sentences:#?}");
    }
}

/// Returns the errors that changes of one byte cause.
fn no_changed_byte_of(timeline: &Timeline) -> BTreeSet<String> {
    let mut bytes = encode_timeline(timeline);
    let mut sentences = BTreeSet::new();
    for at in 0..bytes.len() {
        let before = bytes[at];
        for value in (0..=u8::MAX).filter(|&value| value != before) {
            bytes[at] = value;
            match decode_timeline(FORMAT, &bytes, timeline.visitor.clone()) {
                Ok(other) => assert_eq!(read(&other), Ok(other), "byte {at} is {value}"),
                Err(error) => drop(sentences.insert(error.to_string())),
            }
        }
        bytes[at] = before;
    }
    sentences
}

#[test]
fn no_changed_byte_of_a_session_is_misread() {
    let timeline = sample();
    let mut bytes = encode_session(&timeline.ended[1]);
    for at in 0..bytes.len() {
        let before = bytes[at];
        for value in 0..=u8::MAX {
            bytes[at] = value;
            if let Ok(other) = decode_session(FORMAT, &bytes, timeline.visitor.bits()) {
                assert_eq!(read_session(&other), Ok(other), "byte {at} is {value}");
            }
        }
        bytes[at] = before;
        let truncated = decode_session(FORMAT, &bytes[..at], timeline.visitor.bits());
        assert_eq!(truncated, Err(FormatError::Bytes("session")));
    }
}

/// Errors that no change of one byte causes: strings that would take too much memory, and a time out of range.
#[test]
fn lengths_and_times_out_of_range_are_refused() {
    // The first byte of an empty timeline marks it as not compressed. The second is the number of strings, 0.
    let empty = encode_timeline(&Timeline::new(Visitor::new("u")));
    let long = "x".repeat(1_000_000);
    let strings: Vec<(u32, &str)> = [(0, long.as_str())].into_iter().chain([(1_000_000, ""); 100]).collect();
    let bytes = [&empty[..1], &postcard::to_stdvec(&strings).unwrap(), &empty[2..]].concat();
    let read = decode_timeline(FORMAT, &bytes, Visitor::new("u"));
    assert_eq!(read, Err(FormatError::Rule("the strings are too long")));

    // A session of one event, without strings. Its duration is stored after its start.
    let mut session = sample().ended[0].clone();
    session = SessionState::empty(session.id);
    (session.facts.started_at, session.facts.last_activity) = (NOON, NOON + 5);
    let bytes = encode_session(&session);
    let start = postcard::to_stdvec(&NOON).unwrap();
    let at = bytes.windows(start.len()).position(|window| window == start).unwrap() + start.len();
    assert_eq!(bytes[at], 5);
    let bytes = [&bytes[..at], &postcard::to_stdvec(&u64::MAX).unwrap(), &bytes[at + 1..]].concat();
    let read = decode_session(FORMAT, &bytes, Visitor::new("u").bits());
    assert_eq!(read, Err(FormatError::Rule("a time is out of range")));
}
