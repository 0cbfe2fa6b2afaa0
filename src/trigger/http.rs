//! Requests through API Gateway (payloads 1.0 and 2.0) and function URLs.
//!
//! `POST /events` takes events, and so does the root, because a function URL has no path of its own. `GET /sessions/{id}` reads
//! a session, and `POST /sessions/{id}/end` ends it. `POST /explain` is in [`explain`]. The paths below `/visitors` are in [`visitors`], those of other tracking
//! clients in [`clients`]. `GET /health` answers without a call of the store. A path may begin with `/v1`, with a stage or any
//! other prefix.

mod clients;
mod cors;
mod explain;
#[cfg(feature = "replay")]
mod replay;
mod reply;
mod request;
mod visitors;
mod write_key;

use std::sync::Arc;

use super::answer::{BodyPlace, Events, ResponseStatus, json, nothing, report, unreadable};
use super::batch::{Counts, IncomingEvent, advice, log_failure, resolve_bounded};
use super::body::{Limits, form};
use super::bounds::{Bounds, Excess};
use super::split_body::{Batch, split_body};
use super::{Ingest, Reply};
use crate::clock::Clock;
use crate::config::PublicAccess;
use crate::dialect::Endpoint;
use crate::event::{Delivery, Event, Origin, Viewer};
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};
use crate::timeline::Assignment;
use reply::Answer;
pub(super) use request::Request;
use visitors::VisitorRoute;
use write_key::{UNKNOWN_KEY, USE_A_KEY};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Events,
    Client(Endpoint),
    Get(&'a str),
    End(&'a str),
    /// The replay of the session with this id.
    #[cfg(feature = "replay")]
    Replay(&'a str),
    /// A request about the visitor with this `distinct_id`, as the path has it.
    Visitor(VisitorRoute, &'a str),
    Explain,
    Health,
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
        // Our own path is told first, because it is the common one.
        let is_own = matches!(segments[..], [] | ["events"]);
        if !is_own && let Some(route) = Self::of_visitor(method, &segments) {
            return route;
        }
        let sessions = segments.iter().rposition(|&segment| segment == "sessions");
        let below = sessions.map(|at| &segments[at + 1..]);
        match (method, below) {
            (_, None) => Self::without_sessions(method, &segments, is_own),
            ("GET", Some([id])) => Self::Get(id),
            (_, Some([_])) => Self::WrongMethod("GET"),
            ("POST", Some([id, "end"])) => Self::End(id),
            (_, Some([_, "end"])) => Self::WrongMethod("POST"),
            #[cfg(feature = "replay")]
            ("GET", Some([id, "replay"])) => Self::Replay(id),
            #[cfg(feature = "replay")]
            (_, Some([_, "replay"])) => Self::WrongMethod("GET"),
            _ => Self::Unknown,
        }
    }

    /// Returns the route of a path below `visitors`. The first segment of this name counts, because the id behind it can be any
    /// word, `sessions` or `visitors` included.
    fn of_visitor(method: &str, segments: &[&'a str]) -> Option<Self> {
        let at = segments.iter().position(|&segment| segment == "visitors")?;
        let Some((id, below)) = segments[at + 1..].split_first() else { return Some(Self::Unknown) };
        Some(match VisitorRoute::of(below) {
            Some((route, wanted)) if method == wanted => Self::Visitor(route, id),
            Some((_, wanted)) => Self::WrongMethod(wanted),
            None => Self::Unknown,
        })
    }

    fn without_sessions(method: &str, segments: &[&str], is_own: bool) -> Self {
        match if is_own { None } else { Endpoint::of(segments) } {
            Some(endpoint) if endpoint.takes(method) => Self::Client(endpoint),
            Some(endpoint) => Self::WrongMethod(endpoint.methods()),
            None if is_own || segments.last() == Some(&"events") => match method {
                "POST" => Self::Events,
                _ => Self::WrongMethod("POST"),
            },
            None if segments.last() == Some(&"explain") => match method {
                "POST" => Self::Explain,
                _ => Self::WrongMethod("POST"),
            },
            None if segments.last() == Some(&"health") => match method {
                "GET" | "HEAD" => Self::Health,
                _ => Self::WrongMethod("GET"),
            },
            None => Self::Unknown,
        }
    }

    /// Returns whether the route shows or changes what is stored, so that it asks for credentials.
    fn is_private(&self) -> bool {
        #[cfg(feature = "replay")]
        if let Self::Replay(_) = self {
            return true;
        }
        matches!(self, Self::Get(_) | Self::End(_) | Self::Visitor(..) | Self::Explain)
    }
}

impl<S, C, O> Ingest<S, C, O> {
    /// Returns what the caller of a request may do and see.
    fn access_of(&self, request: &Request<'_>) -> PublicAccess {
        if request.is_authenticated { PublicAccess::TRUSTED } else { self.public }
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
        Route::Events => events(manager, request, ingest.access_of(request), deadline).await,
        // Boxed, so that the futures of all other requests stay small.
        Route::Client(endpoint) => Box::pin(clients::handle(ingest, request, endpoint, deadline)).await,
        Route::Preflight => (Answer::empty(204), Counts::default()),
        // A token for sending events must not read sessions by a route that takes any path. Signed requests have policies for that.
        route if route.is_private() && request.is_catch_all && !request.is_signed => {
            refused(403, "not_public", "sessions and visitors are not public; call the route that asks for credentials")
        }
        Route::Get(id) => session_answer(manager.get(id).await),
        Route::End(id) => session_answer(manager.end_session(id).await),
        // Boxed likewise.
        #[cfg(feature = "replay")]
        Route::Replay(id) => Box::pin(replay::handle(manager, request, id)).await,
        Route::Visitor(route, id) => Box::pin(visitors::handle(ingest, request, route, id)).await,
        Route::Explain => Box::pin(explain::handle(manager, request, deadline)).await,
        Route::Health => (Answer::new(200, health(request).to_owned()), Counts::default()),
        Route::WrongMethod(allowed) => {
            let message = "this path takes another method; see the `allow` header";
            let (answer, counts) = refused(405, "method_not_allowed", message);
            (Answer { allow: Some(allowed), ..answer }, counts)
        }
        Route::Unknown => {
            let message = "no such path; use POST /events, POST /explain, GET /sessions/{id}, POST /sessions/{id}/end, a path \
                           below /visitors/{distinct_id} or a client's path";
            refused(404, "no_such_path", message)
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
        Ok((form, body)) => split_body(body, *form, Limits::REQUEST.events),
        Err(error) => Err(*error),
    };
    let Batch { raw_events, sent_at } = match batch {
        Ok(batch) => batch,
        Err(error) => return (Answer::new(error.status(), unreadable(error)), Counts::only(error.code())),
    };
    // Anyone who can reach the API can write `received_at` into an event, so it is not trusted.
    let delivery = Delivery { received_at: request.received_at, trusts_received_at: false };
    let mut events = Events::with_room_for(request.body.len(), raw_events.len()).with_detail(access.answer);
    let viewer = viewer_of(manager, request);
    let viewer = viewer.as_ref();
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at, project, viewer };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let annotate = |event: &Event<'_>, assignment: Option<&Assignment>| events.push(event, assignment);
    let bounds = Bounds { access, excess: Excess::Refused };
    let (outcomes, placed) = match resolve_bounded(manager, incoming, bounds, deadline, annotate).await {
        Ok(resolved) => resolved,
        Err(why) => return (Answer::new(413, nothing(why.code(), why.message())), Counts::only(why.code())),
    };
    let (status, body) = report(&outcomes, events, BodyPlace::InEnvelope);
    (Answer::new(http_status(status), body), Counts::of(&outcomes, placed))
}

/// Returns what the request tells about the visitor. Servers and proxies call these paths as often as pages do, so that only a rule
/// makes the sender the visitor.
fn viewer_of<S, C>(manager: &SessionManager<S, C>, request: &Request<'_>) -> Option<Arc<Viewer>>
where
    S: SessionStorage,
    C: Clock,
{
    match manager.projects().all_rules().any(|rules| rules.viewer_headers) {
        true => request.viewer(true),
        false => None,
    }
}

/// Returns the answer to a health check: the function runs. Which version runs is told only to callers with credentials.
fn health(request: &Request<'_>) -> &'static str {
    match request.is_catch_all && !request.is_authenticated {
        true => r#"{"status":"ok"}"#,
        false => concat!(r#"{"status":"ok","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#),
    }
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
        Err(why) => failure_answer(&why),
    }
}

/// Returns the answer to a request that failed.
fn failure_answer(why: &SessionError) -> (Answer, Counts) {
    log_failure(why);
    refused(failure_status(why), why.code(), advice(why))
}

fn failure_status(why: &SessionError) -> u16 {
    match why {
        SessionError::NotFound => 404,
        SessionError::Ambiguous => 409,
        SessionError::Corrupt { .. } => 500,
        _ => 503,
    }
}

/// Returns an answer that consists of an error.
fn refused(status: u16, code: &'static str, message: &str) -> (Answer, Counts) {
    (Answer::problem(status, code, message), Counts::only(code))
}

#[cfg(test)]
mod tests;
