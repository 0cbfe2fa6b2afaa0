//! Duplicates through the real manager, as a consumer of the output sees them. A duplicate carries the time and the session of the
//! event that was counted, whenever it is sent again.

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::InMemorySessionStorage;

use crate::cases::{MINUTE, NOON};
use crate::consumer::Consumer;
use crate::support::{ManualClock, Sink};

const SECOND: Millis = 1_000;

/// Applies batches, each at its time of receipt, and closes everything. Returns all lines of the output: annotated events, ends
/// and corrections.
async fn lines(rules: Value, batches: &[(Millis, &[Value])]) -> Vec<Value> {
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let config = SessionConfig::from_rules(rules).unwrap();
    let manager = SessionManager::with_clock(config.clone(), InMemorySessionStorage::new(), &clock);
    let mut lines = Vec::new();
    for (received_at, batch) in batches {
        clock.set(*received_at);
        manager.cleanup(&&sink, Millis::MAX).await;
        let json: Vec<String> = batch.iter().map(Value::to_string).collect();
        let delivery = Delivery { received_at: *received_at, trusts_received_at: false };
        let parse = |json| Event::parse(str::as_bytes(json), delivery, &config).unwrap();
        let events: Vec<Event<'_>> = json.iter().map(|json| parse(json)).collect();
        for (event, outcome) in events.iter().zip(manager.resolve(&events, Millis::MAX).await) {
            let Outcome::Placed(Some(assignment)) = outcome else { panic!("{outcome:?}") };
            lines.push(serde_json::from_str(&event.annotate(Some(&assignment))).unwrap());
        }
    }
    let last = batches.iter().map(|(received_at, _)| received_at).max().unwrap();
    clock.set(last + 120 * MINUTE);
    manager.cleanup(&&sink, Millis::MAX).await;
    lines.extend(sink.0.lock().unwrap().iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    lines
}

fn event(uuid: &str, at: Option<Millis>, campaign: Option<&str>) -> Value {
    let mut event = json!({ "uuid": uuid, "event": "$pageview", "distinct_id": "u1", "properties": {} });
    if let Some(at) = at {
        event["timestamp"] = session_tracking::session::rfc3339(session_tracking::session::datetime(at)).into();
    }
    if let Some(campaign) = campaign {
        event["properties"]["utm_source"] = campaign.into();
    }
    event
}

/// An event without a timestamp is received at 12:00:10 and sent again at 12:01:10. Then another campaign, at 12:00:30, splits the
/// session between the two times. The duplicate stays with the event.
#[tokio::test]
async fn a_duplicate_without_a_time_follows_a_split_as_the_event_does() {
    let after = |seconds: Millis| NOON + seconds * SECOND;
    let a = [event("a", Some(NOON), Some("x"))];
    let e = [event("e", None, None)];
    let b = [event("b", Some(after(60)), None)];
    let x = [event("x", Some(after(30)), Some("y"))];
    let batches: [(Millis, &[Value]); 5] =
        [(NOON, &a), (after(10), &e), (after(60), &b), (after(70), &e), (after(80), &x)];
    let sessions = Consumer::read(&lines(json!({}), &batches).await).sessions();
    let events: Vec<(u64, Vec<&str>)> = sessions
        .iter()
        .map(|session| (session.event_count, session.events.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(events, [(2, vec!["a", "e"]), (2, vec!["x", "b"])]);
}

/// Like the test above, but the event is finalized when its duplicate arrives.
#[tokio::test]
async fn a_duplicate_of_a_finalized_event_stays_in_its_session() {
    let after = |minutes: Millis| NOON + minutes * MINUTE;
    let mut batches: Vec<(Millis, Vec<Value>)> = vec![(NOON, vec![event("e", None, Some("x"))])];
    // More events than stay unfinalized, so that the first are finalized.
    batches.extend((1..=9).map(|n| (after(2 * n), vec![event(&format!("b{n}"), Some(after(2 * n)), None)])));
    batches.push((after(19), vec![event("e", None, Some("x"))]));
    batches.push((after(20), vec![event("split", Some(after(17)), Some("y"))]));
    let batches: Vec<(Millis, &[Value])> = batches.iter().map(|(at, batch)| (*at, batch.as_slice())).collect();
    let lines = lines(json!({}), &batches).await;
    assert!(lines.iter().any(|line| line["event"] == "$session_split"), "{lines:#?}");
    let sessions = Consumer::read(&lines).sessions();
    let counts: Vec<_> = sessions.iter().map(|session| (session.event_count, session.events.len())).collect();
    assert_eq!(counts, [(9, 9), (2, 2)]);
    assert!(sessions[0].events.contains(&"e".to_owned()));
}

/// A phone sends a visit of six minutes in one request. The campaign is in its landing page.
#[tokio::test]
async fn a_visit_of_six_minutes_in_one_request_is_one_session() {
    let batch = [event("a", Some(NOON - 6 * MINUTE), Some("ad")), event("b", Some(NOON), None)];
    let sessions = Consumer::read(&lines(json!({}), &[(NOON, &batch)]).await).sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].duration_seconds, sessions[0].event_count), (360, 2));
    assert_eq!(sessions[0].utm.as_ref().map(|utm| &utm["source"]), Some(&json!("ad")));
}

/// An offline queue is sent newest first, one event a request, and once more two days later, when all of it is archived. With each
/// request a session begins earlier, under the same id.
#[tokio::test]
async fn an_offline_queue_sent_newest_first_and_again_counts_once() {
    for rules in [
        json!({ "timeout_seconds": 30, "max_duration_seconds": 60 }),
        json!({ "timeout_seconds": 1800, "max_duration_seconds": 3600, "lateness_seconds": 21600 }),
    ] {
        let apart = if rules["timeout_seconds"] == 30 { 20 * SECOND } else { 20 * MINUTE };
        let queue: Vec<Value> = (0..12).map(|n| event(&format!("e{n:02}"), Some(NOON - n * apart), None)).collect();
        let mut batches: Vec<(Millis, &[Value])> = Vec::new();
        for received_at in [NOON + MINUTE, NOON + 2 * 24 * 60 * MINUTE] {
            batches.extend(
                queue
                    .iter()
                    .enumerate()
                    .map(|(n, event)| (received_at + n as Millis * SECOND, std::slice::from_ref(event))),
            );
        }
        let sessions = Consumer::read(&lines(rules.clone(), &batches).await).sessions();
        let counted: u64 = sessions.iter().map(|session| session.event_count).sum();
        assert_eq!(counted, 12, "{rules}: {sessions:#?}");
    }
}
