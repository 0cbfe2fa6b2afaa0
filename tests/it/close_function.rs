//! The real binary of the close function: its share of the work, and which runs are errors.

use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::SessionManager;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{DynamoDbSessionStorage, due_shard};

use crate::binaries::{CLOSE, variables};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::fake_runtime::{Function, RuntimeEvent};
use crate::support::ManualClock;

const TIME: Duration = Duration::from_secs(60);

/// Adds a session of yesterday for each of `count` visitors.
async fn visits(database: &EmbeddedDynamoDb, count: usize) {
    let clock = ManualClock::default();
    let yesterday = SystemClock.now() - 86_400_000;
    clock.set(yesterday);
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let at = rfc3339(datetime(yesterday));
    let events: Vec<String> = (0..count)
        .map(|n| format!(r#"{{"uuid":"e{n}","event":"x","distinct_id":"v{n}","timestamp":"{at}"}}"#))
        .collect();
    let delivery = Delivery { received_at: yesterday, trusts_received_at: true };
    let events: Vec<Event<'_>> =
        events.iter().map(|json| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap()).collect();
    manager.resolve(&events, Millis::MAX).await;
}

/// Returns the visitors whose ends are among these lines, sorted.
fn visitors(lines: &[String]) -> Vec<String> {
    let visitor =
        |line: &String| serde_json::from_str::<Value>(line).unwrap()["distinct_id"].as_str().unwrap().to_owned();
    let mut visitors: Vec<String> = lines.iter().map(visitor).collect();
    visitors.sort();
    visitors
}

#[tokio::test]
async fn closers_share_the_shards_and_a_schedule_without_a_share_covers_all() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    visits(&database, 60).await;
    let is_odd = |n: &usize| due_shard(&Visitor::new(&format!("v{n}"))) % 2 == 1;
    let mut odd: Vec<String> = (0..60).filter(is_odd).map(|n| format!("v{n}")).collect();
    odd.sort();
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    let report: Value =
        serde_json::from_str(&function.invoke(json!({"shard_of": [1, 2]}).to_string(), TIME).await).unwrap();
    assert_eq!((&report["closed"], &report["oldest_due_seconds"]), (&json!(odd.len()), &json!(null)), "{report}");
    let exited = function.kill();
    assert_eq!(visitors(&exited.lines), odd);
    // The report is logged as fields.
    assert!(
        exited.log.contains(&format!("\"SessionsEnded\":{}", odd.len())) && !exited.log.contains("CloseReport"),
        "{}",
        exited.log
    );

    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    let scheduled = json!({"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}});
    let report: Value = serde_json::from_str(&function.invoke(scheduled.to_string(), TIME).await).unwrap();
    assert_eq!(report["closed"], 60 - odd.len(), "{report}");
}

#[tokio::test]
async fn a_run_that_can_do_nothing_is_an_error() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    visits(&database, 20).await;
    let error = |event| match event {
        RuntimeEvent::Error(error) => serde_json::from_str::<Value>(&error).unwrap(),
        event => panic!("{event:?}"),
    };
    // An invalid share.
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    function.deliver(json!({"shard_of": [2, 2]}).to_string(), TIME).await;
    assert_eq!(error(function.next_event().await)["errorType"], "InvalidShare");
    // The function still works. With no time left it begins nothing, and reports that it left work behind.
    let report: Value = serde_json::from_str(&function.invoke("{}".to_owned(), Duration::from_secs(1)).await).unwrap();
    assert_eq!(report["is_incomplete"], true, "{report}");
    let log = function.kill().log;
    assert!(log.contains("WARN") && log.contains("something due was left behind"), "{log}");

    // Without a table no shard can be listed.
    let mut without_table = variables(&database.endpoint);
    without_table.retain(|(name, _)| *name != "TABLE");
    without_table.push(("TABLE", "elsewhere"));
    let mut function = Function::start(CLOSE, &without_table).await;
    function.deliver("{}".to_owned(), TIME).await;
    let failed = error(function.next_event().await);
    assert_eq!(failed["errorType"], "CloseFailed", "{failed}");
    assert!(failed["errorMessage"].as_str().unwrap().starts_with("64 shards could not be listed"), "{failed}");

    // Without an output queue nothing is emitted, so nothing is archived, and everything is still in the table.
    let mut without_output = variables(&database.endpoint);
    without_output.retain(|(name, _)| *name != "OUTPUT");
    without_output.extend([("OUTPUT", "http://127.0.0.1:1/1/out"), ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")]);
    let mut function = Function::start(CLOSE, &without_output).await;
    function.deliver("{}".to_owned(), TIME).await;
    let failed = error(function.next_event().await);
    assert_eq!(failed["errorType"], "CloseFailed", "{failed}");
    let log = function.kill().log;
    assert!(log.contains("oldest_due_seconds=8"), "a day less the timeout and the allowed lateness: {log}");
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    let report: Value = serde_json::from_str(&function.invoke("null".to_owned(), TIME).await).unwrap();
    assert_eq!((&report["closed"], &report["failed"]), (&json!(20), &json!(0)), "{report}");
}
