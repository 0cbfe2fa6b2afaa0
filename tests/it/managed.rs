//! The real `ingest-managed` under a Runtime API that gives it several invocations at once, as Lambda Managed Instances do.
//! `cargo test --features managed-instances --test it managed`

mod cache;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};

use crate::binaries::variables;
use crate::dynamodb::EmbeddedDynamoDb;
use crate::fake_runtime::{Function, RuntimeEvent};
use crate::proxy::Proxy;

pub const INGEST: &str = env!("CARGO_BIN_EXE_ingest-managed");
const TIME: Duration = Duration::from_secs(30);

/// Starts the function, for as many invocations at once.
pub async fn start(endpoint: &str, invocations: usize, others: &[(&str, &str)]) -> Function {
    let max = invocations.to_string();
    let own = [("AWS_LAMBDA_MAX_CONCURRENCY", max.as_str())];
    Function::start(INGEST, &[&variables(endpoint), &own[..], others].concat()).await
}

/// Returns the answers of as many invocations, by request id.
async fn answers(function: &mut Function, count: usize) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        match function.next_request().await {
            (_, RuntimeEvent::Taken) => {}
            (id, RuntimeEvent::Answer(answer)) => {
                let former = answers.insert(id, serde_json::from_str(&answer).unwrap());
                assert_eq!(former, None, "answered twice");
            }
            error => panic!("{error:?}"),
        }
    }
    answers
}

/// Returns the lines of invocations in a log, by request id.
fn lines(log: &str) -> BTreeMap<String, Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["faas.invocation_id"].as_str().unwrap().to_owned(), line)).collect()
}

/// Eight invocations are under way at once, each with another number of visitors. Each is answered under its own id, and its line
/// in the log counts its own events, calls and units.
#[tokio::test]
async fn each_invocation_counts_for_itself() {
    const INVOCATIONS: usize = 8;
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let slow = Proxy::start(&database.endpoint, Duration::from_millis(100)).await;
    let mut function = start(&slow.endpoint, INVOCATIONS, &[("AWS_LAMBDA_LOG_FORMAT", "JSON")]).await;
    function.wait_for_polls(INVOCATIONS).await;
    for number in 1..=INVOCATIONS {
        let event = |at: usize| json!({ "event": "$pageview", "distinct_id": format!("{number}-{at}") });
        let payload = json!({ "events": (0..number).map(event).collect::<Vec<_>>() });
        function.enqueue_as(&number.to_string(), payload.to_string(), TIME);
    }
    // All of them are taken before one is answered.
    for _ in 0..INVOCATIONS {
        assert_eq!(function.next_event().await, RuntimeEvent::Taken);
    }
    let answers = answers(&mut function, INVOCATIONS).await;
    for (id, answer) in &answers {
        let ids = answer["events"].as_array().unwrap().iter().map(|event| event["distinct_id"].as_str().unwrap());
        let expected: Vec<String> = (0..id.parse().unwrap()).map(|at: usize| format!("{id}-{at}")).collect();
        assert!(ids.eq(expected), "{answer}");
    }
    let lines = lines(&function.kill().log);
    assert_eq!(lines.len(), INVOCATIONS);
    assert_eq!(lines.values().filter(|line| line["faas.coldstart"] == true).count(), 1);
    for (id, line) in lines {
        let number: u64 = id.parse().unwrap();
        // One read for all visitors, and a write for each.
        let counts =
            [("EventsApplied", number), ("SessionsStarted", number), ("TableCalls", 1 + number), ("Conflicts", 0)];
        for (name, count) in counts {
            assert_eq!(line[name], count, "{name}: {line}");
        }
        // A new session costs two units, one of them in the index. A read of nothing costs half a unit for each visitor.
        assert_eq!(
            (&line["WriteUnits"], &line["ReadUnits"]),
            (&json!(2.0 * number as f64), &json!(0.5 * number as f64))
        );
    }
}

/// Invocations at once with events of one visitor: each event is counted once, in one session, whoever wins.
#[tokio::test]
async fn one_visitor_in_all_invocations() {
    const INVOCATIONS: usize = 8;
    const ROUNDS: usize = 5;
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let mut function = start(&database.endpoint, INVOCATIONS, &[("AWS_LAMBDA_LOG_FORMAT", "JSON")]).await;
    let now = SystemClock.now();
    let mut sessions = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        function.wait_for_polls(INVOCATIONS).await;
        for number in 0..INVOCATIONS {
            // In each round, half of the events are those of another invocation, sent again.
            let event = |at: usize| {
                json!({ "uuid": format!("{round}-{at}"), "event": "$pageview", "distinct_id": "ada",
                        "timestamp": session_tracking::session::rfc3339(session_tracking::session::datetime(now)) })
            };
            let payload = json!({ "events": [event(number), event((number + 1) % INVOCATIONS)] });
            function.enqueue_as(&format!("{round}-{number}"), payload.to_string(), TIME);
        }
        for answer in answers(&mut function, INVOCATIONS).await.values() {
            let events = answer["events"].as_array().unwrap();
            assert_eq!((events.len(), answer.get("failed")), (2, None), "{answer}");
            sessions.extend(events.iter().map(|event| event["properties"]["$session_id"].to_string()));
        }
    }
    let [session] = &sessions.into_iter().collect::<Vec<_>>()[..] else { panic!("several sessions") };
    let session: Value = serde_json::from_str(session).unwrap();
    function.enqueue_as("get", json!({ "get_session": session }).to_string(), TIME);
    let found = &answers(&mut function, 1).await["get"];
    assert_eq!(found["event_count"], ROUNDS * INVOCATIONS, "{found}");
    let lines = lines(&function.kill().log);
    let sum = |name: &str| lines.values().filter_map(|line| line[name].as_u64()).sum::<u64>();
    // An event that was new to one invocation was a duplicate to the other.
    assert_eq!((sum("EventsApplied"), sum("EventsDuplicate")), (80, 40));
    println!("{} conflicts, {} calls in {} invocations", sum("Conflicts"), sum("TableCalls"), lines.len());
}

/// A failure is answered under its own id, and the others go on.
#[tokio::test]
async fn a_payload_that_fails_fails_alone() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let mut function = start(&database.endpoint, 2, &[]).await;
    function.wait_for_polls(2).await;
    function.enqueue_as("bad", r#"{"unknown":1}"#.to_owned(), TIME);
    function.enqueue_as("good", r#"{"event":"x","distinct_id":"ada"}"#.to_owned(), TIME);
    let mut kinds = BTreeMap::new();
    while kinds.len() < 2 {
        match function.next_request().await {
            (_, RuntimeEvent::Taken) => {}
            (id, RuntimeEvent::Answer(_)) => drop(kinds.insert(id, "answer")),
            (id, RuntimeEvent::Error(error)) => {
                assert!(error.contains("the payload is"), "{error}");
                kinds.insert(id, "error");
            }
        }
    }
    assert_eq!(kinds, BTreeMap::from([("bad".to_owned(), "error"), ("good".to_owned(), "answer")]));
    function.wait_for_polls(2).await;
}

/// Without the variable that Lambda Managed Instances set, it takes one invocation after the other.
#[tokio::test]
async fn on_lambda_itself_it_takes_one_at_a_time() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let mut function = Function::start(INGEST, &variables(&database.endpoint)).await;
    for number in 0..2 {
        function.enqueue(json!({ "event": "x", "distinct_id": format!("{number}") }).to_string(), TIME);
    }
    for _ in 0..2 {
        assert_eq!(function.next_event().await, RuntimeEvent::Taken);
        assert!(matches!(function.next_event().await, RuntimeEvent::Answer(_)));
    }
}
