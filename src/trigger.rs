//! AWS envelopes in, answers out.
//!
//! Only the envelope is typed; a body is split into its events by our own code ([`split_body`]), so that one bad
//! event costs that event alone. Every trigger shares one step, `batch::resolve_events`, and answers in its own way.

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
use crate::manager::SessionManager;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use batch::Counts;
use envelope::Caller;

/// The ingest function: takes events from whoever calls it.
pub struct Ingest<S, C, O> {
    pub manager: SessionManager<S, C>,
    /// Where events from a queue go with their sessions on them.
    pub output: O,
    /// Where events and messages from a queue go that can never be understood.
    pub rejects: O,
}

/// An invocation that nobody can answer; what was found and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub(crate) String);

/// An answer, and what its line in the log says.
struct Reply {
    trigger: &'static str,
    /// Of an HTTP answer.
    status: Option<u16>,
    counts: Counts,
    text: String,
}

impl<S: SessionStorage, C: Clock, O: Output> Ingest<S, C, O> {
    /// Handles one invocation: its payload in, the answer's JSON out. Work stops in time before `deadline`.
    ///
    /// # Errors
    /// A payload of no known caller, or records of a Pipe that are not known to be applied. Whatever is wrong with single
    /// events is in the answer.
    pub async fn handle(&self, payload: &str, deadline: Millis) -> Result<String, HandlerError> {
        self.handle_as("", payload, deadline).await
    }

    /// As [`Ingest::handle`], of the invocation with this request id: by it a direct invocation that Lambda repeats is known to
    /// bring the same events again.
    ///
    /// # Errors
    /// As [`Ingest::handle`].
    pub async fn handle_as(&self, request_id: &str, payload: &str, deadline: Millis) -> Result<String, HandlerError> {
        let manager = &self.manager;
        let now = manager.clock().now();
        let reply = match Caller::of(payload) {
            Caller::Http2(envelope) => http::handle(manager, &http::Request::read_2(&envelope, now)?, deadline).await,
            Caller::Http1(envelope) => http::handle(manager, &http::Request::read_1(&envelope, now)?, deadline).await,
            Caller::Sqs(records) => sqs::handle(self, records, now, deadline).await?,
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
        Ok(reply.text)
    }
}

#[cfg(test)]
mod tests;
