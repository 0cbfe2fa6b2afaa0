//! Stored timelines and sessions.

use session_tracking::config::{Boundary, DirectThenSource, SessionConfig};
use session_tracking::model::{Entry, Kind, SessionState};
use session_tracking::session::{EventId, Millis, SessionContext, Visitor};
use session_tracking::stored::{FORMAT, decode_session, decode_timeline, encode_session, encode_timeline};
use session_tracking::timeline::{Arrival, ClosedSession, Timeline};

/// Checks that bytes that decode to a timeline can be encoded and decoded to the same timeline, and that every operation on it,
/// under any rules, gives a timeline that can be stored as well.
pub fn stored_timeline(bytes: &[u8]) {
    let Ok(timeline) = decode_timeline(FORMAT, bytes, Visitor::new("u")) else { return };
    assert_eq!(round_trip(&timeline), timeline);
    for config in &configs() {
        let times = times(&timeline, config);
        for &at in &times {
            check_operations(timeline.clone(), at, config);
        }
        let mut all = timeline.clone();
        let arrivals: Vec<Arrival> = times.iter().map(|&at| arrival(at, "all", false)).collect();
        all.apply(&arrivals, Vec::new(), config);
        let last = times.iter().copied().chain(all.held_until).max();
        let now = last.unwrap_or_default() + 100 * 86_400_000;
        all.close(now, config).ended.iter().for_each(check_session);
        assert!(all.open.is_none() && all.unfinalized.is_empty(), "something is open after a hundred days");
        round_trip(&all);
    }
}

/// Checks that bytes that decode to a session can be encoded and decoded to the same session, and that late events can be counted
/// in it.
pub fn stored_session(bytes: &[u8]) {
    let visitor = Visitor::new("u");
    let Ok(session) = decode_session(FORMAT, bytes, visitor.bits()) else { return };
    check_session(&session);
    for config in &configs() {
        for at in [session.facts.started_at - 1, session.facts.started_at, session.facts.last_activity + 1] {
            let mut timeline = Timeline::new(visitor.clone());
            timeline.archived = 1;
            // Makes the events late.
            timeline.watermark = (session.facts.last_activity + 2).min(4_102_444_800_000);
            let arrivals = [arrival(at, "late", false), arrival(at, "late", false)];
            timeline.apply(&arrivals, vec![session.clone()], config);
            round_trip(&timeline);
        }
    }
}

/// Runs every operation on a timeline, around one time.
fn check_operations(mut timeline: Timeline, at: Millis, config: &SessionConfig) {
    let sessions = timeline.sessions(at, config);
    // A keep-alive event is not remembered once it is finalized.
    let known = timeline.unfinalized.iter().find(|entry| entry.kind != Kind::KeepAlive).map(|entry| entry.uuid.clone());
    for session in &sessions {
        let id = session.id.parse().unwrap();
        assert!(timeline.session(id, at, config).is_some(), "{id}");
        assert!(serde_json::to_string(session).is_ok());
    }
    let entry = arrival(at, "new", false).entry;
    timeline.session_of_call(&entry, config);
    timeline.recall_range(&[arrival(at, "new", false)], config);
    let mut arrivals = vec![arrival(at, "new", false), arrival(at, "passive", true), arrival(at + 1, "new", false)];
    arrivals.extend(known.map(|uuid| arrival(at, &uuid, false)));
    let applied = timeline.apply(&arrivals, Vec::new(), config);
    assert!(applied.assignments[0].is_some() && applied.assignments[2].is_some());
    assert!(!timeline.clone().apply(&arrivals, Vec::new(), config).changed, "a duplicate changes something");
    round_trip(&timeline);
    let mut ended = timeline.clone();
    for session in &sessions {
        ended.end(session.id.parse().unwrap(), at, config);
    }
    round_trip(&ended);
    for mut timeline in [timeline, ended] {
        timeline.finalize(at, config);
        round_trip(&timeline);
        for state in timeline.close(at + 3_600_000, config).ended {
            check_session(&state);
            if !state.has_pages() {
                timeline.keep_closed(ClosedSession { state, closed_at: at });
            }
        }
        round_trip(&timeline);
    }
}

/// Encodes and decodes a timeline.
fn round_trip(timeline: &Timeline) -> Timeline {
    let decoded = decode_timeline(FORMAT, &encode_timeline(timeline), timeline.visitor.clone());
    let decoded = decoded.unwrap_or_else(|error| panic!("{error}: {timeline:#?}"));
    assert_eq!(decoded, Timeline { due_at: None, ..timeline.clone() });
    decoded
}

fn check_session(session: &SessionState) {
    let visitor = Visitor::new("u");
    assert_eq!(decode_session(FORMAT, &encode_session(session), visitor.bits()).as_ref(), Ok(session));
    assert!(serde_json::to_string(&session.ended_session(&visitor)).is_ok());
}

/// Returns times at which an operation may have an effect: around sessions, events and the watermark, and after the timeouts.
fn times(timeline: &Timeline, config: &SessionConfig) -> Vec<Millis> {
    let finalized = timeline.finalized().take(3);
    let edges = finalized.flat_map(|session| [session.facts.started_at, session.facts.last_activity]);
    let unfinalized = timeline.unfinalized.iter().take(2).chain(timeline.unfinalized.last()).map(|entry| entry.at);
    let watermark = Some(timeline.watermark).filter(|&at| at != Millis::MIN);
    let mut times: Vec<Millis> =
        edges.chain(unfinalized).chain(watermark).flat_map(|at| [at - 1, at, at + 1]).collect();
    let last = times.iter().max().copied().unwrap_or(1_773_144_000_000);
    times.extend([config.timeout, config.max_duration].map(|time| last + time.num_milliseconds()));
    times.sort_unstable();
    times.dedup();
    // `Event::parse` only accepts times in this range.
    times.retain(|at| (946_684_800_000..4_102_444_800_000).contains(at));
    times
}

fn arrival(at: Millis, uuid: &str, passive: bool) -> Arrival {
    let uuid = if uuid == "all" { EventId::new(&format!("all-{at}")) } else { EventId::new(uuid) };
    let context = SessionContext { url: Some("https://a.test/".into()), ..SessionContext::default() };
    let properties = vec![("k".to_owned(), "1".to_owned())];
    Arrival {
        entry: Entry { at, uuid, kind: Kind::Pageview, context, click: None, properties },
        received_at: at,
        passive,
        timed_by_sent_at: false,
        may_change_time: false,
    }
}

/// Returns several rules. After a deployment, a timeline may be read under other rules than it was written.
fn configs() -> [SessionConfig; 3] {
    let default = SessionConfig::default();
    [
        default.clone(),
        SessionConfig {
            timeout: default.timeout / 30,
            boundary: Boundary::Exclusive,
            max_events: Some(1),
            lateness: default.lateness / 300,
            direct_then_source: DirectThenSource::Split,
            ..default.clone()
        },
        SessionConfig {
            timeout: default.timeout * 100,
            max_duration: default.max_duration * 30,
            midnight: "Europe/Berlin".parse().ok(),
            direct_then_source: DirectThenSource::Upgrade,
            new_session_on_click_id_change: true,
            ..default
        },
    ]
}
