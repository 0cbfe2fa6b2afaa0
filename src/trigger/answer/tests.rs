use serde_json::Value;

use super::*;
use crate::config::SessionConfig;
use crate::event::{Delivery, Event};
use crate::storage::StorageErrorKind;

/// An applied event with this JSON; [`written`] writes it into an answer.
fn applied(json: &str) -> EventOutcome<String> {
    EventOutcome::Applied(json.to_owned())
}

/// Writes the events of outcomes into an answer; returns the outcomes with the events' ranges, as a batch has them.
fn written(outcomes: Vec<EventOutcome<String>>) -> (Vec<EventOutcome<Range<usize>>>, Events) {
    let mut events = Events::with_room_for(0, outcomes.len());
    let range = |outcome: EventOutcome<String>| match outcome {
        EventOutcome::Applied(json) => EventOutcome::Applied(events.write(|body| body.push_str(&json))),
        EventOutcome::Rejected(why) => EventOutcome::Rejected(why),
        EventOutcome::Failed(why) => EventOutcome::Failed(why),
    };
    (outcomes.into_iter().map(range).collect(), events)
}

fn answer(outcomes: Vec<EventOutcome<String>>) -> (ResponseStatus, String) {
    let (outcomes, events) = written(outcomes);
    report(&outcomes, events, BodyPlace::Whole)
}

fn rejected() -> EventOutcome<String> {
    let delivery = Delivery { received_at: 1_773_144_000_000, trusts_received_at: false };
    EventOutcome::Rejected(Event::parse(b"7", delivery, &SessionConfig::default()).unwrap_err())
}

fn storage() -> EventOutcome<String> {
    EventOutcome::Failed(SessionError::storage(StorageErrorKind::Other, "table secret"))
}

fn corrupt() -> EventOutcome<String> {
    EventOutcome::Failed(SessionError::Corrupt { item: "1f".into(), reason: "secret".into() })
}

#[test]
fn events_are_unchanged_and_in_the_order_of_the_request() {
    let (status, body) = answer(vec![applied(r#"{"a": 1.50}"#), rejected(), applied(r#"{"b":2}"#)]);
    assert_eq!(status, ResponseStatus::Done);
    let wanted = concat!(
        r#"{"events":[{"a": 1.50},{"b":2}],"rejected":[{"index":1,"code":"not_an_object","#,
        r#""message":"the event is not an object; send `{…}`"}]}"#,
    );
    assert_eq!(body, wanted);
}

#[test]
fn the_outcomes_determine_the_status() {
    for (outcomes, status, code) in [
        (vec![rejected(), rejected()], ResponseStatus::NothingUsable, "nothing_usable"),
        (vec![rejected(), storage()], ResponseStatus::TryAgain, "try_again"),
        (vec![applied("{}"), storage(), corrupt()], ResponseStatus::TryAgain, "try_again"),
        (vec![applied("{}"), corrupt()], ResponseStatus::Corrupt, "stored_item_corrupt"),
    ] {
        let (found, body) = answer(outcomes);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &body["error"]["code"]), (status, &code.into()));
    }
}

#[test]
fn failed_events_are_named_and_nothing_of_the_store_is_disclosed() {
    let (_, body) = answer(vec![applied("{}"), storage(), corrupt()]);
    assert!(!body.contains("secret"), "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["events"].as_array().unwrap().len(), 1);
    let named = |at: usize| (body["failed"][at]["index"].clone(), body["failed"][at]["code"].clone());
    assert_eq!(named(0), (1.into(), "storage_unavailable".into()));
    assert_eq!(named(1), (2.into(), "stored_item_corrupt".into()));
}

#[test]
fn an_answer_never_exceeds_its_limit() {
    let json_event = format!(r#"{{"a":"{}"}}"#, "x".repeat(700));
    for place in [BodyPlace::Whole, BodyPlace::InEnvelope] {
        for count in 1..40 {
            let mut outcomes: Vec<EventOutcome<String>> = (0..count).map(|_| applied(&json_event)).collect();
            outcomes.insert(0, rejected());
            outcomes.push(storage());
            let (outcomes, events) = written(outcomes);
            let (status, body) = report_within(16_000, &outcomes, events, place);
            let length = if place == BodyPlace::InEnvelope { json(&body).len() } else { body.len() };
            assert!(length < 16_000 + 4096, "{length}");
            let body: Value = serde_json::from_str(&body).unwrap();
            let of = |name: &str| body[name].as_array().unwrap().len();
            assert_eq!(of("events") + of("failed"), count + 1);
            assert_eq!(status == ResponseStatus::NoRoom, of("events") < count);
            assert!(count > 10 || status == ResponseStatus::TryAgain, "ten of these fit");
        }
    }
}
