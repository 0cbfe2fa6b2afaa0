//! The triggers: AWS envelopes in, answers out.
//!
//! Only the envelope has a type. Our own splitter ([`split_body`]) splits a body into raw events, so that one bad event
//! does not reject the others. All triggers share one step, `batch::resolve_events`; each writes its own kind of answer.

mod alb;
mod answer;
mod asynchronous;
mod batch;
pub mod body;
mod bounds;
mod direct;
mod envelope;
mod explain;
mod firehose;
mod http;
mod kinesis;
mod message;
mod pipe;
mod process;
#[cfg(feature = "replay")]
mod recordings;
mod rewritten;
pub mod schedule;
pub mod split_body;
mod sqs;
mod visitor;

use crate::clock::Clock;
use crate::config::{AllowedOrigins, PublicAccess};
use crate::manager::SessionManager;
use crate::metrics::MetricLine;
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use batch::{Counts, Placed, ProjectCounts};
use envelope::{Caller, PipeSource};
use message::Message;

/// The ingest function: takes events from every trigger.
pub struct Ingest<S, C, O> {
    /// Assigns the events to sessions.
    pub manager: SessionManager<S, C>,
    /// Receives the annotated events of sources that read no answer, such as a queue or a tracking client.
    pub output: O,
    /// Receives the events and messages of such sources that can never be processed, because they are invalid.
    pub rejects: O,
    /// The origins whose pages may send requests and read the answers.
    pub origins: AllowedOrigins,
    /// What HTTP requests without credentials are answered, and how much they may do.
    pub public: PublicAccess,
}

/// What the function is in an EventBridge Pipe that invokes it. The payload is the same for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PipeRole {
    /// The Pipe's enrichment: the answer has the annotated events, which the Pipe hands to its target.
    #[default]
    Enrichment,
    /// The Pipe's target: the annotated events go to the output, and the answer names the records to redeliver.
    Target,
}

/// An invocation that fails as a whole. The message names what was found and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub(crate) String);

/// The answer to an invocation, and what came of its events.
#[derive(Debug)]
pub struct Handled {
    trigger: &'static str,
    /// The HTTP status; `None` for other triggers.
    status: Option<u16>,
    counts: Counts,
    /// The answer's JSON.
    pub json: String,
}

/// What a trigger returns.
type Reply = Handled;

impl Handled {
    /// Adds the counts to an invocation's line.
    pub fn measure(&self, line: &mut MetricLine) {
        let Counts { applied, rejected, failed, redelivered, placed, codes } = &self.counts;
        line.field("trigger", self.trigger);
        if let Some(status) = self.status {
            line.field("status", status);
        }
        line.count("EventsApplied", *applied as u64);
        line.count("EventsRejected", *rejected as u64);
        line.count("EventsFailed", *failed as u64);
        line.count_if_any("EventsDuplicate", placed.duplicates as u64);
        line.count_if_any("EventsLate", placed.late as u64);
        line.count_if_any("MessagesRedelivered", *redelivered as u64);
        line.count("SessionsStarted", placed.started.values().sum::<usize>() as u64);
        line.counts_by("SessionsStarted", placed.started.iter().map(|(&reason, &count)| (reason, count)));
        line.counts_by("Code", codes.iter().map(|(&code, &count)| (code, count)));
        for (project, counts) in &placed.by_project {
            let ProjectCounts { applied, failed, duplicates, late, started } = *counts;
            line.count_of_project(project, "EventsApplied", applied as u64);
            line.count_of_project(project, "EventsFailed", failed as u64);
            line.count_of_project(project, "EventsDuplicate", duplicates as u64);
            line.count_of_project(project, "EventsLate", late as u64);
            line.count_of_project(project, "SessionsStarted", started as u64);
        }
    }

    /// Writes the counts to the log, as fields.
    fn log(&self) {
        let Counts { applied, rejected, failed, redelivered, codes, placed } = &self.counts;
        let Placed { duplicates, late, .. } = placed;
        // Of a code there is one field with its count only in the functions' own line: a log's fields have fixed names.
        let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{code}={count}")).collect();
        let codes = codes.join(" ");
        let (trigger, status) = (self.trigger, self.status);
        tracing::info!(trigger, status, applied, duplicates, late, rejected, failed, redelivered, codes, "handled");
    }
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
        self.handle_in_pipe(PipeRole::Enrichment, request_id, payload, deadline).await
    }

    /// Handles one invocation, like [`Ingest::handle_as`], and knows what the function is in a Pipe.
    ///
    /// # Errors
    /// See [`Ingest::handle`].
    pub async fn handle_in_pipe(
        &self,
        role: PipeRole,
        request_id: &str,
        payload: &str,
        deadline: Millis,
    ) -> Result<String, HandlerError> {
        let handled = self.handle_measured(role, request_id, payload, deadline).await?;
        handled.log();
        Ok(handled.json)
    }

    /// Handles one invocation, like [`Ingest::handle_in_pipe`], and returns what came of it instead of logging it.
    ///
    /// # Errors
    /// See [`Ingest::handle`].
    pub async fn handle_measured(
        &self,
        role: PipeRole,
        request_id: &str,
        payload: &str,
        deadline: Millis,
    ) -> Result<Handled, HandlerError> {
        let manager = &self.manager;
        let now = manager.clock().now();
        let reply = match Caller::of(payload) {
            Caller::Http2(envelope) => http::handle(self, &http::Request::read_2(&envelope, now)?, deadline).await,
            Caller::Http1(envelope) => http::handle(self, &http::Request::read_1(&envelope, now)?, deadline).await,
            Caller::Alb(envelope) => {
                let reply = http::handle(self, &http::Request::read_1(&envelope, now)?, deadline).await;
                alb::answer(&envelope, reply)?
            }
            Caller::Sqs(records) => sqs::handle(self, sqs::messages(records, now), deadline).await,
            Caller::Kinesis(records) => {
                let records = records_of(kinesis::messages(records, now))?;
                kinesis::handle(self, records.into_iter().flatten().collect(), deadline).await
            }
            Caller::Firehose => firehose::handle(self, payload, now, deadline).await?,
            Caller::Sns(records) => {
                asynchronous::handle(self, "sns", &asynchronous::notifications(records, now), deadline).await?
            }
            Caller::EventBridge => {
                asynchronous::handle(self, "eventbridge", &asynchronous::bus_event(payload, now), deadline).await?
            }
            Caller::Pipe(source) => self.handle_pipe(source, role, payload, now, deadline).await?,
            Caller::S3Test => {
                Reply { trigger: "s3_test", status: None, counts: Counts::default(), json: "{}".to_owned() }
            }
            Caller::Events => direct::ingest(manager, payload, request_id, now, deadline).await,
            Caller::GetSession(id) => direct::get(manager, id).await,
            Caller::EndSession(id) => direct::end(manager, id).await,
            // Boxed, so that the futures of all other callers stay small.
            Caller::Explain(body) => Box::pin(direct::explain(manager, body, request_id, now, deadline)).await,
            Caller::EraseVisitor => Box::pin(direct::erase(self, payload)).await,
            Caller::Unknown(what) => {
                return Err(HandlerError(format!(
                    "the payload is {what}; the ingest function takes requests of an API Gateway, a function URL or a load \
                     balancer, records of SQS, Kinesis, Firehose and SNS (of SQS and Kinesis from an EventBridge Pipe, too), events of \
                     an EventBridge bus, and by direct invocation `{{\"events\":[…]}}`, `{{\"get_session\":\"id\"}}`, \
                     `{{\"end_session\":\"id\"}}`, `{{\"erase_visitor\":\"distinct_id\"}}` or `{{\"explain\":[…]}}`"
                )));
            }
        };
        Ok(reply)
    }

    async fn handle_pipe(
        &self,
        source: PipeSource,
        role: PipeRole,
        payload: &str,
        now: Millis,
        deadline: Millis,
    ) -> Result<Reply, HandlerError> {
        let records = records_of(match source {
            PipeSource::Sqs => sqs::record::of_array(payload)
                .map(|records| records.into_iter().map(|record| vec![sqs::message(record, now)]).collect()),
            PipeSource::Kinesis => kinesis::messages(payload, now),
        })?;
        if role == PipeRole::Enrichment {
            return pipe::handle(self, records, deadline).await;
        }
        let messages = records.into_iter().flatten().collect();
        Ok(match source {
            PipeSource::Sqs => sqs::handle(self, messages, deadline).await,
            PipeSource::Kinesis => kinesis::handle(self, messages, deadline).await,
        })
    }
}

/// The messages of each record of an array.
type Records<'a> = Vec<Vec<Message<'a>>>;

fn records_of(records: Result<Records<'_>, serde_json::Error>) -> Result<Records<'_>, HandlerError> {
    records.map_err(|_| HandlerError("the payload's records are not an array of JSON values".to_owned()))
}

/// Reads a queue's payload as far as the bodies of its messages, and returns how many bytes they have: what `benches/figures`
/// compares with one pass of `serde_json`.
#[doc(hidden)]
pub fn read_queue(payload: &str, now: Millis) -> usize {
    let Caller::Sqs(records) = Caller::of(payload) else { return 0 };
    records.into_iter().map(|record| sqs::message(record, now).body_bytes()).sum()
}

#[cfg(test)]
mod tests;
