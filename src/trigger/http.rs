//! Requests through API Gateway (payloads 1.0 and 2.0) and function URLs.
//!
//! `POST /events` takes events, and so does the root, because a function URL has no path of its own. `GET /sessions/{id}` reads
//! a session, and `POST /sessions/{id}/end` ends it. The paths of other tracking clients are in [`clients`]. A path may begin with
//! a stage or any other prefix.

mod clients;
mod cors;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::answer::{BodyPlace, Events, ResponseStatus, error, json, report, unreadable};
use super::batch::{Counts, IncomingEvent, advice, log_failure, resolve_events};
use super::body::{BodyError, Limits, decode, form, from_base64};
use super::envelope::{Envelope, Headers, header, received_at, string, string_bytes, time};
use super::split_body::{Batch, split_body};
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::dialect::{self, Endpoint};
use crate::event::{Delivery, Origin, Viewer};
use crate::manager::SessionManager;
use crate::output::Output;
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
    /// Whether it came through a route for any path that asks for no credentials.
    is_catch_all: bool,
    /// What only requests of other clients need.
    unread: Unread<'a>,
}

/// Parts of a request that are parsed when they are needed.
#[derive(Default)]
struct Unread<'a> {
    headers: Option<&'a RawValue>,
    several_headers: Option<&'a RawValue>,
    query: Option<&'a RawValue>,
    /// The query of payload 1.0, whose values are decoded.
    parameters: Option<&'a RawValue>,
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
            #[serde(borrow)]
            authorizer: Option<&'a RawValue>,
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
            is_catch_all: context.authorizer.is_none()
                && envelope.route_key.is_some_and(|key| key.get().ends_with("{proxy+}\"")),
            ..Self::read(envelope, received_at(time(context.time_epoch), now), context.request_id)
        })
    }

    /// Reads payload 1.0, which a REST API sends, and a load balancer without times and ids.
    pub fn read_1(envelope: &Envelope<'a>, now: Millis) -> Result<Self, HandlerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context<'a> {
            #[serde(borrow)]
            request_time_epoch: Option<&'a RawValue>,
            #[serde(borrow)]
            request_id: Option<&'a RawValue>,
            #[serde(borrow)]
            elb: Option<&'a RawValue>,
        }
        let context: Context<'a> = read_context(envelope, "`requestContext`")?;
        Ok(Self {
            method: envelope.http_method.and_then(string).unwrap_or_default(),
            path: envelope.path.and_then(string).unwrap_or_default(),
            // A load balancer checks no AWS credentials.
            is_catch_all: context.elb.is_some(),
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
            is_catch_all: false,
            unread: Unread {
                headers: envelope.headers,
                several_headers: envelope.multi_value_headers,
                query: envelope.raw_query_string,
                parameters: envelope.multi_value_query_string_parameters.or(envelope.query_string_parameters),
            },
        }
    }

    /// Returns the value of a header, by its name in lower case.
    fn header(&self, name: &str) -> Option<String> {
        let maps = [self.unread.headers, self.unread.several_headers];
        maps.into_iter().flatten().find_map(|map| header(map, name))
    }

    /// Returns what the request tells about the visitor, if a browser sent it. `needs_rule`: it counts only under
    /// `viewer_headers`.
    fn viewer(&self, needs_rule: bool) -> Option<Arc<Viewer>> {
        let maps = [self.unread.headers, self.unread.several_headers].into_iter().flatten();
        let maps: Vec<BTreeMap<Cow<'a, str>, &RawValue>> =
            maps.filter_map(|map| serde_json::from_str(map.get()).ok()).collect();
        Viewer::of_browser(needs_rule, |name| {
            let header = maps.iter().flatten().find(|(own, _)| own.eq_ignore_ascii_case(name));
            header.and_then(|(_, value)| Headers::value(value))
        })
    }

    /// Returns the query, encoded.
    fn query(&self) -> Cow<'_, str> {
        if let Some(query) = self.unread.query {
            return string(query).unwrap_or_default();
        }
        let parameters =
            self.unread.parameters.and_then(|raw| serde_json::from_str::<BTreeMap<String, OneOrMany>>(raw.get()).ok());
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, values) in parameters.unwrap_or_default() {
            let values = match values {
                OneOrMany::One(value) => vec![value],
                OneOrMany::Many(values) => values,
            };
            query.extend_pairs(values.iter().map(|value| (&name, value)));
        }
        Cow::Owned(query.finish())
    }

    /// Returns the body as the client sent it. What should be base64 and is not stays as it is.
    fn base64_removed(&self) -> Cow<'_, [u8]> {
        let decoded = if self.is_base64 { from_base64(&self.body).ok() } else { None };
        decoded.map_or(Cow::Borrowed(&*self.body), Cow::Owned)
    }

    /// Returns the decoded body.
    fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        decode(&self.body, self.is_base64, self.headers.content_encoding.as_deref(), Limits::REQUEST.bytes)
    }
}

/// A parameter of payload 1.0.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn read_context<'a, T: Deserialize<'a>>(envelope: &Envelope<'a>, needed: &str) -> Result<T, HandlerError> {
    let raw = envelope.request_context.map_or("{}", |raw| raw.get());
    serde_json::from_str(raw).map_err(|_| HandlerError(format!("the API's envelope has no usable {needed}")))
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Events,
    Client(Endpoint),
    Get(&'a str),
    End(&'a str),
    /// A browser asks whether a page may send a request.
    Preflight,
    /// The path exists, but takes other methods, which are named here.
    WrongMethod(&'static str),
    Unknown,
}

impl<'a> Route<'a> {
    fn of(method: &str, path: &'a str) -> Self {
        if method == "OPTIONS" {
            return Self::Preflight;
        }
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let sessions = segments.iter().rposition(|&segment| segment == "sessions");
        let below = sessions.map(|at| &segments[at + 1..]);
        match (method, below) {
            (_, None) => Self::without_sessions(method, &segments),
            ("GET", Some([id])) => Self::Get(id),
            (_, Some([_])) => Self::WrongMethod("GET"),
            ("POST", Some([id, "end"])) => Self::End(id),
            (_, Some([_, "end"])) => Self::WrongMethod("POST"),
            _ => Self::Unknown,
        }
    }

    fn without_sessions(method: &str, segments: &[&str]) -> Self {
        let is_own = matches!(segments, [] | ["events"]);
        match Endpoint::of(segments).filter(|_| !is_own) {
            Some(endpoint) if endpoint.takes(method) => Self::Client(endpoint),
            Some(endpoint) => Self::WrongMethod(endpoint.methods()),
            None if is_own || segments.last() == Some(&"events") => match method {
                "POST" => Self::Events,
                _ => Self::WrongMethod("POST"),
            },
            None => Self::Unknown,
        }
    }
}

/// Answers a request.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    deadline: Millis,
) -> Reply {
    let manager = &ingest.manager;
    let (mut answer, counts) = match Route::of(&request.method, &request.path) {
        Route::Events => events(manager, request, deadline).await,
        Route::Client(endpoint) => clients::handle(ingest, request, endpoint, deadline).await,
        Route::Preflight => (Answer::empty(204), Counts::default()),
        Route::Get(_) | Route::End(_) if request.is_catch_all => {
            let message = "sessions are not public; call the route that asks for credentials";
            (Answer::new(403, error("not_public", message)), Counts::only("not_public"))
        }
        Route::Get(id) => session_answer(manager.get(id).await),
        Route::End(id) => session_answer(manager.end_session(id).await),
        Route::WrongMethod(allowed) => {
            let body = error("method_not_allowed", "this path takes another method; see the `allow` header");
            (Answer { allow: Some(allowed), ..Answer::new(405, body) }, Counts::only("method_not_allowed"))
        }
        Route::Unknown => {
            let message =
                "no such path; use POST /events, GET /sessions/{id}, POST /sessions/{id}/end or a client's path";
            (Answer::new(404, error("no_such_path", message)), Counts::only("no_such_path"))
        }
    };
    if let Some(origin) = &request.headers.origin {
        answer.cors = cors::headers(&ingest.origins, origin, &request.method, &request.path);
    }
    let random = manager.clock().random();
    Reply { trigger: "http", status: Some(answer.status), counts, json: answer.envelope(random) }
}

async fn events<S: SessionStorage, C: Clock>(
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
    // Servers and proxies call this path as often as pages do, so that only a rule makes the sender the visitor.
    let viewer = match manager.projects().all_rules().any(|rules| rules.viewer_headers) {
        true => request.viewer(true),
        false => None,
    };
    let viewer = viewer.as_ref();
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at, project: None, viewer };
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
    content_type: &'static str,
    /// The methods of the `allow` header.
    allow: Option<&'static str>,
    cors: Option<cors::Permission>,
    body: String,
    /// Whether the body is base64 of bytes.
    is_base64: bool,
}

impl Answer {
    fn new(status: u16, body: String) -> Self {
        Self { status, content_type: "application/json", allow: None, cors: None, body, is_base64: false }
    }

    /// An answer without a body.
    fn empty(status: u16) -> Self {
        Self::new(status, String::new())
    }

    /// Takes an answer to a client.
    fn of(answer: dialect::answer::Answer) -> Self {
        let dialect::answer::Answer { status, content_type, body, is_base64 } = answer;
        Self { content_type, is_base64, ..Self::new(status, body) }
    }

    fn envelope(&self, random: u64) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            status_code: u16,
            headers: AnswerHeaders<'a>,
            body: &'a str,
            is_base64_encoded: bool,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct AnswerHeaders<'a> {
            content_type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            allow: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<String>,
            #[serde(flatten)]
            cors: Option<&'a cors::Permission>,
        }
        let retry_after = (self.status == 503).then(|| (random % MAX_RETRY_AFTER_SECONDS + 1).to_string());
        let headers =
            AnswerHeaders { content_type: self.content_type, allow: self.allow, retry_after, cors: self.cors.as_ref() };
        json(&Envelope { status_code: self.status, headers, body: &self.body, is_base64_encoded: self.is_base64 })
    }
}

#[cfg(test)]
mod tests;
