//! Tests of the oracle itself. It is compared with sessions that a separate program computed.

use serde::Deserialize;
use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::session::{Millis, datetime};

use super::{OracleEvent, OracleSession, sessions, sessions_with_ends};
use crate::support::{FinalSession, millis};

#[derive(Deserialize)]
struct Scenario {
    id: String,
    rules: Value,
    arrivals: Vec<Value>,
    sessions: Vec<FinalSession>,
}

/// Reads an event from a line of the data files.
fn event(line: &Value) -> OracleEvent<'_> {
    let property = |name: &str| line["properties"][name].as_str();
    OracleEvent {
        visitor: line["distinct_id"].as_str().unwrap(),
        uuid: line["uuid"].as_str().unwrap(),
        at: millis(line["timestamp"].as_str().unwrap()),
        name: line["event"].as_str().unwrap(),
        url: property("$current_url"),
        referrer: property("$referrer"),
        utm: ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"].map(|name| {
            let number = || line["properties"][name].as_i64().map(|number| &*number.to_string().leak());
            property(name).or_else(number)
        }),
    }
}

fn in_file_form(session: &OracleSession) -> FinalSession {
    let owned = |value: Option<&str>| value.map(str::to_owned);
    let time = |at: Millis| datetime(at).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    FinalSession {
        distinct_id: session.visitor.to_owned(),
        reason: session.reason.to_owned(),
        started_at: time(session.started_at),
        last_activity: time(session.last_activity),
        duration_seconds: (session.last_activity - session.started_at) / 1000,
        event_count: session.event_count.into(),
        page_views: session.page_views.into(),
        entry_url: owned(session.entry_url),
        landing_page: owned(session.landing_page),
        exit_page: owned(session.exit_page),
        referrer: owned(session.referrer),
        utm: session.utm.as_ref().map(|utm| serde_json::to_value(utm).unwrap()),
        events: session.events.iter().map(|&uuid| uuid.to_owned()).collect(),
    }
}

fn in_any_order(lines: &[Value], rules: &SessionConfig) -> Vec<FinalSession> {
    let mut events: Vec<OracleEvent> = lines.iter().map(event).collect();
    let found = sessions(&events, rules);
    events.reverse();
    assert_eq!(sessions(&events, rules), found);
    found.iter().map(in_file_form).collect()
}

#[test]
fn the_oracle_matches_every_scenario() {
    let files = [include_str!("../../data/sessions.jsonl"), include_str!("../../data/sources.jsonl")];
    for scenario in files.into_iter().flat_map(str::lines).map(|line| serde_json::from_str::<Scenario>(line).unwrap()) {
        let rules = SessionConfig::from_rules(scenario.rules.clone()).unwrap();
        assert_eq!(in_any_order(&scenario.arrivals, &rules), scenario.sessions, "{}", scenario.id);
    }
}

#[test]
fn the_oracle_matches_the_real_traffic() {
    let lines = |file: &str| -> Vec<Value> { file.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let events = lines(include_str!("../../data/weblog-events.ndjson"));
    let known = include_str!("../../data/weblog-sessions.ndjson").lines();
    let known: Vec<FinalSession> = known.map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = in_any_order(&events, &SessionConfig::default());
    assert_eq!(found.len(), known.len());
    for (found, known) in found.iter().zip(&known) {
        assert_eq!(found, known);
    }
}

/// What no scenario contains: requests that end a session, and campaigns in the properties beside one in the URL.
#[test]
fn the_oracle_handles_end_requests_and_explicit_campaigns() {
    let rules = SessionConfig::default();
    let at = |uuid: &'static str, at: Millis| OracleEvent { visitor: "u", uuid, at, name: "e", ..Default::default() };
    let reasons = |events: &[OracleEvent], ends: &[(&str, Millis)]| -> Vec<(&'static str, u32)> {
        let found = sessions_with_ends(events, ends, &rules);
        found.iter().map(|session| (session.reason, session.event_count)).collect()
    };
    let events = [at("a", 0), at("b", 5), at("c", 6), at("d", 9_999_999)];
    assert_eq!(reasons(&events, &[("u", 5)]), [("first", 2), ("explicit", 1), ("timeout", 1)]);
    assert_eq!(reasons(&events, &[("u", 7)]), [("first", 3), ("explicit", 1)]);
    assert_eq!(reasons(&events, &[("other", 5)]), [("first", 3), ("timeout", 1)]);
    let campaign = |event, source| OracleEvent { url: Some("/?utm_source=x"), utm: source, ..event };
    let (none, news) = ([None; 5], [Some("news"), None, None, None, None]);
    let events = [campaign(at("a", 0), none), campaign(at("b", 1), none), campaign(at("c", 2), news)];
    assert_eq!(reasons(&events, &[]), [("first", 2), ("utm_change", 1)]);
}
