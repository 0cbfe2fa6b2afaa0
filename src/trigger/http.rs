//! Requests through API Gateway (payloads 1.0 and 2.0) and function URLs.
//!
//! `POST /events` takes events, and so does `POST` on any other path outside `/sessions`. `GET /sessions/{id}` reads a
//! session, and `POST /sessions/{id}/end` ends it. A path may begin with a stage or any other prefix.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{BodyPlace, Events, ResponseStatus, error, json, report, unreadable};
use super::batch::{Counts, IncomingEvent, advice, log_failure, resolve_events};
use super::body::{BodyError, Limits, decode, form};
use super::envelope::{Envelope, Headers, received_at, string, string_bytes, time};
use super::split_body::{Batch, split_body};
use super::{HandlerError, Reply};
use crate::clock::Clock;
use crate::event::{Delivery, Origin};
use crate::manager::SessionManager;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};

/// The longest `retry-after`, in seconds; the shortest is 1. The value is random, so that many callers do not retry at the
/// same moment.
const MAX_RETRY_AFTER_SECONDS: u64 = 5;

/// A request, from either envelope.
pub(super) struct Request<'a> {
    method: Cow<'a, str>,
    path: Cow<'a, str>,
    headers: Headers<'a>,
    body: Cow<'a, [u8]>,
    is_base64: bool,
    received_at: Millis,
    /// The request's id; empty if the envelope has none.
    id: Cow<'a, str>,
}

impl<'a> Request<'a> {
    /// Reads payload 2.0, which an HTTP API or a function URL sends.
    pub fn read_2(envelope: &Envelope<'a>, now: Millis) -> Result<Self, HandlerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context<'a> {
            #[serde(borrow)]
            http: Http<'a>,
            #[serde(borrow)]
            time_epoch: Option<&'a RawValue>,
            #[serde(borrow)]
            request_id: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Http<'a> {
            #[serde(borrow)]
            method: Cow<'a, str>,
        }
        let context: Context<'a> = read_context(envelope, "`requestContext.http.method`")?;
        Ok(Self {
            method: context.http.method,
            path: envelope.raw_path.and_then(string).unwrap_or_default(),
            ..Self::read(envelope, received_at(time(context.time_epoch), now), context.request_id)
        })
    }

    /// Reads payload 1.0, which a REST API sends.
    pub fn read_1(envelope: &Envelope<'a>, now: Millis) -> Result<Self, HandlerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context<'a> {
            #[serde(borrow)]
            request_time_epoch: Option<&'a RawValue>,
            #[serde(borrow)]
            request_id: Option<&'a RawValue>,
        }
        let context: Context<'a> = read_context(envelope, "`requestContext`")?;
        Ok(Self {
            method: envelope.http_method.and_then(string).unwrap_or_default(),
            path: envelope.path.and_then(string).unwrap_or_default(),
            ..Self::read(envelope, received_at(time(context.request_time_epoch), now), context.request_id)
        })
    }

    /// Reads what both payloads have in common.
    fn read(envelope: &Envelope<'a>, received_at: Millis, id: Option<&'a RawValue>) -> Self {
        let several = Headers::read(envelope.multi_value_headers, Headers::value);
        let headers = Headers::read(envelope.headers, Headers::value).or(several);
        Self {
            method: Cow::Borrowed(""),
            path: Cow::Borrowed(""),
            headers,
            body: envelope.body.and_then(string_bytes).unwrap_or_default(),
            is_base64: envelope.is_base64_encoded.is_some_and(|flag| flag.get() == "true"),
            received_at,
            id: id.and_then(string).unwrap_or_default(),
        }
    }

    /// Returns the decoded body.
    fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        decode(&self.body, self.is_base64, self.headers.content_encoding.as_deref(), Limits::REQUEST.bytes)
    }
}

fn read_context<'a, T: Deserialize<'a>>(envelope: &Envelope<'a>, needed: &str) -> Result<T, HandlerError> {
    let raw = envelope.request_context.map_or("{}", |raw| raw.get());
    serde_json::from_str(raw).map_err(|_| HandlerError(format!("the API's envelope has no usable {needed}")))
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Events,
    Get(&'a str),
    End(&'a str),
    /// The path exists, but takes another method, which is named here.
    WrongMethod(&'static str),
    Unknown,
}

impl<'a> Route<'a> {
    fn of(method: &str, path: &'a str) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let sessions = segments.iter().rposition(|&segment| segment == "sessions");
        let below = sessions.map(|at| &segments[at + 1..]);
        match (method, below) {
            ("POST", None) => Self::Events,
            (_, None) if segments.last().is_none_or(|&last| last == "events") => Self::WrongMethod("POST"),
            ("GET", Some([id])) => Self::Get(id),
            (_, Some([_])) => Self::WrongMethod("GET"),
            ("POST", Some([id, "end"])) => Self::End(id),
            (_, Some([_, "end"])) => Self::WrongMethod("POST"),
            _ => Self::Unknown,
        }
    }
}

/// Answers a request.
pub(super) async fn handle<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    request: &Request<'_>,
    deadline: Millis,
) -> Reply {
    let (answer, counts) = match Route::of(&request.method, &request.path) {
        Route::Events => ingest(manager, request, deadline).await,
        Route::Get(id) => session_answer(manager.get(id).await),
        Route::End(id) => session_answer(manager.end_session(id).await),
        Route::WrongMethod(allowed) => {
            let body = error("method_not_allowed", "this path takes another method; see the `allow` header");
            (Answer { allow: Some(allowed), ..Answer::new(405, body) }, Counts::only("method_not_allowed"))
        }
        Route::Unknown => {
            let message = "no such path; use POST /events, GET /sessions/{id} or POST /sessions/{id}/end";
            (Answer::new(404, error("no_such_path", message)), Counts::only("no_such_path"))
        }
    };
    let random = manager.clock().random();
    Reply { trigger: "http", status: Some(answer.status), counts, json: answer.envelope(random) }
}

async fn ingest<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    request: &Request<'_>,
    deadline: Millis,
) -> (Answer, Counts) {
    let form = form(request.headers.content_type.as_deref());
    let body = form.and_then(|form| Ok((form, request.decoded()?)));
    let batch = match &body {
        Ok((form, body)) => split_body(body, *form, Limits::REQUEST.events, manager.projects()),
        Err(error) => Err(*error),
    };
    let Batch { raw_events, sent_at } = match batch {
        Ok(batch) => batch,
        Err(error) => return (Answer::new(error.status(), unreadable(error)), Counts::only(error.code())),
    };
    // Anyone who can reach the API can write `received_at` into an event, so it is not trusted.
    let delivery = Delivery { received_at: request.received_at, trusts_received_at: false };
    let mut events = Events::with_room_for(request.body.len(), raw_events.len());
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at, project: None, viewer: None };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let outcomes =
        resolve_events(manager, incoming, deadline, |event, assignment| events.push(event, assignment)).await;
    let (status, body) = report(&outcomes, events, BodyPlace::InEnvelope);
    (Answer::new(http_status(status), body), Counts::of(&outcomes))
}

fn http_status(status: ResponseStatus) -> u16 {
    match status {
        ResponseStatus::Done => 200,
        ResponseStatus::NothingUsable => 400,
        ResponseStatus::NoRoom => 413,
        ResponseStatus::Corrupt => 500,
        ResponseStatus::TryAgain => 503,
    }
}

fn session_answer(session: Result<Session, SessionError>) -> (Answer, Counts) {
    match session {
        Ok(session) => (Answer::new(200, json(&session)), Counts::default()),
        Err(why) => {
            log_failure(&why);
            let status = match why {
                SessionError::NotFound => 404,
                SessionError::Ambiguous => 409,
                SessionError::Corrupt { .. } => 500,
                _ => 503,
            };
            (Answer::new(status, error(why.code(), advice(&why))), Counts::only(why.code()))
        }
    }
}

/// An answer without its envelope, which is the same for both payloads.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// The method of the `allow` header.
    allow: Option<&'static str>,
    body: String,
}

impl Answer {
    fn new(status: u16, body: String) -> Self {
        Self { status, allow: None, body }
    }

    fn envelope(&self, random: u64) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            status_code: u16,
            headers: AnswerHeaders,
            body: &'a str,
            is_base64_encoded: bool,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct AnswerHeaders {
            content_type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            allow: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<String>,
        }
        let retry_after = (self.status == 503).then(|| (random % MAX_RETRY_AFTER_SECONDS + 1).to_string());
        let headers = AnswerHeaders { content_type: "application/json", allow: self.allow, retry_after };
        json(&Envelope { status_code: self.status, headers, body: &self.body, is_base64_encoded: false })
    }
}

#[cfg(test)]
mod tests;
