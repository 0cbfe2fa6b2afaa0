//! A message that carries events: a queue's message, a stream's record, a topic's notification, an event of a bus. What differs
//! between their sources is decided when a message is made. From then on all are processed alike ([`super::process`]).

pub(super) mod reject;
mod wrapped;

use std::borrow::Cow;

use super::body::{BodyError, Limits, decode, form, is_json};
use super::envelope::{Headers, received_at};
use super::split_body::{Batch, split_body};
use crate::event::{Delivery, Origin, RejectCode};
use crate::session::Millis;
use reject::Reject;
pub(super) use wrapped::S3_TEST_EVENT;
use wrapped::{Content, Wrapped};

/// A message that carries events.
pub(super) struct Message<'a> {
    /// The id under which its source knows it.
    pub id: Cow<'a, str>,
    /// The kind of its source, as the rejects name it.
    source: &'static str,
    /// The id under which its events are deduplicated: its own, or that of the notification in it, which can arrive in several
    /// messages.
    origin_id: Cow<'a, str>,
    /// The messages of a group are kept in order: a message that follows a failed one fails, too.
    pub group: Option<Cow<'a, str>>,
    /// The body before it is decoded; `None` if the message is malformed.
    body: Option<Cow<'a, [u8]>>,
    /// Why the body cannot be decoded, if that is already known.
    fault: Option<BodyError>,
    headers: Headers<'a>,
    delivery: Delivery,
    limits: Limits,
    /// Whether it only tests a connection, as S3 does. It has no events, and is no failure.
    pub is_test: bool,
}

impl<'a> Message<'a> {
    /// Returns a message that was received at `sent`, if its source states this, and otherwise `now`. An envelope around its body
    /// is taken off.
    pub fn new(
        source: &'static str,
        id: Cow<'a, str>,
        body: Option<Cow<'a, [u8]>>,
        headers: Headers<'a>,
        (sent, now): (Option<Millis>, Millis),
    ) -> Self {
        // Only a pipeline can write to these sources, so `received_at` of its events is trusted.
        let delivery = Delivery { received_at: received_at(sent, now), trusts_received_at: true };
        let origin_id = id.clone();
        let message = Self {
            id,
            source,
            origin_id,
            group: None,
            body,
            fault: None,
            headers,
            delivery,
            limits: Limits::REQUEST,
            is_test: false,
        };
        message.unwrapped()
    }

    /// Returns a message of which nothing is read, because its body cannot be decoded.
    pub fn undecodable(source: &'static str, id: Cow<'a, str>, body: Cow<'a, [u8]>, fault: BodyError) -> Self {
        let times = (None, 0);
        Self { fault: Some(fault), ..Self::new(source, id, Some(body), Headers::default(), times) }
    }

    /// Puts the message into a group.
    pub fn in_group(self, group: Option<Cow<'a, str>>) -> Self {
        Self { group, ..self }
    }

    /// Sets the id under which the events are deduplicated, unless they came in an envelope that has its own.
    pub fn with_origin(self, origin_id: String) -> Self {
        if self.origin_id == self.id { Self { origin_id: Cow::Owned(origin_id), ..self } } else { self }
    }

    /// Sets the limits of the body.
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Takes off the envelopes of a topic or a bus.
    fn unwrapped(mut self) -> Self {
        for _ in 0..wrapped::MAX_NESTED {
            match self.body.as_deref().map_or(Content::Own, wrapped::content) {
                Content::Own => break,
                Content::Test => {
                    self.is_test = true;
                    break;
                }
                Content::Wrapped(Wrapped { id, body, headers, sent }) => {
                    self.headers = headers.or(self.headers);
                    self.delivery.received_at = received_at(sent, self.delivery.received_at);
                    (self.origin_id, self.body) = (Cow::Owned(id), Some(Cow::Owned(body)));
                }
            }
        }
        self
    }

    /// Returns how many bytes the body has before it is decoded.
    pub fn body_bytes(&self) -> usize {
        self.body.as_deref().map_or(0, <[u8]>::len)
    }

    /// Returns the limits of the body.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the origin of the message's event at `index`.
    pub fn origin(&self, index: usize, sent_at: Option<Millis>) -> Origin<'_> {
        Origin { delivery: self.delivery, id: &self.origin_id, index, sent_at, project: None, viewer: None }
    }

    /// Returns the decoded body.
    pub fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let encoding = self.headers.content_encoding.as_deref();
        let body = self.body.as_deref().ok_or(BodyError::Empty)?;
        // A queue's message holds only characters, so a compressed body is base64 as well. The body of a stream's record is bytes.
        let is_base64 = encoding.is_some_and(|name| !name.trim().eq_ignore_ascii_case("identity") && !is_json(body));
        decode(body, is_base64, encoding, self.limits.bytes)
    }

    /// Splits the decoded body into raw events.
    pub fn raw_events<'b>(&self, decoded: &'b Result<Cow<'_, [u8]>, BodyError>) -> Result<Batch<'b>, BodyError> {
        let body = decoded.as_ref().map_err(|&error| error)?;
        if self.is_test {
            return Ok(Batch { raw_events: Vec::new(), sent_at: None });
        }
        split_body(body, form(self.headers.content_type.as_deref())?, self.limits.events)
    }

    /// Returns the line in the rejects of an event of this message.
    pub fn rejected_event(&self, code: &str, why: &str, index: usize, event: &[u8]) -> String {
        Reject { source: self.source, message_id: &self.id, code, why, index: Some(index), raw: event }.line()
    }

    /// Returns the line in the rejects of a message that only tests a connection. Whoever wires a bucket to a queue of events
    /// by mistake finds it there.
    pub fn noted_test(&self) -> String {
        let raw = self.body.as_deref().unwrap_or_default();
        let (code, why) = (
            RejectCode::MissingDistinctId.name(),
            "S3 sends this once to test a notification; it has no events, and nothing is lost",
        );
        Reject { source: self.source, message_id: &self.id, code, why, index: None, raw }.line()
    }

    /// Returns the line in the rejects of this message, whose body cannot be read.
    pub fn rejected_body(&self, error: BodyError) -> String {
        let (code, why) = (error.code(), &*error.to_string());
        let raw = self.body.as_deref().unwrap_or_default();
        Reject { source: self.source, message_id: &self.id, code, why, index: None, raw }.line()
    }
}

#[cfg(test)]
mod tests;
