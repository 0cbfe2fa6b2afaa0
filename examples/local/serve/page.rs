//! The page's own paths: the document, the feed of what happens, and time travel.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};

use super::http::{Api, error, own};
use crate::page;

/// How often a page is told the time, in seconds. It also shows that the connection lives.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// Returns the routes of the page. Those of time travel exist only with `--fast-forward`.
pub fn routes(has_time_travel: bool) -> axum::Router<Arc<Api>> {
    let mut routes = axum::Router::new().route("/_page/feed", get(feed));
    if has_time_travel {
        routes = routes.route("/_page/clock", post(clock)).route("/_page/traffic", post(traffic));
    }
    routes.layer(axum::middleware::from_fn(only_this_page))
}

/// Returns whether a request for the root asks for the page and not for the list of paths.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|types| types.contains("text/html")))
}

/// Answers with the page.
pub fn document(api: &Api) -> Response {
    let data = json!({ "live": true, "time_travel": api.has_time_travel, "replay": api.has_replay });
    let page::Document { html, policy } = page::document("Sessions", &data.to_string());
    let policy = format!("{policy}; frame-ancestors 'none'");
    let mut response = html.into_response();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        // The policy is ASCII, so this never fails.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Refuses what another site's page sends, and what comes by another name than this machine's (DNS rebinding).
async fn only_this_page(request: Request, next: Next) -> Response {
    if is_from_this_page(request.headers()) {
        return next.run(request).await;
    }
    let message = "this path is for the page of this machine only; open it as http://127.0.0.1 or http://localhost";
    own(StatusCode::FORBIDDEN, &error("only_this_page", message))
}

fn is_from_this_page(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    header("host").is_some_and(is_loopback) && matches!(header("sec-fetch-site"), None | Some("same-origin"))
}

/// Returns whether a `host` header names this machine's loopback interface.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

/// What a stream of the feed reads from, and how far it is.
struct Reader {
    api: Arc<Api>,
    changes: tokio::sync::watch::Receiver<u64>,
    next: u64,
}

impl Reader {
    /// Returns the next message. Returns `None` when the process ends.
    async fn message(mut self) -> Option<(Result<String, Infallible>, Self)> {
        loop {
            self.changes.mark_unchanged();
            if let Some(chunk) = self.api.feed.read(self.next) {
                self.next = chunk.next;
                let message = format!("id: {}-{}\ndata: {}\n\n", self.api.process, chunk.next, chunk.json);
                return Some((Ok(message), self));
            }
            tokio::select! {
                // The feed lives as long as the process.
                _ = self.changes.changed() => {}
                () = self.api.stop.wait() => return None,
                () = SystemClock.sleep(TICK) => return Some((Ok(self.tick()), self)),
            }
        }
    }

    fn tick(&self) -> String {
        format!("event: clock\ndata: {}\n\n", time(&self.api))
    }
}

fn time(api: &Api) -> Value {
    json!({ "now": api.clock.now(), "speed": api.clock.speed() })
}

/// Streams the feed as server-sent events. A page that reconnects names the last message that it got.
async fn feed(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.split_once('-'));
    // Numbers of an earlier process mean nothing: then the page is told to begin anew.
    let next = last.filter(|(process, _)| *process == api.process).and_then(|(_, next)| next.parse().ok());
    let start = match (last, next) {
        (Some(_), None) => "event: reset\ndata: {}\n\n",
        _ => "",
    };
    let first = format!("{start}event: clock\ndata: {}\n\n", time(&api));
    let reader = Reader { changes: api.feed.changes(), next: next.unwrap_or(0), api };
    let rest = stream::unfold(reader, Reader::message);
    let body = Body::from_stream(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest));
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// How fast time is to run.
#[derive(Deserialize)]
struct Speed {
    speed: u32,
}

/// Sets how fast time runs; answers with the time.
async fn clock(State(api): State<Arc<Api>>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(Speed { speed: speed @ 1..=super::clock::MAX_SPEED }) => {
            api.clock.set_speed(speed);
            own(StatusCode::OK, &time(&api))
        }
        _ => {
            let message = format!("send {{\"speed\":N}}, a whole number from 1 to {}", super::clock::MAX_SPEED);
            own(StatusCode::BAD_REQUEST, &error("invalid_speed", &message))
        }
    }
}

/// Begins to send sample traffic, unless it is already being sent.
async fn traffic(State(api): State<Arc<Api>>) -> Response {
    match super::traffic::start(&api) {
        Ok(events) => own(StatusCode::OK, &json!({ "events": events })),
        Err(why) => own(StatusCode::CONFLICT, &error("no_traffic", &why)),
    }
}
