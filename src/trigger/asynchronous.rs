//! Messages of an SNS topic and events of an EventBridge bus that invoke the function directly. Their bodies are read like those of
//! a queue's messages ([`super::message`]).
//!
//! Lambda invokes the function asynchronously: nobody reads the answer, and a part of an invocation cannot be reported as failed.
//! So the invocation fails if any event may not be applied. Then Lambda invokes it again, and hands the payload to the function's
//! failure destination at last. An event that can never be applied goes to the rejects and fails nothing.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::Headers;
use super::message::Message;
use super::process::process;
use super::{HandlerError, Ingest, Reply};
use crate::clock::Clock;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;

/// The value of `EventSource` in a topic's record.
pub(super) const SNS_SOURCE: &str = "aws:sns";

/// Reads the notifications in an array of a topic's records.
pub(super) fn notifications(array: &str, now: Millis) -> Vec<Message<'_>> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow, rename = "Sns")]
        notification: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Notification {
        #[serde(rename = "MessageId")]
        id: String,
    }
    let records: Vec<&RawValue> = serde_json::from_str(array).unwrap_or_default();
    let message = |record: &'_ RawValue| {
        let notification = serde_json::from_str::<Record<'_>>(record.get()).ok().and_then(|record| record.notification);
        let body = notification.map_or("", RawValue::get);
        let id = serde_json::from_str::<Notification>(body).map(|notification| notification.id).unwrap_or_default();
        // The body is the notification, which is taken off like any envelope.
        let body = Some(Cow::Owned(body.as_bytes().to_vec()));
        Message::new("sns", Cow::Owned(id), body, Headers::default(), (None, now))
    };
    records.into_iter().map(message).collect()
}

/// Reads the event of a bus, which is the whole payload.
pub(super) fn bus_event(payload: &str, now: Millis) -> Vec<Message<'_>> {
    #[derive(Deserialize)]
    struct Event {
        id: String,
    }
    let id = serde_json::from_str::<Event>(payload).map(|event| event.id).unwrap_or_default();
    let body = Some(Cow::Borrowed(payload.as_bytes()));
    vec![Message::new("eventbridge", Cow::Owned(id), body, Headers::default(), (None, now))]
}

/// Handles an invocation's messages.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    trigger: &'static str,
    messages: &[Message<'_>],
    deadline: Millis,
) -> Result<Reply, HandlerError> {
    let (failed, counts) = process(ingest, messages, deadline).await;
    let failures = failed.iter().filter(|&&failed| failed).count();
    if failures > 0 {
        let (all, codes) = (messages.len(), counts.codes.keys().copied().collect::<Vec<_>>().join(", "));
        return Err(HandlerError(format!(
            "{failures} of {all} messages may not be applied ({codes}); Lambda has to invoke the function again"
        )));
    }
    Ok(Reply { trigger, status: None, counts, json: "{}".to_owned() })
}
