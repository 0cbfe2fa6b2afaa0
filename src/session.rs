//! A session and what identifies it: the visitor, the session id, and what an event says of where it came from.

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

/// Turns milliseconds into the public time type. Times outside chrono's range cannot occur: events are bounded.
pub fn datetime(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The form of all times that the service writes: RFC 3339, in UTC, with milliseconds.
pub fn time_text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn write_time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(*at))
}

#[allow(clippy::ref_option, reason = "serde gives the field by reference")]
fn write_optional_time<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(time_text).serialize(serializer)
}

/// Who a session belongs to. The same `distinct_id` in two projects is two visitors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Visitor {
    /// The project's name; empty where events name none.
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
    /// A visitor of the unnamed project.
    pub fn new(distinct_id: &str) -> Self {
        Self { project: String::new(), distinct_id: distinct_id.to_owned() }
    }

    /// Returns the visitor's 64 bits: the last 16 hexadecimal digits of all its session ids, and its partition key.
    /// 62 bits are a hash; the two highest are the UUID's variant.
    ///
    /// The hash is a cryptographic one, so that nobody can make many visitors of one partition. Two visitors with equal bits can
    /// still be found, by some 2³¹ attempts: nothing may take equal bits for the same visitor.
    pub fn bits(&self) -> u64 {
        // `#` cannot be part of a project's name, so no two visitors share the hashed text.
        let digest = Sha256::new().chain_update(&self.project).chain_update("#").chain_update(&self.distinct_id);
        let [a, b, c, d, e, f, g, h, ..] = digest.finalize().0;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 2) | (0b10 << 62)
    }
}

/// The visitor's bits within a session id.
pub fn visitor_bits(session_id: Uuid) -> u64 {
    session_id.as_u64_pair().1
}

/// A session id: a UUID of version 7. Its time is that of the session's first event, its next 12 bits derive from that
/// event, the rest from the visitor, so the same input gives the same id on every replay. `salt` tells apart
/// the sessions that one event has begun over time.
pub fn session_id(visitor_bits: u64, at: Millis, event_uuid: &str, salt: u16) -> Uuid {
    let event = xxh3_64(event_uuid.as_bytes()).wrapping_add(u64::from(salt));
    let high = (at.max(0).unsigned_abs() << 16) | 0x7000 | (event & 0xfff);
    Uuid::from_u64_pair(high, visitor_bits)
}

/// What a finalized event is remembered by: 48 bits of its id's hash. Among a session's thousand
/// events a new one is mistaken for a repeated one with a chance of 4 in 10¹².
pub fn fingerprint(event_uuid: &str) -> u64 {
    xxh3_64(event_uuid.as_bytes()) & 0xffff_ffff_ffff
}

/// An event's id, with its fingerprint. A copy costs next to nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    text: Arc<str>,
    fingerprint: u64,
}

impl EventId {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), fingerprint: fingerprint(text) }
    }

    /// The id's [`fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl Deref for EventId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// What an update of a session records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventType {
    /// A view of the page at this address.
    Pageview(String),
    /// Anything else.
    Event,
}

/// Why a session began: the first of these, in this order, that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The visitor's first known session.
    First,
    /// The session before was ended by a call.
    Explicit,
    /// The gap since the last activity is longer than the timeout.
    Timeout,
    /// The session before had reached its maximum duration.
    MaxDuration,
    /// Another local day, where the `midnight` rule is on.
    Midnight,
    /// The session before had reached its maximum number of events.
    MaxEvents,
    /// Another campaign.
    UtmChange,
    /// Another external referrer.
    ReferrerChange,
    /// Another click id, where that rule is on.
    ClickIdChange,
}

impl Reason {
    /// The reason's name in events and in stored sessions.
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
}

/// A session as callers see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// A UUID of version 7; see [`session_id`].
    pub id: String,
    /// The visitor's project; empty where its events name none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The visitor.
    pub distinct_id: String,
    /// Why the session began.
    pub reason: Reason,
    /// The session's place among the visitor's sessions, from 1.
    pub number: u32,
    /// The session before it.
    pub previous_session_id: Option<String>,
    #[serde(serialize_with = "write_time")]
    pub started_at: DateTime<Utc>,
    /// The time of the last event that counts.
    #[serde(serialize_with = "write_time")]
    pub last_activity: DateTime<Utc>,
    /// Once the session is over: its last activity, never the time at which somebody noticed.
    #[serde(serialize_with = "write_optional_time")]
    pub ended_at: Option<DateTime<Utc>>,
    pub page_views: u32,
    /// Page views included.
    pub event_count: u32,
    /// The first address in the session.
    pub entry_url: Option<String>,
    /// The first event's external referrer, as it came.
    pub referrer: Option<String>,
    /// The first event's campaign.
    pub utm: Option<UtmParams>,
    /// The first page viewed.
    pub landing_page: Option<String>,
    /// The last page viewed.
    pub exit_page: Option<String>,
    pub device: Option<DeviceInfo>,
    pub geo: Option<GeoInfo>,
    /// Custom properties, from the events' `$session_properties`; the last value of a key wins.
    pub properties: BTreeMap<String, Box<RawValue>>,
    /// Whether an event that came now, with nothing new about it, would continue the session.
    pub is_active: bool,
    /// Rises with every change: of two accounts of a session the one with the higher version is right.
    pub version: u64,
}

impl Session {
    /// From the first to the last activity, in whole seconds.
    pub fn duration_seconds(&self) -> i64 {
        (self.ended_at.unwrap_or(self.last_activity) - self.started_at).num_seconds()
    }

    /// Returns whether the timeout has passed since the last activity: an event at `now` would begin another session.
    pub fn is_timed_out(&self, config: &SessionConfig, now: DateTime<Utc>) -> bool {
        config.is_timeout((now - self.last_activity).num_milliseconds())
    }

    /// Returns whether the session has reached its maximum duration: an event at `now` would begin another session.
    pub fn is_expired(&self, config: &SessionConfig, now: DateTime<Utc>) -> bool {
        now - self.started_at > config.max_duration
    }

    /// Whether one page was viewed and nothing else happened; none where no page was viewed at all.
    pub fn is_bounce(&self) -> Option<bool> {
        (self.page_views > 0).then_some(self.page_views == 1 && self.event_count == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_time_and_its_visitor() {
        let visitor = Visitor::new("u1");
        let id = session_id(visitor.bits(), 1_773_144_000_123, "e1", 0);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_773_144_000_123);
        assert_eq!(visitor_bits(id), visitor.bits());
        assert_ne!(id, session_id(visitor.bits(), 1_773_144_000_123, "e1", 1));
    }

    /// What derives from hashes is part of what is stored and of what others have seen: it never changes.
    #[test]
    fn hashes_stay_what_they_are() {
        let (here, there) = (Visitor::new("u1"), Visitor { project: "p".to_owned(), ..Visitor::new("u1") });
        assert_eq!([here.bits(), there.bits()], [0x9205_d694_bcc7_27e6, 0xb2fc_a992_8434_26ff]);
        let id = |salt| session_id(here.bits(), 1_773_144_000_123, "e1", salt).to_string();
        assert_eq!([id(0), id(1)], ["019cd79e-467b-7aef-9205-d694bcc727e6", "019cd79e-467b-7af0-9205-d694bcc727e6"]);
        assert_eq!(fingerprint("e1"), 0x2402_3b50_eaef);
        assert_eq!([&here, &there].map(crate::storage::due_shard), [38, 63]);
    }

    #[test]
    fn one_page_and_nothing_else_is_a_bounce() {
        let bounce = |page_views, event_count| {
            let mut state = crate::model::SessionState::empty(Uuid::nil());
            (state.facts.page_views, state.facts.event_count) = (page_views, event_count);
            state.ended_session(&Visitor::new("u")).is_bounce()
        };
        assert_eq!(
            [(1, 1), (1, 2), (2, 2)].map(|(views, events)| bounce(views, events)),
            [true, false, false].map(Some)
        );
        assert_eq!([bounce(0, 0), bounce(0, 1)], [None, None]);
    }
}
