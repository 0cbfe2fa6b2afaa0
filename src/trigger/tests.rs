//! Tests of the triggers with a store in memory that fails for certain visitors.

mod by_project;
mod clients;
mod counted;
mod explain;
mod lambda_events;
mod public;
mod samples;
mod sources;
mod viewers;
mod visitors;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::config::{AllowedOrigins, PublicAccess, SessionConfig};
use crate::model::{FingerprintPage, SessionState};
use crate::output::MemoryOutput;
use crate::session::Visitor;
use crate::storage::{
    Commit, CommitOutcome, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError, StorageErrorKind,
    Stored,
};

/// 2026-03-10T12:01:00Z: a minute after the last sample was sent.
const NOW: Millis = 1_773_144_060_000;

/// A clock that always shows [`NOW`].
#[derive(Debug, Default)]
struct StoppedClock(AtomicU64);

impl Clock for StoppedClock {
    fn now(&self) -> Millis {
        NOW
    }
    async fn sleep(&self, _time: Duration) {}
    fn random(&self) -> u64 {
        // Etags only have to differ from each other.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A store that does not answer for the visitor `down`, and has a corrupt item for the visitor `corrupt`.
#[derive(Debug, Default)]
struct FaultyStore(InMemorySessionStorage, ArchivedRead);

/// The number of archived sessions that were read.
type ArchivedRead = std::sync::atomic::AtomicUsize;

impl SessionStorage for FaultyStore {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        let mut loaded = self.0.load(visitors, reading).await;
        for (loaded, visitor) in loaded.iter_mut().zip(visitors) {
            match visitor.distinct_id.as_str() {
                "down" => *loaded = Err(SessionError::storage(StorageErrorKind::Other, "secret")),
                "corrupt" => *loaded = Err(SessionError::Corrupt { item: "1f".into(), reason: "secret".into() }),
                _ => {}
            }
        }
        loaded
    }
    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        self.0.commit(commit).await
    }
    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.0.due(shard, after, now, limit).await
    }
    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.0.archive(visitor, session, expires_at).await
    }
    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        let archived = self.0.archived(visitor, from, to).await;
        self.1.fetch_add(archived.iter().flatten().count(), Ordering::Relaxed);
        archived
    }
    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.0.put_pages(visitor, pages, expires_at).await
    }
    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.0.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.0.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        if visitor.distinct_id == "down" {
            return Err(SessionError::storage(StorageErrorKind::Other, "secret"));
        }
        self.0.erase(visitor).await
    }
}

/// An output in memory that refuses lines that contain a given string.
#[derive(Debug, Default)]
struct RefusingOutput {
    accepted: MemoryOutput,
    refused: Option<&'static str>,
}

impl Output for RefusingOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let is_refused = |line: &str| self.refused.is_some_and(|refused| line.contains(refused));
        let accepted: Vec<String> = lines.iter().filter(|line| !is_refused(line)).cloned().collect();
        self.accepted.send(&accepted).await;
        (0..lines.len()).filter(|&index| is_refused(&lines[index])).collect()
    }
}

type Function = Ingest<FaultyStore, StoppedClock, RefusingOutput>;

fn function() -> Function {
    let manager = SessionManager::with_clock(SessionConfig::default(), FaultyStore::default(), StoppedClock::default());
    Ingest {
        manager,
        output: RefusingOutput::default(),
        rejects: RefusingOutput::default(),
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    }
}

async fn handle(function: &Function, payload: &Value) -> Value {
    let answer = function.handle(&payload.to_string(), NOW + 60_000).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn event(distinct_id: &str) -> Value {
    json!({"uuid": format!("e-{distinct_id}"), "event": "x", "distinct_id": distinct_id})
}

fn request(body: &Value) -> Value {
    json!({
        "version": "2.0", "rawPath": "/events", "requestContext": {"http": {"method": "POST"}}, "body": body.to_string(),
    })
}

/// Posts events; returns the answer's status, headers and body.
async fn post(events: &Value) -> (u64, Value, Value) {
    let answer = handle(&function(), &request(events)).await;
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), answer["headers"].clone(), body)
}

fn record(id: &str, group: Option<&str>, body: &str) -> Value {
    let queue = if group.is_some() { "events.fifo" } else { "events" };
    json!({
        "messageId": id, "body": body, "attributes": {"MessageGroupId": group, "SentTimestamp": NOW.to_string()},
        "eventSource": "aws:sqs", "eventSourceARN": format!("arn:aws:sqs:eu-central-1:1:{queue}"),
    })
}

/// Delivers records of a queue; returns the ids of the messages that are reported as failed.
async fn deliver(function: &Function, records: &[Value]) -> Vec<String> {
    let answer = handle(function, &json!({"Records": records})).await;
    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

fn sent(output: &RefusingOutput) -> Vec<Value> {
    output.accepted.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_503_with_retry_after() {
    let (status, headers, body) = post(&json!([event("a"), event("down"), 7])).await;
    assert_eq!((status, &body["error"]["code"]), (503, &"try_again".into()));
    assert!(headers["retry-after"].as_str().unwrap().parse::<u8>().unwrap() > 0);
    assert_eq!(body["events"][0]["uuid"], "e-a");
    assert_eq!(body["rejected"][0]["index"], 2);
    assert_eq!((&body["failed"][0]["index"], &body["failed"][0]["code"]), (&1.into(), &"storage_unavailable".into()));
    assert!(!body.to_string().contains("secret"));
}

#[tokio::test]
async fn a_corrupt_item_alone_is_a_500_without_retry_after() {
    let (status, headers, _) = post(&json!([event("a"), event("corrupt")])).await;
    assert_eq!((status, headers.get("retry-after")), (500, None));
    let (status, ..) = post(&json!([event("down"), event("corrupt")])).await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn received_at_is_not_trusted_over_http() {
    let mut early = event("a");
    early["received_at"] = "2026-03-10T09:00:00Z".into();
    let (_, _, body) = post(&json!([early])).await;
    let id = body["events"][0]["properties"]["$session_id"].as_str().unwrap();
    assert_eq!(Uuid::parse_str(id).unwrap().as_u128() >> 80, NOW as u128);
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_lists_the_events_to_send_again() {
    let event = |n: usize| json!({"uuid": n.to_string(), "event": "x", "distinct_id": "a", "pad": "x".repeat(600)});
    let body = handle(&function(), &json!({"events": (0..8_000).map(event).collect::<Vec<_>>()})).await;
    assert_eq!(body["error"]["code"], "answer_too_large");
    let (events, failed) = (body["events"].as_array().unwrap().len(), body["failed"].as_array().unwrap());
    assert_eq!(events + failed.len(), 8_000);
    assert_eq!((failed[0]["index"].as_u64().unwrap(), &failed[0]["code"]), (events as u64, &"answer_too_large".into()));
    let size = body.to_string().len();
    assert!((5_900_000..6 * 1024 * 1024).contains(&size), "{size}");
}

#[tokio::test]
async fn a_message_with_a_failed_event_is_redelivered_whole() {
    let function = function();
    let records = [
        record("m1", None, &event("a").to_string()),
        record("m2", None, &json!([event("b"), event("down"), 7]).to_string()),
        record("m3", None, "garbage"),
    ];
    assert_eq!(deliver(&function, &records).await, ["m2"]);
    let events = sent(&function.output);
    assert_eq!((events.len(), &events[0]["uuid"]), (1, &"e-a".into()));
    // The invalid event of the failed message goes to the rejects when the message is redelivered.
    let wanted = json!({
        "code": "invalid_json", "message": "the event is not valid JSON; send one object", "source": "sqs",
        "message_id": "m3", "index": 0, "text": "garbage",
    });
    assert_eq!(sent(&function.rejects), [wanted]);
}

#[tokio::test]
async fn a_fifo_group_stops_at_its_first_failure() {
    let function = function();
    let both = json!([event("b"), event("down")]).to_string();
    let records = [
        record("m1", Some("g"), &event("a").to_string()),
        record("m2", Some("g"), &both),
        record("m3", Some("h"), &event("c").to_string()),
        record("m4", Some("g"), "garbage"),
    ];
    assert_eq!(deliver(&function, &records).await, ["m2", "m4"]);
    assert_eq!(sent(&function.output).len(), 2);
    assert_eq!(sent(&function.rejects).len(), 0);
}

/// About 25 messages of 900 KB are a chunk. No event is lost between chunks, and a failed group is not continued in later ones.
#[tokio::test]
async fn a_large_batch_is_worked_on_in_chunks_and_groups_stay_in_order() {
    let mut function = function();
    // The output refuses one line of group 0 in the first chunk. Each chunk has rejected events.
    function.output.refused = Some("e-v9\"");
    let body = |n: usize| match n {
        2 => json!([event("down")]).to_string(),
        _ => format!("{}{}", json!([event(&format!("v{n}")), 7]), " ".repeat(900_000)),
    };
    let records: Vec<Value> = (0..90).map(|n| record(&n.to_string(), Some(&format!("g{}", n % 3)), &body(n))).collect();
    let failed = deliver(&function, &records).await;
    // Group 2 fails from its first message on, and group 0 from its fourth on, because of the refused line.
    let mut wanted: Vec<usize> = (0..90).filter(|n| n % 3 == 2 || (n % 3 == 0 && *n >= 9)).collect();
    wanted.sort_by_key(|n| *n);
    assert_eq!(failed, wanted.iter().map(usize::to_string).collect::<Vec<_>>());
    let events = sent(&function.output);
    let uuids: Vec<&str> = events.iter().map(|event| event["uuid"].as_str().unwrap()).collect();
    assert!((0..90).filter(|n| n % 3 == 1).all(|n| uuids.contains(&format!("e-v{n}").as_str())), "{uuids:?}");
    // The failed groups are not processed in later chunks.
    for (visitor, is_processed) in [("v88", true), ("v12", true), ("v87", false), ("v89", false)] {
        let session = function.manager.get_by_user(&Visitor::new(visitor)).await;
        assert_eq!(session.is_ok(), is_processed, "{visitor}");
    }
    assert!(sent(&function.rejects).len() >= 30);
    // The redelivery succeeds: every event is sent, in the order of its group.
    function.output.refused = None;
    let redelivered: Vec<Value> = wanted.iter().filter(|n| **n != 2).map(|n| records[*n].clone()).collect();
    assert_eq!(deliver(&function, &redelivered).await, [""; 0]);
    let events = sent(&function.output);
    let order: Vec<usize> = events.iter().map(|event| event["uuid"].as_str().unwrap()[3..].parse().unwrap()).collect();
    assert!(order.is_sorted() && order.len() == redelivered.len(), "{order:?}");
}

#[tokio::test]
async fn a_message_with_a_refused_line_is_redelivered() {
    let mut function = function();
    function.output.refused = Some("e-b");
    function.rejects.refused = Some("garbage");
    let records = [
        record("m1", None, &json!([event("a"), event("b")]).to_string()),
        record("m2", None, &json!([event("c")]).to_string()),
        record("m3", None, "garbage"),
        record("m4", None, ""),
    ];
    assert_eq!(deliver(&function, &records).await, ["m1", "m3"]);
    let rejects = sent(&function.rejects);
    assert_eq!((&rejects[0]["code"], &rejects[0]["index"]), (&"no_events".into(), &Value::Null));
    // The redelivery succeeds, and the events are the same.
    (function.output.refused, function.rejects.refused) = (None, None);
    sent(&function.output);
    assert_eq!(deliver(&function, &records).await, [""; 0]);
    let ids: Vec<_> = sent(&function.output).iter().map(|event| event["uuid"].clone()).collect();
    assert_eq!(ids, ["e-a", "e-b", "e-c"]);
}

/// The table took them, but they have to be sent again: without this, an output that is down would fail nothing for as long as the
/// queue delivers again.
#[tokio::test]
async fn events_that_the_output_refuses_are_counted_as_failed() {
    let mut function = function();
    function.output.refused = Some("e-b");
    let messages = [json!([event("a"), event("b")]), json!([event("c")])];
    let records: Vec<Value> = messages.iter().map(|events| record("m", None, &events.to_string())).collect();
    let payload = json!({ "Records": records }).to_string();
    let counts = function.handle_measured(PipeRole::Enrichment, "", &payload, Millis::MAX).await.unwrap().counts;
    assert_eq!((counts.applied, counts.failed, counts.codes["output_unavailable"]), (2, 1, 1));
}

#[tokio::test]
async fn an_event_over_several_lines_is_one_line_of_output() {
    let function = function();
    let body = serde_json::to_string_pretty(&event("a")).unwrap();
    deliver(&function, &[record("m1", None, &body)]).await;
    let lines = function.output.accepted.take();
    assert!(lines.len() == 1 && !lines[0].contains('\n'));
}

#[tokio::test]
async fn direct_events_fail_in_the_answer_not_as_an_invocation() {
    let body = handle(&function(), &event("down")).await;
    assert_eq!((&body["error"]["code"], &body["failed"][0]["index"]), (&"try_again".into(), &0.into()));
    let body = handle(&function(), &json!({"end_session": 7})).await;
    assert_eq!(body["error"]["code"], "invalid_session_id");
}
