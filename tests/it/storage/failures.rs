//! What a call of DynamoDB that fails is called: its kind, and what of it stands in the log.

use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use session_tracking::storage::{DynamoDbSessionStorage, SessionError, SessionStorage, StorageErrorKind};

use super::{NOON, commit, timeline};
use crate::binaries::{CLOSE, INGEST, variables};
use crate::dynamodb::TABLE;
use crate::fake_runtime::{Function, RuntimeEvent};

const TIME: Duration = Duration::from_secs(60);
/// What a service's message, but no log of ours, may hold.
const SECRET: &str = "arn:aws:iam::123456789012:role/secret";

/// An endpoint that gives every request this answer.
async fn endpoint(answer: impl Fn(Value) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |body: String| async move { answer(serde_json::from_str(&body).unwrap()) };
    tokio::spawn(async { axum::serve(listener, Router::new().route("/", post(answer))).await.unwrap() });
    endpoint
}

/// An answer as DynamoDB gives it to a call that fails.
fn refusal(status: u16, code: &str) -> Response {
    let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "message": SECRET });
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn store(endpoint: &str) -> DynamoDbSessionStorage {
    let time = Duration::from_millis(200);
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(time).build())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint);
    DynamoDbSessionStorage::new(aws_sdk_dynamodb::Client::from_conf(config.build()), TABLE)
}

/// The errors of a read, a write and a listing.
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
async fn what_the_service_answers_has_a_kind() {
    for (status, code, wanted) in [
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
        let store = store(&endpoint(move |_| refusal(status, code)).await);
        for error in errors(&store).await {
            assert_eq!(kind(&error), wanted, "{code}");
            assert_eq!(error.with_causes(), format!("storage is not available: {code} (status {status})"));
        }
    }
}

#[tokio::test]
async fn a_call_without_an_answer_has_a_kind() {
    // Connections are taken by the system, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = store(&format!("http://{}", silent.local_addr().unwrap()));
    let nobody = store("http://127.0.0.1:1");
    let garbled = store(&endpoint(|_| format!("<html>{SECRET}</html>").into_response()).await);
    for (store, wanted, reason) in [
        (silent, StorageErrorKind::TimedOut, "request has timed out: "),
        (nobody, StorageErrorKind::Other, "dispatch failure: io error: "),
        (garbled, StorageErrorKind::Other, "an answer without a code (status 200)"),
    ] {
        for error in errors(&store).await {
            let line = error.with_causes();
            assert_eq!(kind(&error), wanted, "{line}");
            assert!(line.starts_with(&format!("storage is not available: {reason}")), "{line}");
            assert!(!line.contains(SECRET), "{line}");
            // Each cause stands there once.
            let causes: Vec<&str> = line.split(": ").collect();
            assert!(causes.iter().all(|cause| line.matches(cause).count() == 1), "{line}");
        }
    }
}

/// Keys that a table leaves unread again and again are how `BatchGetItem` throttles.
#[tokio::test]
async fn keys_left_unread_are_throttling() {
    let unread = |body: Value| json!({ "Responses": {}, "UnprocessedKeys": body["RequestItems"] }).to_string();
    let store = store(&endpoint(move |body| unread(body).into_response()).await);
    let error = store.read(&timeline("visitor", NOON).visitor).await.unwrap_err();
    assert_eq!(kind(&error), StorageErrorKind::Throttled);
    assert_eq!(error.with_causes(), "storage is not available: the table left keys unread");
}

/// The lines of a function's log, which it writes as JSON, that have a kind.
fn with_kind(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["fields"].clone()).filter(|fields| !fields["kind"].is_null()).collect()
}

/// The functions' own logs and answers: the kind, the reason, and nothing of the visitor or the account.
#[tokio::test]
async fn the_log_and_the_answer_say_the_kind_and_hold_no_ids() {
    for (code, kind, advice) in [
        ("ThrottlingException", "throttled", "send the request again later"),
        ("AccessDeniedException", "denied", "its operator has to check"),
    ] {
        let endpoint = endpoint(move |_| refusal(400, code)).await;
        let variables = [variables(&endpoint), vec![("AWS_LAMBDA_LOG_FORMAT", "JSON")]].concat();
        let reason = format!("storage is not available: {code} (status 400)");

        let mut function = Function::start(INGEST, &variables).await;
        let event = |id: &str| json!({ "uuid": id, "event": "x", "distinct_id": format!("visitor-{id}") });
        let payload = json!({ "events": [event("a"), event("b")] }).to_string();
        let answer = function.invoke(payload, TIME).await;
        let log = function.kill().log;
        let lines = with_kind(&log);
        let wanted = json!({
            "code": "storage_unavailable", "kind": kind, "error": reason, "message": "the store failed",
        });
        assert_eq!(lines, [wanted], "{log}");
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
