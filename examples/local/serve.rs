//! The HTTP API and the closer, live. Requests go through the function's own handler, in API Gateway's envelope.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::StdoutOutput;
use session_tracking::storage::DynamoDbSessionStorage;
use session_tracking::trigger::Ingest;

use crate::AnyError;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};

/// How often the closer runs.
const CLOSE_EVERY: Duration = Duration::from_secs(60);
/// The time that a request has, in milliseconds: API Gateway's.
const REQUEST_MS: i64 = 30_000;

pub struct Options {
    pub port: u16,
    pub dynamodb_port: u16,
    pub rules: SessionConfig,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 9000, dynamodb_port: 8000, rules: SessionConfig::default() }
    }
}

type Function = Arc<Ingest<DynamoDbSessionStorage, SystemClock, StdoutOutput>>;

pub async fn run(options: Options) -> Result<(), AnyError> {
    let database = EmbeddedDynamoDb::start(options.dynamodb_port)?;
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
    let manager = SessionManager::new(options.rules, storage);
    let function: Function = Arc::new(Ingest { manager, output: StdoutOutput, rejects: StdoutOutput });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port))
        .await
        .map_err(|error| format!("port {} of 127.0.0.1 cannot be used: {error}", options.port))?;
    eprintln!("HTTP API   http://{}/events", listener.local_addr()?);
    eprintln!("DynamoDB   {} (table {TABLE})", database.endpoint);
    eprintln!("ends of sessions go to standard output, as lines of JSON; stop with Ctrl-C");
    tokio::spawn(close(Arc::clone(&function)));
    let app = Router::new().fallback(request).with_state(function);
    let stopped = async {
        // Where signals cannot be had, the process is stopped from outside.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    Ok(())
}

/// The close function, on its schedule.
async fn close(function: Function) {
    loop {
        SystemClock.sleep(CLOSE_EVERY).await;
        let report = function.manager.cleanup(&StdoutOutput, SystemClock.now() + 60_000).await;
        if report.examined > 0 {
            eprintln!("closer: {report:?}");
        }
    }
}

/// API Gateway's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    headers: Value,
    body: String,
}

async fn request(
    State(function): State<Function>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let now = SystemClock.now();
    let pairs =
        headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let headers: serde_json::Map<String, Value> = pairs.collect();
    let envelope = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": uri.path(),
        "rawQueryString": uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": { "http": { "method": method.as_str(), "path": uri.path() }, "timeEpoch": now },
        "body": STANDARD.encode(&body),
        "isBase64Encoded": true,
    });
    let failed = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error).into_response();
    let answer = match function.handle(&envelope.to_string(), now + REQUEST_MS).await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    let answer: Answer = match serde_json::from_str(&answer) {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    let status = StatusCode::from_u16(answer.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers.as_object().into_iter().flatten() {
        let name = header::HeaderName::try_from(name.as_str());
        let value = value.as_str().map(header::HeaderValue::from_str);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
