//! Failed DynamoDB calls: the kind of the error, and what the log contains of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::session::{Visitor, session_id};
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionError, SessionStorage, StorageErrorKind};

use super::{NOON, commit, timeline};
use crate::binaries::{CLOSE, INGEST, variables};
use crate::dynamodb::TABLE;
use crate::fake_runtime::{Function, RuntimeEvent};

const TIME: Duration = Duration::from_secs(60);
/// A string that the messages of AWS services may contain, but no log may.
const SECRET: &str = "arn:aws:iam::123456789012:role/secret";

/// Starts an endpoint that gives every request this answer. Returns its URL.
async fn endpoint(answer: impl Fn(Value) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |body: String| async move { answer(serde_json::from_str(&body).unwrap()) };
    tokio::spawn(async { axum::serve(listener, Router::new().route("/", post(answer))).await.unwrap() });
    endpoint
}

/// Returns an answer in the form in which DynamoDB reports an error.
fn error_answer(status: u16, code: &str) -> Response {
    let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "message": SECRET });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

/// Returns a store whose calls wait this long for an answer.
fn store_within(endpoint: &str, timeout: Duration) -> DynamoDbSessionStorage {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint);
    DynamoDbSessionStorage::new(aws_sdk_dynamodb::Client::from_conf(config.build()), TABLE)
}

/// Returns a store whose calls wait for an answer, whatever else the machine does.
fn store(endpoint: &str) -> DynamoDbSessionStorage {
    store_within(endpoint, TIME)
}

/// Returns the errors of a read, a write and a query of the index.
async fn errors(store: &DynamoDbSessionStorage) -> [SessionError; 3] {
    let timeline = timeline("visitor", NOON);
    [
        store.read(&timeline.visitor).await.unwrap_err(),
        store.commit(commit(&timeline, None, 1)).await.unwrap_err(),
        store.due(0, None, NOON, 10).await.unwrap_err(),
    ]
}

fn kind(error: &SessionError) -> StorageErrorKind {
    match error {
        SessionError::Storage { kind, .. } => *kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_error_answer_has_a_kind() {
    for (status, code, expected) in [
        (400, "ProvisionedThroughputExceededException", StorageErrorKind::Throttled),
        (400, "ThrottlingException", StorageErrorKind::Throttled),
        (400, "RequestLimitExceeded", StorageErrorKind::Throttled),
        (400, "AccessDeniedException", StorageErrorKind::Denied),
        (400, "UnrecognizedClientException", StorageErrorKind::Denied),
        (400, "ExpiredTokenException", StorageErrorKind::Denied),
        (400, "InvalidSignatureException", StorageErrorKind::Denied),
        (400, "MissingAuthenticationToken", StorageErrorKind::Denied),
        (400, "ResourceNotFoundException", StorageErrorKind::Other),
        (500, "InternalServerError", StorageErrorKind::Other),
    ] {
        let store = store(&endpoint(move |_| error_answer(status, code)).await);
        for error in errors(&store).await {
            assert_eq!(kind(&error), expected, "{code}");
            let line = error.with_causes();
            assert!(line.starts_with(&format!("storage is not available: {code} (status {status})")), "{line}");
        }
    }
}

#[tokio::test]
async fn a_call_without_an_answer_has_a_kind() {
    // The operating system accepts connections to this port, but nothing reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = store_within(&format!("http://{}", silent.local_addr().unwrap()), Duration::from_millis(200));
    let refused = store("http://127.0.0.1:1");
    let invalid = store(&endpoint(|_| format!("<html>{SECRET}</html>").into_response()).await);
    for (store, expected, reason) in [
        (silent, StorageErrorKind::TimedOut, "request has timed out: "),
        (refused, StorageErrorKind::Other, "dispatch failure: io error: "),
        (invalid, StorageErrorKind::Other, "an answer without a code (status 200)"),
    ] {
        for error in errors(&store).await {
            let line = error.with_causes();
            assert_eq!(kind(&error), expected, "{line}");
            assert!(line.starts_with(&format!("storage is not available: {reason}")), "{line}");
            assert!(!line.contains(SECRET), "{line}");
            // The line contains each cause once.
            let causes: Vec<&str> = line.split(": ").collect();
            assert!(causes.iter().all(|cause| line.matches(cause).count() == 1), "{line}");
        }
    }
}

/// A session can have thousands of aliases. One call after the other would take a close run's whole time.
#[tokio::test]
async fn aliases_are_archived_several_at_once_behind_their_session() {
    const ALIASES: i64 = 400;
    let (under_way, most, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::default());
    let calls: Arc<Mutex<Vec<bool>>> = Arc::clone(&arrived);
    let (now, max) = (Arc::clone(&under_way), Arc::clone(&most));
    let answer = move |body: String| async move {
        max.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        SystemClock.sleep(Duration::from_millis(2)).await;
        now.fetch_sub(1, Ordering::Relaxed);
        calls.lock().unwrap().push(body.contains("\"into\""));
        "{}"
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().route("/", post(answer))).await.unwrap() });

    let mut timeline = timeline("visitor", NOON);
    let visitor = timeline.visitor.clone();
    let mut session = timeline.close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
    session.aliases = (0..ALIASES).map(|n| session_id(visitor.bits(), NOON + n, "alias", 1)).collect();
    store(&url).archive(&visitor, &session, NOON).await.unwrap();
    let arrived = arrived.lock().unwrap();
    assert_eq!((arrived.len() as i64, arrived[0]), (ALIASES + 1, false), "the session comes first");
    assert!(arrived[1..].iter().all(|is_alias| *is_alias));
    assert!((2..=16).contains(&most.load(Ordering::Relaxed)), "{most:?} at once");
}

/// A throttled `BatchGetItem` does not fail: it leaves keys unread, here in every call.
#[tokio::test]
async fn keys_left_unread_are_throttling() {
    let unread = |body: Value| json!({ "Responses": {}, "UnprocessedKeys": body["RequestItems"] }).to_string();
    let store = store(&endpoint(move |body| unread(body).into_response()).await);
    let error = store.read(&timeline("visitor", NOON).visitor).await.unwrap_err();
    assert_eq!(kind(&error), StorageErrorKind::Throttled);
    assert_eq!(error.with_causes(), "storage is not available: the table left keys unread");
}

/// Returns the fields of the lines that have a kind in a function's JSON log.
fn with_kind(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["fields"].clone()).filter(|fields| !fields["kind"].is_null()).collect()
}

/// The logs of both functions contain the kind and the reason of a failure, and no visitor's id. The answer of `ingest` contains
/// the advice for the kind. Neither contains anything of the service's message.
#[tokio::test]
async fn log_and_answer_explain_a_failure_without_secrets() {
    for (code, kind, advice) in [
        ("ThrottlingException", "throttled", "send the request again later"),
        ("AccessDeniedException", "denied", "its operator has to check"),
    ] {
        let endpoint = endpoint(move |_| error_answer(400, code)).await;
        let variables = [variables(&endpoint), vec![("AWS_LAMBDA_LOG_FORMAT", "JSON")]].concat();
        let reason = format!("storage is not available: {code} (status 400)");

        let mut function = Function::start(INGEST, &variables).await;
        let event = |id: &str| json!({ "uuid": id, "event": "x", "distinct_id": format!("visitor-{id}") });
        let payload = json!({ "events": [event("a"), event("b")] }).to_string();
        let answer = function.invoke(payload, TIME).await;
        let log = function.kill().log;
        let lines = with_kind(&log);
        let expected = json!({
            "code": "storage_unavailable", "kind": kind, "error": reason, "message": "the store failed",
        });
        assert_eq!(lines, [expected], "{log}");
        assert!(!log.contains("visitor") && !log.contains(SECRET), "{log}");
        assert!(!answer.contains(code) && !answer.contains(SECRET), "{answer}");
        let failed = serde_json::from_str::<Value>(&answer).unwrap()["failed"].clone();
        assert_eq!(failed[1]["code"], "storage_unavailable", "{answer}");
        assert!(failed[1]["message"].as_str().unwrap().contains(advice), "{answer}");

        let mut function = Function::start(CLOSE, &variables).await;
        function.deliver("{}".to_owned(), TIME).await;
        assert!(matches!(function.next_event().await, RuntimeEvent::Error(_)));
        let log = function.kill().log;
        let lines = with_kind(&log);
        assert!(!lines.is_empty() && lines.iter().all(|line| line["kind"] == kind && line["error"] == reason), "{log}");
        assert!(!log.contains(SECRET), "{log}");
    }
}

/// `TableCalls` counts each call, whatever becomes of it.
#[tokio::test]
async fn calls_that_fail_or_time_out_are_counted() {
    let refusing = endpoint(|_| error_answer(400, "AccessDeniedException")).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = (format!("http://{}", silent.local_addr().unwrap()), silent);
    for (url, timeout) in [(&refusing, TIME), (&silent.0, Duration::from_millis(50))] {
        let consumed = Arc::new(Consumed::default());
        let store = store_within(url, timeout).counting(Arc::clone(&consumed));
        for calls in 1..=2 {
            assert!(store.read(&Visitor::new("u1")).await.is_err(), "{url}");
            assert_eq!((consumed.calls(), consumed.read_units()), (calls, 0.0), "{url}");
        }
    }
}
