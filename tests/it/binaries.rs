//! The functions' real binaries: errors for a wrong environment, and answers before the deadline.

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::Millis;

use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::fake_runtime::Function;
use crate::proxy::Proxy;

pub const INGEST: &str = env!("CARGO_BIN_EXE_ingest");
pub const CLOSE: &str = env!("CARGO_BIN_EXE_close");

/// The environment of both functions on a local database.
pub fn variables(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        ("AWS_REGION", "local"),
        ("TABLE", TABLE),
        ("OUTPUT", "stdout"),
        ("REJECTS", "stdout"),
    ]
}

#[tokio::test]
async fn a_missing_setting_is_an_error_at_the_start() {
    for (binary, missing, sentence) in [
        (INGEST, "OUTPUT", "OUTPUT is not set; set it to the output queue's URL, or to `stdout`"),
        (INGEST, "REJECTS", "REJECTS is not set; set it to the rejects queue's URL, or to `stdout`"),
        (CLOSE, "OUTPUT", "OUTPUT is not set; set it to the output queue's URL, or to `stdout`"),
        (CLOSE, "TABLE", "TABLE is not set; set it to the table's name"),
    ] {
        let mut variables = variables("http://127.0.0.1:1");
        variables.retain(|(name, _)| *name != missing);
        let exited = Function::start(binary, &variables).await.wait();
        assert!(!exited.status.success(), "{exited:?}");
        assert!(exited.log.contains(sentence), "{exited:?}");
    }
}

/// Returns a payload with one event a message, each of another visitor.
fn payload(messages: impl IntoIterator<Item = usize>) -> String {
    let records = messages.into_iter().map(|at| {
        let event = json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": format!("v{at}") });
        json!({ "messageId": at.to_string(), "body": event.to_string(), "eventSource": "aws:sqs" })
    });
    json!({ "Records": records.collect::<Vec<_>>() }).to_string()
}

/// Returns the messages that an answer reports as failed.
fn failed(answer: &str) -> HashSet<usize> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let items = answer["batchItemFailures"].as_array().unwrap();
    items.iter().map(|item| item["itemIdentifier"].as_str().unwrap().parse().unwrap()).collect()
}

/// Returns the numbers of the events among a function's lines.
fn numbers(lines: &[String]) -> HashSet<usize> {
    let uuid =
        |line: &String| serde_json::from_str::<Value>(line).unwrap()["uuid"].as_str().unwrap()[1..].parse().unwrap();
    lines.iter().map(uuid).collect()
}

/// Invokes a function with this time limit. Checks that it answers before the deadline. Returns the failed messages.
async fn in_time(function: &mut Function, payload: String, time: Duration) -> HashSet<usize> {
    let deadline = SystemClock.now() + time.as_millis() as Millis;
    let answer = function.invoke(payload, time).await;
    assert!(SystemClock.now() < deadline, "answered too late");
    failed(&answer)
}

#[tokio::test]
async fn with_little_time_left_nothing_begins() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let mut function = Function::start(INGEST, &variables(&database.endpoint)).await;
    let failed = in_time(&mut function, payload(0..20), Duration::from_secs(1)).await;
    assert_eq!(failed, (0..20).collect());
    // The function still works, with enough time.
    assert_eq!(in_time(&mut function, payload(0..20), Duration::from_secs(30)).await.len(), 0);
    assert_eq!(numbers(&function.kill().lines), (0..20).collect());
}

#[tokio::test]
async fn a_database_that_never_answers_is_reported_in_time() {
    // The system accepts connections, but nothing reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut function = Function::start(INGEST, &variables(&endpoint)).await;
    let failed = in_time(&mut function, payload(0..20), Duration::from_millis(3_500)).await;
    assert_eq!(failed, (0..20).collect());
    assert_eq!(function.kill().lines.len(), 0);
}

#[tokio::test]
async fn events_applied_before_the_deadline_are_answered() {
    const MESSAGES: usize = 600;
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let slow = Proxy::start(&database.endpoint, Duration::from_millis(300)).await;
    let mut function = Function::start(INGEST, &variables(&slow.endpoint)).await;
    // 50 writes at once take 0.3 s each. The 2.5 s until no more begin are enough for some of the messages, but not for all.
    let failed = in_time(&mut function, payload(0..MESSAGES), Duration::from_millis(5_500)).await;
    assert!(!failed.is_empty() && failed.len() < MESSAGES, "{} of {MESSAGES} failed", failed.len());
    let done = numbers(&function.kill().lines);
    assert_eq!(done, (0..MESSAGES).filter(|at| !failed.contains(at)).collect());

    // After a retry of only the failed messages, everything is applied.
    let mut function = Function::start(INGEST, &variables(&database.endpoint)).await;
    assert_eq!(in_time(&mut function, payload(failed.iter().copied()), Duration::from_secs(30)).await.len(), 0);
    assert_eq!(numbers(&function.kill().lines), failed);
    let items = database.client().scan().table_name(TABLE).select("COUNT".into()).send().await.unwrap();
    assert_eq!(items.count, MESSAGES as i32);
}

/// Each invocation writes one line: an object that declares the metrics that it holds. At the finest level, too, nothing of what
/// was sent is in the log.
#[tokio::test]
async fn an_invocation_writes_one_line_with_its_metrics_and_nothing_of_its_events() {
    const CANARY: &str = "canary";
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let levels = vec![("AWS_LAMBDA_LOG_FORMAT", "JSON"), ("AWS_LAMBDA_LOG_LEVEL", "TRACE")];
    let variables = [variables(&database.endpoint), levels].concat();
    let event = json!({
        "uuid": "canary-1", "event": "$pageview", "distinct_id": "canary-v", "properties": {
            "$current_url": "https://canary.test/?token=canary", "$referrer": "https://canary.example/", "$user_id": "canary-u",
        },
    });
    let payload = json!({ "events": [event, event, { "event": "canary" }] }).to_string();
    let mut function = Function::start(INGEST, &variables).await;
    for _ in 0..2 {
        function.invoke(payload.clone(), Duration::from_secs(30)).await;
    }
    let log = function.kill().log;
    assert!(!log.contains(CANARY), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [cold, warm] = &lines[..] else { panic!("{log}") };
    for (line, is_cold, started) in [(cold, true, 1), (warm, false, 0)] {
        let declared = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
        assert!(declared.iter().all(|metric| line[metric["Name"].as_str().unwrap()].is_number()), "{line}");
        let counts = (&line["EventsApplied"], &line["EventsRejected"], &line["SessionsStarted"]);
        assert_eq!(counts, (&json!(2), &json!(1), &json!(started)), "{line}");
        assert_eq!(line["faas.coldstart"], is_cold, "{line}");
        assert!(line["TableCalls"].as_u64() > Some(0) && line["ReadUnits"].as_f64() > Some(0.0), "{line}");
    }
    assert_eq!((&cold["SessionsStarted.first"], &cold["EventsDuplicate"]), (&json!(1), &json!(1)));
    assert_eq!((&warm["EventsDuplicate"], &warm["Code.missing_distinct_id"]), (&json!(2), &json!(1)), "{warm}");

    let mut function = Function::start(CLOSE, &variables).await;
    function.invoke("{}".to_owned(), Duration::from_secs(30)).await;
    let log = function.kill().log;
    let closed: Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!(
        (&closed["function"], &closed["CloseLag"], &closed["CloseFailures"]),
        (&json!("close"), &json!(0), &json!(0))
    );
}

/// Whoever gets a binary gets the licences of what is linked into it.
#[test]
fn each_binary_tells_its_licences() {
    for binary in [INGEST, CLOSE] {
        let told = std::process::Command::new(binary).arg("--notice").env_clear().output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.starts_with(include_str!("../../NOTICE")) && told.contains(include_str!("../../LICENSE")));
    }
}

/// The function at the head of the library's documentation, on a database.
#[tokio::test]
async fn a_function_of_ones_own_counts_page_views() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let mut function = Function::start(&crate::local::example("own_function"), &variables(&database.endpoint)).await;
    let view = json!({ "visitor": "ada", "url": "https://shop.test/?utm_source=news" }).to_string();
    for page_views in 1..=2 {
        let answer: Value =
            serde_json::from_str(&function.invoke(view.clone(), Duration::from_secs(30)).await).unwrap();
        assert_eq!((&answer["page_views"], &answer["utm"]["source"]), (&json!(page_views), &json!("news")), "{answer}");
    }
}
