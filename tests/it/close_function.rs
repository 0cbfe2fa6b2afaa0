//! The close function's real binary: its share of the work, and that a run which can do nothing is an error.

use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::SessionManager;
use session_tracking::session::{Millis, Visitor, datetime, time_text};
use session_tracking::storage::{DynamoDbSessionStorage, due_shard};

use crate::binaries::{CLOSE, variables};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::fake_runtime::{Emitted, Function};
use crate::support::ManualClock;

const TIME: Duration = Duration::from_secs(60);

/// A session each of so many visitors, yesterday.
async fn visits(database: &EmbeddedDynamoDb, count: usize) {
    let clock = ManualClock::default();
    let yesterday = SystemClock.now() - 86_400_000;
    clock.set(yesterday);
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let at = time_text(datetime(yesterday));
    let texts: Vec<String> = (0..count)
        .map(|n| format!(r#"{{"uuid":"e{n}","event":"x","distinct_id":"v{n}","timestamp":"{at}"}}"#))
        .collect();
    let delivery = Delivery { received_at: yesterday, trusts_received_at: true };
    let events: Vec<Event<'_>> =
        texts.iter().map(|text| Event::parse(text.as_bytes(), delivery, manager.config()).unwrap()).collect();
    manager.resolve(&events, Millis::MAX).await;
}

/// The visitors whose ends are among these lines.
fn visitors(lines: &[String]) -> Vec<String> {
    let visitor =
        |line: &String| serde_json::from_str::<Value>(line).unwrap()["distinct_id"].as_str().unwrap().to_owned();
    let mut visitors: Vec<String> = lines.iter().map(visitor).collect();
    visitors.sort();
    visitors
}

#[tokio::test]
async fn closers_share_the_shards_and_a_schedule_means_all() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    visits(&database, 60).await;
    let is_odd = |n: &usize| due_shard(&Visitor::new(&format!("v{n}"))) % 2 == 1;
    let mut odd: Vec<String> = (0..60).filter(is_odd).map(|n| format!("v{n}")).collect();
    odd.sort();
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    let report: Value =
        serde_json::from_str(&function.invoke(json!({"shard_of": [1, 2]}).to_string(), TIME).await).unwrap();
    assert_eq!((&report["closed"], &report["oldest_due_seconds"]), (&json!(odd.len()), &json!(null)), "{report}");
    let ended = function.kill();
    assert_eq!(visitors(&ended.lines), odd);
    // What the log says is there as fields.
    assert!(
        ended.log.contains(&format!("closed={}", odd.len())) && !ended.log.contains("CloseReport"),
        "{}",
        ended.log
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
    let error = |emitted| match emitted {
        Emitted::Error(error) => serde_json::from_str::<Value>(&error).unwrap(),
        emitted => panic!("{emitted:?}"),
    };
    // A share that there is not.
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    function.hand(json!({"shard_of": [2, 2]}).to_string(), TIME).await;
    assert_eq!(error(function.emitted().await)["errorType"], "InvalidShare");
    // It lives on; with no time left it begins nothing, leaves all behind and says so.
    let report: Value = serde_json::from_str(&function.invoke("{}".to_owned(), Duration::from_secs(1)).await).unwrap();
    assert_eq!(report["is_incomplete"], true, "{report}");
    let log = function.kill().log;
    assert!(log.contains("WARN") && log.contains("something due was left behind"), "{log}");

    // No table: nothing can be listed.
    let mut elsewhere = variables(&database.endpoint);
    elsewhere.retain(|(name, _)| *name != "TABLE");
    elsewhere.push(("TABLE", "elsewhere"));
    let mut function = Function::start(CLOSE, &elsewhere).await;
    function.hand("{}".to_owned(), TIME).await;
    let failed = error(function.emitted().await);
    assert_eq!(failed["errorType"], "CloseFailed", "{failed}");
    assert!(failed["errorMessage"].as_str().unwrap().starts_with("64 shards could not be listed"), "{failed}");

    // No output queue: nothing can be emitted, so nothing is archived, and all is still there.
    let mut deaf = variables(&database.endpoint);
    deaf.retain(|(name, _)| *name != "OUTPUT");
    deaf.extend([("OUTPUT", "http://127.0.0.1:1/1/out"), ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")]);
    let mut function = Function::start(CLOSE, &deaf).await;
    function.hand("{}".to_owned(), TIME).await;
    let failed = error(function.emitted().await);
    assert_eq!(failed["errorType"], "CloseFailed", "{failed}");
    let log = function.kill().log;
    assert!(log.contains("oldest_due_seconds=8"), "a day, less what closing takes into account: {log}");
    let mut function = Function::start(CLOSE, &variables(&database.endpoint)).await;
    let report: Value = serde_json::from_str(&function.invoke("null".to_owned(), TIME).await).unwrap();
    assert_eq!((&report["closed"], &report["failed"]), (&json!(20), &json!(0)), "{report}");
}
