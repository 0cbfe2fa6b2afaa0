//! Why an event belongs to its session, in the form of the API's answer.

use std::sync::Arc;

use chrono::NaiveDate;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::session::{Millis, Reason, UtmParams, datetime, rfc3339};

/// What [`Timeline::apply`](super::Timeline::apply) would decide about an event, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The event's id.
    pub uuid: String,
    /// The event time.
    #[serde(serialize_with = "write_time")]
    pub event_time: Millis,
    /// The ingestion time.
    #[serde(serialize_with = "write_time")]
    pub received_at: Millis,
    /// The rule that decided.
    pub rule: Rule,
    /// The session that the event would belong to.
    pub session: Option<ExplainedSession>,
    /// Whether the event came too late to be placed exactly.
    pub is_late: bool,
    /// The visitor's watermark: an event before it is late. `None` if nothing is finalized.
    #[serde(serialize_with = "write_optional_time")]
    pub watermark: Option<Millis>,
    /// The allowed lateness in milliseconds.
    pub allowed_lateness_ms: Millis,
    /// The session before the event, as it was compared with it. `None` if there is none, or if the event is a duplicate whose place
    /// is not known any more.
    pub session_before: Option<Comparison>,
    /// The session after a late event, as it was compared with it.
    pub session_after: Option<Comparison>,
    /// The ids that the request would merge into the session. They are told with the request's first event of that session.
    pub merges: Vec<Uuid>,
    /// The sessions of which the request would split the session off, or the other way around; told in the same way.
    pub splits: Vec<Split>,
}

impl Explanation {
    /// Returns the explanation of an event that gets no session.
    pub(crate) fn without_session(uuid: &str, at: Millis, received_at: Millis, rule: Rule, lateness: Millis) -> Self {
        Self {
            uuid: uuid.to_owned(),
            event_time: at,
            received_at,
            rule,
            session: None,
            is_late: false,
            watermark: None,
            allowed_lateness_ms: lateness,
            session_before: None,
            session_after: None,
            merges: Vec::new(),
            splits: Vec::new(),
        }
    }
}

/// The rule that decides about an event. Its name is that of the session's reason, or one of those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The event begins a session, for this reason.
    Begins(Reason),
    /// The event continues the session before it, because no rule ends that session.
    Continues,
    /// The event is late, and joins a session that is near enough.
    LateJoins,
    /// The event is late, and makes a session of its own.
    LateBegins,
    /// The event is known, and changes nothing.
    Duplicate,
    /// The event counts in no session, and is annotated with the session of its time.
    Annotated,
    /// The event counts in no session, and there is none at its time.
    NoSession,
    /// The event's `distinct_id` stands for nobody.
    Nobody,
    /// A bot sent the event, and the rules exclude bots.
    Bot,
    /// The service emitted the event itself.
    Lifecycle,
}

impl Rule {
    /// Returns the rule's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begins(reason) => reason.name(),
            Self::Continues => "continues",
            Self::LateJoins => "late_joins",
            Self::LateBegins => "late_begins",
            Self::Duplicate => "duplicate",
            Self::Annotated => "annotated",
            Self::NoSession => "no_session",
            Self::Nobody => "nobody",
            Self::Bot => "bot",
            Self::Lifecycle => "lifecycle",
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The session that an event would belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedSession {
    /// Its id.
    pub id: Uuid,
    /// Whether no event of it is known yet, so that its id would be given out for the first time.
    pub is_new: bool,
    /// Whether the event would be its first one.
    pub is_start: bool,
    /// Why it began.
    pub reason: Reason,
    /// Its number among the visitor's sessions, from 1.
    pub number: u32,
    /// The id of the session before it.
    pub previous_session_id: Option<Uuid>,
    /// The time of its first event.
    #[serde(serialize_with = "write_time")]
    pub started_at: Millis,
}

/// A session that an event was compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The session's id.
    pub session_id: Uuid,
    /// The time of its first event.
    #[serde(serialize_with = "write_time")]
    pub started_at: Millis,
    /// The time of its last event that is not passive, before this one.
    #[serde(serialize_with = "write_time")]
    pub last_activity: Millis,
    /// Whether the session is over and finalized, so that no event in time continues it. If no rule holds, the event begins a
    /// session with the reason `timeout` nevertheless: late events have extended this one since.
    pub is_finalized: bool,
    /// The rules, in the order in which they are asked. The first one that holds decides.
    pub rules: Vec<Check>,
}

/// A rule, and what it compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// The rule.
    pub rule: Reason,
    /// Whether the rule keeps the event out of the session.
    pub holds: bool,
    /// The values that it compared; `None` for a request that ended the session.
    #[serde(flatten)]
    pub compared: Option<Compared>,
}

/// The values that a rule compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Compared {
    /// A time with its limit, in milliseconds.
    Time {
        /// The gap or the duration.
        ms: Millis,
        /// The timeout or the maximum duration.
        max_ms: Millis,
    },
    /// The number of the session's events before this one, with its limit.
    Count {
        /// The number of events.
        events: u32,
        /// The maximum.
        max_events: u32,
    },
    /// The local days of the last activity and of the event.
    Days {
        /// That of the session.
        session: Option<NaiveDate>,
        /// That of the event.
        event: Option<NaiveDate>,
    },
    /// The campaigns.
    Campaigns {
        /// That of the session.
        session: Option<Arc<UtmParams>>,
        /// That of the event.
        event: Option<Arc<UtmParams>>,
    },
    /// The external referrers.
    Referrers {
        /// That of the session.
        session: Option<Arc<str>>,
        /// That of the event.
        event: Option<Arc<str>>,
    },
    /// The hashes of the click ids.
    Clicks {
        /// That of the session.
        session: Option<String>,
        /// That of the event.
        event: Option<String>,
    },
}

/// A session that is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Split {
    /// The session that is split.
    pub from: Uuid,
    /// The session that its later events belong to.
    pub into: Uuid,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn write_time<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(datetime(*at)))
}

#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn write_optional_time<S: Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| rfc3339(datetime(at))).serialize(serializer)
}
