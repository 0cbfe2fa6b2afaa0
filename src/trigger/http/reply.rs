//! An answer, as API Gateway takes it.

use serde::Serialize;

use super::cors;
use crate::dialect;
use crate::trigger::answer::{self, json};

/// The longest `retry-after`, in seconds; the shortest is 1. The value is random, so that many callers do not retry at the
/// same moment.
const MAX_RETRY_AFTER_SECONDS: u64 = 5;

/// An answer without its envelope, which is the same for both payloads.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// The methods of the `allow` header.
    pub allow: Option<&'static str>,
    pub cors: Option<cors::Permission>,
    pub body: String,
    /// Whether the body is base64 of bytes.
    pub is_base64: bool,
}

impl Answer {
    pub fn new(status: u16, body: String) -> Self {
        Self { status, content_type: "application/json", allow: None, cors: None, body, is_base64: false }
    }

    /// An answer that consists of an error: a problem detail (RFC 9457). The member `error` is the form of the answers to events.
    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        #[derive(Serialize)]
        struct Problem<'a> {
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            error: answer::Problem<'a>,
        }
        let error = answer::Problem { code, message: detail };
        let problem = Problem { title: title(status), status, detail, code, error };
        Self { content_type: "application/problem+json", ..Self::new(status, json(&problem)) }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, String::new())
    }

    /// Takes an answer to a client.
    pub fn of(answer: dialect::answer::Answer) -> Self {
        let dialect::answer::Answer { status, content_type, body, is_base64 } = answer;
        Self { content_type, is_base64, ..Self::new(status, body) }
    }

    pub fn envelope(&self, random: u64) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            status_code: u16,
            headers: AnswerHeaders<'a>,
            body: &'a str,
            is_base64_encoded: bool,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct AnswerHeaders<'a> {
            content_type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            allow: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            www_authenticate: Option<&'static str>,
            #[serde(flatten)]
            cors: Option<&'a cors::Permission>,
        }
        let retry_after = (self.status == 503).then(|| (random % MAX_RETRY_AFTER_SECONDS + 1).to_string());
        let headers = AnswerHeaders {
            content_type: self.content_type,
            allow: self.allow,
            retry_after,
            // Not `Basic`: for that, a browser would ask the page's visitor for a password.
            www_authenticate: (self.status == 401).then_some("Bearer"),
            cors: self.cors.as_ref(),
        };
        json(&Envelope { status_code: self.status, headers, body: &self.body, is_base64_encoded: self.is_base64 })
    }
}

/// Returns the phrase of a status. It is the title of a problem without a type of its own.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    }
}
