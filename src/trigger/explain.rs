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
    let mut body = String::from("{\"explanations\":[");
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&line((index, outcome)));
        // Explanations of few bytes of events can have a hundred megabytes: each repeats the texts of its sessions.
        if body.len() > MAX_ANSWER_BYTES {
            return None;
        }
    }
    body.push_str("]}");
    (size(&body) <= MAX_ANSWER_BYTES).then_some(body)
}

/// Returns the first error of the store, if any; one that sending the request again can help comes first.
pub(super) fn failure(outcomes: &[EventOutcome<ExplainedEvent>]) -> Option<&SessionError> {
    let failed = || {
        outcomes.iter().filter_map(|outcome| if let EventOutcome::Failed(error) = outcome { Some(error) } else { None })
    };
    failed().find(|error| !matches!(error, SessionError::Corrupt { .. })).or_else(|| failed().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RejectCode, Rejection};

    /// A function must not run out of memory for an answer that it cannot give.
    #[test]
    fn what_is_too_large_is_not_written_to_its_end() {
        let outcome = |_| EventOutcome::Rejected(Rejection::new(RejectCode::InvalidJson, "x".repeat(1_000_000)));
        let outcomes: Vec<_> = (0..20).map(outcome).collect();
        assert!(body(&outcomes, |_| panic!("it was written to its end")).is_none());
        assert!(body(&outcomes[..2], str::len).is_some_and(|body| body.ends_with("}]}")));
        assert_eq!(body(&[], str::len).as_deref(), Some("{\"explanations\":[]}"));
    }
}
