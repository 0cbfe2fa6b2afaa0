//! A corrupt item in the embedded DynamoDB: its visitor's events fail with an error code, the item is never replaced, and no other
//! visitor is affected.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{DynamoDbSessionStorage, SessionError, SessionStorage};
use session_tracking::stored::encode_timeline;

use super::{NOON, sample};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Sink};

type Manager<'c> = SessionManager<DynamoDbSessionStorage, &'c ManualClock>;

/// Returns ways to corrupt an item: an attribute, its new value (`None` removes it), and a part of the expected error.
fn corruptions() -> Vec<(&'static str, Option<AttributeValue>, &'static str)> {
    let bytes = |bytes: Vec<u8>| Some(AttributeValue::B(Blob::new(bytes)));
    let mut nonsense = sample();
    nonsense.unfinalized[0].at = 0;
    vec![
        ("v", Some(AttributeValue::N("0".to_owned())), "format version 0 is none that was ever written"),
        ("v", None, "`v` is missing"),
        ("state", None, "`state` is missing"),
        ("state", bytes(b"{}".to_vec()), "the bytes are not a stored timeline"),
        ("state", bytes(encode_timeline(&nonsense)), "outside of the years"),
        ("etag", None, "`etag` is missing"),
    ]
}

/// Sets an attribute of a visitor's timeline, or removes it.
pub async fn set_attribute(client: &Client, visitor: &Visitor, name: &str, value: Option<AttributeValue>) {
    let change = client
        .update_item()
        .table_name(TABLE)
        .key("pk", AttributeValue::S(format!("{:016x}", visitor.bits())))
        .key("sk", AttributeValue::S(format!("t##{}", visitor.distinct_id)))
        .expression_attribute_names("#name", name);
    let change = match value {
        Some(value) => change.update_expression("SET #name = :value").expression_attribute_values(":value", value),
        None => change.update_expression("REMOVE #name"),
    };
    change.send().await.unwrap();
}

/// Sends an event of each visitor. Returns each event's error, or `None` if it was applied.
async fn send(manager: &Manager<'_>, visitors: &[Visitor], at: Millis) -> Vec<Option<SessionError>> {
    manager.clock().set(at);
    let events = visitors.iter().map(|visitor| {
        let id = &visitor.distinct_id;
        format!(r#"{{"uuid":"{id}-{at}","event":"x","distinct_id":"{id}"}}"#)
    });
    let events: Vec<String> = events.collect();
    let delivery = Delivery { received_at: at, trusts_received_at: false };
    let parse = |json| Event::parse(str::as_bytes(json), delivery, manager.config()).unwrap();
    let events: Vec<Event<'_>> = events.iter().map(|json| parse(json)).collect();
    let outcomes = manager.resolve(&events, Millis::MAX).await.into_iter();
    let error = |outcome| match outcome {
        Outcome::Placed(assignment) => {
            assert!(assignment.is_some());
            None
        }
        Outcome::Failed(error) => Some(error),
    };
    outcomes.map(error).collect()
}

#[tokio::test]
async fn a_corrupt_item_affects_only_its_visitor() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let clock = ManualClock::default();
    let storage = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let corruptions = corruptions();
    let mut visitors: Vec<Visitor> =
        (0..corruptions.len()).map(|number| Visitor::new(&format!("broken-{number}"))).collect();
    visitors.push(Visitor::new("whole"));
    assert!(send(&manager, &visitors, NOON).await.iter().all(Option::is_none));
    let session = manager.get_by_user(&visitors[0]).await.unwrap();
    for (visitor, (name, value, _)) in visitors.iter().zip(&corruptions) {
        set_attribute(&client, visitor, name, value.clone()).await;
    }

    // It fails each time, because a corrupt item is never overwritten.
    for at in [NOON + 60_000, NOON + 120_000] {
        let mut errors = send(&manager, &visitors, at).await;
        assert_eq!(errors.pop(), Some(None), "the other visitor's event is applied");
        for (error, (_, _, reason)) in errors.iter().zip(&corruptions) {
            let error = error.as_ref().unwrap();
            assert_eq!(error.code(), "stored_item_corrupt");
            assert!(error.to_string().contains(reason), "{error}");
            assert!(!error.to_string().contains("broken"), "the item is named by its hash: {error}");
        }
    }

    // Queries for its sessions are errors, not "not found". The other visitor is closed.
    assert_eq!(manager.get(&session.id).await.unwrap_err().code(), "stored_item_corrupt");
    assert_eq!(manager.end_session(&session.id).await.unwrap_err().code(), "stored_item_corrupt");
    assert_eq!(manager.get_by_user(&visitors[0]).await.unwrap_err().code(), "stored_item_corrupt");
    clock.set(NOON + 86_400_000);
    let sink = Sink::default();
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed, report.is_incomplete), (1, corruptions.len(), false), "{report:?}");
    assert_eq!(sink.0.lock().unwrap().len(), 1);
    assert!(manager.storage().read(&visitors[0]).await.is_err(), "the corrupt item is still there");
}
