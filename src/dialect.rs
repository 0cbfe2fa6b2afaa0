//! The dialects of other tracking clients: their requests, translated into events of our own format.
//!
//! A team that already tracks with PostHog, Segment, RudderStack, Snowplow, Mixpanel, Amplitude or Matomo changes the client's host,
//! and the events arrive here. [`Endpoint::of`] recognizes a client by the end of the path. [`sniff::text`] decodes the body by its
//! bytes, because clients declare wrong types. [`translate`] turns the body into events, and [`answer`] writes what the client takes
//! for success. Nothing here awaits or reads a clock.
//!
//! What each dialect maps, and what it cannot, is in `docs/dialects.md`.

mod amplitude;
pub mod answer;
mod endpoint;
mod event;
mod json;
mod matomo;
mod mixpanel;
mod posthog;
#[cfg(feature = "replay")]
pub mod recordings;
mod rudderstack;
mod segment;
pub mod sniff;
mod snowplow;

use std::borrow::Cow;

use crate::event::{RejectCode, Rejection};
use crate::session::Millis;
pub use endpoint::{Endpoint, Family};
pub use event::{ClientEvent, Standing};

/// Limit of the bytes of a body after decoding: 6 MB, Lambda's own limit. PostHog's and RudderStack's clients send up to 5 MB.
pub const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
/// Limit of the events of a request. No client sends more than 2,000 at once.
pub const MAX_EVENTS: usize = 10_000;

/// A request, as it was received.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with any prefix.
    pub path: &'a str,
    /// The query, still encoded.
    pub query: &'a str,
    /// Returns the value of a header, by its name in lower case.
    pub header: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The body as the client sent it, compressed or as a form.
    pub body: &'a [u8],
    /// When the request was received.
    pub received_at: Millis,
}

impl Head<'_> {
    /// Returns the first value of a parameter of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Returns the user name of `Authorization: Basic`, which is where clients put a write key.
    fn basic_user(&self) -> Option<String> {
        let value = (self.header)("authorization")?;
        let (scheme, encoded) = value.split_once(' ')?;
        let decoded = sniff::base64(encoded.as_bytes()).filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(decoded).ok()?;
        text.split(':').next().filter(|user| !user.is_empty()).map(str::to_owned)
    }

    /// Returns the token of `Authorization: Bearer`.
    fn bearer(&self) -> Option<String> {
        let value = (self.header)("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.trim().to_owned())
    }
}

/// A request's events, translated.
#[derive(Debug)]
pub struct Translation<'t> {
    /// Whose client sent the request.
    pub family: Family,
    /// The key that names the client's project, if the request has one.
    pub write_key: Option<String>,
    /// The events, in the order of the request.
    pub items: Vec<Item<'t>>,
}

/// An event of a request.
#[derive(Debug)]
pub struct Item<'t> {
    /// The client's own JSON of the event, or its query.
    pub source: Cow<'t, str>,
    /// The client's id of the event, by which PostHog's v1 answers.
    pub id: Option<String>,
    /// The event in our own format, or why it cannot be used.
    pub event: Result<ClientEvent, Rejection>,
}

/// Translates a decoded body.
///
/// # Errors
/// The body is not what the endpoint's clients send. Faults of single events are part of the translation.
pub fn translate<'t>(endpoint: Endpoint, head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    match endpoint {
        Endpoint::PostHog(family) => posthog::translate(family, head, text),
        #[cfg(feature = "replay")]
        Endpoint::PostHogRecordings => posthog::translate(Family::PostHog, head, text),
        Endpoint::Segment => segment::translate(head, text),
        Endpoint::Batch => match amplitude::translate(text) {
            Ok(translation) => Ok(translation),
            Err(why) if why.code == RejectCode::TooLarge => Err(why),
            Err(_) => posthog::translate(Family::PostHog, head, text),
        },
        Endpoint::SnowplowPost => snowplow::translate_post(text),
        Endpoint::SnowplowPixel => snowplow::translate_query(text),
        Endpoint::MixpanelEvents => mixpanel::translate(head, text),
        Endpoint::Amplitude => amplitude::translate(text),
        Endpoint::Matomo => matomo::translate(head, text),
        Endpoint::PostHogConfig
        | Endpoint::PostHogScript
        | Endpoint::PostHogFlags
        | Endpoint::SegmentSettings
        | Endpoint::RudderStackConfig
        | Endpoint::MixpanelProfiles => Err(not_a_body("this path takes no events")),
    }
}

/// The fault of a body that is not what the path takes.
fn not_a_body(message: &str) -> Rejection {
    Rejection::new(RejectCode::InvalidJson, message)
}
