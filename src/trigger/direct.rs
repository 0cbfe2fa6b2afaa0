//! Direct invocations: `{"events":[…]}`, an array of events or one event, and the commands `{"get_session":"id"}`,
//! `{"end_session":"id"}`, `{"erase_visitor":"distinct_id","project":"name"}` and `{"explain":…}`, which takes events. The answer is the body of the HTTP answer, without an envelope.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{BodyPlace, Events, error, json, report, unreadable};
use super::batch::{Counts, IncomingEvent, advice, explain_events, log_failure, resolve_events};
use super::body::{BodyError, Form, Limits};
use super::envelope::string;
use super::split_body::{Batch, split_body};
use super::visitor::{Erasure, named};
use super::{Ingest, Reply, explain};
use crate::clock::Clock;
use crate::event::{Delivery, Origin};
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};

/// Handles events: the payload is the body. `id` is the invocation's request id, which stays the same when Lambda retries it.
pub(super) async fn ingest<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    payload: &str,
    id: &str,
    now: Millis,
    deadline: Millis,
) -> Reply {
    let Batch { raw_events, sent_at } = match split_payload(payload) {
        Ok(batch) => batch,
        Err(error) => return reply(unreadable(error), Counts::only(error.code())),
    };
    // Only a part of the pipeline has permission to invoke the function, so its `received_at` is trusted.
    let delivery = Delivery { received_at: now, trusts_received_at: true };
    let mut events = Events::with_room_for(payload.len(), raw_events.len());
    let origin = |index| Origin { delivery, id, index, sent_at, project: None, viewer: None };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let (outcomes, placed) =
        resolve_events(manager, incoming, deadline, |event, assignment| events.push(event, assignment)).await;
    let (_, body) = report(&outcomes, events, BodyPlace::Whole);
    reply(body, Counts::of(&outcomes, placed))
}

fn split_payload(payload: &str) -> Result<Batch<'_>, BodyError> {
    if payload.len() > Limits::DIRECT.bytes {
        return Err(BodyError::TooLarge(Limits::DIRECT.bytes));
    }
    split_body(payload.as_bytes(), Form::Any, Limits::DIRECT.events)
}

/// Answers what would become of events: `body` is as for [`ingest`].
pub(super) async fn explain<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    body: &RawValue,
    id: &str,
    now: Millis,
    deadline: Millis,
) -> Reply {
    let Batch { raw_events, sent_at } = match split_payload(body.get()) {
        Ok(batch) => batch,
        Err(why) => return reply(error(why.code(), &why.to_string()), Counts::only(why.code())),
    };
    let delivery = Delivery { received_at: now, trusts_received_at: true };
    let origin = |index| Origin { delivery, id, index, sent_at, project: None, viewer: None };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let outcomes = explain_events(manager, incoming, deadline).await;
    match explain::body(&outcomes, str::len) {
        Some(body) => reply(body, Counts::default()),
        None => reply(error("answer_too_large", explain::TOO_LARGE_MESSAGE), Counts::only("answer_too_large")),
    }
}

/// Answers with a session.
pub(super) async fn get<S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>, id: &RawValue) -> Reply {
    match string(id) {
        Some(id) => session_reply(manager.get(&id).await),
        None => invalid_id("`get_session` is not a string; set it to a session's id"),
    }
}

/// Ends a session and answers with it.
pub(super) async fn end<S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>, id: &RawValue) -> Reply {
    match string(id) {
        Some(id) => session_reply(manager.end_session(&id).await),
        None => invalid_id("`end_session` is not a string; set it to a session's id"),
    }
}

/// Erases a visitor and answers with what was deleted. Without `project`, it is a visitor of the unnamed project.
pub(super) async fn erase<S: SessionStorage, C: Clock, O: Output>(ingest: &Ingest<S, C, O>, payload: &str) -> Reply {
    #[derive(Deserialize)]
    struct Command<'a> {
        #[serde(borrow)]
        erase_visitor: &'a RawValue,
        #[serde(borrow)]
        project: Option<&'a RawValue>,
    }
    // What has these members was recognized by them.
    let visitor = match serde_json::from_str::<Command<'_>>(payload) {
        Ok(Command { erase_visitor, project: None }) => named(string(erase_visitor).as_deref(), ""),
        Ok(Command { erase_visitor, project: Some(project) }) => match string(project) {
            Some(project) => named(string(erase_visitor).as_deref(), &project),
            None => Err(("invalid_project", "`project` is not a string; send a project's name, or leave it out")),
        },
        Err(_) => named(None, ""),
    };
    let visitor = match visitor {
        Ok(visitor) => visitor,
        Err((code, message)) => return reply(error(code, message), Counts::only(code)),
    };
    match ingest.manager.erase(&visitor, &ingest.output).await {
        Ok((erased, at)) => reply(json(&Erasure::new(&visitor, erased, at)), Counts::default()),
        Err(why) => failure_reply(&why),
    }
}

fn session_reply(session: Result<Session, SessionError>) -> Reply {
    match session {
        Ok(session) => reply(json(&session), Counts::default()),
        Err(why) => failure_reply(&why),
    }
}

fn failure_reply(why: &SessionError) -> Reply {
    log_failure(why);
    reply(error(why.code(), advice(why)), Counts::only(why.code()))
}

fn invalid_id(message: &str) -> Reply {
    reply(error("invalid_session_id", message), Counts::only("invalid_session_id"))
}

fn reply(json: String, counts: Counts) -> Reply {
    Reply { trigger: "direct", status: None, counts, json }
}
