//! A function that was rolled back finds items that a newer version stored. It returns an error, does not overwrite them, and
//! does not affect other visitors. Once the newer version runs again, nothing is lost.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime};
use session_tracking::storage::{DynamoDbSessionStorage, SessionStorage};
use session_tracking::stored::NEWEST_FORMAT;
use session_tracking::trigger::Ingest;

use super::NOON;
use super::corrupt::set_attribute;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Sink};

type Worker<'w> = Ingest<DynamoDbSessionStorage, &'w ManualClock, &'w MemoryOutput>;

fn format(version: u32) -> Option<AttributeValue> {
    Some(AttributeValue::N(version.to_string()))
}

fn event(visitor: &str, at: Millis) -> String {
    json!({"uuid": format!("{visitor}-{at}"), "event": "$pageview", "distinct_id": visitor,
        "timestamp": datetime(at).to_rfc3339()})
    .to_string()
}

/// Sends events over HTTP. Returns the status and the body of the answer.
async fn post(ingest: &Worker<'_>, body: &str, now: Millis) -> (u64, Value) {
    ingest.manager.clock().set(now);
    let payload = json!({
        "version": "2.0", "rawPath": "/events", "headers": { "content-type": "application/x-ndjson" },
        "requestContext": { "http": { "method": "POST", "path": "/events" }, "timeEpoch": now },
        "body": body, "isBase64Encoded": false,
    });
    let answer: Value = serde_json::from_str(&ingest.handle(&payload.to_string(), Millis::MAX).await.unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), serde_json::from_str(answer["body"].as_str().unwrap()).unwrap())
}

/// Sends messages from a queue. Returns the ids of those that failed.
async fn receive(ingest: &Worker<'_>, bodies: &[String], now: Millis) -> Vec<String> {
    ingest.manager.clock().set(now);
    let records = bodies.iter().enumerate().map(|(n, body)| {
        json!({
            "messageId": n.to_string(), "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu:1:q",
            "attributes": { "SentTimestamp": now.to_string() },
        })
    });
    let payload = json!({ "Records": records.collect::<Vec<Value>>() }).to_string();
    let answer: Value = serde_json::from_str(&ingest.handle(&payload, Millis::MAX).await.unwrap()).unwrap();
    let failed = answer["batchItemFailures"].as_array().unwrap().iter();
    failed.map(|item| item["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

async fn items(client: &Client) -> Vec<std::collections::HashMap<String, AttributeValue>> {
    let mut items = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    items.sort_by_key(|item| format!("{:?} {:?}", item["pk"], item["sk"]));
    items
}

#[tokio::test]
async fn a_newer_timeline_is_left_as_it_is() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let (clock, output, rejects) = (ManualClock::default(), MemoryOutput::default(), MemoryOutput::default());
    let storage = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let ingest =
        Ingest { manager, output: &output, rejects: &rejects, origins: Default::default(), public: Default::default() };
    let two_events = |at| format!("{}\n{}", event("newer", at), event("other", at));
    assert_eq!(post(&ingest, &two_events(NOON), NOON).await.0, 200);
    let newer = Visitor::new("newer");
    let id = ingest.manager.get_by_user(&newer).await.unwrap().id;
    set_attribute(&client, &newer, "v", format(NEWEST_FORMAT + 1)).await;
    let of_newer = |items: Vec<std::collections::HashMap<String, AttributeValue>>| {
        items.into_iter().find(|item| item["sk"] == AttributeValue::S("t##newer".to_owned())).unwrap()
    };
    let before = of_newer(items(&client).await);

    // Over HTTP: the whole request has to be retried. The other visitor's event is applied.
    let (status, answer) = post(&ingest, &two_events(NOON + 60_000), NOON + 60_000).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &"try_again".into()));
    assert_eq!(answer["failed"][0]["code"], "stored_item_newer");
    let message = answer["failed"][0]["message"].as_str().unwrap();
    assert!(message.contains("a newer version of the service"), "{message}");
    assert_eq!(answer["events"].as_array().unwrap().len(), 1);
    // From a queue: only its message is redelivered.
    let messages = [event("newer", NOON + 120_000), event("other", NOON + 120_000)];
    assert_eq!(receive(&ingest, &messages, NOON + 120_000).await, ["0"]);
    // Library calls.
    assert_eq!(ingest.manager.get(&id).await.unwrap_err().code(), "stored_item_newer");
    assert_eq!(ingest.manager.end_session(&id).await.unwrap_err().code(), "stored_item_newer");
    // The closer leaves it due, and closes the other visitor.
    clock.set(NOON + 86_400_000);
    let sink = Sink::default();
    let report = ingest.manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed, report.is_incomplete), (1, 1, false), "{report:?}");
    assert_eq!(of_newer(items(&client).await), before);

    // The newer version runs again: what failed is retried, and nothing is lost.
    set_attribute(&client, &newer, "v", format(NEWEST_FORMAT)).await;
    assert_eq!(post(&ingest, &two_events(NOON + 60_000), NOON + 130_000).await.0, 200);
    assert!(receive(&ingest, &messages, NOON + 130_000).await.is_empty());
    let session = ingest.manager.get_by_user(&newer).await.unwrap();
    assert_eq!((session.id, session.event_count), (id, 3));
    clock.set(NOON + 86_400_000);
    let report = ingest.manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!(report.failed, 0, "{report:?}");
}

#[tokio::test]
async fn a_newer_archived_session_is_left_as_it_is() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let (clock, output, rejects) = (ManualClock::default(), MemoryOutput::default(), MemoryOutput::default());
    let storage = DynamoDbSessionStorage::new(client.clone(), TABLE);
    // Each session is archived when it is closed.
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock).with_closed_bytes(0, 0);
    let ingest =
        Ingest { manager, output: &output, rejects: &rejects, origins: Default::default(), public: Default::default() };
    assert_eq!(post(&ingest, &event("u", NOON), NOON).await.0, 200);
    let visitor = Visitor::new("u");
    let id = ingest.manager.get_by_user(&visitor).await.unwrap().id;
    clock.set(NOON + 86_400_000);
    assert_eq!(ingest.manager.cleanup(&&Sink::default(), Millis::MAX).await.closed, 1);
    let mut item = items(&client).await.remove(0);
    assert!(item["sk"].as_s().unwrap().starts_with("s#"));
    item.insert("v".to_owned(), format(NEWEST_FORMAT + 1).unwrap());
    client.put_item().table_name(TABLE).set_item(Some(item.clone())).send().await.unwrap();

    assert_eq!(ingest.manager.get(&id).await.unwrap_err().code(), "stored_item_newer");
    // An event that could belong to it.
    let (status, answer) = post(&ingest, &event("u", NOON + 1), NOON + 86_400_000).await;
    assert_eq!((status, &answer["failed"][0]["code"]), (503, &"stored_item_newer".into()));
    // It is not replaced by a session of this format, even with a higher version.
    let Ok(Some(stored)) = ingest.manager.storage().read(&visitor).await else { panic!() };
    let mut session = super::sample().ended.remove(0);
    session.id = id.parse().unwrap();
    session.version = 1 << 40;
    let error = ingest.manager.storage().archive(&stored.timeline.visitor, &session, NOON).await.unwrap_err();
    assert_eq!(error.code(), "stored_item_newer");
    assert_eq!(items(&client).await.remove(0), item);
}
