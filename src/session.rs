//! A session and its parts: the visitor, the session id, the reason for its beginning, and an event's context.

mod context;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::SessionConfig;

pub(crate) use context::UTM_NAMES;
pub use context::{DeviceInfo, GeoInfo, SessionContext, UtmParams};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// Converts milliseconds to a [`DateTime`]. A time outside of chrono's range becomes 1970. It cannot occur, because event times
/// are bounded.
pub fn datetime(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Formats a time as the service writes all times: RFC 3339, in UTC, with milliseconds.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub(crate) fn write_time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn write_optional_time<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(rfc3339).serialize(serializer)
}

/// The visitor that a session belongs to. The same `distinct_id` in two projects is two visitors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Visitor {
    /// The project's name; empty if events name none.
    pub project: String,
    /// The visitor's id within the project.
    pub distinct_id: String,
}

impl From<&str> for Visitor {
    fn from(distinct_id: &str) -> Self {
        Self::new(distinct_id)
    }
}

impl From<&Self> for Visitor {
    fn from(visitor: &Self) -> Self {
        visitor.clone()
    }
}

impl Visitor {
    /// Returns the visitor with this id in the unnamed project.
    pub fn new(distinct_id: &str) -> Self {
        Self { project: String::new(), distinct_id: distinct_id.to_owned() }
    }

    /// Returns the visitor's 64 bits. They are the last 16 hexadecimal digits of all its session ids, and its partition key.
    ///
    /// The two highest bits are the UUID's variant, and the other 62 are a hash. The hash is cryptographic (SHA-256), so that
    /// nobody can create many visitors that share a partition. Two visitors with equal bits can still be found in about 2³¹
    /// attempts, so equal bits do not imply the same visitor.
    pub fn bits(&self) -> u64 {
        // `#` cannot be part of a project's name, so no two visitors share the hashed string.
        let digest = Sha256::new().chain_update(&self.project).chain_update("#").chain_update(&self.distinct_id);
        let [a, b, c, d, e, f, g, h, ..] = digest.finalize().0;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 2) | (0b10 << 62)
    }
}

/// Returns the visitor's bits in a session id ([`Visitor::bits`]).
pub fn visitor_bits(session_id: Uuid) -> u64 {
    session_id.as_u64_pair().1
}

/// Returns the time in a session id: that of the event that began the session.
pub(crate) fn id_time(session_id: Uuid) -> Millis {
    (session_id.as_u64_pair().0 >> 16) as Millis
}

/// Returns a session id: a UUID of version 7. A replay of the same events gives the same ids.
///
/// Its time is that of the session's first event, its next 12 bits are derived from that event's id, and the rest are the
/// visitor's bits. `salt` distinguishes the sessions that the same event has begun over time.
pub fn session_id(visitor_bits: u64, at: Millis, event_uuid: &str, salt: u16) -> Uuid {
    let event = xxh3_64(event_uuid.as_bytes()).wrapping_add(u64::from(salt));
    let high = (at.max(0).unsigned_abs() << 16) | 0x7000 | (event & 0xfff);
    Uuid::from_u64_pair(high, visitor_bits)
}

/// Returns the fingerprint by which a finalized event is recognized as a duplicate: 48 bits of its id's hash. In a session of
/// 1,000 events, the chance that a new event is taken for a duplicate is 4 in 10¹².
pub fn fingerprint(event_uuid: &str) -> u64 {
    xxh3_64(event_uuid.as_bytes()) & 0xffff_ffff_ffff
}

/// An event's id, with its fingerprint. Cloning it is cheap, because the string is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    id: Arc<str>,
    fingerprint: u64,
}

impl EventId {
    /// Returns the event id with its fingerprint.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), fingerprint: fingerprint(id) }
    }

    /// Returns the id's [`fingerprint()`].
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl Deref for EventId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.id
    }
}

/// What a library call records in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventType {
    /// A view of the page with this URL.
    Pageview(String),
    /// Any other event.
    Event,
}

/// Why a session began. The rules are checked in this order, and the first one that holds is the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the visitor's first known session.
    First,
    /// A request ended the session before.
    Explicit,
    /// The gap since the last activity is longer than the timeout.
    Timeout,
    /// The session before had reached its maximum duration.
    MaxDuration,
    /// The event is on another local day than the last one, and the rule `midnight` is on.
    Midnight,
    /// The session before had reached its maximum number of events.
    MaxEvents,
    /// The event has another campaign.
    UtmChange,
    /// The event has another external referrer.
    ReferrerChange,
    /// The event has another click id, and the rule `new_session_on_click_id_change` is on.
    ClickIdChange,
}

impl Reason {
    /// Returns the reason's name in events and in stored sessions.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Explicit => "explicit",
            Self::Timeout => "timeout",
            Self::MaxDuration => "max_duration",
            Self::Midnight => "midnight",
            Self::MaxEvents => "max_events",
            Self::UtmChange => "utm_change",
            Self::ReferrerChange => "referrer_change",
            Self::ClickIdChange => "click_id_change",
        }
    }

    /// Returns whether the source of an event is the reason, and not time or counts.
    pub fn is_of_source(self) -> bool {
        matches!(self, Self::UtmChange | Self::ReferrerChange | Self::ClickIdChange)
    }
}

/// How many events of a name a session has, and the sum of their values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventTotal {
    /// The number of events.
    pub count: u32,
    /// The sum, a decimal number with at most six digits after the point. `None` if no event had a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<Box<RawValue>>,
}

/// A session as library callers and the API see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// A UUID of version 7; see [`session_id`].
    pub id: String,
    /// The visitor's project; empty if its events name none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The visitor's id within the project.
    pub distinct_id: String,
    /// Why the session began.
    pub reason: Reason,
    /// The session's position among the visitor's sessions, from 1.
    pub number: u32,
    /// The id of the session before it.
    pub previous_session_id: Option<String>,
    /// The time of its first event.
    #[serde(serialize_with = "write_time")]
    pub started_at: DateTime<Utc>,
    /// The time of its last event that is not passive.
    #[serde(serialize_with = "write_time")]
    pub last_activity: DateTime<Utc>,
    /// The time of the last activity, if the session is over. It is never the time of the timeout or of the close function.
    #[serde(serialize_with = "write_optional_time")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The number of page views.
    pub page_views: u32,
    /// The number of events, including page views.
    pub event_count: u32,
    /// The first URL in the session.
    pub entry_url: Option<String>,
    /// The first event's external referrer, as the event has it.
    pub referrer: Option<String>,
    /// The first event's campaign.
    pub utm: Option<UtmParams>,
    /// The first page viewed.
    pub landing_page: Option<String>,
    /// The last page viewed.
    pub exit_page: Option<String>,
    /// The device of the first event that has one.
    pub device: Option<DeviceInfo>,
    /// The place of the first event that has one.
    pub geo: Option<GeoInfo>,
    /// The user of the last event that names one in `$user_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Custom properties from the events' `$session_properties`. The last value of a key wins.
    pub properties: BTreeMap<String, Box<RawValue>>,
    /// The events that `counted_events` names, by their names. Those that did not occur are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, EventTotal>,
    /// Whether an event at this moment, without a source, would continue the session.
    pub is_active: bool,
    /// Increases with every change. Of two versions of a session, the higher one is right.
    pub version: u64,
}

impl Session {
    /// Returns the time from the first event to the last activity, in whole seconds.
    pub fn duration_seconds(&self) -> i64 {
        (self.ended_at.unwrap_or(self.last_activity) - self.started_at).num_seconds()
    }

    /// Returns whether the timeout has passed since the last activity, so that an event at `now` would begin another session.
    pub fn is_timed_out(&self, config: &SessionConfig, now: DateTime<Utc>) -> bool {
        config.is_timeout((now - self.last_activity).num_milliseconds())
    }

    /// Returns whether the session has reached its maximum duration, so that an event at `now` would begin another session.
    pub fn is_expired(&self, config: &SessionConfig, now: DateTime<Utc>) -> bool {
        now - self.started_at > config.max_duration
    }

    /// Returns whether the session is one page view and no other event. Returns `None` if it has no page view.
    pub fn is_bounce(&self) -> Option<bool> {
        (self.page_views > 0).then_some(self.page_views == 1 && self.event_count == 1)
    }
}

#[cfg(test)]
mod tests;
