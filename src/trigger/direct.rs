//! Direct invocations: `{"events":[…]}`, an array or one event, answered as over HTTP but without its envelope; and the
//! commands `{"get_session":"id"}` and `{"end_session":"id"}`.

use serde_json::value::RawValue;

use super::Reply;
use super::answer::{error, json, report, unreadable};
use super::batch::{Counts, Item, advice, log_failures, settle};
use super::body::{BodyError, Form, Limits};
use super::envelope::text;
use super::split::split;
use crate::clock::Clock;
use crate::event::Delivery;
use crate::manager::SessionManager;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};

/// Takes events whose body is the payload itself.
pub(super) async fn ingest<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    payload: &str,
    now: Millis,
    deadline: Millis,
) -> Reply {
    let slices = match split_payload(payload) {
        Ok(slices) => slices,
        Err(error) => {
            let mut counts = Counts::default();
            counts.code(error.code());
            return reply(unreadable(error), counts);
        }
    };
    // Whoever may invoke the function is part of the pipeline.
    let delivery = Delivery { received_at: now, trusts_received_at: true };
    let items: Vec<Item<'_>> = slices.into_iter().map(|bytes| Item { bytes, delivery }).collect();
    let fates = settle(manager, &items, deadline).await;
    log_failures(&fates);
    let (_, body) = report(&fates, false);
    reply(body, Counts::of(&fates))
}

fn split_payload(payload: &str) -> Result<Vec<&[u8]>, BodyError> {
    if payload.len() > Limits::DIRECT.bytes {
        return Err(BodyError::TooLarge(Limits::DIRECT.bytes));
    }
    split(payload.as_bytes(), Form::Any, Limits::DIRECT.events)
}

/// Answers with a session.
pub(super) async fn get<S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>, id: &RawValue) -> Reply {
    match text(id) {
        Some(id) => session(manager.get(&id).await),
        None => not_an_id("`get_session` is not a string; set it to a session's id"),
    }
}

/// Ends a session and answers with it.
pub(super) async fn end<S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>, id: &RawValue) -> Reply {
    match text(id) {
        Some(id) => session(manager.end_session(&id).await),
        None => not_an_id("`end_session` is not a string; set it to a session's id"),
    }
}

fn session(session: Result<Session, SessionError>) -> Reply {
    match session {
        Ok(session) => reply(json(&session), Counts::default()),
        Err(why) => {
            if !matches!(why, SessionError::NotFound) {
                tracing::warn!(code = why.code(), error = %why, "a session cannot be had");
            }
            let mut counts = Counts::default();
            counts.code(why.code());
            reply(error(why.code(), advice(&why)), counts)
        }
    }
}

fn not_an_id(message: &str) -> Reply {
    let mut counts = Counts::default();
    counts.code("invalid_session_id");
    reply(error("invalid_session_id", message), counts)
}

fn reply(text: String, counts: Counts) -> Reply {
    Reply { door: "direct", status: None, counts, text }
}
