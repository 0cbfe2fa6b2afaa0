//! What the small worlds leave out: the bounds of a timeline, passive events, and what a closer leaves behind when it dies.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use session_tracking::config::SessionConfig;
use session_tracking::model::{Entry, Kind, SessionState};
use session_tracking::session::{
    DeviceInfo, EventId, GeoInfo, Millis, Reason, SessionContext, UtmParams, Visitor, session_id,
};
use session_tracking::stored::{FORMAT, decode_session, decode_timeline, encode_session, encode_timeline};
use session_tracking::timeline::{
    Applied, Arrival, Assignment, ClosedSession, Closing, MAX_PROPERTIES, MAX_PROPERTY_BYTES, MAX_UNFINALIZED_BYTES,
    MAX_UNFINALIZED_EVENTS, MAX_UNFINALIZED_LATE_EVENTS, Overflow, Timeline,
};
use uuid::Uuid;

use crate::cases::{MINUTE, NOON};

fn entry(uuid: &str, at: Millis) -> Entry {
    let (uuid, context) = (EventId::new(uuid), SessionContext::default());
    Entry { at, uuid, kind: Kind::Pageview, context, click: None, properties: Vec::new() }
}

fn arrival(uuid: &str, at: Millis, received_at: Millis) -> Arrival {
    Arrival { entry: entry(uuid, at), received_at, passive: false, timed_by_sent_at: false, may_change_time: false }
}

fn numbered(numbers: std::ops::Range<usize>, at: impl Fn(usize) -> Millis) -> Vec<Arrival> {
    let now = NOON + 60 * MINUTE;
    numbers.map(|number| arrival(&format!("e{number:04}"), at(number), now)).collect()
}

fn rules(rules: serde_json::Value) -> SessionConfig {
    SessionConfig::from_rules(rules).unwrap()
}

fn apply(timeline: &mut Timeline, arrivals: &[Arrival], config: &SessionConfig) -> Applied {
    timeline.apply(arrivals, Vec::new(), config)
}

fn empty() -> Timeline {
    Timeline::new(Visitor::new("u1"))
}

#[test]
fn a_few_events_stay_unfinalized() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    for number in 0..9 {
        let at = NOON + number * 10 * MINUTE;
        apply(&mut timeline, &[arrival(&format!("e{number}"), at, at)], &config);
        // The watermark is right after the finalized events, not at the time of receipt less the allowed lateness.
        let kept = if number < 8 { (number as usize + 1, Millis::MIN) } else { (1, at - 10 * MINUTE + 1) };
        assert_eq!((timeline.unfinalized.len(), timeline.watermark), kept);
    }
    assert_eq!(timeline.open.as_ref().map(|open| open.facts.event_count), Some(8));
}

#[test]
fn unfinalized_events_beyond_their_bound_are_finalized_early() {
    let config = rules(json!({ "lateness_seconds": 7200 }));
    // Each event at its own time; then two events at each time, of which one may stay.
    for share in [1, 2] {
        let mut timeline = empty();
        let at = |number: usize| NOON + (number / share) as Millis;
        let full = apply(&mut timeline, &numbered(0..MAX_UNFINALIZED_EVENTS, at), &config);
        assert_eq!((full.overflow, timeline.unfinalized.len()), (Overflow::default(), MAX_UNFINALIZED_EVENTS));
        let over = apply(&mut timeline, &numbered(MAX_UNFINALIZED_EVENTS..MAX_UNFINALIZED_EVENTS + 1, at), &config);
        assert_eq!(over.overflow.finalized_early, 1);
        assert_eq!(timeline.unfinalized.len(), MAX_UNFINALIZED_EVENTS);
        assert_eq!(timeline.sessions(NOON, &config)[0].event_count as usize, MAX_UNFINALIZED_EVENTS + 1);
    }
}

/// Some clients truncate times to the second. An event at the time of the last finalized event is not late for that reason.
#[test]
fn events_of_one_time_are_not_late_because_there_are_many() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    for batch in numbered(0..1200, |_| NOON + 59 * MINUTE).chunks(400) {
        let applied = apply(&mut timeline, batch, &config);
        assert!(applied.assignments.iter().flatten().all(|assignment| !assignment.is_late));
    }
    let last = timeline.unfinalized.last().unwrap().uuid.clone();
    assert_eq!((&*last, timeline.sessions(NOON, &config)[0].event_count), ("e1199", 1200));
    // An event that belongs before the finalized ones is late, and a known event is a duplicate.
    let now = NOON + 60 * MINUTE;
    let before = apply(&mut timeline, &[arrival("e0000-", NOON + 59 * MINUTE, now)], &config);
    assert_eq!(before.assignments[0].as_ref().map(|assignment| assignment.is_late), Some(true));
    assert!(!apply(&mut timeline, &[arrival("e0600", NOON + 59 * MINUTE, now)], &config).changed);
}

#[test]
fn events_with_strings_beyond_the_bound_are_finalized_early() {
    type Fill = fn(&mut Entry, String);
    fn utm(entry: &mut Entry) -> &mut UtmParams {
        Arc::make_mut(entry.context.utm.get_or_insert_default())
    }
    let fills: [Fill; 8] = [
        |entry, string| entry.context.url = Some(string.into()),
        |entry, string| entry.context.referrer = Some(string.into()),
        |entry, string| utm(entry).source = Some(string),
        |entry, string| utm(entry).medium = Some(string),
        |entry, string| utm(entry).campaign = Some(string),
        |entry, string| utm(entry).term = Some(string),
        |entry, string| utm(entry).content = Some(string),
        |entry, string| {
            let (key, value) = string.split_at(100);
            entry.properties.push((key.to_owned(), value.to_owned()));
        },
    ];
    let config = rules(json!({
        "lateness_seconds": 7200, "new_session_on_referrer_change": false, "new_session_on_utm_change": false,
    }));
    const EVENT_BYTES: usize = 1024;
    for (number, fill) in fills.into_iter().enumerate() {
        let mut arrivals = numbered(0..MAX_UNFINALIZED_BYTES / EVENT_BYTES + 1, |number| NOON + number as Millis);
        for arrival in &mut arrivals {
            // The id counts, too.
            let rest = EVENT_BYTES - arrival.entry.uuid.len();
            fill(&mut arrival.entry, "x".repeat(rest));
        }
        let last = arrivals.pop().unwrap();
        let mut timeline = empty();
        assert_eq!(apply(&mut timeline, &arrivals, &config).overflow.finalized_early, 0, "{number}");
        assert_eq!(apply(&mut timeline, &[last], &config).overflow.finalized_early, 1, "{number}");
        // As many events are finalized as make room.
        let mut large = arrival("z", NOON + MINUTE, NOON + 60 * MINUTE);
        large.entry.context.url = Some("x".repeat(3 * EVENT_BYTES - 1).into());
        assert_eq!(apply(&mut timeline, &[large], &config).overflow.finalized_early, 3, "{number}");
    }
    // An event that is finalized because of the number of events makes room for strings, too.
    let mut arrivals = numbered(0..MAX_UNFINALIZED_EVENTS + 1, |number| NOON + number as Millis);
    arrivals[0].entry.context.url = Some("x".repeat(MAX_UNFINALIZED_BYTES).into());
    assert_eq!(apply(&mut empty(), &arrivals, &config).overflow.finalized_early, 1);
}

/// A session that has no finalized event keeps the fingerprints of its late events itself. So that they do not grow without a
/// bound, its first event is finalized early.
#[test]
fn late_events_beyond_the_bound_finalize_their_session() {
    let config = SessionConfig::default();
    let now = NOON + 20 * MINUTE;
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("live", now, now), arrival("more", now + 1, now + 1)], &config);
    timeline.watermark = now;
    let late: Vec<Arrival> =
        (0..=MAX_UNFINALIZED_LATE_EVENTS).map(|n| arrival(&format!("m{n:04}"), NOON + n as Millis, now)).collect();
    let full = apply(&mut timeline, &late[1..], &config);
    assert_eq!((full.overflow, timeline.open.as_ref()), (Overflow::default(), None));
    assert_eq!(timeline.anchors[0].late.fingerprints.len(), MAX_UNFINALIZED_LATE_EVENTS);
    let over = apply(&mut timeline, &late[..1], &config);
    assert_eq!((over.overflow.finalized_early, timeline.unfinalized.len()), (1, 1));
    let open = timeline.open.clone().unwrap();
    assert_eq!((open.facts.event_count, open.late.event_count as usize), (1, MAX_UNFINALIZED_LATE_EVENTS + 1));
    // All of them are known, and so is the event that was finalized.
    assert!(!apply(&mut timeline, &late, &config).changed);
    assert!(!apply(&mut timeline, &[arrival("live", now, now)], &config).changed);
}

#[test]
fn properties_keep_within_their_bounds() {
    let config = SessionConfig::default();
    let kept = |batches: &[Vec<(String, String)>]| {
        let mut timeline = empty();
        for (number, properties) in batches.iter().enumerate() {
            let at = NOON + number as Millis;
            let entry = Entry { properties: properties.clone(), ..entry(&format!("e{number}"), at) };
            apply(
                &mut timeline,
                &[Arrival { entry, received_at: at, passive: false, timed_by_sent_at: false, may_change_time: false }],
                &config,
            );
        }
        let properties = timeline.sessions(NOON, &config)[0].properties.clone();
        properties.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let string = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let numbered: Vec<_> = (0..=MAX_PROPERTIES).map(|n| pair(&format!("k{n:02}"), "1")).collect();
    assert_eq!(kept(std::slice::from_ref(&numbered)), numbered[..MAX_PROPERTIES]);
    // A session that is full still takes a new value of a key that it has.
    assert_eq!(kept(&[numbered, vec![pair("k00", "2")]])[0], pair("k00", "2"));
    let (largest, too_large) =
        (pair("big", &string(MAX_PROPERTY_BYTES - 5)), pair("big", &string(MAX_PROPERTY_BYTES - 4)));
    let small = pair("k", "1");
    assert_eq!(kept(&[vec![small.clone()], vec![too_large]]), std::slice::from_ref(&small));
    assert_eq!(kept(&[vec![small.clone()], vec![largest.clone()]]), [largest.clone(), small.clone()]);
    // The value that it replaces makes room for it.
    assert_eq!(kept(&[vec![largest.clone()], vec![largest.clone()], vec![small.clone()]]), [largest, small]);
}

/// A change of `due_at` costs a write to the index, so `due_at` is kept unless it is much too late.
#[test]
fn due_at_is_kept_unless_it_is_much_too_late() {
    let config = SessionConfig::default();
    let wait = 35 * MINUTE;
    let cases = [(MINUTE, false, false), (wait, false, true), (wait + 1, true, false), (20 * wait, true, false)];
    for (ahead, is_brought_forward, is_too_late) in cases {
        let mut timeline = empty();
        apply(&mut timeline, &[arrival("ahead", NOON + ahead, NOON)], &config);
        assert_eq!(timeline.due_at, Some(NOON + ahead + wait + 1));
        apply(&mut timeline, &[arrival("now", NOON, NOON)], &config);
        let due_at = if is_brought_forward { NOON + wait + 1 } else { NOON + ahead + wait + 1 };
        assert_eq!(timeline.due_at, Some(due_at), "{ahead}");
        // A backdated event, which is placed exactly, moves `due_at` forward only if it is much too late, and not to a time before
        // the hold ends.
        let now = NOON + 2 * MINUTE;
        apply(&mut timeline, &[arrival("backdated", NOON - 60 * MINUTE, now)], &config);
        assert_eq!(timeline.held_until, Some(now + 30 * MINUTE));
        let due_at = if is_too_late { now + 30 * MINUTE } else { due_at };
        assert_eq!((timeline.due_at, timeline.ended.len()), (Some(due_at), 0), "{ahead}");
    }
    // A session of late events is over. It does not wait for the live session, but for other late events.
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("live", NOON, NOON)], &config);
    timeline.finalize(NOON + 1, &config);
    let now = NOON + MINUTE;
    apply(&mut timeline, &[arrival("late", NOON - 60 * MINUTE, now)], &config);
    assert_eq!((timeline.due_at, timeline.ended.len()), (Some(now + 5 * MINUTE), 1));
    apply(&mut timeline, &[arrival("later", NOON - 59 * MINUTE, now + MINUTE)], &config);
    assert_eq!(timeline.due_at, Some(now + 5 * MINUTE));
}

#[test]
fn passive_events_get_the_session_of_their_time_and_change_nothing() {
    let config = rules(json!({ "lateness_seconds": 7200 }));
    let mut timeline = empty();
    let events = [("a", 0), ("b", 10), ("c", 60), ("d", 95)];
    let arrivals = events.map(|(uuid, minutes)| arrival(uuid, NOON + minutes * MINUTE, NOON + 95 * MINUTE));
    let applied = apply(&mut timeline, &arrivals, &config);
    let ids: Vec<_> = applied.assignments.iter().flatten().map(|assignment| assignment.session_id).collect();
    let (first, second, third) = (Some(ids[0]), Some(ids[2]), Some(ids[3]));
    // First with all events unfinalized; then with the first session over and the second finalized in part.
    for watermark in [NOON, NOON + 61 * MINUTE] {
        timeline.finalize(watermark, &config);
        let times = [
            (-1, None),
            (0, first),
            (5 * MINUTE, first),
            (40 * MINUTE, first),
            (40 * MINUTE + 1, None),
            (60 * MINUTE - 1, None),
            (60 * MINUTE, second),
            (90 * MINUTE, second),
            (90 * MINUTE + 1, None),
            (95 * MINUTE, third),
            (126 * MINUTE, None),
        ];
        for (after, expected) in times {
            let passive = Arrival { passive: true, ..arrival("p", NOON + after, NOON + 130 * MINUTE) };
            let before = timeline.clone();
            let applied = apply(&mut timeline, &[passive], &config);
            assert_eq!((applied.changed, &timeline), (false, &before));
            let found = applied.assignments[0].as_ref().map(|assignment| assignment.session_id);
            assert_eq!(found, expected, "{after} ms after the first event, finalized up to {watermark}");
        }
    }
}

#[test]
fn a_duplicate_of_a_finalized_event_is_answered_with_its_session() {
    let config = SessionConfig::default();
    for watermark in [NOON + 2 * MINUTE, NOON + 40 * MINUTE] {
        let mut timeline = empty();
        let events = [("a", 0), ("b", 1)].map(|(uuid, minutes)| arrival(uuid, NOON + minutes * MINUTE, NOON + MINUTE));
        let first = apply(&mut timeline, &events, &config);
        timeline.finalize(watermark, &config);
        let second = apply(&mut timeline, &events, &config);
        assert!(!second.changed);
        for (first, second) in first.assignments.iter().flatten().zip(second.assignments.iter().flatten()) {
            let answer = |assignment: &Assignment| (assignment.session_id, assignment.is_start, assignment.at);
            // In a session that is over, the first event is known; in one that is finalized in part, it is not.
            let is_start = first.is_start && timeline.open.is_none();
            assert_eq!(answer(second), (first.session_id, is_start, first.at));
        }
        assert_eq!(second.assignments.iter().flatten().count(), 2);
    }
}

/// A duplicate has the time at which the event was counted. Once the event is finalized, the duplicate has a time within the
/// finalized part of the session. In both cases a consumer that follows a split moves the duplicate as it moves the event.
#[test]
fn a_duplicate_has_the_time_that_was_counted() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    // An event without a time takes the time of its receipt, which differs from delivery to delivery.
    let received = |minutes: i64| arrival("untimed", NOON + minutes * MINUTE, NOON + minutes * MINUTE);
    let at = |timeline: &mut Timeline, minutes: i64| {
        apply(timeline, &[received(minutes)], &config).assignments[0].as_ref().map(|assignment| assignment.at)
    };
    apply(&mut timeline, &[received(0), arrival("b", NOON + MINUTE, NOON + MINUTE)], &config);
    assert_eq!(at(&mut timeline, 2), Some(NOON));
    timeline.finalize(NOON + MINUTE + 1, &config);
    apply(&mut timeline, &[arrival("c", NOON + 3 * MINUTE, NOON + 3 * MINUTE)], &config);
    assert_eq!(at(&mut timeline, 2), Some(NOON + MINUTE), "c is not finalized");
    timeline.finalize(NOON + 40 * MINUTE, &config);
    assert_eq!((at(&mut timeline, 2), at(&mut timeline, 50)), (Some(NOON + 2 * MINUTE), Some(NOON + 3 * MINUTE)));
}

#[test]
fn a_late_event_in_a_live_session_carries_page_views_that_include_it() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("a", NOON, NOON), arrival("b", NOON + MINUTE, NOON + MINUTE)], &config);
    timeline.finalize(NOON + MINUTE + 1, &config);
    let applied = apply(&mut timeline, &[arrival("late", NOON + 1, NOON + MINUTE)], &config);
    let assignment = applied.assignments[0].as_ref().unwrap();
    assert_eq!((assignment.is_late, assignment.page_views), (true, 3));
}

/// Archived sessions are looked up by the times in their ids. So an id does not move to a session that begins earlier than a
/// maximum duration before it.
#[test]
fn an_id_does_not_move_to_a_session_that_begins_long_before_it() {
    let config = rules(json!({ "timeout_seconds": 1800, "max_duration_seconds": 3600 }));
    let mut timeline = empty();
    let now = NOON + 60 * MINUTE;
    let mut ids = Vec::new();
    for minutes in [60, 35, 10, -15, -40, -65, -90] {
        let applied = apply(&mut timeline, &[arrival(&format!("e{minutes}"), NOON + minutes * MINUTE, now)], &config);
        ids.push(applied.assignments[0].as_ref().unwrap().session_id);
        let is_near = |anchor: &session_tracking::timeline::SessionAnchor| {
            let at = (anchor.id.as_u128() >> 80) as Millis;
            at - timeline.unfinalized[anchor.entry].at <= 60 * MINUTE
        };
        assert!(timeline.anchors.iter().filter(|anchor| anchor.is_primary).all(is_near), "{:?}", timeline.anchors);
    }
    ids.dedup();
    assert!(ids.len() > 1, "the visit is longer than a session, so it has several");
}

/// A closer emitted and archived sessions, and died before it took them out of the timeline. They are counted once.
#[test]
fn sessions_that_a_dead_closer_archived_count_once() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let mut timeline = empty();
    for (uuid, minutes) in [("a", 0), ("b", 60)] {
        apply(&mut timeline, &[arrival(uuid, NOON + minutes * MINUTE, NOON + minutes * MINUTE)], &config);
    }
    let mut closed = timeline.clone();
    let archived = closed.close(NOON + 100 * MINUTE, &config).ended;
    assert_eq!((archived.len(), closed.archived), (2, 2));
    // First with both sessions unfinalized; then with the first one over; then with the second one finalized, too.
    for watermark in [NOON, NOON + 40 * MINUTE, NOON + 61 * MINUTE] {
        timeline.finalize(watermark, &config);
        for (minutes, session) in [(5, 0), (65, 1)] {
            let (timeline_before, mut timeline) = (&timeline, timeline.clone());
            let late_at = NOON + minutes * MINUTE;
            let late = arrival("late", late_at, NOON + 120 * MINUTE);
            let applied = timeline.apply(&[late], archived.clone(), &config);
            let assignment = applied.assignments[0].clone().unwrap();
            let is_late = late_at < timeline_before.watermark;
            assert_eq!((assignment.session_id, assignment.is_late), (archived[session].id, is_late));
            let mut counts = [1, 1];
            counts[session] = 2;
            let sessions = timeline.sessions(NOON + 120 * MINUTE, &config);
            assert_eq!(sessions.iter().map(|session| session.event_count).collect::<Vec<_>>(), counts);
            assert_eq!(timeline.archived, 0);
        }
    }
    // A session that was taken out of the timeline joins it again.
    let late = arrival("late", NOON + 5 * MINUTE, NOON + 120 * MINUTE);
    let applied = closed.apply(&[late], archived.clone(), &config);
    assert_eq!(applied.assignments[0].as_ref().map(|assignment| assignment.session_id), Some(archived[0].id));
    assert_eq!((closed.archived, closed.ended.len(), closed.ended[0].facts.event_count), (1, 1, 1));
    assert!(closed.ended[0].version > archived[0].version);
}

/// Returns a timeline of three sessions of one event, an hour apart, which are over.
fn three_visits(config: &SessionConfig) -> Timeline {
    let mut timeline = empty();
    for (uuid, minutes) in [("a", 0), ("b", 60), ("c", 120)] {
        apply(&mut timeline, &[arrival(uuid, NOON + minutes * MINUTE, NOON + minutes * MINUTE)], config);
    }
    timeline
}

/// For events, a closed session is an archived one that is always recalled, whichever of the sessions are closed.
#[test]
fn closed_sessions_are_like_recalled_ones() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let mut archived = three_visits(&config);
    let now = NOON + 200 * MINUTE;
    let sessions = archived.close(now, &config).ended;
    for closed in 0..8_usize {
        let is_closed = |number: usize| closed >> number & 1 == 1;
        let mut timeline = archived.clone();
        let mut recalled = Vec::new();
        for (number, state) in sessions.iter().enumerate() {
            if is_closed(number) {
                timeline.keep_closed(ClosedSession { state: state.clone(), closed_at: now });
            } else {
                recalled.push(state.clone());
            }
        }
        assert_eq!(timeline.archived as usize + timeline.closed.len(), 3);
        // Duplicates, late events that join or make a session, and one that is not late; alone and together.
        let minutes = [0, 5, -29, 30, 31, 60, 95, 119, 121, 149, 199];
        let arrivals: Vec<Arrival> = minutes
            .iter()
            .map(|minutes| {
                let uuid = match minutes {
                    0 => "a",
                    60 => "b",
                    _ => &format!("e{minutes}"),
                };
                arrival(uuid, NOON + minutes * MINUTE, now)
            })
            .collect();
        let alone = arrivals.iter().map(std::slice::from_ref);
        for batch in alone.chain([&arrivals[..]]) {
            let (mut with, mut without) = (timeline.clone(), archived.clone());
            let applied =
                [with.apply(batch, recalled.clone(), &config), without.apply(batch, sessions.clone(), &config)];
            assert_eq!(applied[0], applied[1]);
            let emitted = |timeline: &Timeline| timeline.archived as usize + timeline.closed.len();
            assert_eq!(emitted(&with), emitted(&without));
            with.closed.clear();
            assert_eq!(with, Timeline { archived: with.archived, ..without });
        }
    }
}

/// A closer emitted sessions that are to stay as closed ones. In the item of another writer they stay, too, except for the one that
/// has changed, which is emitted again.
#[test]
fn what_was_emitted_stays_in_the_item_of_another_writer() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let now = NOON + 200 * MINUTE;
    let mut winner = three_visits(&config);
    winner.finalize(now, &config);
    let closing = winner.clone().close(now, &config);
    let closed = |state: &SessionState| ClosedSession { state: state.clone(), closed_at: now };
    let kept: Vec<ClosedSession> = closing.ended[..2].iter().map(closed).collect();
    apply(&mut winner, &[arrival("late", NOON + 5 * MINUTE, now)], &config);
    let (was_due, mut over) = (winner.due_at, winner.close(now, &config));
    winner.keep_closed_again(&kept, &mut over);
    // The third one was archived.
    let rest = over.without(&Closing { ended: closing.ended[2..].to_vec(), corrections: Vec::new() });
    assert_eq!(rest.ended.iter().map(|state| state.id).collect::<Vec<_>>(), [closing.ended[0].id]);
    winner.put_back(rest, was_due);
    assert_eq!((winner.closed.as_slice(), winner.ended.len(), winner.archived), (&kept[1..], 1, 1));
    assert!(winner.due_at.is_some() && winner.ended[0].version > closing.ended[0].version);
}

/// Like `sessions_that_a_dead_closer_archived_count_once`, but after the closer died a backdated event merges the two sessions. The archived copy of the one that is
/// only an alias now does not count either.
#[test]
fn sessions_that_a_dead_closer_archived_and_that_were_merged_since_count_once() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let mut timeline = empty();
    for (uuid, minutes) in [("a", 0), ("c", 60)] {
        apply(&mut timeline, &[arrival(uuid, NOON + minutes * MINUTE, NOON + minutes * MINUTE)], &config);
    }
    let archived = timeline.clone().close(NOON + 100 * MINUTE, &config).ended;
    apply(&mut timeline, &[arrival("b", NOON + 30 * MINUTE, NOON + 101 * MINUTE)], &config);
    timeline.finalize(NOON + 110 * MINUTE, &config);
    assert_eq!((timeline.ended.len(), timeline.ended[0].aliases.as_slice()), (1, [archived[1].id].as_slice()));
    let late = arrival("late", NOON + 65 * MINUTE, NOON + 120 * MINUTE);
    let applied = timeline.apply(&[late], archived.clone(), &config);
    assert_eq!(applied.assignments[0].as_ref().map(|assignment| assignment.session_id), Some(archived[0].id));
    let sessions = timeline.sessions(NOON + 120 * MINUTE, &config);
    assert_eq!(sessions.iter().map(|session| session.event_count).collect::<Vec<_>>(), [4]);
    let form = session_tracking::stored::encode_timeline(&timeline);
    let read = session_tracking::stored::decode_timeline(session_tracking::stored::FORMAT, &form, Visitor::new("u1"));
    assert_eq!(read, Ok(Timeline { due_at: None, ..timeline }));
}

/// Under a longer maximum duration, an id was merged into a session that began long before it. The range of the rules in force now
/// does not reach that session, so a late event begins a session of the same id. Later both are recalled.
#[test]
fn an_alias_that_is_another_sessions_id_by_now_is_dropped() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("a", NOON, NOON)], &config);
    let own = timeline.close(NOON + 60 * MINUTE, &config).ended.remove(0);
    let mut longer = SessionState { id: session_id(Visitor::new("u1").bits(), NOON - 1, "z", 0), ..own.clone() };
    longer.facts.last_activity = NOON - 1;
    longer.facts.started_at = NOON - MINUTE;
    (longer.fingerprints, longer.aliases) = (Vec::new(), vec![own.id]);
    let late = [arrival("l1", NOON - 1, NOON + 120 * MINUTE), arrival("l2", NOON, NOON + 120 * MINUTE)];
    timeline.apply(&late, vec![own.clone(), longer], &config);
    assert!(timeline.ended.len() == 2 && timeline.ended.iter().all(|session| session.aliases.is_empty()));
    let form = session_tracking::stored::encode_timeline(&timeline);
    let read = session_tracking::stored::decode_timeline(session_tracking::stored::FORMAT, &form, Visitor::new("u1"));
    assert_eq!(read, Ok(Timeline { due_at: None, ..timeline }));
}

/// A library call that asks for a session counts no event, also if other writers finalized everything up to its time meanwhile.
#[test]
fn a_late_library_call_counts_no_event() {
    let config = rules(json!({ "lateness_seconds": 0 }));
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("a", NOON, NOON)], &config);
    timeline.finalize(NOON + 1, &config);
    let touch = |at| Arrival { entry: Entry { kind: Kind::Touch, ..entry("touch", at) }, ..arrival("", at, NOON) };
    // In the live session, in that session once it is over, and in a session of its own.
    for (watermark, at) in
        [(NOON + 1, NOON), (NOON + 60 * MINUTE, NOON + MINUTE), (NOON + 60 * MINUTE, NOON - 60 * MINUTE)]
    {
        let mut timeline = timeline.clone();
        timeline.finalize(watermark, &config);
        let before = timeline.sessions(NOON, &config).len();
        let applied = apply(&mut timeline, &[touch(at)], &config);
        assert!(applied.assignments[0].as_ref().is_some_and(|assignment| assignment.is_late));
        let sessions = timeline.sessions(NOON, &config);
        assert_eq!(sessions.len(), before + usize::from(at < NOON));
        assert_eq!(sessions.iter().map(|session| session.event_count).sum::<u32>(), 1);
        let form = session_tracking::stored::encode_timeline(&timeline);
        let read =
            session_tracking::stored::decode_timeline(session_tracking::stored::FORMAT, &form, Visitor::new("u1"));
        assert!(read.is_ok(), "{read:?}");
    }
}

#[test]
fn only_late_events_and_possible_duplicates_recall_archived_sessions() {
    let config = rules(json!({ "lateness_seconds": 60, "timeout_seconds": 600, "max_duration_seconds": 1800 }));
    let now = NOON + 300 * MINUTE;
    let mut timeline = empty();
    apply(&mut timeline, &[arrival("a", NOON, NOON)], &config);
    let aged = |uuid: &str, minutes: i64| arrival(uuid, NOON + minutes * MINUTE, now);
    assert_eq!(timeline.recall_range(&[aged("l", -20)], &config), None, "nothing is archived");
    timeline.close(NOON + 100 * MINUTE, &config);
    assert_eq!(timeline.watermark, NOON + 10 * MINUTE + 1);
    apply(&mut timeline, &[arrival("b", now, now)], &config);
    apply(&mut timeline, &[aged("known", 5)], &config);
    let passive = Arrival { passive: true, ..aged("p", -30) };
    let nothing = [aged("known", 5), passive.clone(), aged("backdated", 60), arrival("new", now + 1, now + 1)];
    assert_eq!(timeline.recall_range(&nothing, &config), None);
    let wait = 70;
    let range = |from: i64, to: i64| Some((NOON + (from - wait) * MINUTE, NOON + (to + wait) * MINUTE));
    assert_eq!(timeline.recall_range(&[aged("l", 6)], &config), range(6, 6));
    let arrivals = [aged("l", 6), passive, aged("m", -50), arrival("new", now, now), aged("n", 7)];
    assert_eq!(timeline.recall_range(&arrivals, &config), range(-50, 7));
    // An event that was timed by `sent_at` has another time when it is sent again. It can be archived only if it is old enough.
    let by_sent_at = |arrival: Arrival| Arrival { timed_by_sent_at: true, may_change_time: true, ..arrival };
    assert_eq!(timeline.recall_range(&[by_sent_at(aged("b60", 60))], &config), range(60, 60));
    assert_eq!(timeline.recall_range(&[by_sent_at(aged("b299", 299))], &config), None);
}

/// The reason of a session of late events follows from the session before it, if that one is known to be over.
#[test]
fn a_session_of_late_events_has_a_reason() {
    let config = rules(json!({ "lateness_seconds": 0, "max_duration_seconds": 3600 }));
    let mut timeline = empty();
    for minutes in [0, 25, 50] {
        apply(
            &mut timeline,
            &[arrival(&format!("{minutes}"), NOON + minutes * MINUTE, NOON + minutes * MINUTE)],
            &config,
        );
    }
    let now = NOON + 300 * MINUTE;
    apply(&mut timeline, &[arrival("live", now, now)], &config);
    timeline.finalize(now + 1, &config);
    let mut reason = |uuid: &str, minutes: i64| {
        let applied = apply(&mut timeline, &[arrival(uuid, NOON + minutes * MINUTE, now)], &config);
        let assignment = applied.assignments[0].clone().unwrap();
        (assignment.reason, assignment.number)
    };
    assert_eq!(reason("x", 70), (Reason::MaxDuration, 2));
    assert_eq!(reason("y", 150), (Reason::Timeout, 3));
    assert_eq!(reason("z", -100), (Reason::First, 1));
    // It has the attribution of its first event.
    let source = UtmParams { source: Some("ads".to_owned()), ..UtmParams::default() };
    let mut late = arrival("s", NOON + 220 * MINUTE, now);
    late.entry.context.utm = Some(source.clone().into());
    late.entry.context.referrer = Some("https://a.test/".into());
    late.entry.click = Some(7);
    assert!(apply(&mut timeline, &[late], &config).changed);
    let session = timeline.ended.iter().find(|session| session.facts.started_at == NOON + 220 * MINUTE).unwrap();
    assert_eq!(
        (session.version, session.facts.last_activity, session.facts.attribution.click),
        (timeline.seq, session.facts.started_at, Some(7))
    );
    assert_eq!(
        (session.facts.attribution.utm.as_deref(), session.facts.attribution.referrer.as_deref()),
        (Some(&source), Some("https://a.test/"))
    );
}

/// Late events of a session that was merged stay in the merged session when it is split off again, because a consumer could not
/// tell which of the late events move.
#[test]
fn late_events_stay_when_a_merged_session_is_split_off_again() {
    let config = rules(json!({ "lateness_seconds": 0, "timeout_seconds": 10 }));
    let mut timeline = empty();
    let deliver = |timeline: &mut Timeline, events: &[(&str, Millis, Option<&str>)]| {
        let newest = events.iter().map(|(_, at, _)| NOON + at).max().unwrap();
        let arrivals = events.iter().map(|&(uuid, at, source)| {
            let mut arrival = arrival(uuid, NOON + at, newest);
            let utm = |source: &str| UtmParams { source: Some(source.to_owned()), ..UtmParams::default() };
            arrival.entry.context.utm = source.map(|source| utm(source).into());
            arrival
        });
        apply(timeline, &arrivals.collect::<Vec<_>>(), &config);
        timeline.sessions(newest, &config).iter().map(|session| session.event_count).collect::<Vec<_>>()
    };
    deliver(&mut timeline, &[("a", 0, Some("one"))]);
    assert_eq!(deliver(&mut timeline, &[("e", 18_000, Some("one"))]), [1, 1]);
    // A late event that is counted in the second session. It lies behind the watermark and within the timeout of that session.
    timeline.anchors[1].late.event_count = 1;
    timeline.anchors[1].late.fingerprints = vec![7];
    assert_eq!(deliver(&mut timeline, &[("bridge", 8_000, None)]), [4]);
    assert_eq!(deliver(&mut timeline, &[("c", 10_000, Some("two"))]), [3, 1, 1]);
}

/// A late event at or beyond an edge of a session that is over changes the values of that edge. A late event within the session
/// only sets values that no other event has set.
#[test]
fn a_session_that_is_over_grows_to_late_events() {
    let config = rules(json!({ "lateness_seconds": 0, "timeout_seconds": 600 }));
    let with = |uuid: &str, seconds: i64, is_view: bool, has_more: bool| {
        let mut arrival = arrival(uuid, NOON + seconds * 1000, NOON + seconds * 1000);
        let entry = &mut arrival.entry;
        entry.kind = if is_view { Kind::Pageview } else { Kind::Event };
        entry.context.url = Some(uuid.into());
        if has_more {
            entry.context.device = Some(DeviceInfo { device_type: uuid.to_owned(), ..DeviceInfo::default() }.into());
            entry.context.geo = Some(GeoInfo { city: Some(uuid.to_owned()), ..GeoInfo::default() }.into());
            entry.properties = vec![("p".to_owned(), format!("\"{uuid}\"")), (uuid.to_owned(), "1".to_owned())];
        }
        arrival
    };
    let late = |seconds: i64, is_view: bool, has_more: bool| Arrival {
        received_at: NOON + 3600 * 1000,
        ..with("late", seconds, is_view, has_more)
    };
    let full = [with("a", 100, true, true), with("b", 200, true, true)];
    let bare = [with("a", 100, false, false), with("b", 200, false, false)];
    // Expected: entry URL, landing page, exit page, property `p`, device.
    let cases: [(&[Arrival; 2], Arrival, [&str; 5]); 10] = [
        (&full, late(99, true, true), ["late", "late", "b", "b", "a"]),
        (&full, late(99, false, true), ["late", "a", "b", "b", "a"]),
        (&full, late(100, true, true), ["a", "a", "b", "b", "a"]),
        (&full, late(150, true, true), ["a", "a", "b", "b", "a"]),
        (&full, late(200, true, true), ["a", "a", "late", "late", "a"]),
        (&full, late(201, true, true), ["a", "a", "late", "late", "a"]),
        (&full, late(201, false, true), ["a", "a", "b", "late", "a"]),
        (&bare, late(99, true, true), ["late", "late", "late", "late", "late"]),
        (&bare, late(150, true, true), ["a", "late", "late", "late", "late"]),
        (&bare, late(201, false, false), ["a", "", "", "", ""]),
    ];
    for (events, late, expected) in cases {
        let mut timeline = empty();
        apply(&mut timeline, events, &config);
        timeline.finalize(NOON + 3000 * 1000, &config);
        let at = late.entry.at;
        apply(&mut timeline, std::slice::from_ref(&late), &config);
        let session = timeline.sessions(at, &config).remove(0);
        let p = session.properties.get("p").map(|value| value.get().trim_matches('"').to_owned());
        let device = session.device.map(|device| device.device_type);
        assert_eq!(session.geo.and_then(|geo| geo.city), device);
        let found = [session.entry_url, session.landing_page, session.exit_page, p, device];
        assert_eq!(found.map(Option::unwrap_or_default), expected, "{late:?}");
        let edges = [session.started_at, session.last_activity].map(|time| time.timestamp_millis());
        assert_eq!(edges, [at.min(NOON + 100_000), at.max(NOON + 200_000)]);
        assert_eq!(session.properties.contains_key("late"), !late.entry.properties.is_empty());
    }
}

/// A session id derives from the time of its first event and from twelve bits of that event's id. If both are the same for two
/// sessions, the second one gets another id.
/// A late event with a campaign of its own, and the time at which its session is over.
fn with_campaign(arrival: Arrival, source: &str) -> Arrival {
    let utm = Some(Arc::new(UtmParams { source: Some(source.to_owned()), ..UtmParams::default() }));
    let entry = Entry { context: SessionContext { utm, ..SessionContext::default() }, ..arrival.entry };
    Arrival { entry, ..arrival }
}

#[test]
fn a_late_campaign_inside_a_session_that_is_over_makes_a_session() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    for minutes in [0, 20] {
        let at = NOON + minutes * MINUTE;
        apply(&mut timeline, &[with_campaign(arrival(&format!("e{minutes}"), at, at), "mail")], &config);
    }
    let closing = timeline.close(NOON + 120 * MINUTE, &config);
    let late = |uuid: &str, minutes: Millis| arrival(uuid, NOON + minutes * MINUTE, NOON + 180 * MINUTE);
    let arrivals = [late("same", 5), with_campaign(late("other", 10), "ads"), late("after", 15)];
    let applied = timeline.apply(&arrivals, closing.ended.clone(), &config);
    let [same, other, after] = applied.assignments.try_into().unwrap();
    let [same, other, after] = [same, other, after].map(|assignment: Option<Assignment>| assignment.unwrap());
    assert_eq!(same.session_id, closing.ended[0].id);
    assert_eq!((other.reason, after.session_id), (Reason::UtmChange, other.session_id));
    assert_ne!(other.session_id, same.session_id);
}

/// While no closer runs, a session that is over stays open. A late event extends it all the same.
#[test]
fn a_late_event_extends_a_session_that_no_closer_has_closed() {
    let config = SessionConfig::default();
    let mut timeline = empty();
    for number in 0..9 {
        let at = NOON + number * 10 * MINUTE;
        apply(&mut timeline, &[arrival(&format!("e{number}"), at, at)], &config);
    }
    assert!(timeline.open.is_some() && timeline.ended.is_empty());
    let late = with_campaign(arrival("late", NOON - 10 * MINUTE, NOON + 180 * MINUTE), "ads");
    let first = apply(&mut timeline, &[late], &config).assignments.remove(0).unwrap();
    let [session] = &timeline.ended[..] else { panic!("{timeline:?}") };
    assert_eq!((session.id, session.facts.started_at), (first.session_id, NOON - 10 * MINUTE));
    assert_eq!(session.facts.attribution.utm.as_ref().and_then(|utm| utm.source.as_deref()), Some("ads"));
}

#[test]
fn sessions_of_one_moment_have_ids_of_their_own() {
    let config = rules(json!({ "max_events": 1 }));
    let bits = empty().visitor.bits();
    let id = |uuid: &str, salt| session_id(bits, NOON, uuid, salt);
    let is_equal = |uuid: &String| id(uuid, 0) == id("a", 0);
    let equal = (0..).map(|number| format!("b{number}")).find(is_equal).unwrap();
    let [a, b] = ["a", &equal].map(|uuid| arrival(uuid, NOON, NOON));
    for batches in [vec![vec![a.clone(), b.clone()]], vec![vec![a.clone()], vec![b.clone()]], vec![vec![b], vec![a]]] {
        let mut timeline = empty();
        batches.iter().for_each(|batch| drop(apply(&mut timeline, batch, &config)));
        let ids: Vec<_> = timeline.anchors.iter().map(|anchor| anchor.id).collect();
        assert!(ids.len() == 2 && ids.contains(&id("a", 0)) && ids.contains(&id("a", 1)), "{ids:?}");
    }
}

/// An event that begins a session again gives it another id each time, also if the earlier sessions are archived.
#[test]
fn an_event_that_begins_a_session_again_gives_another_id() {
    let config = rules(json!({ "lateness_seconds": 60 }));
    let mut timeline = empty();
    let deliver = |timeline: &mut Timeline, uuid: &str, seconds: i64, source: &str| {
        let mut arrival = arrival(uuid, NOON + seconds * 1000, NOON + 7000);
        let utm = UtmParams { source: Some(source.to_owned()), ..UtmParams::default() };
        arrival.entry.context.utm = Some(utm.into());
        apply(timeline, &[arrival], &config);
    };
    // The last event begins a session, an earlier event takes over its id, and the last one begins a session again. Then the same
    // with the next event.
    for (uuid, seconds, source) in [("d", 7, "two"), ("a", 1, "two"), ("b", 2, "one"), ("e", 3, "two"), ("g", 5, "two")]
    {
        deliver(&mut timeline, uuid, seconds, source);
    }
    deliver(&mut timeline, "f", 4, "one");
    let closing = timeline.close(NOON + 64_500, &config);
    deliver(&mut timeline, "h", 6, "one");
    let sessions = timeline.sessions(NOON + 7000, &config);
    let mut ids: Vec<_> = sessions.into_iter().map(|session| session.id).collect();
    ids.extend(closing.ended.iter().map(|state| state.id.to_string()));
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), closing.ended.len()), (7, 3), "{ids:?}");
}

/// The end of the largest session fits into a message of the output queue: strings of the characters that take most in JSON, as long
/// as is kept of them. So no end is refused for its size, and none keeps its timeline due for ever.
#[test]
fn the_largest_end_fits_into_a_message() {
    let string = |bytes: usize| "\u{1}".repeat(bytes);
    let text = || string(256);
    let session: session_tracking::Session = serde_json::from_value(json!({
        "id": Uuid::max(), "project": string(200), "distinct_id": string(200), "reason": "click_id_change",
        "number": u32::MAX, "previous_session_id": Uuid::max(), "started_at": "2026-03-10T12:00:00Z",
        "last_activity": "2026-03-10T12:00:00Z", "ended_at": "2026-03-10T12:00:00Z", "page_views": u32::MAX,
        "event_count": u32::MAX, "entry_url": string(2048), "referrer": string(2048), "landing_page": string(2048),
        "exit_page": string(2048),
        "utm": { "source": text(), "medium": text(), "campaign": text(), "term": text(), "content": text() },
        "device": { "device_type": text(), "os": text(), "os_version": text(), "browser": text(),
            "browser_version": text(), "screen_resolution": text() },
        "geo": { "country": text(), "region": text(), "city": text(), "timezone": text() },
        // Values are kept as JSON, keys are escaped.
        "properties": (0..MAX_PROPERTIES).map(|n| (format!("{}{n:x}", string(63)), 1)).collect::<HashMap<_, _>>(),
        "is_active": false, "version": u64::MAX,
    }))
    .unwrap();
    let bytes = session_tracking::emitted::end_line(&session, session_tracking::Reason::MaxDuration).len();
    assert!((100_000..200_000).contains(&bytes), "{bytes}");
}

/// Why a session ended: the source of the next one, or the first rule of time or counts that held.
#[test]
fn a_session_ends_for_the_first_rule_that_holds() {
    let minutes = |minutes: Millis| NOON + minutes * MINUTE;
    let event = |at: Millis, referrer: Option<&str>| {
        let mut arrival = arrival(&format!("e{at}"), at, at);
        arrival.entry.context.referrer = referrer.map(Into::into);
        arrival
    };
    let (a, b) = (Some("https://a.test/"), Some("https://b.test/"));
    for (given, events, wanted) in [
        (json!({}), vec![(0, None)], vec!["timeout"]),
        (json!({}), vec![(0, a), (5, b)], vec!["referrer_change", "timeout"]),
        // After the timeout, the other source is not the reason.
        (json!({}), vec![(0, a), (35, b)], vec!["timeout", "timeout"]),
        (json!({"max_duration_seconds": 1200}), vec![(0, None), (15, None)], vec!["max_duration"]),
        (
            json!({"max_duration_seconds": 1200}),
            vec![(0, None), (15, None), (25, None)],
            vec!["max_duration", "max_duration"],
        ),
        (json!({"max_events": 2}), vec![(0, None), (5, None)], vec!["max_events"]),
        (json!({"max_events": 2}), vec![(0, None), (5, None), (50, None)], vec!["max_events", "timeout"]),
        // It is ten to midnight there, or eleven in the evening.
        (json!({"midnight": "Pacific/Auckland"}), vec![(-70, None)], vec!["midnight"]),
        (json!({"midnight": "Pacific/Auckland"}), vec![(-70, None), (0, None)], vec!["midnight", "timeout"]),
        (json!({"midnight": "Pacific/Auckland"}), vec![(-120, None)], vec!["timeout"]),
    ] {
        let config = rules(given);
        let mut timeline = Timeline::new(Visitor::new("u1"));
        for (at, referrer) in &events {
            apply(&mut timeline, &[event(minutes(*at), *referrer)], &config);
        }
        // The reason is stored with the session.
        let stored = encode_timeline(&timeline);
        let mut timeline = decode_timeline(FORMAT, &stored, Visitor::new("u1")).unwrap();
        let ended = timeline.close(minutes(3_000), &config).ended;
        let reasons: Vec<&str> = ended.iter().map(|state| state.end_reason(&config).name()).collect();
        assert_eq!(reasons, wanted, "{events:?}");
        for state in ended {
            let bytes = encode_session(&state);
            let read = decode_session(FORMAT, &bytes, Visitor::new("u1").bits()).unwrap();
            assert_eq!(read, state);
        }
    }
}
