//! HTTP requests: the paths, and the translation to API Gateway's envelope and back.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::trigger::body::{BodyError, MAX_BODY_BYTES};

use super::clock::ServeClock;
use super::shown::{self, Explanations};
use super::traffic::Traffic;
use super::{Function, page};
use crate::feed::Feed;
use crate::stop::Stop;

/// Limit of the bytes of a body that is passed to the function: API Gateway's own limit, 10 MB. The function has a lower one.
const MAX_PASSED_BYTES: usize = 10 * 1024 * 1024;
/// Limit of the bytes of a body that are read. It is larger, because a client that is still sending does not read the answer.
const MAX_READ_BYTES: usize = 100 * 1024 * 1024;

/// What the handler of requests needs.
pub struct Api {
    /// The ingest function.
    pub function: Function,
    /// Whether requests count as signed.
    pub is_trusted: bool,
    /// The time limit of a request, in milliseconds of the clock.
    pub request_ms: i64,
    /// The time limit of a run of the closer, in milliseconds of the clock.
    pub close_ms: i64,
    pub clock: ServeClock,
    /// Whether the page may make time run faster.
    pub has_time_travel: bool,
    /// Whether recorded events are kept, so that the page links to a session's replay.
    pub has_replay: bool,
    /// What the page shows.
    pub feed: Arc<Feed>,
    /// The sample traffic that the page sends.
    pub traffic: Traffic,
    /// A name of this process: the items of another one have other numbers.
    pub process: String,
    pub stop: Stop,
}

/// Answers a request.
pub async fn answer(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    match (&parts.method, parts.uri.path()) {
        (&Method::GET | &Method::HEAD, "/") if page::is_wanted(&parts.headers) => logged(page::document(&api)),
        (&Method::GET | &Method::HEAD, "/") => logged(own(StatusCode::OK, &about())),
        // The function knows every other path, and answers the preflights of pages.
        _ => match read(body).await {
            Ok(body) => invoke(&api, &parts, &body).await,
            Err(too_large) => logged(own(StatusCode::PAYLOAD_TOO_LARGE, &too_large)),
        },
    }
}

fn about() -> Value {
    json!({
        "service": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "paths": [
            "GET / (for a browser: a page that shows the sessions)",
            "POST /events",
            "POST /explain",
            "GET /sessions/{id}",
            "POST /sessions/{id}/end",
            "GET /visitors/{distinct_id}/sessions",
            "GET /visitors/{distinct_id}/session",
            "GET /visitors/{distinct_id}/export",
            "DELETE /visitors/{distinct_id}",
            "GET /health",
            "the paths of other tracking clients, see docs/dialects.md",
        ],
    })
}

/// Reads a body.
///
/// # Errors
/// The answer to a body that is too large to pass to the function.
async fn read(body: Body) -> Result<Vec<u8>, Value> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut count) = (Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        // When a connection breaks, nobody reads the answer.
        let chunk: Bytes = chunk.unwrap_or_default();
        count += chunk.len();
        if count <= MAX_PASSED_BYTES {
            bytes.extend_from_slice(&chunk);
        }
        if count > MAX_READ_BYTES {
            break;
        }
    }
    if count > MAX_PASSED_BYTES {
        let why = BodyError::TooLarge(MAX_BODY_BYTES);
        let mut answer = error(why.code(), &why.to_string());
        (answer["events"], answer["rejected"]) = (json!([]), json!([]));
        return Err(answer);
    }
    Ok(bytes)
}

/// The answer in API Gateway's envelope.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    headers: Value,
    body: String,
    is_base64_encoded: bool,
}

/// Passes a request to the function, which logs it, and shows on the page what became of its events.
async fn invoke(api: &Api, parts: &request::Parts, body: &[u8]) -> Response {
    let now = api.clock.now();
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: serde_json::Map<String, Value> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), string(value.as_bytes()).into())).collect();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let envelope = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": {
            "http": { "method": method, "path": path },
            "requestId": format!("{:016x}", SystemClock.random()),
            "timeEpoch": now,
            "authorizer": if api.is_trusted { json!({ "iam": {} }) } else { Value::Null },
        },
        "body": STANDARD.encode(body),
        "isBase64Encoded": true,
    });
    let shows_events = method == "POST" && shown::takes_events(path);
    let explanations = match shows_events {
        true => Explanations::of(api, || explain(&envelope)).await,
        false => Explanations::default(),
    };
    let deadline = now.saturating_add(api.request_ms);
    let answer = api.function.handle(&envelope.to_string(), deadline).await.map_err(|error| error.to_string());
    let answer: Result<Answer, _> =
        answer.and_then(|answer| serde_json::from_str(&answer).map_err(|error| error.to_string()));
    match answer {
        Ok(answer) => {
            if shows_events {
                shown::show(api, &answer.body, &explanations, now);
            }
            response(answer)
        }
        Err(why) => logged(own(StatusCode::INTERNAL_SERVER_ERROR, &error("invocation_failed", &why))),
    }
}

/// Returns the request that asks what would become of another one's events. It has the same id, so that events get the same ids.
fn explain(envelope: &Value) -> Value {
    let mut envelope = envelope.clone();
    envelope["rawPath"] = json!("/v1/explain");
    let context = &mut envelope["requestContext"];
    context["http"]["path"] = json!("/v1/explain");
    context["authorizer"] = json!({ "iam": {} });
    envelope
}

/// Sends events of the page itself, by direct invocation: they need no key of a project.
pub async fn send_events(api: &Api, events: &[Value]) {
    let now = api.clock.now();
    let explanations = Explanations::of(api, || json!({ "explain": events })).await;
    let payload = json!({ "events": events }).to_string();
    match api.function.handle(&payload, now.saturating_add(api.request_ms)).await {
        Ok(answer) => shown::show(api, &answer, &explanations, now),
        Err(error) => tracing::warn!(%error, "sample traffic could not be sent"),
    }
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let decoded = answer.is_base64_encoded.then(|| STANDARD.decode(&answer.body).ok()).flatten();
    let body = decoded.unwrap_or_else(|| answer.body.into_bytes());
    let mut response = (status, body).into_response();
    put_all(response.headers_mut(), &answer.headers);
    response
}

fn put_all(to: &mut HeaderMap, headers: &Value) {
    to.remove(header::CONTENT_TYPE);
    for (name, value) in headers.as_object().into_iter().flatten() {
        let name = header::HeaderName::try_from(name.as_str());
        let value = value.as_str().map(header::HeaderValue::from_str);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            to.insert(name, value);
        }
    }
}

/// Returns the body of an error.
pub fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

/// Returns an answer that comes from this server and not from the function.
pub fn own(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Logs an answer that did not go through the function.
fn logged(answer: Response) -> Response {
    tracing::info!(status = answer.status().as_u16(), "answered");
    answer
}
