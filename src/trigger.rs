//! The triggers: AWS envelopes in, answers out.
//!
//! Only the envelope has a type. Our own scanner ([`split_body`]) splits a body into raw events, so that one bad event
//! does not reject the others. All triggers share one step, `batch::resolve_events`; each writes its own kind of answer.

mod answer;
mod batch;
pub mod body;
mod direct;
mod envelope;
mod http;
mod pipe;
pub mod schedule;
pub mod split_body;
mod sqs;

use crate::clock::Clock;
use crate::config::AllowedOrigins;
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use batch::Counts;
use envelope::Caller;

/// The ingest function: takes events from every trigger.
pub struct Ingest<S, C, O> {
    /// Assigns the events to sessions.
    pub manager: SessionManager<S, C>,
    /// Receives the annotated events of a queue, and of clients that do not read them.
    pub output: O,
    /// Receives the events and messages of these that can never be processed, because they are invalid.
    pub rejects: O,
    /// The origins whose pages may send requests and read the answers.
    pub origins: AllowedOrigins,
}

/// An invocation that fails as a whole. The message names what was found and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub(crate) String);

/// An answer, and the fields of its log line.
struct Reply {
    trigger: &'static str,
    /// The HTTP status; `None` for other triggers.
    status: Option<u16>,
    counts: Counts,
    /// The answer's JSON.
    json: String,
}

impl<S: SessionStorage, C: Clock, O: Output> Ingest<S, C, O> {
    /// Handles one invocation: takes its payload and returns the answer's JSON. Work stops before `deadline`, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// The payload comes from an unknown caller, or an event of a Pipe may not be applied. Errors of single events are part
    /// of the answer.
    pub async fn handle(&self, payload: &str, deadline: Millis) -> Result<String, HandlerError> {
        self.handle_as("", payload, deadline).await
    }

    /// Handles one invocation, like [`Ingest::handle`], and knows its request id. Lambda retries a failed direct invocation
    /// under the same id, so that its events are recognized as duplicates.
    ///
    /// # Errors
    /// See [`Ingest::handle`].
    pub async fn handle_as(&self, request_id: &str, payload: &str, deadline: Millis) -> Result<String, HandlerError> {
        let manager = &self.manager;
        let now = manager.clock().now();
        let reply = match Caller::of(payload) {
            Caller::Http2(envelope) => http::handle(self, &http::Request::read_2(&envelope, now)?, deadline).await,
            Caller::Http1(envelope) => http::handle(self, &http::Request::read_1(&envelope, now)?, deadline).await,
            Caller::Sqs(records) => sqs::handle(self, records, now, deadline).await,
            Caller::Pipe => pipe::handle(self, payload, now, deadline).await?,
            Caller::Events => direct::ingest(manager, payload, request_id, now, deadline).await,
            Caller::GetSession(id) => direct::get(manager, id).await,
            Caller::EndSession(id) => direct::end(manager, id).await,
            Caller::Unknown(what) => {
                return Err(HandlerError(format!(
                    "the payload is {what}; the ingest function takes requests of an API Gateway or a function URL, SQS \
                     records (from an EventBridge Pipe too), and by direct invocation `{{\"events\":[…]}}`, `{{\"get_session\":\"id\"}}` or \
                     `{{\"end_session\":\"id\"}}`"
                )));
            }
        };
        let Counts { applied, rejected, failed, redelivered, codes } = &reply.counts;
        tracing::info!(
            trigger = reply.trigger,
            status = reply.status,
            applied,
            rejected,
            failed,
            redelivered,
            ?codes,
            "handled"
        );
        Ok(reply.json)
    }
}

/// Reads a queue's payload as far as the bodies of its messages, and returns how many bytes they have: what `benches/figures`
/// compares with one pass of `serde_json`.
#[doc(hidden)]
pub fn read_queue(payload: &str, now: Millis) -> usize {
    let Caller::Sqs(records) = Caller::of(payload) else { return 0 };
    records.into_iter().map(|record| sqs::Message::new(record, now).body_bytes()).sum()
}

#[cfg(test)]
mod tests;
