//! What is stored about a visitor: `GET /v1/visitors/{distinct_id}/sessions`, `…/session` and `…/export`, and
//! `DELETE /v1/visitors/{distinct_id}`. `?project=` names the visitor's project. These routes ask for credentials, because a
//! `distinct_id` can be guessed.

use percent_encoding::percent_decode_str;
use serde::Serialize;
use url::form_urlencoded;
use uuid::Uuid;

use super::reply::Answer;
use super::{Request, failure_answer, refused, session_answer};
use crate::clock::Clock;
use crate::manager::{ListPosition, SessionManager};
use crate::output::Output;
use crate::session::{Session, Visitor};
use crate::storage::{SessionError, SessionStorage};
use crate::trigger::Ingest;
use crate::trigger::answer::{MAX_ANSWER_BYTES, json, quoted_len};
use crate::trigger::batch::Counts;
use crate::trigger::visitor::{Erasure, named};

/// The number of sessions in a list, without `limit`.
const DEFAULT_LIMIT: usize = 20;
/// The maximum of `limit`. A session has at most some 10 KB, so that the answer stays far below Lambda's limit.
const MAX_LIMIT: usize = 100;

/// What a request asks of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VisitorRoute {
    Sessions,
    Session,
    Export,
    Erase,
}

impl VisitorRoute {
    /// Returns what the path behind `visitors/{distinct_id}` stands for, and its method. `None` if there is no such path.
    pub fn of(below: &[&str]) -> Option<(Self, &'static str)> {
        match below {
            [] => Some((Self::Erase, "DELETE")),
            ["sessions"] => Some((Self::Sessions, "GET")),
            ["session"] => Some((Self::Session, "GET")),
            ["export"] => Some((Self::Export, "GET")),
            _ => None,
        }
    }
}

/// Answers a request about a visitor. `id` is the `distinct_id` as the path has it.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    route: VisitorRoute,
    id: &str,
) -> (Answer, Counts) {
    let query = request.query();
    let manager = &ingest.manager;
    let visitor = match visitor(id, &query) {
        Ok(visitor) => visitor,
        Err((code, message)) => return refused(400, code, message),
    };
    match route {
        VisitorRoute::Session => match manager.get_by_user(&visitor).await {
            Err(SessionError::NotFound) => {
                refused(404, "not_found", "this visitor has no session; check the `distinct_id` and the `project`")
            }
            session => session_answer(session),
        },
        VisitorRoute::Sessions => sessions(manager, &visitor, &query).await,
        VisitorRoute::Export => match manager.export(&visitor).await {
            Ok(export) => whole(json(&export)),
            Err(error) => failure_answer(&error),
        },
        VisitorRoute::Erase => match manager.erase(&visitor, &ingest.output).await {
            Ok((erased, at)) => (Answer::new(200, json(&Erasure::new(&visitor, erased, at))), Counts::default()),
            Err(error) => failure_answer(&error),
        },
    }
}

async fn sessions<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    visitor: &Visitor,
    query: &str,
) -> (Answer, Counts) {
    #[derive(Serialize)]
    struct List {
        sessions: Vec<Session>,
        after: Option<String>,
    }
    let limit = match parameter(query, "limit").map(|limit| limit.parse()) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
        Some(_) => {
            return refused(400, "invalid_limit", "`limit` is not a number from 1 to 100; correct it, or leave it out");
        }
    };
    let after = match parameter(query, "after").map(|after| read_position(&after)) {
        None => None,
        Some(Some(after)) => Some(after),
        Some(None) => {
            return refused(400, "invalid_after", "`after` is not one of an answer; send the last answer's `after`");
        }
    };
    match manager.sessions_of(visitor, after, limit).await {
        Ok(page) => whole(json(&List { sessions: page.sessions, after: page.last.map(write_position) })),
        Err(error) => failure_answer(&error),
    }
}

/// Returns the answer with this body, if Lambda lets it pass.
pub(super) fn whole(body: String) -> (Answer, Counts) {
    if quoted_len(&body) > MAX_ANSWER_BYTES {
        let message = "the answer is larger than 6 MB; read the visitor's sessions in pages instead";
        return refused(413, "answer_too_large", message);
    }
    (Answer::new(200, body), Counts::default())
}

/// Returns the visitor that a path and a query name, or the code and the message of the error.
fn visitor(id: &str, query: &str) -> Result<Visitor, (&'static str, &'static str)> {
    let distinct_id = percent_decode_str(id).decode_utf8().ok();
    let project = parameter(query, "project").unwrap_or_default();
    named(distinct_id.as_deref(), &project)
}

/// Returns the value of a query's parameter; `None` if it is missing or empty.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let found = form_urlencoded::parse(query.as_bytes()).find(|(key, value)| key == name && !value.is_empty());
    found.map(|(_, value)| value.into_owned())
}

/// Writes a place in a list. It is opaque to callers.
fn write_position((at, id): ListPosition) -> String {
    format!("{at:012x}{}", id.simple())
}

/// Reads what [`write_position`] wrote.
fn read_position(after: &str) -> Option<ListPosition> {
    let (at, id) = after.split_at_checked(12)?;
    Some((i64::from_str_radix(at, 16).ok()?, Uuid::try_parse(id).ok()?))
}
