//! Requests through API Gateway (payloads 1.0 and 2.0) and function URLs.
//!
//! `POST /events` takes events, and so does the root, because a function URL has no path of its own. `GET /sessions/{id}` reads
//! a session, and `POST /sessions/{id}/end` ends it. The paths of other tracking clients are in [`clients`]. A path may begin with
//! a stage or any other prefix.

mod clients;
mod cors;
mod reply;
mod request;
mod write_key;

use super::answer::{BodyPlace, Events, ResponseStatus, error, json, nothing, report, unreadable};
use super::batch::{Counts, IncomingEvent, advice, log_failure, resolve_bounded};
use super::body::{Limits, form};
use super::split_body::{Batch, split_body};
use super::{Ingest, Reply};
use crate::clock::Clock;
use crate::config::PublicAccess;
use crate::dialect::Endpoint;
use crate::event::{Delivery, Event, Origin};
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};
use crate::timeline::Assignment;
use reply::Answer;
pub(super) use request::Request;
use write_key::{UNKNOWN_KEY, USE_A_KEY};

/// The code of an answer to a request whose events have more visitors than a request without credentials may bring.
const TOO_MANY_VISITORS: &str = "too_many_visitors";
/// What the sender of such a request has to do.
const SEND_FEWER_VISITORS: &str = "the events have more visitors than a request without credentials may have; send several \
                                   requests, sign the request, or use the queue";

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
        // Our own path is told first, because it is the common one.
        let is_own = matches!(segments, [] | ["events"]);
        match if is_own { None } else { Endpoint::of(segments) } {
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
        Route::Events => {
            let access = if request.is_authenticated { PublicAccess::TRUSTED } else { ingest.public };
            events(manager, request, access, deadline).await
        }
        // Boxed, so that the futures of all other requests stay small.
        Route::Client(endpoint) => Box::pin(clients::handle(ingest, request, endpoint, deadline)).await,
        Route::Preflight => (Answer::empty(204), Counts::default()),
        Route::Get(_) | Route::End(_) if request.is_catch_all && !request.is_authenticated => {
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
    access: PublicAccess,
    deadline: Millis,
) -> (Answer, Counts) {
    let form = form(request.headers.content_type.as_deref());
    let body = form.and_then(|form| Ok((form, request.decoded()?)));
    let readable = body.as_ref().ok().map(|(_, body)| &**body);
    let Ok(project) = write_key::project(manager.projects(), || write_key::of_request(request, readable)) else {
        return (Answer::new(401, nothing(UNKNOWN_KEY, USE_A_KEY)), Counts::only(UNKNOWN_KEY));
    };
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
    let mut events = Events::with_room_for(request.body.len(), raw_events.len()).with_detail(access.answer);
    // Servers and proxies call this path as often as pages do, so that only a rule makes the sender the visitor.
    let viewer = match manager.projects().all_rules().any(|rules| rules.viewer_headers) {
        true => request.viewer(true),
        false => None,
    };
    let viewer = viewer.as_ref();
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at, project, viewer };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let annotate = |event: &Event<'_>, assignment: Option<&Assignment>| events.push(event, assignment);
    let Some((outcomes, placed)) = resolve_bounded(manager, incoming, access.max_visitors, deadline, annotate).await
    else {
        return (Answer::new(413, nothing(TOO_MANY_VISITORS, SEND_FEWER_VISITORS)), Counts::only(TOO_MANY_VISITORS));
    };
    let (status, body) = report(&outcomes, events, BodyPlace::InEnvelope);
    (Answer::new(http_status(status), body), Counts::of(&outcomes, placed))
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

#[cfg(test)]
mod tests;
