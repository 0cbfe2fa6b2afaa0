//! The answer of `POST /v1/explain` and of `{"explain":…}` by direct invocation: what would become of each event, and why.

use serde::Serialize;

use super::answer::{MAX_ANSWER_BYTES, json};
use super::batch::{EventOutcome, advice};
use crate::event::{Event, TimeFlag};
use crate::storage::SessionError;
use crate::timeline::Explanation;

/// An event that would be applied, and why it belongs to its session.
#[derive(Debug, Serialize)]
pub(super) struct ExplainedEvent {
    #[serde(skip_serializing_if = "String::is_empty")]
    project: String,
    distinct_id: String,
    /// What is wrong with the event's time: see `$time_flag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_flag: Option<&'static str>,
    #[serde(flatten)]
    explanation: Explanation,
}

impl ExplainedEvent {
    pub fn of(event: &Event<'_>, explanation: Explanation) -> Self {
        Self {
            project: event.project.clone().into_owned(),
            distinct_id: event.distinct_id.clone().into_owned(),
            time_flag: event.time_flag.map(TimeFlag::name),
            explanation,
        }
    }
}

/// An event that would be rejected, or whose visitor could not be read.
#[derive(Serialize)]
struct Unexplained<'a> {
    index: usize,
    rule: &'static str,
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Explained<'a> {
    index: usize,
    #[serde(flatten)]
    event: &'a ExplainedEvent,
}

/// The message of an answer that is larger than Lambda lets pass.
pub(super) const TOO_LARGE_MESSAGE: &str = "the answer is larger than 6 MB; send fewer events at once";

/// Returns the answer's body. Returns `None` if it is too large, by the bytes that it takes in the answer.
pub(super) fn body(outcomes: &[EventOutcome<ExplainedEvent>], size: impl Fn(&str) -> usize) -> Option<String> {
    let line = |(index, outcome): (usize, &EventOutcome<ExplainedEvent>)| match outcome {
        EventOutcome::Applied(event) => json(&Explained { index, event }),
        EventOutcome::Rejected(why) => {
            json(&Unexplained { index, rule: "rejected", code: why.code.name(), message: &why.message })
        }
        EventOutcome::Failed(why) => {
            json(&Unexplained { index, rule: "failed", code: why.code(), message: advice(why) })
        }
    };
    let lines: Vec<String> = outcomes.iter().enumerate().map(line).collect();
    let body = format!("{{\"explanations\":[{}]}}", lines.join(","));
    (size(&body) <= MAX_ANSWER_BYTES).then_some(body)
}

/// Returns the first error of the store, if any; one that sending the request again can help comes first.
pub(super) fn failure(outcomes: &[EventOutcome<ExplainedEvent>]) -> Option<&SessionError> {
    let failed = || {
        outcomes.iter().filter_map(|outcome| if let EventOutcome::Failed(error) = outcome { Some(error) } else { None })
    };
    failed().find(|error| !matches!(error, SessionError::Corrupt { .. })).or_else(|| failed().next())
}
